"""Scores with other bars to come, and as a whole."""
from dataclasses import replace

import numpy as np, pytest

from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import sample_candles
from sslts_nb.labels import Fold
from sslts_nb.anomaly import (combined_scores, fit_scores, isolation_scores, knn_scores, leftover_scores,
                              mahalanobis_scores, max_z_scores, rarity)

use_threads(1)  # as the book runs; several threads need not agree to the last bit


@pytest.mark.parametrize("score", [max_z_scores, mahalanobis_scores, knn_scores, leftover_scores,
                                   isolation_scores])
def test_what_is_normal_is_learnt_from_the_training_rows(score):
    """With other rows after the training end the scores before it are bit-equal;
    with other training rows they are not."""
    rows, train = np.random.default_rng(0).normal(size=(900, 4)), np.arange(500)
    other, learnt = rows.copy(), rows.copy()
    other[500:] = other[500:][::-1]*3
    learnt[100:400] *= 2
    scores = score(rows, train)
    np.testing.assert_array_equal(scores[:500], score(other, train)[:500])
    assert (scores[600:] != score(learnt, train)[600:]).all()
    assert (scores[600:] != score(rows, train[:300])[600:]).any()


def test_rarity_is_learnt_from_the_training_rows():
    scores, train = np.random.default_rng(0).gamma(2, 1, 1000), np.arange(500)
    other = np.append(scores[:500], 9*scores[500:])
    np.testing.assert_array_equal(rarity(scores, train)[:500], rarity(other, train)[:500])
    together = combined_scores({"a": scores, "b": scores[::-1]}, train)
    np.testing.assert_array_equal(together, (rarity(scores, train) + rarity(scores[::-1], train))/2)


def test_every_score_of_a_series_with_other_bars_to_come(tmp_path):
    "Encoders, masked autoencoder and scores are fitted anew; up to the end of training nothing has changed."
    settings = replace(load_settings(source="sample"), hidden=8, dimensions=6, depth=2, steps=2, batch_size=2,
                       crop=60, encoders=str(tmp_path))
    candles, fold = sample_candles().iloc[:1100], Fold(0, np.arange(800), np.arange(830, 1100))
    other = candles.copy()
    other.iloc[800:] = candles.iloc[800:].to_numpy()[::-1]
    scores, changed = (fit_scores(bars, settings, fold, 0)(bars) for bars in (candles, other))
    assert len(list(tmp_path.iterdir())) > 0
    for name, score in scores.items():
        np.testing.assert_array_equal(score[:800], changed[name][:800], err_msg=name)
        assert name == "random" or (score[830:] != changed[name][830:]).any(), name
        assert np.isfinite(score[400:]).all(), name


def test_too_few_rows_say_so():
    rows = np.full((300, 3), np.nan)
    for score in (max_z_scores, mahalanobis_scores, isolation_scores):
        with pytest.raises(InputError, match="0 known training rows"): score(rows, np.arange(200))
    with pytest.raises(InputError, match="0 known training rows; wanted at least 10"):
        knn_scores(rows, np.arange(200))

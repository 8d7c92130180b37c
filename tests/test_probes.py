"""Nothing that predicts knows the future or shows skill on noise, with many labels or with few."""
from dataclasses import replace

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import sample_candles, shuffle_bars
from sslts_nb.labels import Dataset, Fold, Label, combinatorial, few_labels, study_label
from sslts_nb.statistics import confidence_set, diebold_mariano, effective_sample_size
from sslts_nb.probes import PROBES
from sslts_nb.evaluate import METRICS, Model, Row, averaged, compare, evaluate, joined, losses, probed
from sslts_nb.baselines import MAJORITY, baselines, majority
from sslts_nb.methods import study_rows, untrained
from sslts_nb.finetune import supervised

use_threads(1)
SETTINGS = load_settings(source="sample", profile="quick", steps=8, hidden=8, dimensions=8, depth=2,
                         window=20, bootstrap=100)
CANDLES = sample_candles().iloc[:900]
FOLD = Fold(0, np.arange(600), np.arange(620, 850))


def untaught(data, label):
    "Everything that learns from the labels alone: baselines, random weights, supervised networks."
    return [*baselines(data, label), probed(untrained(data)), *supervised(data)]


def answers(candles, name):
    "What each of them answers on the test bars that `candles` have."
    data = Dataset(candles, SETTINGS)
    label, fold = data.label(name), replace(FOLD, test=FOLD.test[FOLD.test < len(candles)])
    return {model.name: model.predict(fold, label, 0, fold.test) for model in untaught(data, label)}


@pytest.mark.parametrize("name", ["volatility", "regime"])
def test_no_answer_knows_the_future(name):
    "What comes after a bar, prices and labels alike, changes no answer up to it."
    whole, cut = answers(CANDLES, name), 700
    changed = CANDLES.copy()
    factors = np.exp(np.random.default_rng(0).normal(0, 0.05, len(CANDLES) - cut - 1))
    changed.iloc[cut + 1:, :4] *= factors[:, None]
    for future in (answers(changed, name), answers(CANDLES.iloc[:cut + 30], name)):
        for model, answer in future.items():
            known = cut + 1 - FOLD.test[0]
            np.testing.assert_allclose(answer[:known], whole[model][:known], rtol=1e-4, atol=1e-5,
                                       err_msg=model)


def test_noise_shows_no_skill():
    "On shuffled bars nothing is better than the majority by more than the number of questions allows."
    data, p = Dataset(shuffle_bars(CANDLES, seed=5), SETTINGS), []
    for name, metric in [("volatility", "squared error"), ("direction", "log loss")]:
        label = data.label(name)
        predictions = evaluate(untaught(data, label), label, [FOLD], (0,), data.times, quiet=True)
        table = compare(predictions, metric, SETTINGS.bootstrap, MAJORITY)
        p += list(table.p[table.better > 0])
    assert not p or min(p)*25 > 0.05, p


@pytest.mark.parametrize("probe", PROBES)
def test_fifty_labels_suffice_to_answer(probe):
    "Two hundred columns, fifty labels, a rare class: every probe answers, and calls nothing impossible."
    rng, label = np.random.default_rng(0), study_label(CANDLES, SETTINGS, "regime")
    fewer = np.where(rng.random(900) < 0.1, 2, 1)
    rare = replace(label, values=np.where(label.values == 2, fewer, label.values))
    row = Row("noise", lambda fold, seed: rng.normal(size=(900, 200)))
    for one in (rare, study_label(CANDLES, SETTINGS, "volatility")):
        few, again = (few_labels(one, FOLD, 50, seed=1) for _ in range(2))
        assert np.isfinite(few.values[FOLD.train]).sum() == 50 and again.values is not few.values
        np.testing.assert_array_equal(few.values, again.values)
        np.testing.assert_array_equal(few.values[600:], one.values[600:])
        answer = probed(row, probe).predict(FOLD, few, 0, FOLD.test)
        assert answer.shape == ((230, 3) if one.n_classes else (230,)) and np.isfinite(answer).all()
        if one.n_classes: assert (answer > 0).all() and np.allclose(answer.sum(1), 1)
        else:       # shrunk, not blown up
            assert ((answer - one.values[FOLD.test])**2).mean() < 2*np.nanvar(one.values)


def test_a_representation_is_computed_once():
    calls = []
    def counted(fold, seed):
        calls.append(seed)
        return np.random.default_rng(seed).normal(size=(900, 3))
    row = Row("counted", counted, seeded=True)
    label = study_label(CANDLES, SETTINGS, "up")
    both = averaged("both", probed(row), probed(row, "neighbours"))
    models = [majority(), probed(row), probed(row, "boosting"), both, probed(joined("twice", row, row))]
    predictions = evaluate(models, label, [FOLD], (3, 4), CANDLES.index, quiet=True)
    assert calls == [3, 4]
    runs = {name: len(runs) for name, runs in predictions.runs.items()}
    assert runs == {MAJORITY: 1, "counted": 2, "counted, boosting": 2, "both": 2, "twice": 2}
    np.testing.assert_allclose(predictions.runs["both"][0].sum(1), 1)
    table = compare(predictions, "error", SETTINGS.bootstrap)
    accuracies = [(run.argmax(1) == predictions.truth).mean() for run in predictions.runs["counted"]]
    assert np.isclose(table.score["counted"], np.mean(accuracies))
    assert np.isclose(table.seed_sd["counted"], np.std(accuracies, ddof=1))
    assert np.isnan(table.seed_sd[MAJORITY])


def test_pre_training_that_saw_the_test_is_refused_through_every_door():
    seen = lambda fold: CANDLES.index[fold.test[5]]
    z = np.random.default_rng(0).normal(size=(900, 2))
    row, plain = Row("late", lambda fold, seed: z, seen=seen), Row("plain", lambda fold, seed: z)
    label = study_label(CANDLES, SETTINGS, "up")
    def asked(model, folds=(FOLD,), **allowed):
        return evaluate([majority(), model], label, [*folds], (0,), CANDLES.index, quiet=True, **allowed)
    together = probed(joined("side by side", plain, row)), averaged("mean", probed(plain), probed(row))
    for model in (probed(row), probed(row, "network"), *together):
        said = (f"{model.name}: pre-trained on bars up to .* wanted one that ended before, "
                "or its name in `allowed`")
        with pytest.raises(InputError, match=said): asked(model)
        assert asked(model, allowed=(model.name,)).runs
    later = probed(replace(row, seen=lambda fold: CANDLES.index[700]))
    with pytest.raises(InputError, match="late: pre-trained on bars up to"):
        asked(later, combinatorial(900, 4, 1, 30))
    rows = {row.name: row for row in study_rows(Dataset(CANDLES, SETTINGS))}
    assert rows["TS2Vec"].seen(FOLD) == CANDLES.index[599] and rows["random weights"].seen is None


def test_scores_of_known_cases():
    n, rng = 3000, np.random.default_rng(0)
    y, noise = rng.normal(size=n), rng.normal(size=n)
    label = Label("simulated", y, np.arange(n) + 1, 0)
    given = {"mean": np.zeros(n), "half": 0.5*y, "mean again": np.zeros(n), "noise": noise}
    fold = Fold(0, np.arange(500), np.arange(500, n))
    times = pd.date_range("2020", periods=n, freq="h", tz="UTC")
    def saying(name, values): return Model(name, lambda fold, label, seed, at: values[at])
    models = [saying(name, values) for name, values in given.items()]
    predictions = evaluate(models, label, [fold], (0,), times, quiet=True)
    table = compare(predictions, "squared error", SETTINGS.bootstrap, "mean")
    assert abs(table.score["half"] - 0.75) < 1e-2 and abs(table.better["half"] - 0.75) < 1e-2
    assert table.better_low["half"] > 0.7 and table.p["half"] < 1e-6
    assert table.better["mean again"] == 0 and table.p["mean again"] == 1 and table.better_high["noise"] < 0
    assert table.inside.tolist() == [False, True, False, False] and (table.bars == 2500).all()
    assert table.effective["half"] > 2000
    assert set(METRICS) == {"squared error", "qlike", "error", "log loss", "brier"}
    assert losses(predictions, "qlike")["half"].shape == (1, 2300)


def test_diebold_mariano_is_its_formula():
    "Against the weights written out, and the sign of the statistic."
    rng = np.random.default_rng(1)
    a, b, horizon = rng.normal(size=400).cumsum()*0.01 + 1, rng.normal(size=400), 6
    d = a - b; n = len(d); c = d - d.mean()
    rho = c[1:] @ c[:-1]/(c @ c)
    m = max(horizon - 1, int(1.1447*(4*rho**2/(1 - rho**2)**2*n)**(1/3)))
    variance = sum((1 - abs(k)/(m + 1))*(c[abs(k):] @ c[:n - abs(k)])/n for k in range(-m, m + 1))
    expected = d.mean()/np.sqrt(variance/n)*np.sqrt((n + 1 - 2*horizon + horizon*(horizon - 1)/n)/n)
    statistic, p = diebold_mariano(a, b, horizon)
    assert np.isclose(statistic, expected) and statistic > 0 and p < 0.05
    assert np.isclose(diebold_mariano(b, a, horizon)[0], -statistic)


def test_confidence_set_ties_and_blocks():
    rng = np.random.default_rng(2)
    hits = (rng.random(300) < 0.5).astype(float)
    # equal means, as error rates may have
    equal = {"a": hits, "b": hits[::-1].copy(), "c": np.r_[hits[1:], hits[0]]}
    found = confidence_set(equal | {"bad": np.ones(300)}, 3, draws=100)
    assert found.inside.tolist() == [True, True, True, False] and found.loss["bad"] == 1
    assert effective_sample_size(np.repeat(rng.normal(size=400), 5)) == pytest.approx(400, rel=0.25)
    assert effective_sample_size(np.ones(10)) == 10

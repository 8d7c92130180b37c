"""TNC's table of states: which training stands behind each row, on a tenth of the series."""
from functools import partial

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import load_settings
from sslts_nb.segments import load_states
from sslts_nb.states import state_encoder, state_scores, tnc_paper, trained_encoder, window_vectors


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    "Ten series, one seed, two steps of TNC and one with labels."
    return load_settings(profile="quick", forecast_crop=60, forecast_steps=20, seeds=(0,),
                         encoders=str(tmp_path_factory.mktemp("encoders")))


@pytest.fixture(scope="module")
def states(settings): return load_states(settings)


def test_every_way_of_training_leaves_other_vectors(settings, states):
    few = states.windows(False)[0][:5]
    def vectors(form, **options):
        return window_vectors(trained_encoder(form, states, settings, 0, **options), few)
    bare = window_vectors(state_encoder("convolution", 0), few)
    np.testing.assert_array_equal(vectors("convolution, untrained"), bare)
    weighted, unweighted = (vectors("convolution, TNC", w=w) for w in (0.05, 0.0))
    assert not np.array_equal(weighted, unweighted) and not np.array_equal(weighted, bare)


@pytest.mark.slow
def test_a_row_of_the_table_is_the_scores_of_its_encoder(settings, states):
    table = tnc_paper(settings, "simulated")["states, simulated"]
    encoder = trained_encoder("recurrent, TNC", states, settings, 0)
    alone = pd.Series(state_scores(partial(window_vectors, encoder), states))
    np.testing.assert_allclose(alone, table.loc["recurrent, TNC", alone.index], atol=1e-9)
    assert table.accuracy["always the same state"] < 0.5

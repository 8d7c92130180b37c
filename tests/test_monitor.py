"""The monitor by loops, with other bars to come, bar by bar and at once, saved and loaded."""
import json
from copy import deepcopy

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import InputError
from sslts_nb.market import sample_candles
from sslts_nb.features import compute_features, scale
from sslts_nb.methods import make_task
from sslts_nb.monitor import RiskMonitor, load_monitor


@pytest.mark.parametrize("width", [1, 4])
def test_monitor_learns_from_the_training_bars_alone(width):
    "Whatever comes after them, all that is kept is the same to the last bit."
    rng, train = np.random.default_rng(0), np.arange(1500)
    z, x = np.abs(rng.normal(size=(3000, width))), rng.normal(size=(3000, 3))
    kept = []
    for after in (1., 5.):
        factor = np.where(np.arange(3000) < 1500, 1., after)[:, None]
        monitor = RiskMonitor().fit(z*factor, x*factor, train, list("abc"), 24)
        names = "thresholds", "centre", "spread", "usual", "mean"
        kept.append([getattr(monitor, name) for name in names])
    for one, other in zip(*kept): np.testing.assert_array_equal(one, other)


def test_monitor_keeps_a_state_for_its_gap_and_no_longer():
    rng, train = np.random.default_rng(1), np.arange(1500)
    score, x = rng.random((1600, 1)), rng.normal(size=(1600, 2))
    score[1490:] = 0
    score[[1520, 1524, 1560]] = [[9], [9], [np.nan]]
    monitor = RiskMonitor((2., 0.5), gap=6, spans=(1, 4)).fit(score, x, train, ["a", "b"], 24)
    states = monitor.transform(score, x).state[1500:]
    assert np.flatnonzero(states == "high").tolist() == list(range(20, 31)) and (states != "elevated").all()
    between = np.mean(monitor.thresholds)
    score[1540] = between
    states = monitor.transform(score, x).state[1500:]
    assert np.flatnonzero(states == "elevated").tolist() == list(range(40, 47))


def test_monitor_s_averages_by_a_loop():
    rng = np.random.default_rng(2)
    x, score = rng.normal(size=(800, 2))*[1, 50] + [0, 7], rng.random((800, 1))
    x[10, 0] = np.nan
    monitor = RiskMonitor(spans=(1, 9)).fit(score, x, np.arange(600), ["a", "b"], 24)
    squares = np.nan_to_num(((x - np.nanmean(x[:600], 0))/np.nanstd(x[:600], 0))**2, nan=1.)
    wanted, average = np.zeros((800, 2, 2)), np.ones((2, 2))
    for t in range(800):
        for number, span in enumerate((1, 9)): average[number] += 2/(span + 1)*(squares[t] - average[number])
        wanted[t] = average
    wanted /= np.quantile(wanted[:600], 0.99, axis=0)
    np.testing.assert_allclose(monitor.averages(x), wanted, rtol=1e-9, atol=1e-12)


def test_many_series_side_by_side():
    "Each series has, to the bit, what `update` gives it alone, whoever comes along and whatever is missing."
    draw = np.random.default_rng(5)
    z, x = draw.normal(size=(400, 3)), draw.normal(size=(400, 2))
    monitor = RiskMonitor((0.5, 0.1), gap=3).fit(z, x, np.arange(300), ["one", "two"], 24.)
    state, alone = monitor.begun(4), []
    for _ in range(4):
        alone.append(deepcopy(monitor))
        alone[-1].reset()
    for _ in range(60):
        which = draw.choice(4, draw.integers(1, 5), replace=False)
        vectors, rows = 3*draw.normal(size=(len(which), 3)), 3*draw.normal(size=(len(which), 2))
        vectors[draw.random(len(which)) < 0.1], rows[draw.random(rows.shape) < 0.1] = np.nan, np.nan
        here = {name: one[which] for name, one in state.items()}
        said = monitor.step(here, vectors, rows)
        for name, one in state.items(): one[which] = here[name]
        assert str(said) == str([alone[one].update(*pair) for one, *pair in zip(which, vectors, rows)])


@pytest.fixture(scope="module")
def watching():
    "Vectors of an encoder, features, the monitor that learnt from half of them, and all that it says."
    channels = compute_features(sample_candles(), "chapter")
    train = np.arange(len(channels)//2)
    encoder = make_task("ts2vec", channels.shape[1], 16, 8, 3, 50, seed=0).encoder
    z = encoder.encode(scale(channels, train))
    monitor = RiskMonitor((0.05, 0.01)).fit(z, channels, train, list(channels), 1)
    return z, channels, monitor, monitor.transform(z, channels)


def test_bar_by_bar_is_as_all_at_once(watching):
    z, channels, monitor, said = watching
    rows = channels.to_numpy()
    monitor.reset()
    bar_by_bar = [monitor.update(vector, row) for vector, row in zip(z[:3000], rows[:3000])]
    assert len(bar_by_bar) == 3000 and said.state.nunique() > 2
    reasons = [(one["reasons"] or [(None, None, np.nan)])[0] for one in bar_by_bar]
    assert [one["state"] for one in bar_by_bar] == said.state[:3000].tolist()
    scores, times = [one["score"] for one in bar_by_bar], [times for _, _, times in reasons if times > 0]
    np.testing.assert_allclose(scores, said.score[:3000], atol=1e-6)
    np.testing.assert_allclose(times, said.times[:3000].dropna(), atol=1e-6)
    same = [reason[:2] == told for reason, told in zip(reasons, zip(said.channel, said.bars)) if reason[0]]
    assert np.mean(same) > 0.999                                    # two that are equal may change places


def test_a_bar_without_a_score_is_not_normal(watching):
    z, channels, monitor, _ = watching
    monitor.reset()
    unknown = monitor.update(z[0]*np.nan, channels.to_numpy()[0])
    assert (unknown["state"], unknown["reasons"][-1][0]) == ("unknown", "no data")


def test_bars_that_are_refused(watching):
    z, channels, monitor, _ = watching
    row = channels.to_numpy()[0]
    with pytest.raises(InputError, match="infinite at bar 0"): monitor.update(z[0]*np.inf, row)
    with pytest.raises(InputError, match="as in training"): monitor.update(z[0][:-1], row)
    with pytest.raises(InputError, match="has learnt nothing"): RiskMonitor().update(z[0], row)
    with pytest.raises(InputError, match="the first the larger"): RiskMonitor((0.1, 1.))


def test_columns_are_known_by_their_names(watching):
    z, channels, monitor, said = watching
    swapped = channels.iloc[:300, ::-1]
    pd.testing.assert_frame_equal(monitor.transform(z[:300], swapped), said[:300])


def test_saved_and_loaded(watching, tmp_path):
    z, channels, monitor, said = watching
    monitor.save(tmp_path/"monitor.json")
    pd.testing.assert_frame_equal(load_monitor(tmp_path/"monitor.json").transform(z, channels), said)
    kept = json.loads((tmp_path/"monitor.json").read_text())
    for other, told in [([1, 2], r"no saved monitor \(a list"),
                        (kept | {"thresholds": [2, 1]}, "thresholds 2, 1: wanted")]:
        (tmp_path/"other.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=told): load_monitor(tmp_path/"other.json")

"""The drift watch by its formulas, and the monitor with other bars to come."""
from copy import deepcopy

import numpy as np, pytest
from scipy.special import kolmogorov
from scipy.stats import binom

from sslts_nb.monitor import RiskMonitor, change_points, drift_watch, memory


@pytest.fixture(scope="module")
def restless():
    "3000 scores that remember, and block by block drift away."
    steps = np.random.default_rng(3).normal(size=3000)
    scores = steps + np.roll(steps, 1) + np.roll(steps, 2)
    scores[2000:] += np.repeat(np.arange(4)/2, 250)
    scores[1500:1750:6] = 6                                        # only the tail of these blocks is another
    scores[1750:2000:9] = 6
    return scores, np.arange(1000)


def test_drift_watch_counts_blocks_and_takes_holes():
    scores = np.random.default_rng(0).normal(size=5000)
    scores[::7] = np.nan
    scores[4000:] += 5
    table = drift_watch(scores, np.arange(2000), 500)
    assert table.index.tolist() == list(range(2499, 5000, 500))
    assert table.drifted.tolist() == [False]*4 + [True]*2


def test_drift_watch_looks_twice(restless):
    """A block has drifted if the smaller of its two p-values lies below half the level,
    and not below the level."""
    scores, train = restless
    table = drift_watch(scores, train, 250)
    smaller, tried = table[["ks_p", "beyond_p"]].min(axis=1), 0
    for end, p in smaller.items():
        if not 1e-12 < p < 0.4: continue
        assert drift_watch(scores, train, 250, level=2*p*1.001).drifted[end]
        assert not drift_watch(scores, train, 250, level=2*p*0.999).drifted[end]
        tried += 1
    assert tried >= 3 and (smaller == table.ks_p).any() and (smaller == table.beyond_p).any()


def test_drift_watch_by_its_formulas(restless):
    scores, train = restless
    table, tau = drift_watch(scores, train, 250), memory(scores[train])
    n, m = 250/tau, 1000/tau
    assert tau > 2 and (table.effective == n).all()
    for end, line in table.iterrows():
        block, grid = scores[end - 249:end + 1], np.concatenate([scores[end - 249:end + 1], scores[train]])
        shares = [(one[:, None] <= grid).mean(0) for one in (block, scores[train])]
        beyond = (block > np.quantile(scores[train], 0.95)).mean()
        assert line.ks == pytest.approx(np.abs(shares[0] - shares[1]).max())
        assert line.beyond == pytest.approx(beyond)
        assert line.ks_p == pytest.approx(kolmogorov(np.sqrt(n*m/(n + m))*line.ks))
        least = binom.sf(np.ceil(beyond*n) - 1, round(n), 0.05) if beyond else 1
        assert line.beyond_p == pytest.approx(least)


def test_drift_watch_knows_a_block_when_it_ends(restless):
    scores, train = restless
    turned = np.append(scores[:2000], -scores[2000:])
    table, other = (drift_watch(one, train, 250) for one in (scores, turned))
    assert (table.loc[:1999].to_numpy() == other.loc[:1999].to_numpy()).all()
    assert (table.loc[2000:].ks.to_numpy() != other.loc[2000:].ks.to_numpy()).all()


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


@pytest.mark.parametrize("slack, threshold, least", [(0.3, 15, 2), (0.05, 6, 10)])
def test_changes_by_a_loop(slack, threshold, least):
    scores = np.random.default_rng(4).normal(size=1500) + np.repeat([0, 2, -1], 500)
    scores[::11] = np.nan
    found, segment, sums = [], [], []
    for at in np.flatnonzero(np.isfinite(scores)):
        segment.append(scores[at])
        away = scores[at] - np.mean(segment)
        up, down = sums[-1] if sums else (0, 0)
        sums.append([up + away - slack, down - away - slack])
        if len(segment) > 30 and (np.array(sums[-1]) - np.min(sums, 0)).max() > threshold:
            found.append(at)
            segment, sums = [], []
    assert len(found) >= least and change_points(scores, slack, threshold).tolist() == found


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

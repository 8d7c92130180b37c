"""The drift watch and the changes of a level by their formulas."""
import numpy as np, pytest
from scipy.signal import lfilter
from scipy.special import kolmogorov
from scipy.stats import binom

from sslts_nb.settings import InputError
from sslts_nb.drift import change_points, drift_watch, memory


def test_memory_has_no_units():
    "Ranks alone count; scores that remember for some 40 bars, and their exponentials."
    phi = 0.5**(1/14)
    scores = lfilter([1.], [1., -phi], np.random.default_rng(0).standard_normal(12_500))[500:]
    assert memory(scores) == pytest.approx(memory(np.exp(scores))) and memory(scores) > 20


@pytest.mark.parametrize("scores, told", [(np.arange(49.), "at least 50"),
                                          (np.ones(100), "100 known scores, all alike")])
def test_memory_of_scores_that_tell_nothing(scores, told):
    with pytest.raises(InputError, match=told): memory(scores)


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

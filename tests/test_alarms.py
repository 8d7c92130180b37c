"""Thresholds, events and measures against another implementation, by hand, and with other bars to come."""
import numpy as np, pandas as pd, pytest
from scipy.stats import genpareto

from sslts_nb.settings import InputError
from sslts_nb.alarms import (alarm_table, budget_threshold, confirmed_share, episode_counts, episodes,
                             event_table, first_alarms, fit_tail, paired_leads, random_recall, range_overlap,
                             rate_threshold, soft_labels, training_threshold, vus_pr, warned_share)

# what aeon 1.6.0 (aeon.benchmarking.metrics.anomaly_detection, numpy 2.3.5, in an environment of its own)
# gave for `seeded_case`: range_pr_vus_score by max_buffer_size, range_pr_auc_score by buffer_size, and
# range_precision, range_recall, range_recall(alpha=0.5) by bias
VUS = {0: 0.17661052917229986, 5: 0.1886277183749201, 20: 0.23082795480896467, 100: 0.3674469066024574}
AREA = {0: 0.17661052917229986, 1: 0.17661052917229986, 2: 0.1864044275587013,
        7: 0.2227329280346405, 50: 0.37006868710287355}
RANGES = {"flat": (0.1193785852156893, 0.39285714285714285, 0.5714285714285715),
          "front": (0.11146162367881828, 0.41890827002532316, 0.5844541350126615)}


@pytest.fixture(scope="module")
def seeded_case():
    "Labels with events at both ends, near each other and of one bar; scores with ties."
    rng, labels = np.random.default_rng(7), np.zeros(1200, int)
    events = [(0, 3), (100, 20), (128, 1), (400, 40), (445, 7), (700, 1), (900, 60), (1190, 10)]
    for first, bars in events: labels[first:first + bars] = 1
    noise, near = rng.gamma(2, 1, 1200), np.convolve(labels, np.ones(9)/9, "same")
    return labels > 0, np.round(noise + 1.5*near*rng.random(1200), 2)


def area_by_loop(scores, labels, buffer, n_thresholds=250):
    "Area under the curve as the authors and aeon have it: from precision 1, all ties at once."
    soft = soft_labels(labels, buffer)
    runs, at = episodes(soft > 0, 1), np.linspace(0, len(scores) - 1, n_thresholds).astype(int)
    area, recall_before, precision_before = 0., 0., 1.
    for level in np.sort(scores)[::-1][at]:
        above = scores >= level
        touched = np.mean([above[first:last + 1].any() for first, last in runs])
        hits = soft[above].sum()
        recall = min(2*hits/(labels.sum() + soft.sum()), 1)*touched
        area += (recall - recall_before)*(hits/above.sum() + precision_before)/2
        recall_before, precision_before = recall, hits/above.sum()
    return area


def test_areas_by_the_loop_are_the_other_implementation_s(seeded_case):
    labels, scores = seeded_case
    areas = [area_by_loop(scores, labels, buffer) for buffer in range(21)]
    for buffer in (0, 1, 2, 7): assert areas[buffer] == pytest.approx(AREA[buffer], rel=1e-12)
    for buffer in (0, 5, 20): assert np.mean(areas[:buffer + 1]) == pytest.approx(VUS[buffer], rel=1e-12)
    assert area_by_loop(scores, labels, 50) == pytest.approx(AREA[50], rel=1e-12)


@pytest.mark.slow
def test_volume_by_the_loop_is_the_other_implementation_s(seeded_case):
    labels, scores = seeded_case
    areas = [area_by_loop(scores, labels, buffer) for buffer in range(101)]
    assert np.mean(areas) == pytest.approx(VUS[100], rel=1e-12)


def test_volume_is_the_loop_s_where_nothing_is_tied(seeded_case):
    "And where the first bar lies in an event, or far from all: there both definitions are one."
    labels, scores = seeded_case
    apart = scores + 0.009*np.random.default_rng(0).permutation(1200)/1200    # the same order, without ties
    assert len(np.unique(apart)) == 1200
    for first in (410, 600):
        apart[first] = apart.max() + 1
        for n_thresholds in (250, 1200, 7):
            areas = [area_by_loop(apart, labels, buffer, n_thresholds) for buffer in range(10)]
            assert vus_pr(apart, labels, 9, n_thresholds) == pytest.approx(np.mean(areas), rel=1e-12)


def test_volume_is_near_the_other_implementation_s_where_few_are_tied(seeded_case):
    labels, scores = seeded_case
    for buffer, volume in VUS.items():
        assert vus_pr(scores, labels, buffer) == pytest.approx(volume, rel=2e-3)


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 20])
def test_ties_have_no_order(seeded_case, levels):
    "The volume of a score of few levels is the mean over random orders of what is tied; of dice: chance."
    labels, scores = seeded_case
    coarse, rng = np.floor(levels*scores/(scores.max() + 1)), np.random.default_rng(0)
    volumes = [vus_pr(coarse + rng.random(1200)/2, labels, 3, 1200) for _ in range(40)]
    assert vus_pr(coarse, labels, 3, 1200) == pytest.approx(np.mean(volumes), abs=0.01)
    assert vus_pr(coarse, labels, 3) == pytest.approx(vus_pr(coarse, labels, 3, 1200), abs=0.005)
    dice = np.floor(levels*rng.random(1200))
    assert vus_pr(dice, labels, 0) == pytest.approx(labels.mean(), abs=0.03)


def test_one_bar_above_a_tie_earns_its_own_hit_alone(seeded_case):
    "A first bar that is right and 1,199 that are equal: a little more than chance, not half of everything."
    labels, _ = seeded_case
    share = labels.mean()
    for first, wanted in ((410, share + (1 - share)/labels.sum()), (600, share)):
        scores = (np.arange(1200) == first)*1.
        assert vus_pr(scores, labels, 0) == pytest.approx(wanted, abs=0.04)
    bars = np.arange(1200)
    for count in (1, 60): assert vus_pr(np.ones(1200), bars < count, 0) == pytest.approx(count/1200)
    assert vus_pr(np.isin(bars, (5, 6))*1., bars == 5, 0) == pytest.approx(0.5)
    assert vus_pr(labels*1., labels, 0) == 1


@pytest.mark.parametrize("bias", RANGES)
def test_ranges_are_the_other_implementation_s(seeded_case, bias):
    labels, scores = seeded_case
    alarms = np.convolve(scores > 3.5, np.ones(5), "same") > 0
    front = bias == "front"
    precision = range_overlap(alarms, labels, front=front)
    recalls = [range_overlap(labels, alarms, existence, front) for existence in (0., 0.5)]
    assert (precision, *recalls) == pytest.approx(RANGES[bias], rel=1e-12)


def test_soft_labels_by_a_loop(seeded_case):
    labels, _ = seeded_case
    for buffer in (0, 1, 2, 9, 30):
        wanted = labels.astype(float)
        for first, last in episodes(labels, 1):
            for distance in range(1, buffer//2 + 1):
                before, after, weight = first - distance, last + distance, np.sqrt(1 - distance/buffer)
                if before >= 0: wanted[before] += weight
                if distance < buffer//2 and after < len(labels): wanted[after] += weight
        np.testing.assert_allclose(soft_labels(labels, buffer), np.minimum(wanted, 1), atol=1e-12)


@pytest.mark.parametrize("gap", [1, 2, 10, 300])
def test_counts_are_those_of_the_episodes(seeded_case, gap):
    _, scores = seeded_case
    scores = np.where(np.arange(len(scores)) % 17 == 0, np.nan, scores)
    levels = np.linspace(-1, np.nanmax(scores), 60)
    counts = [len(episodes(scores > level, gap)) for level in levels]
    assert episode_counts(scores, levels, gap).tolist() == counts
    most = max(len(episodes(scores > level, gap)) for level in np.unique(scores[np.isfinite(scores)]))
    for budget in (0, 1, 7, 10_000):
        here = len(episodes(scores > budget_threshold(scores, budget, gap), gap))
        assert here <= budget and (budget < most or here == most)


def test_threshold_at_both_ends():
    assert not (np.arange(5.) > budget_threshold(np.arange(5.), 0, 1)).any()
    with pytest.raises(InputError, match="no score is known"): budget_threshold(np.full(5, np.nan), 1, 1)


def test_tail_of_too_few_episodes_says_so():
    with pytest.raises(InputError, match="a tail needs at least 10"):
        fit_tail(np.arange(1000.), np.arange(1000), 5)


@pytest.fixture(scope="module")
def restless():
    "Candles of 2000 hours with a few large moves among the last 800, and a score of them."
    rng = np.random.default_rng(5)
    returns = 0.01*rng.normal(size=2000)
    returns[[1300, 1500, 1502, 1900]] *= 40
    index = pd.date_range("2024", periods=2000, freq="h", tz="UTC", name="timestamp")
    candles = pd.DataFrame({"close": 100*np.exp(np.cumsum(returns))}, index)
    return candles, rng.gamma(2, 1, 2000)


def test_thresholds_know_the_training_bars_alone(restless):
    "With other scores after the training end every threshold is the same to the last bit."
    candles, scores = restless
    train, test = np.arange(1000), np.arange(1200, 2000)
    other = np.where(np.arange(2000) < 1000, scores, 10*scores[::-1] + 3)
    for quantile in (0.9, 0.99, 0.999):
        assert training_threshold(scores, train, quantile) == training_threshold(other, train, quantile)
        before, after = (alarm_table({"score": one}, candles, train, test, quantile)
                         for one in (scores, other))
        assert before.threshold.item() == after.threshold.item() == np.quantile(scores[:1000], quantile)
        assert before.alarm_share.item() == (scores[test] > np.quantile(scores[:1000], quantile)).mean()
        assert after.alarm_share.item() > before.alarm_share.item()
    for rate in (0.05, 0.008, 0.004, 0.001):                       # counted in training, and from its tail
        assert rate_threshold(scores, train, rate, 5) == rate_threshold(other, train, rate, 5)
    assert fit_tail(scores, train, 5) == fit_tail(other, train, 5)


def test_table_of_alarms_by_hand():
    "Twenty hours, two events, three alarms."
    index = pd.date_range("2024", periods=60, freq="h", tz="UTC", name="timestamp")
    returns = np.where(np.arange(60) % 2, 0.01, -0.01)
    returns[[45, 55]] = 0.2
    candles = pd.DataFrame({"close": np.exp(np.cumsum(returns))}, index)
    scores = np.append(np.arange(30.), np.zeros(30))
    scores[[43, 45, 50]] = 100.                              # before the first event, at it, and of nothing
    train, test = np.arange(30), np.arange(40, 60)
    line = alarm_table({"score": scores}, candles, train, test, 0.9, lead=3).loc["score"]
    assert line.threshold == pytest.approx(26.1) and line.promised_share == pytest.approx(0.1)
    assert line.alarm_share == 3/20 and line.alarms_per_day == pytest.approx(3/(19/24))
    assert (line.episodes, line.events, line.flagged_at_event) == (3, 2, 0.5)
    assert (line.warned, line.confirmed) == (0.5, 1/3)
    alarms, events = scores[40:] > 26.1, np.isin(np.arange(20), [5, 15])
    shifts = np.random.default_rng(0).integers(1, 20, 500)
    by_chance = [warned_share(np.roll(alarms, shift), events, 3) for shift in shifts]
    assert line.warned_by_chance == np.mean(by_chance)
    assert line.warned_by_chance_high == np.quantile(by_chance, 0.975)


def test_shares_by_a_loop():
    rng = np.random.default_rng(2)
    for lead in (1, 3, 8):
        alarms, events = rng.random(60) < 0.1, rng.random(60) < 0.1
        warned = [alarms[max(t - lead, 0):t].any() for t in np.flatnonzero(events)]
        confirmed = [events[t + 1:t + 1 + lead].any() for t in np.flatnonzero(alarms)]
        assert warned_share(alarms, events, lead) == np.mean(warned)
        assert confirmed_share(alarms, events, lead) == np.mean(confirmed)
    assert np.isnan(warned_share(alarms, events & False, 3))
    assert np.isnan(random_recall(alarms, np.array([]), np.array([]))).all()


def test_chance_rolls_the_alarms():
    rng = np.random.default_rng(8)
    alarms, first = rng.random(400) < 0.03, rng.choice(390, 100, replace=False)
    last = first + rng.integers(0, 9, 100)
    for draws, seed in ((30, 0), (500, 4)):
        shares = []
        for shift in np.random.default_rng(seed).integers(1, 400, draws):
            rolled = np.roll(alarms, shift)
            shares.append(np.mean([rolled[a:b + 1].any() for a, b in zip(first, last)]))
        assert draws < 50 or np.quantile(shares, 0.95) < np.quantile(shares, 0.975)
        wanted = np.mean(shares), np.quantile(shares, 0.975)
        assert random_recall(alarms, first, last, draws, seed) == wanted


def test_table_of_events_by_hand():
    "A hundred hours, three events, two true episodes of alarms and one false."
    events = np.isin(np.arange(100), [20, 21, 50, 80])
    alarms = np.isin(np.arange(100), [18, 19, 51, 65])            # warns of the first, is late for the second
    line = event_table({"score": alarms*1.}, events, 24, (0.75,), gap=2, lead=4).loc[("score", 0.75)]
    assert line.events == 3 and line.came == pytest.approx(3/100*24)
    assert (line.found, line.warned, line.lead) == (1/3, 1/3, 2)
    assert line.precision == pytest.approx(1/3) and line.false_a_day == pytest.approx(2/100*24)
    assert line.range_recall == range_overlap(events, alarms, 0.5) == 0
    for kind, last in (("found", [21, 50, 80]), ("warned", [19, 49, 79])):
        chance, high = random_recall(alarms, np.array([16, 46, 76]), np.array(last))
        assert (line[f"{kind}_by_chance"], line[f"{kind}_by_chance_high"]) == (chance, high)
    late = event_table({"score": np.isin(np.arange(100), 50)*1.}, events, 24, (0.25,), gap=2, lead=4).iloc[0]
    assert (late.found, late.warned, late.lead) == (1/3, 0, 0)    # with its first bar: found, and no warning
    with pytest.raises(InputError, match="no event in 100 bars"):
        event_table({"score": alarms*1.}, events & False, 24)


def test_tail_is_fitted_to_the_largest_of_each_episode():
    scores = np.random.default_rng(1).gamma(2, 1, 3000)
    scores = np.maximum.reduce([scores, np.roll(scores, 1)*0.99])  # each large score stays for two bars
    tail, start = fit_tail(scores, np.arange(2000), 3, 0.1), np.quantile(scores[:2000], 0.9)
    largest = [scores[a:b + 1].max() for a, b in episodes(scores[:2000] > start, 3)]
    shape, _, scale = genpareto.fit(np.array(largest) - start, floc=0)
    assert tail.start == start and tail.rate == len(largest)/2000
    assert (tail.shape, tail.scale) == pytest.approx((shape, scale))
    train = np.arange(2000)
    assert rate_threshold(scores, train, 7/2000, 3) == fit_tail(scores, train, 3).threshold(7/2000)
    assert rate_threshold(scores, train, 8/2000, 3) == budget_threshold(scores[:2000], 8, 3)
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match="episodes a bar; wanted"):
            rate_threshold(scores, train, wrong, 3)


def test_leads_are_paired_by_event():
    rng = np.random.default_rng(3)
    alarms, onsets = {name: rng.random(300) < 0.05 for name in "ab"}, np.array([2, 90, 200, 295])
    table = paired_leads(alarms, onsets, 10)
    for name, flags in alarms.items():
        for onset, lead in zip(onsets, table[name]):
            near = [t for t in range(max(onset - 10, 0), min(onset + 11, 300)) if flags[t]]
            assert lead == (onset - near[0] if near else -10)
    assert np.isnan(first_alarms(alarms["a"] & False, onsets, onsets)).all()

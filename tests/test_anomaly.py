"""The measures of the chapter on anomalies against another implementation, and what holds for any score."""
import numpy as np, pytest

from sslts_nb.settings import InputError
from sslts_nb.alarms import (budget_threshold, episode_counts, episodes, fit_tail, range_overlap, soft_labels,
                             vus_pr)
from sslts_nb.monitor import drift_watch

# what aeon 1.6.0 (aeon.benchmarking.metrics.anomaly_detection, numpy 2.3.5, in an environment of its own) gave for `seeded_case`:
# range_pr_vus_score by max_buffer_size, range_pr_auc_score by buffer_size, and range_precision, range_recall, range_recall(alpha=0.5) by bias
VUS = {0: 0.17661052917229986, 5: 0.1886277183749201, 20: 0.23082795480896467, 100: 0.3674469066024574}
AREA = {0: 0.17661052917229986, 1: 0.17661052917229986, 2: 0.1864044275587013, 7: 0.2227329280346405, 50: 0.37006868710287355}
RANGES = {"flat": (0.1193785852156893, 0.39285714285714285, 0.5714285714285715), "front": (0.11146162367881828, 0.41890827002532316, 0.5844541350126615)}


@pytest.fixture(scope="module")
def seeded_case():
    "Labels with events at both ends, near each other and of one bar; scores with ties."
    rng, labels = np.random.default_rng(7), np.zeros(1200, int)
    for first, bars in [(0, 3), (100, 20), (128, 1), (400, 40), (445, 7), (700, 1), (900, 60), (1190, 10)]: labels[first:first + bars] = 1
    scores = np.round(rng.gamma(2, 1, 1200) + 1.5*np.convolve(labels, np.ones(9)/9, "same")*rng.random(1200), 2)
    return labels > 0, scores


@pytest.mark.parametrize("buffer", VUS)
def test_volume_is_the_other_implementation_s(seeded_case, buffer):
    labels, scores = seeded_case
    assert vus_pr(scores, labels, buffer) == pytest.approx(VUS[buffer], rel=1e-12)


def test_single_areas_are_the_other_implementation_s(seeded_case):
    "The volume is a mean of areas, so an area is a difference of two volumes."
    labels, scores = seeded_case
    for buffer in (1, 2, 7, 50): assert (buffer + 1)*vus_pr(scores, labels, buffer) - buffer*vus_pr(scores, labels, buffer - 1) == pytest.approx(AREA[buffer], rel=1e-9)


@pytest.mark.parametrize("bias", RANGES)
def test_ranges_are_the_other_implementation_s(seeded_case, bias):
    labels, scores = seeded_case
    alarms = np.convolve(scores > 3.5, np.ones(5), "same") > 0
    found = range_overlap(alarms, labels, front=bias == "front"), *(range_overlap(labels, alarms, existence, bias == "front") for existence in (0., 0.5))
    assert found == pytest.approx(RANGES[bias], rel=1e-12)


def test_soft_labels_by_a_loop(seeded_case):
    labels, _ = seeded_case
    for buffer in (0, 1, 2, 9, 30):
        wanted = labels.astype(float)
        for first, last in episodes(labels, 1):
            for distance in range(1, buffer//2 + 1):
                if first - distance >= 0: wanted[first - distance] += np.sqrt(1 - distance/buffer)
                if distance < buffer//2 and last + distance < len(labels): wanted[last + distance] += np.sqrt(1 - distance/buffer)
        np.testing.assert_allclose(soft_labels(labels, buffer), np.minimum(wanted, 1), atol=1e-12)


@pytest.mark.parametrize("gap", [1, 2, 10, 300])
def test_counts_are_those_of_the_episodes(seeded_case, gap):
    _, scores = seeded_case
    scores = np.where(np.arange(len(scores)) % 17 == 0, np.nan, scores)
    levels = np.linspace(-1, np.nanmax(scores), 60)
    assert episode_counts(scores, levels, gap).tolist() == [len(episodes(scores > level, gap)) for level in levels]
    most = max(len(episodes(scores > level, gap)) for level in np.unique(scores[np.isfinite(scores)]))
    for budget in (0, 1, 7, 10_000):
        here = len(episodes(scores > budget_threshold(scores, budget, gap), gap))
        assert here <= budget and (budget < most or here == most)


def test_threshold_at_both_ends():
    assert not (np.arange(5.) > budget_threshold(np.arange(5.), 0, 1)).any()
    with pytest.raises(InputError, match="no score is known"): budget_threshold(np.full(5, np.nan), 1, 1)


def test_tail_of_too_few_episodes_says_so():
    with pytest.raises(InputError, match="a tail needs at least 10"): fit_tail(np.arange(1000.), np.arange(1000), 5)


def test_drift_watch_counts_blocks_and_takes_holes():
    scores = np.random.default_rng(0).normal(size=5000)
    scores[::7] = np.nan
    scores[4000:] += 5
    table = drift_watch(scores, np.arange(2000), 500)
    assert table.index.tolist() == list(range(2499, 5000, 500)) and table.drifted.tolist() == [False]*4 + [True]*2

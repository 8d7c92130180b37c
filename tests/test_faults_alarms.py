"""Inputs that once gave a wrong number, lost work or a traceback (alarms): given, wanted."""
import json
from copy import deepcopy
from functools import cache

import numpy as np, pandas as pd, pytest, torch
from fault_table import Refused, check, fault

from sslts_nb.alarms import (alarm_table, bars_in, budget_threshold, confirmed_share, episodes, event_table,
                             fit_tail, hour_moves, large_moves, named_crashes, random_recall, range_overlap,
                             rate_threshold, soft_labels, training_threshold, vus_pr, warned_share)
from sslts_nb.anomaly import (combined_scores, isolation_scores, knn_scores, leftover_scores,
                              mahalanobis_scores, max_z_scores, online_scores, rarity, shock_scores)
from sslts_nb.augmentations import (Sometimes, crop, frequency_mask, frequency_mix, jitter, magnitude_warp,
                                    mask_bars, scaling, time_warp, window_facts, window_slice)
from sslts_nb.drift import change_points, drift_watch, memory
from sslts_nb.monitor import RiskMonitor, load_monitor

ROWS = []
T, TRAIN = 900, np.arange(600)
SCORES = np.random.default_rng(0).gamma(2, 1, T)
VECTORS = np.random.default_rng(1).normal(size=(T, 3))
CHANNELS = VECTORS[:, ::-1]*[1, 10, 100] + [0, 5, 0]
NAMES = ["return", "range", "volume"]
TIMES = pd.date_range("2024", periods=T, freq="h", tz="UTC", name="timestamp")
CLOSE = 100*np.exp(np.cumsum(0.01*np.random.default_rng(2).normal(size=T)))
CANDLES = pd.DataFrame({"close": CLOSE, "low": CLOSE}, TIMES)
TABLE = pd.DataFrame(CHANNELS, TIMES, NAMES)
FLAGS = np.random.default_rng(3).random(T) < 0.05
EVENTS = np.arange(1000) % 200 < 10                       # a twentieth of the bars


def changed(array, place, value):
    "A copy with another value in one place."
    other = np.array(array, float)
    other[place] = value
    return other


@cache
def learnt():
    "A monitor that has learnt, once for all rows."
    return RiskMonitor().fit(VECTORS, CHANNELS, TRAIN, NAMES, 24)


def fitted(vectors=VECTORS, channels=CHANNELS, train=TRAIN, names=NAMES, day=24, **given):
    "A monitor that has learnt; from the usual bars a copy."
    if vectors is VECTORS and channels is CHANNELS and train is TRAIN and day == 24 and not given:
        return deepcopy(learnt())
    return RiskMonitor(**given).fit(vectors, channels, train, names, day)


def same_answers(one, other):
    "Whether two monitors say the same of all bars."
    return one.transform(VECTORS, CHANNELS).equals(other.transform(VECTORS, CHANNELS))


def saved(folder, **other):
    "The path of a saved monitor in which something was replaced."
    path = folder/"monitor.json"
    fitted().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    return path


def levels(number, labels=EVENTS):
    "The volume of random scores of a few levels."
    return vus_pr(np.floor(number*np.random.default_rng(number).random(len(labels))), labels, 0)


# the volume under the surface, and ties
@fault(ROWS, 10, "the volume of a constant score", 0.05)
def _(folder): return vus_pr(np.ones(1000), EVENTS, 0)


for _number in (2, 3, 5):
    @fault(ROWS, 10, f"the volume of random scores of {_number} levels", True)
    def _(folder, number=_number): return abs(levels(number) - 0.05) < 0.02


@fault(ROWS, "10+", "the volume of a constant score with buffers, which widen the labels", True)
def _(folder):
    widened = np.mean([soft_labels(EVENTS, buffer).mean() for buffer in range(9)])
    return abs(vus_pr(np.zeros(1000), EVENTS, 8) - widened) < 1e-9


@fault(ROWS, "10+", "one bar that is right above 999 that are equal", True)
def _(folder): return vus_pr(1.*(np.arange(1000) == 3), EVENTS, 0) < 0.1


@fault(ROWS, "10+", "all labels within ten times as many equal scores on top", 0.1)
def _(folder): return vus_pr(1.*(np.arange(1000) < 100), np.arange(1000) < 10, 0)


@fault(ROWS, "10+", "nearly all scores at their floor", True)
def _(folder):
    floor = np.maximum(np.random.default_rng(0).normal(size=1000), 2)
    return abs(vus_pr(floor, EVENTS, 0) - 0.05) < 0.03


@fault(ROWS, "10+", "labels of another length", Refused("scores of 900 bars; wanted 1000"))
def _(folder): return vus_pr(SCORES, EVENTS, 3)


@fault(ROWS, "10+", "no buffer at all", Refused("max_buffer -1; wanted a whole number from 0"))
def _(folder): return vus_pr(SCORES, FLAGS, -1)


@fault(ROWS, "10+", "events and alarms of other bars", Refused("flags of 1000 bars and of 900"))
def _(folder): return range_overlap(FLAGS, EVENTS)


@fault(ROWS, "10+", "flags with a hole, which numpy takes for True", Refused("wanted .T,. of True and False"))
def _(folder): return episodes(np.where(FLAGS, np.nan, 0), 3)


# what does not move
@fault(ROWS, 12, "a monitor's channel that is 0.1 throughout", Refused("channel range never changes"))
def _(folder): return fitted(channels=np.c_[CHANNELS[:, 0], np.full(T, 0.1), CHANNELS[:, 2]])


@fault(ROWS, "12+", "a monitor's channel that rests in training alone", Refused("never changes in 600"))
def _(folder): return fitted(channels=np.c_[CHANNELS[:, :2], np.where(np.arange(T) < 600, 0.7, 3)])


@fault(ROWS, "12+", "a monitor's channel that is never there", Refused("volume never changes in 0 known"))
def _(folder): return fitted(channels=np.c_[CHANNELS[:, :2], np.full(T, np.nan)])


@fault(ROWS, "12+", "a monitor's vectors that are all alike", Refused("600 known training rows are alike"))
def _(folder): return fitted(vectors=np.full((T, 3), 0.1))


@fault(ROWS, "12+", "a monitor's scores that are all alike", Refused("alike"))
def _(folder): return fitted(vectors=np.full((T, 1), 0.1))


@fault(ROWS, "12+", "a column of 0.1 beside two that move, largest z-score", True)
def _(folder):
    still, two = np.c_[VECTORS[:, :2], np.full(T, 0.1)]*1e-9, VECTORS[:, :2]
    return np.allclose(max_z_scores(still, TRAIN), max_z_scores(two, TRAIN), rtol=1e-9)


@fault(ROWS, "12+", "a column of 0.1 with one other last bit, neighbours", True)
def _(folder):
    still = np.c_[VECTORS[:, :2], changed(np.full(T, 0.1), 700, np.nextafter(0.1, 1))]
    return np.allclose(knn_scores(still, TRAIN), knn_scores(VECTORS[:, :2], TRAIN), rtol=1e-5)


for _score in (max_z_scores, mahalanobis_scores, isolation_scores, leftover_scores, knn_scores):
    @fault(ROWS, "12+", f"rows that are all 0.1, {_score.__name__}", Refused("all alike"))
    def _(folder, score=_score): return score(np.full((T, 2), 0.1), TRAIN)


@fault(ROWS, "12+", "the ranks of scores that are all 0.1", Refused("all 0.1; ranks need some that differ"))
def _(folder): return rarity(np.full(T, 0.1), TRAIN)


@fault(ROWS, "12+", "rarity of few scores in other units", True)
def _(folder): return np.allclose(rarity(SCORES[:300], np.arange(150)),
                                  rarity(1e-6*SCORES[:300], np.arange(150)), rtol=1e-6)


@fault(ROWS, "12+", "the facts of windows that stand still", True)
def _(folder):
    still = torch.full((3, 50, 2), 0.1, dtype=torch.double)
    return all(np.isnan(value) for value in window_facts(still).values())


# the monitor, bar by bar
@fault(ROWS, 14, "an infinite vector", Refused("one bar: infinite at bar 0"))
def _(folder): return fitted().update([np.inf, 0, 0], CHANNELS[0])


@fault(ROWS, 14, "a vector that is not known", "unknown")
def _(folder): return fitted().update([0, np.nan, 0], CHANNELS[0])["state"]


@fault(ROWS, "14+", "vectors that are not known, all at once", {"unknown"})
def _(folder): return set(fitted().transform(VECTORS*np.nan, CHANNELS).state)


@fault(ROWS, "14+", "an infinite vector among many", Refused("infinite at bar 7, column 1"))
def _(folder): return fitted().transform(changed(VECTORS, (7, 1), -np.inf), CHANNELS)


@fault(ROWS, "14+", "an infinite score below", Refused("infinite"))
def _(folder): return fitted(vectors=SCORES[:, None]).update([-np.inf], CHANNELS[0])


@fault(ROWS, "14+", "an infinite feature, after which nothing would be a number", Refused("infinite"))
def _(folder): return fitted().update(VECTORS[0], [np.inf, 0, 0])


@fault(ROWS, "14+", "what was refused leaves no trace", True)
def _(folder):
    monitor, other = fitted(), fitted()
    for vector, row in ((VECTORS[0], [np.inf, 0, 0]), ([99., 99, np.inf], CHANNELS[0]), (VECTORS[0], [1.])):
        with pytest.raises(ValueError): monitor.update(vector, row)
    return monitor.update(VECTORS[1], CHANNELS[1]) == other.update(VECTORS[1], CHANNELS[1])


@fault(ROWS, "14+", "a vector where a score is wanted", Refused("vectors of 3 numbers; wanted 1"))
def _(folder): return fitted(vectors=SCORES[:, None]).update(VECTORS[0], CHANNELS[0])


for _name, _vector in {"too short": [1., 2.], "too long": np.ones(4), "of texts": ["1", "2", "3"],
                       "of complex numbers": np.ones(3)*1j, "nested": np.ones((1, 3)), "of one number": 3.,
                       "of objects": np.array([None, 1, 2]),
                       "with a mask": np.ma.array(np.ones(3), mask=[1, 0, 0])}.items():
    @fault(ROWS, "14+", f"a vector {_name}", Refused("wanted"))
    def _(folder, vector=_vector): return fitted().update(vector, CHANNELS[0])


@fault(ROWS, "14+", "one feature where three are wanted", Refused("1 channels, and 3 names"))
def _(folder): return fitted().update(VECTORS[0], [1.])


@fault(ROWS, "14+", "vectors and features of other lengths", Refused("vectors of 900 bars, features of 899"))
def _(folder): return fitted().transform(VECTORS, CHANNELS[1:])


@fault(ROWS, "14+", "an infinite training row, once left out", Refused("infinite at bar 3, column 0"))
def _(folder): return fitted(vectors=changed(VECTORS, (3, 0), np.inf))


for _function in (max_z_scores, mahalanobis_scores, knn_scores, leftover_scores):
    @fault(ROWS, "14+", f"an infinite row, {_function.__name__}", Refused("infinite at bar 800, column 1"))
    def _(folder, function=_function): return function(changed(VECTORS, (800, 1), np.inf), TRAIN)


@fault(ROWS, "14+", "an infinite score and a budget", Refused("infinite at bar 5"))
def _(folder): return budget_threshold(changed(SCORES, 5, np.inf), 0, 3)


@fault(ROWS, "14+", "an infinite score and its rank", Refused("infinite at bar 5"))
def _(folder): return rarity(changed(SCORES, 5, np.inf), TRAIN)


@fault(ROWS, "14+", "a score below 0 and its logarithm", Refused("score -1.0 at bar 5"))
def _(folder): return online_scores(changed(SCORES, 5, -1))


@fault(ROWS, "14+", "a close of 0, after which volatility is infinite", Refused("close 0.0 at bar 5"))
def _(folder): return shock_scores(CANDLES.assign(close=changed(CLOSE, 5, 0)))


@fault(ROWS, "14+", "a block of which nothing is known", [50, 0, 50])
def _(folder):
    scores = changed(SCORES, slice(650, 700), np.nan)
    return drift_watch(scores, TRAIN, 50).known.tolist()[:3]


# labels
@fault(ROWS, "5+", "a bar's features in another order", True)
def _(folder):
    return fitted().update(VECTORS[0], TABLE.iloc[0][::-1]) == fitted().update(VECTORS[0], CHANNELS[0])


@fault(ROWS, "5+", "a table's channels in another order", True)
def _(folder):
    return fitted().transform(VECTORS, TABLE[NAMES[::-1]]).equals(fitted().transform(VECTORS, CHANNELS))


@fault(ROWS, "5+", "names in another order than the table's", True)
def _(folder): return same_answers(fitted(channels=TABLE[NAMES[::-1]]), fitted())


@fault(ROWS, "5+", "channels of other names", Refused("channels a, b, c; wanted return, range, volume"))
def _(folder): return fitted().transform(VECTORS, TABLE.set_axis(list("abc"), axis=1))


@fault(ROWS, "5+", "vectors and features with other labels", Refused("other rows"))
def _(folder): return fitted().transform(pd.DataFrame(VECTORS, TIMES[::-1]), TABLE)


@fault(ROWS, "5+", "features newest first", Refused("out of order"))
def _(folder): return fitted().transform(VECTORS, TABLE[::-1])


@fault(ROWS, "5+", "one bar twice", Refused("2024-01-01 00:00:00.00:00 after 2024-01-01 00:00:00.00:00"))
def _(folder):
    monitor = fitted()
    for _ in range(2): monitor.update(VECTORS[0], TABLE.iloc[0])


@fault(ROWS, "5+", "bars backwards", Refused("wanted times that rise"))
def _(folder):
    monitor = fitted()
    for bar in (1, 0): monitor.update(VECTORS[bar], TABLE.iloc[bar])


@fault(ROWS, "5+", "a bar without a time zone", Refused("has no time zone"))
def _(folder): return fitted().update(VECTORS[0], TABLE.tz_localize(None).iloc[0])


@fault(ROWS, "5+", "scores with the labels of other bars", Refused("scores 'a': bar 0 is labelled"))
def _(folder):
    scores = {"a": pd.Series(SCORES, TIMES[::-1])}
    return alarm_table(scores, CANDLES, TRAIN, np.arange(700, T), 0.9)


@fault(ROWS, "5+", "scores of more bars than candles", Refused("scores 'a' of 900 bars; wanted 800"))
def _(folder): return alarm_table({"a": SCORES}, CANDLES[:800], TRAIN, np.arange(700, 800), 0.9)


@fault(ROWS, "5+", "scores of other lengths, combined", Refused("scores 'b' of 899 bars; wanted 900"))
def _(folder): return combined_scores({"a": SCORES, "b": SCORES[1:]}, TRAIN)


@fault(ROWS, "5+", "alarms and events of other bars", Refused("flags of 1000 bars and of 900"))
def _(folder): return warned_share(FLAGS, EVENTS, 5)


@fault(ROWS, "5+", "events and alarms of other bars, confirmed", Refused("flags of 1000 bars and of 900"))
def _(folder): return confirmed_share(EVENTS, FLAGS, 5)


for _name, _train in {"a mask": np.arange(T) < 600, "backwards": TRAIN[::-1], "below 0": np.arange(-5, 600),
                      "beyond the end": np.arange(T + 1), "none": np.arange(0)}.items():
    @fault(ROWS, "5+", f"training rows: {_name}", Refused("wanted rising positions from 0 to 899"))
    def _(folder, train=_train): return rate_threshold(SCORES, train, 0.02, 5)


@fault(ROWS, "5+", "training rows with a gap, over which episodes would flow", Refused("without a gap"))
def _(folder): return fitted(train=np.delete(TRAIN, 300))


for _function in (shock_scores, large_moves, hour_moves, named_crashes):
    @fault(ROWS, "19+", f"candles newest first, {_function.__name__}", Refused("wanted times that rise"))
    def _(folder, function=_function): return function(CANDLES[::-1])

    @fault(ROWS, "s4", f"candles without a time zone, {_function.__name__}", Refused("wanted times in UTC"))
    def _(folder, function=_function): return function(CANDLES.tz_localize(None))


# the monitor's file
for _name, _other in {
        "no thresholds": {"thresholds": []}, "thresholds that fall": {"thresholds": [2, 1]},
        "an unknown threshold": {"thresholds": [float("nan"), 2]}, "no spread": {"spread": [0, 1, 1]},
        "a gap of 1e9": {"gap": 10**9}, "a gap that is True": {"gap": True},
        "an infinite centre": {"centre": [float("inf"), 0, 0]}, "a text in it": {"centre": ["1", 0, 0]},
        "one name twice": {"names": ["a", "a", "b"]},
        "a number for a name": {"names": [1, 2, 3]}, "names in one text": {"names": "abc"},
        "a mean without a rotation": {"whiten": None},
        "nothing usual": {"usual": [[0]*3]*3},
        "usual sizes for other spans": {"spans": [1]}, "a span of 1e12": {"spans": [1, 5, 10**12]},
        "three rates": {"alarms_a_day": [3, 2, 1]},
        "a key of somebody else": {"colour": 1}}.items():
    @fault(ROWS, 15, f"a monitor's file with {_name}", Refused("no saved monitor"))
    def _(folder, other=_other): return load_monitor(saved(folder, **other))

@fault(ROWS, 15, "a monitor's file of brackets within brackets", Refused("no saved monitor"))
def _(folder):
    (folder/"monitor.json").write_text("["*100_000)
    return load_monitor(folder/"monitor.json")


@fault(ROWS, "15+", "a monitor's file in which a key comes twice", Refused("a name comes twice"))
def _(folder):
    path = saved(folder)
    path.write_text(path.read_text().replace('"gap": 5', '"gap": 5, "gap": 6'))
    return load_monitor(path)


@fault(ROWS, "15+", "a monitor's file that is a folder", Refused("no saved monitor .not a plain file."))
def _(folder): return load_monitor(folder)


@fault(ROWS, "8+", "a monitor of numpy numbers, saved and loaded", True)
def _(folder):
    numbers = {"alarms_a_day": np.array([0.5, 0.1]), "gap": np.int64(3), "spans": np.array([1, 4])}
    monitor = fitted(**numbers)
    monitor.save(folder/"monitor.json")
    return same_answers(load_monitor(folder/"monitor.json"), fitted(gap=3, spans=(1, 4)))


@fault(ROWS, 27, "a monitor saved where no folder is", Refused("no monitor can be written here"))
def _(folder): return fitted().save(folder/"nowhere"/"monitor.json")


@fault(ROWS, 27, "a monitor saved below a file", Refused("no monitor can be written here"))
def _(folder):
    (folder/"file").write_text("")
    return fitted().save(folder/"file"/"monitor.json")


@fault(ROWS, 27, "a monitor saved over one when the disk is full: the old one stays, nothing else", True)
def _(folder):
    fitted().save(path := folder/"monitor.json")
    before = path.read_text()
    def full(*given): raise OSError(28, "No space left on device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ValueError, match="No space left"): fitted(gap=9).save(path)
    return path.read_text() == before and [*folder.iterdir()] == [path]


@fault(ROWS, "s4", "a monitor saved before it has learnt", Refused("has learnt nothing"))
def _(folder): return RiskMonitor().save(folder/"monitor.json")


@fault(ROWS, "s4", "the averages of a monitor that has not learnt", Refused("has learnt nothing"))
def _(folder): return RiskMonitor().averages(CHANNELS)


@fault(ROWS, "s4", "a monitor with three rates", Refused("wanted two numbers"))
def _(folder): return RiskMonitor((3., 2., 1.))


@fault(ROWS, "s4", "a monitor of no bars a day", Refused("0 bars a day; wanted"))
def _(folder): return fitted(day=0)


@fault(ROWS, "s4", "a monitor with a gap of 2.5", Refused("gap 2.5; wanted a whole number"))
def _(folder): return RiskMonitor(gap=2.5)


# thresholds and what they are held against
@fault(ROWS, "s4", "the neighbour of number 0, once the farthest", Refused("k 0; wanted a whole number"))
def _(folder): return knn_scores(VECTORS, TRAIN, k=0)


@fault(ROWS, "s4", "the drift of constant scores", Refused("all alike"))
def _(folder): return drift_watch(np.full(T, 3.), TRAIN, 50)


@fault(ROWS, "s4", "the memory of constant scores", Refused("all alike"))
def _(folder): return memory(np.full(T, 3.))


@fault(ROWS, "s4", "a drift watch without a block", Refused("299 bars after training; wanted a block of 500"))
def _(folder): return drift_watch(SCORES[:899], TRAIN, 500)


@fault(ROWS, "s4", "a drift watch with blocks of 0 bars", Refused("length 0; wanted a whole number from 1"))
def _(folder): return drift_watch(SCORES, TRAIN, 0)


@fault(ROWS, "s4", "a threshold from scores that are not known", Refused("0 known training scores of 600"))
def _(folder): return training_threshold(SCORES*np.nan, TRAIN, 0.9)


@fault(ROWS, "s4", "a threshold from one score", Refused("1 known training scores of 1; a threshold needs"))
def _(folder): return training_threshold(SCORES, np.array([0]), 0.99)


@fault(ROWS, "s4", "a quantile of 99", Refused("quantile 99; wanted 0 to 1"))
def _(folder): return training_threshold(SCORES, TRAIN, 99)


@fault(ROWS, "s4", "a stated rate from scores that are all alike", Refused("600 training scores are alike"))
def _(folder): return rate_threshold(np.full(T, 0.1), TRAIN, 0.02, 5)


@fault(ROWS, "s4", "a tail whose episodes are all as high", Refused("episodes are all 1"))
def _(folder): return fit_tail(1.*(np.arange(T) % 29 == 0), TRAIN, 5)


for _budget in (-1, np.nan):
    @fault(ROWS, "s4", f"a budget of {_budget} episodes", Refused("wanted a number from 0"))
    def _(folder, budget=_budget): return budget_threshold(SCORES, budget, 5)


@fault(ROWS, "s4", "no scores, no table", Refused("no scores; wanted at least one"))
def _(folder): return event_table({}, FLAGS, 24)


@fault(ROWS, "s4", "no budgets, no table", Refused("no budgets"))
def _(folder): return event_table({"a": SCORES}, FLAGS, 24, ())


@fault(ROWS, "s4", "scores that end with training", Refused("scores 'a': none of the test bars has one"))
def _(folder):
    ended = {"a": changed(SCORES, slice(700, None), np.nan)}
    return alarm_table(ended, CANDLES, TRAIN, np.arange(700, T), 0.9)


@fault(ROWS, "s4", "the bars of an hour, from one bar", Refused("at least 2 bars"))
def _(folder): return bars_in(CANDLES[:1], 1)


@fault(ROWS, "s4", "chance on one bar", Refused("shifts 0"))
def _(folder): return random_recall(np.array([True]), np.array([0]), np.array([0]))


@fault(ROWS, "s4", "a change point with an unknown threshold", Refused("threshold nan"))
def _(folder): return change_points(SCORES, 0.5, np.nan)


# augmentations
BATCH, DRAWS = torch.randn(4, 40, 3), torch.Generator()
INFINITE = BATCH.clone()
INFINITE[1, 5, 2] = np.inf


for _function in (jitter, frequency_mask, frequency_mix):
    @fault(ROWS, "14+", f"an infinite value, {_function.__name__}: its channel became missing",
           Refused("channel 2: infinite"))
    def _(folder, function=_function): return function(INFINITE, DRAWS)


for _function in (jitter, scaling, magnitude_warp, time_warp):
    @fault(ROWS, "21+", f"a strength that is no number, {_function.__name__}", Refused("strength nan"))
    def _(folder, function=_function): return function(BATCH, DRAWS, float("nan"))


for _function in (window_slice, mask_bars, frequency_mask, frequency_mix):
    @fault(ROWS, "21+", f"a share of 1.5, {_function.__name__}", Refused("ratio 1.5: wanted 0 to 1"))
    def _(folder, function=_function): return function(BATCH, DRAWS, 1.5)


for _function in (jitter, magnitude_warp, time_warp):
    @fault(ROWS, "s4", f"one series, no batch, {_function.__name__}", Refused("wanted a batch .B, T, C."))
    def _(folder, function=_function): return function(BATCH[0], DRAWS)


@fault(ROWS, "s4", "an augmentation of some series that changes their length", Refused("keeps the shape"))
def _(folder): return Sometimes(lambda x, draws: crop(x, draws, 9), 1.)(BATCH, DRAWS)


@fault(ROWS, "s4", "a clock that runs away", Refused("such a clock has no end"))
def _(folder): return time_warp(BATCH, DRAWS, 1e6)


@fault(ROWS, "s4", "the facts of windows of five bars", Refused("at least 11"))
def _(folder): return window_facts(BATCH[:, :5])


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

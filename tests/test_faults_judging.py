"""Inputs that once gave a wrong number, lost work or a traceback (judging): given, wanted."""
import warnings
from dataclasses import replace

import numpy as np, pandas as pd, pytest

from fault_table import Refused, check, fault
from sslts_nb.settings import load_settings
from sslts_nb.market import sample_candles
from sslts_nb.labels import (Dataset, Fold, Label, average_uniqueness, combinatorial, direction_labels,
                             few_labels, fold_on, label_frame, label_summary, purged, regime_labels,
                             study_label, triple_barrier_labels, walk_forward)
from sslts_nb.statistics import (bootstrap_means, confidence_set, diebold_mariano, effective_sample_size,
                                 limits)
from sslts_nb.probes import Examples, interval_split
from sslts_nb.evaluate import (Model, Predictions, Row, averaged, class_scores, compare, evaluate, joined,
                               losses, paired, probed, tried)
from sslts_nb.baselines import MAJORITY, ewma_variance, garch_forecast, majority, pca_of_windows
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.finetune import FineTuned, WindowLSTM, fine_tune

ROWS = []
JUDGED = sample_candles().iloc[:600]
JUDGE = load_settings(source="sample", profile="quick", window=20, bootstrap=50)
JUDGED_FOLD = Fold(0, np.arange(300), np.arange(320, 600))
HALF = np.arange(600) < 310
RANDOM = np.random.default_rng(0).normal(size=(600, 3))


def number_label(values=None):
    "A label of numbers, each known a bar later."
    values = RANDOM[:, 0] if values is None else np.asarray(values, float)
    return Label("number", values, np.arange(len(values)) + 1, 0)


def class_label(values=None):
    "A label of two classes, each known a bar later."
    values = (RANDOM[:, 0] > 0)*1. if values is None else np.asarray(values, float)
    return Label("class", values, np.arange(len(values)) + 1, 2)


def saying(answer, name="says"):
    "A model that says `answer` at every bar, or answer(at)."
    of = answer if callable(answer) else lambda at: np.tile(answer, (len(at), 1)) if np.ndim(answer) else (
        np.full(len(at), float(answer)))
    return Model(name, lambda fold, label, seed, at: of(at))


def judged(models, label, folds=(JUDGED_FOLD,), seeds=(0,), times=JUDGED.index, **more):
    "`evaluate`, without a progress bar."
    return evaluate([*models], label, [*folds], seeds, times, quiet=True, **more)


def judged_encoder(n_channels):
    "As small as an encoder can be."
    return DilatedConvEncoder(n_channels, hidden=4, dimensions=n_channels, depth=1, seed=0)


# ---- 20: one unbounded answer

@fault(ROWS, 20, "a ridge whose input explodes at one test bar", True)
def _(folder):
    wild = RANDOM.copy()
    wild[400] *= 1e6
    label = number_label(RANDOM[:, 0] - 9)
    found, train = judged([probed(Row("wild", lambda fold, seed: wild))], label), label.values[:300]
    (answer,) = found.runs["wild"]
    return train.min() <= answer.min() and answer.max() <= train.max() and found.bounded["wild"] >= 1

@fault(ROWS, 20, "-26.7 once where -9 is usual: the mean QLIKE", True)
def _(folder):
    label = number_label(RANDOM[:, 0] - 9)
    wild = saying(lambda at: np.where(at == 550, -26.7, -9.))
    return bool(losses(judged([wild], label), "qlike")["says"].mean() < 10)

@fault(ROWS, "20+", "an infinite forecast", Refused("says on number, fold 1: an infinite answer at bar 330"))
def _(folder): return judged([saying(lambda at: np.where(at == 330, np.inf, 0.))], number_label())

@fault(ROWS, "20+", "probabilities that do not sum to one", Refused("wanted probabilities"))
def _(folder): return judged([saying([0.5, 0.6])], class_label())

@fault(ROWS, "20+", "a negative probability", Refused("wanted probabilities"))
def _(folder): return judged([saying([1.5, -0.5])], class_label())

@fault(ROWS, "20+", "a class that is called impossible, and came", Refused("log loss of class is not finite"))
def _(folder): return class_scores(judged([saying([1., 0.])], class_label()))

@fault(ROWS, "20+", "answers as a column instead of (N,)", Refused(r"shape \(280, 1\); wanted \(280,\)"))
def _(folder): return judged([saying(lambda at: np.zeros((len(at), 1)))], number_label())

# ---- 23: a majority that is weak by accident

def turning():
    "Two folds; what is frequent in the training of one is rare in its test."
    label = Label("turned", np.repeat([0., 1., 1., 0.], [28, 12, 28, 12]), np.arange(80), 2)
    folds = [Fold(0, np.arange(40), np.arange(40, 80)), Fold(1, np.arange(40, 80), np.arange(40))]
    return judged([majority()], label, folds, times=JUDGED.index[:80])

@fault(ROWS, 23, "a majority class that changes between folds: balanced accuracy, MCC", np.array([0.5, 0.]))
def _(folder): return class_scores(turning()).loc[MAJORITY, ["balanced_accuracy", "mcc"]].to_numpy(float)

@fault(ROWS, 23, "the training frequencies' log loss", -0.3*np.log(28.5/41) - 0.7*np.log(12.5/41))
def _(folder): return float(class_scores(turning()).frequencies_log_loss[MAJORITY])

@fault(ROWS, 23, "the order of the columns", ["balanced_accuracy", "log_loss", "frequencies_log_loss"])
def _(folder): return [*class_scores(turning()).columns[:3]]

# ---- 11: units

@fault(ROWS, 11, "GARCH on returns of a hundredth", 0.)
def _(folder):
    small, train = JUDGED.assign(close=JUDGED.close**0.01), np.arange(400)
    moved = garch_forecast(small, train, 5) - 2*np.log(0.01) - garch_forecast(JUDGED, train, 5)
    return round(float(moved.abs().max()), 4)

@fault(ROWS, "11+", "GARCH on a price that stands still", Refused("GARCH: .* wanted 50 that vary"))
def _(folder): return garch_forecast(JUDGED.assign(close=1.), np.arange(400), 5)

@fault(ROWS, "11+", "GARCH on ten bars", Refused("GARCH: 9 training returns"))
def _(folder): return garch_forecast(JUDGED, np.arange(10), 5)

@fault(ROWS, "11+", "a confidence set of losses in billionths", True)
def _(folder):
    columns = {"a": RANDOM[:, 0]**2, "b": RANDOM[:, 1]**2, "c": RANDOM[:, 2]**2}
    small = {name: 1e-9*one for name, one in columns.items()}
    return bool((confidence_set(columns, 5, draws=50).p == confidence_set(small, 5, draws=50).p).all())

# ---- 12: deviations and their rounding

@fault(ROWS, 12, "Diebold-Mariano of losses that differ by rounding", (0., 1.))
def _(folder): return diebold_mariano(RANDOM[:, 0] + 0.1 - 0.1, RANDOM[:, 0], 5)

@fault(ROWS, "12+", "Diebold-Mariano of a constant difference", (np.inf, 0.))
def _(folder): return diebold_mariano(RANDOM[:, 0] + 0.5, RANDOM[:, 0], 5)

@fault(ROWS, "12+", "Diebold-Mariano of two constants", (-np.inf, 0.))
def _(folder): return diebold_mariano(np.full(50, 0.1), np.full(50, 0.3), 5)

@fault(ROWS, "12+", "the effective size of a constant", 1000.)
def _(folder): return effective_sample_size(np.full(1000, 1e6 + 0.1))

@fault(ROWS, "12+", "a confidence set of rows apart by a constant, without a warning", [True, False])
def _(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return confidence_set({"a": RANDOM[:, 0], "b": RANDOM[:, 0] + 1}, 5, draws=50).inside.tolist()

@fault(ROWS, "12+", "the bootstrap of a constant column beside one that varies", 0.)
def _(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return float(np.ptp(bootstrap_means(np.column_stack([np.full(600, 0.1), RANDOM[:, 0]]), 50, 5)[:, 0]))

@fault(ROWS, "12+", "R2 of a constant truth", Refused("number is 0.1 on all 280 test bars"))
def _(folder): return compare(judged([saying(0.1)], number_label(np.full(600, 0.1))), "squared error", 50)

@fault(ROWS, "12+", "the regime of a perfect trend", {2.})
def _(folder):
    straight = pd.DataFrame({"close": 100*1.001**np.arange(80)}, JUDGED.index[:80])
    return set(regime_labels(straight, 10).label.dropna())

@fault(ROWS, "12+", "the scale of a dead column of vectors in 32 bits", 1.)
def _(folder):
    dead = (np.float32(100.1) + np.float32(1e-5)*(np.arange(500) % 2)).astype("float32")[:, None]
    return float(FineTuned(judged_encoder(1), dead, RANDOM[:, 0], 0).spread)

# ---- 13: one tick and everything after it

@fault(ROWS, "13", "one tick of a million times the price at bar 5: regimes from bar 60 on", True)
def _(folder):
    ticked = JUDGED.copy()
    ticked.iloc[5, ticked.columns.get_loc("close")] *= 1e6
    return regime_labels(ticked, 24).label[60:].equals(regime_labels(JUDGED, 24).label[60:])

# ---- 5: order, length, labels

@fault(ROWS, "5+", "labels of candles newest first", Refused("wanted oldest first"))
def _(folder): return direction_labels(JUDGED[::-1], 5, 0.005)

@fault(ROWS, "5+", "a data set of candles newest first", Refused("wanted oldest first"))
def _(folder): return Dataset(JUDGED[::-1], JUDGE)

@fault(ROWS, "5+", "a bar that comes twice", Refused("wanted oldest first"))
def _(folder): return study_label(JUDGED.iloc[[0, 1, 1, *range(2, 100)]], JUDGE, "volatility")

@fault(ROWS, "5+", "a close of zero", Refused("close 0.0; wanted finite prices above zero"))
def _(folder):
    zero = JUDGED.assign(close=JUDGED.close.where(JUDGED.index != JUDGED.index[7], 0.))
    return study_label(zero, JUDGE, "up")

@fault(ROWS, "5+", "values and known of other length", Refused("wanted one of each for every bar"))
def _(folder): return Label("ragged", RANDOM[:, 0], np.arange(599), 0)

@fault(ROWS, "5+", "a label that is known before its bar", Refused("known before its bar"))
def _(folder): return Label("early", RANDOM[:, 0], np.arange(600) - 1, 0)

@fault(ROWS, "5+", "class 3 of two", Refused("a label is 3.0; wanted classes 0 to 1"))
def _(folder): return class_label(np.full(600, 3.))

@fault(ROWS, "5+", "an infinite label", Refused("a label is inf"))
def _(folder): return number_label(np.full(600, np.inf))

@fault(ROWS, "5+", "a fold of a longer market", Refused("number has 500 bars, and fold 1 reaches bar 599"))
def _(folder): return purged(number_label(RANDOM[:500, 0]), JUDGED_FOLD)

@fault(ROWS, "5+", "times of other bars", Refused("600 labels, times of 599 bars"))
def _(folder): return judged([majority()], number_label(), times=JUDGED.index[1:])

@fault(ROWS, "5+", "times newest first", Refused("oldest first"))
def _(folder): return judged([majority()], number_label(), times=JUDGED.index[::-1])

@fault(ROWS, "5+", "representations of fewer bars", Refused("wanted a vector for each of the 600 bars"))
def _(folder): return judged([probed(Row("short", lambda fold, seed: RANDOM[:599]))], number_label())

@fault(ROWS, "5+", "representations of more bars", Refused("wanted a vector for each of the 600 bars"))
def _(folder):
    return judged([probed(Row("long", lambda fold, seed: np.vstack([RANDOM, RANDOM])))], number_label())

@fault(ROWS, "5+", "rows of other length side by side", Refused(r"joined of rows of \[599, 600\] bars"))
def _(folder):
    rows = [Row("a", lambda fold, seed: RANDOM), Row("b", lambda fold, seed: RANDOM[1:])]
    return judged([probed(joined("both", *rows))], number_label())

@fault(ROWS, "5+", "examples with a label too few", Refused("examples: vectors"))
def _(folder): return Examples(RANDOM, RANDOM[1:, 0], np.arange(600), np.arange(600))

@fault(ROWS, "5+", "examples with a NaN", Refused("the vector of row 7 is not finite"))
def _(folder):
    holed = RANDOM.copy()
    holed[7, 1] = np.nan
    return Examples(holed, RANDOM[:, 0], np.arange(600), np.arange(600))

@fault(ROWS, "5+", "training rows newest first", Refused("in time order"))
def _(folder): return interval_split(np.arange(100)[::-1], np.arange(100)[::-1] + 5)

@fault(ROWS, "5+", "losses of other bars", Refused(r"losses of shapes \(600,\) and \(1,\)"))
def _(folder): return diebold_mariano(RANDOM[:, 0], RANDOM[:1, 0], 5)

@fault(ROWS, "5+", "losses of models on other bars", Refused("wanted the same bars"))
def _(folder): return confidence_set({"a": RANDOM[:, 0], "b": RANDOM[1:, 0]}, 5)

@fault(ROWS, "5+", "a missing loss", Refused("losses of b: nan at bar 3"))
def _(folder):
    return confidence_set({"a": RANDOM[:, 0], "b": np.where(np.arange(600) == 3, np.nan, RANDOM[:, 1])}, 5)

@fault(ROWS, "5+", "predictions of a bar too few", Refused("wanted an answer of each model for every bar"))
def _(folder): return Predictions(number_label(), np.arange(5), np.zeros(5), {"a": [np.zeros(4)]})

@fault(ROWS, "5+", "naive bars of an asset on a common index in UTC", Refused("in UTC and own bars in None"))
def _(folder): return fold_on(JUDGED_FOLD, JUDGED.index, JUDGED.index.tz_localize(None))

@fault(ROWS, "5+", "a fold that reaches beyond the data set", Refused("reaches bar 599, of 500 bars"))
def _(folder): return Dataset(JUDGED.iloc[:500], JUDGE).scaled(JUDGED_FOLD)

@fault(ROWS, "5+", "fine-tuning on features of other bars", Refused("wanted both of the same bars"))
def _(folder):
    return fine_tune(judged_encoder(3), RANDOM[1:], number_label(), np.arange(300), quiet=True)

@fault(ROWS, "5+", "a pre-training that says when in naive time", Refused("wanted a time of the same kind"))
def _(folder):
    return judged([replace(majority(), seen=lambda fold: pd.Timestamp("2012-01-01"))], number_label())

# ---- 21: numbers that cannot be meant

WALKS = {"gap=-5": (600, 2, 0.5, -5),
    "gap=nan": (600, 2, 0.5, np.nan),
    "gap=2.0": (600, 2, 0.5, 2.),
    "gap=True": (600, 2, 0.5, True),
    "folds=0": (600, 0, 0.5, 5),
    "folds=-1": (600, -1, 0.5, 5),
    "folds=True": (600, True, 0.5, 5),
    "first_train=nan": (600, 2, np.nan, 5),
    "first_train=-1": (600, 2, -1, 5),
    "first_train=1.5": (600, 2, 1.5, 5),
    "bars=-600": (-600, 2, 0.5, 5),
    "nothing to train on": (10, 1, 0.0, 0)}
for name, arguments in WALKS.items():
    fault(ROWS, 21 if name == "gap=-5" else "21+", f"walk_forward, {name}", Refused("wanted"))(
        lambda folder, arguments=arguments: walk_forward(*arguments))

for arguments in [(600, 6, 2, -5), (600, 6, 2, 2.), (600, 6, 0, 5), (600, 1, 1, 5), (600, 6.0, 2, 5),
                  (-600, 6, 2, 5), (600, True, 1, 5), (600, 50, 25, 1)]:
    fault(ROWS, "21+", f"combinatorial{arguments}", Refused("wanted"))(
        lambda folder, arguments=arguments: combinatorial(*arguments))

@fault(ROWS, "21+", "two groups as long as the gap", Refused("no bar is left to train on"))
def _(folder): return combinatorial(20, 2, 1, 10)

FOLDS = {"overlapping": ([0, 1, 2], [2, 3]), "reversed": ([2, 1], [3]), "of negative bars": ([-1, 0], [3]),
         "of shares": ([0.5], [3])}
for name, (train, test) in FOLDS.items():
    fault(ROWS, "21+", f"a fold {name}", Refused("fold 1: "))(
        lambda folder, train=train, test=test: Fold(0, np.array(train), np.array(test)))

for horizon in (0, -5, 5.0, True, np.nan, 600, "5"):
    fault(ROWS, "21+", f"labels over {horizon!r} bars", Refused("horizon"))(
        lambda folder, horizon=horizon: direction_labels(JUDGED, horizon, 0.005))
for threshold in (-0.01, np.nan, np.inf, True, None):
    fault(ROWS, "21+", f"a threshold of {threshold!r}", Refused("threshold"))(
        lambda folder, threshold=threshold: direction_labels(JUDGED, 5, threshold))
for factor in (0, -1., np.nan):
    fault(ROWS, "21+", f"barriers at {factor} volatilities", Refused("factor"))(
        lambda folder, factor=factor: triple_barrier_labels(JUDGED, 5, factor))
for length in (0, -1, 2.5, np.array([1, 2]), np.nan):
    fault(ROWS, "21+", f"a label of length {length}", Refused("length of a label"))(
        lambda folder, length=length: label_frame(JUDGED.close, length))
for n in (0, -3, 2.5, True, 10_000):
    fault(ROWS, "21+", f"{n} few labels", Refused("few_labels: n|labels of number") if n is not True else
          Refused("few_labels: n"))(lambda folder, n=n: few_labels(number_label(), JUDGED_FOLD, n, 0))
for classes in (-1, 1, 2.0, True):
    fault(ROWS, "21+", f"a label of {classes!r} classes", Refused("class"))(
        lambda folder, classes=classes: Label("odd", np.zeros(5), np.arange(5), classes))

@fault(ROWS, "21+", "intervals that end before they begin", Refused("0 <= t0 < t1"))
def _(folder): return average_uniqueness(pd.DataFrame({"label": [1., 0.], "t0": [0, 5], "t1": [2, 5]}))

@fault(ROWS, "21+", "intervals without an end", Refused("labels without t1"))
def _(folder): return label_summary(pd.DataFrame({"label": [1.], "t0": [0]}))

STATISTICS = {
    "-5 draws": lambda: bootstrap_means(RANDOM, -5, 5),
    "no draws": lambda: bootstrap_means(RANDOM, 0, 5),
    "draws=True": lambda: bootstrap_means(RANDOM, True, 5),
    "a block of 0": lambda: bootstrap_means(RANDOM, 50, 0),
    "a block of -5": lambda: bootstrap_means(RANDOM, 50, -5),
    "seed=-1": lambda: bootstrap_means(RANDOM, 50, 5, -1),
    "no bars": lambda: bootstrap_means(RANDOM[:0], 50, 5),
    "a missing bar": lambda: bootstrap_means([[1.], [np.nan]], 50, 5),
    "level=95": lambda: limits(RANDOM[:, 0], 95),
    "level=nan": lambda: limits(RANDOM[:, 0], np.nan),
    "limits of nothing": lambda: limits(RANDOM[:0]),
    "horizon=0": lambda: diebold_mariano(*RANDOM.T[:2], 0),
    "horizon=-5": lambda: diebold_mariano(*RANDOM.T[:2], -5),
    "no losses": lambda: diebold_mariano([], [], 1),
    "one loss": lambda: diebold_mariano([1.], [2.], 1),
    "a missing loss": lambda: diebold_mariano([1., np.nan], [2., 1.], 1),
    "no models": lambda: confidence_set({}, 1),
    "a set at horizon 0": lambda: confidence_set({"a": RANDOM[:, 0]}, 0),
    "a set at level 90": lambda: confidence_set({"a": RANDOM[:, 0]}, 1, 90),
    "the effective size of nothing": lambda: effective_sample_size([]),
    "the effective size of NaN": lambda: effective_sample_size([1., np.nan])}
for name, act in STATISTICS.items():
    fault(ROWS, "21+", name, Refused("wanted"))(lambda folder, act=act: act())

EVALUATIONS = {
    "no models": lambda: judged([], number_label()),
    "no folds": lambda: judged([majority()], number_label(), ()),
    "no seeds": lambda: judged([majority()], number_label(), seeds=()),
    "a seed of -1": lambda: judged([majority()], number_label(), seeds=(-1,)),
    "a seed of 0.5": lambda: judged([majority()], number_label(), seeds=(0.5,)),
    "a seed twice": lambda: judged([majority()], number_label(), seeds=(0, 0)),
    "a fold's number twice": lambda: judged([majority()], number_label(), [JUDGED_FOLD]*2),
    "a fold without test": lambda: judged([majority()], number_label(), [Fold(0, np.r_[0:9], np.r_[0:0])]),
    "no training label": lambda: judged([majority()], number_label(np.where(HALF, np.nan, 1.))),
    "no label at all": lambda: judged([majority()], number_label(np.full(600, np.nan))),
    "no test label": lambda: judged([majority()], number_label(np.where(HALF, 1., np.nan))),
    "the mean of no model": lambda: averaged("mean"),
    "no row": lambda: joined("both"),
    "no pairs": lambda: paired(judged([majority()], class_label()), "error", 50, []),
    "no draws": lambda: compare(judged([majority()], class_label()), "error", 0)}
for name, act in EVALUATIONS.items():
    fault(ROWS, "21+", f"evaluation: {name}", Refused("wanted|twice|no training label|no label of a test"))(
        lambda folder, act=act: act())

FITS = {"ewma of decay 1": lambda: ewma_variance(JUDGED, (1.,)),
    "ewma of decay nan": lambda: ewma_variance(JUDGED, (np.nan,)),
    "GARCH over 0 bars": lambda: garch_forecast(JUDGED, np.arange(400), 0),
    "components of windows of 0": lambda: pca_of_windows(RANDOM, np.arange(300), 0, 2),
    "-1 components": lambda: pca_of_windows(RANDOM, np.arange(300), 5, -1),
    "components of no whole window": lambda: pca_of_windows(RANDOM*np.nan, np.arange(300), 5, 2),
    "an LSTM of no bars": lambda: WindowLSTM(3, 4, 0),
    "an LSTM of -1 units": lambda: WindowLSTM(3, -1)}
for name, act in FITS.items(): fault(ROWS, "21+", name, Refused("wanted"))(lambda folder, act=act: act())

for name, given in {"steps": 0, "batch_size": -1, "learning_rate": np.nan, "seed": 0.5}.items():
    fault(ROWS, "21+", f"fine-tuning, {name}={given}", Refused(f"fine-tuning: {name}"))(
        lambda folder, name=name, given=given: fine_tune(
            judged_encoder(3), RANDOM, number_label(), np.arange(300), quiet=True, **{name: given}))

# ---- too little, before the work

@fault(ROWS, "4", "too few labels, before a representation is computed", Refused("wanted at least 8"))
def _(folder):
    def dear(fold, seed): raise AssertionError("computed")
    few = few_labels(number_label(), JUDGED_FOLD, 5, 0)
    return judged([probed(Row("dear", dear))], few)

for probe in ("linear", "neighbours"):     # the others: tests/test_probes.py
    fault(ROWS, "4", f"one class only in training, {probe}", True)(lambda folder, probe=probe: bool(
        (judged([probed(Row("r", lambda fold, seed: RANDOM), probe, "r")], class_label(~HALF))
         .runs["r"][0] > 0).all()))
    fault(ROWS, "4", f"nowhere whole in the test, {probe}", Refused("no test bar has a label"))(
        lambda folder, probe=probe: judged([probed(Row("r", lambda fold, seed: np.where(
            HALF[:, None], RANDOM, np.nan)), probe, "r")], number_label()))

# ---- the log

@fault(ROWS, "27+", "a log that cannot be written, before the work", Refused("no log can be kept there"))
def _(folder):
    def dear(at): raise AssertionError("computed")
    (folder/"file").write_text("")
    return judged([saying(dear)], number_label(), log=folder/"file"/"tried.jsonl")

@fault(ROWS, "4", "a log that is not there", Refused("no log to read"))
def _(folder): return tried(folder/"none.jsonl")

@fault(ROWS, "4", "a log with a line of something else", Refused("line 2: .* is not what `evaluate` wrote"))
def _(folder):
    (folder/"tried.jsonl").write_text('{"model": "a"}\n[1, 2\n')
    return tried(folder/"tried.jsonl")


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

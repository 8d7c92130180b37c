"""Leaks, looked for in a whole study: what comes after a fold's training end changes nothing in that fold.

Functions are well guarded one by one; what joins them is watched here. A study runs on a market, and again on
one whose bars after a fold's training end are other bars. Every answer on that fold's training bars (scaler,
encoder, probe and chosen strength in one) and every threshold has to be the same to the last bit."""
import pkgutil, sys
from dataclasses import replace
from importlib import import_module

import numpy as np, pandas as pd, pytest

import sslts_nb
from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import simulate_market
from sslts_nb.features import compute_features, scale
from sslts_nb.labels import Dataset, Label, study_folds
from sslts_nb.evaluate import Predictions, evaluate
from sslts_nb.baselines import baselines
from sslts_nb.finetune import supervised
from sslts_nb.backtest import Terms, trade
from sslts_nb.signals import prototype_similarity
from sslts_nb.study import row_positions, run_study, trade_rows

use_threads(1)
BARS, START = 1500, pd.Timestamp("2024", tz="UTC")
TINY = {"source": "simulated", "profile": "quick", "features": "market", "folds": 2, "first_train": 0.5,
        "window": 24, "steps": 12, "batch_size": 4, "crop": 48, "hidden": 8, "dimensions": 8, "depth": 2,
        "bootstrap": 50}


def market(seed):
    "Hours of one simulated market."
    return simulate_market(1, START, START + pd.Timedelta(hours=BARS), seed=seed).candles["SIM00"]


def replaced_after(candles, end, seed):
    "The same bars up to `end`, and another market's bars, from the same price on, after it."
    other, begin = market(seed), candles.index.searchsorted(end, side="right")
    out = candles.copy()
    out.iloc[begin:] = other.iloc[begin:]
    prices = ["open", "high", "low", "close"]
    columns = [out.columns.get_loc(name) for name in prices]
    out.iloc[begin:, columns] *= candles.close.loc[end]/other.open.iloc[begin]
    assert out.iloc[:begin].equals(candles.iloc[:begin])
    assert (out.close != candles.close).iloc[begin:].all()
    return out


def run(candles, settings, with_baselines=True):
    "The whole study, and all that predicts without pre-training."
    run_study(candles, settings)
    if not with_baselines: return
    data = Dataset(candles, settings)
    for name in ("direction", "volatility"):
        models = [*baselines(data, data.label(name)), *supervised(data)]
        evaluate(models, data.label(name), data.folds, settings.seeds, data.times, quiet=True)


# ---- listening

def everywhere(patch, name, wrap):
    "Put wrap(function) in the place of a public function, wherever a module (or this file) has it."
    names = [found.name for found in pkgutil.walk_packages(sslts_nb.__path__, "sslts_nb.")]
    modules = [sys.modules[__name__], *map(import_module, names)]
    there = [module for module in modules if hasattr(module, name)]
    (real,) = {getattr(module, name) for module in there}
    wrapped = wrap(real)
    for module in there: patch.setattr(module, name, wrapped)


def answers_in_training(models, label, folds, heard, call):
    "The models, who say besides what they answer on each fold's training bars; all of it is noted."
    train_of = {fold.number: fold.train for fold in folds}
    def listened(model):
        def predict(fold, label, seed, at):
            train = train_of[fold.number]
            answers = model.predict(fold, label, seed, np.concatenate([train, at]))
            about = (label.name, model.name, seed, call)
            heard[fold.number, "training", *about] = answers[:len(train)]
            heard[fold.number, "test", *about] = answers[len(train):]
            return answers[len(train):]
        return replace(model, predict=predict)
    return [listened(model) for model in models]


def listen(candles, settings, folder, held=(), leak=None):
    """What was heard in a run, by (fold, kind, ...): answers on the training bars and on the test bars,
    thresholds, positions. Labels of (candles, fold) are `held` in training: the last of them look beyond its
    end, and may, since they are known before the test begins."""
    heard, calls = {}, []
    settings = replace(settings, encoders=str(folder))
    def of_evaluate(real):
        def spied(models, label, folds, *given, **named):
            calls.append("evaluate")
            models = answers_in_training(models, label, folds, heard, len(calls))
            return real(models, label, folds, *given, **named)
        return spied
    def of_threshold(real):
        def spied(*given, **named):
            value = real(*given, **named)
            heard[0, "threshold", sum(key[1] == "threshold" for key in heard)] = np.array([value])
            return value
        return spied
    def of_positions(real):
        def spied(*given, **named):
            found = real(*given, **named)
            for name, runs in found.items():
                for run, position in enumerate(runs): heard[0, "position", name, run] = position
            return found
        return spied
    def of_label(real):
        def spied(candles, settings, name):
            label = real(candles, settings, name)
            if held:
                values, train = label.values.copy(), held[1].train
                values[train] = real(held[0], settings, name).values[train]
                label = replace(label, values=values)
            return label
        return spied
    with pytest.MonkeyPatch.context() as patch:
        if leak: LEAKS[leak](patch)
        everywhere(patch, "evaluate", of_evaluate)
        everywhere(patch, "training_threshold", of_threshold)
        everywhere(patch, "row_positions", of_positions)
        everywhere(patch, "study_label", of_label)
        run(candles, settings, with_baselines=not leak)
    return heard


def changed(first, second):
    "What differs between two runs."
    assert set(first) == set(second), "the two runs did not do the same things"
    return [key for key in first if not np.array_equal(first[key], second[key], equal_nan=True)]


def fitted(heard, number):
    "Of what was heard, that which was fitted for one fold."
    kinds = ("training", "threshold")
    return {key: value for key, value in heard.items() if key[0] == number and key[1] in kinds}


def until(heard, last, folds):
    "Of what was heard, that which was said up to the close of bar `last`, which is in the last fold's test."
    begin = {fold.number: fold.test[0] for fold in folds}
    of_test = lambda key: key[1] in ("test", "position")
    return {key: x[:max(last + 1 - begin[key[0]], 0)] if of_test(key) else x for key, x in heard.items()}


# ---- the study

@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def settings(): return replace(load_settings(**TINY), seeds=(0,), methods=("ts2vec", "tnc", "cost", "mae"))


@pytest.fixture(scope="module")
def original(settings, folder): return listen(market(0), settings, folder/"original")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_what_comes_later_changes_nothing(number, original, settings, folder):
    candles = market(0)
    fold = study_folds(settings, candles)[number]
    other = replaced_after(candles, candles.index[fold.train[-1]], seed=1)
    heard = listen(other, settings, folder/f"replaced {number}", held=(candles, fold))
    assert changed(fitted(original, number), fitted(heard, number)) == []


def test_nothing_is_said_before_it_is_known(original, settings, folder):
    "With other bars after a bar of the test, every answer and position up to that bar is the same."
    candles = market(0)
    folds = study_folds(settings, candles)
    last = folds[-1].test[150]
    heard = listen(replaced_after(candles, candles.index[last], seed=1), settings, folder/"cut")
    assert changed(until(original, last, folds), until(heard, last, folds)) == []
    later = changed(original, heard)
    moving = [key for key in heard if key[:2] == (1, "test") and key[3] != "majority class"]
    assert len([key for key in later if key[1] == "test"]) > 0.95*len(moving)
    assert {key[1] for key in later} == {"test", "position"}
    assert {key[0] for key in later if key[1] == "test"} == {1}


def test_all_of_it_was_heard(original, settings):
    "Every fold, label and row has answers; most of them say something; the alarms have their thresholds."
    spoken = {key: value for key, value in original.items() if key[1] == "training"}
    assert {key[0] for key in spoken} == {0, 1} and {key[2] for key in spoken} == {"direction", "volatility"}
    names = {key[3] for key in spoken}
    assert {"HAR", "hand-made features", "TS2Vec", "TNC", "CoST", "MAE", "PCA of windows"} <= names
    assert {"GARCH", "supervised LSTM", "hand-made features, boosting"} <= names
    lengths = {number: len(fold.train) for number, fold in enumerate(study_folds(settings, market(0)))}
    for key, answers in spoken.items():
        warm_up = 336 if "volatility features" in key[3] else 0    # two weeks of hours
        assert len(answers) == lengths[key[0]] and np.isfinite(answers[warm_up:]).mean() > 0.7, key
        if key[3] != "majority class": assert len(np.unique(answers[np.isfinite(answers)])) > 1, key
    assert sum(key[1] == "threshold" for key in original) == 5  # of three scores, the picture, the rehearsal


# ---- that the test sees what it looks for: errors that were planted, and that no test noticed before

def pretrained_on_all_bars(patch):
    def wrap(real):
        def leaky(data, fold, *given):
            return real(data, replace(fold, train=np.arange(len(data.times))), *given)
        return leaky
    everywhere(patch, "pretrain_fold", wrap)


def encoders_of_the_last_fold(patch):
    def wrap(real):
        def leaky(data, fold, *given): return real(data, data.folds[-1], *given)
        return leaky
    everywhere(patch, "pretrain_fold", wrap)


def scaled_by_all_bars(patch):
    everywhere(patch, "scale", lambda real: lambda features, train: real(features, np.arange(len(features))))


def bars_of_the_test_in_training(patch):
    def wrap(real):
        def leaky(models, *given, **named):
            def taught(model):
                def predict(fold, *more):
                    train = np.concatenate([fold.train, fold.test[:50]])
                    return model.predict(replace(fold, train=train), *more)
                return replace(model, predict=predict)
            return real([taught(model) for model in models], *given, **named)
        return leaky
    everywhere(patch, "evaluate", wrap)


def thresholds_from_test_bars(patch):
    def wrap(real):
        def leaky(scores, candles, train, test, *given): return real(scores, candles, test, test, *given)
        return leaky
    everywhere(patch, "alarm_table", wrap)


def the_last_encoder_watches(patch):
    def wrap(real):
        def leaky(data):
            with pytest.MonkeyPatch.context() as inner:
                encoders_of_the_last_fold(inner)
                return real(data)
        return leaky
    everywhere(patch, "watch", wrap)


LEAKS = {leak.__name__: leak for leak in (
    pretrained_on_all_bars, encoders_of_the_last_fold, scaled_by_all_bars, bars_of_the_test_in_training,
    thresholds_from_test_bars, the_last_encoder_watches)}


@pytest.mark.slow
@pytest.mark.parametrize("leak", [*LEAKS])
def test_a_leak_is_seen(leak, settings, tmp_path):
    settings, candles = replace(settings, methods=("ts2vec",)), market(0)
    fold = study_folds(settings, candles)[0]
    other = replaced_after(candles, candles.index[fold.train[-1]], seed=1)
    try: first = listen(candles, settings, tmp_path/"original", leak=leak)
    except InputError as error:
        assert "is in training and in test" in str(error)     # `Fold` does not even let it happen
        return
    second = listen(other, settings, tmp_path/"replaced", held=(candles, fold), leak=leak)
    found = changed(fitted(first, 0), fitted(second, 0))
    of_alarms = leak in ("thresholds_from_test_bars", "the_last_encoder_watches")
    assert any((key[1] == "threshold") == of_alarms for key in found), f"not seen: {found}"
    if of_alarms: assert all(key[1] == "threshold" for key in found), found


def positions_a_day_early(patch):      # few predictions change within one bar; one bar is tried below
    def wrap(real):
        def leaky(*given):
            return {name: [np.roll(x, -24) for x in runs] for name, runs in real(*given).items()}
        return leaky
    everywhere(patch, "row_positions", wrap)


def features_one_bar_early(patch):
    def wrap(real): return lambda candles, *names: real(candles, *names).shift(-1)
    everywhere(patch, "compute_features", wrap)


LEAKS |= {leak.__name__: leak for leak in (positions_a_day_early, features_one_bar_early)}


@pytest.mark.parametrize("leak, kind", [("positions_a_day_early", "position"),
                                        ("features_one_bar_early", "test")])
def test_what_is_said_too_early_is_seen(leak, kind, settings, tmp_path):
    settings, candles = replace(settings, methods=("ts2vec",)), market(0)
    folds = study_folds(settings, candles)
    last = folds[-1].test[150]
    other = replaced_after(candles, candles.index[last], seed=1)
    try: first = listen(candles, settings, tmp_path/"original", leak=leak)
    except InputError as error:
        assert "is in training and in test" in str(error)     # `Fold` does not even let it happen
        return
    second = listen(other, settings, tmp_path/"cut", leak=leak)
    assert kind in {key[1] for key in changed(until(first, last, folds), until(second, last, folds))}


def test_prototypes_are_of_the_past(settings):
    "What a signal holds a bar against is made of bars that were known to be profitable by then."
    candles = market(0)
    fold, horizon = study_folds(settings, candles)[0], settings.horizon
    def similarity(bars):
        x = scale(compute_features(bars, settings.features), fold.train)
        profitable = (bars.close.shift(-horizon) > bars.close).astype(float).to_numpy()
        return prototype_similarity(x, profitable, horizon)[fold.train]
    other = replaced_after(candles, candles.index[fold.train[-1]], seed=1)
    assert np.isfinite(similarity(candles)).mean() > 0.5
    np.testing.assert_array_equal(similarity(candles), similarity(other))


# ---- positions and accounts

STEP, FIRST, TESTED = 0.01, 7, 401


def up_up_down_down(n_bars):
    "Bars that go up, up, down, down: the next one goes as often this way as that after each."
    signs = np.where(np.arange(n_bars)//2 % 2 == 0, 1., -1.)
    close = 100*np.exp(STEP*np.cumsum(signs))
    opened = np.concatenate([[100.], close[:-1]])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    prices = {"open": opened, "high": high, "low": low, "close": close}
    times = pd.date_range(START, periods=n_bars, freq="h", name="timestamp")
    return pd.DataFrame(prices | {"volume": 1.}, times), signs


def positions_that_follow(signs, candles):
    "The study's position of a row that predicts the direction of the bar that has just closed."
    position, n_bars = np.arange(FIRST, len(candles)), len(candles)
    label = Label("direction", np.ones(n_bars), np.arange(n_bars) + 1, 3)
    runs = {"follows": [np.eye(3)[(signs[position] + 1).astype(int)]]}
    predictions = Predictions(label, position, np.zeros(len(position), int), runs)
    return row_positions(predictions, n_bars, FIRST)["follows"][0]


def grown(position, candles):
    "Logarithm of what one unit of money became, without costs, as the study trades."
    _, accounts = trade_rows({"follows": [position]}, candles.iloc[FIRST:], 0., 0.)
    return np.log(accounts["follows"].equity.iloc[-1])


def test_a_position_is_held_in_the_bar_after_it_is_known():
    """Whoever follows the last bar wins and loses in turn. One bar early, the position knows the bar that it
    is held in, and makes a fortune; one bar late, it is always wrong."""
    candles, signs = up_up_down_down(FIRST + TESTED)
    position = positions_that_follow(signs, candles)
    assert abs(grown(position, candles)) < 5*STEP
    assert grown(np.append(position[1:], 0.), candles) > 0.9*TESTED*STEP
    assert grown(np.append(0., position[:-1]), candles) < -0.9*TESTED*STEP


def test_slippage_knows_only_the_bars_before():
    "A bar's own move is not in the volatility that its slippage is charged by; it is in the next bar's."
    candles, position = market(0), np.where(np.arange(BARS) % 2 == 0, 1., -1.)
    terms, bar = Terms(slippage=0., slippage_volatility=0.5), 700
    wild = candles.copy()
    wild.iloc[bar, [wild.columns.get_loc("high"), wild.columns.get_loc("close")]] *= 1.5
    calm, moved = (trade(position, bars, terms).frame().slippage.to_numpy() for bars in (candles, wild))
    np.testing.assert_array_equal(moved[:bar + 1], calm[:bar + 1])
    assert calm[bar] > 0 and moved[bar + 1] > 1.5*calm[bar + 1]

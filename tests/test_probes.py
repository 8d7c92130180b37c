"""Nothing that predicts knows the future or shows skill on noise, with many labels or with few."""
from dataclasses import replace

import numpy as np, pandas as pd, pytest

from sslts_nb import baselines as baselines_module, evaluate as evaluation, finetune, methods
from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import sample_candles, shuffle_bars
from sslts_nb.labels import Dataset, Fold, Label, combinatorial, few_labels, study_label, walk_forward
from sslts_nb.statistics import confidence_set, diebold_mariano, effective_sample_size
from sslts_nb.probes import PROBES
from sslts_nb.evaluate import (METRICS, Model, Predictions, Row, averaged, class_scores, compare, evaluate,
                               joined, losses, paired, probed)
from sslts_nb.baselines import MAJORITY, baselines, majority
from sslts_nb.methods import pretrain_fold, study_rows, untrained
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


def test_what_reaches_a_fit(monkeypatch):
    "By fold and seed: all training bars whose label was known before the test, no other, each with its own."
    reached, linear = [], PROBES["linear"]
    def listening(given, seed):
        reached.append((given, seed))
        return linear(given, seed)
    monkeypatch.setitem(PROBES, "network", listening)      # the probe that takes a seed
    bars = np.column_stack([np.arange(900.), np.random.default_rng(0).normal(size=900)])
    label, folds = study_label(CANDLES, SETTINGS, "up"), walk_forward(900, 2, 0.5, 5)
    model = probed(Row("bars", lambda fold, seed: bars), "network")
    evaluate([model], label, folds, (3, 4), CANDLES.index, quiet=True)
    assert [seed for _, seed in reached] == [3, 4, 3, 4]
    for (given, _), fold in zip(reached, np.repeat(np.array(folds, object), 2)):
        wanted = fold.train[np.isfinite(label.values[fold.train]) & (label.known[fold.train] < fold.test[0])]
        for found in (given.position, given.z[:, 0]): np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(given.y, label.values[wanted])
        np.testing.assert_array_equal(given.known, label.known[wanted])


def test_every_seed_has_weights_of_its_own(monkeypatch, tmp_path):
    "The seed that is asked for is the one of the weights: pre-trained, untrained, and learnt from labels."
    drawn, real = [], methods.make_task
    def make_task(*given):
        drawn.append(given[6])
        return real(*given)
    monkeypatch.setattr(methods, "make_task", make_task)
    data = Dataset(CANDLES, replace(SETTINGS, steps=1, encoders=str(tmp_path)))
    for seed in (0, 5): pretrain_fold(data, FOLD, seed)
    untrained(data).represent(FOLD, 7)
    assert drawn == [0, 5, 7]
    begun = []
    class Silent:
        def predict(self, x): return np.zeros(len(x))
    def fine_tune(encoder, *given, seed, **more):
        begun.append((seed, float(next(encoder.parameters()).detach().sum())))
        return Silent()
    monkeypatch.setattr(finetune, "fine_tune", fine_tune)
    for model in supervised(data):
        for seed in (0, 5): model.predict(FOLD, data.label("volatility"), seed, FOLD.test)
    assert [seed for seed, _ in begun] == [0, 5, 0, 5] and len({weight for _, weight in begun}) == 4


def test_answers_stay_within_the_labels_of_their_own_fold():
    "The bound is the range of the labels that the fold trains on: of few labels theirs, never the test's."
    y = np.r_[np.linspace(1, 2, 400), np.linspace(0, 3, 500)]
    label = Label("number", y, np.arange(900) + 1, 0)
    folds = [FOLD, Fold(1, np.arange(300), np.arange(300, 400))]
    models = [Model(name, lambda fold, label, seed, at, value=value: np.full(len(at), value))
              for name, value in [("low", -9.), ("high", 9.), ("inside", 1.5)]]
    for one in (label, few_labels(label, FOLD, 50, seed=0)):
        folds = folds if one is label else folds[:1]
        found = evaluate(models, one, folds, (0,), CANDLES.index, quiet=True)
        for number in np.unique(found.fold):
            trained = one.values[folds[number].train[one.known[folds[number].train] < folds[number].test[0]]]
            least, most = np.nanmin(trained), np.nanmax(trained)
            for name, wanted in [("low", least), ("high", most), ("inside", 1.5)]:
                assert (found.runs[name][0][found.fold == number] == wanted).all()
        n = sum(len(fold.test) for fold in folds)
        assert found.bounded == {"low": n, "high": n, "inside": 0}


def test_limits_are_paired_in_both_tables():
    "A row whose losses are another's plus a constant has limits of zero width against it."
    rng, n = np.random.default_rng(4), 300
    truth, sure = rng.integers(0, 3, n), rng.uniform(0.2, 0.9, n)
    def saying(p):
        answer = np.tile((1 - p)[:, None]/2, (1, 3))
        answer[np.arange(n), truth] = p
        return answer
    label = Label("class", truth.astype(float), np.arange(n) + 5, 3)
    other = rng.uniform(0.2, 0.9, n)
    runs = {"a": [saying(sure)], "other": [saying(other)], "half as sure": [saying(sure/2)]}
    predictions = Predictions(label, np.arange(n), np.zeros(n, int), runs)
    one = compare(predictions, "log loss", 200, "half as sure").loc["a"]
    pair = paired(predictions, "log loss", 200, [("a", "half as sure")]).iloc[0]
    for found in ([one.better, one.better_low, one.better_high], [pair.difference, pair.low, pair.high]):
        np.testing.assert_allclose(found, np.log(2))
    assert one.p == 0 == pair.p
    wide = compare(predictions, "log loss", 200, "other").loc["a"]
    assert wide.better_high - wide.better_low > 0.1 and one.high - one.low > 0.01


def test_blocks_are_as_long_as_the_labels_look_ahead(monkeypatch):
    "Both tables resample whole label intervals: shorter blocks make every limit too narrow."
    rng, n, reach, heard = np.random.default_rng(5), 300, 37, []
    def listening(name, real, at):
        def spied(*given, **named):
            heard.append((name, given[at]))
            return real(*given, **named)
        return spied
    for name, at in [("bootstrap_means", 2), ("confidence_set", 1), ("diebold_mariano", 2)]:
        monkeypatch.setattr(evaluation, name, listening(name, getattr(evaluation, name), at))
    label = Label("sums", np.convolve(rng.normal(size=n + reach - 1), np.ones(reach), "valid"),
                  np.arange(n) + reach, 0)
    runs = {name: [label.values + rng.normal(size=n)] for name in ("a", "b")}
    predictions = Predictions(label, np.arange(n), np.zeros(n, int), runs)
    compare(predictions, "squared error", 50)
    paired(predictions, "squared error", 50, [("a", "b")])
    assert {name for name, _ in heard} == {"bootstrap_means", "confidence_set", "diebold_mariano"}
    assert {length for _, length in heard} == {reach}


def ten(values, n_classes, **more):
    "Predictions of ten bars, the last six of them in a second fold; labels look two bars ahead."
    label = Label("ten", np.array(values, float), np.arange(10) + 2, n_classes)
    return Predictions(label, np.arange(10), np.repeat([0, 1], [4, 6]), **more)


def test_scores_of_classes_by_hand():
    said = np.array([0.1, 0.6, 0.8, 0.3, 0.7, 0.2, 0.9, 0.4, 0.3, 0.55])     # probability of the second class
    right = np.array([0.9, 0.4, 0.8, 0.3, 0.7, 0.8, 0.9, 0.6, 0.7, 0.45])    # of the class that came
    training = {0: np.array([0., 0., 1.]), 1: np.array([0., 1., 1., 1.])}
    answers = np.column_stack([1 - said, said])
    found = ten([0, 0, 1, 1, 1, 0, 1, 0, 0, 0], 2, runs={"a": [answers]}, training=training)
    scores = class_scores(found).loc["a"]
    # recalls 1/2 and 1/2 in the first fold, 3/4 and 1 in the second
    assert np.isclose(scores.balanced_accuracy, (4*0.5 + 6*0.875)/10)
    assert np.isclose(scores.mcc, (4*0 + 6*6/np.sqrt(72))/10)
    assert np.isclose(scores.accuracy, 0.7) and np.isclose(scores.best_constant, 0.6)
    assert np.isclose(scores.log_loss, -np.log(right).mean())
    frequencies = 2*np.log(2.5/4) + 2*np.log(1.5/4) + 4*np.log(1.5/5) + 2*np.log(3.5/5)
    assert np.isclose(scores.frequencies_log_loss, -frequencies/10)
    assert np.isclose(losses(found, "brier")["a"].mean(), 2*((1 - right)**2).mean())
    assert np.isclose(losses(found, "error")["a"].mean(), 0.3)


def test_scores_of_numbers_by_hand(monkeypatch):
    y, f = np.array([1., 2, 4, 7, 11, 3, 0, 5, 8, 2]), np.array([2., 2, 3, 5, 9, 4, 1, 5, 6, 4])
    found = ten(y, 0, runs={"f": [f], "g": [f + 1]})
    table = compare(found, "squared error", 50)
    assert np.isclose(table.score["f"], 1 - 20/108.1) and np.isclose(table.score["g"], 1 - 26/108.1)
    assert np.isclose(table.better["g"], -6/108.1)
    monkeypatch.setattr(evaluation, "QLIKE_FROM", 3)
    def cost(t):
        correction = np.log(np.mean([np.exp(y[s] - f[s]) for s in range(10) if s + 2 <= t]))
        ratio = np.exp(y[t] - f[t] - correction)
        return ratio - np.log(ratio) - 1
    np.testing.assert_allclose(losses(found, "qlike")["f"][0], [cost(t) for t in range(3, 10)])
    c = y - y.mean()
    rho = [c[k:] @ c[:10 - k]/(c @ c) for k in range(10)]
    pairs = [rho[k] + rho[k + 1] for k in range(0, 10, 2)]
    until = next((k for k, pair in enumerate(pairs) if pair < 0), 5)
    assert np.isclose(effective_sample_size(y), min(max(10/(2*sum(pairs[:until]) - 1), 1), 10))


def test_a_fit_that_does_not_converge_is_said(monkeypatch):
    "In one line, and only then."
    class Unfinished:
        convergence_flag, params = 9, (0.1, 0.05, 0.85)
        class optimization_result: nit = 100
        def fit(self, **options): return self
    with pytest.warns(UserWarning, match=r"GARCH on .* did not converge \(code 9 after 100 steps\)") as heard:
        monkeypatch.setattr("arch.arch_model", lambda *given, **options: Unfinished())
        baselines_module.garch_forecast(CANDLES, FOLD.train, 5)
    assert len(heard) == 1 and len(str(heard[0].message).splitlines()) == 1

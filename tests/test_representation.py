"""The transformer under scikit-learn's own checks, and grids that are killed, resumed and run by several backends."""
import json, os, signal, subprocess, sys, threading, time
from pathlib import Path

import numpy as np, pandas as pd, pytest
from joblib import parallel_config
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, ParameterGrid, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import sslts_nb.representation as module
from sslts_nb.settings import InputError, use_threads
from sslts_nb.encoders import ENCODERS
from sslts_nb.methods import METHODS
from sslts_nb.representation import Representation, run_grid

use_threads(1)
TINY = {"hidden": 4, "dimensions": 3, "depth": 1, "steps": 2, "batch_size": 2, "crop": 10}


def series(n_bars=80, n_channels=3, seed=0): return np.random.default_rng(seed).normal(3, 2, (n_bars, n_channels))


# what scikit-learn asks of rows that know nothing of each other
EXEMPT = {"check_methods_subset_invariance": "a bar's vector is made from the bars before it, so a part of a series is another series",
          "check_methods_sample_order_invariance": "the rows of a series are bars in the order of time"}


@parametrize_with_checks([Representation(**(TINY | given)) for given in ({}, {"encoder": "patches"}, {"method": "tnc"}, {"method": "cost", "dimensions": 4}, {"method": "mae"})], expected_failed_checks=lambda estimator: EXEMPT, xfail_strict=True)
def test_scikit_learn(estimator, check): check(estimator)


def test_windows_are_rows_like_any_others():
    "What a series cannot promise, windows do: each by itself, in any order, in any number."
    x = np.lib.stride_tricks.sliding_window_view(series(), 12, axis=0).transpose(0, 2, 1)
    z = Representation(**TINY).fit(x).transform(x)
    fitted, order = Representation(**TINY).fit(x), np.random.default_rng(0).permutation(len(x))
    np.testing.assert_array_equal(fitted.transform(x), z)
    np.testing.assert_allclose(fitted.transform(x[order]), z[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([fitted.transform(x[n:n + 1]) for n in range(20)]), z[:20], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_series_and_windows_agree(encoder):
    x = series(160)
    x[40:43, 1] = np.nan
    for form in (x, np.stack([x[:80], x[80:]])):
        fitted = Representation(**(TINY | {"encoder": encoder, "depth": 1, "dimensions": 4})).fit(form)
        assert fitted.n_features_in_ == 3 and not hasattr(fitted, "feature_names_in_")
        R = fitted.encoder_.receptive_field
        z = fitted.transform(x)
        assert z.shape == (160, 4) and z.dtype == np.float32 and np.isfinite(z).all()
        windows = np.lib.stride_tricks.sliding_window_view(x, R, axis=0).transpose(0, 2, 1)
        np.testing.assert_allclose(fitted.transform(windows), z[R - 1:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.mean_, np.nanmean(x, 0))
    np.testing.assert_allclose(fitted.scale_, np.nanstd(x, 0))


def test_input_that_cannot_be_used():
    x, fitted = series(), Representation(**TINY).fit(series())
    windows = x[:80].reshape(8, 10, 3)
    for what, message in [(windows[:, :, :2], "X has 2 features, but Representation is expecting 3"), (windows[:, :0], "L at least 1"), (windows[None], "dim 4"), (windows[:0], "0 sample")]:
        with pytest.raises(ValueError, match=message): fitted.transform(what)
    for bad in (np.inf, -np.inf):
        for shape in (x, windows):
            broken = shape.copy(); broken[5] = bad
            with pytest.raises(ValueError, match="infinity"): fitted.transform(broken)
            with pytest.raises(ValueError, match="infinity"): Representation(**TINY).fit(broken)
    with pytest.raises(InputError, match="beyond what 32 bits hold"): fitted.transform(np.where(x == x[7, 1], 1e200, x))
    with pytest.raises(InputError, match="L at least 2"): Representation(**TINY).fit(windows[:, :1])
    with pytest.raises(InputError, match="no bar has a value in every channel"): Representation(**TINY).fit(np.where(np.arange(3) == 1, np.nan, x))
    for given, message in [({"method": "ts3vec"}, "unknown method 'ts3vec'; did you mean 'ts2vec'"), ({"encoder": "convolutions"}, "did you mean 'convolution'"), ({"crop": 1}, "crop = 1; wanted a whole number from 2"),
                           ({"hidden": 4.0}, "hidden = 4.0"), ({"learning_rate": 0}, "learning_rate = 0"), ({"learning_rate": "fast"}, "learning_rate"), ({"precision": "fp8"}, "fp8"), ({"seed": -1}, "seed = -1")]:
        with pytest.raises(InputError, match=message): Representation(**(TINY | given)).fit(x)


def test_names_of_columns_follow_the_input():
    x = pd.DataFrame(series(), pd.date_range("2024", periods=80, freq="h"), ["a", "b", "c"])
    fitted = Representation(**TINY).set_output(transform="pandas").fit(x)
    assert list(fitted.feature_names_in_) == ["a", "b", "c"] and fitted.transform(x).index.equals(x.index)
    with pytest.raises(ValueError, match="feature names"): fitted.transform(x[["b", "a", "c"]])
    fitted.fit(x.to_numpy().reshape(8, 10, 3))
    assert not hasattr(fitted, "feature_names_in_")


def test_every_fit_of_a_search_sees_its_training_rows_alone(monkeypatch):
    "As many bars are pre-trained on as the training windows of the split hold, and all of them at the end."
    seen = []
    original = module.pretrain
    monkeypatch.setattr(module, "pretrain", lambda task, given, *a, **k: (seen.append(sum(map(len, given))), original(task, given, *a, **k))[1])
    x = np.lib.stride_tricks.sliding_window_view(series(200), 10, axis=0).transpose(0, 2, 1)[::5]
    split = TimeSeriesSplit(2, gap=2)
    search = GridSearchCV(make_pipeline(Representation(**TINY), Ridge()), {"representation__dimensions": [2, 3], "representation__steps": [0, 2]}, cv=split).fit(x, x[:, -1, 0])
    assert seen == [10*len(train) for _ in range(4) for train, _ in split.split(x)] + [10*len(x)]
    assert search.best_estimator_[0].transform(x).shape == (len(x), search.best_params_["representation__dimensions"])


def test_methods_and_defaults():
    for method, wants in METHODS.items():
        fitted = Representation(**(TINY | {"method": method, "dimensions": 4})).fit(series())
        assert isinstance(fitted.encoder_, ENCODERS[wants.encoder]) and fitted.transform(series()).shape == (80, 4)
    with pytest.raises(InputError, match="SeasonalTrendEncoder"): Representation(**(TINY | {"method": "cost", "encoder": "convolution"})).fit(series())
    untrained = Representation(**(TINY | {"steps": 0})).fit(series())
    assert len(untrained.history_) == 0 and len(Representation(**TINY).fit(series()).history_) == 2
    assert not np.allclose(untrained.transform(series()), clone(untrained).set_params(seed=1).fit_transform(series()))
    coarse = Representation(**(TINY | {"precision": "bf16"})).fit_transform(series())
    np.testing.assert_allclose(coarse, Representation(**TINY).fit_transform(series()), atol=0.2)


# ---- grids

def score(method, seed, table, log=None):
    "Quick, different in every cell, NaN for one of them; leaves a mark."
    if log: Path(log, f"{method}-{seed}-{time.time_ns()}").touch()
    return {"score": float(table["a"].sum()*seed), "hole": float("nan") if seed == 1 else seed/7, "word": method.upper(), "whole": np.int64(seed), "own": os.getpid()}


def other_score(method, seed, table, log=None): return score(method, seed, table, log)


def fails_at_two(seed, log):
    Path(log, str(seed)).touch()
    if seed == 2: raise KeyError("no such market")
    return {"score": seed}


def represent(seed, x):
    "Pre-trains; the weights' sum tells whether several at a time disturb each other."
    z = Representation(**(TINY | {"seed": seed, "depth": 2})).fit_transform(x)
    import torch
    return {"sum": float(z.sum()), "threads": torch.get_num_threads()}


CELLS = [*ParameterGrid({"method": ["a", "b"], "seed": [0, 1, 2]})]
TABLE = pd.DataFrame({"a": [1.0, 2.5]})


def files(folder): return sorted(path.name for path in Path(folder).glob("*.json"))


def test_one_row_a_cell_in_order_and_nan_survives(tmp_path):
    table = run_grid(score, CELLS, tmp_path, table=TABLE)
    assert list(table.columns) == ["method", "seed", "score", "hole", "word", "whole", "own"]
    assert table[["method", "seed"]].to_dict("records") == CELLS
    np.testing.assert_array_equal(table["hole"], [0, np.nan, 2/7]*2)
    pd.testing.assert_frame_equal(run_grid(score, iter(CELLS), str(tmp_path), table=TABLE.copy()), table)
    assert len(files(tmp_path)) == 6 and not [*tmp_path.glob(".*")]
    pd.testing.assert_frame_equal(run_grid(score, CELLS[::-1], tmp_path, table=TABLE), table[::-1].reset_index(drop=True))
    assert run_grid(score, [], tmp_path, table=TABLE).empty
    assert len(run_grid(score, CELLS[:1]*3, tmp_path/"thrice", table=TABLE)) == 3 and len(files(tmp_path/"thrice")) == 1


def test_the_name_changes_with_whatever_makes_the_result(tmp_path, monkeypatch):
    def kept(function=score, cell=CELLS[1], **shared): run_grid(function, [cell], tmp_path, **({"table": TABLE} | shared)); return len(files(tmp_path))
    assert [kept(), kept()] == [1, 1]
    assert kept(cell=CELLS[1] | {"seed": 1.0}) == 2
    assert kept(cell=CELLS[2]) == 3
    assert kept(table=TABLE + 1e-12) == 4
    assert kept(table=TABLE.rename(columns={"a": "a", 0: 1}).set_axis([5, 6])) == 5
    assert kept(function=other_score) == 6
    package = tmp_path/"package"; package.mkdir()
    (package/"one.py").write_text("a = 1"); monkeypatch.setattr(module.resources, "files", lambda name: package)
    assert kept() == 7
    (package/"one.py").write_text("a = 2")
    assert kept() == 8
    own = tmp_path/"own.py"
    for number, text in enumerate(["1", "2", "2"]):
        own.write_text(f"def cell(seed): return {{'x': {text}}}")
        space = {"__name__": "own"}; exec(compile(own.read_text(), str(own), "exec"), space)
        assert run_grid(space["cell"], [{"seed": 0}], tmp_path).x[0] == int(text)
        assert len(files(tmp_path)) == 9 + min(number, 1)


@pytest.mark.parametrize("damage", [b"", b'{"cell": {"method": "a", "se', b"[]", b"\xff\xfe", b"null", b'{"cell": {"method": "a", "seed": 5}, "result": {"score": 1}}', b'{"cell": {"method": "a", "seed": 0}, "result": {"score": [1]}}',
                                    b'{"cell": {"method": "a", "seed": 0}}', b"["*100_000])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    table = run_grid(score, CELLS[:1], tmp_path, table=TABLE)
    (name,) = files(tmp_path)
    whole = (tmp_path/name).read_bytes()
    (tmp_path/name).write_bytes(damage)
    pd.testing.assert_frame_equal(run_grid(score, CELLS[:1], tmp_path, table=TABLE), table)
    assert (tmp_path/name).read_bytes() == whole and json.loads(whole)["cell"] == CELLS[0]


def test_a_failing_cell_is_named_and_the_others_stay(tmp_path):
    log, cells = tmp_path/"log", [{"seed": seed} for seed in range(5)]
    log.mkdir()
    with pytest.raises(RuntimeError, match=r"fails_at_two failed in cell \{'seed': 2\}: KeyError: 'no such market'"): run_grid(fails_at_two, cells, tmp_path/"kept", log=str(log))
    assert len(files(tmp_path/"kept")) == 2 and sorted(p.name for p in log.iterdir()) == ["0", "1", "2"]
    with parallel_config(backend="threading", n_jobs=2), pytest.raises(RuntimeError, match=r"cell \{'seed': 2\}"): run_grid(fails_at_two, cells, tmp_path/"kept", log=str(log))
    assert len(files(tmp_path/"kept")) >= 2


def test_what_cannot_be_a_grid(tmp_path):
    def inner(seed): return {"x": seed}
    outside = 3
    def closes(seed): return {"x": outside}
    assert run_grid(inner, [{"seed": 1}], tmp_path).x[0] == 1
    for function, cells, shared, message in [(closes, CELLS, {}, "closes over nothing"), (len, CELLS, {}, "plain function"), (score, [{"seed": TABLE}], {}, "cell 0: seed ="), (score, [3], {}, "wanted a dict"),
                                             (score, CELLS, {"seed": 1}, "seed is also given to every cell")]:
        with pytest.raises(InputError, match=message): run_grid(function, cells, tmp_path, **shared)
    (tmp_path/"file").touch()
    with pytest.raises(InputError, match="cannot be made a folder"): run_grid(inner, [{"seed": 1}], tmp_path/"file"/"folder")
    for result, message in [("{'x': [1]}", "x = "), ("3", "wanted a dict"), ("{'seed': 1}", "both have seed")]:
        own = tmp_path/"own.py"; own.write_text(f"def cell(seed): return {result}")
        space = {"__name__": "own"}; exec(compile(own.read_text(), str(own), "exec"), space)
        with pytest.raises(RuntimeError, match=message): run_grid(space["cell"], [{"seed": 4}], tmp_path/"results")
    assert not files(tmp_path/"results")


SCRIPT = """
import sys; sys.path.insert(0, {here!r})
import joblib, slow_cells
from sslts_nb.representation import run_grid
with joblib.parallel_config(backend="threading", n_jobs=2): run_grid(slow_cells.slow, [{{"seed": seed}} for seed in range(12)], {kept!r}, log={log!r})
"""
SLOW = """
import time
from pathlib import Path
def slow(seed, log):
    time.sleep(0.25)
    Path(log, f"{seed}-{time.time_ns()}").touch()
    return {"score": seed**2}
"""


@pytest.mark.slow
def test_killed_and_resumed(tmp_path, monkeypatch):
    kept, log = tmp_path/"kept", tmp_path/"log"
    log.mkdir(); (tmp_path/"slow_cells.py").write_text(SLOW); (tmp_path/"run.py").write_text(SCRIPT.format(here=str(tmp_path), kept=str(kept), log=str(log)))
    running = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(files(kept)) < 3 and running.poll() is None and time.monotonic() < deadline: time.sleep(0.02)
    running.kill()                                      # SIGKILL: no cleaning up, as when a machine goes down
    assert running.wait() == -signal.SIGKILL
    done, before = files(kept), len([*log.iterdir()])
    assert 3 <= len(done) < 12
    monkeypatch.syspath_prepend(tmp_path)
    import slow_cells
    table = run_grid(slow_cells.slow, [{"seed": seed} for seed in range(12)], kept, log=str(log))
    assert table.score.tolist() == [seed**2 for seed in range(12)]
    assert len([*log.iterdir()]) - before == 12 - len(done) and set(done) < set(files(kept))
    run_grid(slow_cells.slow, [{"seed": seed} for seed in range(12)], kept, log=str(log))
    assert len([*log.iterdir()]) - before == 12 - len(done)


@pytest.mark.slow
def test_the_same_on_every_backend(tmp_path):
    "In this process, in threads, in joblib's processes and in Dask's: the same vectors to the last bit."
    from dask.distributed import Client, LocalCluster
    x, cells = series(60), [{"seed": seed} for seed in range(4)]
    here = run_grid(represent, cells, tmp_path/"here", x=x)
    assert here["sum"].nunique() == 4
    def same(name, processes=True):
        table = run_grid(represent, cells, tmp_path/name, x=x)
        pd.testing.assert_frame_equal(table, here, obj=name)
        assert files(tmp_path/name) == files(tmp_path/"here")
        mixed = run_grid(score, CELLS, tmp_path/f"{name}-own", table=TABLE)
        assert (set(mixed.own) == {os.getpid()}) != processes, name
        assert (here.threads == 1).all()
    with parallel_config(backend="threading", n_jobs=4): same("threading", processes=False)
    try:
        with parallel_config(backend="loky", n_jobs=2): same("loky")
    finally: get_reusable_executor().shutdown(wait=True)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster, Client(cluster):   # with one worker joblib stays in this process
        with parallel_config(backend="dask"): same("dask")


def test_a_backend_that_gives_all_results_at_the_end(tmp_path):
    "joblib's own pool, of which Ray's is a kind."
    with parallel_config(backend="multiprocessing", n_jobs=2): table = run_grid(score, CELLS, tmp_path/"pool", table=TABLE)
    pd.testing.assert_frame_equal(table.drop(columns="own"), run_grid(score, CELLS, tmp_path/"here", table=TABLE).drop(columns="own"))
    assert os.getpid() not in set(table.own) and len(files(tmp_path/"pool")) == 6


def test_threads_build_encoders_one_at_a_time():
    "First weights come from torch's global generator; several threads at once must not share its stream."
    expected = {seed: Representation(**(TINY | {"seed": seed, "steps": 0})).fit_transform(series()) for seed in range(4)}
    wrong = []
    def fit(seed):
        for _ in range(10):
            if not np.array_equal(Representation(**(TINY | {"seed": seed, "steps": 0})).fit_transform(series()), expected[seed]): wrong.append(seed)
    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not wrong

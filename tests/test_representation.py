"""The transformer under scikit-learn's own checks, and grids of it on several backends."""
import threading

import numpy as np, pandas as pd, pytest
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import sslts_nb.representation as module
from sslts_nb.settings import InputError, use_threads
from sslts_nb.contract import ENCODERS
from sslts_nb.methods import METHODS
from sslts_nb.representation import Representation

use_threads(1)
TINY = {"hidden": 4, "dimensions": 3, "depth": 1, "steps": 2, "batch_size": 2, "crop": 10}


def series(n_bars=80, n_channels=3, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (n_bars, n_channels))


# what scikit-learn asks of rows that know nothing of each other
EXEMPT = {"check_methods_subset_invariance": "a bar's vector is made from the bars before it, so a part of a "
                                             "series is another series",
          "check_methods_sample_order_invariance": "the rows of a series are bars in the order of time"}


VARIANTS = [{}, {"encoder": "patches"}, {"method": "tnc"},
            {"method": "cost", "dimensions": 4}, {"method": "mae"}]


@parametrize_with_checks([Representation(**(TINY | given)) for given in VARIANTS],
                         expected_failed_checks=lambda estimator: EXEMPT, xfail_strict=True)
def test_scikit_learn(estimator, check): check(estimator)


def test_windows_are_rows_like_any_others():
    "What a series cannot promise, windows do: each by itself, in any order, in any number."
    x = np.lib.stride_tricks.sliding_window_view(series(), 12, axis=0).transpose(0, 2, 1)
    z = Representation(**TINY).fit(x).transform(x)
    fitted, order = Representation(**TINY).fit(x), np.random.default_rng(0).permutation(len(x))
    np.testing.assert_array_equal(fitted.transform(x), z)
    np.testing.assert_allclose(fitted.transform(x[order]), z[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([fitted.transform(x[n:n + 1]) for n in range(20)]), z[:20],
                               rtol=1e-4, atol=1e-5)


OWN = [kind for kind in ENCODERS if ENCODERS[kind].__module__.startswith("sslts_nb.")]   # of no other test


@pytest.mark.parametrize("encoder", [kind for kind in OWN if kind != "recurrent"])   # which has no depth
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
    for what, message in [(windows[:, :, :2], "X has 2 features, but Representation is expecting 3"),
                          (windows[:, :0], "L at least 1"), (windows[None], "dim 4"),
                          (windows[:0], "0 sample")]:
        with pytest.raises(ValueError, match=message): fitted.transform(what)
    for bad in (np.inf, -np.inf):
        for shape in (x, windows):
            broken = shape.copy(); broken[5] = bad
            with pytest.raises(ValueError, match="infinity"): fitted.transform(broken)
            with pytest.raises(ValueError, match="infinity"): Representation(**TINY).fit(broken)
    with pytest.raises(InputError, match="beyond what 32 bits hold"):
        fitted.transform(np.where(x == x[7, 1], 1e200, x))
    with pytest.raises(InputError, match="L at least 2"): Representation(**TINY).fit(windows[:, :1])
    with pytest.raises(InputError, match="no bar has a value in every channel"):
        Representation(**TINY).fit(np.where(np.arange(3) == 1, np.nan, x))
    for given, message in [({"method": "ts3vec"}, "unknown method 'ts3vec'; did you mean 'ts2vec'"),
                           ({"encoder": "convolutions"}, "did you mean 'convolution'"),
                           ({"crop": 1}, "crop = 1; wanted at least 2"),
                           ({"hidden": 4.0}, "hidden = 4.0"),
                           ({"learning_rate": 0}, "learning_rate = 0"),
                           ({"learning_rate": "fast"}, "learning_rate"),
                           ({"precision": "fp8"}, "fp8"), ({"seed": -1}, "seed = -1")]:
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
    monkeypatch.setattr(module, "pretrain", lambda task, given, *a,
                        **k: (seen.append(sum(map(len, given))), original(task, given, *a, **k))[1])
    x = np.lib.stride_tricks.sliding_window_view(series(200), 10, axis=0).transpose(0, 2, 1)[::5]
    split = TimeSeriesSplit(2, gap=2)
    choices = {"representation__dimensions": [2, 3], "representation__steps": [0, 2]}
    model = make_pipeline(Representation(**TINY), Ridge())
    search = GridSearchCV(model, choices, cv=split).fit(x, x[:, -1, 0])
    assert seen == [10*len(train) for _ in range(4) for train, _ in split.split(x)] + [10*len(x)]
    assert search.best_estimator_[0].transform(x).shape == (len(x),
                                                            search.best_params_["representation__dimensions"])


def test_methods_and_defaults():
    for method, wants in METHODS.items():
        fitted = Representation(**(TINY | {"method": method, "dimensions": 4})).fit(series())
        assert type(fitted.encoder_) is wants.encoder and fitted.transform(series()).shape == (80, 4)
    with pytest.raises(InputError, match="SeasonalTrendEncoder"):
        Representation(**(TINY | {"method": "cost", "encoder": "convolution"})).fit(series())
    untrained = Representation(**(TINY | {"steps": 0})).fit(series())
    assert len(untrained.history_) == 0 and len(Representation(**TINY).fit(series()).history_) == 2
    assert not np.allclose(untrained.transform(series()),
                           clone(untrained).set_params(seed=1).fit_transform(series()))
    coarse = Representation(**(TINY | {"precision": "bf16"})).fit_transform(series())
    np.testing.assert_allclose(coarse, Representation(**TINY).fit_transform(series()), atol=0.2)


# ---- grids

def represent(seed, x):
    "Pre-trains; the weights' sum tells whether several at a time disturb each other."
    z = Representation(**(TINY | {"seed": seed, "depth": 2})).fit_transform(x)
    return float(z.sum())


@pytest.mark.slow
def test_the_same_on_every_backend():
    "In this process, in threads, in joblib's processes and in Dask's: the same vectors to the last bit."
    from dask.distributed import Client, LocalCluster
    x = series(60)
    here = [represent(seed, x) for seed in range(4)]
    assert len(set(here)) == 4
    def same(): assert Parallel()(delayed(represent)(seed, x) for seed in range(4)) == here
    with parallel_config(backend="threading", n_jobs=4): same()
    try:
        with parallel_config(backend="loky", n_jobs=2): same()
    finally: get_reusable_executor().shutdown(wait=True)
    cluster = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**cluster) as workers, Client(workers):   # with one worker joblib stays in this process
        with parallel_config(backend="dask"): same()


def test_threads_build_encoders_one_at_a_time():
    "First weights come from torch's global generator; several threads at once must not share its stream."
    expected = {seed: Representation(**(TINY | {"seed": seed, "steps": 0})).fit_transform(series())
                for seed in range(4)}
    wrong = []
    def fit(seed):
        for _ in range(10):
            untrained = Representation(**(TINY | {"seed": seed, "steps": 0}))
            if not np.array_equal(untrained.fit_transform(series()), expected[seed]):
                wrong.append(seed)
    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not wrong

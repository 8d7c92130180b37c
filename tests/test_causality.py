"""Whatever is public and turns a series into a series is found here and tried with another future; nobody has to remember it."""
import importlib, inspect
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch

from sslts_nb.settings import InputError, use_threads
from sslts_nb.market import sample_candles
from sslts_nb.features import RunningScaler, assert_causal, compute_features
from sslts_nb.labels import direction_labels
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.tnc import RecurrentEncoder
from sslts_nb.cost import SeasonalTrendEncoder
from sslts_nb.mae import MAE, WindowTransformer
from sslts_nb.finetune import WindowLSTM, fine_tune
from sslts_nb.representation import Representation

use_threads(1)  # as the book runs; several threads need not agree to the last bit

CANDLES = sample_candles().iloc[:700]
FEATURES = compute_features(CANDLES, "market").iloc[120:].astype("float64")
TRAIN = np.arange(300)

# what a parameter of this name is called with; a series if it comes first
ARGUMENTS = {"candles": CANDLES, "frame": CANDLES, "features": FEATURES, "x": FEATURES.to_numpy(), "X": FEATURES, "representation": FEATURES.to_numpy(), "label": CANDLES.close.diff(),
             "labels": direction_labels(CANDLES, 5, 0.005), "position": np.sign(CANDLES.close.diff().fillna(0)).to_numpy(), "classes": np.arange(700.) % 3, "train": TRAIN,
             "bars": 20, "fast": 5, "slow": 25, "horizon": 5, "threshold": 0.005, "length": 12, "dimensions": 3, "fee": 0.001, "slippage": 0.0, "seed": 0, "interval": "D",
             "scores": CANDLES.close.diff().abs().to_numpy(), "symbol": "NASDAQ", "source": "sample", "period": "week", "wave": np.sin, "score": CANDLES.close.diff().fillna(0).to_numpy(), "expected": CANDLES.close.pct_change().fillna(0).to_numpy(), "similarity": np.sin(np.arange(700.)),
             "enter": 5.0, "leave": 1.0, "target": 0.01, "base": 0.01, "quantile": 0.8}
# these run along with the series, and end where it ends
ALONG = {"volatility": np.abs(CANDLES.close.pct_change()).rolling(20).mean().to_numpy(), "variance": CANDLES.close.pct_change().rolling(20).var().to_numpy(), "uncertainty": CANDLES.high.sub(CANDLES.low).to_numpy(), "profitable": (np.arange(700) % 3 == 0)*1.0}
ARGUMENTS |= ALONG
INSTANCES = {"DilatedConvEncoder": lambda: DilatedConvEncoder(FEATURES.shape[1], 8, 6, 2), "PatchTransformer": lambda: PatchTransformer(FEATURES.shape[1], 8, 6, 2, patch=5, n_patches=4, n_heads=2),
             "SeasonalTrendEncoder": lambda: SeasonalTrendEncoder(FEATURES.shape[1], 8, 6, 1, length=20), "WindowTransformer": lambda: WindowTransformer(FEATURES.shape[1], 8, 6, 2, length=20), "MAE": lambda: MAE(WindowTransformer(FEATURES.shape[1], 8, 6, 2, length=20)), "RecurrentEncoder": lambda: RecurrentEncoder(FEATURES.shape[1], 8, 6, bidirectional=False), "WindowLSTM": lambda: WindowLSTM(FEATURES.shape[1], 4, 12), "RunningScaler": RunningScaler, "FineTuned": lambda: fine_tune(DilatedConvEncoder(FEATURES.shape[1], 8, 6, 2), FEATURES.to_numpy("float32"), FEATURES.iloc[:, 0].to_numpy(), TRAIN, 5, steps=2),
             "Representation": lambda: Representation(hidden=8, dimensions=6, depth=2, steps=2, batch_size=2, crop=30).fit(FEATURES.iloc[TRAIN])}
# these look ahead, openly, and are caught at it
AHEAD = {"direction_labels", "scaled_direction_labels", "triple_barrier_labels", "regime_labels", "return_labels", "extreme_labels", "log_realised_variance", "shuffle_bars"}
# these do not take a market's series, or give none
OTHER = {"check_candles": "a table of troubles", "resample": "fewer bars", "average_uniqueness": "of labels", "label_summary": "of labels", "cover": "of bar numbers", "stylised_facts": "one number a fact",
         "alarm_table": "a table of rates", "paired_difference": "a table of scores", "score_table": "a table of scores", "bootstrap_means": "draws", "trade_rows": "a table", "windows": "one row a window",
         "trade_table": "one line a strategy", "timed_fills": "one line an order", "probability_position": "bar by bar, and refuses what is no probability", "cluster_assets": "of assets", "cluster_weights": "of assets", "inverse_volatility_weights": "of assets",
         "hierarchical_weights": "of assets", "correlation_distance": "of assets", "similarities": "of assets", "pair_values": "of assets", "correlations": "of spans that it is given", "forecast_correlation": "of dates, fitted on those it is given", "forecast_table": "a table of scores",
         "whole_windows": "positions", "verdicts": "sentences", "Encoder.encode": "of its subclasses", "Encoder.encode_windows": "of its subclasses", "volatility_errors": "errors of a fit", "MAE.impute": "from both sides, as the chapter shows", "episodes": "one line an episode", "episode_counts": "one number a threshold", "drift_watch": "one line a block, known when it ends", "change_points": "positions; its chapter cuts the future off",
         "named_crashes": "one line a crash", "first_alarms": "one number a span", "soft_labels": "labels with slopes on both sides", "Tail.rate_beyond": "a rate for each of some scores", "RiskMonitor.transform": "two series at once; its chapter tries it", "volatility_table": "a table of scores",
         "mean_with_limits": "a mean and its limits", "transfer_efficiency": "of a table of scores", "labels_to_match": "of a table of scores"}
SERIES = (pd.DataFrame, pd.Series, np.ndarray, pd.DataFrame | np.ndarray)


def public():
    "Yield (name, callable) for every public function and method that takes a series first and gives one."
    for path in sorted((Path(__file__).parent.parent/"sslts_nb").glob("[a-z]*.py")):
        module = importlib.import_module(f"sslts_nb.{path.stem}")
        for name in module.__all__:
            thing = getattr(module, name)
            if getattr(thing, "__module__", "") != module.__name__: continue
            members = [(f"{name}.{key}", value) for key, value in inspect.getmembers(thing, inspect.isfunction) if not key.startswith("_") and value.__module__.startswith("sslts_nb")] if inspect.isclass(thing) else [(name, thing)]
            for label, function in members:
                if not inspect.isfunction(function): continue
                parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
                if parameters and parameters[0].annotation in SERIES and inspect.signature(function).return_annotation in SERIES: yield label, function


FOUND = dict(public())


def tried(name):
    "(function of one series, the series, first bar that may be changed)."
    owner, _, method = name.rpartition(".")
    if owner: assert owner in INSTANCES, f"{name} turns a series into a series: say in INSTANCES how to make a {owner}"
    function = getattr(INSTANCES[owner](), method) if owner else FOUND[name]
    parameters = [p for p in inspect.signature(function).parameters.values()]
    for p in parameters:
        assert p.name in ARGUMENTS or p.default is not p.empty, f"{name} turns a series into a series: say in ARGUMENTS what its `{p.name}` is, or in OTHER why it need not be tried"
    given = {p.name: ARGUMENTS[p.name] for p in parameters[1:] if p.name in ARGUMENTS and p.default is p.empty}
    return lambda series: function(series, **{key: value[:len(series)] if key in ALONG else value for key, value in given.items()}), ARGUMENTS[parameters[0].name], len(TRAIN) if "train" in given else 0


@pytest.mark.parametrize("name", sorted(set(FOUND) - set(OTHER)))
def test_causal(name):
    if name.endswith(".step"): return                   # one bar in, one out; the chapters hold them against `transform` and `encode`
    function, series, first = tried(name)
    assert len(function(series)) == len(series), f"{name}: another length; say in OTHER why it need not be tried"
    if name == "backtest":                              # its candles end with the positions
        function = lambda position: FOUND["backtest"](position, CANDLES.iloc[:len(position)], 0.001, 0.0)
    try: assert_causal(function, series, n_points=8, first=first)
    except AssertionError:
        assert name in AHEAD, f"{name} looks ahead"
        return
    except InputError: assert_causal(function, series, n_points=8, first=first, missing=False)  # it refuses NaN
    assert name not in AHEAD, f"{name} was thought to look ahead"


def test_modules_are_causal():
    encoder = INSTANCES["DilatedConvEncoder"]()
    assert_causal(encoder, FEATURES.to_numpy(np.float32))
    with pytest.raises(AssertionError, match="changes when the bars after row"): assert_causal(DilatedConvEncoder(FEATURES.shape[1], 8, 6, 2, causal=False), FEATURES.to_numpy(np.float32))
    assert encoder.training                             # left as it was


def test_the_search_finds_what_is_there():
    assert {"compute_features", "scale", "shock_scores", "pca_of_windows", "DilatedConvEncoder.encode", "RunningScaler.transform"} <= set(FOUND)
    assert (set(OTHER) | AHEAD) <= {name for name, _ in everything()} | set(FOUND), "a name in OTHER or AHEAD is gone"
    assert AHEAD <= set(FOUND)


def everything():
    "All public names."
    for path in (Path(__file__).parent.parent/"sslts_nb").glob("[a-z]*.py"):
        module = importlib.import_module(f"sslts_nb.{path.stem}")
        for name in module.__all__: yield name, getattr(module, name)


@pytest.mark.parametrize("leak", ["the last bar", "one bar ahead", "a centred mean", "the maximum of all", "a rank over all", "a fill from behind"])
def test_what_leaks_is_caught(leak):
    frame = FEATURES.copy()
    if leak == "a fill from behind": frame.iloc[::3] = np.nan
    functions = {"the last bar": lambda x: x - x.iloc[-1], "one bar ahead": lambda x: x.shift(-1), "a centred mean": lambda x: x.rolling(3, center=True).mean(),
                 "the maximum of all": lambda x: x/x.abs().max(), "a rank over all": lambda x: x.rank(), "a fill from behind": lambda x: x.bfill()}
    with pytest.raises(AssertionError, match=r"row \d+ changes when the bars after row \d+ become"): assert_causal(functions[leak], frame, n_points=20)

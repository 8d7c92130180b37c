"""Whatever is public and turns a series into a series is found and tried with another future."""
import importlib, inspect, pkgutil
from collections import Counter
from dataclasses import replace
from functools import cache
from tempfile import mkdtemp

import numpy as np, pandas as pd, pytest, torch

import sslts_nb
from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.tables import COLUMNS
from sslts_nb.market import sample_candles, simulate_market
from sslts_nb.features import FEATURE_SETS, RunningScaler, assert_causal, compute_features
from sslts_nb.volatility import VOLATILITY_GROUPS, volatility_features
from sslts_nb.labels import Label, direction_labels
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.methods import METHODS, make_task
from sslts_nb.tnc import RecurrentEncoder
from sslts_nb.cost import SeasonalTrendEncoder
from sslts_nb.mae import MAE, WindowTransformer
from sslts_nb.finetune import WindowLSTM, fine_tune
from sslts_nb.monitor import RiskMonitor
from sslts_nb.agents import TradingEnvironment, train_agent
from sslts_nb.panel import PanelEncoder
from sslts_nb.bundle import make_bundle
from sslts_nb.representation import Representation
from sslts_nb.funding import JointEncoder, bar_ends, funding_features, known_at
from sslts_nb.newest import Window, bars_needed, newest_channels, newest_volatility

use_threads(1)  # as the book runs; several threads need not agree to the last bit

CANDLES = sample_candles().iloc[:700]
FEATURES = compute_features(CANDLES, "market").iloc[120:].astype("float64")
CHANNELS = FEATURES.shape[1]
TRAIN = np.arange(300)
MOVE, CHANGE = CANDLES.close.diff(), CANDLES.close.pct_change()

# what a parameter of this name is called with; a series if it comes first
ARGUMENTS = {
    "candles": CANDLES, "frame": CANDLES, "features": FEATURES, "x": FEATURES.to_numpy(), "X": FEATURES,
    "values": FEATURES.to_numpy(),
    "representation": FEATURES.to_numpy(), "state": FEATURES.to_numpy(), "label": MOVE,
    "labels": direction_labels(CANDLES, 5, 0.005),
    "position": np.sign(MOVE.fillna(0)).to_numpy(), "classes": np.arange(700.) % 3,
    "scores": MOVE.abs().to_numpy(), "score": MOVE.fillna(0).to_numpy(),
    "expected": CHANGE.fillna(0).to_numpy(), "similarity": np.sin(np.arange(700.)),
    "train": TRAIN, "bars": 20, "fast": 5, "slow": 25, "horizon": 5, "threshold": 0.005, "length": 12,
    "dimensions": 3, "n_channels": CHANNELS, "fee": 0.001, "slippage": 0.0, "seed": 0, "interval": "D",
    "symbol": "NASDAQ", "source": "sample", "period": "week", "wave": np.sin, "enter": 5.0, "leave": 1.0,
    "target": 0.01, "base": 0.01, "quantile": 0.8, "variances": CHANGE.pow(2),
    "returns": MOVE.fillna(0),
    "within": pd.DataFrame({"realised": CHANGE.pow(2), "bipower": CHANGE.pow(2)/2})}
# these run along with the series, and end where it ends
ALONG = {
    "volatility": CHANGE.abs().rolling(20).mean().to_numpy(), "variance": CHANGE.rolling(20).var().to_numpy(),
    "uncertainty": CANDLES.high.div(CANDLES.low).sub(1).to_numpy()/2, "times": CANDLES.index,
    "profitable": (np.arange(700) % 3 == 0)*1.0}
ARGUMENTS |= ALONG
# candles in which what these look for happens
HOLED, LEAPING = CANDLES.copy(), CANDLES.copy()
HOLED.iloc[300:303], LEAPING.iloc[400:, :4] = np.nan, LEAPING.iloc[400:, :4]*1.5
HAPPENS = {"bar_missing": HOLED, "large_moves": LEAPING}


def tuned_encoder():
    "An encoder with a head, as it is after two steps."
    label = Label("a feature", FEATURES.iloc[:, 0].to_numpy(), np.arange(len(FEATURES)) + 5, 0)
    encoder = DilatedConvEncoder(CHANNELS, 8, 6, 2)
    made = fine_tune(encoder, FEATURES.to_numpy("float32"), label, TRAIN, steps=2)
    # two steps need not improve on a head of zeros, and then every answer is the same
    for parameter in made.head.parameters(): torch.nn.init.normal_(parameter)
    return made


def representation():
    "The transformer of scikit-learn, fitted on the training bars."
    made = Representation(hidden=8, dimensions=6, depth=2, steps=2, batch_size=2, crop=30)
    return made.fit(FEATURES.iloc[TRAIN])


def monitor():
    "What watches the risk, fitted on noisy training bars: daily ones have channels that never change."
    x = FEATURES.to_numpy() + np.random.default_rng(0).normal(0, 0.1, FEATURES.shape)
    made = RiskMonitor()
    made.fit(x, x, TRAIN, [*FEATURES], 24)
    return made


def agent():
    "A policy after one round, with other last weights: it cannot decide yet."
    candles = CANDLES.loc[FEATURES.index]
    made = train_agent(TradingEnvironment(candles, FEATURES.to_numpy()), steps=1, seed=0)
    torch.nn.init.normal_(made.policy.action_net.weight)
    return made


@cache
def bundle():
    "A model with heads, of the same bars."
    settings = load_settings(profile="quick", encoders=mkdtemp(), features="market", hidden=8, steps=2)
    return make_bundle({"NASDAQ": CANDLES}, replace(settings, dimensions=6, depth=2))


CONVOLUTION = DilatedConvEncoder(CHANNELS, 8, 6, 2)  # its stream has the same weights each time

class Beside:
    "A series with another one beside it."
    def __init__(self):
        self.streams = CONVOLUTION.streams()
        for _ in range(2): self.streams.add()

    def step(self, row):
        return self.streams.step(np.array([1, 0]), np.stack([row, 2*row]).astype("float32"))[0]


# one of each class that has a method from series to series
INSTANCES = {
    "DilatedConvEncoder": lambda: CONVOLUTION, "EncoderStream": CONVOLUTION.stream,
    "EncoderStreams": Beside,
    "JointEncoder": lambda: JointEncoder(CHANNELS, 3, 8, 6, 2),
    "PatchTransformer": lambda: PatchTransformer(CHANNELS, 8, 6, 2, patch=5, n_patches=4, n_heads=2),
    "SeasonalTrendEncoder": lambda: SeasonalTrendEncoder(CHANNELS, 8, 6, 1, length=20),
    "WindowTransformer": lambda: WindowTransformer(CHANNELS, 8, 6, 2, length=20),
    "MAE": lambda: MAE(WindowTransformer(CHANNELS, 8, 6, 2, length=20)),
    "PanelEncoder": lambda: PanelEncoder(CHANNELS//2, 2, 8, 6, 2, n_heads=2),
    "RecurrentEncoder": lambda: RecurrentEncoder(CHANNELS, 8, 6, bidirectional=False),
    "WindowLSTM": lambda: WindowLSTM(CHANNELS, 4, 12),
    "RunningScaler": RunningScaler, "FineTuned": tuned_encoder, "Representation": representation,
    "RiskMonitor": monitor, "Bundle": bundle, "Agent": agent}

# these look ahead, openly, and are caught at it
AHEAD = {"direction_labels", "scaled_direction_labels", "triple_barrier_labels", "regime_labels",
         "return_labels", "extreme_labels", "log_realised_variance", "shuffle_bars",
         "log_variance_of_sessions"}

# these do not take a market's series, or give none: the reason, and the names
OTHER = {
    "a table, not a series": (
        "check_candles", "alarm_table", "score_table", "trade_rows", "trade_table",
        "forecast_table", "correlation_table", "named_crashes", "episodes", "timed_fills", "night_shares",
        "r2_and_lead", "account_lines", "alarm_lines", "comparison_matrix", "loss_table"),
    "numbers, draws or sentences": (
        "bootstrap_means", "limits", "verdicts", "first_alarms", "episode_counts", "deviations",
        "residual_quantiles", "reliability"),
    "of answers that are there already, bar by bar": (
        "answers_where", "proper_loss", "Fitted.predict", "pinball", "ranked_score", "covered",
        "Bundle.answers", "changed_rows", "infer_environments"),
    "of blocks that drifted or did not; tests/test_adapt.py cuts them anywhere": ("adaptations_due",),
    "of outcomes that are known later; its chapter tries it with others to come": ("tracked",),
    "of markets with hours that close; its chapter tries it": ("log_variance_inside", "usual_bars"),
    "a loss, whose correction waits until a label is known; its chapter tries it": ("qlike",),
    "of labels that are there already": ("average_uniqueness", "label_summary", "soft_labels"),
    "of several assets at once": (
        "cluster_assets", "cluster_weights", "inverse_volatility_weights", "hierarchical_weights",
        "correlation_distance", "similarities", "pair_values", "correlations", "forecast_correlation"),
    "of another series beside the bars; tried with other points below": ("known_at", "funding_features"),
    "points, given back or under another time": ("check_points", "as_known"),
    "payments, not bars": ("account_funding", "load_beside"),
    "another number of rows": (
        "resample", "inside", "windows", "whole_windows", "cover", "drift_watch", "change_points",
        "memory_bars"),
    "a method of a base class, tried on its subclasses": ("Encoder.encode", "Encoder.encode_windows"),
    "refuses what the other future would be; its chapter tries it": (
        "probability_position", "direction_position"),
    "two series at once; its chapter tries it": ("RiskMonitor.transform", "head_inputs"),
    "words among the numbers; its chapter tries it": ("Bundle.risk",),
    "from both sides, as its chapter shows": ("MAE.impute",),
    "of scores": ("Tail.rate_beyond",),
    "of hours, which daily bars do not have; tried on hourly ones below":
        ("calendar", "same_hours", "volatility_features"),
    "of labels or columns, not of bars": ("class_frequencies", "varies")}
EXEMPT = {name for names in OTHER.values() for name in names}
SERIES = (pd.DataFrame, pd.Series, np.ndarray, pd.DataFrame | np.ndarray)


def modules():
    "Every module of the package."
    names = [found.name for found in pkgutil.walk_packages(sslts_nb.__path__, "sslts_nb.")]
    return [importlib.import_module(name) for name in names if not name.rpartition(".")[2].startswith("_")]


def everything():
    "(module, name, thing) of all that is public, once, in the module that made it."
    for module in modules():
        for name in module.__all__:
            thing = getattr(module, name)
            plain = inspect.unwrap(thing) if callable(thing) else thing
            made_in = getattr(plain, "__module__", module.__name__)
            if made_in == module.__name__: yield module.__name__, name, thing


def functions(name, thing):
    "(name, function) of a function, or of every public method of a class that this package wrote."
    if not inspect.isclass(thing): return [(name, inspect.unwrap(thing))] if callable(thing) else []
    members = [(f"{name}.{key}", inspect.unwrap(value)) for key, value in inspect.getmembers(thing, callable)
               if not key.startswith("_")]
    ours = lambda value: (getattr(value, "__module__", "") or "").startswith("sslts_nb")
    return [(label, value) for label, value in members if ours(value)]


def from_series_to_series(function):
    "Whether the first parameter and the answer are series, by their annotations."
    if not inspect.isfunction(function): return False
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    return bool(parameters) and parameters[0].annotation in SERIES and signature.return_annotation in SERIES


def public():
    "(name, function) for every public function and method that takes a series first and gives one."
    found = [(module, label, function) for module, name, thing in everything()
             for label, function in functions(name, thing) if from_series_to_series(function)]
    often = Counter(label for _, label, _ in found)
    for module, label, function in found:     # where two modules have the name, the module stands in front
        yield label if often[label] == 1 else f"{module.removeprefix('sslts_nb.')}.{label}", function


FOUND = dict(public())


def bar_by_bar(make):
    "What a stepper says about each bar of a series, from its first bar on."
    def of_series(series):
        stepper = make()
        return np.stack([stepper.step(row) for row in series])
    return of_series


def tried(name):
    "(function of one series, the series, first bar that may be changed)."
    owner, _, method = name.rpartition(".")
    if owner and owner[0].isupper():
        assert owner in INSTANCES, (
            f"{name} turns a series into a series: say in INSTANCES how to make a {owner}")
        # one bar at a time takes long
        if method == "step": return bar_by_bar(INSTANCES[owner]), FEATURES.to_numpy()[:60], 0
        function = getattr(INSTANCES[owner](), method)
    else: function = FOUND[name]
    parameters = [*inspect.signature(function).parameters.values()]
    for p in parameters:
        assert p.name in ARGUMENTS or p.default is not p.empty, (
            f"{name} turns a series into a series: say in ARGUMENTS what its `{p.name}` is, "
            "or in OTHER why it need not be tried")
    wanted = [p.name for p in parameters[1:] if p.default is p.empty]
    given = {name: ARGUMENTS[name] for name in wanted}
    def of_series(series):
        now = {key: value[:len(series)] if key in ALONG else value for key, value in given.items()}
        return function(series, **now)
    series = HAPPENS.get(name, ARGUMENTS[parameters[0].name])
    return of_series, series, len(TRAIN) if "train" in given else 0


@pytest.mark.parametrize("name", sorted(set(FOUND) - EXEMPT))
def test_causal(name):
    function, series, first = tried(name)
    answers = np.asarray(function(series), dtype=float)
    assert len(answers) == len(series), (
        f"{name}: {len(answers)} rows of {len(series)}; say in OTHER why it need not be tried")
    known = answers[np.isfinite(answers)]
    assert len(np.unique(known)) > 1, f"{name} says the same of every bar"
    if name == "backtest":                              # its candles end with the positions
        function = lambda position: FOUND["backtest"](position, CANDLES.iloc[:len(position)], 0.001, 0.0)
    try: assert_causal(function, series, n_points=8, first=first)
    except AssertionError as error:
        assert name in AHEAD, f"{name} looks ahead: {error}"
        assert "changes when the bars after row" in str(error)
        return
    except InputError:                                  # it refuses NaN
        assert_causal(function, series, n_points=8, first=first, missing=False)
    assert name not in AHEAD, f"{name} was thought to look ahead"


@pytest.mark.parametrize("stepper, together", [
    ("RunningScaler", lambda x: RunningScaler().transform(x)), ("EncoderStream", CONVOLUTION.encode),
    ("EncoderStreams", CONVOLUTION.encode)])
def test_bar_by_bar_is_as_all_at_once(stepper, together):
    "What comes bar by bar cannot look ahead; it is what the whole series gives, holes included."
    x = FEATURES.to_numpy()[:150].copy()
    x[[40, 41, 90], 1], x[100] = np.nan, np.nan
    answers, whole = bar_by_bar(INSTANCES[stepper])(x), np.asarray(together(x))
    assert np.isfinite(whole).mean() > 0.7 and whole[np.isfinite(whole)].std() > 0.01
    np.testing.assert_allclose(answers, whole, rtol=1e-3, atol=1e-5)


def test_the_newest_bar_is_as_in_batch():
    "On hours with bars that are absent; the window begins anew in the middle, from what it needs alone."
    hours = simulate_market(n_assets=1, end=pd.Timestamp("2024-02-10", tz="UTC")).candles["SIM00"]
    hours = hours.iloc[np.flatnonzero(np.arange(len(hours)) % 41)]
    times, bars = hours.index.as_unit("ms").asi8, hours[COLUMNS].to_numpy()
    needed = bars_needed("market", 5)
    for start in (0, 450):
        window = Window(["SIM00"], needed)
        window.fill("SIM00", times[max(start - needed, 0):start], bars[max(start - needed, 0):start])
        rows = []
        for time, bar in zip(times[start:], bars[start:]):
            window.push(time, [bar])
            rows.append(np.hstack([newest_channels(window), newest_volatility(window, 5)])[0])
        together = np.hstack([compute_features(hours, "market"), volatility_features(hours, 5)])[start:]
        np.testing.assert_allclose(rows, together, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("names", FEATURE_SETS)
def test_every_feature_set_is_causal(names):
    assert_causal(lambda candles: compute_features(candles, names), CANDLES, n_points=8)


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_of_every_method_is_causal(method):
    "A method that is registered is tried, whoever wrote it."
    encoder = make_task(method, CHANNELS, 8, 6, 1, 24, seed=0).encoder
    assert encoder.causal
    assert_causal(encoder.encode, FEATURES.to_numpy("float32"))


@pytest.mark.parametrize("group", [*VOLATILITY_GROUPS.values(), volatility_features])
def test_features_of_volatility_are_causal(group):
    "On hours: daily bars have no calendar of hours and no same hours."
    hours = simulate_market(n_assets=1, end=pd.Timestamp("2024-03-01", tz="UTC")).candles["SIM00"]
    assert_causal(lambda candles: group(candles, 5), hours)


def test_modules_are_causal():
    encoder, x = INSTANCES["DilatedConvEncoder"](), FEATURES.to_numpy(np.float32)
    assert_causal(encoder, x)
    sees_ahead = DilatedConvEncoder(CHANNELS, 8, 6, 2, causal=False)
    with pytest.raises(AssertionError, match="changes when the bars after row"): assert_causal(sees_ahead, x)
    assert encoder.training                             # left as it was


def test_the_search_finds_what_is_there():
    there = {"compute_features", "scale", "shock_scores", "pca_of_windows", "DilatedConvEncoder.encode",
             "RunningScaler.transform"}
    assert there <= set(FOUND)
    public_names = {name for _, name, _ in everything()} | set(FOUND)
    assert EXEMPT | AHEAD <= public_names, f"gone, but in OTHER or AHEAD: {(EXEMPT | AHEAD) - public_names}"
    assert AHEAD <= set(FOUND)
    classes = {name for _, name, thing in everything() if inspect.isclass(thing)}
    assert set(INSTANCES) <= classes, f"gone, but in INSTANCES: {set(INSTANCES) - classes}"
    assert sum(len(names) for names in OTHER.values()) == len(EXEMPT), "a name stands in OTHER twice"


def test_the_search_sees_through_a_cache(monkeypatch):
    "A function behind `functools.cache` or another wrapper is found like any other."
    from functools import cache
    import sslts_nb.features as features
    def hidden(candles: pd.DataFrame) -> pd.Series: return candles.close
    hidden.__module__ = "sslts_nb.features"
    monkeypatch.setattr(features, "hidden", cache(hidden), raising=False)
    monkeypatch.setattr(features, "__all__", [*features.__all__, "hidden"])
    assert "hidden" in dict(public())


LEAKS = {"the last bar": lambda x: x - x.iloc[-1], "one bar ahead": lambda x: x.shift(-1),
         "a centred mean": lambda x: x.rolling(3, center=True).mean(),
         "the maximum of all": lambda x: x/x.abs().max(),
         "a rank over all": lambda x: x.rank(), "a fill from behind": lambda x: x.bfill()}


@pytest.mark.parametrize("leak", LEAKS)
def test_what_leaks_is_caught(leak):
    frame = FEATURES.copy()
    if leak == "a fill from behind": frame.iloc[::3] = np.nan
    with pytest.raises(AssertionError, match=r"row \d+ changes when the bars after row \d+ become"):
        assert_causal(LEAKS[leak], frame, n_points=20)


def points_where_high(x):
    "Points at the ends of some bars, irregular, of values and at times that the series gives."
    high = np.flatnonzero(x[:, 0] > 0.5)
    return pd.DataFrame({"rate": x[high, 0]}, bar_ends(CANDLES)[high])


@pytest.mark.parametrize("late", [0, 1, 3])
def test_other_points_are_known_when_they_are_there(late):
    "Points that come later change nothing before; a join that takes them `late` bars early is found out."
    year, x = pd.Timedelta("3650D"), np.random.default_rng(0).normal(size=(len(CANDLES), 1))
    def joined(x):
        points, candles = points_where_high(x), CANDLES.iloc[:len(x)]
        early = points.set_axis(points.index - late*pd.Timedelta("1D"))
        both = known_at(early, candles, year), funding_features(candles, early)
        return np.hstack(both)
    assert (known_at(points_where_high(x), CANDLES, year).age == 0).sum() > 150
    if not late: return assert_causal(joined, x, n_points=8, first=60, missing=False)
    with pytest.raises(AssertionError, match="changes when the bars after row"):
        assert_causal(joined, x, n_points=8, first=60, missing=False)


def test_a_point_is_known_to_the_bar_that_ends_with_it():
    "To the bar that ends at or after its moment, and to none before, to the microsecond."
    ends = bar_ends(CANDLES)
    for shift, first in [(0, 300), (1, 301), (-1, 300)]:
        moment = ends[300] + pd.Timedelta(microseconds=shift)
        one = pd.DataFrame({"rate": [2.]}, [moment])
        rate = known_at(one, CANDLES, pd.Timedelta("3650D")).rate.to_numpy()
        assert np.isnan(rate[:first]).all() and (rate[first:] == 2).all()

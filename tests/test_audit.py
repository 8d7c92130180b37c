"""The audit of other people's code: what it finds, what it does not accuse, and code that means no good."""
import functools, json, os, re, sys, threading, time

import numpy as np, pandas as pd, pytest, torch

from causal_zoo import AUDIT_HONEST, AUDIT_LEAKS, MISSED, RELATIVES, candles
from sslts_nb.adapters import as_table, interpret, load_thing
from sslts_nb.audit import VERDICTS, audit, causal, report_audit, save_audit
from sslts_nb.causality import LooksAhead, assert_causal
from sslts_nb.cli import main
from sslts_nb.counterexample import prove, read_counterexample, shrink
from sslts_nb import counterexample
from sslts_nb.settings import InputError

BARS = candles(0, 300)
AHEAD = {   # bars that it sees ahead, known from how it was written
    "joined to the next hour by time": 1, "an index that was moved": 1, "newest first": 4,
    "pivots, unconfirmed": 5, "a strategy with a target": 3, "one candle": 1, "chikou": 26,
    "words for signals": 5, "a list of numbers": 2, "a pipeline that smooths": 2,
    "seasonal decomposition": 12}
ALL = {"Hodrick-Prescott", "Hurst exponent of all", "hours encoded by their mean return", "detrended",
       "fit_transform of everything", "a regression in sample", "clusters of all bars", "a tensor",
       "a transformer that learns late"}
READS = {"joined to the next hour by time": {"high"}, "one candle": {"open"}, "zig-zag": {"close"},
         "the day's whole VWAP": {"close", "volume"}, "pivots, unconfirmed": {"high"}}
OUTPUTS = {"words for signals": ["best"], "one candle": ["size"], "chikou": ["chikou"],
           "a strategy with a target": ["target"], "a strategy that knows the lowest": ["enter_long"]}


@pytest.mark.parametrize("name", AUDIT_LEAKS)
def test_a_leak_is_found_measured_and_made_small(name):
    found = audit(AUDIT_LEAKS[name], BARS)
    assert found.verdict == "looks ahead", found
    assert found.ahead == AHEAD.get(name, found.ahead)
    if name in AHEAD or name in ALL: assert found.everything == (name in ALL)
    assert {*found.reads} == READS.get(name, {*found.reads})
    assert found.outputs == OUTPUTS.get(name, found.outputs)
    proof = found.proof
    assert len(proof.series) <= max(90, 2*found.ahead)
    common, other = (bars.iloc[:proof.cut + 1] for bars in (proof.series, proof.other))
    assert proof.row <= proof.cut and common.equals(other)


@pytest.mark.parametrize("name", AUDIT_HONEST)
def test_what_is_causal_is_not_accused(name):
    found = audit(AUDIT_HONEST[name], BARS)
    assert found.verdict == "causal", found
    assert found.proof is None and found.ahead == 0


@pytest.mark.parametrize("name", ["kept from the first call", "closure, by position", "closure, by time",
                                  "fitted by the first call", "kept whole", "a column by time, found"])
def test_what_comes_from_elsewhere_is_found_without_a_pair(name):
    draw, make = (MISSED | RELATIVES)[name]
    series = draw(0, 300)
    found = audit(make(series), series)
    assert found.verdict == "looks ahead" and found.proof is None, found
    assert "<img" in report_audit(found)


# The smallest counterexample

def leak_of(function, series=BARS):
    "What the search finds."
    with pytest.raises(LooksAhead) as caught: assert_causal(function, series)
    return caught.value


@pytest.mark.parametrize("function, bars, numbers", [
    (lambda x: x.shift(-1), 2, 1), (lambda x: x.shift(-7), 8, 1), (lambda x: x/x.max(), 2, 1),
    (lambda x: x.rolling(9, center=True).mean(), 9, 1), (lambda x: x.where(x.close > x.open).bfill(), 2, 1)])
def test_the_smallest_is_known(function, bars, numbers):
    found = shrink(function, leak_of(function), time.monotonic() + 20)
    assert len(found.series) == bars
    differ = (found.series != found.other) & ~(found.series.isna() & found.other.isna())
    assert differ.to_numpy().sum() == numbers


def test_candles_stay_candles():
    function = lambda x: x.close.rolling(5, center=True).mean().to_frame()
    found = shrink(function, leak_of(function), time.monotonic() + 20)
    for bars in (found.series, found.other):
        assert (bars.high >= bars[["open", "close"]].max(axis=1)).all()
        assert (bars.low <= bars[["open", "close"]].min(axis=1)).all()


class Clock:
    "A clock that goes on when a function, or a copy of it, is asked."
    now = 0.
    def monotonic(self): return Clock.now
    def asked(self, function, seconds=lambda x: 1.):
        def call(df):
            Clock.now += seconds(df)
            return function(df)
        return call


@pytest.fixture
def clock(monkeypatch):
    "The clock of the audit and of the shrinking."
    made, Clock.now = Clock(), 0.
    for module in (sys.modules["sslts_nb.audit"], counterexample): monkeypatch.setattr(module, "time", made)
    return made


@pytest.mark.parametrize("seconds", [1, 5, 30])
def test_shrinking_ends_in_time_with_a_proof(clock, seconds):
    function = lambda x: x.rolling(100, center=True).mean()
    found = shrink(clock.asked(function), leak_of(function), seconds)
    assert clock.now <= seconds + 2
    assert prove(function, found.series, found.other) is not None


@pytest.mark.parametrize("thing", [
    lambda df: df.close.shift(-2), lambda df: df.close.rolling(7, center=True).mean(),
    lambda df: df.close.expanding().count()/len(df)])
def test_a_file_reproduces_it(tmp_path, thing):
    found = audit(thing, BARS)
    *_, path = save_audit(found, tmp_path)
    series, other = read_counterexample(path)
    pd.testing.assert_frame_equal(series, found.proof.series, check_freq=False, check_index_type=False)
    one, two = (np.asarray(thing(bars), float)[found.proof.row] for bars in (series, other))
    assert one != two and not (np.isnan(one) and np.isnan(two))
    again = prove(interpret(thing, BARS).call, series, other, 1e-4)
    assert (again.row, again.cut) == (found.proof.row, found.proof.cut)


def test_report_and_json(tmp_path):
    class Odd:
        "<script> in a name, a slash and a dot."
        __qualname__ = "../<b>x"
        def __call__(self, close): return close.shift(-1)
    paths = save_audit(audit(Odd(), BARS), tmp_path/"new")
    assert [path.suffix for path in paths] == [".html", ".json", ".csv"]
    assert all(path.parent == tmp_path/"new" for path in paths)
    page, said = paths[0].read_text(), json.loads(paths[1].read_text())
    assert "<b>" not in page and "http" not in page.replace("http-equiv", "") and "base64" in page
    assert said["verdict"] == "looks ahead" and said["ahead"] == 1 and said["reads"] == ["close"]


# History

@pytest.mark.parametrize("function, warm_up", [
    (lambda close: close.rolling(30).mean(), 29), (lambda close: close.diff(7), 7), (lambda close: close, 0),
    (lambda close: close.expanding().mean(), None), (lambda close, volume: (close*volume).cumsum(), None)])
def test_warm_up(function, warm_up): assert audit(function, BARS).warm_up == warm_up


def test_an_exponential_mean_settles_where_its_weights_say():
    found = audit(lambda close: close.ewm(alpha=0.1, adjust=False).mean(), candles(1, 2000), tolerance=1e-4)
    # what is left of the first value is 0.9**n of how far it was off, some percent of the price
    assert np.log(1e-4/0.2)/np.log(0.9) > found.warm_up > np.log(1e-4/0.0005)/np.log(0.9)


@pytest.mark.parametrize("history, verdict", [(29, "needs more history"), (30, "causal"), (200, "causal")])
def test_history_that_will_be_there(history, verdict):
    assert audit(lambda close: close.rolling(30).mean(), BARS, history=history).verdict == verdict


def test_history_that_is_refused():
    def function(close):
        if len(close) < 100: raise ValueError("100 bars, please")
        return close.diff()
    found = audit(function, BARS, history=50)
    assert found.verdict == "needs more history" and "100 bars, please" in str(found)


# What is none of it

def draws(close): return close + np.random.default_rng().normal(size=len(close))


def counts(close, kept=[0]):
    kept[0] += 1
    return close*kept[0]


def last_seen(close, kept={}):
    "Says something about the series before."
    before, kept["mean"] = kept.get("mean", 0.), float(close.mean())
    return close - before


def overwrites(df):
    df["close"] = df["close"].ffill()*2
    return df.close.diff()


def sorts(df):
    df.sort_values("close", inplace=True)
    return df.sort_index().close.diff()


def in_array(close):
    if not isinstance(close, np.ndarray): raise TypeError("an array")
    close += 1
    return close.copy()


@pytest.mark.parametrize("thing, verdict", [
    (draws, "not deterministic"), (counts, "not deterministic"), (last_seen, "not deterministic"),
    (overwrites, "changes its input"), (sorts, "changes its input"), (in_array, "changes its input"),
    (lambda df: np.ones(len(df)), "ignores its input"), (lambda df: [None]*len(df), "ignores its input"),
    (lambda df: df.index.hour, "causal"), (lambda df: df, "causal"),
    (lambda df: df.assign(one=1.), "ignores its input")])
def test_verdicts(thing, verdict):
    found = audit(thing, BARS)
    assert found.verdict == verdict, found
    assert verdict in VERDICTS


def test_a_leak_beside_a_change_of_its_input_is_said_first():
    def both(df):
        df["close"] = df["close"].shift(-1)
        return df.close
    found = audit(both, BARS)
    assert found.verdict == "looks ahead" and {*found.faults} == {"looks ahead", "changes its input"}


def test_unread_columns_and_the_clock_are_said():
    assert "It does not read open, high, low, volume." in audit(lambda close: close.diff(), BARS).notes
    assert "It reads the clock and no column." in audit(lambda df: df.index.hour, BARS).notes


# Code that means no good

def leaves(df): raise SystemExit(0)


def asserts(df):
    assert len(df) > 280, "more bars"
    return df.close.diff()


def refuses_others(df):
    if not df.equals(BARS): raise ValueError("other bars")
    return df.close


def naps(df): time.sleep(1e6)


def swallows(df):
    "Stops at nothing that is an Exception."
    while True:
        try: time.sleep(1)
        except Exception: pass


@pytest.mark.parametrize("thing", [naps, swallows])
def test_a_call_that_never_ends_is_ended(thing):
    found = audit(thing, BARS, seconds=0.3)
    assert found.verdict == "not judged" and "time was up" in str(found)


@pytest.mark.parametrize("seconds", [17, 25, 40, 60])
def test_what_was_found_before_the_time_was_up_is_kept(clock, seconds):
    found = audit(clock.asked(lambda df: df.close.shift(-1)), BARS, seconds=seconds)
    assert found.verdict == "looks ahead" and "not judged" in found.faults


def test_in_a_thread_the_clock_is_asked_between_calls(clock):
    said, slow = [], clock.asked(lambda df: df.close)
    thread = threading.Thread(target=lambda: said.append(audit(slow, BARS, seconds=20)))
    thread.start()
    thread.join()
    assert said[0].verdict == "not judged"


def test_a_slow_function_is_asked_about_fewer_bars(clock):
    slow = clock.asked(lambda df: df.close.rolling(5).mean(), lambda df: 1e-3*len(df))
    found = audit(slow, candles(0, 5000), seconds=200)
    assert found.verdict == "causal" and found.bars == 500


def test_refusals():
    found = audit(asserts, BARS)
    assert found.verdict == "causal" and "more bars" in str(found)
    assert audit(refuses_others, BARS).verdict == "not judged"
    with pytest.raises(InputError, match="SystemExit"): audit(leaves, BARS)


@pytest.mark.parametrize("thing, words", [
    (lambda df: 3., "one float for 300 bars"), (lambda df: None, "nothing for 300 bars"),
    (lambda df: df.close.to_numpy()[5:], "300 bars in, 295 rows out"), (lambda df: {}, "an empty answer"),
    (lambda df: pd.Series(1., [pd.Timestamp(0)]*2), "two with the same label"),
    (lambda df: pd.DataFrame(index=df.index), "without columns"), (lambda df: df.nowhere, "AttributeError"),
    (7, "cannot be called"), (lambda a, b: a, "wants a, b"), (lambda: 3, "wants no argument"),
    (type("Needs", (), {"__init__": lambda self, what, more: None}), "cannot be made")])
def test_what_cannot_be_asked_says_why(thing, words):
    with pytest.raises(InputError, match=words) as caught: audit(thing, BARS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given, words", [
    ({"candles": BARS[:5]}, "5 bars; wanted 20"), ({"candles": pd.concat([BARS, BARS])}, "the same time"),
    ({"candles": BARS.assign(name="a")}, "wanted columns of numbers"),
    ({"candles": 3}, "wanted columns of numbers"), ({"candles": np.ones((30, 2, 2))}, "of numbers"),
    ({"columns": ["clsoe"]}, "'close'"),
    ({"history": 0}, "history = 0"), ({"history": 400}, "history = 400"), ({"seconds": -1}, "seconds = -1")])
def test_what_the_user_gives_is_checked(given, words):
    with pytest.raises(InputError, match=words): audit(lambda df: df, **{"candles": BARS} | given)


# Forms

class Scaler:
    "Fitted, without scikit-learn."
    def fit(self, x): self.mean_ = x.mean()
    def transform(self, x): return x - self.mean_


class Predictor:
    def predict(self, x): return np.asarray(x)[:, 3].cumsum()


@pytest.mark.parametrize("thing, kind", [
    (Scaler(), "an object with transform"), (Scaler, "an object with transform"),
    (Predictor, "an object with predict"), (torch.nn.Linear(5, 2), "a network"),
    (functools.partial(lambda close, n: close.diff(n), n=3), "a function of close"),
    (lambda open_, highs, LOW, real, vol: open_ + highs + LOW + real + vol,
     "a function of open, high, low, close, volume"),
    (np.log, "a function of candles"), (lambda *frames: frames[0].close, "a function of candles"),
    (lambda bars, length=5: bars.close.diff(length), "a function of candles")])
def test_forms(thing, kind):
    found = audit(thing, BARS)
    assert (found.kind, found.verdict) == (kind, "causal"), found


def test_columns():
    assert audit(lambda a, b: a - b, BARS, ["high", "low"]).kind == "a function of high, low"
    assert audit(lambda x: x.shift(1), BARS, ["close", "volume"]).verdict == "causal"
    assert audit(lambda x: x.diff(), BARS.close).kind == "a function of close"
    assert audit(lambda x: np.cumsum(x, axis=0), BARS.to_numpy()).verdict == "causal"
    assert audit(lambda Close: Close.shift(-1), BARS.rename(columns=str.title)).reads == ["Close"]


def test_what_is_fitted_is_judged_after_the_bars_of_its_fit():
    assert interpret(Scaler(), BARS).first == 150 and interpret(Scaler, BARS).first == 150
    done = Scaler()
    done.fit(BARS[:50])
    assert interpret(done, BARS).first == 0
    thing = Scaler()
    interpret(thing, BARS)
    assert not vars(thing)                             # the user's own is as it was


def test_numbers_of_all_kinds():
    index = BARS.index[:3]
    given = pd.DataFrame({"time": index, "word": ["a", None, "a"], "flag": [True, False, True],
                          "whole": pd.array([1, None, 3], "Int64"), "kind": pd.Categorical(["x", "y", "x"]),
                          "object": [1, 2.5, None], "complex": [1j, 2, 3]}, index)
    table = as_table(given, index)
    assert table.dtypes.eq(float).all() and table.isna().sum().to_dict() == {
        "time": 0, "word": 1, "flag": 0, "whole": 1, "kind": 0, "object": 1, "complex": 0}
    assert table.word.iloc[0] == table.word.iloc[2] and table.kind.iloc[0] != table.kind.iloc[1]
    assert as_table({"a": given.flag, "b": given[["whole"]]}, index).columns.tolist() == ["a", "b"]
    assert as_table(given[["flag", "flag"]], index).columns.tolist() == ["flag", "flag (2)"]


# In somebody's suite

@causal(lambda: BARS)
def test_the_decorator_passes(): return lambda close: close.diff()


@pytest.mark.parametrize("bars", [1, 5])
@causal(BARS, history=10)
def test_the_decorator_leaves_parameters(bars): return lambda close: close.rolling(bars).mean()


def test_the_decorator_fails_with_reasons():
    @causal(BARS)
    def test_leak(): return lambda close: close.shift(-3)
    with pytest.raises(AssertionError, match="(?s)looks ahead.*It sees 3 bars ahead.*the future of close"):
        test_leak()


# The command

@pytest.fixture
def mine(tmp_path, monkeypatch):
    "A package of one's own in the current folder."
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"__init__.py").write_text("")
    (tmp_path/"mine"/"good.py").write_text("def ema(close): return close.ewm(span=5).mean()\nnumber = 3\n")
    bad = "def ahead(df): return df.close.shift(-1)\ndef leave(df): raise SystemExit(0)\n"
    (tmp_path/"mine"/"bad.py").write_text(bad)
    (tmp_path/"mine"/"broken.py").write_text("1/0\n")
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]: del sys.modules[name]


TIMES = "--source simulated --end 2024-01-20"


@pytest.mark.parametrize("line, code, words", [
    ("mine.good:ema", 0, ""), ("mine.good:ema --history 500", 2, "history = 500"),
    ("mine.good:ema --history 3", 1, "mine.good:ema needs more history"),
    ("mine.bad:ahead", 1, "^sslts: mine.bad:ahead looks ahead$"),
    ("mine.good:ema mine.bad:ahead", 1, "mine.bad:ahead looks ahead"),
    ("mine.bad:leave", 2, "SystemExit"), ("mine.broken:f", 2, "cannot be imported .ZeroDivisionError"),
    ("mine.good:emma", 2, "did you mean 'ema'"), ("mine.good:number", 2, "cannot be called"),
    ("nowhere:f", 2, "ModuleNotFoundError"), ("mine.good", 2, "wanted package.module:function"),
    ("mine.good:ema --columns close,clsoe", 2, "clsoe"), ("mine.good:ema --history x", 2, "--history = 'x'"),
    ("mine.good:ema --seconds 0", 2, "--seconds = 0"), ("mine.good:ema --out mine/good.py", 2, "no folder"),
    ("", 2, "required: functions")])
def test_command(mine, capsys, line, code, words):
    assert main(["audit", *line.split(), *TIMES.split()]) == code
    said = capsys.readouterr().err
    assert re.search(words, said.strip()) and said.count("\n") == bool(code)


def test_command_writes_what_it_found(mine, capsys):
    assert main(f"audit mine.bad:ahead mine.good:ema {TIMES} --out found".split()) == 1
    assert sorted(path.name for path in (mine/"found").iterdir()) == [
        "mine.bad_ahead.csv", "mine.bad_ahead.html", "mine.bad_ahead.json", "mine.good_ema.html",
        "mine.good_ema.json"]
    series, other = read_counterexample(mine/"found"/"mine.bad_ahead.csv")
    ahead = load_thing("mine.bad:ahead")
    assert ahead(series).iloc[0] != ahead(other).iloc[0]
    said = json.loads((mine/"found"/"mine.good_ema.json").read_text())
    assert said["verdict"] == "causal" and "SIM00 60 from simulated" in said["data"]

"""An engine says bar by bar what its bundle says in batch, whatever happens in between."""
import gc, json, os, signal, subprocess, sys, time, tracemalloc
from pathlib import Path

import numpy as np, pandas as pd, pytest

from small_bundle import small_bundle
from sslts_nb import live
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import load_markets
from sslts_nb.bundle import load_bundle
from sslts_nb.live import (Engine, as_line, bars_in_order, check_decisions, check_file, load_engine, replay,
                           replay_to)

MARKETS = load_markets(load_settings(source="simulated", end="2024-01-26"), ["SIM00", "SIM01", "SIM02"])


@pytest.fixture(scope="module")
def bundle(): return load_bundle(small_bundle())


def holed(seed):
    "The markets with bars that are absent, some in a row, other ones in each."
    draw, found = np.random.default_rng(seed), {}
    for symbol, candles in MARKETS.items():
        gone = draw.choice(len(candles), 20, replace=False)
        gone = np.union1d(gone, np.arange(gone[0], min(gone[0] + 9, len(candles))))
        found[symbol] = candles.drop(candles.index[gone])
    return found


def test_across_holes_and_restarts(bundle, tmp_path):
    "Three markets, bars absent, the engine put away and taken up again at drawn bars."
    markets, draw, said = holed(0), np.random.default_rng(1), []
    bars, engine = bars_in_order(markets), Engine(bundle)
    stops = {*draw.choice(len(bars), 12, replace=False).tolist(), 0, 1}
    for number, bar in enumerate(bars):
        if number in stops:
            engine.save(tmp_path/"state")
            engine = load_engine(tmp_path/"state", bundle)
        said.append(json.loads(as_line(engine.on_bar(bar["symbol"], bar))))
    assert [as_line(one) for one in said] == [as_line(one) for one in replay(Engine(bundle), markets)]
    assert not len(check_decisions(said, markets, bundle))
    assert sum(one["gap"] for one in said) > 60


def test_together_as_alone(bundle, tmp_path):
    "Bars of drawn markets together, late comers, holes and restarts: to the bit what each market has alone."
    markets, draw, said = holed(2), np.random.default_rng(3), {symbol: [] for symbol in MARKETS}
    markets["SIM01"] = markets["SIM01"].iloc[100:]
    coming = {symbol: bars_in_order({symbol: bars}) for symbol, bars in markets.items()}
    engine = Engine(bundle)
    while any(coming.values()):
        some = [symbol for symbol in coming if coming[symbol] and draw.random() < 0.7]
        if not some: continue
        for one in engine.on_bars({symbol: coming[symbol].pop(0) for symbol in some}):
            said[one["symbol"]].append(as_line(one))
        if draw.random() < 0.01:
            engine.save(tmp_path/"state")
            engine = load_engine(tmp_path/"state", bundle)
    for symbol, bars in markets.items():
        assert said[symbol] == [*map(as_line, replay(Engine(bundle), {symbol: bars}))]


def test_one_refused_bar_refuses_all(bundle, monkeypatch):
    engine, bars = Engine(bundle), bars_in_order({"SIM00": MARKETS["SIM00"].iloc[:3]})
    engine.on_bars({"SIM00": bars[0], "SIM01": bars[0]})
    before = str(engine.model.state), str(engine.newest)
    for bad in (bars[0], bars[1] | {"close": -1.}):
        with pytest.raises(InputError, match="SIM01"): engine.on_bars({"SIM00": bars[1], "SIM01": bad})
        with pytest.raises(InputError, match="SIM02"): engine.on_bars({"SIM02": bars[1] | {"low": np.nan}})
        assert (str(engine.model.state), str(engine.newest)) == before
    with monkeypatch.context() as patch:   # a feature that is infinite is seen after the bar is in the window
        def infinite(*given): raise InputError("SIM01: infinite")
        patch.setattr(live, "newest_channels", infinite)
        with pytest.raises(InputError): engine.on_bars({"SIM00": bars[1], "SIM01": bars[1]})
        assert (str(engine.model.state), str(engine.newest)) == before
        with pytest.raises(InputError): engine.on_bar("SIM02", bars[0])   # its first bar
        assert str(engine.newest) == before[1] and engine.on_bars({}) == []
    first = engine.on_bar("SIM02", bars[1])
    assert (first["bars"], first["gap"]) == (1, 0)
    assert [one["bars"] for one in engine.on_bars({"SIM00": bars[1], "SIM01": bars[1]})] == [2, 2]


def test_lines_of_two_engines_and_two_bundles(bundle):
    "A warm-up in silence, a second start, and another bundle that takes over are seen for what they are."
    whole = MARKETS["SIM00"]
    first, second, other = Engine(bundle), Engine(bundle), Engine(load_bundle("hours-small"))
    first.warm_up({"SIM00": whole.iloc[20:400]})
    second.warm_up({"SIM00": whole.iloc[:450]})
    other.warm_up({"SIM00": whole.iloc[50:500]})
    parts = [*replay(first, {"SIM00": whole.iloc[400:450]}), *replay(second, {"SIM00": whole.iloc[450:500]}),
             *replay(other, {"SIM00": whole.iloc[500:]})]
    lines = [json.loads(as_line(one)) for one in parts]
    for one in (bundle, load_bundle("hours-small")):
        assert not len(check_decisions(lines, {"SIM00": whole}, one))
    wrong = [dict(line) for line in lines]
    wrong[70]["volatility"] *= 1.01
    wrong[150]["low_90"] *= 1.01
    del wrong[20]
    found = [check_decisions(wrong, {"SIM00": whole}, one).name.tolist()
             for one in (bundle, load_bundle("hours-small"))]
    assert found == [["bar", "volatility"], ["bar", "low_90"]]
    wrong = [dict(line) for line in lines]
    planted = {0: 1000, 10: lines[10]["bars"] + 1, 70: lines[70]["bars"] - 2, 71: 0, 72: None, 73: 1.5}
    for at, bars in planted.items(): wrong[at]["bars"] = bars
    found = check_decisions(wrong, {"SIM00": whole}, bundle)
    assert {*found.name} == {"bars"} and sorted(found.start) == [lines[at]["start"] for at in planted]
    assert found.attrs["lines"] == {"small": 100, "hours-small": len(lines) - 100}


def test_a_file_is_checked_against_all_candles(bundle, tmp_path):
    "The whole history in files, decisions from later on; lines of another bundle are counted."
    MARKETS["SIM00"].to_parquet(tmp_path/"SIM00-60.parquet")
    settings, path = load_settings(files=str(tmp_path), interval="60"), tmp_path/"said.jsonl"
    engine = Engine(bundle)
    engine.warm_up({"SIM00": MARKETS["SIM00"].iloc[50:420]})
    lines = [json.loads(as_line(one)) for one in replay(engine, {"SIM00": MARKETS["SIM00"].iloc[420:440]})]
    lines += [json.loads(as_line(one)) | {"bundle": "other"}
              for one in replay(engine, {"SIM00": MARKETS["SIM00"].iloc[440:450]})]
    def check(kept):
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        return check_file(path, small_bundle(), settings)
    assert check(lines) == {"small": 20, "other": 10}
    for kept, message in ((lines[20:], "no decision of small; there are those of other"), ([], "no deci"),
                          (lines[:5] + lines[6:], "bar of SIM00 .*missing"),
                          (lines[:25] + lines[26:], "bar of SIM00 .*missing")):
        with pytest.raises(InputError, match=message): check(kept)


def test_memory_does_not_grow(bundle):
    bars, kept = bars_in_order({"SIM00": MARKETS["SIM00"]})[:500], []
    engine, length = Engine(bundle), pd.Timedelta(hours=len(bars))
    tracemalloc.start()
    for again in range(4):
        for bar in bars:
            bar = bar | {"timestamp": bar["timestamp"] + again*length}
            engine.on_bars({"A": bar, "B": bar})
        gc.collect()        # what nobody holds is not kept, whenever Python takes it away
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert kept[-1] - kept[1] < 20_000, kept   # bytes after 1,000 bars more, whose numbers alone are 80,000


def test_what_was_ready_stays_so_and_the_size_is_bounded(bundle):
    told = pd.DataFrame(replay(Engine(bundle), {"SIM00": MARKETS["SIM00"]}))
    warm_up = bundle.about["warm_up"]
    assert not told.ready[:warm_up].any() and told.ready[warm_up:].all()
    assert (told["size"][:warm_up] == 0).all() and told["size"].between(0, 1).all()


def test_a_refused_bar_changes_nothing(bundle):
    bars, engine, other = bars_in_order({"SIM00": MARKETS["SIM00"]})[:60], Engine(bundle), Engine(bundle)
    for bar in bars:
        for change in ({"close": np.nan}, {"high": bar["low"]/2}, {"volume": -1.}, {"open": np.inf}):
            with pytest.raises(InputError, match="SIM00"): engine.on_bar("SIM00", bar | change)
        said = engine.on_bar("SIM00", bar)
        assert str(said) == str(other.on_bar("SIM00", bar))
        with pytest.raises(InputError, match="wanted a later one"): engine.on_bar("SIM00", bar)
    assert [*engine.symbols] == ["SIM00"]


def test_a_state_belongs_to_its_weights(bundle, tmp_path):
    engine = Engine(bundle)
    for bar in bars_in_order({"SIM00": MARKETS["SIM00"].iloc[:5]}): engine.on_bar("SIM00", bar)
    engine.save(tmp_path/"state")
    with pytest.raises(InputError, match="the state of other weights than hours-small"):
        load_engine(tmp_path/"state", load_bundle("hours-small"))
    raw = (tmp_path/"state").read_bytes()
    for cut in (0, 10, len(raw)//2, len(raw) - 1):
        (tmp_path/"torn").write_bytes(raw[:cut])
        with pytest.raises(InputError, match="torn"): load_engine(tmp_path/"torn", bundle)


def test_a_difference_is_found(bundle):
    markets = {"SIM00": MARKETS["SIM00"].iloc[:450]}
    lines = [json.loads(as_line(one)) for one in replay(Engine(bundle), markets)]
    for name, value in {"volatility": 1.001, "low_90": 0.999, "up": 1.01, "score": 1.001}.items():
        wrong = [dict(line) for line in lines]
        wrong[440][name] *= value
        (found,) = check_decisions(wrong, markets, bundle).itertuples(index=False)
        assert (found.symbol, found.start, found.name) == ("SIM00", lines[440]["start"], name)
    for wrong, told in ((lines[:-1], "missing"), ([*lines, lines[-1]], "twice")):
        (found,) = check_decisions(wrong, markets, bundle).itertuples(index=False)
        assert found.live == told


@pytest.mark.slow
def test_killed_it_goes_on(bundle, tmp_path):
    "The file of a replay that was killed several times is that of one that was not."
    short = {symbol: candles.iloc[:150] for symbol, candles in MARKETS.items()}
    replay_to(tmp_path/"whole.jsonl", Engine(bundle), short)
    code = ("import sys\n"
            "from small_bundle import *; from sslts_nb.live import *; from test_live import MARKETS\n"
            "short = {symbol: candles.iloc[:150] for symbol, candles in MARKETS.items()}\n"
            "replay_to(sys.argv[1], Engine(load_bundle(sys.argv[2])), short, speed=3600*60)")
    command = [sys.executable, "-c", code, str(tmp_path/"killed.jsonl"), small_bundle()]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for lines in (20, 150, 300):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
        while process.poll() is None and _lines(tmp_path/"killed.jsonl") < lines: time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    replay_to(tmp_path/"killed.jsonl", Engine(bundle), short)
    assert (tmp_path/"killed.jsonl").read_bytes() == (tmp_path/"whole.jsonl").read_bytes()


def _lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0

"""The store: killed at any moment, written by two at once, damaged, and read back exactly."""
import multiprocessing, os, random, shutil, threading, time

import numpy as np, pandas as pd, pyarrow as pa, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pyarrow import parquet

from bybit_server import MINUTES, BybitServer, as_frame, closed, make_candles
from sslts_nb import bybit
from sslts_nb.settings import InputError, load_settings
from sslts_nb.candles import CandleStore, bar_number, bar_open, read_candles
from sslts_nb.bybit import Bybit, update
from sslts_nb.market import load_market

HOUR, ROWS, KILLS = 3_600_000, 3300, 50
NOW = int(time.time()*1000)
SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]
date = lambda ms: pd.Timestamp(int(ms), unit="ms", tz="UTC")
MARKETS = {(symbol, "60"): make_candles(symbol, "60", ROWS, NOW, holes=2) for symbol in SYMBOLS}
START, END = MARKETS["AUSDT", "60"].index[0], date(NOW)
BARS = closed(make_candles("BTCUSDT", "60", ROWS, NOW), NOW)


@pytest.fixture(scope="module")
def server():
    with BybitServer() as server: yield server


def stored(store, symbol="BTCUSDT", interval="60"):
    "What the store holds, an empty table if it holds nothing."
    if not store.parts(symbol, interval): return as_frame([], np.empty((0, 6)), symbol, interval)
    return store.read(symbol, interval)


def same(found, wanted):
    "Equal in every bit; the slow comparison only to say where they differ."
    if not found.equals(wanted):
        pd.testing.assert_frame_equal(found, wanted, check_freq=False, check_exact=True)


def content(folder):
    "Every file and its bytes, the lock left out."
    return {path: path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "_lock"}


# processes

def bring(address, folder, start, end, now, go, rate=1e6):
    """An update in a process of its own, which writes after every page so that a kill meets many writes. The
    exchange's clock stands at `now`, so this process's does too: where the hour turned since, the bar that
    is open at `now` would be asked for again and again."""
    bybit.COMMIT, time.time = 1, lambda: now/1000
    go.wait()
    update(CandleStore(folder), Bybit(address, rate=rate), SYMBOLS, "60", start, end)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    # what takes seconds to import is imported once
    context.set_forkserver_preload(["sslts_nb.market", "pytest", "hypothesis"])
    return context


def begin(processes, server, folder, start=START, go=None, **given):
    "A process that is about to update, or does so at once."
    event = go or processes.Event()
    if not go: event.set()
    args = server.address, folder, start, END, server.now, event
    process = processes.Process(target=bring, args=args, kwargs=given)
    process.event = event                               # must outlive the start of the process
    process.start()
    return process


def wait_for_request(server, count, process):
    "Until the process has asked `count` times, so that its start is not counted as work."
    while sum(server.counts.values()) < count and process.is_alive(): time.sleep(0.0005)


@pytest.mark.slow
def test_killed_fifty_times(server, processes, tmp_path):
    whole, draw, grew, held = {symbol: closed(MARKETS[symbol, "60"], NOW)
                               for symbol in SYMBOLS}, random.Random(0), 0, {}
    server.load(MARKETS, NOW)
    process = begin(processes, server, tmp_path/"measured")
    wait_for_request(server, 1, process)
    started = time.monotonic()
    process.join()
    needed = time.monotonic() - started                 # the kills fall evenly into what one update takes
    for kill in range(KILLS):
        folder = tmp_path/str(kill//4)                  # which is killed four times, and then completed below
        if kill % 4 == 0: held = dict.fromkeys(SYMBOLS, 0)
        server.load(MARKETS, NOW)
        store, process = CandleStore(folder), begin(processes, server, folder)
        wait_for_request(server, 1, process)
        moment, before = time.monotonic() + draw.uniform(0, needed), sum(held.values())
        # on a busy machine the first kill of a folder may be too early: it waits for something to be there
        waits = lambda: kill % 4 == 0 and sum(held.values()) == before and process.is_alive()
        while time.monotonic() < moment or waits():     # read while it writes
            for symbol in SYMBOLS: held[symbol] = max(held[symbol], len(stored(store, symbol)))
        process.kill()                                  # SIGKILL
        process.join()
        for symbol in SYMBOLS:
            found = stored(store, symbol)
            same(found, whole[symbol].loc[found.index])
            assert len(found) >= held[symbol]           # what was seen stays
            held[symbol] = len(found)
        grew += before < sum(held.values())
    assert KILLS//5 <= grew, (grew, needed)             # the kills did fall into the work
    for folder in tmp_path.iterdir():
        update(CandleStore(folder), Bybit(server.address, rate=1e6), SYMBOLS, "60", START, END)
        for symbol in SYMBOLS: same(stored(CandleStore(folder), symbol), whole[symbol])


def test_two_processes_at_once_ask_for_nothing_twice(server, processes, tmp_path):
    server.load(candles := {(symbol, "60"): make_candles(symbol, "60", ROWS, NOW) for symbol in SYMBOLS}, NOW)
    go = processes.Event()
    both = [begin(processes, server, tmp_path, start, go, rate=200)
            for start in (START, START + pd.Timedelta(hours=700))]
    time.sleep(0.3)
    go.set()
    for process in both: process.join()
    assert [process.exitcode for process in both] == [0, 0]
    for symbol in SYMBOLS:
        same(stored(CandleStore(tmp_path), symbol), closed(candles[symbol, "60"], NOW))
        asked = [n for params in server.asked() if params["symbol"] == symbol
                 for n in range(int(params["start"]), int(params["end"]) + 1, HOUR)]
        assert len(asked) == len(set(asked)) == ROWS - 1


def test_two_threads_of_one_process_neither(server, tmp_path):
    server.load(MARKETS, NOW)
    end, threads = START + pd.Timedelta(hours=2000), []
    for _ in range(2):
        threads.append(threading.Thread(target=update,
                                        args=(CandleStore(tmp_path), Bybit(server.address, rate=1e6),
                                              SYMBOLS[:1], "60", START, end)))
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    same(stored(CandleStore(tmp_path), "AUSDT"), closed(MARKETS["AUSDT", "60"], NOW, START, end))
    holes = 2000 - len(stored(CandleStore(tmp_path), "AUSDT"))
    # a hole is asked for three times, by the first of them only
    assert server.counts["kline"] <= 2 + 2*holes


def test_the_lock_waits_for_the_living_and_not_for_the_dead(server, processes, tmp_path):
    server.load({(symbol, "60"): MARKETS["AUSDT", "60"] for symbol in SYMBOLS}, NOW, ["slow"]*50)
    server.slow, process = 5, begin(processes, server, tmp_path)
    try:
        wait_for_request(server, 3, process)            # of bars: the lock is held
        with pytest.raises(InputError,
                           match="another process"), CandleStore(tmp_path).lock("AUSDT", "60", patience=0.2):
            pass
        process.kill()                                  # SIGKILL
        process.join()
        with CandleStore(tmp_path).lock("AUSDT", "60", patience=2): pass
    finally: server.slow = 0.3


# what may be written

BAD = {"another close": (500, "close", lambda bar: (bar.low + bar.close)/2),
       "another volume": (0, "volume", lambda bar: bar.volume + 1),
       "another turnover": (999, "turnover", lambda bar: bar.turnover*(1 + 1e-12))}

@pytest.mark.parametrize("name", BAD)
def test_bars_with_other_numbers_are_refused_and_nothing_changes(tmp_path, name):
    store, (at, column, other) = CandleStore(tmp_path), BAD[name]
    store.add(BARS[:1000])
    before, bars = content(tmp_path), BARS[:1500].copy()
    bars.loc[bars.index[at], column] = other(bars.iloc[at])
    with pytest.raises(InputError, match="BTCUSDT") as caught: store.add(bars)
    assert str(bars.index[at])[:19] in str(caught.value) and "\n" not in str(caught.value)
    assert content(tmp_path) == before
    assert store.add(BARS[:1500]) == 500


def test_an_exchange_that_changed_its_mind_is_named_and_stops_no_other_symbol(server, tmp_path):
    server.load({(symbol, "60"): MARKETS[symbol, "60"] for symbol in SYMBOLS}, NOW)
    store, other = CandleStore(tmp_path), MARKETS["BUSDT", "60"][100:300:2].copy()
    other["volume"] += 1
    store.add(other)
    with pytest.raises(InputError, match="BUSDT") as caught:
        update(store, Bybit(server.address, rate=1e6), SYMBOLS, "60", START, END)
    assert str(other.index[0])[:19] in str(caught.value)
    same(stored(store, "BUSDT").loc[other.index], other)
    for symbol in ("AUSDT", "CUSDT"): same(stored(store, symbol), closed(MARKETS[symbol, "60"], NOW))


@pytest.mark.parametrize("change", [lambda bars: bars.assign(high=0.01),
                                    lambda bars: bars.assign(close=np.nan),
                                    lambda bars: bars.assign(volume=-1.), lambda bars: bars[::-1],
                                    lambda bars: bars.set_axis(bars.index + pd.Timedelta("1ms"))],
                         ids=["high below low", "NaN", "negative volume", "out of order", "off the grid"])
def test_what_is_no_candle_is_refused(tmp_path, change):
    bars = change(BARS[:50])
    bars.attrs = BARS.attrs
    with pytest.raises(InputError, match="BTCUSDT 60"): CandleStore(tmp_path).add(bars)
    assert not content(tmp_path)


def test_venues_are_not_mixed(tmp_path):
    store, years = CandleStore(tmp_path), make_candles("BTCUSDT", "D", 1200, NOW)
    store.add(years[years.index.year == years.index.year[600]])  # a part of its own
    before, elsewhere = content(tmp_path), years[years.index.year > years.index.year[600]].copy()
    elsewhere.attrs = years.attrs | {"source": "elsewhere"}
    with pytest.raises(InputError, match="elsewhere"): store.add(elsewhere)
    assert content(tmp_path) == before


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_time_is_the_same_in_every_unit(tmp_path, unit):
    store, index = CandleStore(tmp_path), BARS.index[:100].as_unit(unit).rename("timestamp")
    bars = BARS[:100].set_axis(index)
    bars.attrs = BARS.attrs
    assert store.add(bars) == 100
    same(store.read("BTCUSDT", "60", BARS.index[0], BARS.index[99]), BARS[:99])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, call):
    store = CandleStore(tmp_path)
    store.add(BARS[:1000])
    before = content(tmp_path)
    def full(*given): raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(InputError, match="No space left"): store.add(BARS)
    same(stored(store), BARS[:1000])
    assert before.items() <= content(tmp_path).items()
    assert store.add(BARS) == len(BARS) - 1000
    same(stored(store), BARS)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["add", "hole"]), st.integers(0, 199), st.integers(1, 80)),
                max_size=8), st.integers(-10, 210), st.integers(-10, 210))
def test_missing_is_what_is_neither_stored_nor_a_hole(tmp_path_factory, steps, start, end):
    store, bars, have = CandleStore(tmp_path_factory.mktemp("store")), BARS[1900:2100], set()
    first = int(bar_number(bars.index.asi8[0], "60"))
    for kind, at, length in steps:
        run = range(at, min(at + length, 200))
        if kind == "hole": store.remember_holes("BTCUSDT", "60", first + np.array(run))
        else: assert 0 <= store.add(bars.iloc[run.start:run.stop]) <= len(run)
        have |= {first + n for n in run}
    wanted = sorted(set(range(first + start, first + end)) - have)
    found = store.missing("BTCUSDT", "60", date((first + start)*HOUR), date((first + end)*HOUR))
    assert found.tolist() == wanted and found.dtype == "int64"


# what was damaged

DAMAGES = {"cut": lambda whole: whole[:-50], "half": lambda whole: whole[:len(whole)//2],
           "empty": lambda whole: b"", "text": lambda whole: b"<html>",
           "zeros": lambda whole: bytes(len(whole))}

@pytest.mark.parametrize("damage", [*DAMAGES, "other columns", "a bar twice"])
def test_a_damaged_part_is_named_and_not_overwritten(server, tmp_path, damage):
    server.load({("BTCUSDT", "60"): BARS}, NOW)
    store = CandleStore(tmp_path)
    store.add(BARS[:1000])
    part = store.parts("BTCUSDT", "60")[0]
    if damage in DAMAGES: part.write_bytes(DAMAGES[damage](part.read_bytes()))
    elif damage == "other columns": pd.DataFrame({"a": [1.]}).to_parquet(part)
    else:
        bars = parquet.read_table(part)
        parquet.write_table(pa.concat_tables([bars[:5], bars[4:]]), part)
    before = content(tmp_path)
    for call in [lambda: store.read("BTCUSDT", "60"), lambda: store.missing("BTCUSDT", "60", START, END),
                 lambda: store.add(BARS), lambda: store.summary(["BTCUSDT"], "60"),
                 lambda: read_candles(tmp_path/"BTCUSDT-60.parquet"),
                 lambda: update(store, Bybit(server.address, rate=1e6), ["BTCUSDT"], "60", START, END)]:
        with pytest.raises(InputError) as caught: call()
        assert part.name in str(caught.value) or "BTCUSDT-60.parquet" in str(caught.value)
        assert "\n" not in str(caught.value) and content(tmp_path) == before
    part.unlink()                                       # as the message says
    update(store, Bybit(server.address, rate=1e6), ["BTCUSDT"], "60", START, END)
    same(stored(store), BARS)


def test_a_flipped_bit_is_seen_or_harmless(tmp_path):
    store, draw = CandleStore(tmp_path), random.Random(0)
    store.add(BARS[:1000])
    part = store.parts("BTCUSDT", "60")[0]
    whole, wrong = part.read_bytes(), []
    for at in draw.sample(range(len(whole)), 600):  # in the pages and in what is said of them
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1:])
        try: found = store.read("BTCUSDT", "60")
        except InputError: continue
        if not found.equals(BARS[:1000]): wrong.append(at)
        assert found.attrs["source"].isprintable()
    assert not wrong, f"{len(wrong)} of 600 flipped bits changed prices in silence"


@pytest.mark.parametrize("text", ["", "{}", "[[1]]", "null", "[[NaN, 1]]", '[["a", "b"]]',
                                  "[[0, 99999999999999999999]]", "["*100_000], ids=range(8))
def test_damaged_holes_are_named_and_not_overwritten(server, tmp_path, text):
    server.load({("BTCUSDT", "60"): BARS}, NOW)
    store = CandleStore(tmp_path)
    store.add(BARS[:1000])
    path = tmp_path/"BTCUSDT-60.parquet"/"_holes.json"
    path.write_text(text)
    for call in [lambda: store.missing("BTCUSDT", "60", START, END),
                 lambda: store.remember_holes("BTCUSDT", "60", [1]),
                 lambda: update(store, Bybit(server.address, rate=1e6), ["BTCUSDT"], "60", START, END)]:
        with pytest.raises(InputError, match="_holes.json") as caught: call()
        assert "\n" not in str(caught.value) and path.read_text() == text
    same(stored(store), BARS[:1000])                    # the bars can be read all the same


# what comes back

@pytest.mark.parametrize("interval", [*map(str, MINUTES), "D", "W", "M"])
def test_round_trip_is_exact_for_every_interval(tmp_path, interval):
    bars, store = make_candles("BTCUSDT", interval, {"W": 200, "M": 50}.get(interval, 3000), NOW,
                               holes=5), CandleStore(tmp_path)
    assert store.add(bars[::3]) + store.add(bars[1::3]) + store.add(bars[2::3]) + store.add(bars) == len(bars)
    found, folder = store.read("BTCUSDT", interval), tmp_path/f"BTCUSDT-{interval}.parquet"
    same(found, bars)
    assert found.attrs == {"symbol": "BTCUSDT", "interval": interval, "source": "bybit"}
    third, two = bars.index[len(bars)//3], bars.index[2*len(bars)//3]
    same(store.read("BTCUSDT", interval, third, two), bars[(bars.index >= third) & (bars.index < two)])
    lacking = pd.DatetimeIndex(bar_open(store.missing("BTCUSDT", interval, bars.index[0], bars.index[-1]),
                                        interval).astype("datetime64[ms]"), tz="UTC")
    assert len(lacking) == 5 and not lacking.isin(bars.index).any()
    table = store.summary(["BTCUSDT"], interval).iloc[0]
    assert table.tolist() == ["BTCUSDT", len(bars), 5, bars.index[0], bars.index[-1]]
    same(pd.read_parquet(folder).set_index("timestamp"), bars)  # by any reader of parquet
    same(read_candles(folder)[bars.columns[:5]], bars.iloc[:, :5])
    names = {path.stem for path in store.parts("BTCUSDT", interval)}
    assert names == set(bars.index.strftime("%Y-%m" if interval in ("1", "3", "5", "15", "30") else "%Y"))


def test_a_store_is_a_source_of_files_and_a_source_of_its_own(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    store = CandleStore(tmp_path/"store")
    store.add(BARS)
    store.remember_holes("BTCUSDT", "60", [1, 2, 3])
    start, end = str(BARS.index[10])[:16], str(BARS.index[3000])[:16]
    found = load_market(load_settings(source="files", files=str(tmp_path/"store"), symbol="BTCUSDT",
                                      interval="60", start=start, end=end))
    same(found[BARS.columns[:5]], BARS.iloc[10:3000, :5])
    assert found.attrs["source"].startswith("files")
    own = load_market(load_settings(source="bybit", store=str(tmp_path/"store"),
                                    bybit_url="http://127.0.0.1:9", symbol="BTCUSDT", interval="60",
                                    start=start, end=end))
    same(own, BARS[10:3000])                            # all of it is there, so nobody is asked
    shutil.copytree(tmp_path/"store", tmp_path/"copy")
    same(stored(CandleStore(tmp_path/"copy")), BARS)


@pytest.mark.parametrize("start, end", [("1500-01-01", "2024-01-01"), ("0001-01-01", "2024-01-01"),
                                        ("2024-01-01", "9999-12-31")])
def test_dates_of_any_century(tmp_path, start, end):
    store, (start, end) = CandleStore(tmp_path), [pd.Timestamp(text, tz="UTC") for text in (start, end)]
    store.add(days := make_candles("BTCUSDT", "D", 3000, NOW))
    same(store.read("BTCUSDT", "D", start, end), days[(days.index >= start) & (days.index < end)])

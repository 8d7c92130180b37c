"""The client and the store against an exchange that fails on purpose, and against being killed."""
import itertools, multiprocessing, multiprocessing.forkserver, os, random, resource, signal, time
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from exchange import FAULTS, FINAL, HOUR, Exchange, frame, market
from sslts_nb import bybit
from sslts_nb.bybit import Bybit, ExchangeUnavailable, cover, fetch_bars, fetch_funding, fetch_instruments, update
from sslts_nb.candles import MINUTES, CandleStore, bar_number, bar_open, read_candles, resample
from sslts_nb.market import simulate_market
from sslts_nb.settings import InputError

NOW = int(time.time()*1000)
ROWS = 3300                                             # four pages
FIRST = pd.Timestamp(NOW//HOUR*HOUR - (ROWS - 1)*HOUR, unit="ms")  # so that the last bar is the open one
date = lambda ms: pd.Timestamp(int(ms), unit="ms", tz="UTC")


def client(exchange, **given): return Bybit(exchange.address, **({"wait": 0.001, "rate": 1e6} | given))


def truth(starts, values, start, end, now=NOW):
    "The closed bars of a period."
    at = (starts >= start.value//10**6) & (starts < end.value//10**6) & (starts + HOUR <= now)
    return frame(starts[at], values[at])


def stored(store, symbol="BTCUSDT"):
    "What the store holds, an empty table if it holds nothing."
    try: return store.read(symbol, "60")
    except InputError as error:
        assert "has no bars" in str(error)
        return frame(np.empty(0, "int64"), np.empty((0, 6)))


def add(store, bars, symbol="BTCUSDT", source="bybit"):
    bars = bars.copy()
    bars.attrs = {"symbol": symbol, "interval": "60", "source": source}
    if len(bars): store.add(bars)


def same(found, wanted): pd.testing.assert_frame_equal(found, wanted, check_freq=False, check_names=False)


@pytest.fixture(scope="module")
def exchange():
    with Exchange() as server: yield server


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_whatever_fails_nothing_is_lost_and_nothing_invented(exchange, tmp_path_factory, data):
    bars = market(ROWS, data.draw(st.integers(0, 50)), FIRST, holes=data.draw(st.integers(0, 6)))
    faults = data.draw(st.lists(st.sampled_from(FAULTS), max_size=10)) + data.draw(st.sampled_from([[]]*3 + [[name] for name in FINAL]))
    start, end = sorted(data.draw(st.tuples(*[st.integers(-200, ROWS + 200)]*2).filter(lambda pair: pair[0] != pair[1])))
    start, end = date(FIRST.value//10**6 + start*HOUR), date(FIRST.value//10**6 + end*HOUR)
    store = CandleStore(tmp_path_factory.mktemp("store"))
    before = truth(*bars, date(0), date(NOW))
    before = before[np.random.default_rng(data.draw(st.integers(0, 99))).random(len(before)//100 + 1).repeat(100)[:len(before)] < data.draw(st.sampled_from([0, 0, 0.3, 0.9]))]  # runs of 100 bars
    add(store, before)
    wanted = pd.concat([before, truth(*bars, start, end)]).pipe(lambda table: table[~table.index.duplicated()]).sort_index()
    exchange.slow = 0.3
    exchange.reset({"BTCUSDT": bars}, NOW, faults)
    try: update(store, client(exchange, timeout=(1, 0.15)), ["BTCUSDT"], "60", start, end)
    except (InputError, ExchangeUnavailable) as error:
        assert "BTCUSDT" in str(error) and "\n" not in str(error)
        found = stored(store)
        assert before.index.isin(found.index).all()
        same(found, wanted.loc[found.index])            # true bars only, and none that is open
    else: same(stored(store), wanted)
    exchange.reset({"BTCUSDT": bars}, NOW)
    update(store, client(exchange), ["BTCUSDT"], "60", start, end)
    same(stored(store), wanted)
    exchange.reset({"BTCUSDT": bars}, NOW)
    settled = min(end, date(NOW - 25*HOUR))             # the newest holes are not yet believed
    if start < settled: update(store, client(exchange), ["BTCUSDT"], "60", start, settled)
    assert exchange.asked == []                         # real holes are not asked for again


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_survived_once(exchange, tmp_path, fault):
    bars = market(ROWS, 1, FIRST)
    exchange.slow = 0.6
    exchange.reset({"BTCUSDT": bars}, NOW, [fault])
    update(CandleStore(tmp_path), client(exchange, timeout=(1, 0.3)), ["BTCUSDT"], "60", date(0), date(NOW))
    same(stored(CandleStore(tmp_path)), truth(*bars, date(0), date(NOW)))
    harmless = {"twice", "disordered", "skewed clock"}  # the page is right all the same
    assert len(exchange.asked) > 4 or fault in harmless


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("twice", "disordered", "skewed clock", "missing")] + FINAL)
def test_a_fault_that_stays_is_an_error_of_one_line_and_leaves_the_store(exchange, tmp_path, fault):
    bars, store = market(ROWS, 1, FIRST), CandleStore(tmp_path)
    add(store, before := truth(*bars, date(0), date(NOW))[500:700])
    exchange.slow = 0.6
    exchange.reset({"BTCUSDT": bars}, NOW, [fault]*50)
    with pytest.raises((InputError, ExchangeUnavailable), match="1 of 1 symbols failed .BTCUSDT.") as caught:
        update(store, client(exchange, timeout=(1, 0.2)), ["BTCUSDT"], "60", date(0), date(NOW))
    assert "\n" not in str(caught.value) and isinstance(caught.value, InputError) == (fault == "10001")
    same(stored(store), before)


def test_one_year_of_hours_for_fifty_symbols_takes_the_fewest_requests(exchange, tmp_path):
    bars = market(8760, 2, "2024-01-01")
    symbols = [f"COIN{number}USDT" for number in range(50)]
    exchange.reset(dict.fromkeys(symbols, bars), NOW)
    exchange.counts.clear()
    period = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-12-30", tz="UTC")
    table = update(CandleStore(tmp_path), client(exchange), symbols, "60", *period)
    assert exchange.counts == {"instruments-info": 1, "kline": 50*9}
    assert table.bars.tolist() == [364*24]*50 and table.holes.sum() == 0
    update(CandleStore(tmp_path), client(exchange), symbols, "60", *period)
    assert exchange.counts == {"instruments-info": 1, "kline": 50*9}


def test_a_hole_costs_one_request_and_what_is_there_none(exchange, tmp_path):
    bars, store = market(ROWS, 3, FIRST), CandleStore(tmp_path)
    whole = truth(*bars, date(0), date(NOW))
    add(store, whole.drop(whole.index[1500:1510]))
    exchange.reset({"BTCUSDT": bars}, NOW)
    update(store, client(exchange), ["BTCUSDT"], "60", whole.index[0], whole.index[-1])
    ((asked),) = exchange.asked
    assert (int(asked["start"]), int(asked["end"])) == (whole.index[1500].value//10**6, whole.index[1509].value//10**6)
    same(stored(store), whole)


@given(st.sets(st.integers(0, 14), max_size=10), st.integers(1, 6))
def test_cover_is_whole_and_no_cover_is_smaller(numbers, page):
    bybit.PAGE, before = page, bybit.PAGE
    try: windows = cover(np.array(sorted(numbers), "int64"))
    finally: bybit.PAGE = before
    assert all(last - first < page for first, last in windows)
    assert numbers <= {n for first, last in windows for n in range(first, last + 1)}
    fewer = itertools.combinations(range(15), len(windows) - 1) if windows else ()
    assert not any(numbers <= {n for first in starts for n in range(first, first + page)} for starts in fewer)


def test_silence_after_a_403(exchange):
    exchange.reset({"BTCUSDT": market(50, 1, FIRST)}, NOW, ["403"])
    one = client(exchange)
    for _ in range(3):
        with pytest.raises(ExchangeUnavailable, match="HTTP 403"): fetch_bars(one, "BTCUSDT", "60", 0, 5)
    assert len(exchange.asked) == 1


@pytest.mark.parametrize("fault", ["too long", "gzip bomb", "deep", "too many", "301"])
def test_a_hostile_answer_costs_neither_time_nor_memory(exchange, fault):
    exchange.reset({"BTCUSDT": market(50, 1, FIRST)}, NOW, [fault]*9)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ExchangeUnavailable): fetch_bars(client(exchange), "BTCUSDT", "60", *bar_number(np.array([FIRST.value//10**6, NOW]), "60"))
    assert time.monotonic() - begin < 10
    if fault != "gzip bomb": assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024 < 100  # MB; the server of this process makes the bomb


def test_an_answer_that_drips_for_ever_ends(exchange, monkeypatch):
    monkeypatch.setattr(bybit, "MAX_SECONDS", 0.5)
    exchange.reset({"BTCUSDT": market(50, 1, FIRST)}, NOW, ["drip"]*4)
    with pytest.raises(ExchangeUnavailable, match="does not end"): fetch_bars(client(exchange), "BTCUSDT", "60", 0, 5)


@pytest.mark.parametrize("symbol", ["../../x", "a/b", "", "X"*31, "BTC\0USDT", ".hidden", "BTCUSDT/..", "БTC", "BTC USDT"])
def test_a_malicious_symbol_leaves_neither_the_folder_nor_the_machine(exchange, tmp_path, symbol):
    exchange.reset({"BTCUSDT": market(50, 1, FIRST)}, NOW)
    exchange.counts.clear()
    with pytest.raises(InputError, match="wanted letters and digits"): update(CandleStore(tmp_path/"store"), client(exchange), [symbol], "60", date(0), date(NOW))
    assert not exchange.counts and not list(tmp_path.iterdir())


def test_unlisted_and_delisted_symbols(exchange, tmp_path):
    gone, here = market(500, 4, "2022-01-01"), market(100, 5, FIRST)
    exchange.reset({"BTCUSDT": here}, NOW)
    with pytest.raises(InputError, match="Bybit lists no BTCUSD; did you mean BTCUSDT?"): update(CandleStore(tmp_path), client(exchange), ["BTCUSD"], "60", date(0), date(NOW))
    assert not list(tmp_path.iterdir())
    exchange.delisted = {"LUNAUSDT": gone}
    exchange.markets["LUNAUSDT"] = gone                 # as bars of a delisted symbol can still be had
    exchange.hidden = {"LUNAUSDT"}
    try: update(CandleStore(tmp_path), client(exchange), ["LUNAUSDT"], "60", date(0), date(NOW))
    finally: exchange.delisted, exchange.hidden = {}, set()
    same(stored(CandleStore(tmp_path), "LUNAUSDT"), truth(*gone, date(0), date(NOW)))
    assert len(exchange.asked) == 1                     # neither before the launch nor after the delivery


def test_instruments_come_page_by_page(exchange):
    exchange.reset({f"COIN{number:03}USDT": market(3, number, FIRST) for number in range(25)}, NOW)
    exchange.page = 7
    exchange.delisted = {"LUNAUSDT": market(500, 4, "2022-01-01")}
    try:
        assert len(fetch_instruments(client(exchange))) == 25
        table = fetch_instruments(client(exchange), delisted=True)
    finally: exchange.page, exchange.delisted = 1000, {}
    assert len(table) == 26 and table.status["LUNAUSDT"] == "Closed"
    assert table.delivery["LUNAUSDT"] == pd.Timestamp("2022-01-21 20:00", tz="UTC") and table.delivery.drop("LUNAUSDT").isna().all()
    assert (table.launch["COIN001USDT"], table.funding_minutes["COIN001USDT"]) == (FIRST.tz_localize("UTC"), 480)


def test_funding_at_its_own_times(exchange):
    eight, one = np.arange(0, 1800*HOUR, 8*HOUR), np.arange(1800*HOUR, 2400*HOUR, HOUR)  # 8-hourly, then hourly
    exchange.funding = {"BTCUSDT": (FIRST.value//10**6 + np.concatenate([eight, one])).tolist()}
    start, end = date(exchange.funding["BTCUSDT"][10]), date(exchange.funding["BTCUSDT"][-10])
    exchange.counts.clear()
    rates = fetch_funding(client(exchange), "BTCUSDT", start, end)
    assert rates.index.asi8.tolist() == exchange.funding["BTCUSDT"][10:-10]
    assert rates.tolist() == [time % 997/1e6 for time in exchange.funding["BTCUSDT"][10:-10]]
    assert exchange.counts["funding/history"] == -(-len(rates)//200)


# the store

KILLS, SYMBOLS = 50, ["AUSDT", "BUSDT", "CUSDT"]


def update_until_killed(address, folder, ready):
    bybit.COMMIT = 1                                    # a write after each page, so that a kill meets many
    one = Bybit(address, rate=1e6)
    fetch_instruments(one)                              # connected and warm
    ready.set()
    update(CandleStore(folder), one, SYMBOLS, "60", date(FIRST.value//10**6), date(NOW))


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_exchange"])   # the imports are paid once
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        multiprocessing.forkserver.ensure_running()
    return context


def start(processes, exchange, folder):
    ready = processes.Event()
    process = processes.Process(target=update_until_killed, args=(exchange.address, folder, ready))
    process.start()
    assert ready.wait(60)
    return process


def test_killed_fifty_times(exchange, processes, tmp_path):
    markets = {symbol: market(ROWS, number, FIRST, holes=2) for number, symbol in enumerate(SYMBOLS)}
    whole, draw, partial, round = {symbol: truth(*bars, date(0), date(NOW)) for symbol, bars in markets.items()}, random.Random(0), 0, 0
    exchange.reset(markets, NOW)
    held = dict.fromkeys(SYMBOLS, 0)
    for kill in range(KILLS):
        process = start(processes, exchange, tmp_path/str(round))
        asked, patience = len(exchange.asked) + draw.randrange(5), time.monotonic() + 5
        while len(exchange.asked) < asked and process.is_alive() and time.monotonic() < patience: time.sleep(0.001)  # somewhere in the work, however fast the machine
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = CandleStore(tmp_path/str(round))
        for symbol in SYMBOLS:
            found = stored(store, symbol)
            same(found, whole[symbol].loc[found.index])
            assert len(found) >= held[symbol]
            held[symbol] = len(found)
        partial += 0 < sum(held.values()) < sum(map(len, whole.values()))
        if sum(held.values()) == sum(map(len, whole.values())): round, held = round + 1, dict.fromkeys(SYMBOLS, 0)
    assert partial >= KILLS//4, partial                 # the kills did fall into the work
    for folder in tmp_path.iterdir():
        update(CandleStore(folder), client(exchange), SYMBOLS, "60", date(0), date(NOW))
        for symbol in SYMBOLS: same(stored(CandleStore(folder), symbol), whole[symbol])


def test_two_processes_at_once_ask_as_much_as_one(exchange, processes, tmp_path):
    exchange.reset(markets := {symbol: market(ROWS, number, FIRST) for number, symbol in enumerate(SYMBOLS)}, NOW)
    both = [start(processes, exchange, tmp_path) for _ in range(2)]
    for process in both: process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    for symbol, bars in markets.items(): same(stored(CandleStore(tmp_path), symbol), truth(*bars, date(0), date(NOW)))
    assert len(exchange.asked) == 4*len(SYMBOLS)


@pytest.mark.parametrize("interval", [*MINUTES, "D", "W"])
def test_round_trip_of_every_interval(tmp_path, interval):
    bars = simulate_market(1, end=pd.Timestamp("2024-03-05" if interval in MINUTES else "2026-01-01", tz="UTC"), interval=interval).candles["SIM00"]
    store = CandleStore(tmp_path)
    assert store.add(bars[::2]) + store.add(bars[1::2]) + store.add(bars) == len(bars)
    same(store.read("SIM00", interval)[bars.columns], bars)
    same(read_candles(tmp_path/f"SIM00-{interval}.parquet")[bars.columns], bars)   # as source `files` reads it
    same(pd.read_parquet(tmp_path/f"SIM00-{interval}.parquet").set_index("timestamp")[list(bars.columns)], bars)
    a, b = bars.index[len(bars)//3], bars.index[2*len(bars)//3]
    same(store.read("SIM00", interval, a, b)[bars.columns], bars[(bars.index >= a) & (bars.index < b)])
    assert len(store.missing("SIM00", interval, bars.index[0], bars.index[-1])) == 0


def test_months_too(tmp_path):
    months = resample(simulate_market(1, end=pd.Timestamp("2026-01-01", tz="UTC"), interval="D").candles["SIM00"], "M")
    store = CandleStore(tmp_path)
    store.add(months.drop(months.index[5]))
    assert bar_open(store.missing("SIM00", "M", months.index[0], months.index[-1]), "M").tolist() == [months.index[5].value//10**6]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_stops_short_changes_nothing(tmp_path, monkeypatch, call):
    bars, store = truth(*market(ROWS, 1, FIRST), date(0), date(NOW)), CandleStore(tmp_path)
    add(store, bars[:1000])
    def stop(*given): raise OSError("the disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, stop)
        with pytest.raises(InputError, match="the disk is full"): add(store, bars)
    same(stored(store), bars[:1000])
    add(store, bars)
    same(stored(store), bars)


def test_a_damaged_part_is_named_and_not_overwritten(exchange, tmp_path):
    bars, store = market(ROWS, 1, FIRST), CandleStore(tmp_path)
    add(store, truth(*bars, date(0), date(NOW))[:100])
    (part,) = (tmp_path/"BTCUSDT-60.parquet").glob("[0-9]*.parquet")
    part.write_bytes(part.read_bytes()[:-50])
    damaged = part.read_bytes()
    exchange.reset({"BTCUSDT": bars}, NOW)
    for touch in [lambda: stored(store), lambda: update(store, client(exchange), ["BTCUSDT"], "60", date(0), date(NOW))]:
        with pytest.raises((InputError, AssertionError), match=part.name): touch()
    assert part.read_bytes() == damaged


def benchmark():
    "Figures for the note; the server runs in a process of its own and replays the recorded hours where SSLTS_FILES has them."
    import subprocess, sys, tempfile
    from sslts_nb.candles import check_candles
    with tempfile.TemporaryDirectory() as folder:
        served, kept, n = Path(folder)/"served", Path(folder)/"kept", 5*8766
        recorded = os.environ.get("SSLTS_FILES")
        year = read_candles(Path(recorded)/"BTCUSDT-60.parquet").loc["2024"] if recorded else simulate_market(1).candles["SIM00"].loc["2024"]
        served.mkdir()
        symbols = [f"COIN{number}USDT" for number in range(50)]
        for symbol in symbols: year.iloc[:8760].reset_index().to_parquet(served/f"{symbol}-60.parquet")
        with subprocess.Popen([sys.executable, __file__.replace("test_exchange", "exchange"), str(served)], stdout=subprocess.PIPE, text=True) as server:
            one, store, begin = Bybit(server.stdout.readline().strip(), rate=100), CandleStore(kept), time.monotonic()
            table = update(store, one, symbols, "60", year.index[0], year.index[8759] + pd.Timedelta(hours=1))
            print(f"50 symbols x {table.bars[0]} hours at 100 requests a second at most: {time.monotonic() - begin:.1f} s")
            one, store, begin = Bybit(one.base_url, rate=1e6), CandleStore(Path(folder)/"again"), time.monotonic()
            update(store, one, symbols, "60", year.index[0], year.index[8759] + pd.Timedelta(hours=1))
            print(f"the same without a pace: {time.monotonic() - begin:.1f} s")
            server.kill()
        long = simulate_market(10, end=pd.Timestamp("2024", tz="UTC") + pd.Timedelta(hours=n)).candles
        for bars in long.values(): store.add(bars)
        begin = time.monotonic()
        for symbol in long: store.read(symbol, "60")
        print(f"10 symbols x {n} hours from the store: {time.monotonic() - begin:.3f} s")
        million = simulate_market(1, end=pd.Timestamp("2024", tz="UTC") + pd.Timedelta(minutes=10**6), interval="1").candles["SIM00"]
        begin = time.monotonic()
        check_candles(million)
        print(f"checks of {len(million):,} bars: {time.monotonic() - begin:.3f} s")


if __name__ == "__main__": benchmark()

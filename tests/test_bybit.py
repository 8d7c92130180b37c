"""The client against an exchange that fails on purpose: nothing is lost, invented or asked for twice.

`python tests/test_bybit.py` prints the benchmark (SSLTS_FILES=folder replays the recorded hours).
"""
import os, random, signal, tempfile, threading, time, tracemalloc
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bybit_server import (ANSWERS, CODES, DAY, FINAL, HARMLESS, RETRIED, SPOILT, STATUS, WIRE, WITHHOLDING,
                          BybitServer, as_frame, bomb, closed, instrument, make_candles, server_process)
from sslts_nb import answers, bybit
from sslts_nb.settings import InputError
from sslts_nb.candles import CandleStore, bar_number, check_candles
from sslts_nb.bybit import (Bybit, ExchangeUnavailable, cover, fetch_bars, fetch_funding, fetch_instruments,
                            update)

HOUR, ROWS = 3_600_000, 2100                            # three pages
# of the server: the client believes no clock that is ahead of its own
NOW = int(time.time()*1000)
date = lambda ms: pd.Timestamp(int(ms), unit="ms", tz="UTC")
LONG_AGO, SOON = date(0), date(NOW + 100*HOUR)
market = cache(lambda seed=0, holes=0: make_candles("BTCUSDT", "60", ROWS, NOW, seed, holes))
FIRST = market().index[0].value//10**6


@pytest.fixture(scope="module")
def server():
    bomb()                                              # made before anyone waits for it
    with BybitServer() as server: yield server


@contextmanager
def impatient(seconds=0.2):
    "Wait no longer than this for one answer; only where one without end comes: a busy machine may be slow."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bybit, "MAX_SECONDS", seconds)
        yield


def client(server, **given): return Bybit(server.address, **({"wait": 0.001, "rate": 1e6} | given))


def load(server, candles, faults=(), **given): server.load({("BTCUSDT", "60"): candles}, NOW, faults, **given)


def stored(store, symbol="BTCUSDT"):
    "What the store holds, an empty table if it holds nothing."
    if not store.parts(symbol, "60"): return as_frame([], np.empty((0, 6)), symbol, "60")
    return store.read(symbol, "60")


def same(found, wanted):
    "Equal in every bit; the slow comparison only to say where they differ."
    if not found.equals(wanted):
        pd.testing.assert_frame_equal(found, wanted, check_freq=False, check_exact=True)


def page(server, **given):
    "One page of a whole thousand bars."
    last = int(bar_number(NOW, "60")) - 100
    return fetch_bars(client(server, **given), "BTCUSDT", "60", last - 999, last)


def test_a_clock_that_is_behind(server):
    "What has closed by the exchange's own time comes, whatever this machine's clock says."
    now = NOW + 50*HOUR
    server.load({("BTCUSDT", "60"): make_candles("BTCUSDT", "60", 300, now)}, now)
    last = int(bar_number(now, "60"))
    ask = lambda until: fetch_bars(client(server), "BTCUSDT", "60", last - 99, last, until).timestamp.max()
    assert ask(None) <= time.time()*1000 - HOUR
    assert ask(now) == (last - 1)*HOUR and ask(now - 10*HOUR) == (last - 11)*HOUR


def test_rows_that_lag_behind_the_time(server):
    "A bar that nothing follows may have been open when its row was written."
    candles = market()
    last = int(bar_number(NOW, "60"))
    server.load({("BTCUSDT", "60"): candles.loc[:date(NOW - 2*HOUR)]}, NOW)   # the rows are older
    ask = lambda followed: fetch_bars(client(server), "BTCUSDT", "60", last - 99, last, NOW, followed)
    assert len(ask(False)) - len(ask(True)) == 1
    assert ask(False).timestamp.max() - ask(True).timestamp.max() == HOUR
    assert not len(fetch_bars(client(server), "BTCUSDT", "60", last, last, NOW, True))


def check_message(error):
    text = str(error)
    assert "\n" not in text and len(text) < 1000 and text.isprintable(), repr(text[:2000])


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    "These tests are about the exchange; that a file is on the disk before it has its name, others hold."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def one_hour(monkeypatch):
    "The machine's hour stays the exchange's where a full hour passes while these tests run."
    real, end = time.time, (NOW//HOUR + 1)*HOUR/1000
    monkeypatch.setattr(time, "time", lambda: min(real(), end - 1))


# whatever fails

runs = st.lists(st.tuples(st.integers(0, ROWS), st.integers(1, 900)), max_size=4)
others = [name for name in [*STATUS, *CODES, *ANSWERS, *WIRE] if name in RETRIED and name != "other symbol"]

@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 7), holes=st.sampled_from([0, 1, 20]), held=runs,
       ends=st.lists(st.integers(-300, ROWS + 300), min_size=2, max_size=2, unique=True).map(sorted),
       faults=st.lists(st.sampled_from(HARMLESS + WITHHOLDING*3 + RETRIED), max_size=12),
       final=st.sampled_from([[]]*3 + [[name] for name in FINAL]),
       listing=st.lists(st.sampled_from(others), max_size=3))
def test_whatever_fails_nothing_is_lost_and_nothing_invented(server, seed, holes, held, ends, faults, final,
                                                             listing):
    candles, (start, end) = market(seed, holes), [date(FIRST + at*HOUR) for at in ends]
    whole = closed(candles, NOW)
    before = whole[np.isin(np.arange(len(whole)),
                           [at for first, length in held for at in range(first, first + length)])]
    wanted = whole[whole.index.isin(before.index) | ((whole.index >= start) & (whole.index < end))]
    with tempfile.TemporaryDirectory() as folder:
        store = CandleStore(folder)
        if len(before): store.add(before)
        load(server, candles, faults + final, instrument_faults=listing)
        try:
            with impatient(): update(store, client(server, timeout=(1, 0.15)), ["BTCUSDT"], "60", start, end)
        except (InputError, ExchangeUnavailable) as error:
            check_message(error)
            # on a busy machine a fourth attempt may come too late
            assert "BTCUSDT" in str(error) or "instruments-info" in str(error)
            found = stored(store)
            same(found, whole.loc[found.index])         # true bars, none of them open
            assert before.index.isin(found.index).all()
        else: same(stored(store), wanted)
        load(server, candles)
        update(store, client(server), ["BTCUSDT"], "60", start, end)
        same(stored(store), wanted)
        load(server, candles)
        update(store, client(server), ["BTCUSDT"], "60", start, end)
        # the newest holes are not yet believed, all others are known
        assert all(int(params["start"]) > NOW - DAY - 2*HOUR for params in server.asked())


@pytest.mark.parametrize("fault, attempts",
                         [(fault, 4) for fault in RETRIED] + [(fault, 1) for fault in FINAL + HARMLESS])
def test_asked_again_only_where_that_may_help(server, tmp_path, fault, attempts):
    store, whole = CandleStore(tmp_path), closed(market(), NOW)
    store.add(before := whole.drop(whole.index[300:1200]))  # less than a page: there is room for equal rows
    # a row whose numbers are wrong costs itself (and what its answer lacks), one that is elsewhere the page
    lacking = {"conflicting rows": [300, 1199], "one short row": [300]}.get(fault, [749])
    wanted = whole if fault in HARMLESS else whole.drop(whole.index[lacking]) if fault in SPOILT else before
    load(server, market(), [fault]*9)
    call = lambda: update(store, client(server, timeout=(1, 0.1) if fault == "slow" else (5, 10)),
                          ["BTCUSDT"], "60", *whole.index[[0, -1]])
    if fault in HARMLESS: call()
    else:
        kind = InputError if fault in ("parameter", "route") else ExchangeUnavailable
        waiting = impatient() if fault == "drip" else nullcontext()
        with waiting, pytest.raises(kind, match="BTCUSDT") as caught: call()
        check_message(caught.value)
        assert fault not in SPOILT or f"{whole.index[lacking[0]]:%Y-%m-%d %H:%M}" in str(caught.value)
    assert len(server.asked()) == attempts
    same(stored(store), wanted)


def test_waits_longer_from_attempt_to_attempt_and_until_the_limit_is_lifted(server, monkeypatch):
    slept = []
    monkeypatch.setattr(bybit.time, "sleep", slept.append)  # waits as asked for, on any machine
    load(server, market(), ["500", "502", "503"])
    page(server, wait=0.06)
    waits = [seconds for seconds in slept if seconds > 0.01]
    assert [0.5 <= wait/0.06/2**n <= 1 for n, wait in enumerate(waits)] == [True]*3, waits
    slept.clear()
    later = str(int(time.time()*1000) + 3_600_000)
    limits = [("X-Bapi-Limit-Status", "0"), ("X-Bapi-Limit-Reset-Timestamp", later)]
    load(server, market(), [lambda handler, answer: handler.send(b"", 500, limits)])
    page(server, wait=0)
    assert 9 < max(slept) <= 10                         # an hour, the headers say; ten seconds are the most


def test_keeps_its_pace(server, tmp_path, monkeypatch):
    load(server, market())
    slept = []                                          # on a clock that runs only while the client waits
    clock = SimpleNamespace(monotonic=lambda: 100 + sum(slept), sleep=slept.append, time=time.time)
    monkeypatch.setattr(bybit, "time", clock)
    slow = client(server, rate=20, connections=1)
    update(CandleStore(tmp_path), slow, ["BTCUSDT"], "60", LONG_AGO, date(NOW))
    assert len(server.log) >= 4 and sum(slept) == pytest.approx((len(server.log) - 1)/20)


def test_pages_that_arrived_stay(server, tmp_path):
    load(server, market(), [None]*2 + ["500"]*50)
    with pytest.raises(ExchangeUnavailable, match="BTCUSDT"):
        update(CandleStore(tmp_path), client(server, connections=1), ["BTCUSDT"], "60", LONG_AGO, SOON)
    same(stored(CandleStore(tmp_path)), market()[:2000])


def test_one_symbol_that_fails_stops_no_other(server, tmp_path):
    candles = {(symbol, "60"): make_candles(symbol, "60", ROWS, NOW)
               for symbol in ("AUSDT", "BUSDT", "CUSDT")}
    torn = candles["BUSDT", "60"].copy()
    torn.iloc[1500, 1] = 0.01                           # a high below its low
    server.load(candles | {("BUSDT", "60"): torn}, NOW)
    with pytest.raises(ExchangeUnavailable, match=r"1 of 3 symbols failed \(BUSDT\)") as caught:
        update(CandleStore(tmp_path), client(server), ["AUSDT", "BUSDT", "CUSDT"], "60", LONG_AGO, date(NOW))
    check_message(caught.value)
    for symbol in ("AUSDT", "CUSDT"):
        same(stored(CandleStore(tmp_path), symbol), closed(candles[symbol, "60"], NOW))


def test_a_hole_is_believed_when_a_day_old_and_asked_for_until_then(server, tmp_path):
    candles, store = market().drop(market().index[[-30, -5]]), CandleStore(tmp_path)
    load(server, candles)
    for _ in range(2): update(store, client(server), ["BTCUSDT"], "60", LONG_AGO, date(NOW))
    # three pages, the two holes in one twice more, then the young one alone
    assert len(server.asked()) == 3 + 2 + 3
    assert (np.diff([[int(params[name]) for name in ("start", "end")]
                     for params in server.asked()[-3:]]) == 0).all()
    load(server, market())                              # the exchange has filled both
    update(store, client(server), ["BTCUSDT"], "60", LONG_AGO, date(NOW))
    same(stored(store), closed(market(), NOW).drop(market().index[-30]))


def test_a_hole_is_believed_a_day_after_its_end_and_not_one_bar_early(server, tmp_path):
    now = NOW//HOUR*HOUR - 7*HOUR                       # of a server that is behind, so its clock decides
    candles, store = make_candles("BTCUSDT", "60", ROWS, now), CandleStore(tmp_path)
    ends = [now - DAY + hours*HOUR for hours in (-1, 0, 1)]
    server.load({("BTCUSDT", "60"): candles.drop([date(end - HOUR) for end in ends])}, now)
    update(store, client(server), ["BTCUSDT"], "60", candles.index[0], date(now))
    assert store.holes("BTCUSDT", "60").tolist() == [[ends[0]//HOUR - 1]*2]


# how much is asked

@pytest.mark.slow
def test_a_year_of_fifty_symbols_takes_the_fewest_requests(server, tmp_path):
    bars = make_candles("COIN", "60", 8760 + 500, NOW)
    symbols, period = [f"COIN{number:02}USDT" for number in range(50)], bars.index[[0, 8760]]
    server.load({(symbol, "60"): bars for symbol in symbols}, NOW)
    # the second time nothing is missing, so nothing is asked
    for _ in range(2):
        table = update(CandleStore(tmp_path), client(server), symbols, "60", *period)
        assert server.counts == {"instruments-info": 1, "kline": 450}
    assert table.bars.tolist() == [8760]*50 and table.holes.sum() == 0


@cache
def fewest(numbers, size):
    "By trying every window that holds the first of `numbers`: how many of `size` hold all."
    if not numbers: return 0
    return 1 + min(fewest(tuple(n for n in numbers if not first <= n < first + size), size)
                   for first in range(numbers[0] - size + 1, numbers[0] + 1))


@settings(deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 30), max_size=9), st.integers(1, 8))
def test_cover_is_whole_and_no_cover_is_smaller(numbers, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bybit, "PAGE", size)
        windows = cover(np.array(sorted(numbers), "int64"))
    assert all(0 <= last - first < size for first, last in windows)
    assert numbers <= {n for first, last in windows for n in range(first, last + 1)}
    assert len(windows) == fewest(tuple(sorted(numbers)), size)


@pytest.mark.parametrize("seed", range(8))
def test_random_gaps_take_the_fewest_requests(server, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(bybit, "PAGE", 7)
    draw, candles = random.Random(seed), market()[100:160]
    gaps = sorted(draw.sample(range(1, 59), 12))
    store = CandleStore(tmp_path)
    store.add(candles.drop(candles.index[gaps]))
    load(server, market())
    update(store, client(server), ["BTCUSDT"], "60", *candles.index[[0, -1]])
    assert len(server.asked()) == fewest(tuple(gaps), 7)
    assert all(int(params["limit"]) <= 7 for params in server.asked())
    same(stored(store), candles)


def test_a_hole_in_the_middle_takes_one_request(server, tmp_path):
    store, whole = CandleStore(tmp_path), closed(market(), NOW)
    store.add(whole.drop(whole.index[1500:1510]))
    load(server, market())
    update(store, client(server), ["BTCUSDT"], "60", *whole.index[[0, -1]])
    (asked,) = server.asked()
    assert [int(asked["start"]),
            int(asked["end"])] == [time.value//10**6 for time in whole.index[[1500, 1509]]]


@pytest.mark.parametrize("interval, bars",
                         [("1", 3000), ("15", 2500), ("720", 1500), ("D", 1200), ("W", 200), ("M", 60)])
def test_every_kind_of_interval_arrives(server, tmp_path, interval, bars):
    candles = make_candles("BTCUSDT", interval, bars, NOW, holes=2)
    # launches fall within bars
    server.load({("BTCUSDT", interval): candles}, NOW,
                instruments=[instrument("BTCUSDT", int(candles.index.asi8[0]) + 1234)])
    update(CandleStore(tmp_path), client(server), ["BTCUSDT"], interval,
           candles.index[0] - pd.Timedelta(days=40), date(NOW))
    same(CandleStore(tmp_path).read("BTCUSDT", interval), closed(candles, NOW))


# who must not be asked again

def test_silence_after_a_403(server, monkeypatch):
    load(server, market(), ["403"])
    one = client(server)
    for _ in range(5):
        with pytest.raises(ExchangeUnavailable, match="403"): fetch_bars(one, "BTCUSDT", "60", 0, 5)
    assert sum(server.counts.values()) == 1
    monkeypatch.setattr(bybit, "SHUT_SECONDS", 0.05)
    load(server, market(), ["403"])
    with pytest.raises(ExchangeUnavailable, match="403"):
        fetch_bars(one := client(server), "BTCUSDT", "60", 0, 5)
    time.sleep(0.06)
    fetch_bars(one, "BTCUSDT", "60", 0, 5)              # the silence ends


def test_a_403_silences_the_threads_that_wait_for_their_turn(server, tmp_path):
    bars = make_candles("BTCUSDT", "60", 9000, NOW)
    load(server, bars, ["403"])                         # answered within a second, on a busy machine too
    with pytest.raises(ExchangeUnavailable, match="403"):
        update(CandleStore(tmp_path), client(server, rate=1), ["BTCUSDT"], "60", *bars.index[[0, -1]])
    assert len(server.asked()) == 1


def test_follows_no_redirect(server):
    with BybitServer() as elsewhere:
        there = ("Location", f"{elsewhere.address}/v5/market/kline")
        load(server, market(), [lambda handler, answer: handler.send(b"", 302, [there])]*4)
        with pytest.raises(ExchangeUnavailable, match="302"): page(server)
        assert not elsewhere.counts


SYMBOLS = ["../../x", "a/b", "", "X"*31, "X"*10**6, "BTC\0USDT", ".hidden", "..", "BTCUSDT/..", "БTCUSDT",
           "ＢTC", "BTC USDT", "BTCUSDT\n", "BTCUSDT&category=spot", "C:\\x", "-rf"]

@pytest.mark.parametrize("symbol", SYMBOLS, ids=range(len(SYMBOLS)))
def test_a_malicious_symbol_leaves_neither_the_folder_nor_the_machine(server, tmp_path, symbol):
    load(server, market())
    store, one = CandleStore(tmp_path/"store"), client(server)
    for call in [lambda: update(store, one, ["BTCUSDT", symbol], "60", LONG_AGO, SOON),
                 lambda: store.read(symbol, "60"), lambda: store.missing(symbol, "60", LONG_AGO, SOON),
                 lambda: store.remember_holes(symbol, "60", [1]),
                 lambda: store.add(as_frame([FIRST], np.ones((1, 6)), symbol, "60")),
                 lambda: store.lock(symbol, "60").__enter__()]:
        with pytest.raises(InputError, match="symbol"): call()
    assert not server.counts and not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("interval", ["61", "", "../60", "d", "60 ", "0", None])
def test_an_unknown_interval_leaves_nothing_either(server, tmp_path, interval):
    load(server, market())
    with pytest.raises(InputError, match="interval"):
        update(CandleStore(tmp_path/"store"), client(server), ["BTCUSDT"], interval, LONG_AGO, SOON)
    assert not server.counts and not list(tmp_path.rglob("*"))


# hostile answers: own faults, called with the handler and the answer that it would have given

def with_list(value): return lambda handler, answer: handler.answer(answer | {"result": {"list": value}})

LISTED = b'{"retCode": 0, "time": 1, "result": {"list": ['

def pour(piece, length):
    def fault(handler, answer):
        handler.server.length = length
        handler.pour(LISTED, piece)
    return fault

def with_headers(body, *headers):
    return lambda handler, answer: handler.send(body(), headers=[*headers])

HOSTILE = {"200 MB": pour(b" "*2**16, 200*2**20),
           "a million rows": pour(b'["1","1","1","1","1","1","1"],'*2000, 30*10**6), "gzip bomb": "gzip bomb",
           "deep": "deep", "redirect": "301",
           "bomb in a bomb": with_headers(lambda: bomb(2), ("Content-Encoding", "gzip, gzip")),
           "many small lists": lambda handler, answer: handler.send(LISTED + b"[],"*600_000 + b"[]]}}"),
           "a long row": lambda handler, answer: handler.send(LISTED + b"[" + b"0,"*800_000 + b"0]]}}"),
           "an endless header": with_headers(lambda: b"{}", *((f"X-{n}", "x"*60_000) for n in range(200)))}

@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_neither_time_nor_memory(server, name):
    load(server, market(), [HOSTILE[name]]*4)
    bomb(2)
    decoded, loads = [], answers.json.loads
    def counting(text):
        decoded.append(len(text))
        return loads(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers.json, "loads", counting)
        tracemalloc.start()
        try:
            with pytest.raises(ExchangeUnavailable) as caught: page(server)
            assert tracemalloc.get_traced_memory()[1] < 100*2**20
        finally: tracemalloc.stop()
    # bytes and calls, as a clock would measure the machine: four attempts, four megabytes each
    assert server.counts["kline"] <= 4 and len(decoded) <= 4 and sum(decoded) <= 16*2**20
    check_message(caught.value)


TEXTS = {"a long text": "x"*3*10**6, "a long number": "1"*3*10**6, "control characters": "<b>\n\x1b[2J"}

@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("where", ["time of a bar", "price", "symbol", "message", "server time"])
def test_what_is_said_of_a_hostile_text_is_short_and_of_one_line(server, where, text):
    row, text = ["1"]*7, TEXTS[text]
    answers = {"time of a bar": {"result": {"list": [[text, *row[1:]]]}},
               "price": {"result": {"list": [[*row[:4], text, *row[5:]]]}},
               "symbol": {"result": {"symbol": text, "list": [row]}},
               "message": {"retCode": 10001, "retMsg": text},
               "server time": {"time": text, "result": {"list": []}}}
    load(server, market(), [lambda handler, answer: handler.answer(answer | answers[where])]*4)
    with pytest.raises((ExchangeUnavailable, InputError)) as caught: page(server)
    check_message(caught.value)


def endless(before, piece):
    def fault(handler, answer):
        handler.wfile.write(before)
        for _ in range(1000):                           # far more than come within the deadline
            if handler.server.release.wait(0.01): break
            handler.wfile.write(piece)
        else: handler.server.outlasted = True
        handler.close_connection = True
    return fault

ENDLESS = {"body": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{", b" "),
           "chunks": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
           "header": endless(b"HTTP/1.1 200 OK\r\nX-Header: ", b"x"),
           "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
           "size of a chunk": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
           "trailers": endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
                               b"X: x\r\n")}

@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_end_ends(server, name):
    server.release, server.outlasted = threading.Event(), False
    load(server, market(), [ENDLESS[name]]*4)
    with impatient(), pytest.raises(ExchangeUnavailable, match="does not end|cut off"):
        page(server, timeout=(1, 0.5))
    server.release.set()
    assert not server.outlasted                         # the server would have gone on
    assert len(server.asked()) == 4


@pytest.mark.parametrize("fault", ["drip", "slow", "header"])
def test_an_interrupt_waits_for_no_server(server, tmp_path, monkeypatch, fault):
    server.release, server.outlasted, server.slow = threading.Event(), False, 10
    others = {*threading.enumerate()}   # of other tests, whose pools may not have ended
    came, fetch = threading.Event(), bybit.fetch_bars
    def fetched(*given):
        try: return fetch(*given)
        finally: came.set()
    monkeypatch.setattr(bybit, "fetch_bars", fetched)
    load(server, market(), [None, *[ENDLESS.get(fault, fault)]*20])
    def interrupt():
        while len(server.asked()) < 3: time.sleep(0.01)  # one page comes, two are waited for
        came.wait()
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)   # in the background it may be ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            update(CandleStore(tmp_path), client(server, connections=3), ["BTCUSDT"], "60", LONG_AGO, SOON)
        assert not server.outlasted and server.counts["kline"] == 3
        # what came is kept, and nothing that still reads keeps the program from ending
        assert len(stored(CandleStore(tmp_path))) == 1000
        assert all(thread.daemon for thread in {*threading.enumerate()} - others)
    finally:
        signal.signal(signal.SIGINT, before)
        server.release.set()
        server.slow = 0.3


# instruments and funding

def test_instruments_come_page_by_page_and_the_delisted_on_request(server):
    server.load({(f"COIN{number:03}USDT", "60"): market() for number in range(25)}, NOW,
                instruments=[instrument("LUNAUSDT", FIRST, FIRST + 500*HOUR, "Closed", 60)])
    server.instrument_page = 7
    try:
        here, gone = fetch_instruments(client(server)), fetch_instruments(client(server), delisted=True)
    finally: server.instrument_page = 1000
    assert sorted(here.index) == [f"COIN{number:03}USDT" for number in range(25)]
    assert here.delivery.isna().all()
    assert sorted(gone.index) == sorted([*here.index, "LUNAUSDT"])
    columns = ["status", "launch", "delivery", "tick_size", "quantity_step", "funding_minutes"]
    wanted = ["Closed", date(FIRST), date(FIRST + 500*HOUR), 0.1, 0.001, 60]
    assert gone.loc["LUNAUSDT", columns].tolist() == wanted
    assert server.counts["instruments-info"] == 4 + 4 + 1


@pytest.mark.parametrize("field, value", [("launchTime", "soon"), ("priceFilter", None), ("symbol", None),
                                          ("symbol", "../../x"),
                                          ("launchTime", "9"*17), ("launchTime", "9"*400),
                                          ("deliveryTime", "9"*18)])
def test_a_hostile_listing_is_an_error_of_one_line(server, tmp_path, field, value):
    load(server, market(), instruments=[instrument("BTCUSDT", FIRST) | {field: value}])
    server.instruments = {"BTCUSDT": server.instruments.popitem()[1]}
    with pytest.raises((ExchangeUnavailable, InputError)) as caught:
        update(CandleStore(tmp_path/"store"), client(server), ["BTCUSDT"], "60", LONG_AGO, SOON)
    check_message(caught.value)


def test_a_listing_that_turns_in_a_circle_ends(server):
    def again(handler, answer):
        handler.answer(answer | {"result": answer["result"] | {"nextPageCursor": "page 0"}})
    load(server, market(), instrument_faults=[again]*9)
    assert len(fetch_instruments(client(server))) == 1 and server.counts["instruments-info"] < 4


def test_unlisted_and_delisted_symbols(server, tmp_path):
    gone, store = make_candles("LUNAUSDT", "60", 500, NOW - 900*HOUR), CandleStore(tmp_path/"store")
    delivery = gone.index.asi8[-1] + HOUR
    server.load({("BTCUSDT", "60"): market(), ("LUNAUSDT", "60"): gone}, NOW,
                instruments=[instrument("LUNAUSDT", int(gone.index.asi8[0]), int(delivery), "Closed")])
    with pytest.raises(InputError, match="BTCUSD; did you mean BTCUSDT?"):
        update(store, client(server), ["BTCUSD", "LUNAUSDT"], "60", LONG_AGO, SOON)
    assert not server.asked() and not list(tmp_path.iterdir())
    update(store, client(server), ["LUNAUSDT"], "60", LONG_AGO, SOON)
    same(stored(store, "LUNAUSDT"), gone)
    assert len(server.asked()) == 1                     # neither before the launch nor after the delivery
    counts = server.counts.copy()
    update(store, client(server), ["LUNAUSDT"], "60", LONG_AGO, SOON - pd.Timedelta(days=60))
    assert server.counts == counts


def test_funding_pages_back_through_a_change_of_its_interval(server):
    hours = [*range(0, 1600, 8), *range(1600, 2400)]    # 8-hourly, then hourly
    payments = [(FIRST + hour*HOUR, round((hour % 97 - 48)/1e6, 6)) for hour in hours]
    load(server, market(), funding={"BTCUSDT": payments})
    for first, last in [(10, -10), (0, len(hours)), (150, 450), (3, 4)]:
        server.counts.clear()
        wanted = payments[first:last]
        rates = fetch_funding(client(server), "BTCUSDT", date(wanted[0][0]), date(wanted[-1][0] + 1))
        assert [*zip(rates.index.asi8.tolist(), rates.tolist())] == wanted
        assert server.counts["funding/history"] <= len(wanted)//200 + 1
    assert all("startTime" not in params or "endTime" in params for params in server.asked("funding/history"))
    empty = fetch_funding(client(server), "BTCUSDT", date(FIRST - 500*HOUR), date(FIRST))
    assert len(empty) == 0 and empty.index.tz is not None


@pytest.mark.parametrize("rate, payment",
                         [("NaN", FIRST), ("0.1", FIRST + 10**10), ("x", FIRST), ("0.1", "soon")])
def test_funding_that_is_none_is_refused(server, rate, payment):
    load(server, market())
    row = {"symbol": "BTCUSDT", "fundingRate": rate, "fundingRateTimestamp": str(payment)}
    wrong = lambda handler, answer: handler.answer(answer | {"result": {"list": [row]}})
    server.faults["funding/history"] = [wrong]*4
    with pytest.raises(ExchangeUnavailable, match="BTCUSDT") as caught:
        fetch_funding(client(server), "BTCUSDT", date(FIRST), date(FIRST + 100*HOUR))
    check_message(caught.value)
    assert server.counts["funding/history"] == 4


def benchmark():
    "Figures for the note, the server in a process of its own."
    def timed(label, call, runs=1):
        seconds = []
        for _ in range(runs):
            begin = time.monotonic()
            found = call()
            seconds.append(time.monotonic() - begin)
        print(f"{label}: {min(seconds):.3f} s", flush=True)
        return found
    files = ["--files", os.environ["SSLTS_FILES"]] if os.environ.get("SSLTS_FILES") else []
    symbols, hour = [f"COIN{number:02}USDT" for number in range(50)], pd.Timestamp.now("UTC").floor("h")
    print("market:", *(files or ["made"]))
    with server_process("--symbols", 50, "--bars", 8761,
                        *files) as address, tempfile.TemporaryDirectory() as folder:
        import requests
        for rate in (100., 1e6):
            before, store = requests.get(f"{address}/counts").json(), CandleStore(Path(folder)/str(rate))
            table = timed(f"50 symbols x 8760 hours, {rate:g} requests a second at most",
                          lambda: update(store, Bybit(address, rate=rate), symbols, "60",
                                         hour - pd.Timedelta(hours=8760), hour))
            after = requests.get(f"{address}/counts").json()
            print("requests:", {route: count - before.get(route, 0) for route, count in after.items()
                                if route.startswith(("k", "i"))}, "bars:", set(table.bars))
            timed("the same again, nothing missing",
                  lambda: update(store, Bybit(address), symbols, "60", hour - pd.Timedelta(hours=8760), hour))
    with tempfile.TemporaryDirectory() as folder:
        store, now = CandleStore(folder), int(time.time()*1000)
        for symbol in symbols[:10]: store.add(make_candles(symbol, "60", 5*8766, now))
        timed("10 symbols x 5 years of hours from the store",
              lambda: [store.read(symbol, "60") for symbol in symbols[:10]], 5)
        million = make_candles("BTCUSDT", "1", 10**6, now)
        timed("check_candles of a million bars", lambda: check_candles(million), 5)
        timed("a million bars into the store", lambda: store.add(million))
        timed("a million bars from the store", lambda: store.read("BTCUSDT", "1"), 3)


if __name__ == "__main__": benchmark()

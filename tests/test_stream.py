"""Against an exchange that fails on purpose, live decisions are those of batch: none lost, twice or early.

At length: `python tests/test_stream.py --bars 2000 --faults 500 --tick 0.2`, and with `--kills 50`.
"""
import argparse, asyncio, gc, json, os, signal, subprocess, sys, tempfile, time
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path

import aiohttp, numpy as np, pandas as pd, pytest

from hostile_frames import FRAMES, Raw, text_of
from small_bundle import small_bundle
from stream_server import BARS, ENDED, KINDS, LINKS, RESTS, StreamServer, drawn_faults
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import load_markets
from sslts_nb.bundle import load_bundle
from sslts_nb.live import Engine, as_line, check_decisions, load_engine, replay
from sslts_nb.adapt import Shelf
from sslts_nb.frames import Arrivals, read_frame
from sslts_nb.ledger import read_ledger
from sslts_nb.sinks import Call, Lines, read_lines
from sslts_nb.health import Watch
from sslts_nb.stream import Pace, Shell

SYMBOLS = ["SIM00", "SIM01", "SIM02", "SIM03", "SIM04"]
BEGIN = pd.Timestamp("2024-01-20", tz="UTC")            # first bar that is played; REST has those before
HOUR = 3_600_000
OF_SIM01 = {"category": "linear", "symbol": "SIM01", "interval": "60"}


@cache
def hours(bars, holes):
    "Simulated hours; of those that are played, some do not exist, two of them in no market."
    end = str(BEGIN + pd.Timedelta(bars + 30, "h"))
    candles = load_markets(load_settings(source="simulated", end=end), SYMBOLS)
    first, found, draw = len(candles["SIM00"].loc[:BEGIN]), {}, np.random.default_rng(0)
    nowhere = draw.choice(np.arange(first, first + bars), min(2, holes), replace=False)
    for symbol, table in candles.items():
        gone = draw.choice(np.arange(first, first + bars), holes, replace=False)
        found[symbol] = table.drop(table.index[np.union1d(gone, nowhere)])
    return found


def server(bars=10, faults=(), holes=0, **more):
    "An exchange that plays them."
    return StreamServer(hours(bars, holes), BEGIN, bars, **({"tick": 0.05, "faults": faults} | more))


def one(kind, bar=2): return server(faults=drawn_faults(0, 1, bar, ["SIM00"], [kind]))


async def listen(exchange, take, bars=None, topics=None):
    "A client that connects again whenever it hears nothing; `take` gets whatever comes."
    until = exchange.end if bars is None else exchange.begin + bars*HOUR
    async with aiohttp.ClientSession() as session:
        while exchange.now < until:
            try:
                async with session.ws_connect(exchange.stream,
                                              timeout=aiohttp.ClientWSTimeout(ws_close=0.1)) as ws:
                    await ws.send_json({"op": "subscribe", "args": topics or [*map(exchange.topic, SYMBOLS)]})
                    while exchange.now < until:
                        message = await ws.receive(timeout=0.2)
                        take(message)
                        if message.type in ENDED: break
            except (aiohttp.ClientError, TimeoutError) as error:
                take(error)
                await asyncio.sleep(0.01)


def answers(heard):
    "What was said in JSON."
    return [json.loads(message.data) for message in heard if isinstance(getattr(message, "data", None), str)]


def rows(heard):
    "The rows of the pushes, each with its topic."
    return [row | {"topic": said["topic"]} for said in answers(heard) for row in said.get("data", [])]


async def ask(exchange, route, **params):
    "What REST answers."
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{exchange.address}/v5/market/{route}", params=params) as answer:
            return await answer.json(content_type=None)


# the exchange itself

def test_a_bar_on_a_day_without_faults():
    "Open pushes, one confirm after its end; REST has the same numbers."
    heard = []
    with server(4) as exchange:
        async def play():
            await listen(exchange, heard.append)
            return await ask(exchange, "kline", **OF_SIM01, limit="5")
        rest = asyncio.run(play())
    frames = answers(heard)
    assert frames[0] == {"success": True, "ret_msg": "", "conn_id": "local", "op": "subscribe"}
    start = exchange.begin + HOUR
    mine = [frame for frame in frames[1:] if frame["topic"] == "kline.60.SIM01" and
            frame["data"][0]["start"] == start]
    assert [frame["data"][0]["confirm"] for frame in mine] == [False]*4 + [True]
    last, row = mine[-1], mine[-1]["data"][0]
    assert all(frame["ts"] < row["end"] for frame in mine[:-1])
    assert last["ts"] > row["end"] == start + HOUR - 1
    assert len({frame["data"][0]["volume"] for frame in mine}) == 5
    candle = hours(4, 0)["SIM01"].loc[pd.Timestamp(start, unit="ms", tz="UTC")]
    assert [float(row[name]) for name in candle.index] == candle.tolist()
    (found,) = [bar for bar in rest["result"]["list"] if bar[0] == str(start)]
    assert found[1:6] == [row[name] for name in candle.index]
    assert rest["time"] == exchange.end and int(rest["result"]["list"][0][0]) == exchange.begin + 4*HOUR


def test_pings_and_refusals():
    async def talk(exchange):
        async with aiohttp.ClientSession() as session, session.ws_connect(exchange.stream) as ws:
            said = []
            topics = ("kline.60.NOSUCHUSDT", "kline.5.SIM00")
            strange = [{"op": "subscribe", "args": [topic]} for topic in topics]
            for request in ({"op": "ping", "req_id": "7"}, *strange, {"op": "dance"}):
                await ws.send_json(request)
                said.append(await ws.receive_json(timeout=1))
        return said, await ask(exchange, "time"), await ask(exchange, "instruments-info", category="linear")
    with server() as exchange: said, time, instruments = asyncio.run(talk(exchange))
    assert [answer["success"] for answer in said] == [True, False, False, False]
    assert said[0]["ret_msg"] == "pong" and said[0]["req_id"] == "7"
    assert time["time"] == exchange.begin == int(time["result"]["timeNano"])//10**6   # nobody has subscribed
    assert [row["symbol"] for row in instruments["result"]["list"]] == SYMBOLS


def test_a_bar_that_is_not_there_is_nowhere():
    heard = []
    with server(20, holes=3, tick=0.02) as exchange: asyncio.run(listen(exchange, heard.append))
    shown = {(row["topic"], row["start"]) for row in rows(heard)}
    for symbol, candles in hours(20, 3).items():
        times = candles.loc[BEGIN:].index.as_unit("ms").asi8
        times = times[times <= exchange.end]
        assert {start for topic, start in shown if topic.endswith(symbol)} == {*times.tolist()}
        assert len(times) <= 18


def test_faults_are_drawn():
    drawn = drawn_faults(3, 500, 2000, SYMBOLS)
    assert drawn == drawn_faults(3, 500, 2000, SYMBOLS) != drawn_faults(4, 500, 2000, SYMBOLS)
    counts = Counter(fault.kind for fault in drawn)
    assert {*counts} == {*KINDS} == {*LINKS, *BARS, *RESTS, *FRAMES} and max(counts.values()) <= 5
    assert len(KINDS) == len({*KINDS}) > 100 and {fault.symbol for fault in drawn} == {*SYMBOLS}


@pytest.mark.parametrize("kind", LINKS)
def test_connections_fail(kind):
    "What a client hears of it, and that it is heard again afterwards."
    heard = []
    with one(kind) as exchange:
        exchange.slow = 0.1
        asyncio.run(listen(exchange, heard.append, bars=10))
    assert exchange.befallen() == {kind: 1}
    wanted = {"half-open": "TimeoutError", "handshake 500": "status=500", "handshake 403": "status=403",
              "handshake hangs": "status=500", "no pong": ""}
    told = repr([getattr(one, "type", one) for one in heard])
    assert wanted.get(kind, "CLOSE") in told
    acknowledged = [said["success"] for said in answers(heard) if said.get("op") == "subscribe"]
    assert all(acknowledged) == (kind != "subscription refused") and exchange.most_links == 1
    assert max(row["start"] for row in rows(heard) if row["confirm"]) >= exchange.begin + 8*HOUR


DROPPING = ["dropped", "several dropped", "dropped everywhere", "silence", "early confirm only"]
EARLY = {"early confirm": 0, "early confirm only": 0, "early confirm, ts far ahead": 0,
         "next bar confirmed": 1}
LAGS = ["REST lag", "REST stale"]


@pytest.mark.parametrize("kind", [*DROPPING, *EARLY, "correction", "duplicate", "one bar twice"])
def test_confirms_are_amiss(kind):
    "Those of one bar, against the true one."
    heard = []
    with one(kind) as exchange: asyncio.run(listen(exchange, heard.append, bars=9))
    assert exchange.befallen() == {kind: 1}
    number = EARLY.get(kind, 0) + 1 + (kind == "silence")
    start, true = exchange.begin + number*HOUR, hours(10, 0)["SIM00"].loc[BEGIN:].iloc[number].tolist()
    confirms = [([float(row[name]) for name in ("open", "high", "low", "close", "volume")] == true,
                 said["ts"] > row["end"]) for said in answers(heard) for row in said.get("data", [])
                if row["confirm"] and row["start"] == start and said["topic"] == "kline.60.SIM00"]
    assert ((True, True) not in confirms) == (kind in DROPPING)
    early = [(False, kind == "early confirm, ts far ahead")] if kind in EARLY else []
    assert confirms[:len(early)] == early
    if kind == "correction": assert confirms == [(True, True), (False, True)]
    if kind in ("duplicate", "one bar twice"): assert len(confirms) > 1 and {*confirms} == {(True, True)}


def test_a_rest_that_lags():
    "With its time, or only its rows: then an unfinished bar has the look of a closed one."
    async def watch(exchange):
        seen = []
        async def look():
            while exchange.now < exchange.end:
                answer = await ask(exchange, "kline", **OF_SIM01, limit="1")
                seen.append((exchange.now, answer["time"], answer["result"]["list"][0]))
                await asyncio.sleep(0.005)
        await asyncio.gather(look(), listen(exchange, lambda message: None))
        return seen
    behind = {}
    for kind in LAGS:
        with one(kind) as exchange: seen = asyncio.run(watch(exchange))
        assert exchange.befallen() == {kind: 1}
        behind[kind] = max(now - time for now, time, _ in seen) > HOUR//5, max(
            time - int(row[0]) for _, time, row in seen) > HOUR + HOUR//5
    assert behind == {"REST lag": (True, False), "REST stale": (False, True)}


@pytest.mark.parametrize("kind", [kind for kind in RESTS if kind not in LAGS])
def test_rest_fails_once(kind):
    async def twice(exchange):
        await listen(exchange, lambda message: None, bars=4)
        said = []
        for _ in range(2):
            begun = asyncio.get_running_loop().time()
            try: said.append((await ask(exchange, "kline", **OF_SIM01, limit="1"))["retCode"])
            except (aiohttp.ClientError, ValueError) as error: said.append(type(error).__name__)
            said.append(asyncio.get_running_loop().time() - begun > 0.2)
        return said
    with one(kind) as exchange:
        exchange.slow = 0.3
        first, slow, second, _ = asyncio.run(twice(exchange))
    assert second == 0 and slow == (kind == "REST slow")
    assert first == {"REST slow": 0, "REST busy": 10006, "REST cut": 0}.get(kind, "JSONDecodeError")
    assert exchange.counts["kline"] == 2 + (kind == "REST cut")    # aiohttp asks again by itself


@pytest.mark.slow
def test_every_kind_befalls_and_a_naive_client_is_fooled():
    "It takes the first confirm of a bar for the bar, and asks nobody."
    first, faults = {}, drawn_faults(0, len(KINDS), 110, SYMBOLS)
    def take(message):
        try:
            said = json.loads(message.data)
            for row in said["data"]:
                if row["confirm"]: first.setdefault((said["topic"], row["start"]), float(row["close"]))
        except (AttributeError, ValueError, TypeError, LookupError, RecursionError): pass
    with server(130, faults, holes=3, tick=0.06) as exchange: asyncio.run(listen(exchange, take))
    assert exchange.befallen() == {kind: 1 for kind in KINDS if kind not in RESTS or kind in LAGS}
    told = Counter()
    for symbol, candles in hours(130, 3).items():
        true = candles.close.loc[BEGIN:].iloc[:120]
        for start, close in zip(true.index.as_unit("ms").asi8.tolist(), true):
            heard = first.get((f"kline.60.{symbol}", start))
            told["missing" if heard is None else "right" if heard == close else "wrong"] += 1
    assert told["missing"] > 10 and told["wrong"] > 10 and told["right"] > 200


# a shell on it

FAST = Pace(ping=0.2, silence=0.5, patience=0.1, backoff=0.02, longest=0.2, keep=0.5, leap=3600.)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_hostile_frame_gives_no_bar(kind):
    "None that it is about, and no error but the one of bad input."
    start, row = 1_705_708_800_000, dict(open="100.0", high="200.0", low="50.0", close="100.0", volume="1.0")
    row |= {"start": start, "end": start + HOUR - 1, "interval": "60", "confirm": True}
    def bars_of(frame):
        arrivals = Arrivals("60", {"SIM00": start - HOUR})
        for _ in range(2): arrivals.tell_time(start + HOUR)
        if isinstance(frame, Raw): return []            # aiohttp does not let it pass
        try: arrivals.take(read_frame(frame, "60"))
        except InputError: pass
        return [*arrivals.ready()]
    assert len(bars_of(text_of("kline.60.SIM00", [row], start + HOUR))) == 1
    assert bars_of(FRAMES[kind]("kline.60.SIM00", row, start + HOUR, HOUR)) == []


def watch_of(symbols=SYMBOLS): return Watch(symbols, load_bundle(small_bundle()).about)


def before(): return {symbol: table[table.index < BEGIN] for symbol, table in hours(10, 0).items()}


def until_end(exchange, holes):
    "The market to the last bar that closes in a play, with its past."
    end = BEGIN + pd.Timedelta(exchange.bars, "h")
    return {symbol: table[table.index < end] for symbol, table in hours(exchange.bars, holes).items()}


def played(exchange, holes):
    "How many bars are to be decided on."
    return sum((table.index >= BEGIN).sum() for table in until_end(exchange, holes).values())


def run_shell(exchange, folder, holes, seconds=900):
    "A shell until all bars of the play are decided, or some seconds are over; what it counted, and when."
    wanted, state, when = played(exchange, holes), folder/"state", []
    bundle = load_bundle(small_bundle())
    engine = load_engine(state, bundle) if state.exists() else Engine(bundle)
    if not state.exists():
        engine.warm_up(before())
        engine.save(state)
    sinks = [Lines(folder/"live.jsonl"), Call(lambda decision: when.append((decision, exchange.now)))]
    watch = watch_of()
    async def run():
        shell, stop = Shell(engine, SYMBOLS, sinks, watch, state, exchange.address, FAST), asyncio.Event()
        shell.client.wait, shell.client.timeout, shell.client.patience = 0.02, (1, 0.5), 0.5
        async def end():
            begun = asyncio.get_running_loop().time()
            while exchange.now < exchange.end or len(when) < wanted:
                await asyncio.sleep(0.05)
                if asyncio.get_running_loop().time() - begun > seconds: break
            stop.set()
        ending = asyncio.create_task(end())
        await shell.run(stop)
        await ending
    asyncio.run(run())
    return watch, when


def differences(exchange, folder, holes, when=()):
    "Lines that are lost, double, other than in batch, or early."
    bundle = load_bundle(small_bundle())
    past = [json.loads(as_line(said)) for said in replay(Engine(bundle), before())]
    lines = [*read_lines(folder/"live.jsonl")]
    early = [(one["symbol"], one["start"], "bar", "early", "") for one, at in when
             if at < pd.Timestamp(one["start"]).value//10**6 + HOUR]
    assert len(lines) > 0
    return check_decisions(past + lines, until_end(exchange, holes), bundle).values.tolist() + early


@pytest.mark.slow
def test_decisions_are_those_of_batch_whatever_happens(tmp_path):
    "Every kind of fault; nothing lost, twice, early or other; one connection at a time."
    faults = drawn_faults(1, len(KINDS), 110, SYMBOLS)
    with server(140, faults, holes=4, tick=0.1, slow=0.7) as exchange:
        watch, when = run_shell(exchange, tmp_path, 4)
    assert differences(exchange, tmp_path, 4, when) == []
    assert exchange.befallen() == {kind: 1 for kind in KINDS} and exchange.most_links == 1
    assert watch.counts["rejected", ""] > len(FRAMES)/2   # and shown in health


def run_until(exchange, folder, done, symbols=SYMBOLS):
    "A shell that ends when `done()`; the shell, and seconds that it ran."
    engine = Engine(load_bundle(small_bundle()))
    past = {symbol: table.iloc[-5:] for symbol, table in before().items()}
    engine.warm_up({symbol: past.get(symbol, past["SIM00"]) for symbol in symbols})
    lines, state = Lines(folder/"live.jsonl"), folder/"state"
    shell = Shell(engine, symbols, [lines], watch_of(symbols), state, exchange.address, FAST)
    shell.client.wait = 0.02
    async def run():
        stop = asyncio.Event()
        running, began = asyncio.create_task(shell.run(stop)), time.monotonic()
        while not done() and time.monotonic() < began + 120: await asyncio.sleep(0.02)
        stop.set()
        await running
        return time.monotonic() - began
    return shell, asyncio.run(run())


@pytest.mark.slow
def test_an_exchange_that_cuts_every_line_is_not_run_over(tmp_path):
    "Waits between connections grow though each begins well, and REST goes on."
    with server(30, tick=0.1) as exchange:
        exchange.flaps = 10**6
        shell, seconds = run_until(exchange, tmp_path, lambda: lines_of(tmp_path) == 30*len(SYMBOLS))
    assert lines_of(tmp_path) == 30*len(SYMBOLS)
    assert 5 < exchange.counts["handshakes"] < 8 + seconds/(FAST.longest/2)


@pytest.mark.slow
def test_a_market_that_the_exchange_does_not_know_takes_no_other_with_it(tmp_path):
    with server(30, tick=0.1) as exchange:
        shell, _ = run_until(exchange, tmp_path, lambda: lines_of(tmp_path) >= 25*len(SYMBOLS),
                             [*SYMBOLS, "SIM09"])
        filled = sum(n for (what, _), n in shell.arrivals.counts.items() if what == "filled")
    assert filled <= 5*len(SYMBOLS) and exchange.counts["subscribe"] == 7*exchange.counts["handshakes"]
    assert {line["symbol"] for line in read_lines(tmp_path/"live.jsonl")} == {*SYMBOLS}


# as a process, killed

def process(exchange, folder, model=None):
    "`sslts live` on the exchange."
    names = {"--model": model or small_bundle(), "--state": folder/"state",
             "--sink": f"{folder/'live.jsonl'},{folder/'live.parquet'},{folder/'live.ledger'}",
             "--store": folder/"store", "--bybit-url": exchange.address, "--history": len(before()["SIM00"])}
    command = [sys.executable, "-m", "sslts_nb.cli", "live", ",".join(SYMBOLS)]
    command += [str(word) for pair in names.items() for word in pair]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with open(folder/"said", "a") as said:
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=said, stderr=said)


def lines_of(folder):
    return (folder/"live.jsonl").read_bytes().count(b"\n") if (folder/"live.jsonl").exists() else 0


def kill_and_start(exchange, folder, kills, wanted, seed=0):
    "SIGKILL at drawn moments: while it starts, while it catches up, and when it has; then a clean end."
    draw, at, absent = np.random.default_rng(seed), [], len(SYMBOLS)*exchange.bars - wanted
    def closed(): return len(SYMBOLS)*((exchange.now - exchange.begin)//HOUR - 2) - absent
    def wait_for_it(begun):
        "After two seconds of bars that nobody hears: a busy machine may start it when all is over."
        if time.monotonic() > begun + 2: exchange.runs = exchange.counts["subscribe"] > connected
    for number in range(kills):
        connected, begun = exchange.counts["subscribe"], time.monotonic()
        running, there, until = process(exchange, folder), lines_of(folder), begun + 120
        while running.poll() is None and time.monotonic() < until:
            wait_for_it(begun)
            wanted_now = [-1, there, max(there, closed())][number % 3]
            if lines_of(folder) > wanted_now: break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, [4, 0.2, 2][number % 3]))
        assert running.poll() is None, (folder/"said").read_text()
        running.kill()
        running.wait()
        at.append(lines_of(folder))
    connected, begun = exchange.counts["subscribe"], time.monotonic()
    running = process(exchange, folder)
    while running.poll() is None and time.monotonic() < begun + 900:
        wait_for_it(begun)
        if lines_of(folder) >= wanted and exchange.counts["subscribe"] > connected: break
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0, (folder/"said").read_text()
    return at


@pytest.mark.slow
def test_killed_it_goes_on(tmp_path):
    "The lines of a shell that was killed are those of batch, each once; so are its parquet files."
    with server(40, holes=2, tick=0.3) as exchange:
        wanted = played(exchange, 2)
        assert kill_and_start(exchange, tmp_path, 3, wanted)[-1] < wanted
    assert differences(exchange, tmp_path, 2) == []
    named = lambda rows: sorted((row["symbol"], row["start"]) for row in rows)
    table = pd.read_parquet(tmp_path/"live.parquet")
    assert named(table.to_dict("records")) == named(read_lines(tmp_path/"live.jsonl"))


def until(running, folder, lines):
    "Wait for so many lines."
    ends = time.monotonic() + 300
    while lines_of(folder) < lines and running.poll() is None and time.monotonic() < ends: time.sleep(0.02)
    assert running.poll() is None, (folder/"said").read_text()


@pytest.mark.slow
def test_another_bundle_takes_over(tmp_path):
    "A shelf is followed while the shell runs, and over a kill; each line is as its bundle says in batch."
    small, shelf = load_bundle(small_bundle()), Shelf(tmp_path/"shelf")
    other = replace(small, about=small.about | {"name": "other"},
                    arrays=small.arrays | {"volatility_offsets": small.arrays["volatility_offsets"] + 0.1})
    for bundle in (small, other): shelf.add(bundle)
    shelf.swap("small", "first")
    with server(40, tick=0.4) as exchange:
        running = process(exchange, tmp_path, shelf.folder)
        until(running, tmp_path, 30)
        shelf.swap("other", "a test")
        until(running, tmp_path, 100)
        running.kill()
        running.wait()
        shelf.back()
        running = process(exchange, tmp_path, shelf.folder)
        until(running, tmp_path, 40*len(SYMBOLS))
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0, (tmp_path/"said").read_text()
    lines = [*read_lines(tmp_path/"live.jsonl")]
    assert len(lines) == 40*len(SYMBOLS)
    for bundle in (small, other): assert not len(check_decisions(lines, until_end(exchange, 0), bundle))
    for symbol in SYMBOLS:
        names = [line["bundle"] for line in lines if line["symbol"] == symbol]
        assert [name for name, _ in groupby(names)] == ["small", "other", "small"]
    record = read_ledger(tmp_path/"live.ledger")
    assert record.bundles == ("small", "other", "small")
    assert {symbol: len(table) for symbol, table in record.forecasts.items()} == dict.fromkeys(SYMBOLS, 40)


# the end

def idle(folder):
    "A shell that is told nothing and asks nobody."
    engine = Engine(load_bundle(small_bundle()))
    engine.warm_up(before())
    shell = Shell(engine, SYMBOLS, [], watch_of(), folder/"state", "http://127.0.0.1:9")
    shell.sure_until = float("inf")   # of the time
    return shell


def test_an_end_that_comes_with_a_wake_is_not_missed(tmp_path):
    "`sslts live` had gone on for ever: `asyncio.wait_for` of Python 3.11 returns in place of ending then."
    async def ended():
        shell = idle(tmp_path)
        task = asyncio.create_task(shell.refill())
        await asyncio.sleep(0.01)   # it waits for a wake
        shell.wake.set()
        task.cancel()
        return await asyncio.wait([task], timeout=10)
    done, pending = asyncio.run(ended())
    assert not pending and done.pop().cancelled()


def test_a_task_that_misses_its_end_is_asked_again(tmp_path):
    async def ended():
        stop, shell, missed = asyncio.Event(), idle(tmp_path), []
        async def deaf():
            while True:
                try: await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    missed.append(1)
                    if len(missed) > 1: raise
        asyncio.get_running_loop().call_later(0.1, stop.set)
        async with asyncio.timeout(30): await shell.run(stop, deaf())
        return len(missed)
    assert asyncio.run(ended()) == 2


# memory

def steady(folder, bars, parts):
    "Bytes of this process, after each of so many parts of the bars that are pushed and decided."
    draw, last = np.random.default_rng(0), {symbol: table.iloc[-1] for symbol, table in before().items()}
    engine, start = Engine(load_bundle(small_bundle())), int(BEGIN.timestamp()*1000)
    engine.warm_up(before())
    lines, state = Lines(folder/"live.jsonl"), folder/"state"
    shell = Shell(engine, SYMBOLS, [lines], watch_of(), state, "http://127.0.0.1:9")
    close, sizes = {symbol: one.close for symbol, one in last.items()}, []
    for number in range(bars//len(SYMBOLS)):
        at = start + number*HOUR
        for _ in range(2): shell.arrivals.tell_time(at + HOUR)
        for symbol in SYMBOLS:
            opened, close[symbol] = close[symbol], close[symbol]*np.exp(0.01*draw.standard_normal())
            prices = dict(open=opened, close=close[symbol], high=max(opened, close[symbol])*1.001,
                          low=min(opened, close[symbol])*0.999, volume=draw.random())
            row = {name: repr(float(value)) for name, value in prices.items()} | {
                "start": at, "end": at + HOUR - 1, "interval": "60"}
            for confirm in (False, True, True):
                shell.heard(text_of(f"kline.60.{symbol}", [row | {"confirm": confirm}], at + HOUR))
            shell.heard(text_of(f"kline.60.{symbol}", [row | {"close": "NaN", "confirm": True}], at + HOUR))
        shell.decide()
        if (number + 1) % (bars//len(SYMBOLS)//parts) == 0:
            gc.collect()
            sizes.append(resident())
    assert lines_of(folder) == bars//len(SYMBOLS)*len(SYMBOLS)
    return sizes


def resident():
    "Bytes of this process that are in memory."
    return int(Path("/proc/self/statm").read_text().split()[1])*os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_stays(tmp_path):
    "Each thousand bars would take two megabytes if they were kept."
    *_, before_that, last = steady(tmp_path, 3000, 3)
    assert last - before_that < 500_000


# at length

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"bars": 2000, "faults": 0, "kills": 0, "seed": 0, "holes": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", type=int, default=0, help="so many bars without an exchange")
    parser.add_argument("--tick", type=float, default=0.2, help="seconds a bar")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if given.memory: return print("MB:", *(round(size/2**20, 1) for size in steady(folder, given.memory, 20)))
    faults = drawn_faults(given.seed, given.faults, given.bars - 30, SYMBOLS)
    print(f"{folder}: {given}; {small_bundle()}", flush=True)
    with server(given.bars, faults, given.holes, tick=given.tick, seed=given.seed) as exchange:
        wanted, began, when = played(exchange, given.holes), time.monotonic(), []
        if given.kills: print("lines when killed:", kill_and_start(exchange, folder, given.kills, wanted))
        else: watch, when = run_shell(exchange, folder, given.holes)
        print(f"{time.monotonic() - began:.0f} s; {dict(exchange.counts)}")
    apart, befallen = differences(exchange, folder, given.holes, when), exchange.befallen()
    print(f"{lines_of(folder):,} lines, {wanted:,} bars; {len(apart)} differences {apart[:5]}; "
          f"{sum(befallen.values())} faults of {len(befallen)} kinds; connections {exchange.most_links}")
    if not when: return
    late = [at/HOUR - pd.Timestamp(one["start"]).value/10**6/HOUR - 1 for one, at in when]
    counts = {what: sum(n for (name, _), n in watch.counts.items() if name == what)
              for what, _ in watch.counts}
    print(f"{counts}\nbars from a bar's end to its decision, quantiles of 50, 90, 99, 100 %: "
          f"{np.quantile(late, [0.5, 0.9, 0.99, 1]).round(2)}")


if __name__ == "__main__": main()

"""A local exchange that speaks Bybit v5 live, REST and websocket on one port, and fails on purpose.

It plays given candles on a clock of its own: `tick` seconds of ours are one bar. Faults are drawn from a
seed; each is logged when it befalls. What REST says of a closed bar is the truth, on a day without faults.
"""
import asyncio, heapq, json, socket, struct, threading, time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace

import numpy as np
from aiohttp import WSMsgType, web

from bybit_server import COLUMNS, STEPS, Handler, instrument
from hostile_frames import FRAMES, Raw, text_of

YEAR = 366*86_400_000
ENDED = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


LINKS = ["cut", "reset", "half-open", "handshake 500", "handshake 403", "handshake hangs",
         "subscription unanswered", "subscription refused", "no pong", "flapping", "replayed"]
BARS = ["duplicate", "late duplicate", "reordered", "delayed", "dropped", "several dropped",
        "dropped everywhere", "silence", "open bars dropped", "early confirm", "early confirm only",
        "early confirm, ts far ahead", "next bar confirmed", "correction", "two bars", "two bars, backwards",
        "one bar twice", "open after confirm", "ts far ahead"]
RESTS = ["REST 500", "REST 502", "REST slow", "REST busy", "REST torn", "REST cut", "REST HTML", "REST lag",
         "REST stale"]
KINDS = [*LINKS, *BARS, *RESTS, *FRAMES]


@dataclass
class Fault:
    "Something that goes wrong in the bar of this number, or in the first one after it where it can."
    kind: str
    bar: int
    symbol: str
    befell: int = 0              # milliseconds of the exchange; 0: not yet


def drawn_faults(seed, n, bars, symbols, kinds=KINDS):
    "`n` faults in `bars` bars; no kind comes a second time before each has come once."
    draw = np.random.default_rng(seed)
    drawn = [kind for _ in range(0, n, len(kinds)) for kind in draw.permutation(kinds)][:n]
    return [Fault(str(kind), int(draw.integers(1, bars)), str(draw.choice(symbols))) for kind in drawn]


@dataclass
class Push:
    "A frame, or something done, at a time of the exchange."
    at: int
    frame: object = ""           # str, bytes or Raw
    symbol: str = ""             # empty: for everybody
    gives: int = 0               # the bar that it confirms
    corrects: int = 0            # only for who had the confirm of this bar
    faults: list = field(default_factory=list)
    act: object = None           # called instead


class Link:
    "One connection of a client."
    def __init__(self, socket, request):
        self.socket, self.request, self.queue = socket, request, asyncio.Queue()
        self.topics, self.gave, self.silent = set(), set(), False

    def reset(self):
        "The connection is gone, and nobody has said so."
        transport = self.request.transport
        if transport is None: return
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


class StreamServer:
    "Plays `bars` bars of `candles` from `begin` on when somebody subscribes; then its clock stands."
    def __init__(self, candles, begin, bars, tick=0.1, faults=(), seed=0, slow=1., interval="60"):
        self.interval, self.step, self.tick, self.slow = interval, STEPS[interval], tick, slow
        self.begin, self.bars = int(begin.timestamp()*1000), bars
        self.market = {symbol: self._read(table) for symbol, table in candles.items()}
        self.instruments = {symbol: instrument(symbol, times[0])
                            for symbol, (times, _) in self.market.items()}
        self.faults, self.plan, self.draw = list(faults), defaultdict(list), np.random.default_rng(seed)
        for fault in self.faults: self.plan[fault.bar].append(fault)
        self.passed, self.runs = 0., False   # seconds of ours that the clock has run
        self.order, self.heap = count(), []
        self.links, self.most_links, self.counts = set(), 0, Counter()
        self.refusals, self.flaps, self.rest_faults = [], 0, []
        self.pings_ignored, self.replay, self.unanswered, self.refused = 0, False, [], []
        self.held, self.mute, self.still, self.closed_only = {}, {}, {}, {}
        self.lag_until, self.lag, self.lag_shown = 0, 0, True

    def _read(self, table):
        "Times in milliseconds and numbers with turnover."
        table = table.assign(turnover=table.volume*table.close) if "turnover" not in table else table
        return table.index.as_unit("ms").asi8, table[COLUMNS].to_numpy(float)

    # the clock and the truth

    @property
    def now(self):
        "The exchange's time in milliseconds."
        return min(self.begin + int(self.passed/self.tick*self.step), self.end)

    @property
    def end(self): return self.begin + self.bars*self.step + self.step//2

    def seen(self, symbol, at):
        "Times and numbers of the bars of a symbol at a time; the last one may be open."
        times, values = self.market[symbol]
        n = np.searchsorted(times, at, side="right")
        times, values = times[:n], values[:n]
        share = (at - times[-1])/self.step if n else 1
        if share >= 1: return times, values
        opened, high, low, close, volume, turnover = values[-1]
        now = opened + (close - opened)*share
        top, bottom = max(opened, now), min(opened, now)
        numbers = [opened, top + (high - max(opened, close))*share, bottom - (min(opened, close) - low)*share,
                   now, volume*share, turnover*share]
        return times, np.vstack([values[:-1], numbers])

    def row(self, symbol, start, at):
        "A bar as the websocket shows it at a time."
        times, values = self.market[symbol]
        where = np.searchsorted(times, start)
        if where == len(times) or times[where] != start: return None
        numbers = values[where] if at >= start + self.step else self.seen(symbol, at)[1][-1]
        row = dict(zip(COLUMNS, map(repr, numbers.tolist())))
        return {"start": int(start), "end": int(start) + self.step - 1, "interval": self.interval, **row,
                "confirm": False, "timestamp": int(at)}

    def topic(self, symbol): return f"kline.{self.interval}.{symbol}"

    def push(self, symbol, row, at, **more):
        "A push of one row."
        return Push(int(at), text_of(self.topic(symbol), [row], int(at)), symbol, **more)

    # what is sent about one bar

    def bar(self, symbol, start):
        "Its pushes when nothing goes wrong: some while it is open, then the confirm."
        if self.row(symbol, start, start) is None: return []
        late, end = int(self.step*self.draw.uniform(0.005, 0.03)), start + self.step
        at = [start + int(self.step*share) + late for share in (0.1, 0.35, 0.6, 0.85)]
        pushes = [self.push(symbol, self.row(symbol, start, when), when) for when in at]
        confirm = self.row(symbol, start, end) | {"confirm": True}
        return [*pushes, self.push(symbol, confirm, end + late, gives=start)]

    def spoil(self, fault, start, pushes):
        "Let a fault befall a bar; False where it cannot, since nobody listens or the bar does not exist."
        symbol = fault.symbol
        if not any(self.topic(symbol) in link.topics for link in self.heard()): return False
        if fault.kind in LINKS:
            at = start + int(self.step*self.draw.uniform(0.05, 0.95))
            pushes[symbol].append(Push(at, act=lambda: self.hurt(fault, at)))
        elif fault.kind in FRAMES: self.hostile(fault, start, pushes[symbol])
        elif fault.kind in RESTS: self.ill(fault, start, pushes[symbol])
        else: getattr(self, "_" + fault.kind.replace(",", "").replace(" ", "_"))(fault, start, pushes)
        return True

    def hostile(self, fault, start, pushes):
        "A frame beside the confirm or in its place, with numbers that are not the bar's."
        confirm = pushes[-1]
        row = self.row(fault.symbol, start, start + self.step) | {"confirm": True}
        row |= {name: repr(float(row[name])*1.5) for name in COLUMNS}
        frame = FRAMES[fault.kind](self.topic(fault.symbol), row, confirm.at, self.step)
        if self.draw.random() < 0.5: pushes.pop()
        pushes.append(Push(confirm.at - 1, frame, fault.symbol, faults=[fault]))

    def ill(self, fault, start, pushes):
        "REST fails, and a confirm does not come, so that REST is asked."
        pushes.pop()
        if fault.kind not in ("REST lag", "REST stale"): return self.rest_faults.append(fault)
        fault.befell = start
        self.lag, self.lag_shown = int(self.step*self.draw.uniform(0.2, 3)), fault.kind == "REST lag"
        self.lag_until = start + 3*self.step + self.lag

    def _duplicate(self, fault, start, pushes):
        confirm = pushes[fault.symbol][-1]
        for _ in range(self.draw.integers(1, 5)):
            at = confirm.at + int(self.step*self.draw.uniform(0.01, 0.4))
            pushes[fault.symbol].append(Push(at, confirm.frame, fault.symbol, faults=[fault]))

    def _late_duplicate(self, fault, start, pushes):
        confirm = pushes[fault.symbol][-1]
        at = confirm.at + int(self.step*self.draw.uniform(2, 30))
        pushes[fault.symbol].append(Push(at, confirm.frame, fault.symbol, faults=[fault]))

    def _reordered(self, fault, start, pushes):
        confirm = pushes[fault.symbol][-1]
        confirm.at += int(1.1*self.step)
        confirm.faults.append(fault)

    def _delayed(self, fault, start, pushes):
        self.held[fault.symbol] = start + int(self.step*self.draw.uniform(0.5, 4))
        fault.befell = start

    def _dropped(self, fault, start, pushes):
        pushes[fault.symbol].pop()
        fault.befell = start

    def _several_dropped(self, fault, start, pushes):
        pushes[fault.symbol].pop()
        self.mute[fault.symbol] = start + self.step*int(self.draw.integers(2, 8))
        fault.befell = start

    def _dropped_everywhere(self, fault, start, pushes):
        for there in pushes.values():
            there[:] = [push for push in there if not push.gives or push.faults]
        fault.befell = start

    def _silence(self, fault, start, pushes):
        self.still[fault.symbol] = start + self.step*int(self.draw.integers(2, 6))
        fault.befell = start

    def _open_bars_dropped(self, fault, start, pushes):
        self.closed_only[fault.symbol] = start + self.step*int(self.draw.integers(2, 6))
        fault.befell = start

    def _early_confirm(self, fault, start, pushes, ahead=0):
        at = start + int(self.step*self.draw.uniform(0.2, 0.95))
        row = self.row(fault.symbol, start, at) | {"confirm": True}
        frame = text_of(self.topic(fault.symbol), [row], at + ahead)
        pushes[fault.symbol].insert(0, Push(at, frame, fault.symbol, faults=[fault]))

    def _early_confirm_only(self, fault, start, pushes):
        pushes[fault.symbol].pop()
        self._early_confirm(fault, start, pushes)

    def _early_confirm_ts_far_ahead(self, fault, start, pushes):
        self._early_confirm(fault, start, pushes, 10*YEAR)

    def _next_bar_confirmed(self, fault, start, pushes):
        at = start + self.step//2
        row = self.row(fault.symbol, start, at) | {"confirm": True, "start": start + self.step,
                                                   "end": start + 2*self.step - 1}
        pushes[fault.symbol].insert(0, self.push(fault.symbol, row, at, faults=[fault]))

    def _correction(self, fault, start, pushes):
        confirm = pushes[fault.symbol][-1]
        row = self.row(fault.symbol, start, start + self.step) | {"confirm": True}
        row |= {name: repr(float(row[name])*1.25) for name in COLUMNS}
        at = confirm.at + int(self.step*self.draw.uniform(0.05, 3))
        pushes[fault.symbol].append(self.push(fault.symbol, row, at, corrects=start, faults=[fault]))

    def _two_bars(self, fault, start, pushes, backwards=False):
        confirm, symbol, at = pushes[fault.symbol][-1], fault.symbol, pushes[fault.symbol][-1].at
        rows = json.loads(confirm.frame)["data"] + [self.row(symbol, start + self.step, at)]
        rows = [row for row in rows if row]
        confirm.frame = text_of(self.topic(symbol), rows[::-1] if backwards else rows, at)
        confirm.faults.append(fault)

    def _two_bars_backwards(self, fault, start, pushes): self._two_bars(fault, start, pushes, True)

    def _one_bar_twice(self, fault, start, pushes):
        confirm = pushes[fault.symbol][-1]
        confirm.frame = text_of(self.topic(fault.symbol), json.loads(confirm.frame)["data"]*2, confirm.at)
        confirm.faults.append(fault)

    def _open_after_confirm(self, fault, start, pushes):
        row, at = self.row(fault.symbol, start, start + self.step//2), pushes[fault.symbol][-1].at
        pushes[fault.symbol].append(self.push(fault.symbol, row, at + self.step//50, faults=[fault]))

    def _ts_far_ahead(self, fault, start, pushes):
        at = start + self.step//2
        frame = text_of(self.topic(fault.symbol), [self.row(fault.symbol, start, at)], at + 10*YEAR)
        pushes[fault.symbol].insert(0, Push(at, frame, fault.symbol, faults=[fault]))

    # connections

    def heard(self): return [link for link in self.links if not link.silent and not link.socket.closed]

    def hurt(self, fault, at):
        "A fault of the connection; put off while nobody is there."
        links = [link for link in self.heard() if link.topics]
        if not links: return self.put_off(fault)
        fault.befell, kind = at, fault.kind
        if kind == "no pong": self.pings_ignored += 2; return
        if kind == "half-open":
            for link in links: link.silent = True
            return
        if kind.startswith("handshake"):
            self.refusals += [kind.split()[1]]*int(self.draw.integers(1, 3))
        if kind == "subscription unanswered": self.unanswered.append(fault)
        if kind == "subscription refused": self.refused.append(fault)
        if kind == "flapping": self.flaps += 2
        if kind == "replayed": self.replay = True
        for link in links:
            if kind in ("cut", "replayed", "handshake 500"): asyncio.ensure_future(link.socket.close())
            else: link.reset()

    def put_off(self, fault): self.plan[(self.now - self.begin)//self.step + 1].append(fault)

    def send(self, push):
        "To everybody who has subscribed."
        if push.act: return push.act()
        links = [link for link in self.heard() if self.topic(push.symbol) in link.topics]
        self.most_links = max(self.most_links, len(links))
        if push.corrects: links = [link for link in links if (push.symbol, push.corrects) in link.gave]
        for link in links:
            link.queue.put_nowait(push.frame)
            if push.gives: link.gave.add((push.symbol, push.gives))
        for fault in push.faults:
            if links: fault.befell = fault.befell or push.at
            elif not fault.befell: self.put_off(fault)

    async def _write(self, link):
        while True:
            frame = await link.queue.get()
            if link.silent: continue
            try:
                self.counts["frames"] += 1
                if isinstance(frame, Raw): link.request.transport.write(frame)
                elif isinstance(frame, bytes): await link.socket.send_bytes(frame)
                else: await link.socket.send_str(frame)
            except (ConnectionError, RuntimeError, AttributeError): return    # the client has left

    async def _socket(self, request):
        "One websocket, from the handshake to its end."
        self.counts["handshakes"] += 1
        if self.refusals:
            status = self.refusals.pop(0)
            if status == "hangs": await self._pause(self.slow)
            return web.Response(status=500 if status == "hangs" else int(status), text="<html>no</html>")
        ws = web.WebSocketResponse(autoping=False, autoclose=False)
        await ws.prepare(request)
        link = Link(ws, request)
        self.links.add(link)
        writer = asyncio.ensure_future(self._write(link))
        try:
            while (message := await ws.receive()).type not in ENDED or link.silent:
                if link.silent: await self.stopped.wait()
                elif message.type is WSMsgType.PING: await ws.pong(message.data)
                elif message.type is WSMsgType.TEXT: self._take(link, json.loads(message.data))
                if self.stopped.is_set(): break
            if not ws.closed and not link.silent: await ws.close()
        finally:
            writer.cancel()
            self.links.discard(link)
        return ws

    def _take(self, link, given):
        "A request of the client."
        answer = {"success": True, "ret_msg": "", "conn_id": "local", "op": given.get("op")}
        if "req_id" in given: answer["req_id"] = given["req_id"]
        self.counts[given.get("op")] += 1
        if given.get("op") == "ping":
            answer["ret_msg"] = "pong"
            if self.pings_ignored: self.pings_ignored -= 1; return
        elif given.get("op") == "subscribe": return self._subscribe(link, answer, given["args"])
        else: answer |= {"success": False, "ret_msg": "unknown op"}
        link.queue.put_nowait(json.dumps(answer))

    def _subscribe(self, link, answer, topics):
        known = {self.topic(symbol): symbol for symbol in self.market}
        if self.unanswered: return self.unanswered.pop()
        strange = [topic for topic in topics if topic not in known]
        strange += [topics[-1]] if self.refused and self.refused.pop() else []
        if strange or sum(map(len, topics)) > 21_000:
            answer |= {"success": False, "ret_msg": f"error:handler not found,topic:{strange[:1]}"}
            return link.queue.put_nowait(json.dumps(answer))
        link.topics |= set(topics)
        self.runs = True
        link.queue.put_nowait(json.dumps(answer))
        for topic in topics: self._greet(link, known[topic])
        if self.flaps: self.flaps -= 1; link.reset()
        self.replay = False

    def _greet(self, link, symbol):
        "The open bar at once; after the fault `replayed` the last three closed ones before it."
        at = self.now
        open_bar = at - at % self.step
        for start in [open_bar - back*self.step for back in (3, 2, 1)] if self.replay else []:
            if row := self.row(symbol, start, at):
                link.queue.put_nowait(text_of(self.topic(symbol), [row | {"confirm": True}], at))
        if row := self.row(symbol, open_bar, at):
            link.queue.put_nowait(text_of(self.topic(symbol), [row], at))

    # REST

    async def _rest(self, request):
        route, fault = request.path.removeprefix("/v5/market/"), None
        self.counts[route] += 1
        if route == "kline" and self.rest_faults: (fault := self.rest_faults.pop(0)).befell = self.now
        lags = route == "kline" and self.now < self.lag_until
        at = self.now - self.lag if lags else self.now
        result = self._result(route, dict(request.query), at)
        code, result = (result, {}) if isinstance(result, int) else (0, result)
        answer = {"retCode": code, "retMsg": "refused" if code else "OK", "result": result, "retExtInfo": {},
                  "time": at if self.lag_shown else self.now}
        return web.json_response(answer) if fault is None else await self._fail(fault.kind, answer, request)

    def _result(self, route, params, at):
        "What is asked for, or the code of a refusal."
        if route == "time": return {"timeSecond": str(at//1000), "timeNano": str(at*10**6)}
        symbol = params.get("symbol")
        bars = {(symbol, self.interval): self.seen(symbol, at)} if symbol in self.market else {}
        then = SimpleNamespace(bars=bars, instruments=self.instruments, now=at, instrument_page=1000)
        ask = {"kline": Handler.kline, "instruments-info": Handler.instruments}.get(route)
        return ask(SimpleNamespace(server=then), params) if ask else 10017

    async def _fail(self, kind, answer, request):
        if kind == "REST slow": await self._pause(self.slow)
        if kind == "REST busy":
            answer = answer | {"retCode": 10006, "retMsg": "Too many visits", "result": {}}
        if kind == "REST cut":
            request.transport.abort()
            return web.Response()
        text = "<html>no</html>" if kind in ("REST HTML", "REST 500", "REST 502") else json.dumps(answer)
        status = int(kind[-3:]) if kind in ("REST 500", "REST 502") else 200
        return web.Response(text=text[:-len(text)//3] if kind == "REST torn" else text, status=status)

    async def _pause(self, seconds):
        with suppress(TimeoutError):   # `wait_for` may miss an end in Python 3.11
            async with asyncio.timeout(seconds): await self.stopped.wait()

    # the play

    async def _run_clock(self):
        "It waits where this machine is too busy to keep up."
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            before, passed = (now := time.monotonic()), now - before
            if self.runs: self.passed += min(passed, 0.005)

    async def _play(self):
        for number in range(self.bars + 1):              # of the last one only a half
            start = self.begin + number*self.step
            await self._until(start)
            for push in self._bar_with_faults(number, start): self._put(push)
            while self.heap and self.heap[0][0] < min(start + self.step, self.end): await self._next()

    async def _next(self):
        at, _, push = heapq.heappop(self.heap)
        await self._until(at)
        self.send(push)

    def _put(self, push):
        "In the order of time; what is held back comes later, in its order."
        at = max(push.at, self.held.get(push.symbol, 0))
        heapq.heappush(self.heap, (at, next(self.order), push))

    def _bar_with_faults(self, number, start):
        pushes = {symbol: self.bar(symbol, start) for symbol in self.market}
        for symbol, there in pushes.items():
            if there and start < self.mute.get(symbol, 0): there.pop()
            if there and start < self.closed_only.get(symbol, 0): del there[:-1]
            if start < self.still.get(symbol, 0): there.clear()
        for fault in self.plan.pop(number, []):
            *_, last = pushes[fault.symbol] or [Push(0)]
            whole = last.gives and not last.faults      # no other fault is in the way
            if not (whole and self.spoil(fault, start, pushes)): self.plan[number + 1].append(fault)
        return sorted(sum(pushes.values(), []), key=lambda push: push.at)

    async def _until(self, at):
        while not self.runs or self.now < at:
            await asyncio.sleep(max((at - self.now)/self.step*self.tick, 0.002))

    async def _serve(self):
        self.stopped, self.loop = asyncio.Event(), asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/v5/public/linear", self._socket)
        app.router.add_get("/v5/market/{tail:.*}", self._rest)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.stream = f"ws://127.0.0.1:{self.port}/v5/public/linear"
        self.ready.set()
        play, clock = asyncio.ensure_future(self._play()), asyncio.ensure_future(self._run_clock())
        try: await self.stopped.wait()
        finally:
            play.cancel(), clock.cancel()
            for link in [*self.links]: link.reset()
            await runner.cleanup()
        await asyncio.gather(play, return_exceptions=True)
        self.failure = None if play.cancelled() else play.exception()

    def __enter__(self):
        self.ready = threading.Event()
        self.thread = threading.Thread(target=asyncio.run, args=[self._serve()], daemon=True)
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(10)
        if self.failure: raise self.failure

    # afterwards

    def befallen(self):
        "How often each kind of fault has taken effect."
        return Counter(fault.kind for fault in self.faults if fault.befell)

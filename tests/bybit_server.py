"""A local exchange that speaks Bybit v5 over HTTP/1.1, replays candles, counts requests, fails on purpose.

In a process of its own: `python tests/bybit_server.py --symbols 50 --bars 8760` prints its port
and ends with its stdin.
"""
import argparse, gzip, json, socket, subprocess, sys, threading, time
from collections import Counter
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np, pandas as pd

COLUMNS = ["open", "high", "low", "close", "volume", "turnover"]
DAY = 86_400_000
MINUTES = (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)
# at most, of M
STEPS = {str(minutes): minutes*60_000 for minutes in MINUTES} | {"D": DAY, "W": 7*DAY, "M": 31*DAY}


# the market; the grid is written here again, so that a mistake in the package's own does not answer itself

def opens(interval, bars, last):
    "When the `bars` bars up to the one that holds `last` open, all in epoch milliseconds."
    if interval == "M":
        month = np.datetime64(int(last), "ms").astype("datetime64[M]")
        return (month - np.arange(bars)[::-1]).astype("datetime64[ms]").astype("int64")
    monday = 4*DAY if interval == "W" else 0            # the first of January 1970 was a Thursday
    return last - (last - monday) % STEPS[interval] - STEPS[interval]*np.arange(bars)[::-1]


def closes_at(index, interval):
    "When bars that open at `index` close."
    return index + (pd.offsets.MonthBegin() if interval == "M"
                    else pd.Timedelta(milliseconds=STEPS[interval]))


def make_candles(symbol, interval, bars, now, seed=0, holes=0):
    "Consistent bars with real holes, the last open at `now` (epoch milliseconds), as the store has them."
    draw = np.random.default_rng([seed, *symbol.encode()])
    close = np.maximum(100*np.exp(np.cumsum(0.01*draw.standard_normal(bars))), 0.5)
    close[1::97] = close[:-1:97]                        # bars without a trade repeat the close before
    opened = np.concatenate([[100.], close[:-1]])
    high = np.maximum(opened, close)*(1 + 0.01*draw.random(bars))
    low = np.minimum(opened, close)*(1 - 0.01*draw.random(bars))
    volume = draw.lognormal(3, 1, bars)
    high[1::97], low[1::97], volume[1::97] = close[1::97], close[1::97], 0
    values = np.column_stack([opened, high, low, close]).round(2)
    values[:, 1], values[:, 2] = values.max(axis=1), values.min(axis=1)
    values = np.column_stack([values, volume.round(3), (volume.round(3)*values[:, 3]).round(4)])
    keep = np.ones(bars, bool)
    keep[1 + draw.choice(bars - 2, holes, replace=False)] = False
    return as_frame(opens(interval, bars, now)[keep], values[keep], symbol, interval)


def as_frame(times, values, symbol, interval):
    "A table in the form that the store reads."
    moments = np.asarray(times, "int64").astype("datetime64[ms]")
    table = pd.DataFrame(values, pd.DatetimeIndex(moments, tz="UTC", name="timestamp"), COLUMNS)
    table.attrs = {"symbol": symbol, "interval": interval, "source": "bybit"}
    return table


def closed(candles, now, start=None, end=None):
    "What a client may have of `candles` at `now`: the closed bars that open from `start` to before `end`."
    closes = closes_at(candles.index, candles.attrs["interval"])
    table = candles[closes <= pd.Timestamp(now, unit="ms", tz="UTC")]
    table = table[(table.index >= start) if start is not None else slice(None)]
    return table[(table.index < end) if end is not None else slice(None)]


# what goes wrong: changes of the rows of a page, changes of the answer around them, and of how it is sent

def _changed(column, text):
    "Another text in the middle row."
    return lambda rows: [[*row[:column], text, *row[column + 1:]] if n == len(rows)//2 else row
                         for n, row in enumerate(rows)]

def _moved(step):
    "The first row, which is the newest, at another time."
    return lambda rows: [[str(int(row[0]) + step), *row[1:]] for row in rows[:1]] + rows[1:]

ROWS = {
    "equal rows": lambda rows: (rows + rows)[:1000], "disordered": lambda rows: rows[::2] + rows[1::2],
    "conflicting rows": lambda rows: rows[1:] + [[*row[:5], "12345.0", row[6]] for row in rows[-1:]],
    "NaN": _changed(4, "NaN"), "Infinity": _changed(2, "Infinity"), "infinite volume": _changed(5, "1e999"),
    "negative": _changed(3, "-5.0"), "zero": _changed(3, "0"),
    "text": _changed(1, "<b>\n\x1b[31m"), "empty text": _changed(4, ""), "null": _changed(4, None),
    "no time of a bar": _changed(0, "soon"), "time of no bar": _changed(0, "9"*30),
    "negative volume": _changed(5, "-1"), "high below low": _changed(2, "0.001"),
    "short rows": lambda rows: [row[:5] for row in rows],
    "long rows": lambda rows: [[*row, "1"] for row in rows],
    "one short row": lambda rows: rows[:-1] + [row[:3] for row in rows[-1:]],
    "rows are numbers": lambda rows: [1]*len(rows), "rows are a dict": lambda rows: {"0": rows},
    "rows are null": lambda rows: None,
    "off the grid": _moved(1), "later than asked": _moved(5000*DAY), "earlier than asked": _moved(-5000*DAY),
    "too many rows": lambda rows: (rows*1001)[:1001]}
ANSWERS = {
    "list": lambda answer: [1, 2], "null answer": lambda answer: None,
    "no code": lambda answer: {k: v for k, v in answer.items() if k != "retCode"},
    "code is text": lambda answer: answer | {"retCode": "0"},
    "null result": lambda answer: answer | {"result": None},
    "no list": lambda answer: answer | {"result": {}},
    "no time": lambda answer: {k: v for k, v in answer.items() if k != "time"},
    "infinite time": lambda answer: answer | {"time": float("inf")},
    "clock ahead": lambda answer: answer | {"time": answer["time"] + 10**12},
    "other symbol": lambda answer: answer | {"result": answer["result"] | {"symbol": "OTHERUSDT"}}}
CODES = {"busy": 10006, "busy with headers": 10006, "timeout": 10000, "server error": 10016,
         "protection": 10429, "parameter": 10001, "route": 10017, "compliance": 10024, "unheard of": 99999}
STATUS = {"500": 500, "502": 502, "503": 503, "429": 429, "403": 403, "404": 404, "301": 301, "302": 302}
WIRE = ["cut before", "cut within", "cut within chunks", "truncated", "html", "deep", "slow", "drip"]
HARMLESS = ["equal rows", "disordered", "clock ahead", "gzip", "chunked"]    # the page is right all the same
# one row has its time, and wrong numbers
SPOILT = ["conflicting rows", "NaN", "Infinity", "infinite volume", "negative", "zero", "text", "empty text",
          "null", "negative volume", "high below low", "one short row"]
# a page in good order that lacks bars
WITHHOLDING = ["missing", "nothing", "clock behind"]
# no attempt follows these
FINAL = ["403", "404", "301", "302", "parameter", "route", "compliance", "unheard of", "too long",
         "gzip bomb"]
RETRIED = [name for name in [*ROWS, *ANSWERS, *CODES, *STATUS, *WIRE] if name not in HARMLESS + FINAL]
FAULTS = HARMLESS + WITHHOLDING + RETRIED + FINAL


@cache
def bomb(layers=1):
    "Two hundred megabytes of blanks, packed."
    body = b"".join(gzip.compress(b" "*2**20, 9) for _ in range(200))
    return body if layers == 1 else gzip.compress(body, 9)


class BybitServer(ThreadingHTTPServer):
    "Candles {(symbol, interval): table} with the open bar, seen at `now`; `faults` befall requests in turn."
    daemon_threads, request_queue_size = True, 128

    def __init__(self, candles=None, now=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.lock, self.stopped = threading.Lock(), threading.Event()
        # seconds; rows; bytes of "too long"
        self.slow, self.instrument_page, self.length = 0.3, 1000, 6*2**20
        self.load(candles or {}, now)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def load(self, candles, now=None, faults=(), instruments=None, funding=None, instrument_faults=(),
             points=None):
        """Another market, nothing asked yet; `instruments`: own rows; `funding`: {symbol: [(time, rate)]};
        `points`: {(route, symbol): [(time, numbers ...)]} of open interest and of marks and indices."""
        with self.lock:
            self.now = int(time.time()*1000) if now is None else now
            self.bars = {key: (table.index.as_unit("ms").asi8, table[COLUMNS].to_numpy())
                         for key, table in candles.items()}
            first = {}
            for (symbol, _), (times, _) in self.bars.items():
                first[symbol] = min(first.get(symbol, times[0]), times[0])
            self.instruments = {symbol: instrument(symbol, launch) for symbol, launch in first.items()}
            self.instruments |= {row["symbol"]: row for row in instruments or []}
            self.funding = {symbol: sorted(payments) for symbol, payments in (funding or {}).items()}
            self.points = {key: sorted(rows) for key, rows in (points or {}).items()}
            self.faults = {"kline": list(faults), "instruments-info": list(instrument_faults),
                           "funding/history": []}
            self.withheld = Counter()
            self.counts, self.log = Counter(), []

    def asked(self, route="kline"):
        "The parameters of the requests for bars, in the order in which they came."
        with self.lock: return [params for path, params, _ in self.log if path == route]

    def __exit__(self, *error):
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *given): pass                # clients that hang up are part of the play


def instrument(symbol, launch, delivery=0, status="Trading", minutes=480):
    "A row of instruments-info."
    return {"symbol": symbol, "contractType": "LinearPerpetual", "status": status, "launchTime": str(launch),
            "deliveryTime": str(delivery),
            "priceFilter": {"tickSize": "0.10"}, "lotSizeFilter": {"qtyStep": "0.001"},
            "fundingInterval": minutes}


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    def log_message(self, *given): pass

    def do_GET(self):
        split = urlsplit(self.path)
        route, server = split.path.removeprefix("/v5/market/"), self.server
        params = dict(parse_qsl(split.query, keep_blank_values=True))
        if route == "/counts": return self.send(json.dumps(server.counts).encode())
        with server.lock:
            server.counts[route] += 1
            server.log.append((route, params, time.monotonic()))
            fault = server.faults[route].pop(0) if server.faults.get(route) else None
        result, code = {"kline": self.kline, "time": lambda p: {}, "instruments-info": self.instruments,
                        "funding/history": self.funding, "open-interest": self.interest,
                        "mark-price-kline": lambda p: self.marks(p, route),
                        "index-price-kline": lambda p: self.marks(p, route)
                        }.get(route, lambda p: 10017)(params), 0
        if isinstance(result, int): result, code = {}, result
        answer = {"retCode": code, "retMsg": "refused" if code else "OK", "result": result, "retExtInfo": {},
                  "time": server.now}
        try: self.answer(answer) if fault is None or code else self.fail(fault, answer)
        except OSError: self.close_connection = True    # the client hung up

    # what is asked for: a result, or the code of a refusal

    def kline(self, params):
        server, symbol, interval = self.server, params.get("symbol"), params.get("interval")
        if params.get("category") != "linear" or symbol not in server.instruments or interval not in STEPS:
            return 10001
        try:
            defaults = {"start": 0, "end": server.now, "limit": 200}
            start, end, limit = (int(params.get(name, default)) for name, default in defaults.items())
        except ValueError: return 10001
        if not 1 <= limit <= 1000 or start > end: return 10001
        times, values = server.bars.get((symbol, interval), (np.empty(0, "int64"), np.empty((0, 6))))
        first = np.searchsorted(times, opens(interval, 1, start)[0])
        last = np.searchsorted(times, min(end, server.now), side="right")
        at = slice(max(first, last - limit), last)      # the newest if there are more
        return {"symbol": symbol, "category": "linear",
                "list": [[str(begin), *map(repr, row)]
                         for begin, row in zip(times[at].tolist(), values[at].tolist())][::-1]}

    def instruments(self, params):
        server, status = self.server, params.get("status", "Trading")
        if params.get("category") != "linear" or not 1 <= (limit := int(params.get("limit", 500))) <= 1000:
            return 10001
        rows = [row for _, row in sorted(server.instruments.items()) if row["status"] == status
                and params.get("symbol", row["symbol"]) == row["symbol"]]
        at, size = int(params.get("cursor", "page 0").split()[1]), min(limit, server.instrument_page)
        return {"category": "linear", "list": rows[at:at + size],
                "nextPageCursor": f"page {at + size}" if at + size < len(rows) else ""}

    def funding(self, params):
        defaults = {"startTime": 0, "endTime": self.server.now, "limit": 200}
        begin, end, limit = (int(params.get(name, default)) for name, default in defaults.items())
        half_open = "startTime" in params and "endTime" not in params
        unknown = params.get("symbol") not in self.server.instruments
        if unknown or half_open or not 1 <= limit <= 200: return 10001
        payments = [(at, rate) for at, rate in self.server.funding.get(params["symbol"], [])
                    if begin <= at <= end][-limit:][::-1]
        return {"category": "linear", "list": [{"symbol": params["symbol"], "fundingRate": repr(rate),
                                                "fundingRateTimestamp": str(at)} for at, rate in payments]}

    def asked_points(self, params, route, names, most):
        "The newest points of the period, newest first, and the cursor of the older ones; or a refusal."
        symbol = params.get("symbol")
        if params.get("category") != "linear" or symbol not in self.server.instruments: return 10001, ""
        begin, end, limit = (int(params.get(name, default))
                             for name, default in zip(names, (0, self.server.now, 50)))
        if not 1 <= limit <= most or begin > end: return 10001, ""
        rows = [row for row in self.server.points.get((route, symbol), [])
                if begin <= row[0] <= min(end, self.server.now)][::-1]
        at = int(params.get("cursor", "page 0").split()[1])
        return rows[at:at + limit], f"page {at + limit}" if at + limit < len(rows) else ""

    def interest(self, params):
        if params.get("intervalTime") not in ("5min", "15min", "30min", "1h", "4h", "1d"): return 10001
        rows, cursor = self.asked_points(params, "open-interest", ("startTime", "endTime", "limit"), 200)
        if isinstance(rows, int): return rows
        return {"symbol": params["symbol"], "category": "linear", "nextPageCursor": cursor,
                "list": [{"openInterest": repr(value), "timestamp": str(at)} for at, value in rows]}

    def marks(self, params, route):
        if params.get("interval") not in STEPS: return 10001
        rows, _ = self.asked_points(params, route, ("start", "end", "limit"), 1000)
        if isinstance(rows, int): return rows
        return {"symbol": params["symbol"], "category": "linear",
                "list": [[str(at), *map(repr, numbers)] for at, *numbers in rows]}

    # how it is answered

    def send(self, body, status=200, headers=(), length=None):
        self.send_response(status)
        for name, value in headers: self.send_header(name, value)
        if length != "chunked":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, answer): self.send(json.dumps(answer).encode())

    def chunks(self, body, end=b"0\r\n\r\n"):
        self.send(b"".join(b"%x\r\n%s\r\n" % (len(part), part)
                           for part in (body[:len(body)//3], body[len(body)//3:])
                           if part) + end, headers=[("Transfer-Encoding", "chunked")], length="chunked")

    def refuse(self, fault):
        headers = [("X-Bapi-Limit", "600"), ("X-Bapi-Limit-Status", "0"),
                   ("X-Bapi-Limit-Reset-Timestamp", str(int(time.time()*1000) + 30))]
        self.send(json.dumps({"retCode": CODES[fault], "retMsg": "Too many visits", "result": {},
                              "retExtInfo": {}, "time": self.server.now}).encode(),
                  headers=headers if fault == "busy with headers" else ())

    def fail(self, fault, answer):
        server, result = self.server, answer["result"]
        body, rows = json.dumps(answer).encode(), result["list"]
        if callable(fault): return fault(self, answer)  # a test's own
        if fault in WITHHOLDING: return self.answer(self.withheld(fault, answer))
        if fault in ROWS: return self.answer(answer | {"result": result | {"list": ROWS[fault](rows)}})
        if fault in ANSWERS: return self.answer(ANSWERS[fault](answer))
        if fault in CODES: return self.refuse(fault)
        if fault in STATUS:
            return self.send(b"<html>access too frequent</html>", STATUS[fault],
                             [("Location", f"{server.address}/elsewhere")])
        if fault == "gzip": return self.send(gzip.compress(body), headers=[("Content-Encoding", "gzip")])
        if fault == "chunked": return self.chunks(body)
        if fault == "cut before": return self.hang_up()
        if fault == "cut within": self.send(body[:len(body)//2], length=len(body)); return self.hang_up()
        if fault == "cut within chunks": self.chunks(body, end=b"ff\r\n"); return self.hang_up()
        if fault == "slow": server.stopped.wait(server.slow); return self.answer(answer)
        if fault == "drip": return self.drip(body)
        if fault == "too long":
            return self.pour(b'{"retCode": 0, "result": {"list": [', b'["1","1","1","1","1","1","1"],'*2000)
        if fault == "gzip bomb": return self.send(bomb(), headers=[("Content-Encoding", "gzip")])
        self.send({"truncated": body[:-len(body)//3], "html": b"<html></html>", "deep": b"["*100_000}[fault])

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def withheld(self, fault, answer):
        "The answer without some bars, none more than twice: absent three times counts as not existing."
        rows, server, symbol = answer["result"]["list"], self.server, answer["result"]["symbol"]
        with server.lock:
            free = [server.withheld[symbol, row[0]] < 2 for row in rows]
            if fault != "missing" and not all(free): return answer
            gone = {row[0] for n, row in enumerate(rows) if free[n]
                    and (fault != "missing" or (int(row[0])//STEPS["60"] + server.counts["kline"]) % 5 == 0)}
            server.withheld.update((symbol, start) for start in gone)
        # nothing was closed then
        if fault == "clock behind": return answer | {"time": int(min(gone, default="1"))}
        return answer | {"result": answer["result"] | {"list": [row for row in rows if row[0] not in gone]}}

    def drip(self, body, headers=True):
        "One byte now and then, for ever."
        if headers: self.send(body[:1], length=10**9)
        while not self.server.stopped.wait(0.02): self.wfile.write(b" ")

    def pour(self, begin, piece):
        "`length` bytes in chunks, made as they are sent."
        self.chunks(begin, end=b"")
        for _ in range(self.server.length//len(piece)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


# a process of its own

@contextmanager
def server_process(*arguments):
    "The address of a server in a process of its own; it ends with the block, or with the caller."
    with subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        try: yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally: process.stdin.close()


def recorded_candles(folder, interval="60"):
    "The recorded bars of a folder, for the benchmark only: {(symbol, interval): table}."
    found = {}
    for path in sorted(Path(folder).glob(f"*USDT-{interval}.parquet")):
        table = pd.read_parquet(path).set_index("timestamp")
        values = table.assign(turnover=table.volume*table.close)[COLUMNS].to_numpy()
        found[path.stem.split("-")[0],
              interval] = as_frame(table.index.as_unit("ms").asi8, values, path.stem.split("-")[0], interval)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=1, help="COIN00USDT and so on")
    parser.add_argument("--bars", type=int, default=8760, help="of each, the last one open now")
    parser.add_argument("--interval", default="60")
    parser.add_argument("--files", help="replay these recorded bars under the names of the symbols")
    given = parser.parse_args()
    recorded = [*recorded_candles(given.files, given.interval).values()] if given.files else []
    candles, names, now = {}, [f"COIN{number:02}USDT"
                               for number in range(given.symbols)], int(time.time()*1000)
    for number, name in enumerate(names):
        made = make_candles(name, given.interval, given.bars, now)
        if recorded:                                    # the recorded numbers on the bars up to now
            numbers = recorded[number % len(recorded)].to_numpy()
            made = as_frame(made.index.asi8, np.resize(numbers, (len(made), len(COLUMNS))), name,
                            given.interval)
        candles[name, given.interval] = made
    with BybitServer(candles, now) as server:
        print(server.server_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__": main()

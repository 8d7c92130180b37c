"""A local exchange that speaks Bybit v5 over HTTP, replays candles, counts what it is asked, and fails on purpose.

By itself: `python tests/exchange.py FOLDER` serves the files <SYMBOL>-60.parquet of a folder and prints its address.
"""
import gzip, json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import numpy as np, pandas as pd

HOUR = 3_600_000
FAULTS = ["500", "502", "429", "cut before", "cut within", "truncated", "html", "list", "no code", "null result", "short rows", "deep", "no time",
          "busy", "busy with headers", "server error", "twice", "conflicting", "missing", "disordered", "NaN", "Infinity", "negative", "text",
          "high below low", "off the grid", "other symbol", "outside", "too many", "skewed clock", "slow"]
FINAL = ["403", "10001", "10024", "404", "301", "too long", "gzip bomb"]  # no attempt follows these


def market(bars, seed, first="2023-01-01", holes=0):
    "Consistent hourly bars with real holes: an int64 array of opens and their rows of text, as the exchange sends them."
    draw = np.random.default_rng(seed)
    close = 100*np.exp(np.cumsum(0.01*draw.standard_normal(bars)))
    opened = np.concatenate([[100.], close[:-1]])
    high, low = np.maximum(opened, close)*(1 + 0.01*draw.random(bars)), np.minimum(opened, close)*(1 - 0.01*draw.random(bars))
    volume = draw.lognormal(3, 1, bars)
    values = np.column_stack([opened, high, low, close, volume, volume*close]).round(6)
    starts = pd.Timestamp(first).value//10**6 + HOUR*np.arange(bars)
    keep = np.ones(bars, bool)
    keep[draw.choice(bars - 2, holes, replace=False) + 1] = False
    return starts[keep], values[keep]


def frame(starts, values):
    "The same as a table."
    return pd.DataFrame(values, pd.DatetimeIndex(starts.astype("datetime64[ms]"), tz="UTC", name="timestamp"), ["open", "high", "low", "close", "volume", "turnover"])


class Exchange(ThreadingHTTPServer):
    "Markets {symbol: (starts, values)}, open bars included, seen at `now`; `faults` befall the coming requests for bars, in order."
    daemon_threads, request_queue_size = True, 64

    def __init__(self, markets=None, now=None, step=HOUR):
        super().__init__(("127.0.0.1", 0), Handler)
        self.markets, self.now, self.step = markets or {}, now or int(time.time()*1000), step
        self.faults, self.asked, self.counts, self.withheld, self.delisted, self.hidden, self.funding = [], [], {}, {}, {}, set(), {}
        self.slow, self.lock, self.address = 0.6, threading.Lock(), f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self): return self
    def __exit__(self, *error): self.shutdown(); self.server_close()
    def handle_error(self, *given): pass  # clients that hang up are part of the play

    def next_fault(self):
        with self.lock: return self.faults.pop(0) if self.faults else None

    def reset(self, markets, now, faults=()):
        with self.lock: self.markets, self.now, self.faults, self.asked, self.withheld = markets, now, list(faults), [], {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def log_message(self, *given): pass

    def do_GET(self):
        split = urlsplit(self.path)
        params, route = dict(parse_qsl(split.query)), split.path.removeprefix("/v5/market/")
        with self.server.lock: self.server.counts[route] = self.server.counts.get(route, 0) + 1
        try: {"kline": self.kline, "time": lambda p: self.answer({}), "instruments-info": self.instruments, "funding/history": self.funding}.get(route, self.unknown)(params)
        except (BrokenPipeError, ConnectionResetError): self.close_connection = True

    # what is sent
    def send(self, body, status=200, headers=(), length=None):
        self.send_response(status)
        for name, value in headers: self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, result, code=0, message="OK", **more):
        more = {"time": self.server.now} | more
        self.send(json.dumps({"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}} | {k: v for k, v in more.items() if v is not None}).encode())

    def unknown(self, params): self.answer({}, 10017, "Route not found.")

    # what is asked for
    def kline(self, params):
        with self.server.lock: self.server.asked.append(params)
        if params["symbol"] not in self.server.markets: return self.answer({}, 10001, "The requested symbol is invalid.")
        starts, values = self.server.markets[params["symbol"]]
        step, limit = self.server.step, min(int(params.get("limit", 200)), 1000)
        begin, end = int(params["start"])//step*step, min(int(params["end"]), self.server.now)  # start is floored to its candle; the open one is there
        at = slice(np.searchsorted(starts, begin), np.searchsorted(starts, end, side="right"))
        rows = [[str(start), *map(repr, row)] for start, row in zip(starts[at].tolist(), values[at].tolist())][-limit:][::-1]
        fault = self.server.next_fault()
        if fault is None: return self.answer({"symbol": params["symbol"], "category": "linear", "list": rows})
        self.fail(fault, params["symbol"], rows, step)

    def instruments(self, params):
        known = {"Trading": {name: bars for name, bars in self.server.markets.items() if name not in self.server.hidden}, "Closed": self.server.delisted}[params.get("status", "Trading")]
        names, at, size = sorted(known), int(params.get("cursor") or 0), min(int(params.get("limit", 500)), 1000, getattr(self.server, "page", 1000))
        rows = [{"symbol": name, "status": params.get("status", "Trading"), "launchTime": str(known[name][0][0]), "deliveryTime": "0" if params.get("status") != "Closed" else str(known[name][0][-1] + self.server.step),
                 "fundingInterval": 480, "priceFilter": {"tickSize": "0.10"}, "lotSizeFilter": {"qtyStep": "0.001"}} for name in names[at:at + size]]
        self.answer({"category": "linear", "list": rows, "nextPageCursor": str(at + size) if at + size < len(names) else ""})

    def funding(self, params):
        if "endTime" not in params: return self.answer({}, 10001, "endTime is needed")
        times = [time for time in self.server.funding[params["symbol"]] if int(params.get("startTime", 0)) <= time <= int(params["endTime"])]
        rows = [{"symbol": params["symbol"], "fundingRate": f"{time % 997/1e6}", "fundingRateTimestamp": str(time)} for time in times[-min(int(params.get("limit", 200)), 200):][::-1]]
        self.answer({"category": "linear", "list": rows})

    # what goes wrong
    def fail(self, fault, symbol, rows, step):
        well = lambda rows, **more: self.answer({"symbol": symbol, "category": "linear", "list": rows}, **more)
        body = json.dumps({"retCode": 0, "result": {"symbol": symbol, "list": rows}, "time": self.server.now}).encode()
        changed = lambda column, text: [[*row[:column], text, *row[column + 1:]] if n == len(rows)//2 else row for n, row in enumerate(rows)]
        if fault.isdigit() and len(fault) == 3: return self.send(b"<html>access too frequent</html>", int(fault), [("Location", "http://127.0.0.1:1/elsewhere")])
        if fault.isdigit(): return self.answer({}, int(fault), "refused")
        if fault == "cut before": self.close_connection = True; return self.connection.close()
        if fault == "cut within": self.close_connection = True; return self.send(body[:len(body)//2], length=len(body))
        if fault == "slow": time.sleep(self.server.slow); return well(rows)
        if fault == "drip": return self.drip(body)
        if fault == "too long": return self.pour()
        if fault == "gzip bomb": return self.send(gzip.compress(b" "*200_000_000, 1), headers=[("Content-Encoding", "gzip")])
        if fault == "busy with headers":
            return self.send(json.dumps({"retCode": 10006, "retMsg": "Too many visits", "time": self.server.now}).encode(), headers=[("X-Bapi-Limit-Status", "0"), ("X-Bapi-Limit-Reset-Timestamp", str(int(time.time()*1000) + 20))])
        if fault == "missing":  # the same bar never three times: such an exchange cannot be told from one that lacks it
            gone = {row[0] for n, row in enumerate(rows) if (n*7 + len(rows)) % 5 == 0 and self.server.withheld.get((symbol, row[0]), 0) < 2}
            for start in gone: self.server.withheld[symbol, start] = self.server.withheld.get((symbol, start), 0) + 1
            return well([row for row in rows if row[0] not in gone])
        raw = {"truncated": body[:-len(body)//3], "html": b"<html></html>", "list": b"[1, 2]", "no code": b'{"result": {}}', "deep": b"["*100_000, "null result": json.dumps({"retCode": 0, "result": None, "time": self.server.now}).encode()}
        if fault in raw: return self.send(raw[fault])
        if fault in ("busy", "server error"): return self.answer({}, {"busy": 10006, "server error": 10016}[fault], "Too many visits")
        if fault == "no time": return well(rows, time=None)
        if fault == "skewed clock": return well(rows, time=self.server.now + 10**12)
        if fault == "other symbol": return self.answer({"symbol": "OTHERUSDT", "list": rows})
        return well({"short rows": [row[:5] for row in rows] or [["1"]], "twice": [row for row in rows for _ in (0, 1)][:1000], "disordered": rows[::2] + rows[1::2],
                     "conflicting": rows[:999] + [[row[0], *row[1:5], "12345.0", row[6]] for row in rows[:1]], "NaN": changed(4, "NaN"), "Infinity": changed(2, "Infinity"), "negative": changed(3, "-5.0"),
                     "text": changed(1, "<b>"), "high below low": changed(2, "0.001"), "off the grid": [[str(int(row[0]) + 1), *row[1:]] for row in rows],
                     "outside": rows[:999] + [[str(int(row[0]) - 5000*step), *row[1:]] for row in rows[:1]], "too many": (rows*1001)[:1001]}[fault])

    def drip(self, body):
        "One byte now and then, for ever."
        self.send(body[:1], length=10**9)
        while True: self.wfile.write(b" "); time.sleep(0.02)

    def pour(self):
        "Two hundred megabytes of rows."
        self.send(b'{"retCode": 0, "result": {"list": [', length=200_000_000)
        for _ in range(200): self.wfile.write(b'["1","1","1","1","1","1","1"],'*34_000)


if __name__ == "__main__":
    from pathlib import Path
    served = {}
    for path in Path(sys.argv[1]).glob("*-60.parquet"):
        table = pd.read_parquet(path)
        values = table[["open", "high", "low", "close", "volume"]].to_numpy()
        served[path.stem.split("-")[0]] = (table.timestamp.astype("datetime64[ms, UTC]").astype("int64").to_numpy(), np.column_stack([values, values[:, 3]*values[:, 4]]))
    exchange = Exchange(served)
    print(exchange.address, flush=True)
    threading.Event().wait()

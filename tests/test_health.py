"""A watch is healthy when all that was due has come: every reason comes and goes, and silence is one."""
import asyncio, json, re, socket, sys

import aiohttp, numpy as np, pandas as pd, pytest

import browser_page
from sslts_nb.settings import InputError
from sslts_nb.health import BUCKETS, JUDGED, RECENT, SILENT, Watch
from sslts_nb.page import page, serve

HOUR, SECOND = 3_600_000, 1000
BEGIN = pd.Timestamp("2025-01-01", tz="UTC").value//10**6
ABOUT = {"name": "small", "interval": "60", "horizon": 5, "warm_up": 3,
         "cut_off": "2024-12-31 23:00:00+00:00"}
HOSTILE = '</script><img src=x onerror="alert(1)">\\n"}\n# TYPE evil counter\nevil 1'


def decision(number, symbol="A", **more):
    "What an engine says of a bar."
    said = {"symbol": symbol, "start": pd.Timestamp(BEGIN + number*HOUR, unit="ms", tz="UTC").isoformat(),
            "bundle": "small", "bars": number + 1, "ready": True,
            "gap": 0, "size": 0.5, "volatility": np.float32(0.004),
            "low_90": 0.002, "low_50": 0.003, "high_50": 0.005, "high_90": 0.007, "down": 0.2, "neutral": 0.5,
            "up": 0.3, "state": "normal", "action": "follow the signals", "score": 1.5,
            "reasons": [("log_return", 5, 1.25)], "prototype": 2}
    return said | more


def candle(close=100.): return {"open": close, "high": close + 1, "low": close - 1, "close": close}


def end_of(number): return BEGIN + (number + 1)*HOUR


def decided(watch, numbers, symbol="A", **more):
    "Bars, each decided 2 ms after its frame, which came 0.2 s after its end."
    for number in numbers:
        watch.decided(decision(number, symbol, **more), candle(100 + number % 7), end_of(number) + 200, 0.002)


def well(symbols=("A",), bars=10, **limits):
    "A watch of markets that are all well, and when that was."
    watch = Watch([*symbols], ABOUT, **limits)
    watch.connection(True, BEGIN)
    for symbol in symbols: decided(watch, range(bars), symbol)
    return watch, end_of(bars - 1) + SECOND


def reasons(watch, now): return watch.health(now)["reasons"]


def test_silence_is_unhealthy():
    watch = Watch(["A", "B"], ABOUT)
    for now in (0, BEGIN, BEGIN + 10_000*HOUR):
        assert reasons(watch, now) == ["exchange: no connection yet", "A: no bar yet", "B: no bar yet"]
    watch.connection(True, BEGIN)
    decided(watch, range(5), "A")
    assert reasons(watch, end_of(4)) == ["B: no bar yet"]
    decided(watch, range(5), "B")
    assert watch.health(end_of(4))["healthy"]


@pytest.mark.parametrize("interval", ["1", "5", "60", "240", "D", "W", "M"])
def test_a_bar_is_overdue_one_patience_after_its_end(interval):
    from sslts_nb.tables import bar_number, bar_open
    watch = Watch(["A"], ABOUT | {"interval": interval}, patience=30)
    watch.connection(True, BEGIN)
    first = int(bar_number(BEGIN, interval))
    start = lambda n: int(bar_open(first + n, interval))
    for n in range(3):
        time = pd.Timestamp(start(n), unit="ms", tz="UTC").isoformat()
        watch.decided(decision(0) | {"start": time}, candle(), start(n + 1), 0.001)
    due = start(4)    # the end of the next bar
    assert watch.health(due + 30*SECOND - 1)["healthy"]
    (reason,) = reasons(watch, due + 30*SECOND)
    assert reason == f"A: bar {pd.Timestamp(start(3), unit='ms'):%Y-%m-%d %H:%M} was due 30 s ago"
    assert "2 are missing" in reasons(watch, start(5) + 31*SECOND)[0]


def test_an_absent_bar_is_a_reason_for_as_long_as_the_horizon():
    watch, now = well(bars=10)
    decided(watch, [12])                                      # 10 and 11 never came
    assert reasons(watch, end_of(12)) == ["A: 2 of the last 5 bars absent"]
    decided(watch, range(13, 16))
    assert reasons(watch, end_of(15)) == ["A: 1 of the last 5 bars absent"]
    decided(watch, [16])
    assert watch.health(end_of(16))["healthy"]


def test_bars_before_the_first_are_not_absent():
    watch, now = well(bars=1)
    assert watch.health(now)["healthy"]


def test_warming_up_is_no_health():
    watch = Watch(["A"], ABOUT)
    watch.connection(True, BEGIN)
    decided(watch, [0, 1], ready=False, volatility=np.nan, state="unknown")
    assert reasons(watch, end_of(1)) == ["A: warming up, 2 of 3 bars"]
    assert watch.state(end_of(1))["markets"][0]["warm_up"] == [2, 3]
    decided(watch, [2, 3])
    assert watch.health(end_of(3))["healthy"]
    decided(watch, [4], ready=False, volatility=np.nan)
    assert reasons(watch, end_of(4)) == ["A: no forecast of its last bar"]
    again = Watch(["A"], ABOUT)                          # after a restart the engine knows how far it is
    again.decided(decision(0, ready=False, bars=2), candle())
    assert again.state(end_of(0))["markets"][0]["warm_up"] == [2, 3]


def test_connection():
    watch, now = well(patience=30)
    watch.connection(False, now)
    brief = watch.health(now + 29*SECOND)
    assert brief["healthy"] and brief["warnings"][0] == "exchange: not connected for 29 s"
    watch.connection(False, now + 20*SECOND)                   # still the same cut
    assert reasons(watch, now + 31*SECOND) == ["exchange: not connected for 31 s"]
    watch.connection(True, now + 40*SECOND)
    assert watch.health(now + 41*SECOND)["healthy"]


def test_a_connection_that_is_none():
    "Prices came, and then nothing more, though the connection never ended."
    watch, now = well(patience=600)
    watch.price("A", 101., now)
    assert watch.health(now + SILENT*SECOND)["healthy"]
    (reason,) = reasons(watch, now + SILENT*SECOND + 1)
    assert reason == "exchange: connected, but nothing heard for 2 min"
    watch.price("A", 101., now + 200*SECOND)
    assert watch.health(now + 201*SECOND)["healthy"]


@pytest.mark.parametrize("apart, side", [(2500, "ahead of"), (-2500, "behind")])
def test_clock(apart, side):
    watch, now = well()
    assert watch.drift is None
    for delay in (900, 30, 400, 5000): watch.clock(now, now + delay)      # slow frames are no wrong clock
    assert watch.drift == 0.03 and watch.health(now)["healthy"]
    for _ in range(20): watch.clock(now, now + apart)
    assert reasons(watch, now) == [f"clock: this machine is 2.5 s {side} the exchange, limit 2 s"]
    for _ in range(20): watch.clock(now, now + 10)
    assert watch.health(now)["healthy"]


def test_drift_of_the_model():
    watch = Watch(["A", "B"], ABOUT)
    watch.connection(True, BEGIN)
    for symbol in "AB": decided(watch, range(JUDGED - 1), symbol, state="high")
    found = watch.health(end_of(JUDGED - 2))
    assert found["healthy"] and "not judged yet in 2 of 2 markets" in found["warnings"][0]
    for symbol in "AB": decided(watch, [JUDGED - 1], symbol, state="high")
    assert reasons(watch, end_of(JUDGED - 1)) == [
        f"{symbol}: drift: 100% of the last 500 bars high, limit 60%" for symbol in "AB"]
    calm = range(JUDGED, JUDGED + 4*JUDGED//10)
    for symbol in "AB": decided(watch, calm, symbol, state="elevated")   # at the limit is not beyond it
    assert watch.health(end_of(calm[-1]))["healthy"]


def test_another_bundle_is_judged_anew():
    watch = Watch(["A"], ABOUT)
    watch.connection(True, BEGIN)
    decided(watch, range(JUDGED), state="high")
    assert not watch.health(end_of(JUDGED - 1))["healthy"]
    watch.about = ABOUT | {"name": "other"}
    decided(watch, [JUDGED], state="high", bundle="other")
    assert watch.health(end_of(JUDGED))["healthy"]
    assert watch.state(end_of(JUDGED))["bundle"]["name"] == "other"


def test_bars_without_a_score_are_not_calm():
    watch = Watch(["A"], ABOUT)
    decided(watch, range(100), state="unknown")
    assert watch.state(end_of(99))["markets"][0]["high_share"] is None


def test_an_old_model_is_said_and_is_no_reason():
    watch, now = well(oldest=0.1)
    assert watch.health(now)["healthy"]
    assert watch.health(now)["warnings"][0] == "model: learnt up to 2024-12-31, 0 days ago"
    early = Watch(["A"], ABOUT | {"cut_off": "2025-06-01 00:00:00+00:00"})
    assert early.health(now)["warnings"] == ["model: learnt up to 2025-06-01, later than these bars"]


def test_sinks():
    watch, now = well()
    watch.sink("decisions.parquet", "No space left\non device")
    assert reasons(watch, now) == ["sink decisions.parquet: No space left on device"]
    assert 'sslts_sink_failed{sink="decisions.parquet"} 1' in watch.metrics(now)
    watch.sink("decisions.parquet")
    assert watch.health(now)["healthy"]


def test_every_market_has_its_own_reasons():
    watch, now = well(["A", "B", "C"])
    decided(watch, range(10, 13), "B")
    later = end_of(12)
    assert [one[:2] for one in reasons(watch, later)] == ["A:", "C:"]


# What is given

@pytest.mark.parametrize("change, wanted", [
    ({"symbols": []}, "has no name"), ({"symbols": ["A", ""]}, "has no name"),
    ({"about": {}}, "no 'name'"), ({"about": ABOUT | {"horizon": 0}}, "horizon = 0"),
    ({"patience": -1}, "patience"), ({"patience": float("nan")}, "patience"),
    ({"most_high": 2}, "most_high"), ({"oldest": True}, "oldest"), ({"most_drift": "2"}, "most_drift")])
def test_strange_watches(change, wanted):
    with pytest.raises(InputError, match=wanted): Watch(**{"symbols": ["A"], "about": ABOUT} | change)


def test_strange_news():
    watch, now = well()
    before = json.dumps(watch.state(now))
    for call in (lambda: watch.price("OTHER\n", 1., now),
                 lambda: watch.decided(decision(10, "OTHER"), candle())):
        with pytest.raises(InputError, match="OTHER.* is not watched"): call()
    assert json.dumps(watch.state(now)) == before
    for n in range(1000): watch.counted(f"frame {n}", f"symbol {n}")
    assert len(watch.counts) <= 51 and sum(watch.counts.values()) == 1000
    assert {symbol for _, symbol in watch.counts} == {""}


def test_what_is_told_again_has_no_latency():
    watch = Watch(["A"], ABOUT)
    watch.decided(decision(0), candle())
    assert sum(watch.markets["A"].buckets) == 0 and watch.state(end_of(0))["markets"][0]["latency"] is None


# State

def test_state_is_plain():
    watch, now = well()
    decided(watch, [10], volatility=np.nan, low_90=np.inf, ready=False, score=np.float64("nan"),
            prototype=np.int64(-1))
    state = watch.state(now)
    assert json.loads(json.dumps(state, allow_nan=False)) == json.loads(json.dumps(state))
    (market,) = state["markets"]
    assert market["volatility"] is None and market["score"] is None and market["recent"]["low_90"][-1] is None
    assert market["reasons"] == [["log_return", 5, 1.25]] and market["price"] == candle(103.)["close"]


def test_pictures_are_told_once_a_bar():
    watch, now = well(["A", "B"])
    decided(watch, [10], "B")
    whole, later = watch.state(now), watch.state(now, 20)
    assert [market["recent"] is None for market in later["markets"]] == [True, False]
    assert later["markets"][1] == whole["markets"][1] and whole["decided"] == 21
    assert watch.state(now, 22) == watch.state(now, 0) == whole       # 22: of a watch that is no more
    requests = [("GET", f"/state.json?after={after}", {}) for after in ("21", "-1", "x", "9"*99, "")]
    shown = asked(watch, *requests)
    assert [json.loads(one[2])["markets"][0]["recent"] is None for one in shown] == [True] + [False]*4


def test_volatility_that_came_is_that_of_the_closes():
    watch, draw = Watch(["A"], ABOUT), np.random.default_rng(0)
    closes = 100*np.exp(np.cumsum(draw.normal(size=60)*0.01))
    for n, close in enumerate(closes): watch.decided(decision(n), candle(close))
    (market,) = watch.state(end_of(59))["markets"]
    squares = np.log(closes[1:]/closes[:-1])**2
    wanted = [np.sqrt(squares[n - 5:n].mean()) for n in range(60 - RECENT, 60)]
    np.testing.assert_allclose(market["recent"]["realised"], wanted, rtol=1e-4)
    inside = [0.002 <= came <= 0.007 for came in wanted[5:]]
    assert market["held"] == [sum(inside), RECENT - 5] and 0 < sum(inside) < RECENT - 5


def test_memory_is_bounded():
    watch = Watch(["A"], ABOUT)
    watch.connection(True, BEGIN)
    sizes = []
    for part in range(3):
        decided(watch, range(part*2000, part*2000 + 2000))
        for n in range(100): watch.clock(n, n)
        watch.counted("duplicate", "A")
        sizes.append(len(json.dumps(watch.state(end_of(part*2000 + 1999)))))
    seen = watch.markets["A"]
    kept = [len(one) for one in (seen.recent, seen.high, seen.squares, seen.buckets, watch.apart)]
    assert kept == [RECENT, JUDGED, 5, len(BUCKETS) + 1, 20]
    assert max(sizes) - min(sizes) < 60 and seen.decided == sum(seen.buckets) == 6000


# Metrics, read by a naive parser

def unescaped(text): return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def parsed(text):
    "Families and samples of the text format 0.0.4; whatever does not fit is an error."
    families, samples, kind = {}, {}, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            what, name, rest = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line).groups()
            if what == "TYPE": families[name] = kind = rest
            continue
        name, labels, value = re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = re.findall(r'([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"', labels or "")
        assert ",".join(f'{key}="{one}"' for key, one in pairs) == (labels or "")
        key = name, *((one, unescaped(value)) for one, value in pairs)
        assert key not in samples, f"{key} twice"
        samples[key] = float(value)
        base = re.sub("_(bucket|sum|count)$", "", name) if kind == "histogram" else name
        assert families[base] == kind
    return families, samples


def test_metrics():
    watch, now = well(["A", "B"])
    watch.counted("rejected", "B", 3)
    watch.counted("reconnect")
    watch.clock(now, now + 250)
    watch.decided(decision(10), candle(), end_of(10) + 200, 60.)     # beyond all buckets
    families, samples = parsed(watch.metrics(now))
    assert {name.startswith("sslts_") for name in families} == {True}
    for name, kind in families.items(): assert name.endswith("_total") is (kind == "counter"), name
    assert samples["sslts_healthy",] == 1 and samples["sslts_clock_drift_seconds",] == 0.25
    assert samples["sslts_decided_bars_total", ("symbol", "A")] == 11
    assert samples["sslts_events_total", ("event", "rejected"), ("symbol", "B")] == 3
    assert samples["sslts_events_total", ("event", "reconnect"), ("symbol", "")] == 1
    assert samples["sslts_last_bar_end_timestamp_seconds", ("symbol", "B")] == end_of(9)/1000
    assert samples["sslts_risk", ("symbol", "A"), ("state", "normal")] == 1
    buckets = [samples["sslts_decision_seconds_bucket", ("symbol", "A"), ("le", f"{most:g}")]
               for most in BUCKETS]
    assert buckets == [0, 0, *[10]*12]
    assert samples["sslts_decision_seconds_bucket", ("symbol", "A"), ("le", "+Inf")] == 11
    assert samples["sslts_decision_seconds_count", ("symbol", "A")] == 11
    assert samples["sslts_decision_seconds_sum", ("symbol", "A")] == pytest.approx(60.02)


def test_metrics_of_nothing_and_of_hostile_names():
    watch = Watch([HOSTILE], ABOUT | {"name": HOSTILE})
    watch.counted(HOSTILE, HOSTILE)
    watch.sink(HOSTILE, HOSTILE)
    families, samples = parsed(watch.metrics(BEGIN))
    assert samples["sslts_healthy",] == 0 and "evil" not in families
    assert samples["sslts_decided_bars_total", ("symbol", HOSTILE)] == 0
    assert samples["sslts_events_total", ("event", HOSTILE), ("symbol", HOSTILE)] == 1
    assert samples["sslts_model_info", ("bundle", HOSTILE)] == 1


def test_the_prometheus_client_reads_it_too():
    parser = pytest.importorskip("prometheus_client.parser")
    watch, now = well(["A", HOSTILE])
    families = [*parser.text_string_to_metric_families(watch.metrics(now))]
    assert {sample.labels.get("symbol") for one in families for sample in one.samples} >= {"A", HOSTILE}


# The server

def asked(watch, *requests, now=BEGIN, host="127.0.0.1"):
    "(status, headers, text) of each (method, path, headers)."
    async def ask():
        server, found = await serve(watch, host, clock=lambda: now), []
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            for method, path, headers in requests:
                async with session.request(method, path, headers=headers, allow_redirects=False) as answer:
                    found.append((answer.status, answer.headers, await answer.text()))
        await server.close()
        return found
    return asyncio.run(ask())


def test_addresses():
    watch, now = well()
    shown, state, healthy, metrics = asked(watch, *[("GET", path, {}) for path in (
        "/", "/state.json", "/health", "/metrics")], now=now)
    assert [one[0] for one in (shown, state, healthy, metrics)] == [200]*4
    assert json.loads(state[2]) == json.loads(json.dumps(watch.state(now)))
    assert json.loads(healthy[2])["healthy"]
    assert metrics[2] == watch.metrics(now) and shown[2] == page()
    kinds = [one[1]["Content-Type"] for one in (shown, state, healthy, metrics)]
    assert kinds == ["text/html; charset=utf-8", "application/json; charset=utf-8",
                     "application/json; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"]
    (sick,) = asked(watch, ("GET", "/health", {}), now=now + 2*HOUR)
    assert sick[0] == 503 and not json.loads(sick[2])["healthy"]


def test_only_get_and_no_files():
    watch, now = well()
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        for status, _, _ in asked(watch, *[(method, path, {}) for path in ("/", "/health", "/metrics")]):
            assert status == 405, method
    paths = ("/page.html", "/../page.py", "/%2e%2e/page.html", "/state.json/", "/etc/passwd", "//etc/passwd",
             "/static/page.html", "../page.html", "file:///etc/passwd", "/\0")
    for answer in raw(watch, paths): assert answer[9:12] in (b"404", b"400"), answer


def raw(watch, paths):
    "Answers to paths that a well-behaved client would have put in order."
    async def ask():
        server, found = await serve(watch), []
        for path in paths:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            found.append(await reader.read())
            writer.close()
        await server.close()
        return found
    return asyncio.run(ask())


def test_headers_of_every_answer():
    watch, now = well()
    requests = [("GET", "/", {}), ("GET", "/nothing", {}), ("POST", "/", {}),
                ("GET", "/health", {"Host": "evil.example"})]
    for status, headers, text in asked(watch, *requests):
        assert headers["X-Content-Type-Options"] == "nosniff", status
        assert headers["Cache-Control"] == "no-store", status
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
        assert "http" not in policy and "*" not in policy and policy.count("'sha256-") == 2
        assert "aiohttp" not in headers["Server"]


def test_another_name_for_this_machine_is_refused():
    watch, now = well()
    hosts = {"localhost:80": 200, "127.0.0.1": 200, "[::1]:9": 200, "evil.example": 421,
             "127.0.0.1.evil.example": 421, "localhost.evil.example:80": 421}
    found = asked(watch, *[("GET", "/state.json", {"Host": host}) for host in hosts])
    assert [status for status, _, _ in found] == [*hosts.values()]
    (seen,) = asked(watch, ("GET", "/state.json", {"Host": "desk.example"}), host="0.0.0.0")
    assert seen[0] == 200


def test_a_port_that_is_taken():
    watch, now = well()
    async def twice():
        first = await serve(watch)
        with pytest.raises(InputError, match=f"page at 127.0.0.1:{first.port}: .*wanted another port"):
            await serve(watch, port=first.port)
        await first.close()
        second = await serve(watch, port=first.port)               # let go of, it can be had again
        await second.close()
    asyncio.run(twice())
    for port in (-1, 65_536, 1.5, "80"):
        with pytest.raises(InputError, match="port"): asyncio.run(serve(watch, port=port))
    with pytest.raises(InputError, match="no server can be there"): asyncio.run(serve(watch, "192.0.2.1"))


def test_closing_leaves_nothing_behind():
    watch, now = well()
    async def once():
        before = asyncio.all_tasks()
        server = await serve(watch)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)   # held open, says nothing
        await asyncio.sleep(0.01)
        await asyncio.wait_for(server.close(), 10)
        await server.close()                                       # once more does no harm
        writer.close()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", server.port), 1): pass
    asyncio.run(once())


def test_without_aiohttp(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp.web", None)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(InputError, match=re.escape("pip install 'sslts_nb[live]'")):
        asyncio.run(serve(Watch(["A"], ABOUT)))


# The page

def test_the_page_loads_nothing_and_makes_no_markup():
    text = page()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text.split("<script>")[0])
    assert {*re.findall(r"https?://[^\"'\s]+", text)} == {"http://www.w3.org/2000/svg"}   # a name, no address
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
                   "style=", "onclick", "localStorage"): assert unsafe not in text, unsafe


def test_a_kept_page_holds_its_state_whatever_the_names():
    watch, now = well([HOSTILE])
    watch.sink("</script><script>alert(1)</script>", "<!--")
    text, state = page(watch.state(now)), watch.state(now)
    assert text.count("</script>") == page().count("</script>") and "<img" not in text
    kept = re.search(r'(?s)id="kept">(.*?)</script>', text)[1]
    assert json.loads(kept) == json.loads(json.dumps(state))


def test_the_browsers_test_says_when_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    with pytest.raises(SystemExit, match="no browser: no-such-browser is not on this machine; wanted one"):
        asyncio.run(browser_page.main(tmp_path/"shots", browser_page.look))
    assert not (tmp_path/"shots").exists()

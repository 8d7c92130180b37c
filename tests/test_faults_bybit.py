"""Inputs that once gave a wrong number, lost work or a traceback (bybit): given, wanted."""
import contextlib, io, os, random, threading, time
from functools import cache

import numpy as np, pandas as pd, pytest

from bybit_server import BybitServer, as_frame, closed, make_candles
from fault_table import Refused, check, fault
from sslts_nb import market
from sslts_nb.inputs import checked_url
from sslts_nb.settings import InputError, load_settings
from sslts_nb.candles import CandleStore
from sslts_nb.bybit import (Bybit, ExchangeUnavailable, fetch_bars, fetch_funding, fetch_instruments,
                            is_reachable, update)
from sslts_nb.market import align, choose_source, fetch, load_market, load_markets, simulate_market
from sslts_nb.cli import main

ROWS = []
BYBIT_NOW, BYBIT_HOUR = int(time.time()*1000), 3_600_000
bybit_bars = cache(lambda symbol="AUSDT": make_candles(symbol, "60", 300, BYBIT_NOW))
bybit_end = pd.Timestamp(BYBIT_NOW, unit="ms", tz="UTC")
bybit_period = lambda: [bybit_bars().index[0] - pd.Timedelta(days=20), bybit_end]


@contextlib.contextmanager
def bybit_exchange(kline=(), listing=(), funding=(), **given):
    "A local exchange that fails on purpose, and a client of it."
    with BybitServer() as server:
        server.load({(symbol, "60"): bybit_bars(symbol) for symbol in ("AUSDT", "BUSDT")}, BYBIT_NOW, kline,
                    instrument_faults=listing, **given)
        server.faults["funding/history"] = list(funding)
        yield server, Bybit(server.address, wait=0.001, rate=1e6)


def bybit_settings(folder, **given):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SSLTS_")]: patch.delenv(name)
        return load_settings(**({"store": str(folder/"store")} | given))


def bybit_said(call):
    "What a call prints, or the line of its error."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: call()
        except (InputError, ExchangeUnavailable, OSError) as error: return str(error)
    return out.getvalue()


def bybit_command(folder, *arguments):
    "Exit code of `sslts fetch` in a folder, and what it says."
    codes = []
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SSLTS_")]: patch.delenv(name)
        patch.chdir(folder)
        said = bybit_said(lambda: codes.append(main(["fetch", *arguments, "--store", str(folder/"store")])))
    return codes[0], said


# 24: what is remembered for ever is confirmed

def bybit_listed(**over):
    "The first row of a listing, otherwise."
    def wrong(handler, answer):
        rows = answer["result"]["list"]
        handler.answer(answer | {"result": answer["result"] | {"list": [rows[0] | over] + rows[1:]}})
    return wrong

def bybit_after(folder, *listing):
    "What is stored when the listing was wrong at first, and the exchange honest afterwards."
    with bybit_exchange(listing=listing) as (server, client):
        for _ in range(2):
            with contextlib.suppress(InputError, ExchangeUnavailable):
                update(CandleStore(folder), client, ["AUSDT"], "60", *bybit_period())
    return CandleStore(folder).read("AUSDT", "60")

BYBIT_ALL = closed(bybit_bars(), BYBIT_NOW)
BYBIT_GONE = {"status": "Closed", "deliveryTime": str(int(BYBIT_ALL.index.asi8[5]))}
BYBIT_LATE = {"launchTime": str(BYBIT_NOW - 50*BYBIT_HOUR)}

@fault(ROWS, 24, "a launch in the future, in one answer of the listing", BYBIT_ALL)
def _(folder): return bybit_after(folder, bybit_listed(launchTime=str(BYBIT_NOW + 9*BYBIT_HOUR)))

@fault(ROWS, 24, "closed and delivered, in one answer of the listing", BYBIT_ALL)
def _(folder): return bybit_after(folder, bybit_listed(**BYBIT_GONE))

@fault(ROWS, "24+", "a launch too late, in two answers of three", BYBIT_ALL)
def _(folder): return bybit_after(folder, bybit_listed(**BYBIT_LATE), None, bybit_listed(**BYBIT_LATE))

@fault(ROWS, "24+", "a symbol twice, with two launches", BYBIT_ALL)
def _(folder):
    def twice(handler, answer):
        rows = answer["result"]["list"]
        handler.answer(answer | {"result": answer["result"] | {"list": [rows[0] | BYBIT_LATE, *rows]}})
    return bybit_after(folder, twice)


# 25: one bad bar costs no other

def bybit_torn(folder, column, text, at=100):
    "Bars stored although one is torn in each answer, and whether it is named."
    def torn(handler, answer):
        rows = [[*row] for row in answer["result"]["list"]]
        for row in rows:
            if int(row[0]) == BYBIT_ALL.index.asi8[at]: row[column:column + 1] = [text] if text != "-" else []
        handler.answer(answer | {"result": answer["result"] | {"list": rows}})
    with bybit_exchange([torn]*99) as (server, client):
        said = bybit_said(lambda: update(CandleStore(folder), client, ["AUSDT"], "60", BYBIT_ALL.index[0],
                                         bybit_period()[1]))
    store, named = CandleStore(folder), f"{BYBIT_ALL.index[at]:%Y-%m-%d %H:%M}" in said
    lost = np.flatnonzero(~BYBIT_ALL.index.isin(store.read("AUSDT", "60").index)).tolist()
    return lost, named, len(store.holes("AUSDT", "60"))

for number, name, column, text in [(25, "the low above the open", 3, "1e6"), ("25+", "NaN", 4, "NaN"),
                                   ("25+", "a volume below 0", 5, "-1"), ("25+", "a price of 1_0", 1, "1_0"),
                                   ("25+", "six numbers", 6, "-"), ("25+", "a turnover below 0", 6, "-3")]:
    @fault(ROWS, number, f"{name}, in one bar of 300 in every answer", ([100], True, 0))
    def _(folder, column=column, text=text): return bybit_torn(folder, column, text)

@fault(ROWS, "25+", "half-hours where hours were asked for: none is stored, though half lie on the grid", 0)
def _(folder):
    def halves(handler, answer):
        rows = answer["result"]["list"][:400]
        more = [[str(int(row[0]) - BYBIT_HOUR//2), *row[1:]] for row in rows]
        handler.answer(answer | {"result": answer["result"] | {"list": rows + more}})
    with bybit_exchange([halves]*99) as (server, client):
        bybit_said(lambda: update(CandleStore(folder), client, ["AUSDT"], "60", *bybit_period()))
    return int(CandleStore(folder).summary(["AUSDT"], "60").bars[0])

@fault(ROWS, "25+", "funding: a page that is cut short is not the end of the history", 250)
def _(folder):
    short = lambda handler, answer: handler.answer(
        answer | {"result": answer["result"] | {"list": answer["result"]["list"][:30]}})
    times = [BYBIT_NOW//BYBIT_HOUR*BYBIT_HOUR - BYBIT_HOUR*n for n in range(1, 251)]
    with bybit_exchange(funding=[short]) as (server, client):
        server.funding = {"AUSDT": sorted((at, 1e-4) for at in times)}
        return len(fetch_funding(client, "AUSDT", *bybit_period()))


# 5: no credentials, no escape codes, no links

@fault(ROWS, 5, "a password for the exchange's host in ~/.netrc is sent to nobody", [None])
def _(folder):
    (folder/"netrc").write_text("default login me password secret\n")
    (folder/"netrc").chmod(0o600)
    seen = []
    def look(handler, answer):
        seen.append(handler.headers.get("Authorization"))
        handler.answer(answer)
    with pytest.MonkeyPatch.context() as patch, bybit_exchange([look]) as (server, client):
        patch.setenv("NETRC", str(folder/"netrc"))
        fetch_bars(client, "AUSDT", "60", 0, 1)
    return seen

BYBIT_SECRETS = ["https://me:secret@api.bybit.com", "http://secret@127.0.0.1:9", "http://127.0.0.1:9?key=secret",
                 "http://127.0.0.1:9/#secret", "me:secret@host"]
for url in BYBIT_SECRETS:
    calls = {"settings": lambda folder, url: load_settings(bybit_url=url, source="simulated"),
             "client": lambda folder, url: Bybit(url), "reachable": lambda folder, url: is_reachable(url),
             "command": lambda folder, url: print(bybit_command(folder, "AUSDT", "--bybit-url", url))}
    for name, call in calls.items():
        @fault(ROWS, 5, f"{url} in {name}", (False, True))
        def _(folder, url=url, call=call):
            said = bybit_said(lambda: call(folder, url))
            return "secret" in said, "bybit_url" in said

@fault(ROWS, 5, "escape codes in the source of a foreign store", (True, True))
def _(folder):
    bars = bybit_bars().copy()
    bars.attrs = bars.attrs | {"source": "bybit\x1b[2J\x1b]0;owned\x07\n"*50}
    CandleStore(folder).add(bars[:100])
    bars.attrs = bars.attrs | {"source": "bybit"}
    said = bybit_said(lambda: CandleStore(folder).add(bars))
    return CandleStore(folder).read("AUSDT", "60").attrs["source"].isprintable(), said.isprintable()

@fault(ROWS, 5, "links where files are written beside their place", "mine")
def _(folder):
    store, victim = CandleStore(folder/"store"), folder/"victim"
    victim.write_text("mine")
    store.add(bybit_bars()[:100])
    for path in [*store.path("AUSDT", "60").iterdir()]:
        for name in (f"_{path.name}.part", f".{path.name}.part", f"{path.name}.part"):
            path.with_name(name).symlink_to(victim)
    store.add(bybit_bars())
    store.remember_holes("AUSDT", "60", [5])
    return victim.read_text()


# section 4: one line

BYBIT_ADDRESSES = ["nonsense", "ftp://a.b", "https://", "http://a b", "http://a:99999", "http://[::1",
                   "http://a\nb", ""]
for url in BYBIT_ADDRESSES:
    @fault(ROWS, 4, f"--bybit-url {url!r}", 2)
    def _(folder, url=url): return bybit_command(folder, "AUSDT", "--bybit-url", url)[0]
    @fault(ROWS, 4, f"the address {url!r}", Refused("bybit_url"))
    def _(folder, url=url): return checked_url(url)

@fault(ROWS, 4, "fetch 'AUSDT, BUSDT '", ["AUSDT", "BUSDT"])
def _(folder):
    with bybit_exchange() as (server, _):
        settings = bybit_settings(folder, bybit_url=server.address, start=f"{bybit_period()[0]:%Y-%m-%d}")
        return fetch(settings, "AUSDT, BUSDT ").symbol.tolist()

@fault(ROWS, 4, "fetch 'AUSDT, BUSDT' as a command", 0)
def _(folder):
    with bybit_exchange() as (server, _):
        return bybit_command(folder, "AUSDT, BUSDT", "--bybit-url", server.address, "--start",
                             f"{bybit_period()[0]:%Y-%m-%d}")[0]

@fault(ROWS, "4+", "fetch 'AUSDT,,BUSDT'", Refused("no name"))
def _(folder): return fetch(bybit_settings(folder), "AUSDT,,BUSDT")

@fault(ROWS, "4+", "update with one text for the symbols", Refused("wanted a list"))
def _(folder): return update(CandleStore(folder), Bybit(), "AUSDT", "60", *bybit_period())

@fault(ROWS, "4+", "the markets of no symbols", Refused("no name"))
def _(folder): return load_markets(bybit_settings(folder, source="sample"), [])

@fault(ROWS, 4, "a listing with ever new cursors, always the same rows or always new ones", [True, True])
def _(folder):
    ended = []
    for new in (False, True):
        def on(handler, answer):
            count, rows = handler.server.counts["instruments-info"], answer["result"]["list"]
            if new: rows = [row | {"symbol": f"{row['symbol']}{count}"} for row in rows]
            handler.answer(answer | {"result": {"list": rows, "nextPageCursor": f"page {count}"}})
        with bybit_exchange(listing=[on]*150) as (server, client):
            said = bybit_said(lambda: fetch_instruments(client))
            ended.append("without end" in said and server.counts["instruments-info"] <= 100)
    return ended

@fault(ROWS, "4+", "a cursor that is a list", True)
def _(folder):
    result = {"result": {"list": [], "nextPageCursor": [1]}}
    odd = lambda handler, answer: handler.answer(answer | result)
    with bybit_exchange(listing=[odd]*4) as (_, client):
        return "malformed" in bybit_said(lambda: fetch_instruments(client))

@fault(ROWS, "4+", "funding that is paid every millisecond", True)
def _(folder):
    with bybit_exchange() as (server, client):
        server.funding = {"AUSDT": [(BYBIT_NOW - n, 1e-4) for n in range(1000)]}
        return "malformed" in bybit_said(lambda: fetch_funding(client, "AUSDT", *bybit_period()))

for call in (fetch_funding, update):
    for date in (pd.Timestamp("2024"), "2024-01-01", None, pd.NaT, 5):
        @fault(ROWS, 4, f"{call.__name__} from {date!r}", Refused("start = .*zone"))
        def _(folder, call=call, date=date):
            first = [CandleStore(folder)] if call is update else []
            names = [["AUSDT"], "60"] if call is update else ["AUSDT"]
            return call(*first, Bybit("http://127.0.0.1:9"), *names, date, bybit_period()[1])

for source in ("simulated", "bybit", "files"):
    @fault(ROWS, 4, f"minutes of ten thousand years, {source}", Refused("5,258,[0-9,]+ bars"))
    def _(folder, source=source):
        given = {"source": source, "files": str(folder), "bybit_url": "http://127.0.0.1:9"}
        return load_market(bybit_settings(folder, **given, interval="1", start="0001", end="9999"))

@fault(ROWS, 4, "minutes of ten thousand years, fetch", Refused("5,258,[0-9,]+ bars .*wanted at most"))
def _(folder): return fetch(bybit_settings(folder, interval="1", start="0001", end="9999"), ["AUSDT"])

@fault(ROWS, "4+", "minutes of a century of ten simulated assets", Refused("52,59.*at most 36,000,000"))
def _(folder): return simulate_market(end=pd.Timestamp("2124", tz="UTC"), interval="1")

@fault(ROWS, "4+", "one grid for two markets two thousand years apart", Refused("rows for 2 symbols"))
def _(folder):
    old = as_frame([-60_000*10**9], np.ones((1, 6)), "OLD", "1")
    return align({"OLD": old, "NEW": as_frame([60_000], np.ones((1, 6)), "NEW", "1")}, every_bar=True)

@fault(ROWS, 4, "a flipped bit anywhere in what a part says of itself", (0, 0))
def _(folder):
    store, draw, wrong, odd = CandleStore(folder), random.Random(1), 0, 0
    store.add(bybit_bars())
    (part,) = store.parts("AUSDT", "60")
    whole, first = part.read_bytes(), store.read("AUSDT", "60")
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in draw.sample(range(footer, len(whole)), 80):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1:])
        try: found = store.read("AUSDT", "60")
        except InputError as error: odd += not str(error).isprintable()
        else: wrong += not found.equals(first)
    return wrong, odd

for name in ("2024.parquet", "_holes.json"):
    @fault(ROWS, "4+", f"a pipe in the place of {name}", Refused("damaged"))
    def _(folder, name=name):
        place, years = CandleStore(folder).path("AUSDT", "60"), ("2024", "2025")
        place.mkdir()
        os.mkfifo(place/name)
        return CandleStore(folder).missing("AUSDT", "60", *[pd.Timestamp(year, tz="UTC") for year in years])

@fault(ROWS, "4+", "a run of holes of ten million years", Refused("_holes.json: damaged"))
def _(folder):
    CandleStore(folder).path("AUSDT", "60").mkdir()
    (CandleStore(folder).path("AUSDT", "60")/"_holes.json").write_text(f"[[0, {3*10**17}]]")
    return CandleStore(folder).remember_holes("AUSDT", "60", [1])

def bybit_unwritable(folder, patched=None):
    "What an update says of a store in which nothing can be written; nobody is asked before."
    with bybit_exchange() as (server, client), pytest.MonkeyPatch.context() as patch:
        if patched: patch.setattr(os, "fsync", patched)
        said = bybit_said(lambda: update(CandleStore(folder), client, ["AUSDT"], "60", *bybit_period()))
        return said, sum(server.counts.values())

@fault(ROWS, 4, "a store that is a file", (True, 0))
def _(folder):
    (folder/"store").write_text("")
    said, asked = bybit_unwritable(folder/"store")
    return "cannot be made a folder (store is no folder)" in said, asked

@fault(ROWS, 4, "a full disk", (True, 0))
def _(folder):
    def full(file): raise OSError(28, "No space left on device")
    said, asked = bybit_unwritable(folder, full)
    return "No space left on device; nothing was begun" in said, asked

@fault(ROWS, 4, "an asset that the simulation does not have, before it is made", Refused("has no SIM99"))
def _(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(market, "simulate_market", lambda **given: pytest.fail("simulated"))
        return load_markets(bybit_settings(folder, source="simulated"), ["SIM00", "SIM99"])

@fault(ROWS, 4, "a file that is not there, before the others are read", Refused("NOSUCH-60.parquet"))
def _(folder):
    bybit_bars().reset_index().to_parquet(folder/"AUSDT-60.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(market, "read_candles", lambda path: pytest.fail("read"))
        return load_markets(bybit_settings(folder, source="files", files=str(folder)), ["AUSDT", "NOSUCH"])

@fault(ROWS, 4, "a store that another writer holds", (True, True))
def _(folder):
    held, over = threading.Event(), threading.Event()
    def hold():
        with CandleStore(folder).lock("AUSDT", "60"):
            held.set()
            over.wait()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), CandleStore(folder).lock("AUSDT", "60", patience=0.1): pass
    except InputError as error: return "waiting for another process" in out.getvalue(), "AUSDT" in str(error)
    finally: over.set()

@fault(ROWS, "4+", "auto, with a store and minutes of forty years that lie ahead", "simulated")
def _(folder):
    settings = bybit_settings(folder, source="auto", interval="1", symbol="AUSDT", start="2024", end="2064")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CandleStore, "missing", lambda *given: pytest.fail("counted"))
        said = bybit_said(lambda: choose_source(settings, lambda url: True))
    return "simulated" if "Bybit answers" in said else said


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

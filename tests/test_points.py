"""Series beside the candles against an exchange that fails on purpose: nothing is lost, invented or torn."""
import os, time
from functools import cache

import numpy as np, pandas as pd, pytest

from bybit_server import CODES, BybitServer, make_candles
from sslts_nb.settings import InputError
from sslts_nb.bybit import Bybit, ExchangeUnavailable
from sslts_nb.points import KINDS, PointStore, fetch_points, read_points, update_points
from sslts_nb.cli import main

HOUR, BARS = 3_600_000, 2500
NOW = int(time.time()*1000)
OPEN = NOW//HOUR*HOUR                                    # of the bar that is still open
TIMES = [OPEN - HOUR*n for n in range(BARS)][::-1]
ROUTES = {"open-interest": "open-interest", "mark": "mark-price-kline", "index": "index-price-kline",
          "funding": "funding/history"}
date = lambda ms: pd.Timestamp(int(ms), unit="ms", tz="UTC")


@cache
def truth(seed=0):
    "What the exchange has: (time, numbers) by route, and payments every eight hours, later every four."
    draw = np.random.default_rng(seed)
    close = 100*np.exp(np.cumsum(0.01*draw.standard_normal(BARS))).round(4)
    marks = [(at, c, c + 1, c - 1, c + 0.5) for at, c in zip(TIMES, close.tolist())]
    interest = [(at, value) for at, value in zip(TIMES, (1e6*draw.random(BARS)).round(2).tolist())]
    paid = [at for n, at in enumerate(TIMES) if at//HOUR % (8 if n < BARS//2 else 4) == 0]
    rates = [(at, round(rate, 6)) for at, rate in zip(paid, (1e-3*draw.standard_normal(len(paid))).tolist())]
    points = {("open-interest", "AUSDT"): interest, ("mark-price-kline", "AUSDT"): marks,
              ("index-price-kline", "AUSDT"): marks}
    return points, {"AUSDT": rates}


bars = cache(lambda: make_candles("AUSDT", "60", 100, NOW))

@pytest.fixture
def server():
    with BybitServer() as server:
        points, funding = truth()
        server.load({("AUSDT", "60"): bars()}, NOW, funding=funding, points=points)
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "The machine's hour stays the exchange's, and nobody waits for the disk."
    real = time.time
    monkeypatch.setattr(time, "time", lambda: min(real(), (OPEN + HOUR)/1000 - 1))
    monkeypatch.setattr(os, "fsync", lambda file: None)


def client(server): return Bybit(server.address, wait=0.001, rate=1e6)


def known(server, kind, begin, end):
    "What a store may have of a period: prices of closed bars, else what is older than a minute."
    rows = server.funding["AUSDT"] if kind == "funding" else server.points[ROUTES[kind], "AUSDT"]
    last = OPEN if kind in ("mark", "index") else NOW - 60_000
    return [row for row in rows if begin <= row[0] < min(end, last)]


def have(store, kind):
    "What the store has, as the exchange's rows."
    table = read_points(store.path(kind, "AUSDT", "60"), kind)
    return [(int(at), *numbers) for at, numbers in zip(table.index.asi8, table.to_numpy().tolist())]


def bring(store, server, kinds, begin=TIMES[0], end=NOW + 99*HOUR):
    return update_points(store, client(server), ["AUSDT"], "60", date(begin), date(end), kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_comes_once_and_none_is_asked_for_again(server, tmp_path, kind):
    store, route = PointStore(tmp_path), ROUTES[kind]
    middle = TIMES[700], TIMES[1900]
    bring(store, server, [kind], *middle)
    assert have(store, kind) == known(server, kind, *middle)
    assert server.counts[route] <= 1200//200 + 2
    server.counts.clear()
    bring(store, server, [kind], TIMES[900], TIMES[1500])
    assert not server.counts[route]
    line = bring(store, server, [kind]).loc[0]           # grows at both ends
    assert have(store, kind) == known(server, kind, TIMES[0], NOW + 99*HOUR)
    assert (line.points, line["from"]) == (len(have(store, kind)), date(have(store, kind)[0][0]))
    asked = server.asked(route)
    if kind != "funding":                                # both ends, and never more than one answer holds
        first, last, most = {"open-interest": ("startTime", "endTime", 200)}.get(kind, ("start", "end", 1000))
        assert all(int(page[last]) - int(page[first]) < most*HOUR for page in asked)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["500", "busy", "cut within", "html", "null result"])
def test_what_passes_is_asked_for_again(server, tmp_path, kind, fault):
    server.faults[ROUTES[kind]] = [fault]*2
    bring(PointStore(tmp_path), server, [kind], TIMES[100], TIMES[200])
    assert have(PointStore(tmp_path), kind) == known(server, kind, TIMES[100], TIMES[200])
    assert fault not in CODES or server.counts[ROUTES[kind]] >= 3


WRONG = {"no number": lambda at, first, *more: [at, "NaN", *more],
         "below zero": lambda at, first, *more: [at, "-1", *more],
         "another time": lambda at, *more: [str(int(at) + 1), *more], "too short": lambda at, *more: [at],
         "no time": lambda at, *more: ["soon", *more],
         "of last year": lambda at, *more: [str(int(at) - 8766*HOUR), *more]}


@pytest.mark.parametrize("kind", ["open-interest", "mark"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_row_that_is_none_is_never_stored(server, tmp_path, kind, wrong):
    def spoilt(handler, answer):
        rows, interest = answer["result"]["list"], kind == "open-interest"
        plain = [[row["timestamp"], row["openInterest"]] for row in rows] if interest else rows
        plain[3] = WRONG[wrong](*plain[3])
        as_sent = [dict(zip(("timestamp", "openInterest"), row)) for row in plain] if interest else plain
        handler.answer(answer | {"result": answer["result"] | {"list": as_sent}})
    store = PointStore(tmp_path)
    bring(store, server, [kind], TIMES[100], TIMES[150])
    before = store.path(kind, "AUSDT", "60").read_bytes()
    server.faults[ROUTES[kind]] = [spoilt]*4
    with pytest.raises(ExchangeUnavailable, match="AUSDT") as caught:
        bring(store, server, [kind], TIMES[100], TIMES[250])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert store.path(kind, "AUSDT", "60").read_bytes() == before
    bring(store, server, [kind], TIMES[100], TIMES[250])
    assert have(store, kind) == known(server, kind, TIMES[100], TIMES[250])


def test_prices_that_are_none_and_points_of_others(server):
    def ask(change):
        server.faults["mark-price-kline"] = [lambda handler, answer: handler.answer(change(answer))]*4
        return fetch_points(client(server), "mark", "AUSDT", "60", date(TIMES[0]), date(TIMES[9]))
    with_rows = lambda rows: lambda answer: answer | {"result": answer["result"] | {"list": rows(answer)}}
    rows_of = lambda answer: answer["result"]["list"]
    high_below_low = with_rows(lambda answer: [[row[0], "1", "0.5", "2", "1"] for row in rows_of(answer)])
    twice = with_rows(lambda answer: rows_of(answer) + [[str(TIMES[2]), "9", "9", "9", "9"]])
    other = lambda answer: answer | {"result": answer["result"] | {"symbol": "BUSDT"}}
    for change, words in [(high_below_low, "price that is none"), (twice, "comes twice"), (other, "BUSDT")]:
        with pytest.raises(ExchangeUnavailable, match=words): ask(change)
    assert len(fetch_points(client(server), "mark", "AUSDT", "60", date(TIMES[0]), date(TIMES[9]))) == 9


def test_what_came_before_a_failure_is_kept(server, tmp_path, monkeypatch):
    from sslts_nb import points
    monkeypatch.setattr(points, "_PIECE", 2)             # two pages are written at once
    store, truth = PointStore(tmp_path), known(server, "open-interest", TIMES[0], TIMES[-1])
    server.faults["open-interest"] = [None]*5 + ["403"]
    with pytest.raises(ExchangeUnavailable, match="403"): bring(store, server, ["open-interest"])
    assert have(store, "open-interest") == truth[:800]
    assert store.span(store.path("open-interest", "AUSDT", "60")) == (TIMES[0], TIMES[800])
    server.counts.clear()
    bring(store, server, ["open-interest"])
    assert have(store, "open-interest")[:len(truth)] == truth
    assert server.counts["open-interest"] == -(-(BARS - 800)//200)


def test_a_file_is_old_or_new(server, tmp_path, monkeypatch):
    "A disk that fails while a file is moved leaves the one of before, and no part of another."
    store = PointStore(tmp_path)
    bring(store, server, ["mark"], TIMES[0], TIMES[100])
    path = store.path("mark", "AUSDT", "60")
    before, replace = path.read_bytes(), os.replace
    def fails(*given): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="No space left"):
        bring(store, server, ["mark"], TIMES[0], TIMES[200])
    assert path.read_bytes() == before and not [*path.parent.glob("*.part")]
    monkeypatch.setattr(os, "replace", replace)
    (path.parent/f"_{path.name}.0123.part").write_bytes(b"torn")      # of a writer that was killed
    bring(store, server, ["mark"], TIMES[0], TIMES[200])
    assert not [*path.parent.glob("*.part")] and len(have(store, "mark")) == 200


def test_numbers_that_change_are_refused(server, tmp_path):
    store = PointStore(tmp_path)
    bring(store, server, ["open-interest"], TIMES[0], TIMES[10])
    other, _ = truth(1)
    path = store.path("open-interest", "AUSDT", "60")
    rows = pd.DataFrame(other["open-interest", "AUSDT"][5:15], columns=["timestamp", "open_interest"])
    rows = rows.assign(timestamp=pd.to_datetime(rows.timestamp, unit="ms", utc=True)).set_index("timestamp")
    with pytest.raises(InputError, match="with other numbers; nothing was changed"):
        store.add(path, rows, (TIMES[5], TIMES[15]))
    assert len(have(store, "open-interest")) == 10


def test_the_command(server, tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    start = f"{date(TIMES[-90]):%Y-%m-%d}"
    where = ["--bybit-url", server.address, "--store", str(tmp_path/"store")]
    line = ["fetch", "AUSDT", "--start", start, *where]
    assert main([*line, "--with", "funding,open-interest,mark"]) == 0
    said = capsys.readouterr().out
    for kind in ("funding", "open-interest", "mark"):
        begin = pd.Timestamp(start, tz="UTC").value//10**6
        found = have(PointStore(tmp_path/"store"), kind)
        assert found == known(server, kind, begin, NOW)[:len(found)] and len(found) > 9 and kind in said
    assert main([*line, "--with", "mark", "--interval", "7"]) == 2
    assert main([*line, "--with", "trades"]) == 2
    server.instruments.pop("AUSDT")
    assert main([*line, "--with", "index"]) == 2
    assert "AUSDT" in capsys.readouterr().err

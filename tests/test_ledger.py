"""A ledger says what was written, in the order and at the time of writing, or which line does not."""
import json, os, signal, subprocess, sys, time, tracemalloc
from dataclasses import replace

import numpy as np, pandas as pd, pytest

from small_bundle import UNTIL, small_bundle
from sslts_nb.cli import main
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import load_markets
from sslts_nb.baselines import ewma_variance
from sslts_nb.bundle import load_bundle
from sslts_nb.ledger import Ledger, chained, read_ledger, verify_ledger

HOUR = 3_600_000
MARKETS = load_markets(load_settings(source="simulated", end="2024-03-20"), ["SIM00", "SIM01", "SIM02"])
BUNDLE = load_bundle(small_bundle())
H = BUNDLE.about["horizon"]
NAMES = ["volatility", "low_90", "low_80", "low_50", "median", "high_50", "high_80", "high_90",
         "down", "neutral", "up"]


def said_of(symbol, candles):
    "The decisions of one market after the cut-off, by start."
    table = BUNDLE.forecast(candles).loc[UNTIL:]
    begun = {"symbol": symbol, "bundle": "small", "ready": True, "gap": 0, "reasons": [["volume", 3, 1.5]]}
    return [begun | {"start": start.isoformat()} | {name: row[name] for name in NAMES}
            for start, row in table.iterrows()]


SAID = {symbol: said_of(symbol, candles) for symbol, candles in MARKETS.items()}
MERGED = sorted((one for of in SAID.values() for one in of), key=lambda one: (one["start"], one["symbol"]))


def milliseconds(decision): return pd.Timestamp(decision["start"]).value//10**6


def keep(path, decisions, delay=1000, bundle=BUNDLE):
    "Write decisions, each so many milliseconds after the close of its bar."
    now = [milliseconds(decisions[0]) if decisions else 1_710_000_000_000]
    ledger = Ledger(path, bundle, lambda: now[0])
    for number, one in enumerate(decisions):
        now[0] = milliseconds(one) + HOUR + (delay[number] if isinstance(delay, list) else delay)
        ledger.write(one)
    ledger.close()
    return path


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    "Of a whole ledger: the announcement and 60 decisions."
    return keep(tmp_path_factory.mktemp("a")/"a.ledger", MERGED[:60]).read_bytes().splitlines(keepends=True)


def judged(path, decisions, delay=1000, markets=MARKETS, draws=20):
    "The verdict on a ledger of these decisions."
    return verify_ledger(read_ledger(keep(path, decisions, delay)), markets, draws)


def file_of(folder, lines):
    (folder/"b.ledger").write_bytes(b"".join(lines))
    return folder/"b.ledger"


def again(line, previous=None, **changed):
    "A line with other words and the hash that belongs to them; None takes a word away."
    found = json.loads(line)
    found.pop("hash")
    gone = {name for name, value in changed.items() if value is None}
    found = {name: value for name, value in (found | changed).items() if name not in gone}
    return chained(found, previous or found["previous"])


def head_of(line): return json.loads(line)["hash"]


# The chain

TAMPERED = {   # (lines) -> other lines, and the number of the line that is named
    "a number": (lambda a: [*a[:9], a[9].replace(b'"gap": 0', b'"gap": 1'), *a[10:]], 10),
    "a blank": (lambda a: [*a[:9], a[9].replace(b'"gap": 0', b'"gap":  0'), *a[10:]], 10),
    "a digit of the hash": (lambda a: [*a[:9], a[9][:-5] + b'zz"}\n', *a[10:]], 10),
    "a number and its hash": (lambda a: [*a[:9], again(a[9], gap=1), *a[10:]], 11),
    "the first number and its hash": (lambda a: [again(a[0], threshold=0.5), *a[1:]], 2),
    "a time and its hash": (lambda a: [*a[:9], again(a[9], written="2024-03-01T00:00Z"), *a[10:]], 10),
    "a line deleted": (lambda a: [*a[:9], *a[10:]], 10),
    "the first deleted": (lambda a: a[1:], 1),
    "a line inserted": (lambda a: [*a[:9], again(a[20], head_of(a[8])), *a[9:]], 11),
    "a line of another ledger": (lambda a: [*a[:9], again(a[9], "1"*64), *a[10:]], 10),
    "a line twice": (lambda a: [*a[:10], *a[9:]], 11),
    "two lines turned": (lambda a: [*a[:9], a[10], a[9], *a[11:]], 10),
    "an empty line": (lambda a: [*a[:9], b"\n", *a[9:]], 10),
    "a part of the middle": (lambda a: [*a[:9], a[9][:40] + b"\n", *a[10:]], 10),
    "zeros": (lambda a: [*a[:9], bytes(50) + b"\n", *a[9:]], 10)}


@pytest.mark.parametrize("kind", TAMPERED)
def test_tampering_is_found_and_named(kind, lines, tmp_path):
    change, number = TAMPERED[kind]
    path = file_of(tmp_path, change(lines))
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"b\.ledger: line {number} "): read_ledger(path)
    with pytest.raises(InputError, match=rf"b\.ledger: line {number} "): Ledger(path, BUNDLE)
    assert path.read_bytes() == before   # and it can be tried once more: nobody holds the lock


@pytest.mark.parametrize("kept", [1, 30, 60])
def test_a_cut_end_and_a_rewritten_file_need_a_head(kept, lines, tmp_path):
    path, head = file_of(tmp_path, lines[:kept]), head_of(lines[-1])
    assert read_ledger(path).lines == kept
    with pytest.raises(InputError, match=f"the head {head} is not in it"): read_ledger(path, {head: None})
    last = file_of(tmp_path, [*lines[:-1], again(lines[-1], gap=7)])
    assert read_ledger(last).lines == 61
    with pytest.raises(InputError, match="is not in it"): read_ledger(last, {head: None})
    forged = [one | {"median": one["high_50"]} for one in MERGED[:60]]
    assert read_ledger(keep(tmp_path/"c.ledger", forged)).lines == 61
    with pytest.raises(InputError, match="is not in it"):
        read_ledger(tmp_path/"c.ledger", {head_of(lines[30]): None})
    assert read_ledger(file_of(tmp_path, lines), {head: None, head_of(lines[3]): None}).head == head


def test_what_is_read_is_what_was_written(lines, tmp_path):
    record = read_ledger(file_of(tmp_path, lines))
    assert record.about["weights"] == json.loads(lines[0])["weights"] and record.bundles == ("small",)
    assert sum(map(len, record.forecasts.values())) == 60 and record.torn == 0
    for symbol, table in record.forecasts.items():
        wanted = pd.DataFrame([one for one in MERGED[:60] if one["symbol"] == symbol])
        assert [one.isoformat() for one in table.index] == [*wanted.start]
        np.testing.assert_array_equal(table[NAMES], wanted[NAMES].astype(float))
        assert (table.written == table.index.as_unit("ms").asi8 + HOUR + 1000).all()


# Hostile lines, whose hashes are right

HOSTILE = {
    "symbol that leads elsewhere": {"symbol": "../x"}, "symbol with a blank": {"symbol": "A B"},
    "empty symbol": {"symbol": ""}, "long symbol": {"symbol": "X"*31}, "symbol 5": {"symbol": 5},
    "symbol with a line end": {"symbol": "A\n"}, "symbol of another alphabet": {"symbol": "Ä"},
    "list of symbols": {"symbol": ["A"]}, "no symbol": {"symbol": None},
    "no start": {"start": None}, "start without a zone": {"start": "2024-03-02T00:00:00"},
    "start in a word": {"start": "now"}, "start of a number": {"start": 1.7e12},
    "start in year 1": {"start": "0001-01-01T00:00:00+23:00"}, "start of true": {"start": True},
    "no time of writing": {"written": None}, "written in a word": {"written": "later"},
    "another bundle": {"bundle": "better"}, "bundle 5": {"bundle": 5}, "ready in words": {"ready": "yes"},
    "no ready": {"ready": None}, "ready 1": {"ready": 1}, "no volatility": {"volatility": None},
    "volatility of true": {"volatility": True}, "volatility in words": {"volatility": "0.1"},
    "volatility 0": {"volatility": 0.}, "volatility below zero": {"volatility": -0.1},
    "a huge whole number": {"median": 10**400}, "a volatility of 1e300": {"median": 1e300},
    "bands that cross": {"low_50": 1.}, "no band": {"high_80": None}, "a list as band": {"high_80": [1.]},
    "probabilities of 1.2": {"up": 0.9, "down": 0.2, "neutral": 0.1}, "a negative one": {"up": -0.1},
    "one probability alone": {"up": None}, "a probability of nothing": {"up": 0.}}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_values(kind, lines, tmp_path):
    path = file_of(tmp_path, [lines[0], again(lines[1], **HOSTILE[kind])])
    with pytest.raises(InputError, match="b.ledger: line 2 ") as caught: read_ledger(path)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


def bound(text, previous):
    "A line of any text, with its hash."
    import hashlib
    body = text[:-1] + f', "previous": "{previous}"'.encode() + b"}"
    return body[:-1] + f', "hash": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


@pytest.mark.parametrize("kind, text", {
    "a megabyte": b'{"symbol": "' + b"X"*2**20 + b'"}',
    "deep": b'{"symbol": ' + b"["*30_000 + b"]"*30_000 + b"}", "NaN": b'{"volatility": NaN}',
    "infinity": b'{"volatility": -Infinity}', "a name twice": b'{"a": 1, "a": 2}',
    "a name twice inside": b'{"b": {"a": 1, "a": 2}}', "two hashes": b'{"hash": 1, "a": 2}',
    "two previous": b'{"previous": 1, "a": 2}', "no text": b'{"a": "\xff"}', "utf-8": '{"a": "ü"}'.encode(),
    "half of JSON": b'{"a": }', "many digits": b'{"a": ' + b"9"*5000 + b"}"}.items())
def test_hostile_texts(kind, text, lines, tmp_path):
    path = file_of(tmp_path, [lines[0], bound(text, head_of(lines[0]))])
    with pytest.raises(InputError, match="b.ledger: line 2 ") as caught: read_ledger(path)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


def test_a_line_without_end_is_not_read_into_memory(lines, tmp_path):
    path = file_of(tmp_path, [lines[0], b'{"a": "' + b"x"*50_000_000])
    tracemalloc.start()
    with pytest.raises(InputError, match="line 2 of 65,537 bytes"): read_ledger(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("change, words", [
    ({"format": 2}, "is of format 2; wanted 1"), ({"bundle": None}, "names no bundle"),
    ({"weights": "0a"}, "names no bundle"), ({"weights": 5}, "names no bundle"),
    ({"horizon": 0}, "horizon = 0"), ({"horizon": 2.5}, "horizon = 2.5"),
    ({"horizon": 100_000}, "more than ten years"), ({"horizon": 200, "interval": "M"}, "more than ten"),
    ({"interval": "7"}, "interval '7'"), ({"interval": []}, "interval"),
    ({"threshold": -1}, "threshold = -1"), ({"threshold": "x"}, "threshold"),
    ({"written": None}, "has written")])
def test_hostile_announcements(change, words, lines, tmp_path):
    with pytest.raises(InputError, match=f"line 1 .*{words}"):
        read_ledger(file_of(tmp_path, [again(lines[0], **change)]))


def test_a_second_announcement_is_of_the_same_question(lines, tmp_path):
    last = json.loads(lines[-1])
    for change in ({"horizon": 7}, {"interval": "D"}, {"threshold": 0.7}):
        path = file_of(tmp_path, [*lines, again(lines[0], last["hash"], written=last["written"], **change)])
        with pytest.raises(InputError, match=f"line 62 has {[*change][0]}"): read_ledger(path)


@pytest.mark.parametrize("text", [b"", b"{", b"\n", b"PAR1"*100, b"[]\n"])
def test_other_files(text, tmp_path):
    (tmp_path/"a").write_bytes(text)
    with pytest.raises(InputError): read_ledger(tmp_path/"a")
    with pytest.raises(InputError, match="no such file"): read_ledger(tmp_path/"b")
    with pytest.raises(InputError, match="regular file"): read_ledger(tmp_path)


# Writing

def test_symbols_of_exchanges_are_taken(tmp_path):
    odd = ["1000PEPEUSDT", "BRK.B", "BTC_USDT", "a", "X"*30]
    path = keep(tmp_path/"a", [MERGED[0] | {"symbol": name} for name in odd])
    assert [*read_ledger(path).forecasts] == odd


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if "writ" not in kind and "bundle" not in kind])
def test_what_would_not_be_read_is_not_written(kind, tmp_path):
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: 1_710_000_000_000)
    ledger.write(MERGED[0])
    before = (tmp_path/"a").read_bytes()
    one = {name: value for name, value in (MERGED[1] | HOSTILE[kind]).items() if value is not None}
    with pytest.raises(InputError, match="not written"): ledger.write(one)
    for name, value in {"volatility": np.nan, "median": np.inf, "hash": "mine"}.items():
        with pytest.raises(InputError, match="not written"): ledger.write(MERGED[1] | {name: value})
    assert (tmp_path/"a").read_bytes() == before
    assert ledger.write(MERGED[1])
    ledger.close()
    assert read_ledger(tmp_path/"a").lines == 3


def test_what_it_holds_is_dropped_also_after_a_restart(tmp_path):
    path = keep(tmp_path/"a", MERGED[:40])
    before, now = path.read_bytes(), milliseconds(MERGED[39]) + HOUR
    ledger = Ledger(path, BUNDLE, lambda: now)
    assert not any(ledger.write(one) for one in MERGED[:40]) and path.read_bytes() == before
    assert ledger.write(MERGED[40]) and not ledger.write(MERGED[40]) and not ledger.write(MERGED[3])
    assert ledger.head == head_of(path.read_bytes().splitlines()[-1])
    ledger.close()
    ledger.close()


def test_a_decision_that_is_not_ready_has_a_line(tmp_path):
    waiting = {name: MERGED[0][name] for name in ("symbol", "start", "bundle")}
    waiting |= {"ready": False, "median": np.nan}
    record = read_ledger(keep(tmp_path/"a", [waiting, *MERGED[3:6]]))
    assert record.lines == 5 and record.forecasts["SIM00"].volatility.isna().tolist() == [True, False]
    assert b'"median": null' in (tmp_path/"a").read_bytes()


def test_torn_ends_are_cut_off_and_said(lines, tmp_path, capsys):
    whole, path = b"".join(lines), tmp_path/"b.ledger"
    two = len(lines[-1]) + len(lines[-2])
    for cut in [*range(1, two, 97), two - 1, two, len(whole) - len(lines[0]), len(whole) - 1, len(whole)]:
        path.write_bytes(whole[:len(whole) - cut])
        torn = len(path.read_bytes()) - path.read_bytes().rfind(b"\n") - 1
        if torn and b"\n" in path.read_bytes(): assert read_ledger(path).torn == torn
        keep(path, MERGED[:60])
        assert path.read_bytes() == whole
        assert (f"{torn:,} bytes, was cut off" in capsys.readouterr().out) == bool(torn)


def test_a_clock_that_goes_back_breaks_nothing(tmp_path):
    seconds = iter([0, 5, -9000, 4, 6])
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: 1_710_000_000_000 + 1000*next(seconds))
    for one in MERGED[:4]: ledger.write(one)
    ledger.close()
    written = [json.loads(line)["written"][14:19] for line in (tmp_path/"a").read_bytes().splitlines()]
    assert written == ["00:00", "00:05", "00:05", "00:05", "00:06"]
    assert read_ledger(tmp_path/"a").lines == 5


class Full:
    "A file on a disk with room for part of a line."
    def __init__(self, file, how): self.file, self.how = file, how
    def write(self, text):
        written = self.file.write(text[:50])
        if self.how == "raises": raise OSError(28, "No space left on device")
        return written
    def __getattr__(self, name): return getattr(self.file, name)


@pytest.mark.parametrize("how", ["raises", "short"])
def test_a_full_disk_leaves_a_whole_ledger(how, tmp_path):
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: 1_710_000_000_000)
    ledger.write(MERGED[0])
    before, ledger.file = (tmp_path/"a").read_bytes(), Full(ledger.file, how)
    with pytest.raises(OSError, match="No space left"): ledger.write(MERGED[1])
    assert (tmp_path/"a").read_bytes() == before
    ledger.file = ledger.file.file   # there is room again
    assert ledger.write(MERGED[1])
    ledger.close()
    assert read_ledger(tmp_path/"a").lines == 3


def test_another_hand_in_the_file_is_noticed(tmp_path):
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: 1_710_000_000_000)
    ledger.write(MERGED[0])
    whole = (tmp_path/"a").read_bytes()
    for other in (whole + b"{", whole[:-9], b""):
        (tmp_path/"a").write_bytes(other)
        with pytest.raises(InputError, match="somebody else has written to it"): ledger.write(MERGED[1])
        assert (tmp_path/"a").read_bytes() == other
    (tmp_path/"a").write_bytes(whole)
    assert ledger.write(MERGED[1])
    ledger.close()


def test_another_bundle_takes_over(tmp_path):
    other = replace(BUNDLE, about=BUNDLE.about | {"name": "other"},
                    arrays=BUNDLE.arrays | {"above_median": BUNDLE.arrays["above_median"] + 1})
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: 1_710_000_000_000)
    ledger.write(MERGED[0])
    with pytest.raises(InputError, match="is of bundle 'other', which was not announced"):
        ledger.write(MERGED[1] | {"bundle": "other"})
    ledger.announce(BUNDLE)   # no line: it is announced
    ledger.announce(other)
    ledger.write(MERGED[1] | {"bundle": "other"})
    with pytest.raises(InputError, match="not announced"): ledger.write(MERGED[2])
    with pytest.raises(InputError, match="horizon"): ledger.announce(
        replace(BUNDLE, about=BUNDLE.about | {"horizon": 7}))
    ledger.close()
    record = read_ledger(tmp_path/"a")
    assert record.bundles == ("small", "other") and record.lines == 4
    keep(tmp_path/"a", MERGED[2:3])   # and back again
    assert read_ledger(tmp_path/"a").bundles == ("small", "other", "small")
    digests = {json.loads(line).get("weights") for line in (tmp_path/"a").read_bytes().splitlines()}
    assert len(digests - {None}) == 2


PROGRAM = """
import json, sys, time
from pathlib import Path
import pandas as pd
from sslts_nb.bundle import load_bundle
from sslts_nb.ledger import Ledger
path, bundle, decisions, pause = sys.argv[1:]
decisions = json.loads(Path(decisions).read_text())
starts = [pd.Timestamp(one["start"]).value//10**6 for one in decisions]
now = [starts[0]]
ledger = Ledger(path, load_bundle(bundle), lambda: now[0])
print("open", flush=True)
for number, (one, start) in enumerate(zip(decisions, starts)):
    now[0] = start + 3_601_000
    if ledger.write(one): time.sleep(float(pause))
    if number % 7 == 0: ledger.flush()
print("written", flush=True)
time.sleep(60)
"""


def started(path, pause):
    "Another process that writes all decisions into a ledger, and has opened it."
    decisions = path.with_name("decisions")
    decisions.write_text(json.dumps(MERGED))
    given = [str(path), small_bundle(), str(decisions), str(pause)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *given], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    for line in process.stdout:   # a torn end that was cut off is said before
        if line == "open\n": return process
    raise AssertionError("it did not open the ledger")


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_file(tmp_path):
    keep(tmp_path/"whole", MERGED)
    for wait in (0.05, 0.3, 0.7):
        process = started(tmp_path/"killed", 0.002)
        time.sleep(wait)
        killed(process)
        assert read_ledger(tmp_path/"killed").lines >= 1
    keep(tmp_path/"killed", MERGED)
    assert (tmp_path/"killed").read_bytes() == (tmp_path/"whole").read_bytes()


@pytest.mark.slow
def test_one_process_writes_at_a_time(tmp_path):
    process = started(tmp_path/"a", 0)
    assert process.stdout.readline() == "written\n"
    with pytest.raises(InputError, match="another process writes this ledger"): Ledger(tmp_path/"a", BUNDLE)
    (tmp_path/"link").symlink_to(tmp_path/"a")
    with pytest.raises(InputError, match="another process"): Ledger(tmp_path/"link", BUNDLE)
    assert read_ledger(tmp_path/"a").lines == len(MERGED) + 1   # reading is free
    killed(process)
    keep(tmp_path/"a", MERGED)


def test_one_process_opens_it_once(tmp_path):
    ledger = Ledger(tmp_path/"a", BUNDLE)
    with pytest.raises(InputError, match="another process"): Ledger(tmp_path/"a", BUNDLE)
    ledger.close()
    Ledger(tmp_path/"a", BUNDLE).close()


MEMORY = """
import resource, sys
from sslts_nb.bundle import load_bundle
from sslts_nb.ledger import Ledger, read_ledger
bundle, few, many = load_bundle(sys.argv[1]), *sys.argv[2:]
def peak(act, *given):
    act(*given)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
peak(lambda path: (Ledger(path, bundle).close(), read_ledger(path)), few)
peak(lambda path: Ledger(path, bundle).close(), many)
peak(lambda path: print(len(read_ledger(path).forecasts["SIM00"])), many)
"""


def long_ledger(path, n):
    "A ledger of so many decisions of one market."
    first = Ledger(path, BUNDLE, lambda: 1_000_000_000_000)
    head, _ = first.head, first.close()
    starts = pd.date_range("2005", periods=n + 1, freq="h", tz="UTC").strftime("%Y-%m-%dT%H:%M:%S+00:00")
    with open(path, "ab") as file:
        for start, written in zip(starts, starts[1:]):
            text = chained(MERGED[0] | {"start": start, "written": written}, head)
            head = text[-67:-3].decode()
            file.write(text)
    return str(path)


@pytest.mark.slow
def test_a_hundred_thousand_lines_in_flat_memory(tmp_path):
    paths = [long_ledger(tmp_path/str(n), n) for n in (1000, 100_000)]
    command = [sys.executable, "-c", MEMORY, small_bundle(), *paths]
    places = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=places, check=True)
    few, many, n_read, read = map(int, done.stdout.split())   # kilobytes
    assert n_read == 100_000 and os.path.getsize(paths[1]) > 60_000_000
    assert many - few < 2_000 and read - few < 60_000


# Times

@pytest.mark.parametrize("delay, counted", [(-HOUR//100 - 1, "early"), (-HOUR//100, "judged"), (0, "judged"),
                                            (HOUR//10, "judged"), (HOUR//10 + 1, "late"), (H*HOUR, "late")])
def test_early_and_late(delay, counted, tmp_path):
    said = SAID["SIM00"][:120]
    verdict = judged(tmp_path/"a", said, delay)
    counts = verdict.counts.loc["SIM00"]
    assert counts[counted] == 120 and counts[["early", "late", "judged"]].sum() == 120
    assert verdict.holds == (counted != "early")
    assert ("times do not hold" in verdict.sentence) == (counted == "early")
    assert bool(len(verdict.skill)) == (counted == "judged")


def test_late_ones_are_left_out_of_the_skill(tmp_path):
    said = SAID["SIM00"][:300]
    delay = [HOUR//2 if n % 3 == 0 else 1000 for n in range(300)]
    oracle = [one | {name: 50. for name in NAMES[:8]} if n % 3 == 0 else one for n, one in enumerate(said)]
    with_lies = judged(tmp_path/"a", oracle, delay)
    alone = judged(tmp_path/"b", [one for n, one in enumerate(said) if n % 3])
    assert with_lies.counts.late["SIM00"] == 100 and alone.counts.absent["SIM00"] == 99
    pd.testing.assert_frame_equal(with_lies.skill, alone.skill)


def test_absent_bars_and_a_market_that_is_dropped(tmp_path):
    gone = [*SAID["SIM01"][150:], *SAID["SIM02"][20:27]]
    found = judged(tmp_path/"a", [one for one in MERGED if one not in gone]).counts
    n = len(SAID["SIM00"])
    assert found.absent.to_dict() == {"SIM00": 0, "SIM01": n - 150, "SIM02": 7}
    assert found.open.to_dict() == {"SIM00": H, "SIM01": 0, "SIM02": H}


def test_candles_with_holes(tmp_path):
    "Bars that the candles do not have are open, and outcomes look over a hole at the next bars."
    candles = MARKETS["SIM00"].drop(pd.to_datetime([one["start"] for one in SAID["SIM00"][50:53]]))
    candles.attrs = MARKETS["SIM00"].attrs
    verdict = judged(tmp_path/"a", SAID["SIM00"], markets={"SIM00": candles})
    counts = verdict.counts.loc["SIM00"]
    assert counts.open == H + 3 and counts.judged == counts.lines - H - 3 and counts.absent == 0


@pytest.mark.parametrize("every", [1, 3, 6, 24])
def test_proven_is_what_a_head_came_in_time_for(every, tmp_path):
    said, now, heads = SAID["SIM00"][:200], [0], {}
    published = {}   # by number of the decision
    now[0] = milliseconds(said[0])
    ledger = Ledger(tmp_path/"a", BUNDLE, lambda: now[0])
    for number, one in enumerate(said):
        now[0] = milliseconds(one) + HOUR + 1000
        ledger.write(one)
        if number % every == every - 1:
            published[number] = now[0] + 60_000
            heads[ledger.head] = pd.Timestamp(published[number], unit="ms", tz="UTC")
    ledger.close()
    heads = dict(reversed(heads.items()))   # in any order
    wanted = 0
    for number, one in enumerate(said):
        after = [when for at, when in published.items() if at >= number]
        wanted += bool(after) and min(after) < milliseconds(one) + (1 + H)*HOUR
    verdict = verify_ledger(read_ledger(tmp_path/"a", heads), MARKETS, 20)
    assert verdict.counts.proven["SIM00"] == wanted and (wanted == 200) == (every == 1)
    with pytest.raises(InputError, match="wanted a time with its zone"):
        read_ledger(tmp_path/"a", {[*heads][0]: pd.Timestamp("2024-03-02")})
    untimed = verify_ledger(read_ledger(tmp_path/"a", dict.fromkeys(heads)), MARKETS, 20)
    assert untimed.counts.proven["SIM00"] == 0 and "No head" not in untimed.sentence


# Skill, against the formulas written out

def naive(said, candles):
    "R2, coverage of the bands, and the losses less those of the plain rows, bar by bar in plain Python."
    close, at = candles.close.to_numpy(), {time: n for n, time in enumerate(candles.index)}
    ewma = ewma_variance(candles, (0.94,)).to_numpy()[:, 0]
    theta, rows = BUNDLE.about["threshold"], []
    moves = [close[t + H]/close[t] - 1 for t in range(len(close) - H)]
    side = [1 + (move > theta) - (move < -theta) for move in moves]
    for one in said:
        t = at[pd.Timestamp(one["start"])]
        if t + H >= len(close): continue
        r = [np.log(close[n]/close[n - 1]) for n in range(t + 1, t + H + 1)]
        y = np.log(sum(x*x for x in r)/H)
        qlike = lambda variance: np.exp(y)/variance - np.log(np.exp(y)/variance) - 1
        known = [1 + side[:t - H + 1].count(k) for k in range(3)]
        row = {"y": y, "error": (y - 2*np.log(one["median"]))**2,
               "over_ewma": qlike(np.exp(ewma[t])) - qlike(one["volatility"]**2),
               "direction": np.log(one[["down", "neutral", "up"][side[t]]]*sum(known)/known[side[t]])}
        for band in (50, 80, 90):
            row[f"inside_{band}%"] = one[f"low_{band}"] <= np.exp(y/2) <= one[f"high_{band}"]
        rows.append(row)
    table = pd.DataFrame(rows).astype(float)
    table["r2"] = 1 - table.error/table.y.var(ddof=0)
    return table.mean().drop(["y", "error"])


def test_skill_is_that_of_the_formulas(tmp_path):
    verdict = judged(tmp_path/"a", SAID["SIM00"])
    wanted, found = naive(SAID["SIM00"], MARKETS["SIM00"]), verdict.skill.loc["SIM00"]
    np.testing.assert_allclose(found[wanted.index].astype(float), wanted, rtol=1e-6, atol=1e-9)
    for name in wanted.index: assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert [*verdict.skill.index] == ["SIM00"]   # of one market there is no line of all


def test_the_ridge_sees_nothing_of_the_ledgers_time(tmp_path):
    "Other candles after the outcome of the last judged forecast, and other ones before, where it learns."
    record = read_ledger(keep(tmp_path/"a", SAID["SIM00"][:200]))
    over = lambda candles: verify_ledger(record, {"SIM00": candles}, 20).skill.over_features["SIM00"]
    candles, end = MARKETS["SIM00"], pd.Timestamp(SAID["SIM00"][199]["start"])
    later, earlier = candles.copy(), candles.copy()
    later.loc[end + pd.Timedelta(hours=H + 1):, "close"] *= 1.5
    earlier.iloc[:600, :4] = candles.iloc[:600, :4]**3
    assert over(later) == over(candles) != over(earlier)


def test_little_history_has_no_ridge(tmp_path):
    said = SAID["SIM00"][:200]
    begin = MARKETS["SIM00"].index.get_loc(pd.Timestamp(said[0]["start"]))
    begun = lambda bars: {"SIM00": MARKETS["SIM00"].iloc[begin - bars:]}
    skill = lambda bars: judged(tmp_path/"a", said, markets=begun(bars)).skill
    assert "over_features" in skill(1000) and "over_features" not in skill(999)
    assert skill(999).r2["SIM00"] == skill(1000).r2["SIM00"]


def test_markets_that_are_one_count_once(tmp_path):
    twins = {name: MARKETS["SIM00"] for name in ("A", "B", "C")}
    said = {names: [x | {"symbol": name} for x in SAID["SIM00"] for name in names] for names in ("A", "ABC")}
    one, three = (judged(tmp_path/names, said[names], markets=twins).skill.astype(float) for names in said)
    np.testing.assert_allclose(three.loc["all"], one.loc["A"], rtol=1e-9)


def test_prices_that_stand_still_have_no_outcome(tmp_path):
    still = MARKETS["SIM00"].assign(open=5., high=5., low=5., close=5.)
    still.attrs = MARKETS["SIM00"].attrs
    verdict = judged(tmp_path/"a", SAID["SIM00"], markets={"SIM00": still})
    assert verdict.counts.judged["SIM00"] == 0 and not len(verdict.skill)
    assert "Fewer than 100 forecasts" in verdict.text()


def test_all_candles_are_wanted(tmp_path):
    record = read_ledger(keep(tmp_path/"a", MERGED[:30]))
    with pytest.raises(InputError, match="no candles of SIM01; wanted"):
        verify_ledger(record, {"SIM00": MARKETS["SIM00"], "SIM02": MARKETS["SIM02"]})
    with pytest.raises(InputError, match="no decisions"): judged(tmp_path/"b", [])


# The command

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for symbol, candles in MARKETS.items(): candles.to_parquet(folder/f"{symbol}-60.parquet")
    return folder


def command(capsys, *line):
    code = main([*map(str, line)])
    said = capsys.readouterr()
    assert said.err.count("\n") == (code != 0) and "Traceback" not in said.err
    return code, said.out, said.err


def test_the_command(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--files", files, "--bootstrap", 50]
    path = keep(tmp_path/"a.ledger", MERGED)
    head = read_ledger(path).head
    code, out, _ = command(capsys, "ledger", "verify", path, *asked)
    assert code == 0 and f"head {head}" in out and "all " in out and "No head was given" in out
    timed = f"{head}@2024-03-20T00:00:00Z"
    code, out, _ = command(capsys, "ledger", "verify", "a.ledger", "--head", timed, *asked)
    assert code == 0 and "No head" not in out
    for line, words in {
            ("a.ledger", "--head", "0"*64): "is not in it", ("a.ledger", "--head", "soon"): "64 hex digits",
            ("b.ledger",): "no such file", (".",): "no such file"}.items():
        code, _, said = command(capsys, "ledger", "verify", *line, *asked)
        assert code == 2 and words in said
    assert command(capsys, "ledger", "forge", "a.ledger")[0] == 2
    assert command(capsys, "ledger", "verify")[0] == 2
    code, out, said = command(capsys, "ledger", "verify", "a.ledger", "--files", tmp_path)
    assert code == 2 and "chain unbroken" in out and "SIM00" in said


@pytest.mark.parametrize("decisions, delay, code, words", [
    ([], 0, 0, "no decisions yet"), (MERGED[:30], 0, 0, "Fewer than 100"),
    (MERGED[:30], -HOUR, 2, "do not hold"), (MERGED[:30], H*HOUR, 0, "30 late")])
def test_exit_codes_of_times(decisions, delay, code, words, files, tmp_path, capsys):
    path = keep(tmp_path/"a", decisions, delay)
    found, out, said = command(capsys, "ledger", "verify", path, "--files", files, "--bootstrap", 50)
    assert found == code and words in out and ("before their bar had closed" in said) == (code == 2)


def test_exit_code_of_a_broken_chain(files, tmp_path, capsys, lines):
    path = file_of(tmp_path, TAMPERED["a number"][0](lines))
    code, out, said = command(capsys, "ledger", "verify", path, "--files", files)
    assert (code, out) == (2, "") and "line 10 is not as it was written" in said
    torn = file_of(tmp_path, [*lines, b'{"half'])
    code, out, _ = command(capsys, "ledger", "verify", torn, "--files", files, "--bootstrap", 50)
    assert code == 0 and "and 6 bytes of a line that is not whole" in out
    assert torn.read_bytes().endswith(b"half")   # reading changes nothing


@pytest.mark.parametrize("change", [{"interval": "M", "horizon": 120}, {"interval": "W", "horizon": 500},
                                    {"horizon": 80_000}, {"interval": "1"}, {"interval": "D"}])
def test_hostile_questions_end_in_one_line(change, files, tmp_path, capsys, lines):
    begun = again(lines[0], **change)
    path = file_of(tmp_path, [begun, again(lines[1], head_of(begun))])
    code, out, said = command(capsys, "ledger", "verify", path, "--files", files, "--bootstrap", 50)
    assert code == 2 and "chain unbroken" in out


def test_a_name_from_a_file_moves_no_cursor(files, tmp_path, capsys, lines):
    path = file_of(tmp_path, [again(lines[0], bundle="a\x1b[2J\nb")])
    code, out, _ = command(capsys, "ledger", "verify", path, "--files", files)
    assert code == 0 and "a [2J b, 5 bars" in out

"""Inputs that once gave a wrong number, lost work or a traceback (command): given, wanted."""
import contextlib, errno, io, json, os, re, shutil, signal, sys, threading
from functools import cache

import numpy as np, pandas as pd, pytest

from fault_table import Refused, check, fault
from small_bundle import small_bundle
from sslts_nb import arguments, cli, day, inputs, market, report, results
from sslts_nb.cli import main
from sslts_nb.settings import find_settings_file, load_settings, training_bytes
from sslts_nb.inputs import try_folder
from sslts_nb.results import Recorder, write_folder
from sslts_nb.papers import as_benchmark, load_benchmark, simulate_transformer

ROWS = []
ONCE = {(room, name): cache(getattr(room, name)) for room, name in [   # they read files
    (arguments, "build_parser"), (arguments, "method_names"), (cli, "method_names")]}
HOURS = pd.date_range("2024-01-01", periods=800, freq="h", tz="UTC", name="timestamp")
SMALL = ["--window", "20", "--crop", "30", "--methods", "ts2vec", "--steps", "9999999"]   # it would not end


@pytest.fixture(autouse=True)
def as_a_user(tmp_path, monkeypatch):
    "A folder of one's own, and none of the caller's settings."
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for (room, name), made in ONCE.items(): monkeypatch.setattr(room, name, made)


def command(line, out=None):
    "Exit code of a command, with what it says on its error stream: one line or none."
    errors, out = io.StringIO(), out or io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        code = main(line.split() if isinstance(line, str) else line)
    assert errors.getvalue().count("\n") == bool(code) and "Traceback" not in errors.getvalue()
    return code, errors.getvalue()


def said(line, code, words):
    "Whether a command ends with this code and says so."
    found, text = command(line)
    return found == code and bool(re.search(words, text)) or (found, text)


@contextlib.contextmanager
def instead(name, function, module=cli):
    "A part of the command replaced."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, function)
        yield


def settings_of(line):
    "The settings with which a command would begin."
    taken = []
    with instead("_run", taken.append): assert command(line)[0] == 0
    return taken[0]


def ini(folder, text, code="utf-8"):
    (folder/"settings.ini").write_text(text, encoding=code)
    return folder/"settings.ini"


def bars(folder, name, close, times=HOURS):
    "A csv of bars with these closes."
    frame = pd.DataFrame(dict.fromkeys(["open", "high", "low", "close"], close))
    frame.assign(volume=1., timestamp=times).to_csv(folder/name, index=False)


# ---- 4: what the checks find is shown

@fault(ROWS, 4, "400 missing hours and a close times ten", True)
def _(folder):
    close = 100*np.exp(0.001*np.sin(np.arange(1200)))
    close[900] *= 10
    times = pd.date_range("2024-01-01", periods=1200, freq="h", tz="UTC")
    kept = np.r_[:300, 700:1200]
    bars(folder, "A-60.csv", close[kept], times[kept])
    out = io.StringIO()
    with instead("run", lambda candles, settings, say: (folder, None), report):
        command("run --files . --symbol A", out)
    line = out.getvalue().splitlines()[0]
    return bool(re.fullmatch(r"checks of A 60: price jump: 2, first .*; missing: 400, first 2024-01-13 12:00",
                             line)) or line


# ---- 16, 17, 18: settings

for text in ["[ Judging ]\nhorizon = 7\n", "  [judging]\n  horizon = 7\n",
             "[data]\nruns = a\n  [judging]\nhorizon = 7\n",
             "[judging]  # mine\r\nhorizon = 7\r\n"]:
    for code in ["utf-8", "utf-8-sig", "utf-16"]:
        @fault(ROWS, 16, f"{code} {text!r}", 7)
        def _(folder, text=text, code=code):
            ini(folder, text, code)
            return load_settings().horizon

for number, text, words in [
        ("16", "[Study]\nsteps = 7\n", "line 1: .study. is now"),
        ("16+", "[juding]\nhorizon = 7\n", "line 1: unknown"),
        ("16+", "horizon = 7\n", "line 1"),
        ("16+", "[judge]\nhorizon = 7\n", "line 1: unknown section 'judge'"),
        ("16+", "[judging] horizon = 7\n", "line 1: .*no more"),
        ("16+", "[DEFAULT]\nhorizon = 7\n", "line 1"),
        ("16+", "[judging]\nhorizon = 5\n[Judging]\nwindow = 7\n", "line 3"),
        ("16+", "[data]\nfiles = a\n  symbol = X\n", "line 2: files = 'a symbol = X'"),
        ("16+", "[data]\nruns = 'here'\n", "line 2.*quotation"),
        ("16+", "[data]\nruns = a # b\n", "line 2.*comments"),
        ("4", "[judging]\nhorizon = 7\0\n", "line 2: .*belongs to no text")]:
    @fault(ROWS, number, repr(text), Refused(words))
    def _(folder, text=text):
        ini(folder, text)
        return load_settings()

@fault(ROWS, 16, "UTF-16 without its mark", Refused("line 1: .*wanted UTF-8"))
def _(folder):
    ini(folder, "[judging]\nhorizon = 7\n", "utf-16-le")
    return load_settings()

@fault(ROWS, "16+", "another program's file", None)
def _(folder):
    ini(folder, "[DEFAULT]\nlib_name = x\nuser = y\n[server]\nthreads = 4\nport = 80\nhost = a\n")
    return find_settings_file()

@fault(ROWS, "16+", "a settings.ini that leads nowhere", Refused("settings.ini"))
def _(folder):
    (folder/"settings.ini").symlink_to(folder/"moved.ini")
    return find_settings_file()

@fault(ROWS, 17, "steps in a file of one's own", (7, 9, 20, 8))
def _(folder):
    own = load_settings(ini(folder, "[training]\nsteps = 7\n")).steps
    quick = load_settings(ini(folder, "[training]\nsteps = 7\n[quick]\nsteps = 9\n")).steps
    other = load_settings(ini(folder, "[costs]\nfee = 0\n")).steps
    return own, quick, other, load_settings(ini(folder, "[training]\nsteps = 7\n"), steps=8).steps

@fault(ROWS, 18, "files without source files", ["files"]*4)
def _(folder):
    flag = settings_of("run --files here --symbol Y").source
    ini(folder, "[data]\nfiles = here\n")
    file = settings_of("run").source
    ini(folder, "[data]\nsource = auto\n")
    both = settings_of("run --files here").source
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLTS_FILES", "here")
        return [flag, file, both, settings_of("run --source auto").source]

@fault(ROWS, "18+", "files above another source", Refused("files = here is given, but source = sample"))
def _(folder): return load_settings(ini(folder, "[data]\nsource = sample\n"), files="here")

@fault(ROWS, "18+", "another source above files", "sample")
def _(folder): return load_settings(ini(folder, "[data]\nfiles = here\n"), source="sample").source

for given, words in [({"runs": ""}, "runs is empty"), ({"encoders": ""}, "encoders is empty"),
                     ({"runs": "a\0b"}, "plain text"), ({"runs": "a\nb"}, "plain text"),
                     ({"runs": "\udcff"}, "plain"),
                     ({"symbol": "../x"}, "letters and digits"),
                     ({"start": "2024-02", "end": "2024-01"}, "before"),
                     ({"bybit_url": "api.bybit.com"}, "wanted an address such as"),
                     ({"bybit_url": "http://a:port"}, "wanted an address such as"),
                     ({"bybit_url": "https://u:secret@a"}, "^bybit_url holds one of @ . #"),
                     ({"hidden": 4096, "depth": 16, "batch_size": 65536, "crop": 100000},
                      "depth = 16.*memory at least"),
                     ({"batch_size": 65536, "crop": 100000},
                      "batch_size = 65536, crop = 100000.*memory at least")]:
    @fault(ROWS, "4+", str(given), Refused(words))
    def _(folder, given=given): return load_settings(folder_settings(folder), **given)

def folder_settings(folder): return ini(folder, "[data]\nsource = sample\n")

@fault(ROWS, "4+", "a number of threads in superscript", True)
def _(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "²")
        return load_settings().threads >= 1

@fault(ROWS, "4+", "memory grows with every part of the product", True)
def _(folder):
    s = load_settings(hidden=8, dimensions=8, depth=1, batch_size=2, crop=8)
    larger = [load_settings(**{"hidden": 8, "dimensions": 8, "depth": 1, "batch_size": 2, "crop": 8} | one)
              for one in [{"hidden": 16}, {"dimensions": 16}, {"depth": 2}, {"batch_size": 4}, {"crop": 16}]]
    return all(training_bytes(one) > training_bytes(s) for one in larger)


# ---- 19: the papers' series

def benchmark_csv(folder, frame):
    frame.to_csv(folder/"ETTh1.csv")
    return load_benchmark(load_settings(ett=str(folder)), "ETTh1")

SERIES = simulate_transformer()
for given, frame in {"newest first": SERIES[::-1], "a row twice": SERIES.iloc[[0, *range(len(SERIES))]],
                     "a row absent": SERIES.drop(SERIES.index[7]), "one row": SERIES[:1],
                     "no row": SERIES[:0],
                     "seven hours": SERIES.set_axis(pd.date_range("2016", periods=len(SERIES), freq="7h")),
                     "two days": SERIES.set_axis(pd.date_range("2016", periods=len(SERIES), freq="2D")),
                     "numbers for times": SERIES.reset_index(drop=True)}.items():
    @fault(ROWS, 19 if given == "newest first" else "19+", f"ETTh1, {given}",
           Refused("ETTh1.*regular series"))
    def _(folder, frame=frame): return benchmark_csv(folder, frame)

for given, value in {"a word": "x", "a comma": "1,5", "infinity": np.inf, "beyond 32 bits": 1e39}.items():
    @fault(ROWS, "19+", f"ETTh1 with {given}", Refused("OT at 2016-07-01 12:00:00 is not a finite number"))
    def _(folder, value=value):
        frame = SERIES.astype({"OT": object})
        frame.iloc[3, 6] = value
        return benchmark_csv(folder, frame)

@fault(ROWS, "19+", "a column that is constant 0.1", np.zeros(len(SERIES)))
def _(folder): return as_benchmark(SERIES.assign(HUFL=0.1), "a").targets[:, 0]

@fault(ROWS, "19+", "a column twice", Refused("no column 'OT', or two"))
def _(folder): return as_benchmark(pd.concat([SERIES, SERIES[["OT"]]], axis=1), "a")


# ---- 26, 28: folders of runs

def text(path): path.write_text("x")

@fault(ROWS, 26, "twelve runs that end together", 12)
def _(folder):
    ready, made = threading.Barrier(12), []
    def one(path):
        ready.wait()
        text(path)
    write = lambda: made.append(write_folder(folder/"runs", "a", {"report.html": one}))
    threads = [threading.Thread(target=write) for _ in range(12)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return len({run for run in made if [path.name for path in run.iterdir()] == ["report.html"]})

@fault(ROWS, 26, "a name that another process takes at the last moment", ["b.txt", "a.txt"])
def _(folder):
    now = results.datetime.now(results.timezone.utc)
    class Clock:
        @staticmethod
        def now(zone): return now
    with instead("datetime", Clock, results):
        first = write_folder(folder, "a", {"b.txt": text})
        with instead("os", Blind(os), results): second = write_folder(folder, "a", {"a.txt": text})
    return [path.name for run in (first, second) for path in run.iterdir()]

class Blind:
    "The module os to which no path is there, the first time that it is asked."
    def __init__(self, module):
        self.module, self.path, self.asked = module, self, 0
    def lexists(self, path):
        self.asked += 1
        return self.asked > 1 and os.path.lexists(path)
    def __getattr__(self, name): return getattr(self.module, name)

for source, name in [("CCXT/Binance", "CCXT-Binance"), ("", "run"), ("../x", "x"), ("ü", "run"),
                     ("a"*300, "a"*80),
                     ("files (bybit)", "files-bybit")]:
    @fault(ROWS, 28, f"a source named {source[:20]!r}", f"-{name}")
    def _(folder, source=source): return write_folder(folder/"runs", source, {"a": text}).name[15:]

for line, words in {"paper ts2vec --data ../ett/ETTh1": "wanted a name such as ETTh1",
                    "paper ts2vec --data /ETTh1": "a name",
                    "paper ts2vec --data .": "a name", "paper tnc --data ../x": "unknown data",
                    "paper ts2vec --data ETTh1": "ett is not set",
                    "paper mae --data simulated": "no paper's table",
                    "paper ts2vec --data ETTh1 --ett .": "there is no such file"}.items():
    @fault(ROWS, 28, line, True)
    def _(folder, line=line, words=words): return said(line, 2, words)

@fault(ROWS, "28+", "a name that leads out of ett", Refused("wanted a name such as ETTh1"))
def _(folder): return load_benchmark(load_settings(ett=str(folder)), "../ETTh1")

@fault(ROWS, "28+", "a chapter's name that leads out of the folder", Refused("wanted a name of letters"))
def _(folder): return Recorder("../study", load_settings(), "x", "2024", folder)

@fault(ROWS, "5+", "a link in the place of a recorder's unfinished file", "mine")
def _(folder):
    (folder/"precious").write_text("mine")
    (folder/"study.part").symlink_to(folder/"precious")
    Recorder("study", load_settings(profile="full"), "x", "2024", folder)("a", 1.)
    assert (folder/"study.json").is_file() and not (folder/"study.json").is_symlink()
    return (folder/"precious").read_text()


# ---- 27: the place of writing is tried before the work

def no_work(*given, **named): raise AssertionError("the work began")

def full_disk(folder, name): raise OSError(errno.ENOSPC, "No space left on device", str(folder))

for line in ["run --source sample", "pretrain NASDAQ --source sample", "paper ts2vec --data simulated"]:
    for place, code in [("/proc/x", 2), ("file", 2), ("file/x", 2)]:
        @fault(ROWS, 27, f"{line} --runs {place}", True)
        def _(folder, line=line, place=place, code=code):
            (folder/"file").touch()
            with instead("load_market", no_work, market), instead("load_markets", no_work, market):
                return said(f"{line} --runs {place}", code, "runs = .* cannot be made a folder")

    @fault(ROWS, 27, f"{line}, on a full disk", True)
    def _(folder, line=line):
        with instead("try_folder", full_disk, cli): return said(line, 1, "runs: No space left on device")

@fault(ROWS, 27, "a disk that fills up while a megabyte is tried", (1, []))
def _(folder):
    def full(file): raise OSError(errno.ENOSPC, "No space left on device")
    with instead("fsync", full, os): code, _ = command("run --source sample --runs runs")
    return code, [*folder.iterdir()]

@fault(ROWS, 27, "encoders and checkpoint that are files", True)
def _(folder):
    (folder/"file").touch()
    return (said("run --source sample --encoders file", 2, "encoders = .* cannot be made a folder") is True
            and said("pretrain A --source sample --checkpoint file/a", 2, "checkpoint = ") is True)

@fault(ROWS, 27, "a trial leaves nothing", [])
def _(folder):
    try_folder(folder/"a"/"b", "runs")
    return [*folder.iterdir()]

@fault(ROWS, "4+", "a disk that is full while a run is saved", ("x", ["report.html"], errno.ENOSPC))
def _(folder):
    def full(path):
        path.mkdir()
        (path/"model").write_text("ha")
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match="model is not written, but report.html") as caught:
        write_folder(folder/"runs", "a", {"report.html": text, "model": full, "b.csv": text})
    (kept,) = (folder/"runs").iterdir()
    assert kept.name.endswith("-a-incomplete") and caught.value.filename == str(kept)
    return (kept/"report.html").read_text(), [path.name for path in kept.iterdir()], caught.value.errno

@fault(ROWS, "4+", "a fault of ours while a run is saved", [])
def _(folder):
    with pytest.raises(ZeroDivisionError): write_folder(folder, "a", {"a": text, "b": lambda path: 1/0})
    return [*folder.iterdir()]


# ---- a bundle in daily use: model, places and endings are tried before it, and nothing is half-written

DAY = "forecast SIM00 --threads 1 --source simulated"

def day_said(line, code, words, more=""):
    "Whether a command of the day ends so; the model is one that loads."
    return said(f"{line} --threads 1 --source simulated --model {small_bundle()} {more}", code, words)

for line, words in {
        "--model nowhere": "nowhere is no folder; wanted a bundle",
        "--model file": "file has no manifest.json",
        "--model empty": "empty has no manifest.json", "--model ~nosuchuser/x": "--model = .*no place",
        "--model loop": "--model = .*no place", f"--model {'x'*300}": "--model = .*no place",
        "--out a.txt": "--out = .*wanted a name that ends in .parquet or .csv",
        "--out a": "--out = .*ends in",
        "--out a.csv.gz": "--out = .*ends in", "--plot a.csv": "--plot = .*wanted a name that ends in .png",
        "--out empty.csv": "empty.csv: there is something that is no file",
        "--out fifo.csv": "fifo.csv: there is something that is no file",
        "--out file/a.csv": "--out = .*cannot be made a folder",
        "--out /proc/x/a.csv": "cannot be made a folder",
        "--plot file/a.png": "--plot = .*cannot be made a folder",
        "--out loop/a.csv": "--out = .*no place"}.items():
    @fault(ROWS, "23", f"{line[:40]}, before the work", True)
    def _(folder, line=line, words=words):
        for name in ("empty", "empty.csv", "model"): (folder/name).mkdir()
        (folder/"file").touch()
        (folder/"model"/"manifest.json").touch()
        (folder/"loop").symlink_to(folder/"loop")
        os.mkfifo(folder/"fifo.csv")
        with instead("load_bundle", no_work, day):
            given = line if "--model" in line else f"--model model {line}"
            return all(said(f"{command} SIM00 {given}", 2, words) is True for command in arguments.DAY)

for line, words in {
        "nowhere --out files": "MODEL = 'nowhere': .*nowhere is no folder; wanted a bundle",
        "empty --out files": "empty has no manifest.json", "model --out file": "--out = .*that is no folder",
        "model": "required: --out", "model --out file/a": "--out = .*cannot be made a folder",
        "model --out files --to onxn": "unknown to 'onxn'; did you mean 'onnx'",
        "--out files": "required: model"}.items():
    @fault(ROWS, "23", f"export {line[:40]}, before the work", True)
    def _(folder, line=line, words=words):
        for name in ("empty", "model"): (folder/name).mkdir()
        (folder/"model"/"manifest.json").touch()
        (folder/"file").touch()
        return said(f"export {line}", 2, words)

@fault(ROWS, "23", "a full disk, before the work", True)
def _(folder):
    (folder/"manifest.json").touch()
    with instead("try_folder", full_disk, inputs), instead("load_bundle", no_work, day):
        return said(f"{DAY} --model . --out a.csv", 1, "--?out|No space left on device")

for line, words in {"--interval D": "interval = D: small wants 60",
                    "--end 2024-01-10": "216 bars; small wants more",
                    "--start 2024-03-01 --end 2024-02-01": "does not lie before"}.items():
    @fault(ROWS, "23", f"a bundle of hours and {line}", True)
    def _(folder, line=line, words=words): return day_said("anomaly SIM00", 2, words, line)

@fault(ROWS, "23", "a symbol that is not there, after one that is", (True, []))
def _(folder): return day_said("encode SIM00,NOWHERE", 2, "NOWHERE", "--out a.csv"), [*folder.iterdir()]

@fault(ROWS, "23", "a market that is too short, after one that is not", (True, []))
def _(folder):
    real = market.load_markets
    def shorter(*given):
        markets = real(*given)
        return markets | {"SIM01": markets["SIM01"].iloc[-90:]}
    with instead("load_markets", shorter, day), instead("answer", no_work, day):
        done = day_said("forecast SIM00,SIM01", 2, "SIM01: 90 bars; small wants", "--out a.csv")
    return done, [*folder.iterdir()]

@fault(ROWS, "23", "a backtest of bars that the bundle was trained on", (True, []))
def _(folder):
    words = "0 bars after 2024-02-29 23:00.*, the cut-off of small; wanted 100 or more"
    return day_said("backtest SIM00", 2, words, "--end 2024-03-01 --out a.csv"), [*folder.iterdir()]

@fault(ROWS, "23", "a flipped bit of a bundle's weights", True)
def _(folder):
    shutil.copytree(small_bundle(), folder/"copy")
    weights = bytearray((folder/"copy/heads.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder/"copy/heads.safetensors").write_bytes(weights)
    return said(f"{DAY} --model copy", 2, "heads.safetensors: changed since it was written")

for place in ["a.csv", "a.parquet", "a.png"]:
    @fault(ROWS, "23", f"a disk that is full at the end of {place}", (True, b"before"))
    def _(folder, place=place):
        (folder/place).write_bytes(b"before")
        def full(*given): raise OSError(errno.ENOSPC, "No space left on device", place)
        with instead("replace", full, os):
            flag = "--plot" if place.endswith("png") else "--out"
            words = f"{place}: No space left on device"
            done = day_said("forecast SIM00", 1, words, f"--end 2024-03-01 {flag} {place}")
        assert [path.name for path in folder.iterdir()] == [place]
        return done, (folder/place).read_bytes()

for place, words in {"file": "there is something that is no bundle",
                     "empty": "that is no bundle; wanted another",
                     "/proc/x/y": "--bundle = .*cannot be made a folder", "file/x": "cannot be made a folder",
                     "loop": "no place"}.items():
    @fault(ROWS, "23", f"a bundle that is to be {place}", True)
    def _(folder, place=place, words=words):
        (folder/"empty").mkdir()
        (folder/"file").touch()
        (folder/"loop").symlink_to(folder/"loop")
        with instead("load_markets", no_work, market):
            return said(f"pretrain SIM00 --source simulated --bundle {place}", 2, words)

@fault(ROWS, "23", "a bundle in several processes", True)
def _(folder):
    with pytest.MonkeyPatch.context() as patch, instead("load_markets", no_work, market):
        patch.setenv("WORLD_SIZE", "2")
        return said("pretrain SIM00 --source simulated --bundle a", 2, "2 processes: a bundle is made in one")


# ---- section 4: what users and disks do

@fault(ROWS, "4+", "ten days of hours", True)
def _(folder):
    return said(["run", "--source", "simulated", "--end", "2024-01-11", *SMALL], 2, "labelled training bars")

for given, close in {"that stand still": np.full(800, 1.), "of which the end stands still": np.r_[
        100*np.exp(0.02*np.random.default_rng(0).standard_normal(500).cumsum()), np.full(300, 100.)]}.items():
    @fault(ROWS, "4+", f"bars {given}", True)
    def _(folder, close=close):
        bars(folder, "A-60.csv", close)
        return said(["run", "--files", ".", "--symbol", "A", *SMALL], 2, "label|no whole test bar")

@fault(ROWS, "4+", "a window of pre-training that no fold has", True)
def _(folder):
    line = "run --source sample --methods ts2vec,tnc --crop 3000 --steps 9999999"
    return said(line, 2, "trains on .* bars")

for line, code, words in [
        ("run --runs ~nosuchuser/x", 2, "runs = .*no place on this machine"),
        ("run --runs loop", 2, "no place"),
        ("run --settings loop", 2, "settings = .*no place"), (f"run --runs {'x'*300}", 2, "no place"),
        (f"run --runs {'x/'*3000}", 2, "no place"), ("run --settings .", 2, "no ordinary file"),
        ("run --settings fifo", 2, "no ordinary file"),
        ("run --settings absent.ini", 2, "there is no such settings file"),
        ("paper ts2vec --data fifo --ett .", 2, "there is no such file"),
        (["run", "--settings", ""], 2, "ordinary file"),
        (["fetch", "A, A"], 2, "comes twice"), (["fetch", "A,,B"], 2, "'' is no symbol"),
        (["fetch", "A B"], 2, "'A B'"),
        ("fetch A --bybit-url api.bybit.com", 2, "wanted an address such as"),
        ("fetch A --bybit-url http://[", 2, "wanted an address such as")]:
    @fault(ROWS, "4+", str(line)[:60], True)
    def _(folder, line=line, code=code, words=words):
        (folder/"loop").symlink_to(folder/"loop")
        os.mkfifo(folder/"fifo")
        os.mkfifo(folder/"fifo.csv")
        return said(line, code, words)

@fault(ROWS, "4+", "symbols with a blank", "A,B")
def _(folder):
    taken = []
    with instead("_fetch", lambda settings, symbols: taken.append(symbols)): command(["fetch", "A, B"])
    return taken[0]

@fault(ROWS, "4+", "a working folder that is deleted", True)
def _(folder):
    (folder/"gone").mkdir()
    os.chdir(folder/"gone")
    os.rmdir(folder/"gone")
    try: return said("run --source sample", 2, "the current folder does not exist any more")
    finally: os.chdir(folder)

for value in ["abc", "0", "-1", "", "1.5", "²"]:
    @fault(ROWS, "4+", f"WORLD_SIZE={value}", True)
    def _(folder, value=value):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORLD_SIZE", value)
            return said("pretrain NASDAQ --source sample", 2, "WORLD_SIZE = ")

def raising(error):
    def act(settings): raise error
    return act

for error, code in [(MemoryError("39 GiB"), 1),
                    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1),
                    (RuntimeError("CUDA out of memory."), 1), (OSError(errno.ENOSPC, "full", "a"), 1),
                    (OSError(errno.EIO, "broken", "a"), 1), (PermissionError(errno.EACCES, "denied", "a"), 2),
                    (OSError(errno.EROFS, "read-only", "a"), 2), (ValueError("I/O error (os error 28)"), 1),
                    (FloatingPointError("the loss is nan"), 2), (KeyboardInterrupt(), 130),
                    (ConnectionError("x"), 1),
                    (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), 2)]:
    @fault(ROWS, "4+", repr(error)[:50], code)
    def _(folder, error=error):
        with instead("_run", raising(error)): return command("run --source sample")[0]

@fault(ROWS, "4+", "nested brackets in somebody's file", 2)
def _(folder):
    with instead("_run", lambda settings: json.loads("["*100_000)): return command("run --source sample")[0]

for error in [ValueError("x"), KeyError("x"), TypeError("x"), AssertionError(), RuntimeError("x"),
              ZeroDivisionError()]:
    @fault(ROWS, "4+", f"a fault of ours keeps its traceback: {error!r}", True)
    def _(folder, error=error):
        with instead("_run", raising(error)), pytest.raises(type(error)): main(["run", "--source", "sample"])
        return not isinstance(sys.stdout, cli._Stream)

class Leaves(io.StringIO):
    "A reader who has read one line and leaves, or a disk that has room for one."
    def __init__(self, error):
        super().__init__()
        self.error = error
    def write(self, text):
        if "\n" in self.getvalue(): raise self.error
        return super().write(text)

def finished(settings):
    print("first line")
    for line in ["Sharpe ± se", "läuft"]: print(line)
    open("saved", "w").close()
    print("report: here")

for given, out, wanted in [("a reader who leaves", Leaves(BrokenPipeError(errno.EPIPE, "x")), 0),
                           ("a full disk behind the output", Leaves(OSError(errno.ENOSPC, "No space left")),
                            1),
                           ("an ascii terminal", io.TextIOWrapper(io.BytesIO(), "ascii"), 0)]:
    @fault(ROWS, "4+", given, wanted)
    def _(folder, out=out):
        with instead("_run", finished): code, text = command("run --source sample", out)
        assert (folder/"saved").exists() and ("report: here" in text) == bool(code)
        return code

@fault(ROWS, "4+", "no standard output at all", 0)
def _(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(cli, "_run", finished)
        code = main(["run", "--source", "sample"])
    assert (folder/"saved").exists()
    return code

@fault(ROWS, "4+", "SIGINT, and what it turned into on its way", 130)
def _(folder):
    def interrupted(settings):
        try: os.kill(os.getpid(), signal.SIGINT); signal.pause()
        except KeyboardInterrupt: raise ImportError("a module that swallowed it") from None
    before = signal.signal(signal.SIGINT, cli._interrupt)
    try:
        with instead("_run", interrupted): return command("run --source sample")[0]
    finally: signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

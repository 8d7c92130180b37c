"""The whole way, as a user starts it: `sslts run` in a process of its own, its folder, its refusals."""
import json, os, re, subprocess, sys

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import load_settings
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.papers import load_benchmark, raw_lags, ridge_forecast
from sslts_nb.cli import main

SMALL = ["--source", "sample", "--profile", "quick", "--folds", "1", "--steps", "15", "--bootstrap", "50"]


def sslts(*arguments, folder, **environment):
    "Run the command as a user would, with none of the caller's own settings."
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSLTS_")}
    command = [sys.executable, "-m", "sslts_nb.cli", *arguments]
    how = {"cwd": folder, "env": clean | environment}
    return subprocess.run(command, **how, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    done = sslts("run", *SMALL, "--runs", "runs", folder=folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder/"runs").iterdir()
    return done.stdout, run


@pytest.mark.slow
def test_prints_headline_and_path(finished):
    out, run = finished
    assert re.search(r"report: .*report\.html", out) and str(run) in out
    for row in ("majority class", "HAR", "hand-made features", "PCA of windows", "random weights", "TS2Vec",
                "TNC", "CoST", "MAE", "buy and hold"): assert row in out
    assert "NASDAQ D from sample" in out


@pytest.mark.slow
def test_folder_is_complete(finished):
    _, run = finished
    assert re.fullmatch(r"\d{8}-\d{6}-sample", run.name)
    for name in ("report.html", "settings.json", "headline.csv", "headline.json", "scores.csv",
                 "backtest.csv", "alarms.csv", "scores.png", "equity.png", "alarms.png", "model/config.json",
                 "model/model.safetensors"):
        assert (run/name).stat().st_size > 0, name
    assert json.loads((run/"settings.json").read_text())["steps"] == 15


@pytest.mark.slow
def test_report_is_self_contained_and_agrees_with_its_tables(finished):
    _, run = finished
    page = (run/"report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert page.lower().count("<!doctype html>") == 1
    assert not re.search(r"""(?:src|href)=(?!["']?data:)""", page)
    rows = json.loads((run/"headline.json").read_text())
    assert rows["data"] in page
    for row in rows["rows"]: assert row["accuracy"] in page


@pytest.mark.slow
def test_every_table_names_its_data(finished):
    _, run = finished
    for path in run.glob("*.csv"):
        assert pd.read_csv(path).data.str.contains("NASDAQ D from sample").all(), path
    for path in run.glob("*.json"):
        if path.name != "settings.json": assert "seeds 0" in json.loads(path.read_text())["data"], path


@pytest.mark.slow
def test_saved_model_encodes(finished):
    encoder = DilatedConvEncoder.from_pretrained(finished[1]/"model")
    used = json.loads((finished[1]/"settings.json").read_text())
    assert encoder.encode(np.zeros((200, 4), "float32")).shape == (200, used["dimensions"])


@pytest.mark.slow
def test_pictures_are_not_blank(finished):
    from matplotlib.image import imread
    for path in finished[1].glob("*.png"): assert imread(path)[..., :3].std() > 0.01, path


@pytest.mark.slow
@pytest.mark.parametrize("arguments, says", [
    (["--source", "sample", "--symbol", "DOGEUSDT"], "DOGEUSDT"),
    (["--source", "sample", "--start", "2018-11-01"], "bars"),
    (["--source", "sample", "--start", "yesterday"], "start"),
    (["--source", "files", "--files", "nowhere"], "nowhere"),
    (["--source", "files", "--files", ".", "--symbol", "EMPTY"], "EMPTY-60.parquet"),
    (["--source", "files", "--files", ".", "--symbol", "GARBAGE"], "GARBAGE-60.parquet"),
    (["--source", "files", "--files", ".", "--symbol", "COLUMN"], "volume"),
    (["--source", "files", "--files", ".", "--symbol", "SHORT", "--start", "2024-01-01"], "bars"),
    (["--source", "files", "--files", ".", "--symbol", "../../etc"], "../../etc"),
    (["--source", "nasdaq"], "unknown source 'nasdaq'"),
    (["--horizont", "5"], "did you mean '--horizon'?"),
    (["--horizon", "5.5"], "whole number"),
    (["--features", "chapters"], "did you mean 'chapter'?"),
    (["--methods", "ts2vec,tcn"], "did you mean 'tnc'?"),
    (["--source", "sample", "--threshold", "0.9"], "no training label"),
    (["--source", "sample", "--runs", "GARBAGE-60.parquet"], "cannot be made a folder"),
])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capfd, arguments, says):
    hours = pd.date_range("2024-01-01", periods=30, freq="h", tz="UTC", name="timestamp")
    bars = pd.DataFrame(dict.fromkeys(["open", "high", "low", "close", "volume"], 1.0), hours).reset_index()
    bars.to_parquet(tmp_path/"SHORT-60.parquet")
    bars.drop(columns="volume").to_parquet(tmp_path/"COLUMN-60.parquet")
    (tmp_path/"EMPTY-60.parquet").touch()
    (tmp_path/"GARBAGE-60.parquet").write_bytes(b"PAR1 not really")
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SMALL[4:], "--runs", "runs", *arguments]) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("sslts: ") and errors.count("\n") == 1, errors
    assert says in errors
    assert not (tmp_path/"runs").exists() or not list((tmp_path/"runs").iterdir())


@pytest.mark.slow
def test_bad_input_from_a_shell(tmp_path):
    done = sslts("run", "--source", "files", "--files", "nowhere", "--runs", "runs", folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_typo_in_settings_file_names_the_line(tmp_path):
    (tmp_path/"settings.ini").write_text("[judging]\nwindow = 60\nhorizn = 5\n")
    done = sslts("run", folder=tmp_path)
    assert done.returncode == 2
    assert "settings.ini line 3: unknown setting 'horizn'; did you mean 'horizon'?" in done.stderr


LARGE = "torch", "numpy", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "requests", "fastprogress"
START = f"""
import re, sys
from pathlib import Path
from sslts_nb.cli import main
try: code = main(sys.argv[1:])
except SystemExit as end: code = end.code or 0
status = Path("/proc/self/status")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1] if status.exists() else 0
print(code, peak, *(name for name in {LARGE} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("line, code", [
    ("--help", 0), ("--version", 0), ("run --help", 0), ("pretrain --help", 0), ("paper --help", 0),
    ("fetch --help", 0), ("", 2), ("rnu", 2), ("run --sorce x", 2), ("run --horizon", 2),
    ("run --horizon 0", 2), ("run --horizon five", 2), ("run --source nasdaq", 2),
    ("run --features chapters", 2), ("run --interval 7", 2),
    ("run --methods ts2vec,tcn", 2), ("run --profile fast", 2), ("run --start soon", 2),
    ("run --settings nowhere.ini", 2), ("paper ts2vac --data x", 2), ("pretrain X --method ts2vac", 2),
    ("pretrain X --precision fp8", 2), ("fetch X --end 2024-13-01", 2)])
def test_help_and_refusals_import_nothing_large(tmp_path, line, code):
    "What makes them quick and small: all that takes seconds and hundreds of megabytes stays out."
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSLTS_")}
    command = [sys.executable, "-c", START, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60)
    said, peak, *large = done.stderr.splitlines()[-1].split()
    assert (int(said), large) == (code, []), done.stderr
    assert int(peak) < 120*1024   # kB


@pytest.mark.slow
def test_paper(tmp_path):
    "The tables of a paper as a command: printed, kept, and of the raw lags they say what the protocol gives."
    small = ["--forecast-steps", "1", "--forecast-crop", "100", "--forecast-horizons", "24", "--runs", "runs",
             "--encoders", "encoders"]
    done = sslts("paper", "ts2vec", "--data", "simulated", *small, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path/"runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-paper-ts2vec-simulated", folder.name)
    for kind in ("univariate", "multivariate"):
        table = pd.read_csv(folder/f"{kind}.csv", index_col="row")
        benchmark = load_benchmark(load_settings(), "simulated", kind == "univariate")
        assert len(table) == 11 and np.isfinite(table[["24", "average"]]).all(axis=None)
        assert benchmark.name in done.stdout
        wanted = ridge_forecast(raw_lags(benchmark, 48), benchmark, 24)["mse"]
        assert table.loc["48 raw lags", "24"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_unknown_environment_variable(tmp_path):
    done = sslts("run", folder=tmp_path, SSLTS_HORIZN="5")
    assert done.returncode == 2 and "SSLTS_HORIZN" in done.stderr

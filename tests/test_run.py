"""The whole way, as a user starts it: `sslts run` in a process of its own, its folder, its refusals."""
import inspect, json, os, re, subprocess, sys
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np, pandas as pd, pytest

import sslts_nb.pretrain, sslts_nb.study
from sslts_nb import arguments, cli, papers
from sslts_nb.settings import CHOICES, Settings, load_settings
from sslts_nb.market import simulate_market
from sslts_nb.labels import Dataset
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.methods import study_task
from sslts_nb.papers import load_benchmark, raw_lags, ridge_forecast
from sslts_nb.arguments import COMMANDS
from sslts_nb.cli import main
from sslts_nb.study import run_study

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
    assert page.count('<svg class="wide"') == page.count('<svg class="narrow"') == 4
    assert page.lower().count("<!doctype html>") == 1
    assert not re.search(r"""src=|href=["']?(?:\w+:|//)(?<!data:)""", page)
    rows = json.loads((run/"headline.json").read_text())
    data, tested = rows["data"].split("; tested from ")
    date, folds, seeds, profile = tested.split(", ")
    said = [data, f"{date}, in {folds}", f"({seeds.removeprefix('seeds ')})", profile.split()[1]]
    for part in said: assert part in page, part
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
    ("pretrain X --precision fp8", 2), ("fetch X --end 2024-13-01", 2),
    *((f"{command} --help", 0) for command in arguments.DAY), ("forecast X --model nowhere", 2),
    ("encode X --model .", 2), ("anomaly X,X", 2), ("backtest X --rule d", 2), ("backtest X --target 0", 2),
    ("forecast X --interval 7", 2), ("pretrain X --bundle b --checkpoint c", 2),
    ("pretrain X --horizon 9", 2)])
def test_help_and_refusals_import_nothing_large(tmp_path, line, code):
    "What makes them quick and small: all that takes seconds and hundreds of megabytes stays out."
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSLTS_")}
    command = [sys.executable, "-c", START, *line.split()]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60)
    said, peak, *large = done.stderr.splitlines()[-1].split()
    assert (int(said), large) == (code, []), done.stderr
    assert int(peak) < 120*1024   # kB


@pytest.mark.slow
def test_paper(tmp_path, monkeypatch, capsys):
    """The tables of a paper as a command: printed, kept, and of the raw lags they say what the protocol
    gives. On every second of the simulated bars: the chapter makes the same tables from all of them."""
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    few = papers.simulate_transformer()[::2]
    monkeypatch.setattr(papers, "simulate_transformer", lambda: few)
    small = ["--forecast-steps", "1", "--forecast-crop", "100", "--forecast-horizons", "24", "--runs", "runs",
             "--encoders", "encoders"]
    assert main(["paper", "ts2vec", "--data", "simulated", *small]) == 0
    said = capsys.readouterr().out
    (folder,) = (tmp_path/"runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-paper-ts2vec-simulated", folder.name)
    for kind in ("univariate", "multivariate"):
        table = pd.read_csv(folder/f"{kind}.csv", index_col="row")
        benchmark = load_benchmark(load_settings(), "simulated", kind == "univariate")
        assert len(table) == 11 and np.isfinite(table[["24", "average"]]).all(axis=None)
        assert benchmark.name in said
        wanted = ridge_forecast(raw_lags(benchmark, 48), benchmark, 24)["mse"]
        assert table.loc["48 raw lags", "24"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_unknown_environment_variable(tmp_path):
    done = sslts("run", folder=tmp_path, SSLTS_HORIZN="5")
    assert done.returncode == 2 and "SSLTS_HORIZN" in done.stderr


# Every option arrives: one that is read and then forgotten is worse than one that is refused

OWN = {"fetch": ["A"], "paper": ["tnc", "--data", "template"], "run": [],
       "pretrain": ["A", "--bundle", "kept"], "export": ["kept", "--out", "files"],
       "models": ["kept"], "live": ["A", "--replay", "candles", "--out", "a.jsonl"],
       "audit": ["a.b:c"], "ledger": ["verify", "a.ledger"],
       **{command: ["A"] for command in arguments.DAY}}
OTHER = {str: "1", int: "9", float: "0.07", tuple[int, ...]: "9, 8", tuple[str, ...]: "tnc, mae"}   # by type
OTHERS = {"bybit_url": "http://localhost:9", "interval": "240", "start": "2021-02-03", "end": "2022-03-04",
          "symbol": "X9", "features": "masked", "source": "simulated", "files": "near/files",
          "first_train": "0.3", "anomaly_quantile": "0.7", "bootstrap": "77"}
OPTIONS = [(command, name) for command, (_, names) in COMMANDS.items() for name in names]
PLACES = ("files", "store", "ett", "ucr", "runs", "encoders")


@pytest.fixture
def heard(tmp_path, monkeypatch):
    "What each command is given in the place of its work; a settings.ini above the current folder."
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    (tmp_path/"settings.ini").write_text("[judging]\nhorizon = 3\n")
    (tmp_path/"here").mkdir()
    monkeypatch.chdir(tmp_path/"here")
    given = []
    for command in COMMANDS:
        order = [*inspect.signature(getattr(cli, f"_{command}")).parameters]
        def note(*all, of=command, order=order, **named):
            names = sorted(named, key=lambda name: order.index(name) if name in order else len(order))
            given.append((of, *all, *map(named.get, names)))
        monkeypatch.setattr(cli, f"_{command}", note)
    monkeypatch.setattr(arguments, "build_parser", PARSER)
    return given


PARSER = cache(arguments.build_parser)


@pytest.mark.parametrize("command, name", OPTIONS)
def test_an_option_arrives(heard, command, name):
    (kind,) = (field.type for field in fields(Settings) if field.name == name)
    text = OTHERS.get(name) or OTHER[kind]
    assert main([command, *OWN[command], f"--{name.replace('_', '-')}", text]) == 0
    ((of, settings, *_),) = heard
    wanted = load_settings(**{name: text})
    assert of == command and getattr(wanted, name) != getattr(load_settings(), name)
    if name in PLACES:   # from where the user stands, not from the folder of settings.ini
        assert Path(getattr(settings, name)) == settings.path(name) == Path.cwd().resolve()/text
        wanted = replace(wanted, **{name: getattr(settings, name)})
    assert settings == wanted


@pytest.mark.parametrize("command, given, wanted", [
    ("fetch", ["A,B"], ["A,B"]), ("fetch", ["A", "--with", "mark,funding"], ["A", ("mark", "funding")]),
    ("paper", ["cost", "--data", "simulated"], ["cost", "simulated"]),
    ("pretrain", ["A", "--method", "cost", "--precision", "bf16"], ["A", "cost", "bf16", "", ""]),
    ("pretrain", ["A", "--checkpoint", "/a/b"], ["A", "ts2vec", "fp32", "/a/b", ""]),
    ("pretrain", ["A", "--bundle", "/a/b"], ["A", "future", "fp32", "", "/a/b"]),
    ("pretrain", ["A", "--bundle", "/a/b", "--method", "cost"], ["A", "cost", "fp32", "", "/a/b"]),
    *((command, ["A,B"], ["A,B", "hours-small", "", ""]) for command in ("encode", "forecast", "anomaly")),
    ("encode", ["A", "--model", "m", "--out", "/a.csv", "--plot", "/b.png"], ["A", "m", "/a.csv", "/b.png"]),
    ("audit", ["a:b", "c:d.e", "a:b"], [["a:b", "c:d.e"], [], 0, 60., ""]),
    ("audit", ["a:b", "--columns", "high, low", "--history", "9", "--seconds", "7", "--out", "/x"],
     [["a:b"], ["high", "low"], 9, 7., "/x"]),
    ("backtest", ["A"], ["A", "hours-small", "", "", "volatility", 0.2]),
    ("backtest", ["A", "--rule", "direction", "--target", "0.3"],
     ["A", "hours-small", "", "", "direction", 0.3])])
def test_what_a_command_takes_besides_arrives(heard, command, given, wanted):
    assert main([command, *given]) == 0
    assert heard[0][2:] == tuple(wanted)


@pytest.mark.parametrize("line, place", [
    ("pretrain A --checkpoint kept", 3), ("pretrain A --bundle kept", 4), ("encode A --out kept", 2),
    ("backtest A --plot kept", 3), ("audit a:b --out kept", 4)])
def test_a_place_is_meant_from_where_one_stands(heard, line, place):
    assert main(line.split()) == 0
    assert heard[0][2 + place] == str(Path.cwd().resolve()/"kept")


@pytest.mark.parametrize("profile", CHOICES["profile"])
@pytest.mark.parametrize("command", [command for command, (_, names) in COMMANDS.items() if "seeds" in names])
def test_the_profile_and_the_settings_file_arrive(heard, command, profile):
    Path("mine.ini").write_text("[training]\nlearning_rate = 0.25\n")
    assert main([command, *OWN[command], "--profile", profile]) == 0
    assert main([command, *OWN[command], "--settings", "mine.ini"]) == 0
    (_, first, *_), (_, second, *_) = heard
    assert (first.profile, first.horizon, first.folder) == (profile, 3, str(Path.cwd().resolve().parent))
    assert first.steps == load_settings(profile=profile).steps
    assert (second.learning_rate, second.horizon, second.folder) == (0.25, 5, str(Path.cwd().resolve()))


@pytest.mark.slow
def test_pretrain_passes_on_what_it_was_given(tmp_path, monkeypatch):
    "Method, precision, checkpoint, seed and numbers reach the training; the card says them."
    taken = {}
    def pretrain(task, series, **given):
        taken.update(given, task=task, series=series)
        return pd.DataFrame({"loss": [2., 1.]})
    monkeypatch.setattr(sslts_nb.pretrain, "pretrain", pretrain)
    monkeypatch.chdir(tmp_path)
    numbers = {"steps": 3, "batch_size": 5, "crop": 48, "learning_rate": 0.02}
    flags = [text for name, value in numbers.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["pretrain", "SIM01", "--source", "simulated", "--end", "2024-02-01", "--method", "mae",
                 "--precision", "bf16", "--checkpoint", "kept", "--seeds", "4,5", "--runs", "runs",
                 "--hidden",
                 "16", "--dimensions", "12", "--depth", "1", "--features", "masked", *flags]) == 0
    assert {name: taken[name] for name in ("precision", "seed")} == {"precision": "bf16", "seed": 4}
    assert taken["checkpoint"] == str(tmp_path.resolve()/"kept") and [*taken["series"]] == ["SIM01"]
    assert type(taken["task"]).__name__ == "MAE" and taken["task"].encoder.dimensions == 12
    assert (taken["steps"], taken["batch_size"]) == (3, 5)
    (card,) = tmp_path.glob("runs/*-pretrain-mae/model/README.md")
    for words in ("SIM01", "masked", "mae", "bf16"): assert words in card.read_text()


# What joins a study's parts: encoders that carry the number of their fold and seed in the place of training

@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    "A study without training, and what its parts were given."
    market = simulate_market(1, end=pd.Timestamp("2024-03-01", tz="UTC")).candles["SIM00"]
    market.attrs["source"], beside = "files", tmp_path_factory.mktemp("recorded")
    (beside/"funding"/"bybit").mkdir(parents=True)
    paid_at = pd.date_range(market.index[0], market.index[-1], freq="8h", unit="ms", name="timestamp")
    payments = pd.DataFrame({"timestamp": paid_at, "rate": 0.0001*(np.arange(len(paid_at)) % 7 - 2)})
    payments.to_parquet(beside/"funding"/"bybit"/"SIM00.parquet")
    settings = load_settings(source="simulated", files=str(beside/"market"), profile="quick",
                             features="market", folds=2, seeds="3, 4", window=24,
                             crop=48, hidden=8, dimensions=8, depth=1, bootstrap=50, methods="ts2vec",
                             fee=0.0013, slippage=0.0007, anomaly_quantile=0.9, horizon=4)
    data, heard = Dataset(market, settings), {}
    @cache
    def encoder_of(fold, seed): return study_task(settings, data.features.shape[1], 10*fold + seed).encoder
    def pretrain_fold(data, fold, seed, method="ts2vec"):
        return encoder_of(fold.number, seed), pd.DataFrame({"loss": [10.*fold.number + seed]})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("trade_rows", "alarm_table", "row_positions"):
            def spied(*given, of=name, real=getattr(sslts_nb.study, name)):
                heard.setdefault(of, []).append((given, answer := real(*given)))
                return answer
            patch.setattr(sslts_nb.study, name, spied)
        for module in (sslts_nb.study, sslts_nb.methods): patch.setattr(module, "pretrain_fold",
                                                                        pretrain_fold)
        return run_study(market, settings), {name: calls[-1] for name, calls in heard.items()}, encoder_of


@pytest.mark.slow
def test_the_last_folds_encoder_of_the_first_seed_is_kept(joined):
    study, _, encoder_of = joined
    assert study.encoder is encoder_of(1, 3)
    assert study.tables["losses"].iloc[0].to_dict() == {
        f"TS2Vec, fold {fold + 1}, seed {seed}": 10.*fold + seed for fold in (0, 1) for seed in (3, 4)}


@pytest.mark.slow
def test_accounts_are_of_the_test_bars_at_the_studys_costs(joined):
    study, heard, _ = joined
    first = study.data.folds[0].test[0]
    positions, candles, fee, slippage, funding = heard["trade_rows"][0]
    assert (fee, slippage) == (0.0013, 0.0007)
    assert funding is study.funding and funding.attrs["source"] == "recorded, bybit"
    assert candles.equals(study.data.candles.iloc[first:])
    assert {*study.accounts} == {*positions}
    for name, account in study.accounts.items():   # the first seed's
        wanted = sslts_nb.study.backtest(positions[name][0], candles, fee, slippage, funding=funding)
        pd.testing.assert_frame_equal(account, wanted)
    assert any(not np.array_equal(*runs) for runs in positions.values() if len(runs) == 2)   # seeds differ
    held = study.accounts["buy and hold"]          # each rate falls due at the open of its bar
    rates = funding["SIM00"].reindex(held.index).fillna(0)
    np.testing.assert_allclose(held.funding.iloc[1:], rates.iloc[1:], rtol=0.1, atol=1e-12)


@pytest.mark.slow
def test_positions_stand_at_the_bar_whose_close_decides_them(joined):
    _, heard, _ = joined
    (direction, n_bars, first), positions = heard["row_positions"]
    for name, runs in direction.runs.items():
        for said, position in zip(runs, positions[name], strict=True):
            wanted = dict.fromkeys(range(first, n_bars),
                                   0) | dict(zip(direction.position, said.argmax(1) - 1))
            assert [*position] == [*wanted.values()]


@pytest.mark.slow
def test_alarms_are_of_the_first_folds_encoder_and_training_bars(joined):
    study, heard, encoder_of = joined
    data, fold = study.data, study.data.folds[0]
    scores, candles, train, test, quantile, lead = heard["alarm_table"][0]
    assert np.array_equal(train, fold.train) and np.array_equal(test, np.arange(fold.test[0], len(candles)))
    assert (quantile, lead) == (0.9, 4)
    vectors = encoder_of(0, 3).encode(data.scaled(fold))
    wanted = sslts_nb.study.mahalanobis_scores(vectors, fold.train)
    np.testing.assert_array_equal(scores["TS2Vec distance"], wanted)
    bare = sslts_nb.study.untrained(data, "ts2vec").represent(fold, 3)
    wanted_bare = sslts_nb.study.mahalanobis_scores(bare, fold.train)
    np.testing.assert_array_equal(scores["random-weights distance"], wanted_bare)
    np.testing.assert_array_equal(study.distance, wanted)
    assert study.threshold == np.nanquantile(wanted[fold.train], 0.9) != np.nanquantile(wanted[test], 0.9)


@pytest.mark.slow
def test_gains_and_differences_are_between_the_rows_that_they_name(joined):
    study, _, _ = joined
    scores, differences = study.tables["scores"], study.tables["comparisons"]
    asked = study.tables["differences"]
    pd.testing.assert_frame_equal(asked, differences.loc[asked.index])   # the same pairs, the same numbers
    for gain, over, sign in [("accuracy", "majority class", 1), ("log_loss", "majority class", -1),
                             ("r2", "HAR", 1)]:
        wanted = sign*(scores[gain] - scores[gain][over])
        np.testing.assert_allclose(scores[f"{gain}_gain"], wanted, atol=1e-12)
    for (row, minus, score), line in differences.iterrows():
        assert row.startswith("TS2Vec")
        np.testing.assert_allclose(line.difference, scores[score][row] - scores[score][minus])
    others = {*differences.index.get_level_values("minus")}
    assert {"volatility features", "random weights", "raw lags"} <= others
    said, trades = sslts_nb.study.headline(study), study.tables["backtest"]
    for row, line in scores.iterrows():
        assert said["balanced accuracy"][row] == f"{line.balanced_accuracy:.1%}"
        ratio = f"{trades.sharpe[row]:+.2f} ± {trades.sharpe_se[row]:.2f}"
        assert said["Sharpe ± se"][row] == (ratio if np.isfinite(trades.sharpe[row]) else "never trades")


@pytest.mark.slow
def test_means_over_the_seeds_stand_in_the_table_of_accounts(joined):
    _, heard, _ = joined
    (positions, candles, fee, slippage, funding), (table, _) = heard["trade_rows"]
    per_year = sslts_nb.study.bars_per_year(candles.index)
    for name, runs in positions.items():
        books = [sslts_nb.study.backtest(run, candles, fee, slippage, funding=funding) for run in runs]
        returns = [book.equity.iloc[-1] - 1 for book in books]
        assert np.isclose(table.total_return[name], np.mean(returns)) and table.seeds[name] == len(runs)
        ratios = [sslts_nb.study.performance(book, per_year)["sharpe"] for book in books]
        if len(runs) > 1: np.testing.assert_allclose(table.sharpe_seed_sd[name], np.std(ratios, ddof=1))

"""A bundle in daily use: it is made and asked by commands; files, pictures, terminal."""
import contextlib, io, os
from pathlib import Path

import numpy as np, pandas as pd, pytest

from small_bundle import SMALL, UNTIL, small_bundle
from sslts_nb.bundle import load_bundle
from sslts_nb.contract import Encoder
from sslts_nb.cli import main
from sslts_nb.day import ANSWERS
from sslts_nb.market import load_market
from sslts_nb.settings import load_settings

COLUMNS = {"encode": 6, "forecast": 16, "anomaly": 6}   # beside symbol, timestamp, out_of_sample


@pytest.fixture(autouse=True)
def as_a_user(tmp_path, monkeypatch):
    "A folder of one's own, and none of the caller's settings."
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def sslts(line):
    "What a command prints; it has to be done."
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors): code = main(line.split())
    assert (code, errors.getvalue()) == (0, ""), errors.getvalue()
    return out.getvalue()


def asked(command, symbols="SIM00,SIM02", end="2024-04-01", more=""):
    "A command on the simulated hours."
    given = f"--threads 1 --source simulated --end {end} --model {small_bundle()}"
    return sslts(f"{command} {symbols} {given} {more}")


@pytest.mark.slow
def test_pretrain_makes_a_bundle_and_replaces_it():
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SMALL.items())
    line = (f"pretrain SIM00,SIM01 --source simulated --end {UNTIL} {flags} --encoders e --bundle a/small "
            "--threads 1")
    for _ in range(2):
        assert sslts(line).endswith(f"bundle: {Path('a/small').resolve()}\n")
        bundle = load_bundle("a/small")
        assert bundle.about["name"] == "small" and bundle.about["method"] == "future"
        assert os.listdir("a") == ["small"]
    assert "2 markets up to 2024-02-29 23:00" in repr(bundle)
    sslts(f"{line} --method mae --horizon 7 --threshold 0.01")
    about = load_bundle("a/small").about
    assert (about["method"], about["horizon"], about["threshold"]) == ("mae", 7, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("command", ANSWERS)
def test_one_file_holds_all_markets(command):
    "One below the other; what the bundle says itself; csv and parquet alike; the last bars on the terminal."
    said = asked(command, more="--out new/a.parquet --plot a.png")
    asked(command, more="--out a.csv")
    table, text = pd.read_parquet("new/a.parquet"), pd.read_csv("a.csv")
    assert [*table][:2] == ["symbol", "timestamp"] and [*table][-1] == "out_of_sample"
    assert len([*table]) == 3 + COLUMNS[command] and [*text] == [*table]
    assert table.symbol.value_counts().to_dict() == {"SIM00": 2184, "SIM02": 2184}
    candles = load_market(load_settings(source="simulated", symbol="SIM02", end="2024-04-01"))
    own = ANSWERS[command](load_bundle(small_bundle()), candles)
    ours = table[table.symbol == "SIM02"].set_index("timestamp")
    assert (ours.index == candles.index).all() and (ours.out_of_sample == (candles.index >= UNTIL)).all()
    for name in own.select_dtypes("number"): np.testing.assert_array_equal(ours[name], own[name])
    for name in own.select_dtypes("float"):
        np.testing.assert_allclose(text[name], table[name], rtol=1e-6)
    for name in ("SIM00", "SIM02", "2024-03-31 23:00", "new/a.parquet", "a.png"): assert name in said
    from matplotlib.image import imread
    assert imread("a.png")[..., :3].std() > 0.01
    assert sorted(os.listdir()) == ["a.csv", "a.png", "new"] and os.listdir("new") == ["a.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ANSWERS)
def test_a_row_does_not_depend_on_later_bars(command):
    "To the bit, wherever the bars end, and so wherever an encoder's chunks are cut."
    asked(command, more="--out long.parquet")
    whole = pd.read_parquet("long.parquet")
    for end in ("2024-03-31T23:00", "2024-02-11T05:00", "2024-01-20"):
        asked(command, end=end, more="--out short.parquet")
        short = pd.read_parquet("short.parquet")
        rows = whole[whole.timestamp < pd.Timestamp(end, tz="UTC")].reset_index(drop=True)
        pd.testing.assert_frame_equal(short, rows)


@pytest.mark.slow
def test_backtest_pays_what_was_recorded_beside_the_candles():
    "A rate that longs receive makes holding worth more, and the terminal says whose rates they are."
    market = load_market(load_settings(source="simulated", symbol="SIM00", end="2024-04-01"))
    Path("market").mkdir(), Path("funding/bybit").mkdir(parents=True)
    market.reset_index().to_parquet("market/SIM00-60.parquet")
    line = f"backtest SIM00 --source files --files market --model {small_bundle()} --bootstrap 50 --threads 1"
    earned = {}
    for rate in (None, -0.001, 0.001):
        times = pd.date_range("2024-01-01", "2024-04-02", freq="8h", tz="UTC", unit="ms", name="timestamp")
        if rate is not None: pd.DataFrame({"timestamp": times, "rate": rate}).to_parquet(
            "funding/bybit/SIM00.parquet")
        said = sslts(f"{line} --out of_{rate}.parquet")
        assert f"funding of SIM00: {'none known' if rate is None else 'recorded, bybit'}" in said
        earned[rate] = pd.read_parquet(f"of_{rate}.parquet").groupby("strategy").equity.last()
    for name in ("volatility", "buy and hold"):
        assert earned[-0.001][name] > earned[None][name] > earned[0.001][name]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["volatility", "direction"])
def test_backtest(rule):
    "Only bars after the cut-off; the same account of a shorter series; the fee of the settings is paid."
    said = asked("backtest", more=f"--rule {rule} --bootstrap 100 --out a.parquet --plot a.png")
    table = pd.read_parquet("a.parquet")
    assert table.timestamp.min() == pd.Timestamp(UNTIL, tz="UTC")
    names = {"volatility", "EWMA volatility", "buy and hold", rule}
    assert {*table.strategy} == names and {*table.symbol} == {"SIM00", "SIM02"}
    for words in (*names, "cut-off", "SIM02", "gap", "0.00055", "of SIM00, SIM02: none known"):
        assert words in said
    asked("backtest", end="2024-03-20", more=f"--rule {rule} --bootstrap 100 --out b.parquet")
    shorter = pd.read_parquet("b.parquet")
    rows = table[table.timestamp < "2024-03-20"].reset_index(drop=True)
    pd.testing.assert_frame_equal(shorter, rows)
    free = "--fee 0 --slippage 0 --bootstrap 100"
    asked("backtest", more=f"--rule {rule} {free} --out c.csv")
    ends = [one.groupby(["symbol", "strategy"]).equity.last() for one in (table, pd.read_csv("c.csv"))]
    traded = table.groupby(["symbol", "strategy"]).turnover.sum() > 0
    assert (ends[0] < ends[1])[traded].all() and traded.sum() >= 6


@pytest.mark.slow
def test_an_interruption_leaves_what_was_there(monkeypatch):
    "Half-way through the second market the file of yesterday is still whole."
    asked("forecast", more="--out a.parquet")
    before, real = Path("a.parquet").read_bytes(), ANSWERS["forecast"]
    def interrupted(bundle, candles):
        if candles.attrs["symbol"] == "SIM02": raise KeyboardInterrupt
        return real(bundle, candles)
    monkeypatch.setitem(ANSWERS, "forecast", interrupted)
    line = f"forecast SIM00,SIM02 --source simulated --model {small_bundle()} --out a.parquet"
    with contextlib.redirect_stderr(io.StringIO()) as said: assert main(line.split()) == 130
    assert said.getvalue().count("\n") == 1
    assert Path("a.parquet").read_bytes() == before and os.listdir() == ["a.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 300, 743])
def test_vectors_do_not_depend_on_where_chunks_are_cut(chunk, monkeypatch):
    "A long series goes through the network in parts; what the file says is the same."
    asked("encode", "SIM02", end="2024-02-01", more="--out whole.parquet")
    real, cuts = Encoder.encode, []
    def in_parts(self, x):
        cuts.append(-(-len(x)//chunk))
        return real(self, x, chunk=chunk)
    monkeypatch.setattr(Encoder, "encode", in_parts)
    asked("encode", "SIM02", end="2024-02-01", more="--out parts.parquet")
    assert cuts == [-(-744//chunk)]
    whole, parts = (pd.read_parquet(f"{name}.parquet").filter(regex="z_") for name in ("whole", "parts"))
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)

"""Inputs that once gave a wrong number, lost work or a traceback (candles): given, wanted."""
import os

import numpy as np, pandas as pd, pyarrow as pa, pytest
from pyarrow import parquet

from fault_table import Refused, check, fault
from sslts_nb.candles import (COLUMNS, CandleStore, as_candles, bars_per_year, check_candles, findings,
                              milliseconds, provenance, read_candles, resample)
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import files_candles, simulate_market
from sslts_nb.tables import bars_between

ROWS = []
CANDLE = {"open": 1., "high": 2., "low": 1., "close": 2., "volume": 3.}
CANDLE_TIMES = pd.date_range("2024-12-31 21:00", periods=6, freq="h", tz="UTC", unit="ms", name="timestamp")
SECONDS = CANDLE_TIMES.asi8//1000
CANDLE_TEXT = pd.DataFrame(CANDLE, CANDLE_TIMES).to_csv()
BOTH_YEARS = ["2024-12-31 21:00:00+00:00", "2025-01-01 02:00:00+00:00"]


def candles_of(times, name="A-60", **columns):
    "Candles made of a frame with these times."
    frame = pd.DataFrame(CANDLE | columns, range(len(times))).assign(timestamp=times)
    return as_candles(frame, *name.split("-"), "x")


def candles_in(folder, content, name="A-60.csv"):
    "Candles read from a file with this content: bytes, text, a frame, or times of bars."
    path = folder/name
    if isinstance(content, (list, np.ndarray, pd.Index)):
        content = pd.DataFrame(CANDLE, range(len(content))).assign(timestamp=content).to_csv(index=False)
    if isinstance(content, pa.Table): parquet.write_table(content, path)
    elif isinstance(content, pd.DataFrame): content.to_parquet(path)
    else: path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_candles(path)


def first_and_last(candles): return [str(candles.index[0]), str(candles.index[-1])]


def candle_columns(**columns):
    "A table of candles with other columns."
    there = {name: pa.array(np.full(6, CANDLE[name])) for name in COLUMNS}
    return pa.table({"timestamp": pa.array(SECONDS*1000)} | there | columns)


# which unit

for unit, power in [("seconds", 0), ("milliseconds", 1), ("microseconds", 2), ("nanoseconds", 3)]:
    for kind in ("int64", "float64", "str"):
        @fault(ROWS, 1, f"{unit} as {kind}", BOTH_YEARS)
        def _(folder, power=power, kind=kind):
            return first_and_last(candles_of((SECONDS*1000**power).astype("int64").astype(kind)))

    @fault(ROWS, 1, f"{unit} in a csv file", BOTH_YEARS)
    def _(folder, power=power): return first_and_last(candles_in(folder, SECONDS*1000**power))

@fault(ROWS, 1, "the unit is said",
       "A 60 from files (times in microseconds), 2024-12-31 21:00 to 2025-01-01 02:00 UTC, 6 bars")
def _(folder): return provenance(candles_in(folder, SECONDS*10**6))

@fault(ROWS, 1, "milliseconds, then microseconds",
       Refused("row 3: 1735689600000000 is in microseconds.* milliseconds"))
def _(folder): return candles_in(folder, np.where(SECONDS < SECONDS[3], SECONDS*1000, SECONDS*10**6))

@fault(ROWS, 1, "microseconds, then milliseconds", Refused("row 3: 1735689600000 is in milliseconds"))
def _(folder): return candles_in(folder, np.where(SECONDS < SECONDS[3], SECONDS*10**6, SECONDS*1000))

@fault(ROWS, 1, "seconds, then milliseconds",
       Refused("row 1: .* is in milliseconds, but row 0, 1735678800, in seconds"))
def _(folder): return candles_in(folder, np.where(np.arange(6) < 1, SECONDS, SECONDS*1000))

for name, times in [("20240101", [20240101, 20240102]), ("bare years", [2023, 2024]),
                    ("zeros", [0, 86_400_000]),
                    ("20240101000000", [20240101000000, 20240102000000]),
                    ("infinite", [1735678800., np.inf]), ("before 1970", [-86400, 0])]:
    @fault(ROWS, 1, name, Refused(r"A-D.csv: .*row [01]: [-\d.inf]+ is no time from 1980 to 2100 in s, ms, "))
    def _(folder, times=times): return candles_in(folder, times, "A-D.csv")

@fault(ROWS, "1+", "2024010100, which is a second of 2034", Refused("in one slot of 60"))
def _(folder): return candles_in(folder, [2024010100, 2024010101])

@fault(ROWS, "1+", "times of another unit with the type of milliseconds", Refused("in one slot of 60"))
def _(folder):
    wrong = pa.array(SECONDS, pa.timestamp("ms"))
    return candles_in(folder, candle_columns(timestamp=wrong), "A-60.parquet")

@fault(ROWS, "1+", "the year 56971", Refused("row 0: '56971-06-22T.*' is no time from 1700 to 2200"))
def _(folder): return candles_of(pd.DatetimeIndex((SECONDS*10**6).astype("datetime64[ms]")))

@fault(ROWS, "1+", "a microsecond beside the millisecond", Refused("row 1: .* is no whole millisecond"))
def _(folder): return candles_of(np.array([1735678800000000, 1735682400000001]))

@fault(ROWS, "1+", "parts of two units in a folder", Refused("row 6: .* is in microseconds"))
def _(folder):
    (folder/"A-60.parquet").mkdir()
    for name, times in [("a", SECONDS*1000), ("b", (SECONDS + 6*3600)*10**6)]:
        part = candle_columns(timestamp=pa.array(times))
        parquet.write_table(part, folder/"A-60.parquet"/f"{name}.parquet")
    return read_candles(folder/"A-60.parquet")

for text in ["now", "today", "2024", "01/02/2024", "2024-02-30", "2024-01-01 00:00 UTC", "\x1b[31m2024"]:
    @fault(ROWS, "1+", f"the time {text!r}", Refused("row 1: .* is no time"))
    def _(folder, text=text): return candles_of(["2024-01-01", text])

@fault(ROWS, "1+", "one time without a zone among others", Refused("row 1: .*one has a zone, one has none"))
def _(folder): return candles_of(["2024-01-01 00:00+01:00", "2024-01-01 01:00"])

@fault(ROWS, "1+", "a simulated market of 1970", "1970-01-01 00:00:00+00:00")
def _(folder):
    days = [pd.Timestamp(text, tz="UTC") for text in ("1970-01-01", "1970-01-05")]
    return str(simulate_market(1, *days).candles["SIM00"].index[0])

@fault(ROWS, "1+", "text in a parquet file", BOTH_YEARS)
def _(folder):
    text = pa.array([str(time) for time in CANDLE_TIMES])
    return first_and_last(candles_in(folder, candle_columns(timestamp=text), "A-60.parquet"))


# which bars

@fault(ROWS, 2, "minutes in a file of hours", Refused("21:01:00.*in one slot of 60; wanted bars of 60"))
def _(folder): return candles_in(folder, SECONDS[0] + 60*np.arange(50))

@fault(ROWS, 2, "days in a file of hours", Refused("no two bars follow each other, most are 24 bars of 60"))
def _(folder): return candles_in(folder, SECONDS[0] + 86400*np.arange(3))

@fault(ROWS, 2, "days of New York in a frame of hours", Refused("24 bars of 60 apart"))
def _(folder): return candles_of(pd.date_range("2024-02-20", periods=40, freq="B", tz="America/New_York"))

@fault(ROWS, "2+", "months in a file of days", Refused("31 bars of D apart"))
def _(folder): return candles_of([f"2024-{month:02}-01" for month in range(1, 9)], "A-D")

@fault(ROWS, "2+", "one bar at half past among hours", Refused("in one slot of 60"))
def _(folder): return candles_of(np.insert(SECONDS, 3, SECONDS[2] + 1800))

@fault(ROWS, "2+", "hours that open at half past are bars",
       "checks of A 60: opens off the grid: 6, first 2024-12-31 21:30")
def _(folder): return findings(candles_of(SECONDS + 1800))[1]

@fault(ROWS, "2+", "several bars in one slot of a frame made otherwise",
       Refused("several bars in one slot in 2 bars"))
def _(folder):
    hours = candles_of(SECONDS)
    twice = hours.set_axis(hours.index.floor("2h") + pd.to_timedelta((SECONDS - SECONDS[0])//3600, "min"))
    return check_candles(twice, strict=True)

@fault(ROWS, "2+", "newest first in a file", Refused("the newest is first"))
def _(folder): return candles_in(folder, SECONDS[::-1])

for name, number in [("a bar that comes twice", [0, 1, 1, 2]), ("two bars exchanged", [0, 2, 1, 3])]:
    @fault(ROWS, "2+", name, Refused("2024-12-31 22:00:00.* comes twice or out of order"))
    def _(folder, number=number): return candles_in(folder, SECONDS[number])


# longer bars

def hours_from(start): return candles_of(pd.date_range(start, periods=48, freq="h"))

for interval in ("240", "D"):
    @fault(ROWS, 3, f"hours at half past to {interval}", Refused(f"3:30:00.* in the next bar of {interval}"))
    def _(folder, interval=interval): return resample(hours_from("2024-01-01 00:30"), interval, whole=False)

@fault(ROWS, "3+", "a session that lies within its day", [3.]*5)
def _(folder):
    hours = [f"2024-01-0{day} {hour}:30" for day in range(1, 6) for hour in range(14, 21)]
    return (resample(candles_of(hours), "D", whole=False).volume/7).tolist()

@fault(ROWS, "3+", "newest first to longer bars", Refused("the newest is first"))
def _(folder): return resample(hours_from("2024")[::-1], "240")

@fault(ROWS, "3+", "every sixth hour to days", Refused("6 bars of 60 apart"))
def _(folder): return resample(hours_from("2024")[::6], "D", whole=False)

@fault(ROWS, "3+", "an index in nanoseconds", [12.]*12)
def _(folder):
    hours = hours_from("2024")
    return resample(hours.set_axis(hours.index.as_unit("ns")), "240").volume.tolist()

@fault(ROWS, "3+", "no bars to longer ones", Refused("no bars"))
def _(folder): return resample(hours_from("2024")[:0], "240")


# checks that are shown

@fault(ROWS, 4, "400 missing hours and one close times ten",
       "checks of A 60: open or close outside low and high: 1, first 2024-01-01 05:00; "
       "price jump: 2, first 2024-01-01 05:00; missing: 400, first 2024-01-03 02:00")
def _(folder):
    times = pd.date_range("2024-01-01", periods=600, freq="h")
    close = np.where(np.arange(200) == 5, 20., 2.)
    return findings(candles_of(times.delete(range(50, 450)), open=2., close=close))[1]

@fault(ROWS, 4, "the same as a table", [("missing", 2)])
def _(folder):
    table = findings(candles_of(np.delete(SECONDS, [2, 4])))[0]
    return list(zip(table.kind, table.bars))

for name, value in [("missing", ""), ("infinite", "inf"), ("beyond all numbers", "1e999")]:
    @fault(ROWS, "4+", f"a price that is {name} at the edge",
           "checks of A 60: not finite: 1, first 2024-12-31 21:00")
    def _(folder, value=value): return findings(candles_in(folder, CANDLE_TEXT.replace("2.0", value, 1)))[1]

for name, act in [("check", check_candles), ("line", findings), ("provenance", provenance),
                  ("longer bars", lambda bars: resample(bars, "240"))]:
    @fault(ROWS, "4+", f"{name} of candles that lost their attrs", Refused("without 'symbol' in their attrs"))
    def _(folder, act=act): return act(pd.concat([candles_of(SECONDS), candles_of(SECONDS, "B-60")]))

    @fault(ROWS, "4+", f"{name} of one column", Refused("wanted candles.* not a Series"))
    def _(folder, act=act): return act(candles_of(SECONDS).close)


# labels

@fault(ROWS, 5, "times in a column and others in the index", Refused("hold different times"))
def _(folder):
    frame = pd.DataFrame(CANDLE, CANDLE_TIMES).assign(timestamp=CANDLE_TIMES + pd.Timedelta("1h"))
    return as_candles(frame, "A", "60", "x")

for name in ("open", "timestamp", "turnover"):
    @fault(ROWS, 5, f"a doubled column {name} in a frame", Refused(f"column '{name}' comes twice"))
    def _(folder, name=name):
        frame = pd.DataFrame(CANDLE, range(6)).assign(timestamp=SECONDS, turnover=1.)
        return as_candles(frame[[*frame, name]], "A", "60", "x")

    @fault(ROWS, 5, f"a doubled column {name} in a csv file", Refused(f"column '{name}' comes twice"))
    def _(folder, name=name):
        text = pd.DataFrame(CANDLE, range(6)).assign(timestamp=SECONDS, turnover=1.).to_csv(index=False)
        header, *rows = text.splitlines()
        return candles_in(folder, "\n".join([f"{header},{name}", *[f"{row},5" for row in rows]]))

@fault(ROWS, "5+", "cells beyond the header, so that all move by one", Refused("not readable as csv"))
def _(folder): return candles_in(folder, CANDLE_TEXT.replace("3.0\n", "3.0,9\n"))

@fault(ROWS, "5+", "times of another order for the year's bars", Refused("wanted rising times"))
def _(folder): return bars_per_year(CANDLE_TIMES[::-1])

@fault(ROWS, "5+", "parts of two venues in one store", Refused("venues are not mixed"))
def _(folder):
    for source, where in [("one", "a"), ("two", "b")]:
        bars = candles_of(SECONDS if source == "one" else SECONDS + 86400*365)
        bars.attrs["source"] = source
        CandleStore(folder/where).add(bars)
    for part in (folder/"b"/"A-60.parquet").glob("2*"):
        os.replace(part, folder/"a"/"A-60.parquet"/"2030.parquet")
    return CandleStore(folder/"a").read("A", "60")


# files

@fault(ROWS, "S4", "a pipe", Refused("A-60.csv: wanted a regular file"))
def _(folder):
    os.mkfifo(folder/"A-60.csv")
    return read_candles(folder/"A-60.csv")

@fault(ROWS, "S4", "a pipe among parts", Refused("a.parquet: wanted a regular file"))
def _(folder):
    (folder/"A-60.parquet").mkdir()
    os.mkfifo(folder/"A-60.parquet"/"a.parquet")
    return files_candles(folder, "A", "60")

@fault(ROWS, "S4", "a link to a device", Refused("wanted a regular file"))
def _(folder):
    os.symlink("/dev/zero", folder/"A-60.csv")
    return read_candles(folder/"A-60.csv")

for ending in ("csv", "parquet"):
    @fault(ROWS, "S4", f"a link to itself, {ending}", Refused("symbolic links"))
    def _(folder, ending=ending):
        os.symlink(folder/f"A-60.{ending}", folder/f"A-60.{ending}")
        return files_candles(folder, "A", "60")

@fault(ROWS, "S4", "a csv file of 50 GB", Refused("its text would take 53.7 GB; wanted at most 2 GB"))
def _(folder):
    with open(folder/"A-60.csv", "wb") as file: file.truncate(50*2**30)
    return read_candles(folder/"A-60.csv")

@fault(ROWS, "S4", "a little parquet of ten gigabytes",
       Refused("200,000,000 rows x 7 columns would take 11.2 GB"))
def _(folder):
    flat = pa.table({name: np.ones(10**6) for name in COLUMNS} | {"timestamp": np.zeros(10**6, "int64")})
    with parquet.ParquetWriter(folder/"A-60.parquet", flat.schema) as file: file.write_table(flat)
    part = (folder/"A-60.parquet").read_bytes()
    (folder/"A-60.parquet").unlink()
    (folder/"A-60.parquet").mkdir()
    for number in range(200): (folder/"A-60.parquet"/f"{number:03}.parquet").write_bytes(part)
    return read_candles(folder/"A-60.parquet")

@fault(ROWS, "S4", "text that is a gigabyte for each price", Refused("'x+ is no number"))
def _(folder):
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, "int32")), ["x"*1_000_000])
    hours = pa.array(SECONDS[0]*1000 + 3_600_000*np.arange(100_000))
    rest = {name: np.ones(100_000) for name in COLUMNS[1:]}
    return candles_in(folder, pa.table({"timestamp": hours, "open": texts} | rest), "A-60.parquet")

for name, path in [("NUL in a folder", "a\0b/A-60.csv"), ("NUL in a name", "A\0-60.csv"),
                   ("escape codes in a path", "\x1b[2J/A-60.csv"), ("no text in a path", "\udcff/A-60.csv")]:
    @fault(ROWS, "S4", name, Refused(r"^[ -~]+$"))
    def _(folder, path=path): return read_candles(folder/path)

for name, path in [("a name too long", "x"*300), ("a path too long", "d/"*3000), ("a loop of links", "loop"),
                   ("NUL", "a\0b"), ("escape codes", "\x1b[2J"), ("no text", "\udcff")]:
    @fault(ROWS, "S4", f"{name} in a folder of files", Refused(r"^files = [ -~]+ no such folder[ -~]+$"))
    def _(folder, path=path):
        os.symlink(folder/"loop", folder/"loop")
        return files_candles(folder/path, "A", "60")

@fault(ROWS, "S4", "a parquet and a csv file of one name", Refused("A-60.parquet and A-60.csv; wanted one"))
def _(folder):
    for ending in ("parquet", "csv"): (folder/f"A-60.{ending}").touch()
    return files_candles(folder, "A", "60")

@fault(ROWS, "S4", "minutes of ten thousand years", Refused("5,258,439,360 bars of 1 from 0001-01-01"))
def _(folder): return bars_between(*[pd.Timestamp(year, tz="UTC") for year in ("0001", "9999")], "1")

for name, content, why in [
        ("escape codes in a name", CANDLE_TEXT.replace("volume", "\x1b[2J"), r"there are: .*\\x1b\[2J"),
        ("a cell of a megabyte", CANDLE_TEXT.replace("2.0", "x"*10**6, 1), "^.{1,200}$"),
        ("truth for prices", CANDLE_TEXT.replace("1.0", "True"), "'True' is no number"),
        ("a thousand columns", ",".join(f"c{number}" for number in range(1000)), "^.{1,500}$")]:
    @fault(ROWS, "S4", name, Refused(why))
    def _(folder, content=content): return candles_in(folder, content)

@fault(ROWS, "S4", "a mark of the order of bytes", BOTH_YEARS)
def _(folder): return first_and_last(candles_in(folder, b"\xef\xbb\xbf" + CANDLE_TEXT.encode()))

for name, column in [("lists", pa.array([[1.]]*6)), ("tables", pa.array([{"a": 1.}]*6))]:
    @fault(ROWS, "S4", f"{name} for prices", Refused("column 'open' holds no numbers but"))
    def _(folder, column=column): return candles_in(folder, candle_columns(open=column), "A-60.parquet")

    @fault(ROWS, "S4", f"{name} in a column that nobody wants", BOTH_YEARS)
    def _(folder, column=column):
        return first_and_last(candles_in(folder, candle_columns(more=column), "A-60.parquet"))

@fault(ROWS, "S4", "times for prices", Refused("column 'open', row 0: .* is no number"))
def _(folder): return candles_of(SECONDS, open=pd.Timestamp("2024"))

@fault(ROWS, "S4", "a date without a zone", Refused("wanted a time with its zone"))
def _(folder): return CandleStore(folder).missing("A", "60", pd.Timestamp("2024"), pd.Timestamp("2025"))

@fault(ROWS, "S4", "no date", Refused("wanted a time with its zone"))
def _(folder): return milliseconds(pd.NaT)


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)


# what small errors in the chapter on candles would change, and no test noticed

def test_numbers_of_bars_by_hand(tmp_path):
    hours = pd.date_range("2024", periods=48, freq="h", tz="UTC", name="timestamp")
    bars = pd.DataFrame({name: 100. for name in ("open", "high", "low", "close", "volume")}, hours)
    candles = as_candles(bars, "BTCUSDT", "60", "by hand")
    assert bars_per_year(candles.index) == pytest.approx(8766)
    assert [len(resample(candles.drop(hours[[30]]), "D", whole=whole)) for whole in (True, False)] == [1, 2]
    store = CandleStore(tmp_path)
    store.add(candles)
    for run in ([100, 101, 102, 103], [101]): store.remember_holes("BTCUSDT", "60", run)
    assert store.holes("BTCUSDT", "60").tolist() == [[100, 103]]


def test_periods_and_sources_at_their_edges(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    with pytest.raises(InputError, match="does not lie before end"): load_settings(start="2024", end="2024")
    assert load_settings(source="sample", files="somewhere").source == "sample"     # both given together

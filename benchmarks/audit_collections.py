"""Audits every indicator of public collections.

python benchmarks/audit_collections.py BTCUSDT-60.parquet benchmarks/audit_collections.csv

Run it in an environment that has them beside this package (pip install ta pandas-ta-classic); the package
itself needs neither. The chapter The audit shows the table that it wrote."""
import contextlib, importlib, inspect, io, sys
from importlib.metadata import version

import pandas as pd

from sslts_nb.audit import audit
from sslts_nb.settings import InputError

# what the documentation of an indicator says, or what we found in its code
REMARKS = {
    "ta momentum.kama": "`np.roll`: the first rows take the last closes; seen only if these are missing",
    "ta trend.kst": "`shift(fill_value=close.mean())`: the first rows take the mean of all closes",
    "ta trend.kst_sig": "as `kst`",
    "pandas-ta-classic trend.dpo": "centred by default; `lookahead=False` is not",
    "pandas-ta-classic overlap.ichimoku": "chikou is a later close by definition; `lookahead=False` omits it",
    "pandas-ta-classic statistics.tos_stdevall": "a line through all bars; its documentation says so"}
ROOMS = ("momentum", "trend", "volatility", "volume", "others")


def indicators_of_ta():
    "The functions of `ta`, by name."
    for room in ROOMS:
        module = importlib.import_module(f"ta.{room}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own: yield f"{room}.{name}", function


def indicators_of_pandas_ta():
    "The functions of `pandas-ta-classic` in all of its categories, by name."
    import pandas_ta_classic
    for room, names in pandas_ta_classic.Category.items():
        for name in names:
            if name == "ichimoku": yield f"{room}.{name}", visible_ichimoku
            elif hasattr(pandas_ta_classic, name): yield f"{room}.{name}", getattr(pandas_ta_classic, name)


def visible_ichimoku(high, low, close):
    "Its rows for the bars that are there; the rows beyond the last one are another table."
    import pandas_ta_classic
    return pandas_ta_classic.ichimoku(high, low, close)[0]


def row(collection, name, function, candles):
    "One line of the table."
    try:
        with contextlib.redirect_stdout(io.StringIO()): found = audit(function, candles, seconds=120)
    except InputError as error:
        said = str(error)[:150]
        return {"collection": collection, "indicator": name, "verdict": "not asked", "said": said}
    return {"collection": collection, "indicator": name, "verdict": found.verdict, "bars": found.bars,
            "ahead": found.ahead, "everything": found.everything, "latest": found.latest,
            "often": round(found.often, 3), "outputs": " ".join(found.outputs),
            "warm_up": found.warm_up, "calls": found.calls, "seconds": round(found.seconds, 2),
            "counterexample": str(found.proof or ""), "said": " ".join(found.faults.values()),
            "remark": REMARKS.get(f"{collection.split()[0]} {name}", "")}


def main(source, target):
    candles = pd.read_parquet(source).set_index("timestamp")
    candles = candles[["open", "high", "low", "close", "volume"]].iloc[-3000:]
    rows = []
    for package, indicators in {"ta": indicators_of_ta, "pandas-ta-classic": indicators_of_pandas_ta}.items():
        for name, function in indicators():
            rows.append(row(f"{package} {version(package)}", name, function, candles))
            print(*list(rows[-1].values())[:4], flush=True)
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__": main(*sys.argv[1:])

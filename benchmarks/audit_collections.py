"""Audits every indicator of public collections: python benchmarks/audit_collections.py CANDLES.parquet OUT.csv

Run it in an environment that has them beside this package (pip install ta pandas-ta-classic); the package
itself needs neither. The chapter The audit shows the table that it wrote."""
import contextlib, importlib, inspect, io, sys
from importlib.metadata import version

import pandas as pd

from sslts_nb.audit import audit
from sslts_nb.settings import InputError

# what the documentation of an indicator says of itself, or what its code does, where we looked
REMARKS = {}
WINDOWS = {"ta": ("momentum", "trend", "volatility", "volume", "others")}


def indicators_of_ta():
    "The functions of `ta`, by name."
    for room in WINDOWS["ta"]:
        module = importlib.import_module(f"ta.{room}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"): yield f"{room}.{name}", function


def indicators_of_pandas_ta():
    "The functions of `pandas-ta-classic` in all of its categories, by name."
    import pandas_ta_classic
    for room, names in pandas_ta_classic.Category.items():
        for name in names:
            if hasattr(pandas_ta_classic, name): yield f"{room}.{name}", getattr(pandas_ta_classic, name)


def row(collection, name, function, candles):
    "One line of the table; None for what is no indicator of candles."
    try:
        with contextlib.redirect_stdout(io.StringIO()): found = audit(function, candles, seconds=30)
    except InputError as error: return {"collection": collection, "indicator": name, "verdict": "not asked",
                                        "remark": str(error)[:150]}
    return {"collection": collection, "indicator": name, "verdict": found.verdict, "ahead": found.ahead,
            "everything": found.everything, "often": round(found.often, 3), "outputs": " ".join(found.outputs),
            "warm_up": found.warm_up, "calls": found.calls, "seconds": round(found.seconds, 2),
            "counterexample": str(found.proof or ""), "said": " ".join(found.faults.values()),
            "remark": REMARKS.get(f"{collection.split()[0]}.{name}", "")}


def main(source, target):
    candles = pd.read_parquet(source).set_index("timestamp")
    candles = candles[["open", "high", "low", "close", "volume"]].iloc[-3000:]
    rows = []
    for package, indicators in {"ta": indicators_of_ta, "pandas-ta-classic": indicators_of_pandas_ta}.items():
        for name, function in indicators():
            rows.append(row(f"{package} {version(package)}", name, function, candles))
            print(*list(rows[-1].values())[:6], flush=True)
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__": main(*sys.argv[1:])

"""MiniRocket and catch22 on sets of windows, for the table in chapter Windows as instances.

aeon wants older numpy and pandas than this package, so it lives in an environment of its own, and nothing
of `sslts_nb` is imported here:

    python -m venv aeon-env && aeon-env/bin/pip install aeon==1.6.0
    aeon-env/bin/python benchmarks/aeon_rows.py aeon-env/lib/python3.11/site-packages/aeon/datasets/data

Both are aeon's own (BSD-3): its catch22 is numba, not the GPL's `pycatch22`. What is there already is not
computed again; a line a set, row and seed in `aeon_rows.csv` beside this file.
"""
import csv, sys, time, warnings
from importlib.metadata import version
from pathlib import Path

from aeon.classification.convolution_based import MiniRocketClassifier
from aeon.classification.feature_based import Catch22Classifier
from aeon.datasets import load_from_ts_file

warnings.filterwarnings("ignore")
OUT = Path(__file__).with_suffix(".csv")
SETS = ("ItalyPowerDemand", "GunPoint", "BasicMotions", "ArrowHead", "JapaneseVowels",
        "PickupGestureWiimoteZ", "OSULeaf", "ACSF1")
ROWS = {"MiniRocket": lambda seed: MiniRocketClassifier(random_state=seed, n_jobs=1),
        "catch22": lambda seed: Catch22Classifier(random_state=seed, n_jobs=1)}   # a random forest on it
COLUMNS = ("set", "row", "seed", "accuracy", "seconds", "aeon")


def read(folder, name, part, even):
    "One half of a set; `even`: in aeon's own form with windows of equal length, where there is one."
    path = Path(folder)/name/f"{name}_eq_{part}.ts"
    if not even or not path.exists(): path = path.with_name(f"{name}_{part}.ts")
    return load_from_ts_file(str(path))


def main(folder):
    there = list(csv.DictReader(OUT.open())) if OUT.exists() else []
    done = {(one["set"], one["row"], int(one["seed"])) for one in there}
    for name in SETS:
        for row, made in ROWS.items():
            for seed in (0, 1, 2):
                if (name, row, seed) in done: continue
                (x, y), (x_test, y_test) = (read(folder, name, part, row == "MiniRocket")
                                            for part in ("TRAIN", "TEST"))
                begin = time.process_time()
                accuracy = made(seed).fit(x, y).score(x_test, y_test)
                there.append(dict(zip(COLUMNS, (name, row, seed, f"{accuracy:.4f}",
                                                f"{time.process_time() - begin:.1f}", version("aeon")))))
                print(*there[-1].values(), flush=True)
                with OUT.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(there)


if __name__ == "__main__": main(*sys.argv[1:])

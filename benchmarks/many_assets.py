"""500 markets, five years of hours: from candles to judged vectors, nothing held twice.

    python benchmarks/many_assets.py FOLDER [--markets 500] [--years 5] [--steps 300]

Simulated markets are made a hundred at a time, their features go to shards in FOLDER (`write_shards`), one
encoder learns from the shards, and every bar of every market is encoded. The ridge behind it is fitted from
sums over the training bars, so no market's vectors are kept. `many_assets.csv` beside this file has a line
for each stage: bars, seconds of the processor, bars a second, and the largest memory of the process up to
then.
"""
import argparse, csv, resource, sys, time
from pathlib import Path

import numpy as np, pandas as pd

from sslts_nb.settings import use_threads
from sslts_nb.market import simulate_market
from sslts_nb.features import compute_features, scale
from sslts_nb.labels import log_realised_variance
from sslts_nb.scale import open_shards, write_shards
from sslts_nb.methods import make_task
from sslts_nb.pretrain import pretrain

OUT = Path(__file__).with_suffix(".csv")
COLUMNS = ("stage", "markets", "bars", "seconds", "bars a second", "MB", "told")
HORIZON, WARM = 5, 200


def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


class Stages:
    "Lines of the table."
    def __init__(self, markets): self.markets, self.lines = markets, []

    def __call__(self, name, bars, begin, told=""):
        seconds = time.process_time() - begin
        speed = f"{bars/max(seconds, 1e-9):.0f}"
        line = (name, self.markets, bars, f"{seconds:.1f}", speed, f"{megabytes():.0f}", told)
        self.lines.append(dict(zip(COLUMNS, line)))
        print(*line, flush=True)


def make_shards(folder, markets, years, stages):
    "Candles, features and label of each market into a shard: the label is the last column."
    begin, bars, start = time.process_time(), 0, pd.Timestamp("2020", tz="UTC")
    for batch in range(0, markets, 100):
        n = min(100, markets - batch)
        made = simulate_market(max(n, 2), start, start + pd.Timedelta(days=int(365*years)), seed=batch)
        for number, candles in enumerate(list(made.candles.values())[:n]):
            features = compute_features(candles, "market")
            train = np.arange(int(0.7*len(features)))
            one = pd.DataFrame(scale(features, train), features.index, features.columns)
            one["label"] = log_realised_variance(candles, HORIZON).astype("float32")
            write_shards(folder, {f"M{batch + number:03d}": one})
            bars += len(one)
    stages("simulate, features, shards", bars, begin)


def judge(encoder, shards, stages):
    "Encode everything; a ridge from sums over the training bars, R2 over the test bars of each market."
    begin, bars, sums = time.process_time(), 0, 0
    def parts(one):
        values = one.to_numpy()
        z, y = encoder.encode(values[:, :-1]).astype("float64"), values[:, -1].astype("float64")
        z = np.column_stack([z, np.ones(len(z))])
        known = np.flatnonzero(np.isfinite(y))
        cut = int(0.7*len(y))
        train, test = known[(known >= WARM) & (known < cut - HORIZON)], known[known >= cut]
        centre, spread = y[train].mean(), y[train].std()
        return z, (y - centre)/spread, train, test
    for one in shards.values():
        z, y, train, _ = parts(one)
        both = np.column_stack([z[train], y[train]])
        sums, bars = sums + both.T @ both, bars + len(one)
    stages("encode everything, sums of the ridge", bars, begin)
    begin = time.process_time()
    w = np.linalg.solve(sums[:-1, :-1] + 10*np.eye(len(sums) - 1), sums[:-1, -1])
    scores = []
    for one in shards.values():
        z, y, _, test = parts(one)
        scores.append(1 - np.square(y[test] - z[test] @ w).mean()/y[test].var())
    told = f"R2 of the volatility, mean of the markets, {np.mean(scores):.3f}"
    stages("encode everything again, judge", bars, begin, told)


def main():
    plainly = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plainly)
    parser.add_argument("folder", help="of the shards: about 40 bytes a bar")
    parser.add_argument("--markets", type=int, default=500)
    parser.add_argument("--years", type=float, default=5)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    use_threads(1)
    stages = Stages(given.markets)
    make_shards(given.folder, given.markets, given.years, stages)
    shards = open_shards(given.folder)
    channels = next(iter(shards.values())).shape[1] - 1
    begin, task = time.process_time(), make_task("future", channels, 32, 64, 4, 200, 0)
    series = {name: one.iloc[:int(0.7*len(one)), :-1] for name, one in shards.items()}
    pretrain(task, series, steps=given.steps, batch_size=8, crop=200, learning_rate=1e-3, label="")
    stages("pre-training", given.steps*8*200, begin, f"{given.steps} steps of 8 windows of 200 bars")
    judge(task.encoder.eval(), shards, stages)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(stages.lines)


if __name__ == "__main__": sys.exit(main())

"""A grid of trainings over one process, two, and a Dask cluster: the same encoders, how much sooner?

    python benchmarks/grid.py [--steps 60] [--rounds 2]

Methods times markets times folds times seeds of the study's shape on simulated hours, each form into a folder
of its own, in turn, `rounds` times; the shortest time counts, as a neighbour can only make one longer. The
times are by the clock and hold the start of the processes. `grid.csv` beside this file has a line for each
form. Run it on an idle machine with two cores at least.
"""
import argparse, os, tempfile, time
from pathlib import Path

import pandas as pd
from joblib import parallel_config

from sslts_nb.settings import load_settings, use_threads
from sslts_nb.market import simulate_market
from sslts_nb.grid import pretrain_grid

OUT = Path(__file__).with_suffix(".csv")


def as_dask_comes(markets, settings):
    "Two workers of one thread, as on two machines that share a folder."
    from dask.distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as workers:
        with Client(workers), parallel_config(backend="dask"): return pretrain_grid(markets, settings)


def on_dask(markets, settings):
    "The same, but the workers keep memory that the next step will ask for again."
    import dask.distributed   # whose defaults have to be there before one of them is changed
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)   # an earlier cluster leaves its setting behind
    setting = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
    with dask.config.set({setting: None}): return as_dask_comes(markets, settings)


def in_two(markets, settings):
    "Two processes that start now."
    return pretrain_grid(markets, settings, 2)


FORMS = {"one process": pretrain_grid, "two processes": in_two, "Dask, two workers": on_dask,
         "Dask as it comes": as_dask_comes}


def timed(form, markets, settings):
    "Seconds of a form in a folder of its own, and what it found."
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = form(markets, load_settings(**settings, encoders=folder))
        return time.perf_counter() - begin, found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args(argv)
    use_threads(1)
    markets = {"SIM00": simulate_market(1, end=pd.Timestamp("2025", tz="UTC")).candles["SIM00"]}
    settings = dict(source="simulated", profile="full", features="market", methods="ts2vec, mae",
                    folds=2, seeds="0, 1, 2", steps=given.steps, threads=1)
    best, found = {}, {}
    for _ in range(given.rounds):
        for name, form in FORMS.items():
            seconds, found[name] = timed(form, markets, settings)
            best[name] = min(best.get(name, seconds), seconds)
            print(f"{name}: {seconds:.1f} s", flush=True)
            pd.testing.assert_frame_equal(found[name], found["one process"])
    first = best["one process"]
    table = pd.DataFrame({"trainings": len(found["one process"]), "steps": given.steps, "seconds": best,
                          "times faster": {name: first/seconds for name, seconds in best.items()}})
    table.round(2).rename_axis("form").to_csv(OUT)


if __name__ == "__main__": main()

"""`make bench`: what is meant to be fast, each beside a plain form written from the formula, in the same run.

    python benchmarks/bench.py [--only TEXT] [--seconds 4]

A case does fixed work in each of its forms. The forms take turns, after one round that is not counted, for
at least three rounds and about `--seconds`. Seconds are of the processor, so that a neighbour costs little;
a ratio is the median over the rounds of what the plain form takes for the same work. One thread; losses and
steps run on a CUDA device if there is one. Only ratios carry over to other machines. They are kept in
nbs/results/speed.json, which chapter Speed shows, and are compared with those that are committed: what fell
by more than a quarter is named.
"""
import argparse, json, subprocess, sys, time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pandas as pd, torch

from sslts_nb.settings import load_settings, use_threads
from sslts_nb.results import Recorder
from sslts_nb.speed import in_turn, ratio

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FELL = 0.75        # of the committed ratio: below it a case is named
WIDTH = 96         # of a case in words


@dataclass
class Case:
    "One comparison: each form does the same work, or a part of it that `parts` says."
    id: str                               # `group/size`, of the results
    what: str                             # in words, with the size
    forms: dict[str, Callable]            # "ours", "ours, bf16", "plain": the slow way, "part": of ours
    parts: dict[str, float] = field(default_factory=dict)  # form: by what its seconds are multiplied
    original: str = ""                    # what the papers' code took, on another machine


CASES: dict[str, Callable[[], Case]] = {}


def case(id: str, what: str, original: str = ""):
    "Register a function that prepares the forms of a case: {name: call}, or {name: (call, times)}."
    if id in CASES: raise ValueError(f"case {id!r} is there already; wanted another id")

    def keep(prepare):
        def made():
            pair = lambda form: form if isinstance(form, tuple) else (form, 1.)
            given = {name: pair(form) for name, form in prepare().items()}
            return Case(id, what, {name: form for name, (form, _) in given.items()},
                        {name: times for name, (_, times) in given.items()}, original)
        CASES[id] = made
        return prepare
    return keep


def timed(one: Case, seconds: float) -> pd.DataFrame:
    "Seconds of each form in each round: of the processor, or by the clock where a device works."
    if DEVICE == "cpu": return in_turn(one.forms, seconds, scale=one.parts)
    def finished(form):
        def call():
            form()
            torch.cuda.synchronize()
        return call
    return in_turn({name: finished(form) for name, form in one.forms.items()}, seconds, scale=one.parts,
                   clock=time.perf_counter)


def summary(one: Case, rounds: pd.DataFrame) -> dict:
    "A line of the table: medians, and the ratios, that of the plain form with its quartiles."
    line = {"case": one.what, **rounds.median(), "original": one.original}
    for name in rounds:
        if name == "ours": continue
        line[f"ratio {name}"], *quartiles = ratio(rounds, name)
        if name == "plain": line["quartiles"] = quartiles
    return line


def committed() -> dict[str, float]:
    "The ratios of the last commit, by id."
    command = ["git", "show", "HEAD:nbs/results/speed.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode: return {}
    return {one["id"].removeprefix("speed/"): one["value"] for one in json.loads(done.stdout)["results"]}


def keep(lines: dict[str, dict], machine: str):
    "Every case's seconds and ratios into nbs/results/speed.json."
    settings = load_settings(ROOT/"settings.ini", profile="full")
    record = Recorder("speed", settings, f"made numbers, {machine}", f"{date.today()}", ROOT/"nbs"/"results")
    for id, line in lines.items():
        def kept(name, value, *limits, unit="times"):
            record(f"{id}/{name}", value, *limits, unit=unit, seeds=[0])
        for name in ("ours", "ours, bf16", "plain"):
            if name in line: kept(name, line[name], unit=line.get("unit", "seconds"))
        if "ratio part" in line: kept("part", line["ratio part"], unit="share")
        if "ratio plain" not in line: continue
        kept("ratio", line["ratio plain"], *line["quartiles"])
        if "ours, bf16" in line: kept("ratio, bf16", line["plain"]/line["ours, bf16"])


def named(lines: dict[str, dict], before: dict[str, float]) -> list[str]:
    "What became slower: cases whose ratio fell by more than a quarter."
    now = {id: line["ratio plain"] for id, line in lines.items() if "ratio plain" in line}
    return [f"{id}: {ratio:.2f} times, {before[key]:.2f} at the last commit" for id, ratio in now.items()
            if (key := f"{id}/ratio") in before and ratio < FELL*before[key]]


def machine() -> str:
    "What it runs on, in words."
    if DEVICE == "cuda": return torch.cuda.get_device_name()
    has_name = hasattr(torch.cpu, "get_capabilities")
    name = torch.cpu.get_capabilities()["cpu_name"].strip() if has_name else "a processor"
    has = [one for one in ("amx_bf16", "avx512_bf16") if has_name and torch.cpu.get_capabilities().get(one)]
    return f"{name} ({', '.join(has) or 'nothing for 16 bits'}), one thread, torch {torch.__version__}"


def shown(line: dict) -> str:
    "One line of the printed table."
    number = lambda name: f"{line[name]:>9.4g}" if name in line else " "*9
    ratio, told = "", line["original"]
    if "ratio plain" in line:
        ratio = f"{line['ratio plain']:>7.1f} [{line['quartiles'][0]:.1f}, {line['quartiles'][1]:.1f}]"
    if "ratio part" in line: told = f"the part: {line['ratio part']:.0%} of ours"
    return (f"{line['case'][:WIDTH]:<{WIDTH}} {number('ours')} {number('ours, bf16')} {number('plain')} "
            f"{ratio:<20} {told}")


def main():
    plainly = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plainly)
    parser.add_argument("--only", default="", help="cases whose id holds this text; nothing is kept")
    parser.add_argument("--seconds", type=float, default=4, help="about so long for each case")
    given = parser.parse_args()
    import cases   # registers them
    use_threads(1)
    on = machine()
    print(on)
    print(f"{'':<{WIDTH}} {'ours, s':>9} {'bf16, s':>9} {'plain, s':>9} {'plain / ours':<20} "
          f"original, elsewhere")
    lines = {}
    for id in [id for id in CASES if given.only in id]:
        one = CASES[id]()
        lines[id] = summary(one, timed(one, given.seconds))
        print(shown(lines[id]), flush=True)
    for id, (what, unit, measure) in cases.MEMORY.items():
        if given.only not in id: continue
        lines[id] = {"case": what, "ours": measure(), "unit": unit, "original": unit}
        print(shown(lines[id]), flush=True)
    print(*(named(lines, committed()) or ["No ratio fell by more than a quarter."]), sep="\n")
    if not given.only: keep(lines, on)


if __name__ == "__main__":
    sys.modules["bench"] = sys.modules["__main__"]   # `cases` registers here
    main()

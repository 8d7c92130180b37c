"""How long each chapter runs: python tools/times.py [BEGINNING OF A NAME ...], as `make test` runs it

Writes processor seconds, those of its helpers included, to nbs/times.csv, from which the site makes a page.
"""
import csv, datetime, os, resource, sys
from pathlib import Path

from house import ROOT, notebooks

TIMES = ROOT/"nbs"/"times.csv"


def processor() -> float:   # seconds
    "What this process and those that it ended have used."
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(
    chapter: Path,   # notebook
) -> float:          # seconds
    "Run a chapter; one that fails is an error."
    from nbdev.test import test_nb
    began = processor()
    sound, _ = test_nb(chapter, skip_flags=["notest", "slow", "net"], force_flags=[], basepath=ROOT)
    if not sound: sys.exit(f"{chapter.name} fails")
    return processor() - began


def merged(
    kept: dict[str, dict],      # rows by chapter
    fresh: dict[str, float],    # seconds by chapter
    profile: str,
    date: str,
    order: list[str],           # of the book
) -> list[dict]:
    "Rows of today in place of those before, in the order of the book; chapters that are gone go."
    rows = kept | {name: {"chapter": name, "seconds": f"{seconds:.2f}", "profile": profile, "date": date}
                   for name, seconds in fresh.items()}
    return [rows[name] for name in order if name in rows]


if __name__ == "__main__":
    os.environ |= {"SSLTS_SOURCE": "sample", "SSLTS_PROFILE": "quick", "SSLTS_THREADS": "1",
                   "MPLBACKEND": "agg"}
    os.chdir(ROOT/"nbs")
    chapters = [path for path in notebooks() if path.name.startswith(tuple(sys.argv[1:]) or "")]
    fresh = {path.stem: measured(path) for path in chapters}
    with TIMES.open(encoding="utf-8") as file: kept = {row["chapter"]: row for row in csv.DictReader(file)}
    today, order = datetime.date.today().isoformat(), [path.stem for path in notebooks()]
    rows = merged(kept, fresh, "quick", today, order)
    with TIMES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["chapter", "seconds", "profile", "date"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

"A bundle that is made in seconds, once in a process, for tests that only need one to be there."
import tempfile
from functools import cache
from pathlib import Path

from sslts_nb.settings import load_settings
from sslts_nb.market import load_markets
from sslts_nb.bundle import make_bundle

UNTIL = "2024-03-01"   # first bar that it has not seen
SMALL = {"features": "market", "hidden": "8", "dimensions": "6", "depth": "2", "steps": "5",
         "batch_size": "4", "crop": "50", "seeds": "0"}


@cache
def small_bundle() -> str:
    "Its folder; made from two months of the hours of SIM00 and SIM01."
    folder = Path(tempfile.mkdtemp())
    settings = load_settings(source="simulated", end=UNTIL, encoders=str(folder/"encoders"), **SMALL)
    make_bundle(load_markets(settings, ["SIM00", "SIM01"]), settings, "small").save(folder/"small")
    return str(folder/"small")

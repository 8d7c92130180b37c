"""Makes the weights that come with the package, and judges them once on the bars after their cut-off.

    SSLTS_SOURCE=files SSLTS_FILES=../shared/data/market SSLTS_PROFILE=full python tools/weights.py

Bit-equal on the same machine: the recipe is fixed here, and chosen on bars before the cut-off."""
from dataclasses import replace
from pathlib import Path
import pandas as pd
from sslts_nb.settings import load_settings, progress, use_threads
from sslts_nb.market import PERPETUALS, load_markets
from sslts_nb.bundle import Bundle, make_bundle
from sslts_nb.bundled import scorecard

CUT_OFF = pd.Timestamp("2024-12-31 23:00", tz="UTC")
RECIPE = {"features": "market", "hidden": 32, "dimensions": 64, "depth": 4, "steps": 600, "crop": 200,
          "batch_size": 16, "learning_rate": 0.001, "seeds": (0,), "horizon": 5}
LIMITS = ["Hours of markets that never close: not stocks. Bars of other lengths are refused.",
          "Of the direction it knows how far prices move, hardly where to; of the regime nothing.",
          "The bands follow what comes: give it some weeks of history before the first forecast."]


def main():
    "Train, judge, write."
    settings = replace(load_settings(), symbol="", interval="60", start="2019-01-01", **RECIPE)
    use_threads(1)
    markets = load_markets(settings, [*PERPETUALS])
    bundle = make_bundle(markets, settings, "hours-small", until=CUT_OFF)
    judged = [scorecard(bundle, bars.loc["2022":], settings)
              for bars in progress([*markets.values()], "judged")]
    bundle = Bundle(bundle.encoder, bundle.monitor, bundle.arrays,
                    bundle.about | {"measured": judged, "limits": LIMITS})
    folder = Path(__file__).resolve().parents[1]/"sslts_nb"/"weights"/"hours-small"
    folder.parent.mkdir(exist_ok=True)
    bundle.save(folder)
    print(f"{bundle}\n{pd.DataFrame(judged).to_string(index=False)}\n{folder}")


if __name__ == "__main__": main()

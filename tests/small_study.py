"""A study of one small market in a few seconds, for what shows a study."""
import pandas as pd

from sslts_nb.settings import load_settings
from sslts_nb.market import simulate_market
from sslts_nb.study import run_study

HOSTILE = '<img src=x onerror="document.title=1">&amp;$^$'   # markup, and what matplotlib takes for a formula


def small_study(symbol="SIM00", **given):
    "A month of simulated hours, one fold, one method that is hardly trained."
    market = simulate_market(1, end=pd.Timestamp("2024-02-15", tz="UTC")).candles["SIM00"]
    market.attrs["symbol"] = symbol
    small = {"source": "simulated", "features": "market", "methods": "ts2vec", "profile": "quick", "steps": 4}
    shape = {"window": 24, "crop": 48, "hidden": 8, "dimensions": 8, "depth": 1, "folds": 1, "bootstrap": 50}
    return run_study(market, load_settings(**small | shape | given))

"""Whole studies that must agree with each other, or find nothing; apart, so that both workers have work."""
import pytest
import pandas as pd

from sslts_nb.settings import load_settings
from sslts_nb.market import load_market, shuffle_bars
from sslts_nb.study import run_study


@pytest.mark.slow
def test_same_seed_same_report(tmp_path):
    "Two runs of the same settings agree in every number, trained twice or loaded."
    small = {"source": "sample", "profile": "quick", "start": "2012-01-01",
             "folds": 1, "steps": 5, "bootstrap": 50}
    runs = [load_settings(**small, encoders=str(tmp_path/name)) for name in ("one", "two", "one")]
    first, second, third = (run_study(load_market(settings), settings).tables for settings in runs)
    kept = [len([*(tmp_path/name).iterdir()]) for name in ("one", "two")]
    assert kept == [len(runs[0].methods)]*2
    for other in (second, third):
        for name in first: pd.testing.assert_frame_equal(first[name], other[name])


@pytest.mark.slow
def test_noise_shows_no_skill(tmp_path):
    "On shuffled bars no accuracy is clear of the majority's, and no volatility is predicted."
    settings = load_settings(source="sample", profile="quick", steps=60, encoders=str(tmp_path/"encoders"))
    scores = run_study(shuffle_bars(load_market(settings), seed=0), settings).tables["scores"]
    assert (scores.accuracy_gain_low <= 0).all(), scores.accuracy_gain_low
    assert (scores.r2 < 0.02).all(), scores.r2

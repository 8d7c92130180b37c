"""The papers' tables of forecasts: what series must be, what the ridge refuses, and the tables by hand."""
import re

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import InputError, load_settings
from sslts_nb.features import lagged
from sslts_nb.papers import (SIMULATED, as_benchmark, forecast_table, load_benchmark, paper_tables, raw_lags,
                             ridge_forecast, simulate_transformer)

FRAME = simulate_transformer()
ONE, ALL = (as_benchmark(FRAME, SIMULATED, univariate) for univariate in (True, False))
LAGS = np.concatenate([lagged(ONE.targets, 48), ONE.clock], 1)


def refused(words):
    return pytest.raises(InputError, match=re.escape(words))


def test_the_simulated_measurements_have_a_day():
    changes = FRAME.HUFL.diff()
    assert changes.autocorr(6) > 0.1 and changes.autocorr(3) < -0.1   # a day later, and half a day later


holed = FRAME.assign(HUFL=FRAME.HUFL.where(FRAME.index != FRAME.index[3]))

@pytest.mark.parametrize("frame, words", [
    (FRAME.drop(columns="OT"), "mine: no column 'OT'"),
    (FRAME[::-1], "mine: the first column is not a regular"),
    (FRAME.iloc[:1000], "1000 rows; wanted 3600"),
    (holed, "HUFL at 2016-07-01 12:00:00 is not a finite number")], ids=["column", "order", "short", "hole"])
def test_a_series_that_is_not_the_papers_is_refused(frame, words):
    with refused(words): as_benchmark(frame, "mine")


@pytest.mark.parametrize("folder, words", [
    ("", "ett is not set; wanted the folder that holds ETTh1.csv"), ("nbs", "there is no such file")])
def test_a_file_that_is_not_there_is_refused(folder, words):
    with refused(words): load_benchmark(load_settings(ett=folder), "ETTh1")


def test_a_ridge_refuses_a_hole_and_a_horizon_beyond_the_span():
    with_hole = LAGS.copy()
    with_hole[300] = np.nan
    with refused("representation of bar 300 is not finite"): ridge_forecast(with_hole, ONE, 24)
    with refused("horizon = 3000: a span has"): ridge_forecast(LAGS, ONE, 3000)


def test_raw_lags_are_the_last_values_and_the_clock():
    np.testing.assert_array_equal(raw_lags(ONE, 48)[47:], LAGS[47:])


def test_a_table_is_the_ridges_by_hand():
    pair = [raw_lags(ONE, length) for length in (1, 3)]
    table = forecast_table({"two seeds": pair, "alone": pair[1:]}, ONE, (24, 48))
    by_hand = np.array([[ridge_forecast(z, ONE, horizon)["mse"] for horizon in (24, 48)] for z in pair])
    for row, wanted in [("two seeds", by_hand.mean(0)), ("alone", by_hand[1])]:
        np.testing.assert_allclose(table.loc[row, [24, 48]].astype(float), wanted, rtol=1e-5)
    np.testing.assert_allclose(table.seed_sd["two seeds"], by_hand.mean(1).std(ddof=1), rtol=1e-5)
    assert np.isnan(table.seed_sd["alone"]) and table.seeds.tolist() == [2, 1]


def test_a_paper_has_a_table_for_one_column_and_one_for_all():
    settings = load_settings(profile="quick")
    this_bar = lambda benchmark, settings: {"this bar and the clock": [raw_lags(benchmark, 1)]}
    found = paper_tables(this_bar, settings, SIMULATED)
    assert [*found] == [ONE.name, ALL.name]
    for table, benchmark in zip(found.values(), (ONE, ALL)):
        known = forecast_table(this_bar(benchmark, settings), benchmark, settings.forecast_horizons)
        pd.testing.assert_series_equal(table.iloc[0], known.iloc[0])

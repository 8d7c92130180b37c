"""Inputs that once gave a wrong number, lost work or a traceback (account): given, wanted."""
import numpy as np, pandas as pd, pytest

from fault_table import Refused, check, fault
from sslts_nb.prices import constant_funding, read_prices
from sslts_nb.backtest import Terms, backtest, trade
from sslts_nb.performance import (Trials, account_table, performance, sharpe_ratio, trade_ledger,
                                  trade_table)
from sslts_nb.signals import (direction_position, gated_position, hysteresis_position, kelly_position,
                              probability_position, prototype_similarity, similarity_position,
                              threshold_position, timed_fills, trailing_quantile, volatility_target)
from sslts_nb.portfolio import (asset_vectors, cluster_assets, cluster_weights, correlation_distance,
                                correlation_table, correlations, forecast_correlation,
                                hierarchical_weights, inverse_volatility_weights, similarities)

ROWS = []
HOURS = 72
FREE = Terms(taker=0, slippage=0)
DRAW = np.random.default_rng(0)


def account_candles(close, freq="h"):
    "Bars that open where the last one closed."
    close = np.asarray(close, dtype=float)
    opened = np.append(close[:1], close[:-1])
    index = pd.date_range("2024-01-01", periods=len(close), freq=freq, tz="UTC", unit="ms")
    columns = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close),
               "close": close, "volume": 1.}
    return pd.DataFrame(columns, index)


def account_flat(n_bars=HOURS): return account_candles(np.full(n_bars, 100.))


WALK = account_candles(100*np.exp(DRAW.normal(0, 0.02, HOURS).cumsum()))
OTHER = account_candles(100*np.exp(DRAW.normal(0, 0.02, HOURS).cumsum()))
BOTH = {"A": WALK, "B": OTHER}
WISH = pd.Series(np.sign(DRAW.normal(size=HOURS)), WALK.index)
WISHES = pd.DataFrame({"A": 0.5, "B": -0.25}, WALK.index)


def account_end(*given, **more): return float(trade(*given, **more).equity[0, -1])


def account_rates(hours, rate, until=HOURS):
    return pd.Series(rate, pd.date_range("2024-01-01", periods=until//hours, freq=f"{hours}h", tz="UTC"))


EIGHT, FOUR = account_rates(8, 1e-4), account_rates(4, 5e-5)
LABELS = Refused("labels do not match")


# 5: labels

@fault(ROWS, 5, "candles newest first", Refused("twice or out of order"))
def _(folder): return trade(np.ones(HOURS), WALK[::-1])

@fault(ROWS, 5, "a time twice", Refused("twice or out of order"))
def _(folder): return trade(np.ones(HOURS), WALK.iloc[[*range(40), 39, *range(41, HOURS)]])

@fault(ROWS, 5, "positions in another order of columns", LABELS)
def _(folder): return trade(WISHES[["B", "A"]], BOTH, FREE)

@fault(ROWS, 5, "positions with a column of another asset", LABELS)
def _(folder): return trade(WISHES.set_axis(["A", "C"], axis=1), BOTH, FREE)

@fault(ROWS, 5, "positions in reverse", LABELS)
def _(folder): return trade(WISH[::-1], WALK, FREE)

@fault(ROWS, "5+", "positions of other hours", LABELS)
def _(folder): return trade(WISH.shift(1, freq="h"), WALK, FREE)

@fault(ROWS, "5+", "positions without a row", LABELS)
def _(folder): return trade(WISH.drop(WISH.index[7]), WALK, FREE)

@fault(ROWS, "5+", "positions without a time zone", LABELS)
def _(folder): return trade(WISH.tz_localize(None), WALK, FREE)

@fault(ROWS, "5+", "positions whose labels are numbers", LABELS)
def _(folder): return trade(WISH.reset_index(drop=True), WALK, FREE)

@fault(ROWS, "5+", "figures of positions in reverse", LABELS)
def _(folder): return trade_table(WISH[::-1], WALK, FREE)

@fault(ROWS, "5+", "a table of positions in reverse", LABELS)
def _(folder): return backtest(WISH[::-1], WALK, 0., 0.)

@fault(ROWS, "5+", "orders in reverse", LABELS)
def _(folder): return trade(WISH, WALK, FREE, renew=pd.Series(False, WALK.index)[::-1])

@fault(ROWS, "5+", "orders that are not known", Refused("true or false"))
def _(folder): return trade(WISH, WALK, FREE, renew=np.full(HOURS, np.nan))

@fault(ROWS, "5+", "two markets of which one comes newest first", LABELS)
def _(folder): return read_prices({"A": WALK, "B": OTHER[::-1]})

@fault(ROWS, "5+", "two markets of which one starts later", LABELS)
def _(folder): return read_prices({"A": WALK, "B": OTHER.shift(1, freq="h")})

@fault(ROWS, "5+", "two markets in two time zones", account_end(WISHES.to_numpy(), BOTH))
def _(folder): return account_end(WISHES, {"A": WALK, "B": OTHER.tz_convert("Europe/Berlin")})

@fault(ROWS, "5+", "candles without times", Refused("wanted the time of each bar"))
def _(folder): return trade(WISH.to_numpy(), WALK.reset_index(drop=True))

@fault(ROWS, "5+", "a column twice", Refused("2 columns 'close'"))
def _(folder): return read_prices(pd.concat([WALK, WALK[["close"]]], axis=1))

@fault(ROWS, "5+", "a masked position", Refused("is nan"))
def _(folder): return trade(np.ma.masked_array(WISH.to_numpy(), np.arange(HOURS) == 9), WALK)

@fault(ROWS, "5+", "expected returns and variances in two orders", LABELS)
def _(folder): return kelly_position(WISH, (WISH.abs() + 1)[::-1])

@fault(ROWS, "5+", "positions and volatilities of other hours", LABELS)
def _(folder): return volatility_target(WISH, WISH.abs().shift(1, freq="h"), 0.1)

@fault(ROWS, "5+", "a threshold in reverse", LABELS)
def _(folder): return gated_position(WISH, WISH.abs(), WISH, WISH[::-1], 0.1)

@fault(ROWS, "5+", "a score of other bars than the candles", LABELS)
def _(folder): return timed_fills(WISH[::-1], WALK, 10, 5, 0.)

@fault(ROWS, "5+", "one bar less of one series", Refused("wanted the same bars"))
def _(folder): return volatility_target(np.ones(10), np.ones(9), 0.1)

@fault(ROWS, "5+", "returns of other hours in the log of trials", LABELS)
def _(folder):
    trials = Trials(8766)
    trials.add("first", WISH)
    trials.add("second", WISH.shift(1, freq="h"))

@fault(ROWS, "5+", "a covariance whose rows and columns have two orders", LABELS)
def _(folder): return inverse_volatility_weights(pd.DataFrame(np.eye(2), ["A", "B"], ["B", "A"]))

@fault(ROWS, "5+", "a distance of assets in another order", LABELS)
def _(folder):
    matrix = lambda names: pd.DataFrame(np.eye(3), names, names)
    return hierarchical_weights(matrix([*"ABC"]), matrix([*"ACB"]))

@fault(ROWS, "5+", "vectors of two assets on other dates", LABELS)
def _(folder): return asset_vectors({"A": WALK[["close"]], "B": WALK[["close"]].shift(1, freq="h")}, [30], 10)

@fault(ROWS, "5+", "a log that would change with the array that was given", 0.5)
def _(folder):
    trials, returns = Trials(8766), np.array([0.5, -0.5, 0.25])
    trials.add("one", returns)
    returns[:] = 0
    return trials.returns["one"][0].item()


# 6: funding and terms

@fault(ROWS, 6, "funding of two contracts every eight and every four hours, in one table", 1 - 0.000825)
def _(folder):
    half = pd.DataFrame({"A": 0.5, "B": 0.5}, account_flat().index)
    paid = pd.DataFrame({"A": EIGHT, "B": FOUR})
    return account_end(half, {"A": account_flat(), "B": account_flat()}, FREE, paid)

@fault(ROWS, 6, "one payment that is NaN", 1 - 7e-4)
def _(folder):
    return account_end(np.ones(HOURS), account_flat(), FREE, EIGHT.mask(np.arange(9) == 3))

@fault(ROWS, 6, "an infinite rate", Refused("funding of asset at 2024-01-02 00:00:00.*not finite"))
def _(folder): return trade(np.ones(HOURS), account_flat(), FREE, EIGHT.mask(np.arange(9) == 3, np.inf))

@fault(ROWS, 6, "payments without a time zone", Refused("without times in a time zone"))
def _(folder): return trade(np.ones(HOURS), account_flat(), FREE, EIGHT.tz_localize(None))

@fault(ROWS, 6, "payments 5 ms late, of a position that is bought then", 1 - 7e-4)
def _(folder):
    late = EIGHT.set_axis(EIGHT.index + pd.Timedelta("5ms"))
    bought = np.where(np.arange(HOURS) >= 7, 1., 0.)                         # in the bar of eight o'clock
    return account_end(bought, account_flat(), FREE, late)

@fault(ROWS, "6+", "a payment that comes twice", Refused("comes twice"))
def _(folder): return trade(np.ones(HOURS), account_flat(), FREE, pd.concat([EIGHT, EIGHT[3:4]]))

@fault(ROWS, "6+", "a payment that comes twice, once 5 ms late", Refused("comes twice"))
def _(folder):
    again = EIGHT[3:4].set_axis(EIGHT.index[3:4] + pd.Timedelta("5ms"))
    return trade(np.ones(HOURS), account_flat(), FREE, pd.concat([EIGHT, again]))

@fault(ROWS, "6+", "payments of another contract", Refused("no funding of asset"))
def _(folder):
    rates = EIGHT.copy()
    rates.attrs = {"symbol": "ETHUSDT"}
    return trade(np.ones(HOURS), account_flat(), FREE, rates)

@fault(ROWS, "6+", "a column of payments twice", Refused("no funding of A, or more than one"))
def _(folder):
    twice = pd.concat([EIGHT.rename("A"), EIGHT.rename("A")], axis=1)
    return read_prices({"A": account_flat()}, twice)

@fault(ROWS, "6+", "payments that ended before the first bar", Refused("none of them falls"))
def _(folder): return trade(np.ones(HOURS), account_flat(), FREE, EIGHT.shift(-3000, freq="h"))

@fault(ROWS, "6+", "payments as an array", Refused("without times in a time zone"))
def _(folder): return trade(np.ones(HOURS), account_flat(), FREE, EIGHT.to_numpy())

@fault(ROWS, "6+", "payments beside prices that have theirs", Refused("funding beside prices"))
def _(folder): return trade(np.ones(HOURS), read_prices(account_flat()), FREE, EIGHT)

@fault(ROWS, "6+", "assumed payments of bars in Tokyo's time", 1 - 8e-4)
def _(folder):
    bars = account_flat().tz_convert("Asia/Tokyo")
    return account_end(np.ones(HOURS), bars, FREE, constant_funding(bars.index, ["asset"]))

for hours in (0, -8, 5, 2.5, np.nan):
    @fault(ROWS, "6+", f"assumed payments every {hours} hours", Refused("that divides 24"))
    def _(folder, hours=hours): return constant_funding(account_flat().index, ["A"], hours=hours)

@fault(ROWS, "6+", "an assumed rate that is NaN", Refused("a finite rate"))
def _(folder): return constant_funding(account_flat().index, ["A"], np.nan)

@fault(ROWS, "6+", "assumed payments of no bars", Refused("0 bars"))
def _(folder): return constant_funding(account_flat(0).index, ["A"])

BAD_TERMS = [{"taker": np.inf}, {"step": np.inf}, {"capital": np.inf},
             {"slippage": np.inf}, {"slippage_volatility": np.inf}, {"minimum": np.inf},
             {"maintenance": np.inf}, {"liquidation_fee": np.inf}, {"taker": 5.5}, {"maintenance": 1.5}]
for terms in BAD_TERMS:
    @fault(ROWS, 6, f"terms {terms}", Refused("wanted no cost but the maker's below zero"))
    def _(folder, terms=terms): return Terms(**terms)

for terms in ({"delay": 1.0}, {"delay": True}, {"delay": "1"}, {"taker": True}, {"taker": "0.001"},
              {"taker": None}, {"capital": np.bool_(True)}, {"execution": 1}, {"hold": None},
              {"taker": np.ones(2)}):
    @fault(ROWS, 6, f"terms {terms}", Refused(r"; wanted a (whole )?(number|word)"))
    def _(folder, terms=terms): return Terms(**terms)


# 7: trials

def account_trials(n=20, n_bars=200, mean=0.02):
    trials, draw = Trials(252), np.random.default_rng(1)
    for number in range(n): trials.add(f"{number}", draw.normal(mean*(number == 0), 0.1, n_bars))
    return trials

@fault(ROWS, 7, "returns that begin with NaN", Refused("trial 'new': bar 0 has nan"))
def _(folder): account_trials().add("new", pd.Series(np.arange(1., 201)).pct_change())

@fault(ROWS, 7, "no trial", Refused("a log of 0 trials"))
def _(folder): return Trials(252).table()

@fault(ROWS, 7, "no trial, its luck", Refused("a log of 0 trials"))
def _(folder): return Trials(252).luck()

@fault(ROWS, 7, "no trial, its overfitting", Refused("a log of 0 trials"))
def _(folder): return Trials(252).overfitting()

@fault(ROWS, "7+", "trials that never traded", Refused("none of which traded"))
def _(folder):
    trials = Trials(252)
    trials.add("flat", np.zeros(100))
    return trials.table()

@fault(ROWS, "7+", "a constant return, which would not be counted", Refused("no Sharpe ratio"))
def _(folder): account_trials().add("cash", np.full(200, 1e-4))

for returns in (np.full(200, np.inf), np.zeros((200, 2)), [], ["a"]*200, [0.1]):
    @fault(ROWS, "7+", f"returns {str(returns)[:20]!r}", Refused("trial 'new'"))
    def _(folder, returns=returns): account_trials(0).add("new", returns)

for bars in (0, -252, np.nan, np.inf):
    @fault(ROWS, "7+", f"{bars} bars a year", Refused("bars a year; wanted more than none"))
    def _(folder, bars=bars): return Trials(bars)

for blocks in (7, 0, -2, 2.5, 200, 40):
    @fault(ROWS, "7+", f"{blocks} blocks", Refused("wanted an even number"))
    def _(folder, blocks=blocks): return account_trials().overfitting(blocks)

for spread in (-1., np.nan, np.inf):
    @fault(ROWS, "7+", f"spread {spread}", Refused("wanted a variance"))
    def _(folder, spread=spread): return account_trials().table(spread)

@fault(ROWS, "7+", "one trial to choose from", Refused("two or more"))
def _(folder): return account_trials(1).overfitting()


# 12: deviations and their rounding

for constant in (1234.567, -999.1):
    @fault(ROWS, 12, f"the Sharpe ratio of {constant} in every bar", np.array([np.nan, np.nan]))
    def _(folder, constant=constant): return np.array(sharpe_ratio(np.full(10_001, constant), 252))

@fault(ROWS, "12+", "Kelly's share at a variance of 1e-34", np.zeros(3))
def _(folder): return kelly_position(np.full(3, 0.01), np.full(3, 1e-34))

@fault(ROWS, "12+", "a target volatility at a volatility of 1e-17", np.zeros(3))
def _(folder): return volatility_target(np.ones(3), np.full(3, 1e-17), 0.01)

@fault(ROWS, "12+", "the prototype of vectors that do not move", np.full(100, np.nan))
def _(folder): return prototype_similarity(np.full((100, 4), 0.1), np.ones(100), 5, least=10)

@fault(ROWS, "12+", "the similarity of vectors that are the same", np.zeros((10, 10)))
def _(folder): return similarities(np.full((10, 3), 0.1))

@fault(ROWS, "12+", "clusters of vectors that are the same but for rounding", [0]*10)
def _(folder): return cluster_assets(0.1 + np.arange(30).reshape(10, 3)*1e-17, 3).tolist()

@fault(ROWS, "12+", "the correlation with 0.1 in every bar", np.array([1., 0, 0]))
def _(folder):
    returns = np.random.default_rng(0).normal(size=(300, 3))
    returns[100:, 0] = 0.1
    return correlations(returns, [100], [299])[0, 0]

FROZEN = np.cov(np.stack([np.random.default_rng(0).normal(size=90), np.full(90, 0.1), np.arange(90.)]))
for weigh in (inverse_volatility_weights, hierarchical_weights):
    @fault(ROWS, "12+", f"{weigh.__name__}, one asset does not move", Refused("asset 1 has a variance"))
    def _(folder, weigh=weigh): return weigh(FROZEN)

@fault(ROWS, "12+", "weights of two pairs that hedge themselves", np.full(4, 0.25))
def _(folder):
    pair = np.array([[1., -1], [-1, 1]])*0.01**2
    return hierarchical_weights(np.block([[pair, np.zeros((2, 2))], [np.zeros((2, 2)), pair]]),
                                np.array([[0., 1, 9, 9], [1, 0, 9, 9], [9, 9, 0, 1], [9, 9, 1, 0]]))

@fault(ROWS, "12+", "correlations to foretell that are all 0.1", Refused("does not vary"))
def _(folder): return correlation_table(np.full((20, 3), 0.1), {"it": np.zeros((20, 3))}, 10, 2)


# 13: running sums

@fault(ROWS, 13, "one tick of a million at bar 5, correlations of bars 1500 to 1600", -0.0777)
def _(folder):
    returns = np.random.default_rng(13).normal(0, 0.001, (2000, 2))
    wanted = np.corrcoef(returns[1500:1601].T)[0, 1]
    returns[5, 0] = 1e6
    return correlations(returns, [1500], [1600])[0, 0, 1].item() - wanted - 0.0777

@fault(ROWS, "13+", "one tick of 1e12 at bar 5, mean vectors of bars 1500 to 1600", np.zeros(3))
def _(folder):
    vectors = np.random.default_rng(0).normal(size=(2000, 3))
    wanted = vectors[1500:1601].mean(0)
    vectors[5] = 1e12
    return asset_vectors({"A": vectors}, [1600], 101)[0, 0] - wanted

@fault(ROWS, "13+", "an unknown vector at bar 5, mean vectors of bars 1500 to 1600", 1.)
def _(folder):
    vectors = np.ones((2000, 1))
    vectors[5] = np.nan
    return asset_vectors({"A": vectors}, [1600], 101).item()


# section 4 and its relatives: nothing, little, and too much

@fault(ROWS, "section 4", "no bars", Refused("0 bars"))
def _(folder): return trade(np.zeros(0), account_flat(0))

@fault(ROWS, "section 4", "no bars, in many markets", Refused("0 bars"))
def _(folder): return trade(np.zeros((0, 2)), {"A": account_flat(0), "B": account_flat(0)})

@fault(ROWS, "section 4", "no strategies", Refused("wanted one per bar"))
def _(folder): return trade_table(np.zeros((HOURS, 1, 0)), WALK)

@fault(ROWS, "section 4", "no markets", Refused("wanted candles"))
def _(folder): return trade(np.zeros(HOURS), {})

@fault(ROWS, "section 4", "a price of 0", Refused("close of asset is not a price .* 2024-01-01 07"))
def _(folder): return trade(np.ones(HOURS), WALK.assign(close=WALK.close.where(np.arange(HOURS) != 7, 0)))

@fault(ROWS, "section 4", "an account of no bars", Refused("wanted them at one bar or more"))
def _(folder): return performance(backtest(np.ones(HOURS), WALK, 0., 0.)[:0], 252)

@fault(ROWS, "section 4", "an account with a return that is not known", Refused("no finite numbers"))
def _(folder): return performance(backtest(np.ones(HOURS), WALK, 0., 0.).replace({"net": {0.: np.nan}}), 252)

@fault(ROWS, "section 4", "an account without its columns", Refused("an account without position"))
def _(folder): return performance(WALK, 252)

@fault(ROWS, "section 4", "a strategy that there is not", Refused("wanted one of the 1"))
def _(folder): return trade_ledger(trade(WISH, WALK), 1)

@fault(ROWS, "section 4", "two names of one strategy", Refused("2 names of 1 strategies"))
def _(folder): return account_table(trade(WISH, WALK), ["a", "b"])

for size in (1e7, 1e300):
    @fault(ROWS, "section 4", f"positions of {size}", Refused("times the equity"))
    def _(folder, size=size): return trade(np.full(HOURS, size), WALK)

@fault(ROWS, "section 4", "costs of a share of 3000 in one asset of two", 1/(1 + 3000*0.00065))
def _(folder):
    return account_end(np.tile([3000., 0], (HOURS, 1)), {"A": account_flat(), "B": account_flat()})

@fault(ROWS, "section 4", "to sell a part costs more than it brings", 0.)
def _(folder):
    wish = np.append(np.full(9, 11.), np.full(HOURS - 9, 10.))
    return account_end(wish, account_flat(), Terms(taker=0.2))

@fault(ROWS, "section 4", "a rebate that pays for itself", Refused("less than 2 in all"))
def _(folder): return trade(np.full(HOURS, 3.), WALK, Terms(maker=-0.5, maker_share=1.))

@fault(ROWS, "section 4", "an equity beyond all numbers", Refused("beyond what a number can hold"))
def _(folder): return trade(np.ones(5), account_candles([1e-300, 1e-300, 1e-300, 1e10, 1e300]), FREE)

@fault(ROWS, "section 4", "a margin, and a low above the close", Refused("leaves out its open or close"))
def _(folder): return trade(WISH, WALK.assign(low=WALK.close*1.1), Terms(maintenance=0.01))

for wrong in ([0, 1, 3], [np.nan], [0.5], ["up"]):
    @fault(ROWS, "section 4", f"directions {wrong}", Refused("class"))
    def _(folder, wrong=wrong): return direction_position(wrong)

for name, wrong in {"an infinite score": lambda: threshold_position([np.inf], 0.5),
                    "an infinite score, with hysteresis": lambda: hysteresis_position([1, -np.inf], 0.5, 0.1),
                    "a threshold below zero": lambda: threshold_position([0.1], -0.5),
                    "a threshold that is NaN": lambda: threshold_position([0.1], np.nan),
                    "a limit below zero": lambda: probability_position([0.1], limit=-1),
                    "a negative variance": lambda: kelly_position([0.1], [-1]),
                    "an infinite expected return": lambda: kelly_position([np.inf], [1]),
                    "a target that is NaN": lambda: volatility_target([1], [1], np.nan),
                    "an infinite similarity": lambda: similarity_position([np.inf], [1], 0.1),
                    "a quantile of 2": lambda: trailing_quantile(np.arange(9.), 4, 2),
                    "a window of 2.5 bars": lambda: trailing_quantile(np.arange(9.), 2.5, 0.5),
                    "a horizon of 1.0": lambda: prototype_similarity(np.ones((9, 2)), np.ones(9), 1.0),
                    "profitable: 2": lambda: prototype_similarity(np.ones((9, 2)), np.full(9, 2), 1),
                    "orders every 5.5 bars": lambda: timed_fills(np.ones(HOURS), WALK, 5.5, 2, 0.),
                    "more opens than bars": lambda: timed_fills(np.ones(HOURS), WALK, 99, 99, 0.),
                    "2.5 clusters": lambda: cluster_assets(np.eye(3), 2.5),
                    "no clusters": lambda: cluster_weights([]),
                    "a cluster that is NaN": lambda: cluster_weights([0, np.nan]),
                    "a correlation of 2": lambda: correlation_distance([[1, 2], [2, 1]]),
                    "a covariance of 3 of deviations 1": lambda: hierarchical_weights([[1, 3], [3, 1]]),
                    "a covariance with NaN": lambda: inverse_volatility_weights([[1, np.nan], [np.nan, 1]]),
                    "a covariance that is no square": lambda: hierarchical_weights(np.ones((2, 3))),
                    "a span that ends before it begins": lambda: correlations(np.eye(9), [5], [4]),
                    "a span before the first bar": lambda: correlations(np.eye(9), [-3], [4]),
                    "a return that is NaN": lambda: correlations(np.eye(9)*np.nan, [0], [4]),
                    "dates beyond the last bar": lambda: asset_vectors({"A": np.eye(9)}, [9], 2),
                    "vectors that are not finite": lambda: similarities(np.full((3, 2), np.nan)),
                    "no date to fit on": lambda: forecast_correlation(np.eye(3), {}, np.zeros(3, bool)),
                    "dates to fit on by number": lambda: forecast_correlation(np.eye(3), {}, [0, 1, 1]),
                    }.items():
    @fault(ROWS, "section 4", name, Refused("wanted"))
    def _(folder, wrong=wrong): return wrong()


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

"""A thousand random accounts against a trader who takes event after event; a market with nothing to earn."""
import numpy as np, pandas as pd, pytest

from reference_account import in_shares, in_units
from sslts_nb.settings import use_threads
from sslts_nb.market import sample_candles, shuffle_bars
from sslts_nb.prices import constant_funding
from sslts_nb.backtest import Terms, cost_rates, trade
from sslts_nb.performance import account_table, audit, performance, sharpe_ratio, trade_table

use_threads(1)


def random_market(rng, n_bars, n_assets):
    "Candles by symbol; some are wild, so that accounts are ruined and liquidated."
    size, freq = rng.choice([0.01, 0.05, 0.3]), rng.choice(["h", "4h", "D"])
    index = pd.date_range("2024-01-01", periods=n_bars, freq=freq, tz="UTC")
    def candles():
        close = rng.uniform(1, 1000)*np.exp(rng.normal(0, size, n_bars).cumsum())
        opened = close*np.exp(rng.normal(0, size, n_bars))
        beyond = lambda: np.exp(np.abs(rng.normal(0, size/2, n_bars)))
        high = np.maximum(opened, close)*beyond()
        low = np.minimum(opened, close)/beyond()
        return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.}, index)
    return {f"A{number}": candles() for number in range(n_assets)}


def random_terms(rng):
    "Any of the options, in any combination that is allowed."
    given = {"taker": rng.uniform(0, 0.01), "maker": rng.uniform(-0.001, 0.001),
             "maker_share": float(rng.choice([0, 0.3, 1])), "slippage": rng.uniform(0, 0.005),
             "slippage_volatility": float(rng.choice([0, 0.1])),
             "execution": str(rng.choice(["open", "close"])), "delay": int(rng.integers(0, 3)),
             "capital": float(rng.choice([1, 1e5])),
             "hold": str(rng.choice(["units", "rebalanced", "share"]))}
    if rng.random() < 0.3: given["leverage"] = rng.uniform(0.5, 3)
    if given["hold"] != "share" and rng.random() < 0.5:
        if rng.random() < 0.5: given["step"] = given["capital"]*float(rng.choice([1e-4, 1e-3]))
        if rng.random() < 0.5: given["minimum"] = given["capital"]*0.05
        if rng.random() < 0.5: given |= {"maintenance": 0.02, "liquidation_fee": float(rng.choice([0, 0.01]))}
    return Terms(**given)


def random_case(seed):
    "Positions of two strategies, candles, terms, funding, and where targets are given anew."
    rng = np.random.default_rng(seed)
    n_bars, n_assets = int(rng.integers(8, 30)), int(rng.integers(1, 4))
    markets, terms = random_market(rng, n_bars, n_assets), random_terms(rng)
    position = np.round(rng.uniform(-1.5, 1.5, (n_bars, n_assets, 2)), 1)
    position = position*(rng.random((n_bars, n_assets, 2)) < 0.8)
    changes = np.where(rng.random(n_bars) < 0.5, np.arange(n_bars), 0)       # many bars without a change
    position = position[np.maximum.accumulate(changes)]
    renew = rng.random(n_bars) < 0.2 if rng.random() < 0.5 else None
    if rng.random() < 0.5: return position, markets, terms, None, renew
    funding = constant_funding(next(iter(markets.values())).index, [*markets], rate=0.001)
    return position, markets, terms, funding*rng.normal(size=funding.shape), renew


def bars_of(prices, terms):
    "What the slow trader is told of each bar."
    slippage = np.broadcast_to(cost_rates(prices, terms)[1], prices.open.shape)
    columns = {name: getattr(prices, name) for name in ("open", "high", "low", "close", "due", "within")}
    columns["slippage"] = slippage
    return [{name: one[:, t].tolist() for name, one in columns.items()} for t in range(len(prices.index))]


def expected(position, prices, terms, renew):
    "The slow trader's account, arrays by name."
    bars = bars_of(prices, terms)
    if terms.hold == "share": return {"equity": np.array(in_shares(position.tolist(), bars, terms))}
    rows = in_units(position.tolist(), bars, terms, renew)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("part", range(5))
def test_a_thousand_accounts(part):
    lost, forms = 0, set()
    for seed in range(part*200, part*200 + 200):
        position, markets, terms, funding, renew = random_case(seed)
        accounts = trade(position, markets, terms, funding, renew)
        lost += (~accounts.alive[:, -1]).sum()
        forms.add((terms.hold, terms.sequential, terms.execution))
        strategy = seed % 2
        for name, wanted in expected(position[..., strategy], accounts.prices, terms, renew).items():
            found, alive = getattr(accounts, name)[strategy].T, accounts.alive[strategy]
            largest = np.abs(wanted).max()
            # of the bar in which all is lost, only the end is told
            until = len(found) if name == "equity" or alive.all() else alive.argmin()
            scale = max(largest, 1e-300) if name == "units" else terms.capital*max(1, largest)
            np.testing.assert_allclose(found[:until]/scale, wanted[:until]/scale, atol=1e-9, rtol=0,
                                       err_msg=f"case {seed}, {name}, {terms}")
    assert lost > 5 and len(forms) == 10     # the cases are what they are meant to be


def test_what_is_traded_together_is_what_is_traded_alone():
    position, markets, terms, funding, renew = random_case(5)
    many = np.random.default_rng(0).uniform(-1, 1, (len(position), position.shape[1], 7))
    for terms in (Terms(), Terms(hold="share"), Terms(step=1e-3, maintenance=0.01)):
        together = trade(many, markets, terms, funding, renew)
        for strategy in range(7):
            alone = trade(many[..., strategy], markets, terms, funding, renew)
            for name in ("equity", "fee", "units", "alive"):
                found, wanted = getattr(together, name)[strategy], getattr(alone, name)[0]
                np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_blocks_do_not_matter():
    candles = sample_candles().iloc[:4000]
    many = np.random.default_rng(0).uniform(-1, 1, (4000, 1, 40))            # more than one block
    table = trade_table(many, candles)
    for strategy in (0, 17, 39):
        alone = trade_table(many[..., strategy], candles)
        pd.testing.assert_series_equal(alone.iloc[0], table.iloc[strategy], check_names=False)
    audit(trade(many[..., :3], candles))


def test_noise_earns_nothing():
    "On shuffled bars: no rule earns more than chance before costs, and after them all lose what they pay."
    candles = shuffle_bars(sample_candles(), seed=3)
    r = candles.close.pct_change().fillna(0).to_numpy()
    rules = {}
    for bars in (1, 2, 5, 10, 20, 50):
        trend = np.sign(pd.Series(r).rolling(bars).sum().fillna(0).to_numpy())
        rules |= {f"follow {bars}": trend, f"fade {bars}": -trend}
    position = np.stack([*rules.values()], -1)[:, None]
    at = lambda fee: Terms(taker=fee, slippage=0, hold="rebalanced")
    free, costly = (trade_table(position, candles, at(fee), names=[*rules]) for fee in (0.0, 0.002))
    drift = r.mean()/r.std()*np.sqrt(252)     # what a position that is long half of the time has to earn
    assert (np.abs(free.sharpe) < np.abs(drift) + 3.2*free.sharpe_se).all(), free.sharpe
    lost, paid = np.log1p(free.total_return) - np.log1p(costly.total_return), costly.annual_cost*len(r)/252
    np.testing.assert_allclose(lost/paid, 1, atol=0.06)
    assert (costly.total_return < free.total_return).all()


def test_slippage_is_known_before_the_bar():
    "The bar that is traded in has not ended: its own close cannot be in the volatility that prices it."
    rng = np.random.default_rng(1)
    close = 100*np.exp(np.where(np.arange(40) % 2, 0.001, 0.05).cumsum())        # loud and quiet bars in turn
    index = pd.date_range("2024-01-01", periods=40, freq="h", tz="UTC")
    candles = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 1.}, index)
    terms = Terms(taker=0, slippage=0, slippage_volatility=1.0)
    for t in (10, 11, 39):
        position = np.where(np.arange(40) == t - 1, 1.0, 0.0)                    # bought in bar t
        r = np.diff(np.log(close[:t]))
        paid = trade(position, candles, terms).slippage[0, t]
        np.testing.assert_allclose(paid, (rate := np.sqrt(np.mean(r**2)))/(1 + rate), rtol=1e-12)
        other = candles.copy()
        other.iloc[t, 1:4] *= rng.uniform(1.5, 2)
        assert trade(position, other, terms).slippage[0, t] == paid


def test_two_years_by_hand():
    "Half is lost in the first bar; the figures of a year are half of the sums."
    net = np.array([-0.5, 0.2, 0.1, 0.0, 0.3, -0.1])
    account = pd.DataFrame({"position": [1., 1, 1, 0, -0.5, 1], "turnover": [1., 0, 0, 1, 0.5, 1.5],
                            "net": net, "equity": np.cumprod(1 + net), "fee": 0.01,
                            "slippage": 0.02, "funding": -0.03})
    said = performance(account, 3)
    deviation = np.sqrt(np.sum((net - net.mean())**2)/5)
    wanted = {"max_drawdown": -0.5, "annual_volatility": np.sqrt(3)*deviation, "annual_fee": 0.03,
              "annual_slippage": 0.06, "annual_cost": 0.09, "annual_funding": -0.09, "annual_turnover": 2,
              "total_return": 0.5*1.2*1.1*1.3*0.9 - 1, "annual_return": np.sqrt(0.5*1.2*1.1*1.3*0.9) - 1,
              "in_market": 5/6, "exposure": 4.5/6, "hit_rate": 3/5, "bars": 6,
              "sharpe": net.mean()/deviation*np.sqrt(3),
              "sortino": net.mean()/np.sqrt((0.5**2 + 0.1**2)/6)*np.sqrt(3)}
    for name, value in wanted.items(): np.testing.assert_allclose(said[name], value, rtol=1e-12, err_msg=name)


def test_figures_of_accounts_are_those_of_a_toy():
    "An account that loses in its first bar, in money, so that the capital matters."
    index = pd.date_range("2023-01-01", periods=3, freq="365D", tz="UTC")
    candles = pd.DataFrame({"open": [100., 100, 50], "high": 100., "low": 50., "close": [100., 50, 100],
                            "volume": 1.}, index)
    accounts = trade(np.ones(3), candles, Terms(taker=0, slippage=0, capital=5000))
    said = account_table(accounts, ["long"]).loc["long"]
    np.testing.assert_allclose(said[["max_drawdown", "total_return", "exposure"]], [-0.5, 0, 2/3])


def toy(close):
    "Hours that open where the last one closed."
    close = np.asarray(close, dtype=float)
    opened = np.append(close[:1], close[:-1])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    index = pd.date_range("2024-01-01", periods=len(close), freq="h", tz="UTC", unit="ms")
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.}, index)


@pytest.mark.parametrize("terms", [{}, {"hold": "rebalanced"}, {"hold": "share"}, {"maintenance": 0.01}])
@pytest.mark.parametrize("execution, delay", [("open", 0), ("close", 0), ("open", 3)])
def test_one_bar_early_makes_a_fortune(terms, execution, delay):
    """Each bar's sign is a coin. Whoever knows the sign of the first bar that a decision is held in makes a
    fortune, and with what is known at the decision, or a bar earlier than that bar, nothing."""
    n_bars, step = 1000, 0.01
    signs = np.random.default_rng(0).choice([-1., 1.], n_bars)
    candles = toy(100*np.exp(step*signs.cumsum()))
    account = Terms(taker=0, slippage=0, execution=execution, delay=delay, **terms)
    ahead = 1 + delay + (execution == "close")               # bars until the first one that it is held in
    def grown(bars):
        "Logarithm of what one unit of money becomes with the sign that comes so many bars later."
        return np.log(trade(np.append(signs[bars:], np.zeros(bars)), candles, account).equity[0, -1])
    assert grown(ahead) > 0.9*step*n_bars
    for known in range(ahead): assert abs(grown(known)) < 5*step*np.sqrt(n_bars)
    assert abs(grown(ahead + 1)) < 5*step*np.sqrt(n_bars)


def test_what_has_its_labels_is_taken():
    "The same moments in another zone and unit, payments in any order, numpy's numbers: it means the same."
    position, markets, _, funding, _ = random_case(12)
    symbols, terms = [*markets], Terms(taker=0.001)
    index = markets[symbols[0]].index
    if funding is None: funding = constant_funding(index, symbols)
    wanted = trade(position, markets, terms, funding).equity
    labelled = pd.DataFrame(position[..., 0], index.as_unit("s").tz_convert("Asia/Tokyo"), symbols)
    other = {symbol: one.tz_convert("Europe/Berlin") for symbol, one in markets.items()}
    paid = funding[::-1].tz_convert("America/New_York")
    terms = Terms(taker=np.float64(0.001), delay=np.int8(0))
    found = trade(labelled, other, terms, paid[symbols[::-1]]).equity
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)


@pytest.mark.parametrize("terms", [{}, {"hold": "share"}, {"hold": "rebalanced"}, {"maintenance": 0.01},
                                   {"delay": 9}])
def test_little_is_no_error(terms):
    "One bar, two bars, and nothing held; and a leverage that cuts what would be too much."
    one, two = (toy(np.full(n, 100.)) for n in (1, 2))
    for candles in (one, two):
        paid = constant_funding(candles.index, ["asset"])
        books = trade(np.zeros(len(candles)), candles, Terms(**terms), paid)
        assert (books.equity == 1).all()
        assert performance(books.frame(), 252)["total_return"] == 0
    wild = toy(100*np.exp(np.random.default_rng(0).normal(0, 0.01, 50).cumsum()))
    cut, asked = (trade(np.full(50, size), wild, Terms(leverage=2, **terms)).equity for size in (1e300, 2.))
    np.testing.assert_array_equal(cut, asked)


def test_payments_belong_to_their_time():
    "Five milliseconds early or late, a payment is due from whoever comes into the bar with a position."
    candles, rates = toy(np.full(24, 100.)), constant_funding(toy(np.ones(24)).index, ["asset"])
    sold = np.where(np.arange(24) < 7, 1., 0.)  # in the bar of eight o'clock, and so it still pays
    for late in (-5, 0, 5):
        paid = rates.set_axis(rates.index + pd.Timedelta(f"{late}ms"))
        books = trade(sold, candles, Terms(taker=0, slippage=0), paid)
        np.testing.assert_allclose(books.equity[0, -1], 1 - 1e-4, rtol=1e-12)


def test_a_trade_costs_what_it_costs():
    "Costs so large that an account can hardly pay them: the shares that are left, by bisection, or ruin."
    rng, ruined = np.random.default_rng(3), 0
    for _ in range(60):
        n, rate = int(rng.integers(1, 4)), float(rng.choice([0.01, 0.1, 0.3]))
        first, then = rng.uniform(-9, 9, (2, n))
        markets = {f"A{number}": toy(np.full(8, 100.)) for number in range(n)}
        position = np.where(np.arange(8)[:, None] < 4, first, then)
        terms = Terms(taker=rate, slippage=0)
        found = trade(position, markets, terms).equity[0]
        bars = bars_of(trade(position, markets, terms).prices, terms)
        wanted = np.array([row["equity"] for row in in_units(position.tolist(), bars, terms)])
        ruined += found[-1] == 0
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert 6 < ruined < 54


@pytest.mark.parametrize("terms", [Terms(taker=0., slippage=0.), Terms(taker=0., slippage=0., minimum=1e-9)],
                         ids=["at once", "bar by bar"])
def test_an_account_with_nothing_left_is_ruined(terms):
    "A short position whose price doubles has lost all; a price that falls brings nothing back."
    times = pd.date_range("2024", periods=4, freq="h", tz="UTC")
    prices = [100., 100., 200., 100.]
    candles = pd.DataFrame({name: prices for name in ("open", "high", "low", "close")}, times)
    accounts = trade(np.full(4, -1.), candles, terms)
    assert accounts.alive[0].tolist() == [True, True, False, False]
    assert accounts.equity[0].tolist() == [1, 1, 0, 0]


def test_an_order_of_exactly_the_minimum_is_sent():
    times = pd.date_range("2024", periods=3, freq="h", tz="UTC")
    candles = pd.DataFrame(1., times, ["open", "high", "low", "close"])
    for minimum, wanted in [(0.5, 0.5), (0.5001, 0.)]:
        accounts = trade(np.full(3, 0.5), candles, Terms(taker=0., slippage=0., minimum=minimum))
        assert accounts.units[0, 0].tolist() == [0, wanted, wanted]


def test_a_sharpe_ratio_of_three_returns_by_hand():
    returns = np.array([0.01, -0.02, 0.03])
    assert sharpe_ratio(returns, 252)[0] == pytest.approx(returns.mean()/returns.std(ddof=1)*np.sqrt(252))


@pytest.mark.parametrize("hold", ["units", "share", "rebalanced"])
@pytest.mark.parametrize("rate", [0.001, -0.001])
def test_what_is_left_and_what_was_paid_add_up(rate, hold):
    "Prices that stand still: an account loses the money that it says it paid, funding of what a trade left."
    days = toy(np.full(8, 100.)).set_axis(pd.date_range("2024", periods=8, freq="D", tz="UTC"))
    paid = constant_funding(days.index, ["asset"], rate=rate)
    position = np.array([1., 1, 1, -1, -1, 0, 2, 2])                   # payments fall within a day's bar
    books = trade(position, days, Terms(taker=0.1, slippage=0, leverage=2, hold=hold), paid)
    gone = books.fee + books.slippage + books.funding
    assert np.count_nonzero(books.funding) > 4
    np.testing.assert_allclose(1 - gone.cumsum(1), books.equity, rtol=1e-12)

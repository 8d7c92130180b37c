"""A thousand random accounts, held against a trader who takes one event after the other; and a market in which nothing can be earned."""
import numpy as np, pandas as pd, pytest

from reference_account import in_shares, in_units
from sslts_nb.settings import use_threads
from sslts_nb.market import sample_candles, shuffle_bars
from sslts_nb.backtest import Terms, _rates, audit, constant_funding, trade
from sslts_nb.performance import trade_table

use_threads(1)


def random_market(rng, n_bars, n_assets):
    "Candles by symbol; some are wild, so that accounts are ruined and liquidated."
    size, index = rng.choice([0.01, 0.05, 0.3]), pd.date_range("2024-01-01", periods=n_bars, freq=rng.choice(["h", "4h", "D"]), tz="UTC")
    def candles():
        close = rng.uniform(1, 1000)*np.exp(rng.normal(0, size, n_bars).cumsum())
        opened = close*np.exp(rng.normal(0, size, n_bars))
        high, low = (bound(opened, close)*np.exp(side*np.abs(rng.normal(0, size/2, n_bars))) for bound, side in ((np.maximum, 1), (np.minimum, -1)))
        return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.}, index)
    return {f"A{number}": candles() for number in range(n_assets)}


def random_terms(rng):
    "Any of the options, in any combination that is allowed."
    given = {"taker": rng.uniform(0, 0.01), "maker": rng.uniform(-0.001, 0.001), "maker_share": float(rng.choice([0, 0.3, 1])), "slippage": rng.uniform(0, 0.005), "slippage_volatility": float(rng.choice([0, 0.1])),
             "execution": str(rng.choice(["open", "close"])), "delay": int(rng.integers(0, 3)), "capital": float(rng.choice([1, 1e5])), "hold": str(rng.choice(["units", "rebalanced", "share"]))}
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
    position = np.round(rng.uniform(-1.5, 1.5, (n_bars, n_assets, 2)), 1)*(rng.random((n_bars, n_assets, 2)) < 0.8)
    position = position[np.maximum.accumulate(np.where(rng.random(n_bars) < 0.5, np.arange(n_bars), 0))]   # many bars without a change
    renew = rng.random(n_bars) < 0.2 if rng.random() < 0.5 else None
    if rng.random() < 0.5: return position, markets, terms, None, renew
    funding = constant_funding(next(iter(markets.values())).index, [*markets], rate=0.001)
    return position, markets, terms, funding*rng.normal(size=funding.shape), renew


def bars_of(prices, terms):
    "What the slow trader is told of each bar."
    slippage = np.broadcast_to(_rates(prices, terms)[1], prices.open.shape)
    return [{name: getattr(prices, name)[:, t].tolist() for name in ("open", "high", "low", "close", "due", "within")} | {"slippage": slippage[:, t].tolist()} for t in range(len(prices.index))]


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
        lost, forms = lost + (~accounts.alive[:, -1]).sum(), forms | {(terms.hold, terms.sequential, terms.execution)}
        strategy = seed % 2
        for name, wanted in expected(position[..., strategy], accounts.prices, terms, renew).items():
            found = getattr(accounts, name)[strategy].T
            until = len(found) if name == "equity" or accounts.alive[strategy].all() else accounts.alive[strategy].argmin()   # of the bar in which all is lost, only the end is told
            scale = np.abs(wanted).max(initial=1e-300) if name == "units" else terms.capital*max(1, np.abs(wanted).max())
            np.testing.assert_allclose(found[:until]/scale, wanted[:until]/scale, atol=1e-9, rtol=0, err_msg=f"case {seed}, {name}, {terms}")
    assert lost > 5 and len(forms) == 10     # the cases are what they are meant to be


def test_what_is_traded_together_is_what_is_traded_alone():
    position, markets, terms, funding, renew = random_case(5)
    many = np.random.default_rng(0).uniform(-1, 1, (len(position), position.shape[1], 7))
    for terms in (Terms(), Terms(hold="share"), Terms(step=1e-3, maintenance=0.01)):
        together = trade(many, markets, terms, funding, renew)
        for strategy in range(7):
            alone = trade(many[..., strategy], markets, terms, funding, renew)
            for name in ("equity", "fee", "units", "alive"): np.testing.assert_allclose(getattr(together, name)[strategy], getattr(alone, name)[0], rtol=1e-12, atol=1e-15)


def test_blocks_do_not_matter():
    candles = sample_candles().iloc[:4000]
    many = np.random.default_rng(0).uniform(-1, 1, (4000, 1, 40))            # more than one block
    table = trade_table(many, candles)
    for strategy in (0, 17, 39): pd.testing.assert_series_equal(trade_table(many[..., strategy], candles).iloc[0], table.iloc[strategy], check_names=False)
    audit(trade(many[..., :3], candles))


def test_noise_earns_nothing():
    "On shuffled bars: no rule earns more than chance before costs, and after them all lose what they pay."
    candles = shuffle_bars(sample_candles(), seed=3)
    r = candles.close.pct_change().fillna(0).to_numpy()
    rules = {f"{name} {bars}": side*np.sign(pd.Series(r).rolling(bars).sum().fillna(0).to_numpy()) for bars in (1, 2, 5, 10, 20, 50) for name, side in (("follow", 1), ("fade", -1))}
    position = np.stack([*rules.values()], -1)[:, None]
    free, costly = (trade_table(position, candles, Terms(taker=fee, slippage=0, hold="rebalanced"), names=[*rules]) for fee in (0.0, 0.002))
    drift = r.mean()/r.std()*np.sqrt(252)                                    # what a position that is long half of the time cannot but earn
    assert (np.abs(free.sharpe) < np.abs(drift) + 3.2*free.sharpe_se).all(), free.sharpe
    np.testing.assert_allclose((np.log1p(free.total_return) - np.log1p(costly.total_return))/(costly.annual_cost*len(r)/252), 1, atol=0.06)
    assert (costly.total_return < free.total_return).all()

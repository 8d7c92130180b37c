"""The environment of reinforcement learning: the book's account bar by bar, no look ahead, an extra."""
import ast, sys
from itertools import product

import numpy as np, pytest

from house import module_tree
from sslts_nb.settings import InputError
from sslts_nb.market import simulate_market
from sslts_nb.backtest import Terms, constant_funding, trade
from sslts_nb import agents
from sslts_nb.agents import MarkovMarket, TradingEnvironment, audit_environment

CANDLES = simulate_market(n_assets=1, seed=3).candles["SIM00"].iloc[:400]
NOISE = np.random.default_rng(0).standard_normal((len(CANDLES), 3))


@pytest.mark.parametrize("seed", range(8))
def test_rewards_are_those_of_the_account(seed):
    "Any terms that it takes, any sides, jumps, funding at the open and within the bar."
    draws, candles = np.random.default_rng(seed), CANDLES.copy()
    candles.iloc[:, :4] = candles.iloc[:, :4].mul(np.exp(draws.normal(0, .03, len(candles)).cumsum()), axis=0)
    terms = Terms(taker=draws.uniform(0, .02), maker_share=draws.uniform(0, 1), maker=-.0001,
                  slippage=draws.uniform(0, .01), slippage_volatility=draws.uniform(0, .2))
    sides = [(-1, 0, 1), (0, 1), (-.5, 0, .25, 1.5)][seed % 3]
    paid = constant_funding(candles.index, [candles.attrs["symbol"]], .001, hours=8)
    paid.index = paid.index + np.timedelta64(20*(seed % 2), "m")
    actions = draws.integers(0, len(sides), len(candles) - 1).repeat(3)[:len(candles) - 1]
    _, rewards, equity = TradingEnvironment(candles, NOISE, terms, paid, sides).replay(actions)
    account = trade(np.append(np.array(sides)[actions], 0), candles, terms, paid)
    assert account.alive.all()
    np.testing.assert_allclose(equity, account.equity[0], rtol=1e-12)
    np.testing.assert_allclose(np.expm1(rewards), account.returns()[0, 1:], atol=1e-12)


def test_a_ruin_ends_as_the_account_does():
    "The bar in which all is lost is the same one, and the reward is finite."
    candles = CANDLES.iloc[:30].copy()
    candles.iloc[12:, :4] *= 2.5
    account = trade(-np.ones(30), candles, Terms())
    _, rewards, equity = TradingEnvironment(candles, NOISE[:30], Terms()).replay(np.zeros(29, int))
    assert account.alive[0].argmin() == np.flatnonzero(rewards < -10)[0] + 1 == 12
    assert np.isfinite(rewards).all() and (rewards[12:] == 0).all() and (equity[12:] == equity[12]).all()


def ranked(candles): return candles[["close"]].rank()
def ahead(candles): return candles[["close"]].shift(-1).ffill()
def late_mean(candles): return candles[["close"]] - candles.close.iloc[200:].mean()
def behind(candles): return np.log(candles[["close"]]).diff().fillna(0)


SAYS = "changes when the bars after row"


@pytest.mark.parametrize("state", [ranked, ahead, late_mean])
def test_a_state_that_looks_ahead_is_refused(state):
    with pytest.raises(AssertionError, match=SAYS): audit_environment(state, CANDLES)


def test_a_reward_of_a_bar_that_is_over_is_refused(monkeypatch):
    "An account that is filled at the close at which it decided, at the return that made it decide."
    audit_environment(behind, CANDLES)
    honest = TradingEnvironment._through
    def early(self, t, target): honest(self, min(t + 1, self.last), target)
    monkeypatch.setattr(TradingEnvironment, "_through", early)
    with pytest.raises(AssertionError, match=SAYS): audit_environment(behind, CANDLES)


@pytest.mark.parametrize("seed", range(3))
def test_value_iteration_finds_the_best_of_all_policies(seed):
    draws = np.random.default_rng(seed)
    market = MarkovMarket(draws.dirichlet([2, 2], 2), draws.normal(0, .004, 2), .01)
    cost = draws.uniform(0, .004)
    policy, gain = market.best_policy(cost)
    every = [market.policy_gain(np.reshape(one, (2, 3)), cost) for one in product(range(3), repeat=6)]
    np.testing.assert_allclose([gain, market.policy_gain(policy, cost)], max(every), atol=1e-10)


def test_the_extra_is_imported_when_it_is_needed(monkeypatch):
    "Not with the module; and who lacks it is told what to install."
    named = {node.module or "" for node in module_tree("agents").body if isinstance(node, ast.ImportFrom)}
    whole = [node for node in module_tree("agents").body if isinstance(node, ast.Import)]
    named |= {one.name for node in whole for one in node.names}
    assert "numpy" in named and not named & {"gymnasium", "stable_baselines3"}
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    agents._as_gymnasium.cache_clear()
    with pytest.raises(InputError, match=r"no gymnasium; wanted: pip install 'sslts_nb\[agents\]'"):
        TradingEnvironment(CANDLES, NOISE)


def test_a_training_leaves_no_folder_of_its_log(monkeypatch, tmp_path):
    pytest.importorskip("stable_baselines3")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    agents.train_agent(TradingEnvironment(CANDLES, NOISE), 64, seed=0)
    assert not [*tmp_path.glob("SB3*")]   # torch keeps a folder of its own there

"""Inputs that once gave a wrong number, lost work or a traceback (causality): given, wanted."""
import numpy as np, pytest, torch

from causal_zoo import CAUGHT, HONEST, MISSED, RELATIVES, candles, caught, numbers, sign
from fault_table import Refused, check, fault
from sslts_nb.settings import InputError
from sslts_nb.backtest import trade_strategy
from sslts_nb.features import RunningScaler, assert_causal
from sslts_nb.pretexts import future_moments

ROWS, BARS = [], 1200


def leaks(name, zoo, wanted):
    "A row: whether a function of the zoo is caught at looking ahead."
    draw, make = zoo[name]
    fault(ROWS, "leaks", name, wanted)(lambda folder: bool(caught(make, numbers_of(draw))))


def numbers_of(draw):
    "A short series."
    return draw(0)[:BARS] if draw in (HONEST["an array"][0], HONEST["a series"][0]) else draw(0, BARS)


for name in MISSED: leaks(name, MISSED, True)
for name in RELATIVES: leaks(name, RELATIVES, True)
for name in CAUGHT: leaks(name, CAUGHT, True)
for name in HONEST: leaks(name, HONEST, False)


def refused_by_trading(make, **options):
    "Whether a strategy is refused because it looks ahead."
    bars = candles(1, BARS)
    try: trade_strategy(make(bars), bars, **options)
    except AssertionError: return True
    return False


STRATEGIES = {
    "the next bar's range": lambda bars: lambda now: ((now.high/now.low).shift(-1) > 1.012).to_numpy(float),
    "filled from behind": lambda bars: lambda now: sign(now.close.diff(300).bfill()).to_numpy(),
    "ready before, by place": lambda bars: lambda now, s=sign(bars.close.diff().shift(-1)): s[:len(now)],
    "ready before, by time": lambda bars: lambda now, s=sign(bars.close.diff().shift(-1)): s.loc[now.index],
    "the next move after a fall": lambda bars: lambda now: sign(now.close.diff().shift(-1)).where(
        now.close.pct_change() < -0.2, 0.)}
CAUSAL = {
    "momentum": lambda bars: lambda now: sign(now.close.diff(24)).to_numpy(),
    "always long": lambda bars: lambda now: np.ones(len(now)),
    "long in the morning": lambda bars: lambda now: (now.index.hour < 12)*1.,
    "a coin of one seed": lambda bars: lambda now: np.random.default_rng(0).integers(0, 2, len(now))*1.}
for name, make in STRATEGIES.items():
    fault(ROWS, "leaks", f"strategy: {name}", True)(lambda folder, make=make: refused_by_trading(make))
for name, make in CAUSAL.items():
    fault(ROWS, "leaks", f"strategy: {name}", False)(lambda folder, make=make: refused_by_trading(make))


@fault(ROWS, "leaks", "a mean that ends a bar ahead at bar 37 of a short series, every bar cut", True)
def _(folder):
    def leak(x):
        out, mean = x.rolling(20).mean(), x.rolling(20).mean().shift(-1)
        out.iloc[37] = mean.iloc[37]
        return out
    try: assert_causal(leak, numbers(0, 60), n_points=None)
    except AssertionError as error: return "row 37 changes when the bars after row 37" in str(error)


@fault(ROWS, "leaks", "a giant row, and a leak of a thousandth where the future is cut off", True)
def _(folder):
    x = numbers(0, 400)
    x.iloc[5] = 1e9
    return bool(caught(lambda x: lambda now: now + 0.001*len(now)/400, x))


@fault(ROWS, "leaks", "nothing to change", Refused("nothing changes before bar 9; wanted bars after"))
def _(folder): assert_causal(lambda x: x, numbers(0, 10), first=9)


@fault(ROWS, "leaks", "refuses every shorter series", Refused("1200 bars or none"))
def _(folder):
    def function(x):
        if len(x) < BARS: raise InputError("1200 bars or none")
        return x
    assert_causal(function, numbers(0, BARS))


def after_a_tick(bars=5):
    "Moments behind a z of 1e4, less what they are without it."
    x = torch.randn(1, 60, 2, generator=torch.Generator().manual_seed(0))*0.1
    ticked = x.clone()
    ticked[0, 3] = 1e4
    return (future_moments(ticked, bars) - future_moments(x, bars))[0, 3:].abs().max().item()


fault(ROWS, 22, "the moments of 5 bars, long after a z of 1e4", 0.)(lambda folder: after_a_tick())
fault(ROWS, "22+", "the moments of 1 bar", 0.)(lambda folder: after_a_tick(1))


def scaled_after_a_tick(at, one_by_one):
    "The largest relative change of a running scale 80 half-lives behind a value of a million."
    x = 5 + 0.1*np.random.default_rng(0).normal(size=(1000, 1))
    ticked = x.copy()
    ticked[at] = 1e6
    def scaled(values):
        scaler = RunningScaler(10)
        if one_by_one: return np.stack([scaler.step(row) for row in values])
        return scaler.transform(values)
    return float(np.abs(scaled(ticked)/scaled(x) - 1)[at + 800:].max() < 1e-4)


for at in (0, 100):
    for way in (False, True):
        given = f"a running scale behind a tick at bar {at}{', bar by bar' if way else ''}"
        fault(ROWS, "13+", given, 1.)(lambda folder, at=at, way=way: scaled_after_a_tick(at, way))


@fault(ROWS, "12+", "a running scale of a column that is 0.1 throughout", 0.)
def _(folder): return float(np.nanmax(np.abs(RunningScaler().transform(np.full((300, 1), 0.1)))))


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

"""Functions that look ahead and functions that do not, for trying `assert_causal`.

`python tests/causal_zoo.py 20` prints in how many of 20 series each one was caught."""
import sys

import numpy as np, pandas as pd, torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import filtfilt, lfilter, savgol_filter


def numbers(seed, n_bars=3000):
    "A frame of independent normal numbers, by the hour."
    times = pd.date_range("2024", periods=n_bars, freq="h", tz="UTC")
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n_bars, 3)), times, list("abc"))


def candles(seed, n_bars=3000):
    "Hours of a market."
    rng, times = np.random.default_rng(seed), pd.date_range("2024", periods=n_bars, freq="h", tz="UTC")
    close = 100*np.exp(np.cumsum(0.01*rng.normal(size=n_bars)))
    opened = np.concatenate([[100.], close[:-1]])
    high, low = np.maximum(opened, close)*(1 + 0.004*rng.random(n_bars)), np.minimum(opened, close)
    low = low*(1 - 0.004*rng.random(n_bars))
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close,
                         "volume": rng.lognormal(3, 1, n_bars)}, times)


def at_rows(out, rows, leak):
    "`out`, with `leak` in some rows."
    out = out.copy()
    out[rows] = leak[rows]
    return out


def every(n, offset): return lambda x: at_rows(x, np.arange(len(x)) % n == offset, x.shift(-1))


def early(bars): return lambda x: at_rows(x, np.arange(len(x)) < bars, x.shift(-1))


def kept(compute):
    "What was computed in the first call is given in every call."
    store = []
    def function(x):
        if not store: store.append(compute(x))
        return store[0].iloc[:len(x)]
    return function


class LazyScaler:
    "Fitted by the first series that it meets."
    mean = None
    def __call__(self, x):
        if self.mean is None: self.mean = x.mean()
        return x - self.mean


def lazy(make):
    "The same, kept in a closure."
    store = {}
    def function(x):
        if not store: store["mean"] = x.mean()
        return x - store["mean"]
    return function


def sign(values): return np.sign(values).fillna(0)


def next_if_missing(x): return x.where(x.notna(), x.shift(-1))


def first_known_in_front(x):
    "The rows before the first known value get that value."
    first = x.notna().all(axis=1).to_numpy().argmax()
    out = x.copy()
    out.iloc[:first] = x.iloc[first].to_numpy()
    return out


def merged(x):
    "The day's mean, known from its first hour on."
    return x.resample("D").mean().reindex(x.index, method="ffill")


def fourier(x):
    found = np.fft.rfft(x.to_numpy(), axis=0)
    found[len(found)//10:] = 0
    return np.fft.irfft(found, len(x), axis=0)


def ahead_volatility(bars):
    "The deviation of each bar's return, the next one's included."
    return bars.close.pct_change().rolling(20).std().shift(-1)


# what passed in November 2026: (series, how to make the function from that series)
MISSED = {
    "warm-up filled from behind": (numbers, lambda x: lambda x: x.rolling(250).mean().bfill()),
    "bfill, nothing missing": (numbers, lambda x: lambda x: x.bfill()),
    "interpolate, nothing missing": (numbers, lambda x: lambda x: x.interpolate()),
    "next value if missing": (numbers, lambda x: next_if_missing),
    "every 500th bar": (numbers, lambda x: every(500, 0)),
    "only where |x| > 3.3": (numbers, lambda x: lambda x: x.where(x.abs() <= 3.3, x.shift(-1))),
    "only the first 5 %": (numbers, lambda x: early(0.05*len(x))),
    "kept from the first call": (numbers, lambda x: kept(lambda x: x.rolling(21, center=True).mean())),
    "closure, by position": (candles, lambda bars: lambda now, s=sign(bars.close.diff().shift(-1)):
                             s[:len(now)]),
    "closure, by time": (candles, lambda bars: lambda now, s=sign(bars.close.diff().shift(-1)):
                         s.reindex(now.index).fillna(0)),
    "next bar's high over low": (candles, lambda bars: lambda now: (
        (now.high/now.low).shift(-1) > 1.012)*1.),
    "strategy, diff(300).bfill()": (candles, lambda bars: lambda now: sign(now.close.diff(300).bfill())),
    "next bar's close in its range": (candles, lambda bars: lambda now: (
        (now.close - now.low)/(now.high - now.low)).shift(-1)),
}
# relatives of these
RELATIVES = {
    "every 500th bar from 250": (numbers, lambda x: every(500, 250)),
    "every 500th bar, 499": (numbers, lambda x: every(500, 499)),
    "every 24th bar": (numbers, lambda x: every(24, 23)),
    "every 100th bar": (numbers, lambda x: every(100, 37)),
    "only the last 5 %": (numbers, lambda x: lambda now, begin=0.95*len(x): at_rows(
        now, np.arange(len(now)) >= begin, now.shift(-1))),
    "only the first 1 %": (numbers, lambda x: early(0.01*len(x))),
    "only where x < -3.3": (numbers, lambda x: lambda x: x.where(x > -3.3, x.shift(-1))),
    "the bar after a jump": (candles, lambda bars: lambda now: sign(now.close.diff()).where(
        now.close.pct_change().shift().abs() < 0.06, sign(now.close.diff().shift(-1)))),
    "after a fall of 6 %": (candles, lambda bars: lambda now: sign(now.close.diff()).where(
        now.close.pct_change() > -0.06, sign(now.close.diff().shift(-1)))),
    "volume ten times its mean": (candles, lambda bars: lambda now: sign(now.close.diff()).where(
        now.volume < 10*now.volume.expanding().mean(), sign(now.close.diff().shift(-1)))),
    "a range of 10 %": (candles, lambda bars: lambda now: sign(now.close.diff()).where(
        now.high/now.low < 1.1, sign(now.close.diff().shift(-1)))),
    "the next move where none was": (candles, lambda bars: lambda now: np.sign(
        now.close.diff()).replace(0, np.nan).bfill().fillna(0)),
    "where x is 0": (numbers, lambda x: lambda x: x.where(x != 0, x.shift(-1))),
    "where no volume": (candles, lambda bars: lambda now: now.close.where(
        now.volume > 0, now.close.shift(-1))),
    "the front filled": (numbers, lambda x: first_known_in_front),
    "bfill of one bar": (numbers, lambda x: lambda x: x.bfill(limit=1)),
    "a hole's nearest": (numbers, lambda x: lambda x: x.interpolate("nearest")),
    "fitted by the first call": (numbers, lambda x: LazyScaler()),
    "fitted by the first call, closure": (numbers, lambda x: lazy(x)),
    "kept whole": (numbers, lambda x: (lambda store: lambda x: store.setdefault(0, x.shift(-1)))({})),
    "a column by time": (candles, lambda bars: lambda now, s=bars.close.shift(-1): pd.DataFrame(
        {"return": now.close.diff(), "target": s.reindex(now.index)})),
    "a column by time, found": (candles, lambda bars: lambda now, s=bars.close.shift(-1): pd.DataFrame(
        {"return": now.close.diff(), "target": s.loc[now.index]})),
    "sign of the next number": (numbers, lambda x: lambda x: np.sign(x).shift(-1)),
    "ewm begun at the mean": (numbers, lambda x: lambda x: pd.concat(
        [x[:1]*0 + x[:250].mean(), x[1:]]).ewm(span=20, adjust=False).mean()),
    "warm-up of the first finite value": (numbers, lambda x: lambda x: x.rolling(250).mean().fillna(
        x[:250].mean())),
    "next candle green": (candles, lambda bars: lambda now: (now.close > now.open).shift(-1).fillna(False)),
}
# what was caught
CAUGHT = {
    "a centred mean": (numbers, lambda x: lambda x: x.rolling(21, center=True).mean()),
    "scaled by all": (numbers, lambda x: lambda x: (x - x.mean())/x.std()),
    "the largest of all": (numbers, lambda x: lambda x: x/x.abs().max()),
    "a rank over all": (numbers, lambda x: lambda x: x.rank()),
    "shift(-1)": (numbers, lambda x: lambda x: x.shift(-1)),
    "shift(-24)": (numbers, lambda x: lambda x: x.shift(-24)),
    "the last bar": (numbers, lambda x: lambda x: x - x.iloc[-1]),
    "less the median of all": (numbers, lambda x: lambda x: x - x.median()),
    "quantiles of all": (numbers, lambda x: lambda x: x.clip(x.quantile(0.05), x.quantile(0.95), axis=1)),
    "the Fourier transform": (numbers, lambda x: fourier),
    "a filter both ways": (numbers, lambda x: lambda x: filtfilt([0.1], [1, -0.9], x, axis=0)),
    "a polynomial both sides": (numbers, lambda x: lambda x: savgol_filter(x, 21, 2, axis=0)),
    "a Gaussian both sides": (numbers, lambda x: lambda x: gaussian_filter1d(x, 3, axis=0)),
    "days not shifted": (numbers, lambda x: merged),
    "the day's total": (numbers, lambda x: lambda x: x.groupby(x.index.date).transform("sum")),
    "argmax of what comes": (numbers, lambda x: lambda x: x[::-1].rolling(24, min_periods=1).apply(
        np.argmax, raw=True)[::-1]),
    "largest of what comes": (numbers, lambda x: lambda x: x[::-1].rolling(10, min_periods=1).max()[::-1]),
    "sum from behind": (numbers, lambda x: lambda x: x[::-1].cumsum()[::-1]),
    "differences to the next": (numbers, lambda x: lambda x: x.diff(-1)),
    "gradient": (numbers, lambda x: lambda x: np.gradient(x.to_numpy(), axis=0)),
    "volatility of the next bar": (candles, lambda bars: ahead_volatility),
    "the next return's sign": (candles, lambda bars: lambda now: sign(now.close.diff().shift(-1))),
    "the next open": (candles, lambda bars: lambda now: now.open.shift(-1)),
    "distance to the day's high": (candles, lambda bars: lambda now:
                                   now.close/now.high.groupby(now.index.date).transform("max")),
    "a line through all": (numbers, lambda x: lambda x: x - np.polynomial.polynomial.polyval(
        np.arange(len(x)), np.polynomial.polynomial.polyfit(np.arange(len(x)), x.to_numpy(), 1)).T),
    "principal axes of all": (numbers, lambda x: lambda x: x.to_numpy() @ np.linalg.svd(
        x.to_numpy() - x.to_numpy().mean(0), full_matrices=False)[2].T),
    "merged to the nearest": (numbers, lambda x: lambda x: x.resample("4h").first().reindex(
        x.index, method="bfill")),
    "half a day back in time": (numbers, lambda x: lambda x: x.shift(-12).ewm(span=5).mean()),
    "the share of all bars": (numbers, lambda x: lambda x: x.expanding().count()/len(x)),
    "last to first": (numbers, lambda x: lambda x: np.roll(x.to_numpy(), 1, axis=0)),
    "drawdown of all": (candles, lambda bars: lambda now: now.close/now.close.max()),
    "bins of all": (candles, lambda bars: lambda now: pd.qcut(now.volume, 5, labels=False)),
    "a fill from behind": (numbers, lambda x: lambda x: x.where(x > 0).bfill()),
}


def regression(x):
    "The slope of a on b over the last 100 bars."
    a, b = x.a, x.b
    return a.rolling(100).cov(b)/b.rolling(100).var()


def network(_):
    "Convolutions in 32 bits, padded on the left."
    torch.manual_seed(0)
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv1d(3, 16, 5), torch.nn.Conv1d(16, 8, 5)
        def forward(self, x):
            left = lambda z: torch.nn.functional.pad(z, (4, 0))
            return self.second(left(torch.relu(self.first(left(x.transpose(1, 2)))))).transpose(1, 2)
    return Network()


def needs_bars(least):
    def function(x):
        if len(x) < least: raise ValueError(f"{len(x)} bars; wanted {least}")
        return x.rolling(20).mean()
    return function


def clock(x):
    hour = x.index.hour.to_numpy()
    return pd.DataFrame({"sin": np.sin(hour), "weekend": (x.index.dayofweek >= 5)*1.}, x.index)


def har(bars):
    squares = np.log(bars.close).diff()**2
    return pd.concat([np.log(squares.rolling(n).mean()) for n in (5, 25, 110)], axis=1)


HONEST = {
    "expanding mean": (numbers, lambda x: lambda x: x.expanding().mean()),
    "ewm": (numbers, lambda x: lambda x: x.ewm(span=20).mean()),
    "HAR": (candles, lambda bars: har),
    "running scaler": (numbers, lambda x: lambda x: (x - x.expanding().mean())/x.expanding().std()),
    "lfilter": (numbers, lambda x: lambda x: lfilter([0.1], [1, -0.9], x.to_numpy(), axis=0)),
    "ffill": (numbers, lambda x: lambda x: x.where(x > 0).ffill()),
    "rolling regression": (numbers, lambda x: regression),
    "calendar": (numbers, lambda x: clock),
    "cumulative sum, rounded": (numbers, lambda x: lambda x: x.cumsum().round(2)),
    "warm-up of 250 bars": (numbers, lambda x: lambda x: x.rolling(250).mean()),
    "random numbers of a seed": (numbers, lambda x: lambda x: np.random.default_rng(7).normal(size=len(x))),
    "noise of a seed added": (numbers, lambda x: lambda x:
                              x.a + np.random.default_rng(7).normal(size=len(x))),
    "a network in 32 bits": (numbers, network),
    "refuses fewer than 100 bars": (numbers, lambda x: needs_bars(100)),
    "refuses fewer than 280 bars": (numbers, lambda x: needs_bars(280)),
    "always long": (candles, lambda bars: lambda now: np.ones(len(now))),
    "never known": (candles, lambda bars: lambda now: np.full(len(now), np.nan)),
    "the bar's number": (numbers, lambda x: lambda x: np.arange(len(x))),
    "momentum": (candles, lambda bars: lambda now: sign(now.close.diff(24))),
    "a crossing": (candles, lambda bars: lambda now: (now.close.rolling(20).mean()
                                                      > now.close.rolling(100).mean())*1.),
    "rolling quantile": (numbers, lambda x: lambda x: x.rolling(50).quantile(0.9)),
    "rolling rank": (numbers, lambda x: lambda x: x.rolling(50).rank()),
    "days, of yesterday": (numbers, lambda x: lambda x: x.resample("D").mean().shift(1).reindex(
        x.index, method="ffill")),
    "drawdown": (candles, lambda bars: lambda now: now.close/now.close.cummax() - 1),
    "float32 sums": (numbers, lambda x: lambda x: np.cumsum(x.to_numpy("float32"), axis=0)),
    "a rare rule": (candles, lambda bars: lambda now: (now.close.pct_change().abs() > 0.5)*1.),
    "changes what it is given": (numbers, lambda x: lambda x: x.mul(2, axis=0).__imul__(3)),
    "clock among features": (candles, lambda bars: lambda now: pd.DataFrame(
        {"return": now.close.pct_change(), "hour": now.index.hour, "one": 1.}, now.index)),
    "an array": (lambda seed: numbers(seed).to_numpy(), lambda x: lambda x: np.cumsum(x, axis=0)),
    "a series": (lambda seed: candles(seed).close, lambda x: lambda x: np.log(x).diff()),
    "a matrix product": (numbers, lambda x: lambda x: x.to_numpy() @ np.ones((3, 7))/3),
    "bars since a high": (candles, lambda bars: lambda now: now.close.rolling(100, min_periods=1).apply(
        lambda v: len(v) - v.argmax(), raw=True)),
}


def caught(make, series, **options):
    "Whether assert_causal raises on this function."
    from sslts_nb.features import assert_causal
    try: assert_causal(make(series), series, **options)
    except AssertionError as error: return str(error)
    return ""


def main(seeds):
    for kind, zoo in {"missed": MISSED, "relative": RELATIVES, "caught": CAUGHT, "honest": HONEST}.items():
        for name, (draw, make) in zoo.items():
            messages = [caught(make, draw(seed)) for seed in range(seeds)]
            print(f"{kind:9}{name:36}{sum(map(bool, messages)):4}  {max(messages)[:110]}", flush=True)


if __name__ == "__main__": main(int(sys.argv[1]))

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


# ---- as people write them: of candles, columns, strategies, transformers, networks; for `audit`

def resampled(bars, shift):
    "A day's mean of 5 closes, merged by time."
    days = bars.close.resample("D").last().rolling(5).mean().shift(shift).rename("slow")
    return pd.merge_asof(bars, days, left_index=True, right_index=True)[["slow"]]


def zigzag(close, share=0.03):
    "Lines between turns that are known only when the price has come back by `share`."
    values, turns, high, low = close.to_numpy(), [0], 0, 0
    for t, value in enumerate(values):
        if value > values[high]: high = t
        if value < values[low]: low = t
        if value < values[high]*(1 - share) and high > turns[-1]: turns.append(high); low = t
        elif value > values[low]*(1 + share) and low > turns[-1]: turns.append(low); high = t
    return pd.Series(np.interp(np.arange(len(values)), turns, values[turns]), close.index)


def confirmed_turns(high, low, bars=5):
    "Pivots, known as late as they can be."
    top = high.rolling(2*bars + 1, center=True).max() == high
    bottom = low.rolling(2*bars + 1, center=True).min() == low
    return {"top": top.shift(bars), "bottom": bottom.shift(bars)}


def whittaker(close, weight=1600.):
    "The Hodrick-Prescott trend."
    n = len(close)
    if n < 5: raise ValueError("5 bars")
    from scipy.sparse import diags, identity
    from scipy.sparse.linalg import spsolve
    steps = diags([1., -2., 1.], [0, 1, 2], shape=(n - 2, n))
    return spsolve((identity(n) + weight*steps.T @ steps).tocsc(), np.log(close.to_numpy()))


def spline(close):
    from scipy.interpolate import make_smoothing_spline
    bars = np.arange(len(close))
    return make_smoothing_spline(bars, np.log(close.to_numpy()), lam=50.)(bars)


def decomposed(close):
    "What a day's course leaves of the trend, as in a textbook."
    from statsmodels.tsa.seasonal import seasonal_decompose
    return seasonal_decompose(close.ffill().bfill(), period=24).trend


def hurst(close):
    "One exponent of all bars, given to each."
    lags = np.array([2, 4, 8, 16])
    spread = [np.nanstd(close.to_numpy()[lag:] - close.to_numpy()[:-lag]) for lag in lags]
    return np.full(len(close), np.polyfit(np.log(lags), np.log(spread), 1)[0]) + 0*close


def encoded(bars, causal):
    "The mean return of each hour of the day as a feature."
    returns, hours = bars.close.pct_change(), bars.index.hour
    if causal: return returns.shift(1).groupby(hours).transform(lambda one: one.expanding().mean())
    return returns.groupby(hours).transform("mean")


def kalman(close, smoother):
    "A local level, filtered, or smoothed from behind."
    level, values = close.ewm(alpha=0.1, adjust=False).mean(), close.to_numpy()
    return level[::-1].ewm(alpha=0.3, adjust=False).mean()[::-1] if smoother else level + 0*values


class Crossing:
    "A strategy of a bot: long above a mean."
    def __init__(self, config): self.config = config
    def populate_indicators(self, dataframe, metadata):
        dataframe["mean"] = dataframe["close"].rolling(20).mean()
        return dataframe
    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] > dataframe["mean"], "enter_long"] = 1
        return dataframe
    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] < dataframe["mean"], "exit_long"] = 1
        return dataframe


class LowestOfAll(Crossing):
    "Buys at the lowest close."
    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = (dataframe["close"] < dataframe["close"].quantile(0.1)).astype(int)
        return dataframe


class NextBar(Crossing):
    "A target left among the indicators."
    def populate_indicators(self, dataframe, metadata):
        dataframe["mean"] = dataframe["close"].rolling(20).mean()
        dataframe["target"] = dataframe["close"].shift(-3) > dataframe["close"]
        return dataframe


class Smoother:
    "A transformer that averages on both sides."
    def fit(self, x, y=None): return self
    def transform(self, x): return pd.DataFrame(x).rolling(5, center=True, min_periods=1).mean().to_numpy()


class Own:
    "A transformer that learns from what it transforms."
    def fit(self, x, y=None):
        self.mean_ = np.nanmean(x, axis=0)
        return self
    def transform(self, x): return np.asarray(x) - np.nanmean(x, axis=0)


def pipeline(*steps):
    from sklearn.pipeline import make_pipeline
    return make_pipeline(*steps)


def scaler():
    from sklearn.preprocessing import StandardScaler
    return StandardScaler()


def fitted_on_all(bars):
    return scaler().fit_transform(bars.ffill().bfill().fillna(0))


def clustered(bars):
    "Regimes of all bars."
    from sklearn.cluster import KMeans
    x = np.log(bars[["high", "volume"]]).diff().replace([np.inf, -np.inf], 0).fillna(0)
    return KMeans(3, n_init=1, random_state=0).fit(x).transform(x)


def predicted(bars):
    "A regression of the next return, in sample."
    x = np.log(bars[["close", "volume"]]).diff().replace([np.inf, -np.inf], 0).fillna(0).to_numpy()
    weights, *_ = np.linalg.lstsq(x[:-1], x[1:, 0], rcond=None)
    return x @ weights


class Recurrent(torch.nn.Module):
    "A network that reads in one direction, or in both."
    def __init__(self, both):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.GRU(5, 4, batch_first=True, bidirectional=both)
    def forward(self, x): return self.net(x.sign()*x.abs().log1p())[0]


def signals(bars):
    "A frame for a backtest, with columns of signals."
    out = bars.copy()
    out["entry"] = (out.close > out.close.rolling(10).max().shift(1)).map({True: "buy", False: "wait"})
    out["best"] = np.where(out.close.rolling(11, center=True).min() == out.close, "buy", "wait")
    return out


def session_vwap(bars, whole_day):
    "The day's mean price by volume, of the whole day or so far."
    day = bars.index.floor("D")
    value, volume = (bars.close*bars.volume).groupby(day), bars.volume.groupby(day)
    return value.transform("sum")/volume.transform("sum") if whole_day else value.cumsum()/volume.cumsum()


def pivot_points(bars, shift):
    "The floor trader's pivot of a day."
    day = bars.resample("D").agg({"high": "max", "low": "min", "close": "last"}).shift(shift)
    return day.mean(axis=1).reindex(bars.index, method="ffill")


def arrays_only(close):
    "Refuses what is no array."
    if type(close) is not np.ndarray: raise TypeError("an array, please")
    return np.convolve(close, np.ones(5)/5)[:len(close)]


def macd(close, fast=12, slow=26):
    line = close.ewm(span=fast).mean() - close.ewm(span=slow).mean()
    return line, line.ewm(span=9).mean()


def extremes(close):
    from scipy.signal import argrelextrema
    out = pd.Series(0., close.index)
    out.iloc[argrelextrema(close.to_numpy(), np.greater, order=5)[0]] = 1
    return out


def one_candle(bars):
    "A forming bar: the signal of a bar uses the next one's open."
    return {"size": np.sign(bars.open.shift(-1) - bars.close), "mean": bars.close.rolling(5).mean()}


AUDIT_LEAKS = {
    "a day's mean, known in the morning": lambda bars: resampled(bars, 0),
    "joined to the next hour by time": lambda bars: pd.merge_asof(
        bars[["close"]], bars[["high"]].rename(columns={"high": "later"}), left_index=True, right_index=True,
        direction="forward", allow_exact_matches=False),
    "joined to the nearest even hour": lambda bars: pd.merge_asof(
        bars[[]], bars[["close"]].iloc[::4], left_index=True, right_index=True, direction="nearest"),
    "an index that was moved": lambda bars: bars.close.set_axis(bars.index - pd.Timedelta("1h")),
    "newest first": lambda bars: bars.close[::-1].rolling(5).mean(),
    "zig-zag": zigzag, "pivots, unconfirmed": lambda high: high.rolling(11, center=True).max() == high,
    "extremes of scipy": extremes, "Hodrick-Prescott": whittaker, "a smoothing spline": spline,
    "seasonal decomposition": decomposed, "Hurst exponent of all": hurst,
    "hours encoded by their mean return": lambda bars: encoded(bars, False),
    "a smoother's level": lambda close: kalman(close, True),
    "a strategy that knows the lowest": LowestOfAll, "a strategy with a target": NextBar({}),
    "a pipeline that smooths": pipeline(Smoother(), scaler()), "a transformer that learns late": Own(),
    "fit_transform of everything": fitted_on_all, "clusters of all bars": clustered,
    "a regression in sample": predicted, "a network in both directions": Recurrent(True),
    "words for signals": signals, "the day's whole VWAP": lambda bars: session_vwap(bars, True),
    "pivot points of today": lambda bars: pivot_points(bars, 0), "one candle": one_candle,
    "chikou": lambda close: {"chikou": close.shift(-26), "tenkan": close.rolling(9).mean()},
    "month's end": lambda bars: bars.close.groupby([bars.index.year, bars.index.month]).transform("last"),
    "a day's first hours filled from later": lambda bars: bars.close.where(bars.index.hour == 12).groupby(
        bars.index.date).bfill(),
    "detrended": lambda close: __import__("scipy.signal").signal.detrend(np.log(close.fillna(100))),
    "the last row kept of each day": lambda bars: bars.close.groupby(bars.index.date).tail(1).reindex(
        bars.index, method="bfill"),
    "a list of numbers": lambda close: [*close.shift(-2)],
    "a tensor": lambda bars: torch.tensor(bars.to_numpy()).flip(0).cumsum(0).flip(0),
}
AUDIT_HONEST = {
    "a day's mean, of yesterday": lambda bars: resampled(bars, 1),
    "joined backwards by time": lambda bars: pd.merge_asof(
        bars[[]], bars[["close"]].iloc[::4], left_index=True, right_index=True),
    "pivots, confirmed": confirmed_turns, "hours encoded so far": lambda bars: encoded(bars, True),
    "a filter's level": lambda close: kalman(close, False), "a strategy": Crossing,
    "a pipeline": pipeline(scaler()), "a scaler, fitted before": scaler(),
    "a network in one direction": Recurrent(False),
    "the day's VWAP so far": lambda bars: session_vwap(bars, False),
    "pivot points of yesterday": lambda bars: pivot_points(bars, 1), "arrays only": arrays_only, "macd": macd,
    "rows in another order": lambda bars: bars.close.diff().sample(frac=1, random_state=0),
    "rows without a warm-up": lambda close: close.rolling(20).mean().dropna(),
    "words": lambda bars: pd.Series(np.where(bars.close > bars.open, "up", "down"), bars.index),
    "rows by place": lambda bars: bars.close.rolling(3).mean().reset_index(drop=True),
    "true range": lambda high, low, close: np.maximum(high, close.shift()) - np.minimum(low, close.shift()),
    "a range of the morning": lambda bars: bars.high.where(bars.index.hour < 8).groupby(
        bars.index.date).ffill(),
}


def whole_zoo(bars):
    "(name, whether it looks ahead, the function, its series) of all, on these candles and their moves."
    moves = np.log(bars[["close", "high", "volume"]].clip(lower=1e-9)).diff().iloc[1:]
    moves = (moves/moves.std()).set_axis([*"abc"], axis=1)
    for zoo in (MISSED, RELATIVES, CAUGHT, HONEST):
        for name, (draw, make) in zoo.items():
            series = bars if draw is candles else moves
            if zoo is HONEST and name == "an array": series = moves.to_numpy()
            if zoo is HONEST and name == "a series": series = bars.close
            yield name, zoo is not HONEST, make(series), series
    for zoo in (AUDIT_LEAKS, AUDIT_HONEST):
        for name, thing in zoo.items(): yield name, zoo is AUDIT_LEAKS, thing, bars


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

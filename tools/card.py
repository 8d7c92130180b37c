"""The book's sign and the picture that a link to it shows: python tools/card.py

Both are drawn from one seeded random walk: candles below, and above them a strip of vectors, one a bar.
"""
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

NBS = Path(__file__).resolve().parent.parent/"nbs"
TITLE = "Self-supervised learning\nfor financial time series"


def candles(
    n: int,      # bars
    seed: int,   # of the walk
) -> np.ndarray:  # (n, 4): open, high, low, close
    "Bars of a random walk with slowly changing volatility."
    draws = np.random.default_rng(seed)
    size = np.exp(np.convolve(draws.normal(size=n + 20), np.ones(21)/6, "valid"))
    close = np.cumsum(size*draws.normal(size=n))
    opened = np.r_[0, close[:-1]]
    wick = size[:, None]*draws.exponential(0.5, (n, 2))
    high, low = np.maximum(opened, close) + wick[:, 0], np.minimum(opened, close) - wick[:, 1]
    return np.c_[opened, high, low, close]


def card(
    path: Path,  # of the picture
):
    "The card: candles, vectors, title."
    bars = candles(64, 4)
    opened, high, low, close = bars.T
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#14202b")
    ax = fig.add_axes([0.04, 0.06, 0.92, 0.42])
    ax.vlines(range(64), low, high, color="#7f93a3", linewidth=1)
    ax.bar(range(64), close - opened, 0.7, opened, color=np.where(close >= opened, "#4dabf7", "#ff922b"))
    ax.set_xlim(-0.5, 63.5)
    ax.set_axis_off()
    strip = fig.add_axes([0.04, 0.5, 0.92, 0.12])
    turns = np.random.default_rng(0).normal(size=(8, 3))
    z = np.tanh(turns @ np.c_[close - opened, high - low, np.cumsum(close - opened)/8].T/2)
    strip.imshow(z, aspect="auto", cmap="viridis")
    strip.set_axis_off()
    fig.text(0.04, 0.92, TITLE, color="white", fontsize=38, va="top", weight="bold", linespacing=1.3)
    fig.savefig(path, facecolor=fig.get_facecolor())
    plt.close(fig)


def favicon() -> str:  # SVG
    "Three candles on a dark tile."
    bodies = [(5, 13, 6, "#4dabf7"), (13, 8, 9, "#ff922b"), (21, 5, 12, "#4dabf7")]
    parts = [f'<rect x="{x}" y="{y}" width="6" height="{tall}" fill="{colour}"/>'
             f'<rect x="{x + 2.5}" y="{y - 3}" width="1" height="{tall + 7}" fill="{colour}"/>'
             for x, y, tall, colour in bodies]
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" '
            f'fill="#14202b"/>{"".join(parts)}</svg>\n')


if __name__ == "__main__":
    card(NBS/"card.png")
    (NBS/"favicon.svg").write_text(favicon(), encoding="utf-8")

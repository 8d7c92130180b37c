"""The cases of `make bench`: what this package does, and the same written from the formula."""
import resource, subprocess, sys, warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from statsmodels.tsa.stattools import adfuller

from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.methods import METHODS, make_task
from sslts_nb.ts2vec import TS2Vec, hierarchical_contrastive_loss
from sslts_nb.stationarity import adf_pvalues
from sslts_nb.cost import SeasonalTrendEncoder
from sslts_nb.mae import MAE, WindowTransformer, complementary_masks, hide_patches
from sslts_nb.backtest import Terms, trade
from sslts_nb.performance import trade_table

from bench import DEVICE, case
from plain import LOSSES, PlainNetwork, check_loss, hierarchy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"tests"))
from reference_account import in_units


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the loss of TS2Vec

def in_16_bits(call, *given):
    with torch.autocast(DEVICE, torch.bfloat16): return call(*given)


def loss_forms(shape):
    pair = (noise(2, *shape, 320)*0.3).to(DEVICE)

    def both_ways(loss):
        a, b = (z.clone().requires_grad_() for z in pair)
        loss(a, b).backward()
    return {"ours": lambda: both_ways(hierarchical_contrastive_loss),
            "ours, bf16": lambda: both_ways(lambda a, b: in_16_bits(hierarchical_contrastive_loss, a, b)),
            "plain": lambda: both_ways(hierarchy)}


for batch, bars, original in ((8, 200, ".068 s"), (32, 200, ".22 s"), (8, 1000, "1.1 s"), (2, 3000, "")):
    case(f"loss/{batch} x {bars}", f"TS2Vec's loss and gradient, {batch} windows of {bars} bars, 320 numbers",
         original)(lambda shape=(batch, bars): loss_forms(shape))


# --- a training step of the paper's network

def step_forms(shape):
    x = noise(*shape, 7).to(DEVICE)

    def stepper(precision="fp32", plain=False):
        task = TS2Vec(DilatedConvEncoder(7, 64, 320, 10, causal=False)).to(DEVICE)
        optimizer = torch.optim.AdamW(task.encoder.parameters())
        generator = torch.Generator(DEVICE).manual_seed(0)
        network = PlainNetwork(task.encoder)

        def step():
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
                loss = LOSSES["ts2vec"](task, network, x, generator) if plain else task.loss(x, generator)
            loss.backward()
            optimizer.step()
            task.after_step()
        return step
    z = DilatedConvEncoder(7, 64, 320, 10, causal=False)
    everything = torch.ones(1, 50, dtype=torch.bool)
    torch.testing.assert_close(z(x[:1, :50].cpu()), PlainNetwork(z)(x[:1, :50].cpu(), everything))
    return {"ours": stepper(), "ours, bf16": stepper("bf16"), "plain": stepper(plain=True)}


for batch, bars, original in ((8, 200, ".22 s"), (8, 1000, "1.9 s"), (2, 3000, "")):
    what = f"training step of the paper's network, {batch} windows of {bars} bars"
    case(f"step/{batch} x {bars}", what, original)(lambda shape=(batch, bars): step_forms(shape))


# --- a step of each method, and a pass through its network alone where that is the convolution

STUDY = SimpleNamespace(steps=10, batch_size=8, crop=200, learning_rate=1e-3)

def method_forms(key):
    check_loss(key, DEVICE)
    task, given = make_task(key, 8, 64, 128, 4, STUDY.crop, 0).to(DEVICE), METHODS[key].training(STUDY)
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = noise(given["batch_size"], given["crop"], 8).to(DEVICE)
    network = PlainNetwork(task.encoder)
    forms = {"ours": lambda: task.loss(x, generator).backward(),
             "ours, bf16": lambda: in_16_bits(task.loss, x, generator).backward(),
             "plain": lambda: LOSSES[key](task, network, x, generator).backward()}
    if isinstance(task.encoder, DilatedConvEncoder):
        forms["part"] = lambda: task.encoder(x).square().mean().backward()
    return forms


for key in METHODS:
    case(f"method/{key}", f"{METHODS[key].title}: loss and gradient, the study's batch; part: its network")(
        lambda key=key: method_forms(key))


def through_the_encoder(task, windows, hidden):
    """The masked autoencoder as the tutorial has it, on the same blocks: mask tokens take the place of what
    is hidden, and there is no decoder."""
    e, target = task.encoder, task.encoder.cut(windows).flatten(2)
    shown = e.embed(torch.cat([target, torch.zeros_like(target)], 2))
    tokens = torch.where(hidden.unsqueeze(2), e.absent[0], shown) + e.positions
    return (e.norm(e.blocks(tokens))[..., :1].expand_as(target) - target).square()[hidden].mean()


@case("masked/512", "masked autoencoder, loss and gradient, 32 x 512 bars; plain: mask tokens in the encoder")
def _():
    task, x = MAE(WindowTransformer(4, 128, 256, 6, length=512)).to(DEVICE), noise(32, 512, 4).to(DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    mask = hide_patches(32, task.encoder.n_patches, 0.75, generator)
    return {"ours": lambda: task.loss(x, generator).backward(),
            "ours, bf16": lambda: in_16_bits(task.loss, x, generator).backward(),
            "plain": lambda: through_the_encoder(task, x, mask).backward()}


@case("dickey-fuller", "Dickey-Fuller test of 200 windows of 200 bars; plain: statsmodels, one by one")
def _():
    walks = np.random.default_rng(0).standard_normal((200, 200)).cumsum(1)
    warnings.simplefilter("ignore", FutureWarning)   # of statsmodels: it will return another kind of tuple
    one_by_one = lambda some: np.array([adfuller(walk)[1] for walk in some])
    np.testing.assert_allclose(adf_pvalues(walks[:20]).numpy(), one_by_one(walks[:20]), atol=1e-8)
    return {"ours": lambda: adf_pvalues(walks), "plain": (lambda: one_by_one(walks[:50]), 4)}


# --- encoding

BARS = 17_420                                          # of ETTh1
SERIES = np.random.default_rng(0).standard_normal((BARS, 7)).astype("float32")


def windows_of(bars, length=201):
    return sliding_window_view(SERIES[:bars + length - 1], length, axis=0).transpose(0, 2, 1)


@torch.no_grad()
def a_window_for_each_bar(encoder, bars):
    "The vector of each bar from a window of its own, as the original code does it."
    network, parts = PlainNetwork(encoder), np.array_split(windows_of(bars), bars//50)
    whole = lambda part: network(torch.tensor(part))
    return torch.cat([whole(part)[:, -1] for part in parts])


@case("encode/one pass", "encode 17,420 bars, 320 numbers each; plain: a window of 201 for each bar", "45 s")
def _():
    encoder = DilatedConvEncoder(7, 64, 320, 4, seed=0)
    whole, windows = encoder.encode(SERIES[:400]), a_window_for_each_bar(encoder, 200).numpy()
    np.testing.assert_allclose(whole[200:], windows, atol=1e-4)
    return {"ours": lambda: encoder.encode(SERIES),
            "plain": (lambda: a_window_for_each_bar(encoder, 200), BARS/200)}


@case("encode/ends", "the same at the ends of windows of 201; plain: all of each window")
def _():
    encoder = DilatedConvEncoder(7, 64, 320, 10, seed=0)
    part = SERIES[:2200]
    return {"ours": lambda: encoder.encode_windows(part, 201),
            "plain": (lambda: a_window_for_each_bar(encoder, 100), 22)}


@case("encode/seasons", "CoST: encode 17,420 bars; plain: a window of 201 for each bar, all experts at each",
      "70 to 1056 s")
def _():
    encoder = SeasonalTrendEncoder(7, 64, 320, depth=0, length=201)

    @torch.no_grad()
    def experts_and_circles(windows):
        "Each expert at every bar of the window, and the last bar of the Fourier layer."
        h, experts = encoder.backbone(windows), encoder.trend.weights
        past = h.transpose(1, 2)
        by_expert = [F.conv1d(F.pad(past, (len(w) - 1, 0)), w.flip(0).permute(2, 1, 0)) for w in experts]
        trend = sum(by_expert)/len(experts)
        weight, bias = torch.complex(*encoder.season.weight), torch.complex(*encoder.season.bias)
        season = torch.einsum("bfi,fio->bfo", torch.fft.rfft(h, dim=1), weight) + bias
        last = torch.fft.irfft(season, n=201, dim=1)[:, -1]
        return torch.cat([trend[..., -1] + encoder.trend.bias, last], 1)

    plain = lambda: experts_and_circles(torch.tensor(windows_of(50)))
    np.testing.assert_allclose(encoder.encode(SERIES[:201])[-1], plain()[0].numpy(), atol=1e-4)
    return {"ours": lambda: encoder.encode(SERIES, 4000), "plain": (plain, BARS/50)}


@case("stream/bar", "one more bar after a million; plain: a window as long as the receptive field")
def _():
    encoder = DilatedConvEncoder(7, 64, 320, 4, seed=0)
    stepper, window = encoder.stream(), torch.tensor(SERIES[None, :encoder.receptive_field])
    for bar in range(5000): stepper.step(SERIES[bar])
    def steps():
        for bar in range(200): stepper.step(SERIES[bar])
    network = PlainNetwork(encoder)
    def again():
        with torch.no_grad(): network(window)[:, -1]
    return {"ours": (steps, 1/200), "plain": again}


YEAR = 8760


@case("masked/scores", "masked autoencoder: anomaly scores of a year of hours; plain: window by window")
def _():
    task = MAE(WindowTransformer(8))
    year, draws = noise(YEAR, 8), torch.Generator().manual_seed(0)
    masks = complementary_masks(task.encoder.n_patches, task.ratio, draws)
    @torch.no_grad()
    def one_by_one(bars=200):
        for end in range(64, 64 + bars):
            for mask in masks: task.write(year[None, end - 64:end], mask[None])
    return {"ours": (lambda: task.scores(year[:YEAR//4].numpy()), 4), "plain": (one_by_one, YEAR/200)}


@case("masked/vectors", "masked autoencoder: a vector of each bar of a year; plain: window by window")
def _():
    encoder, year = WindowTransformer(8).eval(), noise(YEAR, 8)
    @torch.no_grad()
    def one_by_one(bars=200):
        for end in range(64, 64 + bars): encoder.last(year[None, end - 64:end])
    return {"ours": (lambda: encoder.encode(year.numpy()[:YEAR//4]), 4), "plain": (one_by_one, YEAR/200)}


# --- accounts

def random_candles(n_bars):
    close = 100*np.exp(np.random.default_rng(0).normal(0, 0.005, n_bars).cumsum())
    times = pd.date_range("2024", periods=n_bars, freq="h", tz="UTC")
    opened = np.concatenate([[100.], close[:-1]])
    prices = {"open": opened, "high": close*1.01, "low": close*0.99, "close": close}
    return pd.DataFrame(prices | {"volume": 1.}, times)


MILLION = 1_000_000


def event_by_event(candles, turns):
    "One trader who holds shares of the equity, one event after the other."
    equity, held = 1.0, 0.0
    opened, closed = (candles[name].tolist() for name in ("open", "close"))
    for t in range(1, len(candles)):
        equity *= 1 + held*(opened[t]/closed[t - 1] - 1)
        equity *= 1 - 0.00065*abs(turns[t - 1] - held)
        held = turns[t - 1]
        equity *= 1 + held*(closed[t]/opened[t] - 1)
    return equity


def event_by_event_in_units(candles, turns):
    "The trader of the tests, who knows all that the account knows."
    terms = {"due": [0.0], "within": [0.0], "slippage": [0.0001]}
    row = lambda t: {name: [candles[name].iloc[t]] for name in ("open", "high", "low", "close")} | terms
    return in_units(turns[:, None].tolist(), [row(t) for t in range(len(turns))], Terms())


def account_forms(hold, by_events):
    candles, turns = random_candles(MILLION), np.sign(np.random.default_rng(1).normal(size=MILLION))
    few = candles.iloc[:2000], turns[:2000]
    if hold == "share":
        at_once = trade(few[1], few[0], Terms(hold=hold)).equity[0, -1]
        np.testing.assert_allclose(at_once, by_events(*few), rtol=1e-9)
    return {"ours": lambda: trade(turns, candles, Terms(hold=hold)),
            "plain": (lambda: by_events(*few), MILLION/2000)}


for hold, by_events in (("share", event_by_event), ("units", event_by_event_in_units)):
    case(f"account/{hold}", f"account of a million bars that holds {hold}; plain: event by event")(
        lambda given=(hold, by_events): account_forms(*given))


@case("account/thousand", "accounts of 1000 strategies, two years of hours, with figures; plain: one by one")
def _():
    candles = random_candles(2*YEAR)
    position = np.random.default_rng(2).integers(-1, 2, (2*YEAR, 1, 1000)).astype(np.int8)
    def one_by_one():
        for which in range(20): trade_table(position[..., which:which + 1], candles)
    return {"ours": (lambda: trade_table(position[..., :250], candles), 4), "plain": (one_by_one, 50)}


# --- first contact: what importing takes, of processes of their own

def importing(module):
    "Seconds of the processor that a fresh process takes to import it."
    def run():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run


@case("import/representation", "import sslts_nb.representation; part: torch, pandas and sklearn.base")
def _():
    return {"ours": importing("sslts_nb.representation"), "part": importing("torch, pandas, sklearn.base")}


# --- memory, of processes of their own

PEAK = """
import re
# of this process alone; ru_maxrss begins at the parent's
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])/1024
"""
LOSS = """
import torch
from sslts_nb.ts2vec import hierarchical_contrastive_loss
torch.set_num_threads(1)
a, b = (torch.randn(8, 8760, 320).mul_(0.3).requires_grad_() for _ in range(2))
before = peak()
hierarchical_contrastive_loss(a, b).backward()
print(peak() - before)
"""
ACCOUNTS = """
import numpy as np, pandas as pd
from sslts_nb.performance import trade_table
close = 100*np.exp(np.random.default_rng(0).normal(0, 0.005, 17_520).cumsum())
prices = {"open": close, "high": close*1.01, "low": close*0.99, "close": close, "volume": 1.}
candles = pd.DataFrame(prices, pd.date_range("2024", periods=17_520, freq="h", tz="UTC"))
trade_table(np.random.default_rng(2).uniform(-1, 1, (17_520, 1, 1000)), candles)
print(peak())
"""


def megabytes(program):
    "What a program in a process of its own prints."
    def run():
        command = [sys.executable, "-c", PEAK + program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)
    return run


MEMORY = {
    "memory/loss": ("TS2Vec's loss and gradient, 8 windows of a year of hours, above its inputs", "MB",
                    megabytes(LOSS)),
    "memory/accounts": ("a thousand accounts over two years of hours, the whole process", "MB",
                        megabytes(ACCOUNTS))}

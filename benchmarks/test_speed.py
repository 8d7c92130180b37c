"""`make bench`: what is meant to be fast, each beside a plain form written from the formula, in the same run.

Only the ratios carry over to other machines. Loss and training run on a CUDA device if there is one, and
their tables name it."""
import subprocess, sys, time
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from statsmodels.tsa.stattools import adfuller

from sslts_nb.settings import use_threads
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.ts2vec import TS2Vec, hierarchical_contrastive_loss
from sslts_nb.tnc import adf_pvalues
from sslts_nb.cost import CoST, SeasonalTrendEncoder
from sslts_nb.mae import MAE, WindowTransformer, hide_patches
from sslts_nb.backtest import Terms, trade
from sslts_nb.performance import trade_table

sys.path.insert(0, str(Path(__file__).parent.parent/"tests"))
from reference_account import in_units

THREADS = 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def device_name():
    if DEVICE == "cuda": return torch.cuda.get_device_name()
    named = hasattr(torch.cpu, "get_capabilities")
    name = torch.cpu.get_capabilities()["cpu_name"].strip() if named else "processor"
    return f"{name}, {THREADS} threads"


NAME = device_name()
ENCODER = DilatedConvEncoder(7, 64, 320, 4, seed=0)    # 320 dimensions, as in the paper


@pytest.fixture(autouse=True)
def threads():
    use_threads(THREADS)
    yield
    use_threads(1)


def in_one_table(a, b):
    "The contrast as it is written: a table of similarities for each group."
    n = a.shape[1]
    z = torch.cat([a, b], 1)
    itself = torch.eye(2*n, dtype=torch.bool, device=z.device)
    similarity = (z @ z.transpose(1, 2)).masked_fill(itself, float("-inf"))
    partner = torch.arange(2*n, device=z.device).roll(n).repeat(len(a))
    return F.cross_entropy(similarity.flatten(0, 1), partner)


def hierarchy(contrast, a, b):
    "The hierarchical loss on another form of the contrast."
    total, levels = 0.0, 0
    while True:
        total, levels = total + 0.5*contrast(a.transpose(0, 1), b.transpose(0, 1)), levels + 1
        if a.shape[1] == 1: return total/levels
        total = total + 0.5*contrast(a, b)
        a, b = (F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (a, b))


def forward_and_backward(loss, pair):
    a, b = (z.clone().requires_grad_() for z in pair)
    loss(a, b).backward()
    wait()


def wait():
    if DEVICE == "cuda": torch.cuda.synchronize()


def in_16_bits(a, b):
    with torch.autocast(DEVICE, torch.bfloat16): return hierarchical_contrastive_loss(a, b)


LOSSES = {"in pieces": hierarchical_contrastive_loss, "in pieces, bf16": in_16_bits,
          "in one table": lambda a, b: hierarchy(in_one_table, a, b)}


@pytest.mark.parametrize("form", LOSSES)
@pytest.mark.parametrize("shape", [(8, 200), (32, 200), (8, 1000), (8, 3000)])
def test_loss(benchmark, shape, form):
    benchmark.group = f"loss, forward and backward, B x T = {shape[0]} x {shape[1]}, {NAME}"
    pair = (torch.randn(2, *shape, 320, generator=torch.Generator().manual_seed(0))*0.3).to(DEVICE)
    benchmark.pedantic(forward_and_backward, (LOSSES[form], pair), rounds=3, warmup_rounds=1)


def least_seconds(function, *given, times=3):
    spans = []
    for _ in range(times + 1):
        wait()
        begin = time.perf_counter()
        function(*given)
        wait()
        spans.append(time.perf_counter() - begin)
    return min(spans[1:])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_share_of_the_matrix_rate(precision):
    """What part of the machine's rate in plain products the loss reaches at 8 x 3000: four products of half
    the table, at every level."""
    square = torch.randn(4096, 4096, device=DEVICE, dtype=precision)
    rate = 2*4096**3/least_seconds(torch.mm, square, square)
    pair = (torch.randn(2, 8, 3000, 320, generator=torch.Generator().manual_seed(0))*0.3).to(DEVICE)
    loss = in_16_bits if precision == torch.bfloat16 else hierarchical_contrastive_loss
    span = least_seconds(forward_and_backward, loss, pair)
    work = sum(4*2*8*320*(2*(3000 >> level))**2/2 for level in range(12))
    reached = work/span
    print(f"\n{NAME}: {rate/1e9:,.0f} GFlop/s in products of {precision}; "
          f"the loss {reached/1e9:,.0f}, {reached/rate:.0%}")
    assert 0 < reached < rate*1.1


def train(task, x, steps, contrast=None, precision="fp32"):
    "A plain loop; `contrast` takes the place of the library's."
    generator = torch.Generator(DEVICE).manual_seed(0)
    optimizer = torch.optim.AdamW(task.encoder.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            loss = hierarchy(contrast, *task.views(x, generator)) if contrast else task.loss(x, generator)
        loss.backward()
        optimizer.step()
        task.after_step()
    wait()


TRAININGS = {"in pieces, bf16": {"precision": "bf16"}, "in pieces": {},
             "in one table": {"contrast": in_one_table}}


@pytest.mark.parametrize("form", TRAININGS)
@pytest.mark.parametrize("shape", [(8, 200), (2, 3000)])
def test_training(benchmark, shape, form):
    whole = " (training on ETTh1: times 10)" if shape[1] == 3000 else ""
    size = f"B x T = {shape[0]} x {shape[1]}"
    benchmark.group = f"twenty training steps, {size}, the paper's network, {NAME}{whole}"
    task = TS2Vec(DilatedConvEncoder(7, 64, 320, 10, causal=False)).to(DEVICE)
    x = torch.randn(*shape, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    benchmark.pedantic(train, (task, x, 20), TRAININGS[form], rounds=1)


STEPS = 17_420                                          # of ETTh1
SERIES = np.random.default_rng(0).standard_normal((STEPS, 7)).astype("float32")


ENCODING = "encode 17,420 steps (a window for each bar: times 34.8, as it is given 500 bars)"


def a_window_for_each_bar(bars=500, window=201):
    "The vector of each bar from a window of its own, as the original code does it."
    windows = sliding_window_view(SERIES[:bars + window - 1], window, axis=0).transpose(0, 2, 1)
    parts = np.array_split(windows, max(bars//100, 1))
    with torch.no_grad(): return torch.cat([ENCODER(torch.tensor(part))[:, -1] for part in parts])


def test_encode_in_one_pass(benchmark):
    benchmark.group = ENCODING
    benchmark.pedantic(ENCODER.encode, (SERIES,), rounds=5, warmup_rounds=1)


def test_encode_at_the_end_of_windows(benchmark):
    benchmark.group = ENCODING
    benchmark.pedantic(ENCODER.encode_windows, (SERIES, 201), rounds=1)


def test_encode_window_by_window(benchmark):
    benchmark.group = ENCODING
    benchmark.pedantic(a_window_for_each_bar, rounds=1)


SEASONAL = SeasonalTrendEncoder(7, 64, 320, depth=0, length=201)
SEASONAL_ENCODING = "CoST: encode 17,420 steps (a window for each bar: times 174.2, as it is given 100 bars)"


def experts_and_circles(windows):
    "CoST as it is written: each expert at every bar of the window, and the last bar of the Fourier layer."
    h = SEASONAL.backbone(windows)
    past = h.transpose(1, 2)
    experts = SEASONAL.trend.weights
    by_expert = [F.conv1d(F.pad(past, (len(w) - 1, 0)), w.flip(0).permute(2, 1, 0)) for w in experts]
    trend = sum(by_expert)/len(experts)
    weight, bias = torch.complex(*SEASONAL.season.weight), torch.complex(*SEASONAL.season.bias)
    season = torch.einsum("bfi,fio->bfo", torch.fft.rfft(h, dim=1), weight) + bias
    return torch.cat([trend[..., -1] + SEASONAL.trend.bias, torch.fft.irfft(season, n=201, dim=1)[:, -1]], 1)


def seasonal_window_by_window(bars=100):
    windows = sliding_window_view(SERIES[:bars + 200], 201, axis=0).transpose(0, 2, 1)
    parts = [torch.tensor(part) for part in np.array_split(windows, bars//50)]
    with torch.no_grad(): return torch.cat([experts_and_circles(part) for part in parts]).numpy()


def test_encode_seasons_in_one_pass(benchmark):
    benchmark.group = SEASONAL_ENCODING
    one_pass, windows = SEASONAL.encode(SERIES[:201]), seasonal_window_by_window(50)
    np.testing.assert_allclose(one_pass[-1], windows[0], atol=1e-4)   # later bars have seen more in one pass
    benchmark.pedantic(SEASONAL.encode, (SERIES, 4000), rounds=2, warmup_rounds=1)


def test_encode_seasons_window_by_window(benchmark):
    benchmark.group = SEASONAL_ENCODING
    benchmark.pedantic(seasonal_window_by_window, rounds=1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cost_step(benchmark, precision):
    benchmark.group = f"CoST: loss and gradients, 128 windows of 201 bars, 320 dimensions ({NAME})"
    task, windows = CoST(SEASONAL).to(DEVICE), torch.randn(128, 201, 7, device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            loss = task.loss(windows, generator)
        loss.backward()
        wait()
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    SEASONAL.cpu()


WALKS = np.random.default_rng(0).standard_normal((200, 200)).cumsum(1)


def through_the_encoder(task, windows, hidden):
    """The masked autoencoder as the tutorial has it, on the same blocks: mask tokens take the place of what
    is hidden, and there is no decoder."""
    e, target = task.encoder, task.encoder.cut(windows).flatten(2)
    shown = e.embed(torch.cat([target, torch.zeros_like(target)], 2))
    tokens = torch.where(hidden.unsqueeze(2), e.absent[0], shown) + e.positions
    return (e.norm(e.blocks(tokens))[..., :1].expand_as(target) - target).square()[hidden].mean()


@pytest.mark.parametrize("form", ["75 % hidden", "all tokens but one", "mask tokens through the encoder"])
@pytest.mark.parametrize("length, hidden, depth", [(100, 64, 4), (512, 128, 6)])
def test_masked_step(benchmark, length, hidden, depth, form):
    shape = f"32 windows of {length} bars, {hidden} wide, {depth} blocks"
    benchmark.group = f"masked autoencoder: loss and gradients, {shape} ({NAME})"
    task = MAE(WindowTransformer(4, hidden, 2*hidden, depth, length=length)).to(DEVICE)
    windows = torch.randn(32, length, 4, device=DEVICE)
    if form.startswith("all"): task = MAE(task.encoder, ratio=1.01/task.encoder.n_patches).to(DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    mask = hide_patches(32, task.encoder.n_patches, 0.75, generator)
    def step():
        tokens = form.startswith("mask")
        loss = through_the_encoder(task, windows, mask) if tokens else task.loss(windows, generator)
        loss.backward()
        wait()
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("form", ["all at once", "statsmodels, one by one"])
def test_dickey_fuller(benchmark, form):
    benchmark.group = "Dickey-Fuller test of 200 windows of 200 bars"
    use_threads(1)
    one_by_one = lambda walks: np.array([adfuller(walk)[1] for walk in walks])
    np.testing.assert_allclose(adf_pvalues(WALKS[:20]).numpy(), one_by_one(WALKS[:20]), atol=1e-8)
    test, rounds = (adf_pvalues, 5) if form == "all at once" else (one_by_one, 5)
    benchmark.pedantic(test, (WALKS,), rounds=rounds)


@pytest.mark.parametrize("history", [100, 1_000_000])
def test_streaming_step(benchmark, history):
    benchmark.group = "one bar in, one vector out"
    use_threads(1)
    stepper = ENCODER.stream()
    for bar in range(history): stepper.step(SERIES[bar % STEPS])
    benchmark(stepper.step, SERIES[0])


def megabytes(program):
    "What a program in a process of its own prints."
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("bars, limit", [(8760, 1000)])
def test_memory_of_a_year_of_hours(bars, limit):
    program = f"""
import re, torch
from sslts_nb.ts2vec import hierarchical_contrastive_loss
torch.set_num_threads({THREADS})
# of this process alone; ru_maxrss begins at the parent's
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])/1024
a, b = (torch.randn(8, {bars}, 320).mul_(0.3).requires_grad_() for _ in range(2))
before = peak()
hierarchical_contrastive_loss(a, b).backward()
print(peak() - before)
"""
    used = megabytes(program)
    print(f"\nloss at B 8, T {bars}: {used:.0f} MB above its inputs, gradients included")
    assert 0 < used < limit


def random_candles(n_bars):
    close = 100*np.exp(np.random.default_rng(0).normal(0, 0.005, n_bars).cumsum())
    times = pd.date_range("2024", periods=n_bars, freq="h", tz="UTC")
    opened = np.concatenate([[100.], close[:-1]])
    prices = {"open": opened, "high": close*1.01, "low": close*0.99, "close": close}
    return pd.DataFrame(prices | {"volume": 1.}, times)


MILLION = random_candles(1_000_000)
TURNS = np.sign(np.random.default_rng(1).normal(size=1_000_000))


def event_by_event(bars=2000):
    "One trader who holds shares of the equity, one event after the other."
    equity, held = 1.0, 0.0
    opened, closed = (MILLION[name].to_numpy()[:bars].tolist() for name in ("open", "close"))
    for t in range(1, bars):
        equity *= 1 + held*(opened[t]/closed[t - 1] - 1)
        equity *= 1 - 0.00065*abs(TURNS[t - 1] - held)
        held = TURNS[t - 1]
        equity *= 1 + held*(closed[t]/opened[t] - 1)
    return equity


def event_by_event_in_units(bars=2000):
    "The trader of the tests, who knows all that the account knows."
    terms = {"due": [0.0], "within": [0.0], "slippage": [0.0001]}
    row = lambda t: {name: [MILLION[name].iloc[t]] for name in ("open", "high", "low", "close")} | terms
    return in_units(TURNS[:bars, None].tolist(), [row(t) for t in range(bars)], Terms())


@pytest.mark.parametrize("form", ["share", "units", "event by event, share", "event by event, units"])
def test_account(benchmark, form):
    benchmark.group = "account of one strategy, a million bars (event by event: times 500, for it has 2000)"
    use_threads(1)
    at_once = trade(TURNS[:2000], MILLION.iloc[:2000], Terms(hold="share")).equity[0, -1]
    np.testing.assert_allclose(at_once, event_by_event(), rtol=1e-9)
    by_events = {"event by event, share": event_by_event, "event by event, units": event_by_event_in_units}
    call = by_events.get(form, lambda: trade(TURNS, MILLION, Terms(hold=form)))
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("terms", [Terms(), Terms(hold="share"), Terms(step=1e-4, maintenance=0.005)],
                         ids=["units", "share", "rounded, with margin"])
def test_many_accounts(benchmark, terms):
    benchmark.group = "accounts of 1000 strategies over 17,520 bars, with their figures"
    use_threads(1)
    position = np.random.default_rng(2).integers(-1, 2, (17_520, 1, 1000)).astype(np.int8)
    benchmark.pedantic(trade_table, (position, MILLION.iloc[:17_520], terms), rounds=1)


def test_memory_of_a_thousand_accounts():
    program = """
import re, numpy as np, pandas as pd
from sslts_nb.performance import trade_table
close = 100*np.exp(np.random.default_rng(0).normal(0, 0.005, 17_520).cumsum())
prices = {"open": close, "high": close*1.01, "low": close*0.99, "close": close, "volume": 1.}
candles = pd.DataFrame(prices, pd.date_range("2024", periods=17_520, freq="h", tz="UTC"))
trade_table(np.random.default_rng(2).uniform(-1, 1, (17_520, 1, 1000)), candles)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])/1024)
"""
    used = megabytes(program)
    print(f"\na thousand accounts over 17,520 bars: {used:.0f} MB, the process and the positions included")
    assert used < 2000

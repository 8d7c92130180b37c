"""Each augmentation against a loop over series, bars and channels with the same draws; what all keep."""
import time

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.interpolate import CubicSpline

from sslts_nb.augmentations import (Compose, RandomChoice, Sometimes, channel_dropout, crop, frequency_mask,
                                    frequency_mix, jitter, magnitude_warp, mask_bars, permutation, scaling,
                                    strong_view, time_warp, weak_view, window_slice)


def generator(seed=0): return torch.Generator().manual_seed(seed)
def rand(seed, *shape): return torch.rand(shape, generator=generator(seed)).numpy()
def normal(seed, *shape): return torch.randn(shape, generator=generator(seed)).numpy()


def spline(values, n_bars):
    return CubicSpline(np.linspace(0, n_bars - 1, len(values)), values)(np.arange(n_bars))


def naive_jitter(x, seed, strength):
    out, noise = x.copy(), normal(seed, *x.shape)
    for b, c in np.ndindex(len(x), x.shape[2]):
        known = [x[b, t, c] for t in range(x.shape[1]) if not np.isnan(x[b, t, c])]
        deviation = np.std(known) if known else 0
        for t in range(x.shape[1]): out[b, t, c] = x[b, t, c] + strength*deviation*noise[b, t, c]
    return out


def naive_scaling(x, seed, strength):
    out, u = x.copy(), rand(seed, len(x), 1, x.shape[2])
    for b, t, c in np.ndindex(x.shape): out[b, t, c] = x[b, t, c]*(1 + strength*(2*u[b, 0, c] - 1))
    return out


def naive_magnitude_warp(x, seed, strength):
    out, at = x.copy(), normal(seed, len(x), 6, x.shape[2])
    for b, c in np.ndindex(len(x), x.shape[2]):
        factor = 1 + strength*spline(at[b, :, c], x.shape[1])
        for t in range(x.shape[1]): out[b, t, c] = x[b, t, c]*factor[t]
    return out


def naive_time_warp(x, seed, strength):
    out, at, n_bars = x.copy(), normal(seed, len(x), 6), x.shape[1]
    for b in range(len(x)):
        clock = np.concatenate([[0], np.cumsum(np.exp(spline(strength*at[b], n_bars)[1:]))])
        for c in range(x.shape[2]):
            out[b, :, c] = np.interp(clock/clock[-1]*(n_bars - 1), np.arange(n_bars), x[b, :, c])
    return out


def naive_window_slice(x, seed, ratio):
    out, u, n_bars = x.copy(), rand(seed, len(x), 1), x.shape[1]
    for b, c in np.ndindex(len(x), x.shape[2]):
        start, span = (n_bars - 1)*(1 - ratio)*u[b, 0], (n_bars - 1)*ratio
        out[b, :, c] = np.interp(start + span*np.arange(n_bars)/(n_bars - 1), np.arange(n_bars), x[b, :, c])
    return out


def naive_crop(x, seed, length):
    u = rand(seed, len(x), 1)
    return np.stack([series[int(u[b, 0]*(x.shape[1] - length + 1)):][:length] for b, series in enumerate(x)])


def naive_mask_bars(x, seed, ratio):
    out, u = x.copy(), rand(seed, *x.shape[:2])
    for b in range(len(x)):
        for t in sorted(range(x.shape[1]), key=lambda t: -u[b, t])[:int(ratio*x.shape[1])]: out[b, t] = np.nan
    return out


def naive_channel_dropout(x, seed, probability):
    out, u = x.copy(), rand(seed, len(x), 1, x.shape[2])
    for b, c in np.ndindex(len(x), x.shape[2]):
        if u[b, 0, c] < probability and u[b, 0, c] < u[b, 0].max(): out[b, :, c] = np.nan
    return out


def naive_permutation(x, seed, segments):
    draws = generator(seed)
    at = torch.rand(len(x), x.shape[1] - 1, generator=draws).numpy()
    keys, out = torch.rand(len(x), segments, generator=draws).numpy(), x.copy()
    for b in range(len(x)):
        cuts = [0, *sorted(np.argsort(-at[b])[:segments - 1] + 1), x.shape[1]]
        out[b] = np.concatenate([x[b, cuts[n]:cuts[n + 1]] for n in np.argsort(keys[b])])
    return out


def changed_spectrum(x, change):
    mean = np.nan_to_num(np.nanmean(x))
    spectrum = change(np.fft.rfft(np.nan_to_num(x - mean)))
    return np.where(np.isnan(x), np.nan, np.fft.irfft(spectrum, n=len(x)) + mean)


def naive_frequency_mask(x, seed, ratio):
    out, u = x.copy(), rand(seed, len(x), x.shape[1]//2 + 1, x.shape[2])
    for b, c in np.ndindex(len(x), x.shape[2]):
        out[b, :, c] = changed_spectrum(x[b, :, c], lambda s: np.where(u[b, :, c] < ratio, 0, s))
    return out


def naive_frequency_mix(x, seed, ratio):
    draws, out = generator(seed), x.copy()
    u = torch.rand(len(x), x.shape[1]//2 + 1, x.shape[2], generator=draws).numpy()
    order = torch.randperm(len(x), generator=draws).tolist()
    before = {series: order[n - 1] for n, series in enumerate(order)}
    for b, c in np.ndindex(len(x), x.shape[2]):
        neighbour = x[before[b], :, c]
        theirs = np.fft.rfft(np.nan_to_num(neighbour - np.nan_to_num(np.nanmean(neighbour))))
        out[b, :, c] = changed_spectrum(x[b, :, c], lambda s: np.where(u[b, :, c] < ratio, theirs, s))
    return out


PAIRS = {"jitter": (jitter, naive_jitter, 0.5), "scaling": (scaling, naive_scaling, 0.5),
         "magnitude warp": (magnitude_warp, naive_magnitude_warp, 0.4),
         "time warp": (time_warp, naive_time_warp, 0.5),
         "window slice": (window_slice, naive_window_slice, 0.7), "crop": (crop, naive_crop, 9),
         "mask": (mask_bars, naive_mask_bars, 0.4),
         "channel dropout": (channel_dropout, naive_channel_dropout, 0.5),
         "permutation": (permutation, naive_permutation, 4),
         "frequency mask": (frequency_mask, naive_frequency_mask, 0.4),
         "frequency mix": (frequency_mix, naive_frequency_mix, 0.4)}
# they read between bars, so that a hole reaches its neighbours
BETWEEN = {"time warp", "window slice"}
MOVE = BETWEEN | {"crop", "permutation"}                # they move bars, and holes with them
HIDE = {"mask", "channel dropout"}


@st.composite
def batches(draw, holes=True, least=10):
    shape = draw(st.tuples(st.integers(1, 5), st.integers(least, 40), st.integers(1, 4)))
    numbers = torch.randn(shape, generator=generator(draw(st.integers(0, 99))))
    x = numbers*torch.tensor([10.**draw(st.integers(-3, 3)) for _ in range(shape[2])])
    if holes and draw(st.booleans()):
        x[torch.rand(shape, generator=generator(1)) < draw(st.sampled_from([0.1, 0.5, 1.0]))] = torch.nan
    return x


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_equals_the_loop(name, data, seed):
    fast, naive, strength = PAIRS[name]
    x = data.draw(batches(holes=name not in BETWEEN))
    wanted, size = naive(x.numpy(), seed, strength), np.nanmax(np.abs(x.numpy()), axis=(0, 1), initial=0)
    found = fast(x, generator(seed), strength).numpy()
    assert (np.abs(np.nan_to_num(found) - np.nan_to_num(wanted)) <= 2e-4*size + 1e-30).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_shape_type_holes_and_repetition(name, data, seed):
    augment, _, strength = PAIRS[name]
    x = data.draw(batches())
    kept = x.clone()
    out = augment(x, generator(seed), strength)
    # the input is not touched
    assert torch.equal(x.nan_to_num(), kept.nan_to_num())
    shape = (x.shape[0], strength, x.shape[2]) if name == "crop" else x.shape
    assert out.dtype == x.dtype and out.shape == shape
    assert torch.equal(out.nan_to_num(), augment(x, generator(seed), strength).nan_to_num())
    if name not in MOVE | HIDE: assert torch.equal(out.isnan(), x.isnan())
    if name in HIDE:
        assert (out.isnan() >= x.isnan()).all() and torch.equal(out[~out.isnan()], x[~out.isnan()])
    if name in MOVE and x.isnan().all(): assert out.isnan().all()
    double = augment(x.double(), generator(seed), strength)
    assert double.dtype == torch.float64


@settings(max_examples=50, deadline=None)
@given(batches(holes=False), st.integers(0, 10**6), st.floats(0, 3))
def test_the_warped_clock_only_moves_forward(x, seed, strength):
    rising = torch.arange(x.shape[1], dtype=torch.float32)[None, :, None].expand(x.shape).contiguous()
    warped = time_warp(rising, generator(seed), strength)
    assert (warped.diff(dim=1) >= -1e-4).all() and warped.min() >= 0 and warped.max() <= x.shape[1] - 1 + 1e-3


@settings(max_examples=50, deadline=None)
@given(batches(holes=False), st.integers(0, 10**6), st.floats(0, 0.999))
def test_exactly_the_share_is_hidden(x, seed, ratio):
    hidden = mask_bars(x, generator(seed), ratio).isnan()
    assert (hidden.all(2) == hidden.any(2)).all()
    assert (hidden[..., 0].sum(1) == int(ratio*x.shape[1] + 1e-6)).all()


@settings(max_examples=50, deadline=None)
@given(batches(holes=False), st.integers(0, 10**6), st.integers(2, 10))
def test_a_permutation_stays_within_its_series(x, seed, segments):
    marked = torch.arange(x[..., 0].numel(), dtype=torch.float32).view(*x.shape[:2], 1)
    out = permutation(marked, generator(seed), segments)
    assert torch.equal(out.sort(dim=1).values, marked)
    assert ((out.diff(dim=1) != 1).sum(1) <= segments - 1).all()


def test_frequencies_are_taken_independently():
    """Series that are multiples of one, no two the same: what is left of each frequency's own multiple
    says which of them were taken, and from whom."""
    base, own = torch.randn(1, 41, 3, generator=generator()).double(), torch.arange(1., 401).double()
    x = base*own[:, None, None]
    spectrum = torch.fft.rfft(frequency_mix(x, generator(), 0.4), dim=1)[:, 1:]
    multiple = (spectrum/torch.fft.rfft(base, dim=1)[:, 1:]).real
    taken = (multiple - own[:, None, None]).abs() > 1e-6
    assert taken.double().mean() == pytest.approx(0.4, abs=0.01)
    assert len(taken.flatten(1).unique(dim=0)) == 400
    draws = taken.flatten(1).double() - 0.4
    for one, other in ((draws[:-1], draws[1:]), (draws[:, :-1], draws[:, 1:])):   # of series, of frequencies
        assert abs(float((one*other).mean())/0.24) < 0.05
    givers = [multiple[number][taken[number]].round().unique() for number in range(400)]
    assert all(len(giver) == 1 for giver in givers)                                # each has one other series
    assert torch.cat(givers).sort().values.equal(own)                              # and gives to one


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"frequency mix"}))    # equal ones have nothing to mix
def test_draws_of_series_are_independent(name):
    augment, _, strength = PAIRS[name]
    twins = torch.randn(1, 40, 3, generator=generator()).repeat(400, 1, 1)
    out = augment(twins, generator(), strength).nan_to_num(7.)
    # three channels have seven ways to be hidden
    assert len(out.flatten(1).unique(dim=0)) > (6 if name == "channel dropout" else 20)
    difference = (out - out.mean(0)).flatten(1).double()
    difference = difference/difference.norm(dim=1, keepdim=True).clamp(min=1e-9)
    # what befalls one says nothing of its neighbour
    assert abs(float((difference[:-1]*difference[1:]).sum(1).mean())) < 0.2


@pytest.mark.parametrize("augment", [weak_view, strong_view, Compose(scaling, time_warp, mask_bars),
                                     RandomChoice(jitter, permutation, time_warp),
                                     Sometimes(frequency_mask, 0.5)])
def test_the_same_numbers_on_any_number_of_threads(augment):
    x, found, threads = torch.randn(64, 100, 5, generator=generator()), [], torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(augment(x, generator(3)))
    finally: torch.set_num_threads(threads)
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())
    assert torch.equal(found[0].isnan(), found[1].isnan())


def benchmark():
    "Each augmentation on (256, 200, 8), one thread: in copies of the batch, and against its loop."
    torch.set_num_threads(1)
    x, draws = torch.randn(256, 200, 8, generator=generator()), generator()
    def best(fn, times):
        spans = []
        for _ in range(times):
            begin = time.perf_counter(); fn(); spans.append(time.perf_counter() - begin)
        return min(spans)
    copy = best(x.clone, 50)
    print(f"one copy: {copy*1e3:.3f} ms")
    for name, (fast, naive, strength) in PAIRS.items():
        span = best(lambda: fast(x, draws, strength), 15)
        print(f"{name:16} {span/copy:6.1f} copies, "
              f"{best(lambda: naive(x.numpy(), 0, strength), 1)/span:8.0f} times as fast as the loop")


if __name__ == "__main__": benchmark()

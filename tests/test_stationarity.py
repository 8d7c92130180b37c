"""The test of stationarity against statsmodels and on odd input; the widths that it gives."""
import math, warnings
import numpy as np, pytest, torch
from statsmodels.tsa.stattools import adfuller

from sslts_nb.settings import InputError
from sslts_nb.stationarity import adf_pvalues, adf_statistics, neighbourhood_widths


def seeded(seed): return torch.Generator().manual_seed(seed)


def reference(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")          # of the form of its answer, and of singular designs
        return np.array([adfuller(row)[:3] for row in rows])


def kinds(n, count=12):
    "Series of several kinds, one below the other."
    noise = np.random.default_rng(n).normal(size=(count, n + 2))
    walk = noise.cumsum(1)
    heavy = np.random.default_rng(n).standard_t(2, (count, n))
    return {"noise": noise[:, 2:], "walk": walk[:, 2:], "integrated": walk.cumsum(1)[:, 2:],
            "oscillating": noise[:, 2:] - 0.9*noise[:, 1:-1], "shifted": 50 + walk[:, 2:]/10,
            "explosive": np.exp(np.linspace(0, 3, n)) + noise[:, 2:], "heavy tails": heavy,
            "few values": noise[:, 2:].round()}


@pytest.mark.parametrize("n", [8, 13, 20, 37, 64, 101, 250, 400])
@pytest.mark.parametrize("kind", list(kinds(8)))
def test_dickey_fuller_is_that_of_statsmodels(n, kind):
    rows = kinds(n)[kind]
    rows = rows[rows.min(1) < rows.max(1)]
    wanted = reference(rows)
    clear = np.abs(wanted[:, 0]) < 1e3  # beyond it: rounding
    np.testing.assert_allclose(adf_statistics(rows).numpy()[clear], wanted[clear, 0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(adf_pvalues(rows).numpy()[clear], wanted[clear, 1], atol=1e-8)


@pytest.mark.parametrize("n", [25, 100, 300])
def test_dickey_fuller_on_walks_of_walks_and_moving_averages(n):
    noise = torch.randn(12, 300, generator=seeded(3), dtype=torch.double)
    walk, moving = noise.cumsum(1), noise + 0.9*noise.roll(1, 1) + 0.7*noise.roll(2, 1)
    rows = torch.cat([noise, walk, walk.cumsum(1), moving, 100 + 0.1*walk, walk.exp().clamp(max=1e6)])
    wanted = reference(rows[:, :n])
    np.testing.assert_allclose(adf_statistics(rows[:, :n]), wanted[:, 0], atol=1e-7)
    np.testing.assert_allclose(adf_pvalues(rows[:, :n]), wanted[:, 1], atol=1e-8)
    assert adf_pvalues(rows.view(2, -1, 300)).shape == (2, len(rows)//2)


def test_dickey_fuller_on_odd_input():
    assert adf_pvalues(torch.ones(3, 50)).isnan().all()
    assert adf_pvalues(torch.zeros(0, 50)).shape == (0,)
    mixed = torch.randn(2, 3, 40, generator=seeded(0))
    mixed[0, 1], mixed[1, 2, 5], mixed[1, 0, 0] = 2.0, math.nan, math.inf
    assert torch.equal(adf_pvalues(mixed).isnan(), torch.tensor([[False, True, False], [True, False, True]]))
    one = mixed[0, 0]
    assert torch.allclose(adf_pvalues(mixed)[0, 0], adf_pvalues(one))  # whatever stands beside it
    scaled = adf_statistics(-1e3*one)                                  # scale and sign do not matter
    assert torch.allclose(adf_statistics(one), scaled, atol=1e-9)
    for wrong in (torch.zeros(3), 1.0):
        with pytest.raises(InputError, match="at least 4 bars"): adf_pvalues(wrong)


def test_widths_are_those_of_the_loop():
    "Written as the paper describes it: one window further either way until the mean p-value reaches 0.01."
    x, window = torch.randn(2, 700, 3, generator=seeded(1)), 30
    x[1] = x[1].cumsum(0)
    x[0, :, 0] = x[0, :, 0].cumsum(0)*0.3 + x[0, :, 0]
    start = torch.randint(3*window, 700 - 4*window, (2, 25), generator=seeded(2))
    found = neighbourhood_widths(x, start, window)
    for b in range(2):
        for k in range(25):
            middle, width = int(start[b, k]) + window//2, 1
            def p_value(width):
                stretch = x[b, middle - width*window:middle + width*window]
                return reference(stretch.T.double().numpy())[:, 1].mean()
            while width < 3 and p_value(width) < 0.01: width += 1
            assert found[b, k] == width
    assert len(found.unique()) > 1


def test_widths_at_both_ends_and_where_channels_say_nothing():
    noise, walks = torch.randn(1, 4000, 2, generator=seeded(0)), torch.randn(1, 4000, 2, generator=seeded(1))
    x, start = torch.cat([noise, walks.cumsum(1)]), torch.arange(0, 3951, 50).expand(2, -1)
    of_noise, of_walks = neighbourhood_widths(x, start, 50)
    assert of_noise.float().mean() > 2.3 and of_walks.float().mean() < 1.2
    assert of_noise.unique().tolist() == [1, 2, 3]
    holed = x.clone()
    holed[0, :, 1], holed[1] = math.nan, 1.0
    # the channel that speaks, and where none does
    of_holed, of_constant = neighbourhood_widths(holed, start, 50)
    assert torch.equal(of_holed, neighbourhood_widths(x[:1, :, :1], start[:1], 50)[0])
    assert torch.equal(of_constant, torch.ones_like(of_constant))

"""Temporal neighbourhood coding on hostile and odd input; its test against statsmodels; resumed trainings."""
import math, warnings
import numpy as np, pytest, torch
from statsmodels.tsa.stattools import adfuller

from sslts_nb.settings import InputError
from sslts_nb.contract import Encoder
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.pretrain import pretrain
from sslts_nb.tnc import (SEGMENT, TNC, RecurrentEncoder, StateBenchmark, adf_pvalues, adf_statistics,
                          load_states, neighbourhood_loss, neighbourhood_widths, simulate_states)
from sslts_nb.states import state_encoder


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


def encoders():
    return {"convolution": DilatedConvEncoder(3, 8, 6, 2),
            "symmetric": DilatedConvEncoder(3, 8, 6, 2, causal=False),
            "patches": PatchTransformer(3, 8, 6, 1, 4, 3, 2),
            "recurrent": RecurrentEncoder(3, 8, 6),
            "recurrent causal": RecurrentEncoder(3, 8, 6, bidirectional=False)}


@pytest.mark.parametrize("name", list(encoders()))
@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("negatives", ["far", "others"])
def test_every_encoder_and_missing_bars(name, width, negatives):
    x = torch.randn(4, 200, 3, generator=seeded(0))
    x[0, 10:60], x[1, :, 2], x[2] = math.nan, 1.0, math.nan
    task = TNC(encoders()[name], width=width, negatives=negatives, n_centres=3, n_samples=5)
    loss = task.loss(x, seeded(1))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())
    assert torch.equal(loss, task.loss(x, seeded(1))) and not torch.equal(loss, task.loss(x, seeded(2)))
    with torch.autocast("cpu", torch.bfloat16): coarse = task.loss(x, seeded(1))
    assert abs(coarse.item() - loss.item()) < 0.02 and coarse.dtype == torch.float32


def test_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    task = TNC(RecurrentEncoder(3, 4, 4))
    task.loss(torch.randn(2, 200, 3, generator=seeded(0)), seeded(0))
    simulate_states(3, 5, 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["convolution", "recurrent"])
def test_resumed_training_gives_the_same_weights(tmp_path, kind):
    class Stop(Exception): pass
    def stop(step, task):
        if step == 5: raise Stop
    def train(**more):
        convolution = kind == "convolution"
        encoder = DilatedConvEncoder(3, 4, 4, 1, seed=1) if convolution else RecurrentEncoder(3, 4, 4, seed=1)
        task = TNC(encoder, 20, width=0)
        pretrain(task, list(x), steps=9, batch_size=2, crop=160, learning_rate=1e-2, seed=3, **more)
        return torch.cat([p.detach().flatten() for p in task.parameters()])
    x, _ = simulate_states(3, 8, 0)
    at_once = train()
    with pytest.raises(Stop): train(checkpoint=tmp_path/"training", save_every=3, callbacks=(stop,))
    assert torch.equal(at_once, train(checkpoint=tmp_path/"training", save_every=3))


def test_the_vector_of_a_window_is_that_of_its_last_bar():
    x = torch.randn(2, 160, 3, generator=seeded(0))
    row, first = torch.tensor([[0, 1, 1]]), torch.tensor([[40, 100, 140]])
    for name, encoder in encoders().items():
        got = TNC(encoder, 20).represent(x, row, first)[0].detach()
        places = [*zip(row[0], first[0])]
        if encoder.causal: wanted = np.stack([encoder.encode(x[b].numpy())[t + 19] for b, t in places])
        else: wanted = np.stack([encoder.encode(x[b, t:t + 20].numpy())[-1] for b, t in places])
        np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("crop, window, bars", [(200, None, 25), (1000, None, 29), (200, 50, 50),
                                                (16, None, 2), (8, None, 2)])
def test_window_follows_encoder_and_crop(crop, window, bars):
    task = TNC(DilatedConvEncoder(3, 4, 4, 2), window)   # 29 bars of context
    assert task.bars(crop) == bars
    assert math.isfinite(task.loss(torch.randn(2, crop, 3, generator=seeded(0)), seeded(0)).item())


@pytest.mark.parametrize("wrong", [{"window": 1}, {"w": -0.1}, {"w": math.nan}, {"dropout": 1.0},
                                   {"n_centres": 0}, {"n_samples": 0}, {"width": -1}, {"width": math.nan},
                                   {"apart": -1}, {"negatives": "none"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))): TNC(RecurrentEncoder(3, 4, 4), **wrong)


def test_neighbours_share_no_bar_if_that_is_asked():
    task = TNC(DilatedConvEncoder(1, 2, 2, 0), 50, apart=50, n_centres=10)
    centre, near, *_ = task.draw(torch.zeros(20, 2000, 1), seeded(0))
    inside = (centre > 500) & (centre < 1500)
    assert (near - centre.unsqueeze(-1))[inside].abs().min() >= 50


def test_loss_of_extreme_scores_is_finite_and_symmetric_at_a_half():
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(neighbourhood_loss(huge, huge, 0.05))
    scores = torch.randn(50, generator=seeded(0))
    assert torch.allclose(neighbourhood_loss(huge, scores, 0.5), neighbourhood_loss(huge, -scores, 0.5))


def test_symmetric_discriminator_is_symmetric():
    a, b = torch.randn(2, 7, 4, generator=seeded(0))
    for symmetric in (True, False):
        task = TNC(DilatedConvEncoder(1, 2, 4, 0), symmetric=symmetric).eval()
        assert torch.allclose(task.scores(a, b, seeded(0)), task.scores(b, a, seeded(0))) == symmetric


def test_recurrent_encoder_through_the_doors(tmp_path):
    x = torch.randn(90, 3, generator=seeded(0)).numpy()
    for both in (True, False):
        encoder = RecurrentEncoder(3, 8, 6, bidirectional=both, seed=4)
        encoder.save_pretrained(tmp_path/str(both))
        again = RecurrentEncoder.from_pretrained(tmp_path/str(both))
        np.testing.assert_allclose(again.encode(x), encoder.encode(x), atol=1e-6)
        alone = encoder.encode(np.asarray(x[11:31]))[-1]
        np.testing.assert_allclose(encoder.encode_windows(x, 20)[30], alone, atol=1e-6)
        first, second = (RecurrentEncoder(3, 8, 6, seed=4).out.weight for _ in range(2))
        assert torch.equal(first, second)
    with pytest.raises(InputError, match="not the weights"):
        others = (tmp_path/"False"/"model.safetensors").read_bytes()
        (tmp_path/"True"/"model.safetensors").write_bytes(others)
        Encoder.from_pretrained(tmp_path/"True")
    hidden = torch.ones(1, 90, dtype=torch.bool); hidden[0, 40] = False
    holed = x.copy(); holed[40, 1] = np.nan
    encoder = RecurrentEncoder(3, 8, 6, bidirectional=False)
    unseen = encoder(torch.tensor(x)[None], hidden)[0].detach()
    np.testing.assert_allclose(unseen, encoder.encode(holed), atol=1e-6)   # hidden and missing are one


def test_published_narma_is_a_template():
    x, states = simulate_states(200, 20, 3, template=True)
    segments = x[..., 0].view(200, 20, SEGMENT)
    for state in (1, 3): assert abs(segments[states == state].std(0).mean() - 0.3) < 0.02
    means = [segments[states == state].mean(0) for state in (1, 3)]
    assert (means[0] - means[1]).abs().max() > 0.2


def test_benchmark_is_cut_as_the_paper_cuts_it():
    class Small: forecast_crop = 60
    benchmark = load_states(Small)
    assert benchmark.x.shape == (10, 2000, 3) and benchmark.n_train == 8
    (train, _), (test, states) = benchmark.windows(True), benchmark.windows(False)
    assert train.shape == (320, SEGMENT, 3) and test.shape == (80, SEGMENT, 3)
    assert torch.equal(test[40], benchmark.x[9, :SEGMENT]) and states[41] == benchmark.states[9, 1]
    assert isinstance(benchmark, StateBenchmark)
    assert state_encoder("recurrent", 0).dimensions == state_encoder("convolution", 0).dimensions == 10

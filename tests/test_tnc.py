"""Temporal neighbourhood coding against its formula, on hostile and odd input; resumed trainings."""
import math
import numpy as np, pytest, torch
import torch.nn.functional as F

from sslts_nb.settings import InputError
from sslts_nb.causality import assert_causal
from sslts_nb.contract import Encoder
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.pretrain import pretrain
from sslts_nb.segments import simulate_states
from sslts_nb.tnc import TNC, RecurrentEncoder, neighbourhood_loss
from sslts_nb.states import state_encoder


def seeded(seed): return torch.Generator().manual_seed(seed)


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


def test_encoders_of_the_paper_are_equally_small():
    assert state_encoder("recurrent", 0).dimensions == state_encoder("convolution", 0).dimensions == 10


def loss_by_formula(task, x, draw):
    "The mean of the chapter's equation over centres, neighbours and far windows, as a loop."
    centre, near, far, series = draw
    window, total = task.bars(x.shape[1]), 0.0

    def vector(b, first):
        begin = 0 if task.encoder.causal else first
        return task.encoder(x[b:b + 1, begin:first + window])[0, -1]

    def probability(a, b):
        pair = torch.cat([a*b, (a - b)**2]) if task.symmetric else torch.cat([a, b])
        return torch.sigmoid(task.out(F.relu(task.hidden(pair))))

    for b in range(len(x)):
        for k in range(centre.shape[1]):
            z = vector(b, centre[b, k])
            for m in range(near.shape[2]):
                positive = probability(z, vector(b, near[b, k, m]))
                unlabelled = probability(z, vector(series[b, k, m], far[b, k, m]))
                total -= (positive.log() + task.w*unlabelled.log() + (1 - task.w)*(1 - unlabelled).log())/2
    return total/near.numel()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("options", [{"width": 0}, {"symmetric": False, "w": 0.3, "apart": 30},
                                     {"negatives": "others", "width": 2}])
def test_loss_is_that_of_the_formula(options, causal):
    x, _ = simulate_states(500, 40, 0)
    x, encoder = x[:3, :260], DilatedConvEncoder(3, 4, 5, 2, causal=causal)
    task = TNC(encoder, 30, n_centres=2, n_samples=3, dropout=0.0, **options)
    value = task.loss(x, seeded(5))
    assert abs(value - loss_by_formula(task, x, task.draw(x, seeded(5)))[0]) < 1e-5
    value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    assert encoder.project.weight.grad.abs().max() > 0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_windows_lie_where_they_shall(width):
    long, window = torch.zeros(200, 4000, 1), 50
    task = TNC(DilatedConvEncoder(1, 2, 2, 0), window, width=width, n_centres=8)
    centre, near, far, _ = task.draw(long, seeded(width))
    inside = (centre > 1000) & (centre < 3000)   # here no draw meets an end
    offset = ((near - centre.unsqueeze(-1))[inside]).float()/(width*window)
    found = [offset.mean(), offset.std(), (offset.abs() < 1).float().mean()]
    np.testing.assert_allclose(found, [0.0, 1.0, 0.6827], atol=0.02)
    assert (far - centre.unsqueeze(-1)).abs().min() >= 5*width*window
    for one in (centre, near, far): assert one.min() >= 0 and one.max() <= 4000 - window


def test_far_windows_of_short_series_and_of_others():
    long, encoder = torch.zeros(200, 400, 1), DilatedConvEncoder(1, 2, 2, 0)
    tight = TNC(encoder, 50, width=3, n_centres=8).draw(long, seeded(0))
    assert set(tight[2].unique().tolist()) == {0, 350}   # no room: the outermost windows
    others = TNC(encoder, 50, width=1, negatives="others").draw(torch.zeros(5, 4000, 1), seeded(0))
    assert (others[3] != torch.arange(5).view(5, 1, 1)).all()
    assert set(others[3].unique().tolist()) == set(range(5))
    with pytest.raises(InputError, match="TNC wants a crop of 200 at least"):
        TNC(encoder, 50).loss(long[:, :199], seeded(0))
    with pytest.raises(InputError, match="a batch of one series"):
        TNC(encoder, 50, negatives="others").loss(long[:1], seeded(0))
    with pytest.raises(InputError, match="there are: far, others"): TNC(encoder, 50, negatives="near")
    with pytest.raises(InputError, match="w = 1.5; wanted 0 to 1"): TNC(encoder, 50, w=1.5)


def test_dropout_too_is_drawn_from_the_generator():
    x, _ = simulate_states(4, 8, 0)
    def weights(seed):
        task = TNC(DilatedConvEncoder(3, 4, 4, 1), 20)
        torch.manual_seed(seed)   # has no say
        pretrain(task, [*x], steps=3, batch_size=2, crop=160, learning_rate=1e-2)
        return torch.cat([p.detach().flatten() for p in task.parameters()])
    assert torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent_encoder_on_a_series_with_holes(tmp_path, bidirectional):
    holed = np.random.default_rng(1).standard_normal((600, 4)).astype("float32")
    holed[np.random.default_rng(0).random(600) < 0.05, 2] = np.nan
    net = RecurrentEncoder(4, 16, 6, bidirectional=bidirectional)
    windows = torch.tensor(holed[:400]).unfold(0, 50, 7).transpose(1, 2)
    assert torch.allclose(net.last(windows), net(windows)[:, -1], atol=1e-6)
    net.save_pretrained(tmp_path/"net")
    again = Encoder.from_pretrained(tmp_path/"net")
    np.testing.assert_allclose(again.encode(holed), net.encode(holed), atol=1e-6)
    assert again.causal == net.causal == (not bidirectional)
    missing = np.where(np.isnan(holed).any(1, keepdims=True), np.nan, holed)   # one value missing: the bar is
    np.testing.assert_allclose(net.encode(holed), net.encode(missing), atol=1e-6)
    if bidirectional:
        with pytest.raises(AssertionError, match="changes when the bars after row"):
            assert_causal(net.encode, holed)
        with pytest.raises(Exception, match="needs bars that have not come yet"): net.stream()
        return
    assert_causal(net.encode, holed)
    np.testing.assert_allclose(net.encode(holed, chunk=77), net.encode(holed), atol=1e-5)
    stepper = net.stream(holed[:100])
    steps = np.stack([stepper.step(row) for row in holed[100:]])
    np.testing.assert_allclose(steps, net.encode(holed)[100:], atol=1e-5)


def test_recurrent_encoder_of_no_channel_is_refused():
    with pytest.raises(InputError, match="in_channels = 0"): RecurrentEncoder(0)

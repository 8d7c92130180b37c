"""The pretext tasks of chapters 18: odd shapes, seeds, saving and streaming, and a market without order."""
import math, tomllib
from pathlib import Path

import numpy as np, pytest, torch

from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import load_market, shuffle_bars
from sslts_nb.labels import Dataset
from sslts_nb.evaluate import Row, compare, evaluate, probed
from sslts_nb.baselines import majority
from sslts_nb.contract import Encoder
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.pretrain import pretrain
from sslts_nb.methods import METHODS, make_task, pretrained

use_threads(1)
ROOT = Path(__file__).resolve().parent.parent
# bars of the shortest window
SHORTEST = {"cpc": 6, "simclr": 5, "tstcc": 6, "tfc": 5, "simmtm": 1, "order": 3, "views": 5, "latent": 1}
TASKS, BETWEEN_WINDOWS = [*SHORTEST], {"simclr", "tstcc", "tfc"}


def drawn(*shape, seed=0):
    "Standard normal numbers."
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(key, x, crop=24):
    "The loss of a fresh task, with a gradient for each weight of the encoder that it needs."
    task = make_task(key, x.shape[2], 8, 6, 1, crop, 0)
    found = task.loss(x, torch.Generator().manual_seed(0))
    found.backward()
    gradients = [weight.grad for weight in task.encoder.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients), key
    return found.item()


def test_all_of_them_are_registered():
    points = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]["entry-points"]["sslts_nb.methods"]
    assert {key for key, module in points.items()
            if module in ("sslts_nb.contrasts", "sslts_nb.predictions")} == {*TASKS}
    assert all(METHODS[key].key == key for key in TASKS)


@pytest.mark.parametrize("key", TASKS)
def test_odd_batches(key):
    "One channel, missing bars, a window of nothing else, the shortest window, a batch of one."
    x = drawn(4, 24, 3)
    x[1, 5, 0] = x[2, -3:] = math.nan
    for batch in (drawn(4, 24, 1), x, torch.cat([x, torch.full_like(x[:1], math.nan)])):
        assert math.isfinite(loss(key, batch)), key
    short = SHORTEST[key]
    assert math.isfinite(loss(key, drawn(3, short, 2))), key
    if short > 1:
        with pytest.raises(InputError, match=rf"{short - 1} bars"): loss(key, drawn(3, short - 1, 2))
    if key in BETWEEN_WINDOWS:
        with pytest.raises(InputError, match="a batch of one; wanted two at least"): loss(key, x[:1])
    else: assert math.isfinite(loss(key, x[:1])), key


@pytest.mark.parametrize("key", TASKS)
def test_trained_twice_saved_loaded_and_streamed(key, tmp_path):
    "The same seed gives the same weights, which are no longer the first ones; and they come back."
    series, found = drawn(60, 3).numpy(), []
    series[20] = np.nan
    for _ in range(2):
        task = make_task(key, 3, 8, 6, 1, 24, 0)
        first = task.encoder.encode(series)
        pretrain(task, series, steps=2, batch_size=4, crop=24, learning_rate=1e-2, label="")
        found.append(task.encoder.encode(series))
    np.testing.assert_array_equal(*found)
    assert not np.allclose(first, found[0], atol=1e-4)
    task.encoder.save_pretrained(tmp_path/"model")
    stream = Encoder.from_pretrained(tmp_path/"model").stream()
    np.testing.assert_allclose([stream.step(row) for row in series], found[0], atol=1e-5)


@pytest.mark.parametrize("key", ["cpc", "tstcc"])
def test_who_has_seen_what_comes_next_is_not_asked(key):
    with pytest.raises(InputError, match="wanted a causal one"):
        METHODS[key].task(DilatedConvEncoder(3, 8, 6, 1, causal=False))


@pytest.mark.slow
def test_no_skill_on_shuffled_bars(tmp_path):
    "Under the probe no task beats the majority or predicts the volatility; a row that looks ahead does both."
    settings = load_settings(source="sample", profile="quick", start="2013-01-01", folds=1, steps=10, crop=60,
                             bootstrap=200, encoders=str(tmp_path))
    data = Dataset(shuffle_bars(load_market(settings), seed=0), settings)
    ours = [pretrained(data, key) for key in TASKS]
    def scores(name, metric):
        label = data.label(name)
        ahead = Row("looks ahead", lambda fold, seed: np.nan_to_num(label.values)[:, None])
        models = [majority(), *map(probed, [ahead, *ours])]
        found = evaluate(models, label, data.folds, (0,), data.times, quiet=True)
        return compare(found, metric, settings.bootstrap)
    direction, volatility = scores("direction", "error"), scores("volatility", "squared error")
    assert direction.better_low["looks ahead"] > 0.2 and volatility.score["looks ahead"] > 0.9
    titles = [METHODS[key].title for key in TASKS]
    assert (direction.better_low[titles] <= 0).all(), direction.better_low
    assert (volatility.score[titles] < 0.02).all(), volatility.score

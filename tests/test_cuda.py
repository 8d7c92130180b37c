"""What runs on a CUDA device, beside the same on the processor; skipped, and counted, where there is none."""
import numpy as np, pytest, torch

from sslts_nb.methods import METHODS, make_task
from sslts_nb.pretrain import pretrain
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.ts2vec import hierarchical_contrastive_loss
from sslts_nb.mae import MAE, WindowTransformer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
X = np.random.default_rng(0).standard_normal((600, 4)).astype("float32")


@pytest.mark.parametrize("key", [*METHODS])
def test_a_method_trains_there_and_encodes_as_on_the_processor(key):
    task = make_task(key, 4, 16, 16, 2, 100, 0).cuda()
    crop = 100*METHODS[key].crops
    history = pretrain(task, X, steps=3, batch_size=4, crop=crop, learning_rate=1e-3, label="")
    assert np.isfinite(history.loss).all()
    there = task.encoder.encode(X)
    np.testing.assert_allclose(there, task.encoder.cpu().encode(X), atol=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_of_ts2vec_is_the_same(precision):
    a, b = torch.randn(2, 4, 300, 32, generator=torch.Generator().manual_seed(0))
    wanted = hierarchical_contrastive_loss(a, b)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        found = hierarchical_contrastive_loss(a.cuda(), b.cuda())
    near = 0.05 if precision == "bf16" else 1e-3
    torch.testing.assert_close(found.cpu().float(), wanted, atol=near, rtol=1e-3)


def test_windows_at_their_ends_and_scores_of_the_masked_autoencoder():
    encoder = DilatedConvEncoder(4, 16, 16, 3, seed=0)
    wanted = encoder.encode_windows(X, 50)
    np.testing.assert_allclose(encoder.cuda().encode_windows(X, 50), wanted, atol=2e-3)
    task = MAE(WindowTransformer(4, 16, 16, 2))
    wanted = task.scores(X)
    np.testing.assert_allclose(task.cuda().scores(X), wanted, atol=5e-3)

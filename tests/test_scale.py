"""Two processes against one: the same gradients, whatever the task."""
import subprocess, sys

import numpy as np, pytest

PROGRAM = """
import sys
import numpy as np, torch
from accelerate import Accelerator
from sslts_nb.settings import use_threads
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.pretrain import pretrain
from sslts_nb.ts2vec import TS2Vec
use_threads(1)

class NextBar(torch.nn.Module):
    "A task with weights of its own beside the encoder's."
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(encoder.dimensions, 3)
        torch.nn.init.constant_(self.head.weight, 0.1)
        torch.nn.init.zeros_(self.head.bias)
    def loss(self, x, generator): return (self.head(self.encoder(x)[:, :-1]) - x[:, 1:]).pow(2).mean()

accelerator = Accelerator(cpu=True)
series = np.random.default_rng(0).standard_normal((2000, 3)).astype("float32")
def convolution(): return DilatedConvEncoder(3, 8, 8, 2)
def patches(): return PatchTransformer(3, 8, 8, 1, patch=5, n_patches=3, n_heads=2)
for name, task_of, body, rows in [("TS2Vec", TS2Vec, convolution, 8), ("patches", TS2Vec, patches, 8),
                                  ("head", NextBar, convolution, 8), ("odd", TS2Vec, convolution, 5)]:
    kept, task = [], task_of(body())
    def keep(step, task):
        gradients = [weight.grad for weight in task.parameters() if weight.grad is not None]
        kept.append(torch.cat([gradient.flatten() for gradient in gradients]))
    several = accelerator if accelerator.num_processes > 1 else None
    pretrain(task, series, 3, rows, 60, 1e-9, callbacks=[keep], accelerator=several)
    if accelerator.is_main_process: np.save(f"{sys.argv[1]}-{name}.npy", torch.stack(kept).numpy())
if accelerator.is_main_process: print(accelerator.num_processes, "processes")
# together: who is still in an exchange when the other one has gone is aborted
accelerator.wait_for_everyone()
accelerator.end_training()
"""
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    "The folder in which one process and two have left the gradients of three steps."
    folder = tmp_path_factory.mktemp("gradients")
    (folder/"program.py").write_text(PROGRAM)
    for launcher, n in [([], 1), (LAUNCH, 2)]:
        done = subprocess.run([sys.executable, *launcher, str(folder/"program.py"), str(folder/str(n))],
                              capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"{n} processes" in done.stdout
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", ["TS2Vec", "patches", "head", "odd"])
def test_two_processes_give_the_gradients_of_one(gradients, case):
    "From halves of the batch; also of a task with its own weights, and of five rows, which two cannot share."
    one, two = (np.load(gradients/f"{n}-{case}.npy") for n in (1, 2))
    assert len(one) == 3 and np.abs(one).max() > 1e-3
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6*np.abs(one).max())

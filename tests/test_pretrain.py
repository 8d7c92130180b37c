"""Trainings that are killed and resumed, and models that come from the Hub's local cache."""
import json, random, signal, subprocess, sys, threading
from pathlib import Path

import numpy as np, pytest, torch
from safetensors.torch import load_file
from torch import nn

from sslts_nb.settings import InputError, use_threads
from sslts_nb.checks import stoppable
from sslts_nb.contract import Encoder
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.pretrain import pretrain
from sslts_nb.reuse import kept_name
from sslts_nb.ts2vec import TS2Vec

use_threads(1)
SERIES = np.random.default_rng(0).standard_normal((300, 3)).astype("float32")

# One process that imports once and forks each training: the parent kills it after a random time and lets
# another go on, until one comes to its end.
KILLED = """
import os, random, signal, sys, time
import numpy as np, torch, torch._dynamo   # the optimizer would import it in every child
from sslts_nb.settings import use_threads
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.pretrain import pretrain
from sslts_nb.ts2vec import TS2Vec
use_threads(1)
folder, kills = sys.argv[1], int(sys.argv[2])
series = np.random.default_rng(0).standard_normal((2000, 3)).astype("float32")

def train(name):
    task = TS2Vec(DilatedConvEncoder(3, 4, 4, 1), mask="continuous")
    history = pretrain(task, series, 16, 2, 40, 1e-3, checkpoint=f"{folder}/{name}.safetensors", save_every=1,
                       held_out=series[:500], patience=100)
    weights = b"".join(weight.numpy().tobytes() for weight in task.state_dict().values())
    return weights + history.to_numpy().tobytes()

def child(name):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with open(f"{folder}/{name}.result", "wb") as file: file.write(train(name))
        os._exit(0)
    return pid

begin = time.time(); os.waitpid(child("whole"), 0); span = time.time() - begin
expected, draw, killed, alive = open(f"{folder}/whole.result", "rb").read(), random.Random(0), 0, 0
while killed < kills:
    name = f"run-{killed}"
    for attempt in range(50):
        pid, wait = child(name), span*draw.uniform(0.05, 0.9)
        deadline = time.time() + wait
        while time.time() < deadline and not (done := os.waitpid(pid, os.WNOHANG))[0]: time.sleep(0.002)
        if done[0]:
            assert done[1] == 0, done
            break
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0); killed += 1
        alive += os.path.exists(f"{folder}/{name}.safetensors")
    assert open(f"{folder}/{name}.result", "rb").read() == expected, name
print(killed, alive, span)
"""


@pytest.mark.slow
def test_killed_trainings_end_in_the_same_bits(tmp_path):
    """Thirty kills by signal 9 at random moments, while every step writes a checkpoint: weights, averaged
    weights and losses are those of a training that was left alone."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    killed, alive = map(int, done.stdout.split()[:2])
    print(done.stdout)
    assert killed >= 30 and alive > killed/2, "most were to be killed with a checkpoint to go on from"


@pytest.mark.slow
def test_models_of_the_hub_without_a_network(tmp_path):
    "What was fetched before is found by its name; nothing else is, and nobody is asked."
    encoder = DilatedConvEncoder(3, 8, 8, 1, seed=5)
    folder = tmp_path/"models--somebody--ts2vec-hours"
    encoder.save_pretrained(folder/"snapshots"/"abc")
    (folder/"refs").mkdir()
    (folder/"refs"/"main").write_text("abc")
    program = f"""
import json, socket
def refuse(*given): raise AssertionError("the network was asked")
socket.socket.connect = refuse
import numpy as np
from sslts_nb.settings import InputError
from sslts_nb.contract import Encoder
print(json.dumps(Encoder.from_pretrained("somebody/ts2vec-hours").encode(np.ones((5, 3))).tolist()))
try: Encoder.from_pretrained("somebody/else")
except InputError as error: print(error)
"""
    bare = {"HF_HUB_CACHE": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare,
                          cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    vectors, message = done.stdout.strip().split("\n")
    np.testing.assert_array_equal(np.float32(json.loads(vectors)), encoder.encode(np.ones((5, 3))))
    assert message.startswith("somebody/else: no such folder, and no such model among those fetched from the "
                              "Hub; online=True asks it")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_that_lost_a_file_says_which(tmp_path, name):
    DilatedConvEncoder(3, 8, 8, 1).save_pretrained(tmp_path)
    (tmp_path/name).unlink()
    with pytest.raises(ValueError, match=f"no {name}; wanted a folder that save_pretrained wrote"):
        Encoder.from_pretrained(tmp_path)


# ---- interrupts

def trained(**given):
    "The weights and losses of a small training, as bytes."
    task = TS2Vec(DilatedConvEncoder(3, 4, 4, 1))
    history = pretrain(task, SERIES, 12, 2, 40, 1e-3, label="", **given)
    weights = b"".join(weight.numpy().tobytes() for weight in task.state_dict().values())
    return weights + history.to_numpy().tobytes()


def signals(*numbers, at=4):
    "A callback during which signals come."
    def callback(step, task):
        if step == at:
            for number in numbers: signal.raise_signal(number)
    return callback


@pytest.fixture
def interrupts():
    "SIGINT as Python has it, and as it was afterwards; SIGTERM as an exception, so that the tests go on."
    def terminated(number, frame): raise SystemExit(143)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminated)
    yield {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
    for number, handler in before.items(): signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 4, 11])
def test_an_interrupted_training_is_saved_and_goes_on_to_the_same_bits(tmp_path, interrupts, number, at):
    "In its first minute: no checkpoint is due by itself. Whoever wanted the signal gets it afterwards."
    file, usual = tmp_path/"training", signal.getsignal(number)
    with pytest.raises(interrupts[number]): trained(checkpoint=file, callbacks=(signals(number, at=at),))
    assert len(load_file(file)["history"]) == at + 1 and [*tmp_path.iterdir()] == [file]
    assert signal.getsignal(number) is usual
    assert trained(checkpoint=file) == trained()


def test_a_second_interrupt_ends_at_once(tmp_path, interrupts):
    file = tmp_path/"training"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=file, callbacks=(signals(signal.SIGINT, signal.SIGINT),))
    assert not file.exists()
    with pytest.raises(KeyboardInterrupt): trained(callbacks=(signals(signal.SIGINT),))    # nothing to save


def test_interrupts_where_there_is_no_one_to_ask(tmp_path, interrupts):
    "In another thread, and where signals are ignored, nothing is changed."
    done = []
    def work():
        with stoppable(True) as asked: done.append(asked)
    thread = threading.Thread(target=work)
    thread.start(); thread.join()
    assert done == [[]]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable(True) as asked: signal.raise_signal(signal.SIGINT)
    assert asked == [] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_full_disk_costs_no_training(tmp_path, monkeypatch, capsys):
    "What could not be written is said, nothing is left half-written, and the training goes on."
    def full(tensors, path, notes):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("sslts_nb.checks.save_file", full)
    assert trained(checkpoint=tmp_path/"training", save_every=5) == trained()
    said = capsys.readouterr().out.splitlines()
    steps = [line.split("training: no checkpoint at step ")[1].split()[0] for line in said]
    assert steps == ["5", "10", "12"]
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(OSError, match="No space left"):
        DilatedConvEncoder(3, 4, 4, 1).save_pretrained(tmp_path/"model")
    assert [*tmp_path.iterdir()] == []


# ---- the loop itself

class Pull(nn.Module):
    "One weight, pulled with a force."
    def __init__(self, force):
        super().__init__()
        self.encoder, self.force = DilatedConvEncoder(3, 4, 4, 1), force
        self.weight = nn.Parameter(torch.zeros(2))
    def loss(self, x, generator): return self.force*(self.weight*torch.tensor([3., 4.])).sum()


@pytest.mark.parametrize("steps, share", [(40, 1/2), (20, 1), (100, 1/5)])
def test_the_optimizer_gets_the_schedules_rate(steps, share):
    "The first step of AdamW moves a weight by the rate, whatever its gradient."
    moved = []
    task = Pull(1.)
    pretrain(task, SERIES, steps, 2, 20, 1e-2, label="",
             callbacks=(lambda step, task: moved.append(task.weight.detach().clone()),))
    np.testing.assert_allclose(moved[0], [-1e-2*share]*2, rtol=1e-4)


@pytest.mark.parametrize("force, norm", [(1e4, 1.), (0.02, 0.1)])
def test_gradients_are_clipped_at_one(force, norm):
    norms = []
    pretrain(Pull(force), SERIES, 3, 2, 20, 1e-2, label="",
             callbacks=(lambda step, task: norms.append(float(task.weight.grad.norm())),))
    np.testing.assert_allclose(norms, [norm]*3, rtol=1e-4)


def test_a_tasks_own_options_are_in_the_name():
    usual = {"steps": 3, "batch_size": 2, "crop": 40, "learning_rate": 1e-3}
    options = [{}, {"alpha": 0.2}, {"mask_probability": 0.3}, {"mask": "continuous"}, {"temperature": 0.5},
               {"cosine": True}]
    names = [kept_name(TS2Vec(DilatedConvEncoder(3, 4, 4, 1), **given), SERIES, **usual) for given in options]
    assert len({*names}) == len(options)
    still = [kept_name(Pull(force), SERIES, **usual) for force in (1., 1e5)]     # both are clipped
    assert still[0] != still[1]


# ---- models that somebody changed

@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_changed_model_is_the_same_network_or_one_line(tmp_path, part):
    "Five hundred changes each: bytes of either file, options of the configuration."
    draw = random.Random(part)
    made = [DilatedConvEncoder(3, 4, 4, 1, causal=False), PatchTransformer(3, 4, 4, 1, n_heads=2)][part % 2]
    made.save_pretrained(tmp_path)
    wanted, files = made.encode(SERIES[:30]), ("config.json", "model.safetensors")
    whole = {name: (tmp_path/name).read_bytes() for name in files}
    values = [0, -1, 1, 10**9, 2**70, 1.5, "a", None, True, False, [], {}, float("nan"), 10_000, 100]
    refused = 0
    for _ in range(500):
        for name in files: (tmp_path/name).write_bytes(whole[name])
        name = files[part//2] if draw.random() < 0.9 else draw.choice(files)
        content = bytearray(whole[name])
        if name == "config.json" and draw.random() < 0.5:
            config = json.loads(content)
            config[draw.choice([*config, "more"])] = draw.choice(values)
            if draw.random() < 0.2: del config[draw.choice([*config])]
            content = json.dumps(config).encode()
        else:
            for _ in range(draw.choice([1, 1, 1, 5])):
                at = draw.randrange(len(content))
                if draw.random() < 0.7: content[at] = draw.randrange(256)
                elif draw.random() < 0.5: del content[at:at + draw.choice([1, 8, 10**6])]
                else: content[at:at] = bytes(draw.choice([1, 7]))
                if not content: break
        (tmp_path/name).write_bytes(content)
        try: again = Encoder.from_pretrained(tmp_path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
        else: assert np.array_equal(again.encode(SERIES[:30]), wanted), (name, bytes(content)[:2000])
    assert refused > 300

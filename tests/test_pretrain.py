"""Trainings that are killed and resumed, and models that come from the Hub's local cache."""
import json, subprocess, sys
from pathlib import Path

import numpy as np, pytest

from sslts_nb.encoders import DilatedConvEncoder, Encoder

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
from sslts_nb.encoders import Encoder
print(json.dumps(Encoder.from_pretrained("somebody/ts2vec-hours").encode(np.ones((5, 3))).tolist()))
try: Encoder.from_pretrained("somebody/else")
except InputError as error: print(error)
"""
    environment = {"HF_HUB_CACHE": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment,
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

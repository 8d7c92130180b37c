"""The name of a kept encoder says what its training does, not what its source looks like."""
import json, os, shutil
from pathlib import Path

import pytest
import fresh

ROOT = Path(__file__).resolve().parent.parent
NAMES = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import sslts_nb
from sslts_nb.settings import use_threads
from sslts_nb.reuse import kept_name
from sslts_nb.methods import METHODS, make_task
assert Path(sslts_nb.__file__).parent.parent == Path(sys.argv[1]), sslts_nb.__file__
use_threads(1)
x = np.random.default_rng(0).standard_normal((400, 4)).astype("float32")
of = SimpleNamespace(steps=10, batch_size=4, crop=40, learning_rate=1e-3)
task = lambda key: make_task(key, 4, 8, 8, 2, 40, 0)
print(json.dumps({key: kept_name(task(key), x, **METHODS[key].training(of), seed=0) for key in METHODS}))
"""
OURS = {"ts2vec", "tnc", "cost", "mae", "future", "cpc", "simclr", "tstcc", "tfc", "simmtm", "order", "views",
        "latent"}

# what is changed: (module, what stands there, what shall, the methods whose names change)
CHANGES = {
    "ts2vec's loss at one scale, which others borrow": (
        "ts2vec", "return _Contrast.apply(", "return 0.9*_Contrast.apply(",
        {"ts2vec", "cost", "simclr", "tstcc", "tfc"}),
    "ts2vec's sum over the scales": (
        "ts2vec", "alpha*contrastive_loss(first.transpose", "0.9*alpha*contrastive_loss(first.transpose",
        {"ts2vec"}),
    "CoST's loss of the trend": (
        "cost", "return F.cross_entropy(scores,", "return 0.9*F.cross_entropy(scores,", {"cost"}),
    "CoST's loss of the season": (
        "cost", "return contrastive_loss(*polar", "return 0.9*contrastive_loss(*polar", {"cost"}),
    "the share of the warm-up": ("pretrain", "math.ceil(steps/20)", "math.ceil(steps/5)", OURS)}


def copied(folder):
    "The package and the names of its notebooks, in `folder`."
    shutil.copytree(ROOT/"sslts_nb", folder/"sslts_nb", ignore=shutil.ignore_patterns("__pycache__"))
    (folder/"nbs").mkdir()
    for path in (ROOT/"nbs").glob("*.ipynb"): shutil.copy(path, folder/"nbs")
    return folder


def names(folder):
    "The name of every method's kept encoder, as the package in `folder` gives it."
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = fresh.run(NAMES, folder, folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {key: found[key] for key in OURS}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    "The names that the package gives as it is."
    found = names(copied(tmp_path_factory.mktemp("before")))
    assert len({*found.values()}) == len(OURS)
    return found


@pytest.mark.slow
def test_comments_and_notebooks_change_no_name(tmp_path, before):
    "A comment in every module and every cell, a blank line, and a notebook of another name, exported again."
    folder = copied(tmp_path)
    (folder/"nbs"/"14_ts2vec.ipynb").rename(folder/"nbs"/"14_contrast.ipynb")
    modules = [*(folder/"sslts_nb").glob("*.py")]
    for path in modules:
        text = path.read_text().replace("14_ts2vec.ipynb", "14_contrast.ipynb")
        path.write_text(text.replace("\n# %%", "\n# of no consequence\n\n# %%") + "\n# nor is this\n")
    assert "14_contrast" in (folder/"sslts_nb"/"ts2vec.py").read_text() and len(modules) > 20
    assert names(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_step_does_changes_the_names(tmp_path, before, change):
    "Of those methods that do it, and of no other."
    module, there, then, methods = CHANGES[change]
    folder = copied(tmp_path)
    path = folder/"sslts_nb"/f"{module}.py"
    text = path.read_text()
    assert text.count(there) == 1
    path.write_text(text.replace(there, then))
    after = names(folder)
    assert {key for key in OURS if after[key] != before[key]} == methods

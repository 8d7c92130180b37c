"""The register of methods, saved encoders of every kind, and packages that bring their own."""
import json, os, pkgutil, re, subprocess, sys
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
import fresh

import sslts_nb.methods as module
from sslts_nb.settings import InputError, load_settings, use_threads
from sslts_nb.market import load_market
from sslts_nb.labels import Dataset
from sslts_nb.contract import ENCODERS, Encoder
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.methods import METHODS, make_task, pretrained, study_task

use_threads(1)
ROOT = Path(__file__).resolve().parent.parent
OURS = ["ts2vec", "tnc", "cost", "mae", "future", "cpc", "simclr", "tstcc", "tfc", "simmtm", "order", "views",
        "latent"]
BARS = np.random.default_rng(0).standard_normal((80, 4)).astype("float32")
EXTRAS = {"convolution": {"depth": 1, "kernel": 5, "causal": False}, "patches": {"depth": 1, "n_heads": 2},
          "recurrent": {"bidirectional": False},
          "season-trend": {"depth": 1, "length": 32}, "window": {"depth": 1, "length": 32,
                                                                 "normalised": True}}


def python(code, *folders, fails=False):
    "What a fresh process prints that has `folders` on its path; its last line of error if it has to fail."
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", str(ROOT))])
    done = fresh.run(code, environment=os.environ | {"PYTHONPATH": path})
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr.strip().splitlines()[-1] if fails else done.stdout


def package(folder, name, modules, **groups):
    "A package that is installed in `folder`, made on the spot: its modules and its entry points."
    for module, text in modules.items(): (folder/f"{module}.py").write_text(text)
    about = folder/f"{name}-1.dist-info"
    about.mkdir()
    (about/"METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"[sslts_nb.{group}]\n" + "\n".join(f"{key} = {value}" for key, value in points.items())
             for group, points in groups.items()]
    (about/"entry_points.txt").write_text("\n".join(lines) + "\n")


def test_every_method_is_whole():
    assert {*OURS} <= {*METHODS}
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    for key, method in METHODS.items():
        assert method.key == key and issubclass(method.encoder,
                                                Encoder) and ENCODERS[method.encoder.kind] is method.encoder
        if method.paper: assert callable(pkgutil.resolve_name(method.paper))
    assert {key for key, method in METHODS.items() if method.paper} == {"ts2vec", "tnc", "cost"}


def test_names_are_known_without_importing_a_method():
    code = ("import sys; from sslts_nb.methods import METHODS; print(*METHODS); assert not {'sslts_nb.mae', "
            "'sslts_nb.tnc'} & {*sys.modules}")
    assert {"ts2vec", "mae"} <= {*python(code).split()}


def test_each_fold_and_seed_trains_on_its_own_bars(monkeypatch):
    "What reaches the training: the fold's own rows, and the first weights of the seed that was asked for."
    seen = []
    def record(task, series, folder, **given):
        first = torch.cat([weight.detach().flatten() for weight in task.encoder.parameters()])
        seen.append((series.copy(), first, given["seed"]))
        return pd.DataFrame({"loss": [0.]})
    monkeypatch.setattr(module, "pretrain_once", record)
    settings = load_settings(source="sample", folds=3, hidden=8, dimensions=8, depth=1)
    data = Dataset(load_market(settings), settings)
    row, x = pretrained(data), data.features.shape[1]
    asked = [(fold, seed) for fold in data.folds for seed in (0, 1)]
    vectors = [row.represent(fold, seed) for fold, seed in asked]
    assert len(data.folds) == 3 and len(seen) == len(asked)
    for (fold, seed), (series, first, given), z in zip(asked, seen, vectors):
        np.testing.assert_array_equal(series, data.scaled(fold)[fold.train])
        own = study_task(settings, x, seed).encoder
        assert given == seed
        assert torch.equal(first, torch.cat([weight.detach().flatten() for weight in own.parameters()]))
        np.testing.assert_array_equal(z, own.encode(data.scaled(fold)))
    bare = module.untrained(data)
    first, other = (study_task(settings, x, seed).encoder.encode(data.scaled(fold)) for seed in (0, 1))
    assert not np.array_equal(first, other)
    for seed, wanted in enumerate([first, other]):
        np.testing.assert_array_equal(bare.represent(fold, seed), wanted)


def test_the_strongest_plain_row_stands_beside_the_first_methods_two_rows():
    settings = load_settings(source="sample", hidden=8, dimensions=8, depth=1, methods="mae, ts2vec")
    rows = module.study_rows(Dataset(load_market(settings), settings))
    wanted = ["random weights of MAE + volatility features", "MAE + volatility features"]
    assert [row.name for row in rows][-2:] == wanted and all(row.seeded for row in rows[-2:])


# the scores of the bars that CPC draws are a few megabytes whatever the shape, too much for a small one
SHAPES = [*[(method, 32, 2, 120) for method in OURS if method not in ("cpc", "tstcc")],
          *[(method, 64, 4, 200) for method in OURS]]


@pytest.mark.parametrize("method, hidden, depth, crop", SHAPES)
def test_the_estimate_of_memory_is_near_what_is_kept(method, hidden, depth, crop):
    "Bytes of all that the graph keeps for the way back, weights apart: within a factor of 2.5."
    task, batch = make_task(method, 4, hidden, hidden, depth, crop, 0).train(), 4
    x = torch.randn(batch, METHODS[method].crops*crop, 4, generator=torch.Generator().manual_seed(0))
    weights, sizes = {weight.untyped_storage().data_ptr() for weight in task.parameters()}, {}
    def weigh(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights: sizes[storage.data_ptr()] = storage.nbytes()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
        loss = task.loss(x, torch.Generator().manual_seed(0))
    assert loss.requires_grad
    share = sum(sizes.values())/(4*batch*getattr(task, "passes", 1)*task.encoder.kept(x.shape[1]))
    print(f"{method}: {share:.2f} of the estimate")
    assert 1/2.5 < share < 2.5


# ---- saved encoders

@pytest.mark.slow
def test_every_kind_loads_in_a_fresh_process(tmp_path):
    "Of a process that imports `sslts_nb.encoders` alone; options of numpy's types come back as they were."
    assert {*EXTRAS} == {kind for kind in ENCODERS if ENCODERS[kind].__module__.startswith("sslts_nb.")}
    for kind, extra in EXTRAS.items():
        options = {name: np.bool_(value) if value is True or value is False else np.int64(value) for name,
                   value in extra.items()}
        encoder = ENCODERS[kind](np.int64(4), np.int32(8), np.int64(8), **options)
        encoder.save_pretrained(tmp_path/kind)
        assert json.loads((tmp_path/kind/"config.json").read_text()) == {"kind": kind} | encoder._options
        assert encoder._options | extra == encoder._options and encoder._options["hidden"] == 8
        np.save(tmp_path/f"{kind}.npy", encoder.encode(BARS))
    np.save(tmp_path/"bars.npy", BARS)
    print(python(f"""if True:
        import numpy as np, sys, torch
        import sslts_nb.encoders as alone
        torch.set_num_threads(1)
        assert "sslts_nb.tnc" not in sys.modules
        for kind in {[*EXTRAS]}:
            encoder = alone.Encoder.from_pretrained(f"{tmp_path}/{{kind}}")
            assert encoder.kind == kind
            z = encoder.encode(np.load("{tmp_path}/bars.npy"))
            assert np.array_equal(z, np.load(f"{tmp_path}/{{kind}}.npy")), kind"""))


def test_models_without_a_kind_load_with_a_warning(tmp_path):
    for kind, extra in EXTRAS.items():
        encoder = ENCODERS[kind](4, 8, 8, **extra)
        encoder.save_pretrained(tmp_path/kind)
        (tmp_path/kind/"config.json").write_text(json.dumps(encoder._options))
        with pytest.warns(FutureWarning, match=f"taken for '{kind}'"):
            again = Encoder.from_pretrained(tmp_path/kind)
        assert type(again) is type(encoder)
    (tmp_path/"window"/"config.json").write_text(json.dumps({"in_channels": 4, "width": 8}))
    with pytest.raises(InputError, match="no kind, and not the options of an encoder that was saved without "
                                         "one"):
        Encoder.from_pretrained(tmp_path/"window")


def test_a_refused_save_leaves_what_was_there(tmp_path):
    good, bad = DilatedConvEncoder(4, 8, 8, 1), DilatedConvEncoder(4, 8, 8, 1, seed=1)
    good.save_pretrained(tmp_path/"model")
    before = {path.name: path.read_bytes() for path in (tmp_path/"model").iterdir()}
    bad.causal = False
    with pytest.raises(InputError, match="its causal is False; its options make it True"):
        bad.save_pretrained(tmp_path/"model")
    assert {path.name: path.read_bytes() for path in (tmp_path/"model").iterdir()} == before
    assert [*tmp_path.iterdir()] == [tmp_path/"model"]


# ---- packages of somebody else's

ENCODER = """
import torch
from torch import nn
from sslts_nb.contract import Encoder

class Tail(Encoder):
    "The last bars of each channel, weighted."
    kind, causal = "tail", True
    bounds = {"in_channels": (1, 100), "bars": (1, 50)}
    def __init__(self, in_channels, hidden=1, dimensions=1, depth=1, bars=5, how="mean", seed=0):
        super().__init__()
        self.in_channels = self.dimensions = in_channels
        self.receptive_field, self.how = bars, how
        self.weight = nn.Parameter(torch.ones(bars))
    def forward(self, x, mask=None):
        x, _ = self.shown(x, mask)
        padded = torch.nn.functional.pad(x, (0, 0, self.receptive_field - 1, 0))
        return (padded.unfold(1, self.receptive_field, 1)*self.weight).sum(-1)
"""


@pytest.mark.slow
def test_a_kind_of_encoder_from_outside(tmp_path):
    "It is saved and loaded like our own, within bounds; without its package one line says what is missing."
    site, model = tmp_path/"site", tmp_path/"model"
    site.mkdir()
    package(site, "tails", {"tails": ENCODER}, encoders={"tail": "tails:Tail"})
    python(f"from tails import Tail; Tail(3, bars=7, how='sum').save_pretrained({str(model)!r})", site)
    load = (f"from sslts_nb.encoders import Encoder; e = Encoder.from_pretrained({str(model)!r}); "
            f"print(type(e), e.receptive_field, e.how)")
    assert python(load, site).split()[1:] == ["'tails.Tail'>", "7", "sum"]
    absent = "kind = 'tail', which no installed package has; there are: convolution, patches"
    assert absent in python(load, fails=True)
    options = json.loads((model/"config.json").read_text())
    for wrong, message in [({"bars": 51}, r"bars = 51; wanted \(1, 50\)"), ({"how": {}}, "how = {}"),
                           ({"depth": 10_001}, "depth = 10001; wanted a number up to 10,000")]:
        (model/"config.json").write_text(json.dumps(options | wrong))
        assert re.search(message, python(load, site, fails=True))


def test_a_package_that_comes_later_is_seen(tmp_path, monkeypatch):
    "What is offered is read once, and again where a folder has changed."
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in METHODS
    package(tmp_path, "late", {"late": "a = 1"}, methods={"late": "late"})
    assert "late" in METHODS


@pytest.mark.slow
def test_packages_that_are_broken(tmp_path):
    "One that cannot be imported, one of another name, two of one name: the others go on working."
    package(tmp_path, "broken", {"broken": "import no_such_module"},
            methods={"broken": "broken", "twice": "broken"})
    package(tmp_path, "other", {"other": "a = 1"}, methods={"other": "other", "twice": "other"})
    print(python("""if True:
        from sslts_nb.settings import InputError
        from sslts_nb.methods import METHODS, make_task
        assert {"broken", "other", "twice", "ts2vec"} < {*METHODS} and METHODS["ts2vec"].title == "TS2Vec"
        for name, said in [("broken", "method 'broken' of the package broken: broken cannot be loaded "
                                      "(No module named 'no_such_module')"),
                           ("other", "method 'other' of the package other: other brings none of that name"),
                           ("twice", "method 'twice' is offered by broken and by other; wanted one of them")]:
            try: make_task(name, 3, 8, 8, 1, 20, 0)
            except InputError as error: assert str(error) == said, error
            else: raise AssertionError(name)""", tmp_path))


@pytest.mark.slow
def test_the_example_of_a_method_of_your_own(tmp_path):
    "The text of CONTRIBUTING.md, installed by pip: the one door, the transformer, the checks and commands."
    text = (ROOT/"CONTRIBUTING.md").read_text().split("## A method of your own")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.S))
    assert {*blocks} == {"pyproject.toml", "next_bar.py"} and sum(block.count("\n") + 1
                                                                  for block in blocks.values()) < 40
    project, site = tmp_path/"project", tmp_path/"site"
    project.mkdir()
    for name, block in blocks.items(): (project/name).write_text(block)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--disable-pip-version-check",
                    "--target", str(site), str(project)], check=True, capture_output=True)
    code = """if True:
        import os, sys, numpy as np, torch
        from sslts_nb.settings import use_threads
        from sslts_nb.pretrain import pretrain
        from sslts_nb.methods import METHODS, make_task
        from sslts_nb.representation import Representation
        use_threads(1)
        assert "next" in METHODS and "next_bar" not in sys.modules
        x = np.random.default_rng(0).standard_normal((500, 3)).astype("float32")
        x[1:, 0], x[40] = x[:-1, 1], np.nan
        task = make_task("next", 3, 8, 4, 1, 40, 0)
        losses = pretrain(task, x, steps=60, batch_size=8, crop=40, learning_rate=1e-2, label="").loss
        assert losses.iloc[-10:].mean() < 0.85*losses.iloc[:10].mean(), losses
        represent = Representation("next", hidden=8, dimensions=4, depth=1, steps=2, crop=20)
        assert represent.fit(x).transform(x).shape == (500, 4)
        from sslts_nb.cli import main
        assert main(["run", "--methods", "ts2vec,nxet"]) == 2
        assert main(["pretrain", "NASDAQ", "--method", "next", "--steps", "2"]) == 0"""
    os.environ["SSLTS_RUNS"], before = str(tmp_path/"runs"), os.environ.get("SSLTS_RUNS")
    try: said = python(code, site)
    finally: os.environ.pop("SSLTS_RUNS") if before is None else os.environ.update(SSLTS_RUNS=before)
    (model,) = (tmp_path/"runs").glob("*/model")
    assert f"model: {model}" in said and "- method: next" in (model/"README.md").read_text()

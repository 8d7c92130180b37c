"""Exported files answer as torch does, for every kind of encoder; what does not is not left behind."""
import ast, sys
from pathlib import Path

import numpy as np, onnx, onnxruntime, pytest, torch
from torch import nn

from house import ROOT
from sslts_nb.checks import digest
from sslts_nb.contract import Encoder
from sslts_nb.cost import SeasonalTrendEncoder
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer, pooled
from sslts_nb.export import TOLERANCE, export_onnx, stateful
from sslts_nb.mae import WindowTransformer
from sslts_nb.settings import InputError, use_threads
from sslts_nb.tnc import RecurrentEncoder

use_threads(1)
BARS = np.random.default_rng(5).standard_normal((70, 3)).astype("float32")
BARS[0, 2], BARS[9], BARS[30:34, 1] = np.nan, np.nan, np.nan
KINDS = {
    "convolution": lambda: DilatedConvEncoder(3, 6, 5, 1),
    "two scales, normalised": lambda: DilatedConvEncoder(3, 6, 12, 1, scales=2, normalised=True),
    "no past at all": lambda: DilatedConvEncoder(3, 6, 5, 0, kernel=1),
    "patches": lambda: PatchTransformer(3, 8, 5, 1, patch=4, n_patches=3, n_heads=2),
    "one patch": lambda: PatchTransformer(3, 8, 5, 1, patch=4, n_patches=1, n_heads=2),
    "recurrent": lambda: RecurrentEncoder(3, 6, 5, bidirectional=False),
    "season-trend": lambda: SeasonalTrendEncoder(3, 6, 4, 0, length=21),
    "window": lambda: WindowTransformer(3, 8, 6, 1, length=12, n_heads=2),
    "window, overlapping, normalised": lambda: WindowTransformer(3, 8, 6, 1, 4, 2, 12, 2, normalised=True)}


class Average(Encoder):
    "Somebody else's kind: the mean of each input over the last bars."
    kind, causal = "average", True

    def __init__(self, in_channels: int, bars: int = 10, wrong: float = 0.):
        super().__init__()
        self.in_channels = self.dimensions = in_channels
        self.receptive_field, self.wrong, self.unused = bars, wrong, nn.Parameter(torch.zeros(1))

    def forward(self, x, mask=None):
        means = [pooled(one.nan_to_num().numpy(), self.receptive_field) for one in x]
        return torch.tensor(np.stack(means))

    def stepper(self):
        past = []
        def step(x):
            past.append(x.nan_to_num())
            return torch.stack(past[-self.receptive_field:]).mean(0)
        return step


@stateful.register
def _(encoder: Average):
    return lambda x, memory: memory.mean(x.nan_to_num(), encoder.receptive_field) + encoder.wrong


def files(folder):
    "Sessions and models of an export."
    found = {}
    for name in ("window", "step"):
        path = folder/f"{name}.onnx"
        found[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), onnx.load(path)
    return found


def stepped(session, x):
    "The vectors of a series (T, C), one bar at a time, from zeros."
    state = {one.name: np.zeros([1, *one.shape[1:]], "float32") for one in session.get_inputs()[1:]}
    made = []
    for row in x:
        z, *after = session.run(None, {"x": row[None]} | state)
        state = dict(zip(state, after))
        made.append(z[0])
    return np.stack(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name, tmp_path):
    encoder = KINDS[name]().train()
    apart = export_onnx(encoder, tmp_path/"made")
    assert set(apart) == {"window.onnx", "step.onnx"} and max(apart.values()) <= TOLERANCE
    assert encoder.training and all(weight.requires_grad for weight in encoder.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
    found, wanted = files(tmp_path/"made"), encoder.encode(BARS)
    np.testing.assert_allclose(found["window"][0].run(["z"], {"x": BARS[None]})[0][0], wanted, atol=1e-5)
    np.testing.assert_allclose(stepped(found["step"][0], BARS), wanted, atol=1e-5)
    for form, (_, model) in found.items():
        onnx.checker.check_model(model)
        notes = {one.key: one.value for one in model.metadata_props}
        assert notes["form"] == form and notes["kind"] == encoder.kind
        assert notes["weights_sha256"] == digest(encoder.state_dict())
        raw = (tmp_path/"made"/f"{form}.onnx").read_bytes()
        assert not any(word in raw for word in (b".py", b"site-packages", str(ROOT).encode()))


@pytest.mark.slow
def test_the_same_bytes_again_and_somebody_elses_kind(tmp_path):
    encoder = Average(3)
    for name in ("one", "two"): assert max(export_onnx(encoder, tmp_path/name).values()) <= TOLERANCE
    for name in ("window.onnx", "step.onnx"):
        assert (tmp_path/"one"/name).read_bytes() == (tmp_path/"two"/name).read_bytes()
    made = stepped(files(tmp_path/"one")["step"][0], BARS)
    np.testing.assert_allclose(made, encoder.encode(BARS), atol=1e-5)


@pytest.mark.slow
def test_what_differs_from_torch_is_not_left(tmp_path):
    (tmp_path/"made").mkdir()
    (tmp_path/"made"/"step.onnx").write_text("of before")
    with pytest.raises(InputError, match="window.onnx differs from torch by .*; wanted 1e-05 at most"):
        export_onnx(Average(3, wrong=1e-3), tmp_path/"made")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "step.onnx"]
    assert (tmp_path/"made"/"step.onnx").read_text() == "of before"


@pytest.mark.slow
def test_scaler_of_prices(tmp_path):
    scaler = np.array([60_000., 0., -3.]), np.array([500., 1e-4, 2.])
    raw = BARS*scaler[1] + scaler[0]
    encoder = RecurrentEncoder(3, 6, 5, bidirectional=False)
    export_onnx(encoder, tmp_path/"made", scaler=scaler)
    raw = raw.astype("float32")
    wanted = encoder.encode((raw - scaler[0])/scaler[1])
    np.testing.assert_allclose(stepped(files(tmp_path/"made")["step"][0], raw), wanted, atol=1e-5)


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"wanted: pip install 'sslts_nb\[export\]'"):
        export_onnx(KINDS["convolution"](), tmp_path/"made")


def test_the_example_is_short_and_alone():
    text = Path(ROOT/"examples"/"onnx_forecast.py").read_text(encoding="utf-8")
    names = [alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)
             for alias in node.names]
    assert sorted(names) == ["json", "numpy", "onnxruntime", "sys"] and "from " not in text.split('"""')[2]
    assert len(text.splitlines()) <= 30

"""Inputs that once gave a wrong number, lost work or a traceback (training): given, wanted."""

import json, shutil
from enum import Enum
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from fault_table import Refused, check, fault
from sslts_nb.cli import main
from sslts_nb.checks import check_series, checked, need_memory, task_values, writable_file, writable_folder
from sslts_nb.contract import Encoder
from sslts_nb.cost import CoST, SeasonalTrendEncoder
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer, pooled
from sslts_nb.mae import MAE, WindowTransformer
from sslts_nb.methods import asset_series, make_task
from sslts_nb.pretexts import FutureMoments
from sslts_nb.pretrain import pretrain
from sslts_nb.representation import Representation
from sslts_nb.reuse import kept_name, pretrain_once
from sslts_nb.scale import open_shards, write_shards
from sslts_nb.settings import load_settings, use_threads
from sslts_nb.tnc import TNC, RecurrentEncoder
from sslts_nb.ts2vec import TS2Vec

use_threads(1)
ROWS = []
BARS = np.random.default_rng(0).standard_normal((120, 3)).astype("float32")
HOURS = pd.date_range("2024", periods=120, freq="h", tz="UTC")
FRAME = pd.DataFrame(BARS, HOURS, ["a", "b", "c"])
USUAL = {"steps": 3, "batch_size": 2, "crop": 20, "learning_rate": 1e-3, "label": ""}


def encoder(**options):
    return DilatedConvEncoder(3, 4, 4, 1, **options)


def trained(series=BARS, task=None, **given):
    "The weights of a small training, as bytes."
    task = task or TS2Vec(encoder())
    pretrain(task, series, **(USUAL | given))
    return of_task(task)


def once(folder, series=BARS, **given):
    "The weights of a small training that is kept in `folder`, as bytes."
    task = TS2Vec(encoder())
    pretrain_once(task, series, folder, **(USUAL | given))
    return of_task(task)


def of_task(task):
    return b"".join(weight.numpy().tobytes() for weight in task.state_dict().values())


def saved(folder, model=None):
    "A saved model, and what its configuration says."
    (model or encoder()).save_pretrained(folder / "model")
    return folder / "model", json.loads((folder / "model" / "config.json").read_text())


def reconfigured(folder, **given):
    "Load a model of which somebody edited the configuration; None takes an option out."
    model, config = saved(folder)
    config = {name: value for name, value in (config | given).items() if value is not None}
    (model / "config.json").write_text(json.dumps(config))
    return Encoder.from_pretrained(model)


def same_after_saving(folder, model):
    "Whether a saved encoder comes back as the same network."
    model.save_pretrained(folder / "model")
    again = Encoder.from_pretrained(folder / "model")
    bars = BARS[:, : model.in_channels]
    return bool(np.array_equal(again.encode(bars), model.encode(bars))) and again._options == model._options


# ---- 8: numbers of numpy in configurations


@fault(ROWS, 8, "an encoder of numpy's numbers, saved and loaded", True)
def _(folder):
    return same_after_saving(
        folder,
        WindowTransformer(
            np.int64(3), np.int32(8), np.int16(4), np.uint8(1), length=np.int64(32), normalised=np.bool_(True)
        ),
    )


@fault(ROWS, "8+", "a symmetric encoder of torch's numbers", True)
def _(folder):
    model = DilatedConvEncoder(torch.tensor(3), torch.tensor(4), 4, 1, causal=torch.tensor(False))
    return same_after_saving(folder, model)


class _Odd(DilatedConvEncoder):
    kind = "odd"
    bounds = DilatedConvEncoder.bounds

    def __init__(self, in_channels, more=None):
        super().__init__(in_channels, 4, 4, 1)


@fault(ROWS, "8+", "tuples and numpy's numbers inside lists and lists of lists", True)
def _(folder):
    return same_after_saving(folder, _Odd(3, more=(np.int64(1), [np.float64(0.5), (np.bool_(True),)])))


for _name, _value in [
    ("a path", Path("a")),
    ("an enum", Enum("Mode", "A").A),
    ("a set", {1}),
    ("bytes", b"a"),
    ("a complex number", 1j),
    ("a date", pd.Timestamp("2024")),
    ("an array", np.arange(3)),
    ("a number that is none", np.float32("nan")),
    ("a function", max),
    ("a dict of numpy's keys", {np.int64(1): 2}),
    ("a path in a list", [[Path("a")]]),
]:

    @fault(ROWS, "8+", f"an option that is {_name}", Refused("cannot be saved: .*more"))
    def _(folder, value=_value):
        _Odd(3, more=value).save_pretrained(folder / "model")


@fault(ROWS, "8+", "a checkpoint of a training with numpy's numbers", True)
def _(folder):
    given = {
        "steps": np.int64(3),
        "batch_size": np.int32(2),
        "crop": np.int64(20),
        "learning_rate": np.float64(1e-3),
        "seed": np.uint8(0),
        "balanced": np.bool_(False),
        "save_every": np.int64(1),
    }
    trained(checkpoint=folder / "file", **given)
    return trained(checkpoint=folder / "file") == trained()


@fault(ROWS, "8+", "the name of a kept training with numpy's numbers", True)
def _(folder):
    numbers = {"steps": 3, "batch_size": 2, "crop": 20}
    others = {name: np.int64(value) for name, value in numbers.items()}
    names = [kept_name(TS2Vec(encoder()), BARS, learning_rate=1e-3, **one) for one in (numbers, others)]
    return names[0] == names[1]


@fault(
    ROWS,
    "8+",
    "a task's option of numpy's type, a path or a choice: a part of its name",
    [0.5, "a", "Mode.A"],
)
def _(folder):
    task = nn.Module()
    task.a, task.b, task.c = np.float32(0.5), Path("a"), Enum("Mode", "A").A
    return [dict(task_values(task))[name] for name in "abc"]


# ---- 9: windows that are shorter than others


def fitted():
    return Representation(hidden=4, dimensions=3, depth=1, steps=1, batch_size=2, crop=10).fit(BARS)


def padded(lengths, behind):
    "Windows of these lengths in one array, NaN behind or before them, and the windows themselves."
    parts, out = (
        [BARS[5 * n : 5 * n + length] for n, length in enumerate(lengths)],
        np.full((len(lengths), 40, 3), np.nan),
    )
    for window, part in zip(out, parts):
        window[slice(len(part)) if behind else slice(40 - len(part), 40)] = part
    return out, parts


@fault(ROWS, 9, "windows of unequal length, NaN behind them: the last bar that is there", True)
def _(folder):
    model, (windows, parts) = fitted(), padded([7, 20, 31, 40, 2], behind=True)
    alone = np.stack([model.transform(part)[-1] for part in parts])
    return bool(np.allclose(model.transform(windows), alone, atol=1e-5))


@fault(ROWS, "9+", "the same, with one channel missing in the last bar", True)
def _(folder):
    model, (windows, parts) = fitted(), padded([7, 20], behind=True)
    windows[0, 6, 1] = parts[0][6, 1] = np.nan
    alone = np.stack([model.transform(part)[-1] for part in parts])
    return bool(np.allclose(model.transform(windows), alone, atol=1e-5))


@fault(ROWS, "9+", "a window without a bar", Refused("window 1 of X has no bar"))
def _(folder):
    fitted().transform(np.stack([BARS[:10], BARS[:10] * np.nan]))


@fault(ROWS, "9+", "windows without a bar, all of them", Refused("window 0 of X has no bar"))
def _(folder):
    fitted().transform(np.full((2, 10, 3), np.nan))


@fault(ROWS, "9+", "a window without a bar, fitted", Refused("window 1 of X has no bar"))
def _(folder):
    fitted().fit(np.stack([BARS[:10], BARS[:10] * np.nan]))


@fault(ROWS, 9, "a list of windows of unequal length", Refused("windows of 5 to 9; wanted the same length"))
def _(folder):
    fitted().transform([BARS[:5], BARS[:9]])


@fault(ROWS, "9+", "an array of such objects", Refused("windows of 5 to 9; wanted the same length"))
def _(folder):
    fitted().transform(np.array([BARS[:5], BARS[:9]], dtype=object))


@fault(ROWS, "9+", "windows of unequal channels", Refused("X: no array"))
def _(folder):
    fitted().transform([BARS[:5], BARS[:5, :2]])


@fault(ROWS, "9+", "a frame newest first", Refused("X: row 1 .* is not later"))
def _(folder):
    fitted().transform(FRAME[::-1])


# ---- 21: what cannot be trained

for _name, _value, _said in [
    ("no value at all", BARS * np.nan, "no bar with a value in every channel"),
    ("one channel that is never there", np.where([True, False, True], BARS, np.nan), "no bar with a value"),
    ("one value for ever", BARS * 0 + 7, "no value ever changes"),
    ("one bar", np.where(np.arange(120)[:, None] == 7, BARS, np.nan), "no value ever changes"),
    ("one of two series empty", {"A": BARS, "B": BARS * np.nan}, "B has no bar"),
    (
        "an infinity",
        np.where(np.arange(120)[:, None] == 7, np.inf, BARS),
        "series 0, row 7, column 0 is infinite",
    ),
    ("a number beyond 32 bits", np.where(np.arange(120)[:, None] == 7, 1e300, BARS.astype(float)), "row 7"),
    ("texts", np.full((50, 3), "a"), "not numbers"),
    ("complex numbers", BARS * 1j, "not numbers"),
    ("another number of channels", BARS[:, :2], "series of 2 channels; this encoder wants 3"),
    ("newest first", FRAME[::-1], "row 1 .* is not later"),
    ("a bar twice", pd.concat([FRAME[:50], FRAME[49:]]), "row 50 .* is not later"),
    ("columns in another order", {"A": FRAME, "B": FRAME[["c", "b", "a"]]}, "B has the columns"),
]:

    @fault(
        ROWS,
        21 if "one value" in _name or "no value" in _name else "21+",
        f"pre-training on {_name}",
        Refused(_said),
    )
    def _(folder, value=_value):
        trained(value)


for _name, _value, _said in [
    ("empty", BARS * np.nan, "held_out: series 0 has no bar"),
    ("frozen", BARS * 0, "held_out"),
    ("of other channels", BARS[:, :2], "held_out of 2 channels"),
    ("in another order of columns", FRAME[["b", "a", "c"]], "held_out has the columns"),
]:

    @fault(ROWS, "21+", f"held-out series {_name}", Refused(_said))
    def _(folder, value=_value):
        trained(FRAME, held_out=value)


for _name, _value in [
    ("accumulate", 0),
    ("accumulate", 1.5),
    ("accumulate", True),
    ("steps", -1),
    ("steps", 2.5),
    ("steps", "3"),
    ("batch_size", 0),
    ("batch_size", np.nan),
    ("crop", 0),
    ("crop", -5),
    ("learning_rate", 0),
    ("learning_rate", -1e-3),
    ("learning_rate", np.nan),
    ("learning_rate", np.inf),
    ("learning_rate", True),
    ("seed", -1),
    ("seed", 1.5),
    ("seed", None),
    ("patience", 0),
    ("patience", -1),
    ("save_every", -1),
    ("save_minutes", np.nan),
    ("save_minutes", -1),
    ("balanced", "no"),
    ("balanced", 1),
    ("compiled", "yes"),
]:

    @fault(
        ROWS,
        21 if (_name, _value) == ("accumulate", 0) else "21+",
        f"{_name} = {_value!r}",
        Refused(f"pre-training with {_name} = .*; wanted"),
    )
    def _(folder, given={_name: _value}):
        trained(**given)


for _task, _name, _value in [
    (TS2Vec, "alpha", np.nan),
    (TS2Vec, "alpha", 1.5),
    (TS2Vec, "mask_probability", 1.0),
    (TS2Vec, "temperature", 0),
    (TS2Vec, "cosine", "no"),
    (TS2Vec, "mask", "blocks"),
    (TNC, "w", np.nan),
    (TNC, "n_centres", 2.5),
    (TNC, "window", 1),
    (TNC, "window", 0),
    (TNC, "symmetric", 1),
    (TNC, "dropout", True),
    (CoST, "keys", 0),
    (CoST, "alpha", -1),
    (CoST, "temperature", 0),
    (CoST, "momentum", 1.5),
    (MAE, "ratio", np.nan),
    (MAE, "ratio", True),
    (MAE, "decoder_hidden", 0),
    (MAE, "decoder_depth", -1),
    (MAE, "per_patch", "no"),
    (FutureMoments, "horizons", (1.5,)),
    (FutureMoments, "horizons", (True,)),
    (FutureMoments, "horizons", (5, 5)),
]:

    @fault(ROWS, "21+", f"{_task.__name__} with {_name} = {_value!r}", Refused(_name.removesuffix("s")))
    def _(folder, task=_task, given={_name: _value}):
        own = {CoST: SeasonalTrendEncoder, MAE: WindowTransformer}.get(task, DilatedConvEncoder)
        task(own(3, 4, 4, 1), **given)


for _kind, _name, _value in [
    (DilatedConvEncoder, "hidden", 4.0),
    (DilatedConvEncoder, "depth", -1),
    (DilatedConvEncoder, "kernel", True),
    (DilatedConvEncoder, "causal", "no"),
    (DilatedConvEncoder, "seed", -1),
    (PatchTransformer, "patch", 0),
    (WindowTransformer, "length", 20_000),
    (SeasonalTrendEncoder, "length", np.nan),
    (RecurrentEncoder, "bidirectional", 2),
    (RecurrentEncoder, "hidden", 10**6),
]:

    @fault(
        ROWS,
        "21+",
        f"{_kind.__name__} with {_name} = {_value!r}",
        Refused(f"encoder with {_name} = .*; wanted"),
    )
    def _(folder, kind=_kind, given={_name: _value}):
        kind(3, **given)


def candles(price=None):
    "Candles of a market; of one that never moves at `price`."
    close = 100 + np.arange(120.0) if price is None else np.full(120, price)
    return pd.DataFrame(
        {"open": close, "high": close, "low": close, "close": close, "volume": 1 + np.arange(120.0)}, HOURS
    )


for _price, _said in [(100.0, "B never moves in its 120 bars"), (np.nan, "B has no close")]:

    @fault(ROWS, 21, f"a market whose price is {_price} beside one that moves", Refused(_said))
    def _(folder, price=_price):
        settings = load_settings(crop=20)
        asset_series({"A": candles(), "B": candles(price)}, settings)

# ---- 27 and section 4: places of writing


def file_in_the_way(folder):
    (folder / "file").write_text("")
    return folder / "file"


@fault(
    ROWS, 27, "a file where the folder of encoders should be", Refused("encoders = .*cannot be made a folder")
)
def _(folder):
    once(file_in_the_way(folder) / "encoders")


@fault(
    ROWS,
    27,
    "a folder of the system that takes no files",
    Refused("encoders = /proc: no file can be written there"),
)
def _(folder):
    once("/proc")


for _name, _place in [
    ("a folder", ""),
    ("a file's inside", "file/a"),
    ("a name that is too long", "x" * 300),
    ("a name with NUL", "a\0b"),
]:

    @fault(ROWS, "27+", f"a checkpoint that is {_name}", Refused("checkpoint"))
    def _(folder, place=_place):
        file_in_the_way(folder)
        trained(checkpoint=f"{folder}/{place}")


@fault(
    ROWS,
    "27+",
    "a checkpoint that is a device",
    Refused("checkpoint = /dev/null: there is something that is no file"),
)
def _(folder):
    trained(checkpoint="/dev/null")


@fault(ROWS, "27+", "a disk with too little room", Refused("MB of room; wanted 1,152,921,504,606.8 MB"))
def _(folder):
    writable_folder(folder, "runs", room=2**60 * 2**20 // 10**6)


@fault(ROWS, "27+", "a link that leads in circles", Refused("no file can be written there"))
def _(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    writable_file(folder / "a", "model")


@fault(ROWS, "27+", "a model where a file stands", Refused("folder of a model"))
def _(folder):
    encoder().save_pretrained(file_in_the_way(folder) / "model")


@fault(ROWS, "27+", "shards where a file stands", Refused("shards = "))
def _(folder):
    write_shards(file_in_the_way(folder), {"A": FRAME})


# ---- 29: kept trainings that cannot be relied on


def healed(folder, spoil):
    "Whether a kept training that was spoilt is trained anew, to the same bits, and replaced."
    folder = folder / "kept"
    wanted = once(folder)
    (file,) = folder.glob("*.safetensors")
    whole = file.read_bytes()
    spoil(file)
    return once(folder) == wanted and file.read_bytes() == whole and {*folder.iterdir()} >= {file}


def rewritten(file, change):
    "Write other tensors with a digest of their own, as somebody would who has the code."
    from sslts_nb.checks import digest

    with safe_open(file, "pt") as opened:
        tensors, about = (
            {name: opened.get_tensor(name) for name in opened.keys()},
            json.loads(opened.metadata()["about"]),
        )
    change(tensors, about)
    about["digest"] = digest(dict(sorted(tensors.items())))
    save_file(tensors, file, {"about": json.dumps(about)})


@fault(ROWS, 29, "other valid weights, of another training under this name", True)
def _(folder):
    def spoil(file):
        once(folder / "others", seed=1)
        (other,) = (folder / "others").glob("*.safetensors")
        shutil.copy(other, file)

    return healed(folder, spoil)


@fault(ROWS, "29+", "weights of another shape with a digest of their own", True)
def _(folder):
    def change(tensors, about):
        name = [name for name in tensors if name.endswith("blocks.1.second.weight")][-1]
        tensors[name] = tensors[name][:2].clone()

    return healed(folder, lambda file: rewritten(file, change))


@fault(ROWS, "29+", "one tensor too few", True)
def _(folder):
    return healed(folder, lambda file: rewritten(file, lambda tensors, about: tensors.popitem()))


@fault(ROWS, "29+", "a history with other columns", True)
def _(folder):
    return healed(folder, lambda file: rewritten(file, lambda tensors, about: about.update(columns=["a"])))


for _name, _spoil in [
    ("cut short", lambda file: file.write_bytes(file.read_bytes()[:-7])),
    ("empty", lambda file: file.write_bytes(b"")),
    (
        "one bit of one weight",
        lambda file: (
            file.write_bytes(file.read_bytes()[:-3] + bytes([file.read_bytes()[-3] ^ 1]))
            and None
            or file.write_bytes(
                file.read_bytes()[:-9] + bytes([file.read_bytes()[-9] ^ 4]) + file.read_bytes()[-8:]
            )
        ),
    ),
    ("without its head's notes", lambda file: save_file({"a": torch.ones(2)}, file)),
    ("a text", lambda file: file.write_text("weights")),
    ("a link that leads nowhere", lambda file: (file.unlink(), file.symlink_to(file.parent / "nowhere"))),
]:

    @fault(ROWS, 29 if _name == "cut short" else "29+", f"a kept training that is {_name}", True)
    def _(folder, spoil=_spoil):
        return healed(folder, spoil)


@fault(ROWS, "29+", "an unfinished training that cannot be read", True)
def _(folder):
    wanted = once(folder / "first")
    (file,) = (folder / "first").glob("*.safetensors")
    (folder / "second").mkdir()
    (folder / "second" / f".{file.stem}.unfinished").write_bytes(b"nothing")
    return once(folder / "second") == wanted


@fault(
    ROWS,
    "29+",
    "a folder where a kept training should be",
    Refused("kept pre-training = .*: there is something that is no file"),
)
def _(folder):
    once(folder)
    (file,) = folder.glob("*.safetensors")
    file.unlink()
    file.mkdir()
    once(folder)


@fault(ROWS, "29+", "a link where a part of a file is written: what it leads to stays", "untouched")
def _(folder):
    import os

    once(folder / "kept")
    (file,) = (folder / "kept").glob("*.safetensors")
    file.unlink()
    (folder / "mine").write_text("untouched")
    for name in (f".{file.name}.part", f".{file.name[:100]}.{os.getpid()}.part"):
        (folder / "kept" / name).symlink_to(folder / "mine")
    once(folder / "kept")
    return (folder / "mine").read_text()


def changed_checkpoint(folder, at):
    "Go on from a checkpoint of which one byte was changed."
    trained(checkpoint=folder / "file")
    content = bytearray((folder / "file").read_bytes())
    at = content.index(b"step") + 9 if at == "step" else at
    content[at] ^= 1
    (folder / "file").write_bytes(content)
    trained(checkpoint=folder / "file")


@fault(
    ROWS,
    "29+",
    "a checkpoint with one bit changed",
    Refused("no checkpoint of a training .*digest.*delete it"),
)
def _(folder):
    changed_checkpoint(folder, -5)


@fault(ROWS, "29+", "a checkpoint with another number of steps", Refused("no checkpoint of a training"))
def _(folder):
    changed_checkpoint(folder, "step")


@fault(
    ROWS,
    "29+",
    "a checkpoint of the same shapes and another network",
    Refused("of another training, encoder = "),
)
def _(folder):
    trained(checkpoint=folder / "file")
    trained(task=TS2Vec(encoder(causal=False)), checkpoint=folder / "file")


# ---- section 4: a rate that is too high, sizes that are too large, processes that are none


class _Steep(nn.Module):
    "A loss that is no number from the second step on."

    def __init__(self):
        super().__init__()
        self.encoder = encoder()

    def loss(self, x, generator):
        return (self.encoder(x).square().mean() + 1).log() * (1e38 if generator.initial_seed() else 1) * 10


@fault(
    ROWS,
    "4",
    "a rate that is too high",
    Refused("^steep: the .* is (inf|nan) at step 0; the batch: .*a smaller learning_rate than 1 may"),
)
def _(folder):
    trained(task=_Steep(), learning_rate=1, seed=1, label="steep")


@fault(
    ROWS,
    "4+",
    "a batch of a thousand windows of which no number comes",
    Refused("series 0 from row .* and 997 more; a smaller"),
)
def _(folder):
    trained(task=_Steep(), learning_rate=1, seed=1, batch_size=1000)


for _name, _given in [
    ("batch and crop", {"batch_size": 65_536, "crop": 100}),
    ("a batch", {"batch_size": 10**9}),
]:

    @fault(
        ROWS,
        "4",
        f"memory for {_name}",
        Refused(r"batch_size = \d+, crop = \d+, [\d,]+ weights: about [\d,.]+ GB of memory, and [\d,.]+ GB"),
    )
    def _(folder, given=_given):
        trained(task=TS2Vec(DilatedConvEncoder(3, 256, 256, 10)), **given)


@fault(
    ROWS,
    "4",
    "memory for a width of 10,000 and a depth of 16",
    Refused("hidden = 10000, .*depth = 16 has [0-9,]+ weights: about [0-9,.]+ GB of memory, and"),
)
def _(folder):
    make_task("ts2vec", 3, 10_000, 10_000, 16, 200, 0)


@fault(ROWS, "4+", "memory for windows", Refused("windows of 2000000000 bars: about .* GB of memory, and"))
def _(folder):
    encoder().encode_windows(BARS, 2_000_000_000)


@fault(ROWS, "4+", "memory without a name of a device", None)
def _(folder):
    return need_memory(0, "nothing")


for _value in (0, -1, 2.5, True, None, "3", np.nan):

    @fault(
        ROWS,
        "4" if _value == 0 else "4+",
        f"windows of {_value!r} bars",
        Refused("windows with length = .*; wanted"),
    )
    def _(folder, value=_value):
        encoder().encode_windows(BARS, value)


@fault(ROWS, "4+", "windows, none at once", Refused("windows with batch = 0; wanted at least 1"))
def _(folder):
    encoder().encode_windows(BARS, 5, 0)


@fault(ROWS, "4+", "pieces of no bars", Refused("encode with chunk = 0; wanted at least 1"))
def _(folder):
    encoder().encode(BARS, 0)


@fault(ROWS, "4+", "a mean over no bars", Refused("pooled with bars = 0; wanted at least 1"))
def _(folder):
    pooled(BARS, 0)


for _name, _value in [
    ("texts", np.full((5, 3), "a")),
    ("complex numbers", BARS * 1j),
    ("rows of unequal length", [[1, 2, 3], [1, 2]]),
]:

    @fault(ROWS, "4+", f"features that are {_name}", Refused("features: not numbers"))
    def _(folder, value=_value):
        encoder().encode(value)


@fault(ROWS, "4+", "features newest first", Refused("features: row 1 .* is not later"))
def _(folder):
    encoder().encode(FRAME[::-1])


@fault(ROWS, "4+", "a bar that is a text", Refused("a bar: not numbers"))
def _(folder):
    encoder().stream().step(["a", "b", "c"])


@fault(ROWS, "4+", "a history newest first", Refused("history: row 1 .* is not later"))
def _(folder):
    encoder().stream(FRAME[::-1])


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["abc", "", "0", "-2", "1.5", "²", " "])
def test_a_number_of_processes_that_is_none(monkeypatch, capsys, tmp_path, name, value):
    "Section 4: the command says which variable is wrong, before it looks for candles."
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSLTS_RUNS", str(tmp_path))
    assert main(["pretrain", "NASDAQ", "--source", "sample", "--steps", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sslts: environment variable {name} = ") and said.count("\n") == 1


# ---- models

for _name, _given, _said in [
    ("another network of the same weights", {"causal": False}, "do not match their digest"),
    ("an option taken out", {"causal": None}, "do not match their digest"),
    ("another seed", {"seed": 1}, "digest"),
    (
        "positions that fill the memory",
        {
            "kind": "window",
            "hidden": 10_000,
            "length": 10_000,
            "patch": 1,
            "stride": 1,
            "n_heads": 1,
            "kernel": None,
            "causal": None,
            "scales": None,
        },
        "10,000 positions of 10,000 numbers",
    ),
]:

    @fault(ROWS, "4+", f"a configuration with {_name}", Refused(_said))
    def _(folder, given=_given):
        reconfigured(folder, **given)


@fault(
    ROWS,
    "4+",
    "one bit of a saved weight",
    Refused("model.safetensors: not the weights .*do not match their digest"),
)
def _(folder):
    model, _ = saved(folder)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (model / "model.safetensors").write_bytes(content)
    Encoder.from_pretrained(model)


@fault(
    ROWS,
    "4+",
    "a configuration of two megabytes",
    Refused("no configuration of an encoder .more than a megabyte"),
)
def _(folder):
    model, _ = saved(folder)
    (model / "config.json").write_text(" " * 2**21)
    Encoder.from_pretrained(model)


# ---- shards


@fault(ROWS, "4+", "shards of naive times", Refused("series A: DataFrame; wanted a frame with times in UTC"))
def _(folder):
    write_shards(folder, {"A": FRAME.tz_localize(None)})


@fault(ROWS, "4+", "shards of an array", Refused("series A: ndarray; wanted a frame"))
def _(folder):
    write_shards(folder, {"A": BARS})


@fault(ROWS, "4+", "shards newest first", Refused("A: row 1 .* is not later"))
def _(folder):
    write_shards(folder, {"A": FRAME[::-1]})


for _end, _content in [(".npy", b""), (".times.npy", b""), (".npy", b"\x93NUMPY"), (".npy", b"PK\x03\x04")]:

    @fault(ROWS, "4+", f"a shard with {_content!r} as {_end}", Refused("not a shard"))
    def _(folder, end=_end, content=_content):
        write_shards(folder, {"A": FRAME})
        (folder / f"A{end}").write_bytes(content)
        open_shards(folder)


@fault(ROWS, "4+", "a shard whose times do not ascend", Refused("A.npy: row 1 .* is not later"))
def _(folder):
    write_shards(folder, {"A": FRAME})
    np.save(folder / "A.times.npy", FRAME.index[::-1].as_unit("ns").asi8)
    open_shards(folder)


# ---- the checks themselves


@fault(ROWS, "21+", "True for a whole number", Refused("toy with a = True; wanted a whole number from 1"))
def _(folder):
    checked("toy", {"a": True}, {"a": (1, 5)})


@fault(ROWS, "21+", "one series that moves among frozen ones", None)
def _(folder):
    return check_series({"A": torch.zeros(5, 2), "B": torch.arange(10.0).view(5, 2)})


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path):
    check(wanted, act, tmp_path)

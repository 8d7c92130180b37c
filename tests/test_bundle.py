"""A model that leaves the machine: what a bundle says, and what it refuses."""
import json, shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np, pandas as pd, pytest

from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import sample_candles, simulate_market
from sslts_nb.contract import Encoder
from sslts_nb.heads import CLASSES
from sslts_nb.bundle import load_bundle, make_bundle, pretrained, shipped

HOURS = simulate_market(2, end=pd.Timestamp("2024-03-20", tz="UTC")).candles["SIM00"]
WEIGHTS = Path(str(files("sslts_nb")))/"weights"


@pytest.mark.parametrize("name", shipped())
def test_what_is_shipped_is_small_and_says_what_it_is(name):
    size = sum(path.stat().st_size for path in (WEIGHTS/name).rglob("*") if path.is_file())
    bundle = pretrained(name)
    assert size < 300_000
    assert bundle.about["cut_off"] and bundle.about["markets"] and bundle.about["measured"]
    assert all(row["from"] > bundle.about["cut_off"][:10] for row in bundle.about["measured"])
    card = (WEIGHTS/name/"README.md").read_text()
    for word in ("cut_off", "licence", "Measured", "Not advice"): assert word in card


def test_hours_small_answers_for_a_market_that_it_never_saw():
    said = pretrained("hours-small").forecast(HOURS)
    known = said.dropna()
    warm_up = pretrained("hours-small").about["warm_up"]
    assert len(known) == len(said) - warm_up and said.volatility.isna()[:warm_up].all()
    ends = known[["low_90", "low_80", "low_50", "median", "high_50", "high_80", "high_90"]].to_numpy()
    assert (np.diff(ends, axis=1) >= 0).all() and (ends > 0).all() and known.out_of_sample.dtype == bool
    for names in CLASSES.values(): np.testing.assert_allclose(known[[*names]].sum(axis=1), 1, rtol=1e-6)


def test_a_forecast_does_not_hang_on_the_price_or_on_what_comes_later():
    bundle = pretrained("hours-small")
    dear = HOURS.copy()
    dear[["open", "high", "low", "close"]] *= 1000
    dear.attrs = HOURS.attrs
    said = bundle.forecast(HOURS)
    pd.testing.assert_frame_equal(bundle.forecast(dear), said, rtol=1e-3, atol=1e-5)
    pd.testing.assert_frame_equal(bundle.forecast(HOURS.iloc[:1000]), said.iloc[:1000])


def test_weights_of_the_package_are_named_wherever_a_model_is():
    by_name, by_folder = load_bundle("hours-small"), load_bundle(WEIGHTS/"hours-small")
    assert by_name.about == by_folder.about
    encoder = Encoder.from_pretrained("hours-small")
    scaled = by_name.scaled(HOURS)
    np.testing.assert_array_equal(encoder.encode(scaled), by_name.encode(HOURS))
    np.testing.assert_array_equal(Encoder.from_pretrained(WEIGHTS/"hours-small").encode(scaled),
                                  encoder.encode(scaled))


# what is given, and the words of the one line that says what is wrong
BARS = {
    "days": (lambda: sample_candles(), "bars of D; hours-small wants 60"),
    "too few bars": (lambda: HOURS.iloc[:335], "335 bars; hours-small wants more than 335"),
    "no candles": (lambda: pd.DataFrame({"price": [1., 2.]}), "candles"),
    "newest first": (lambda: HOURS.iloc[::-1], "SIM00"),
    "an array": (lambda: HOURS.to_numpy(), "wanted a DataFrame")}


@pytest.mark.parametrize("what", BARS)
def test_bars_that_it_cannot_use(what):
    given, words = BARS[what]
    for ask in ("forecast", "encode", "risk", "quantiles"):
        with pytest.raises(InputError) as caught: getattr(pretrained("hours-small"), ask)(given())
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def copy(tmp_path):
    "A copy of the shipped weights that may be spoilt."
    return Path(shutil.copytree(WEIGHTS/"hours-small", tmp_path/"copy"))


@pytest.mark.parametrize("name", sorted(path.relative_to(WEIGHTS/"hours-small").as_posix()
                                        for path in (WEIGHTS/"hours-small").rglob("*") if path.is_file()))
def test_one_bit_or_one_file_is_seen(copy, name):
    "Of any file, at any place."
    raw = (copy/name).read_bytes()
    for at in np.random.default_rng(0).integers(0, len(raw), 5):
        changed = bytearray(raw)
        changed[at] ^= 1 << int(at % 8)
        (copy/name).write_bytes(changed)
        with pytest.raises(InputError) as caught: load_bundle(copy)
        assert "\n" not in str(caught.value)
    (copy/name).unlink()
    with pytest.raises(InputError): load_bundle(copy)


def small(tmp_path, **options):
    "A bundle of a few steps."
    settings = load_settings(profile="quick", features="market", steps=2, encoders=str(tmp_path/"encoders"))
    return make_bundle({"A": HOURS}, replace(settings, hidden=8, dimensions=6, depth=2), "tiny", **options)


def test_made_twice_it_is_the_same_to_the_bit(tmp_path):
    for name in ("one", "two"): small(tmp_path/name).save(tmp_path/name/"tiny")
    manifests = [json.loads((tmp_path/name/"tiny"/"manifest.json").read_text()) for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_saving_replaces_a_bundle_and_nothing_else(tmp_path):
    bundle = small(tmp_path)
    bundle.save(tmp_path/"tiny")
    bundle.save(tmp_path/"tiny")
    assert load_bundle(tmp_path/"tiny").about == bundle.about
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no bundle"): bundle.save(tmp_path/"mine")
    assert [path.name for path in (tmp_path/"mine").iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoders", "mine", "tiny"]


def test_markets_that_do_not_go_together(tmp_path):
    settings = load_settings(profile="quick", encoders=str(tmp_path))
    with pytest.raises(InputError, match="one interval"):
        make_bundle({"A": HOURS, "B": sample_candles()}, settings)
    with pytest.raises(InputError, match="no markets"): make_bundle({}, settings)
    with pytest.raises(InputError, match="no bars of A"):
        make_bundle({"A": HOURS}, settings, until=pd.Timestamp("2020", tz="UTC"))

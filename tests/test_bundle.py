"""A model that leaves the machine: what a bundle says, and what it refuses."""
import json, shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np, pandas as pd, pytest

from small_bundle import small_bundle
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import sample_candles, simulate_market
from sslts_nb.contract import Encoder
from sslts_nb.bundle import load_bundle, make_bundle, pretrained, shipped
from sslts_nb.bundled import bundle_model, fold_after
from sslts_nb.labels import study_label
from sslts_nb.markets import pooled_examples
from sslts_nb.heads import CLASSES, fit_head, fit_heads, head_inputs, linear_map, running_scaler
from sslts_nb.probes import PROBES, Examples

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


# ---- what a bundle says, against the same computed bar by bar and by name

SMALL = load_bundle(small_bundle())
SAID, BANDS = SMALL.forecast(HOURS), SMALL.quantiles(HOURS)
SHARES = {"low_90": 0.05, "low_80": 0.1, "low_50": 0.25, "median": 0.5, "high_50": 0.75, "high_80": 0.9,
          "high_90": 0.95}


def inputs():
    "(T, F) by name."
    return head_inputs(HOURS, SMALL.encode(HOURS).to_numpy(), SMALL.about["horizon"])


def naive(head):
    "(T, K) of a head, a sum over names."
    given, weights = inputs(), SMALL.arrays[f"{head}_weights"].astype(float)
    return sum(np.outer(given[name], weights[:, at]) for at, name in enumerate(SMALL.about["inputs"])) \
        + SMALL.arrays[f"{head}_offsets"]


def test_bands_move_by_what_was_known_and_no_sooner():
    H, centre = SMALL.about["horizon"], naive("volatility")[:, 0]
    offsets = SMALL.arrays["quantiles"].astype(float)
    step, levels = SMALL.about["rate"]*(offsets[14] - offsets[4]), np.arange(1, 20)/20
    squares, told = np.log(HOURS.close).diff().to_numpy()**2, []
    for t in range(len(HOURS)):
        if t >= H and np.isfinite(centre[t - H]):   # the label of bar t - H ends with bar t
            came = np.log(squares[t - H + 1:t + 1].mean()) - centre[t - H]
            offsets = offsets + step*(levels - (came <= told[t - H]))
        told.append(offsets)
    np.testing.assert_allclose(BANDS, np.sort(centre[:, None] + told, 1), rtol=1e-6)
    for name, share in SHARES.items():
        level = int(round(share*20)) - 1
        np.testing.assert_allclose(SAID[name], np.exp(BANDS[:, level]/2), rtol=1e-6)
    above = np.exp(SMALL.arrays["above_median"])
    assert above > 1   # the mean of a variance lies above its median
    np.testing.assert_allclose((SAID.volatility/SAID["median"])[400:]**2, above[0], rtol=1e-6)


def test_probabilities_and_the_rows_of_evaluate():
    model, at = bundle_model(SMALL, HOURS), np.arange(400, 500)
    for head, names in CLASSES.items():
        odds = np.exp(naive(head))
        np.testing.assert_allclose(SAID[[*names]], odds/odds.sum(1, keepdims=True), rtol=1e-6)
        label = study_label(HOURS, load_settings(), head)
        np.testing.assert_array_equal(model.predict(None, label, 0, at), SAID[[*names]].to_numpy()[at])
    label = study_label(HOURS, load_settings(), "volatility")
    np.testing.assert_allclose(model.predict(None, label, 0, at), BANDS[at, 9], rtol=1e-6)
    assert [[*names] for names in CLASSES.values()] == [["down", "neutral", "up"], ["fall", "rise"],
                                                        ["bear", "sideways", "bull"]]


def test_names_and_not_places():
    turned = {key: one[:, ::-1] if key.endswith("_weights") else one for key, one in SMALL.arrays.items()}
    about = SMALL.about | {"inputs": SMALL.about["inputs"][::-1]}
    pd.testing.assert_frame_equal(replace(SMALL, about=about, arrays=turned).forecast(HOURS), SAID)
    about = SMALL.about | {"channels": SMALL.about["channels"][::-1]}
    assert [*replace(SMALL, about=about).scaled(HOURS)] == about["channels"]


def test_the_cut_off_is_in_the_sample_and_the_next_bar_is_not():
    end = pd.Timestamp(SMALL.about["cut_off"])
    assert SAID.out_of_sample.idxmax() - end == pd.Timedelta("1h") and not SAID.out_of_sample[end]
    fold = fold_after(SMALL, HOURS, 7)
    assert HOURS.index[fold.train[-1]] == end and fold.test[0] == fold.train[-1] + 8


def test_states_say_the_nearest_prototype_of_bars_that_are_known():
    z, found, known = SMALL.encode(HOURS), SMALL.risk(HOURS), SMALL.scaled(HOURS).notna().all(axis=1)
    far = np.linalg.norm(z.to_numpy()[:, None] - SMALL.arrays["prototypes"], axis=2)
    assert (found.prototype == np.where(known, far.argmin(1), -1)).all() and 0 < known.sum() < len(known)
    assert ((found.state == "unknown") == ~known)[:100].all() and known[~known].index[-1] < HOURS.index[300]


def test_what_is_learnt_ends_with_the_markets_and_has_their_labels(tmp_path):
    other = simulate_market(2, end=pd.Timestamp("2024-03-20", tz="UTC")).candles["SIM01"]
    settings = replace(load_settings(profile="quick", features="market", steps=2, encoders=str(tmp_path)),
                       hidden=8, dimensions=6, depth=2)
    until = HOURS.index[1500]
    made = make_bundle({"A": HOURS, "B": other.iloc[:1200]}, settings, until=until)
    again = make_bundle({"A": HOURS.iloc[:1501], "B": other.iloc[:1200]}, settings)
    assert made.about == again.about and made.about["cut_off"] == str(until)
    for key, one in made.arrays.items(): np.testing.assert_array_equal(one, again.arrays[key])
    bars = {"A": HOURS.iloc[:1501]}
    z = made.encode(bars["A"]).to_numpy()
    known = made.scaled(bars["A"]).notna().all(axis=1).to_numpy()
    came = study_label(bars["A"], settings, "volatility").values
    one = make_bundle(bars, settings)
    z = one.encode(bars["A"]).to_numpy()
    nearest = np.linalg.norm(z[:, None] - one.arrays["prototypes"], axis=2).argmin(1)
    calm = pd.Series(came[known]).groupby(nearest[known]).mean()
    assert calm.is_monotonic_increasing and len(calm) > 2
    arrays = fit_heads({"A": head_inputs(bars["A"], z, 5)}, bars, settings)
    for key, numbers in arrays.items(): np.testing.assert_allclose(one.arrays[key], numbers, rtol=1e-6)
    label = study_label(bars["A"], settings, "volatility")
    given = pooled_examples({"A": head_inputs(bars["A"], z, 5).to_numpy()}, {"A": label},
                            {"A": bars["A"].index}, until)
    residuals = fit_head(given)[2]
    mean = np.log(np.exp(residuals).mean())
    np.testing.assert_allclose(arrays["above_median"] + arrays["quantiles"][9], mean, rtol=1e-9)
    assert given.known.max() == 1500 and running_scaler().first == 100   # the last label ends last


def test_residuals_are_what_came_less_what_was_said_and_all_of_a_head_is_tempered():
    draw, bars = np.random.default_rng(0), np.arange(2000)
    z = draw.standard_normal((2000, 1))
    skewed = Examples(z, 2*z[:, 0] + draw.exponential(1, 2000), bars, bars + 1, 0)
    W, b, residuals = fit_head(skewed)
    assert abs(W[0, 0] - 2) < 0.1 and abs(b[0] - 1) < 0.1
    assert residuals.max() > 3 and residuals.min() > -2
    classes = Examples(z, (z[:, 0] + draw.normal(0.5, 1, 2000) > 0).astype(int), bars, bars + 1, 2)
    (W, b, _), (raw, offset) = fit_head(classes), linear_map(PROBES["linear"](classes, 0))
    np.testing.assert_allclose(b*raw[:, 0], offset*W[:, 0], rtol=1e-6, atol=1e-9)

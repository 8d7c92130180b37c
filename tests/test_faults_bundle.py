"""Inputs that once gave a wrong number, lost work or a traceback (bundles): given, wanted."""
import json, os, shutil, threading

import numpy as np, pandas as pd, pytest
from safetensors.numpy import load_file, save_file

from fault_table import Refused, check, fault
from small_bundle import SMALL, small_bundle
from sslts_nb.bundle import FORMAT, load_bundle, make_bundle, pretrained
from sslts_nb.bundled import fold_after, scorecard
from sslts_nb.checks import seal
from sslts_nb.contract import ENCODERS
from sslts_nb.day import answer
from sslts_nb.market import simulate_market
from sslts_nb.settings import InputError, load_settings

ROWS = []
MARKETS = simulate_market(2, end=pd.Timestamp("2024-03-20", tz="UTC")).candles
HOURS, OTHER = MARKETS.values()
PRICES = ["open", "high", "low", "close"]
ASKS = ("forecast", "encode", "risk", "quantiles")


def at(bar, **values):
    "The hours with other numbers at one bar."
    bars = HOURS.copy()
    for name, value in values.items(): bars.iloc[bar, bars.columns.get_loc(name)] = value
    return bars


def given_as(bars, **attrs):
    "The bars with other attrs."
    bars = bars.copy()
    bars.attrs = attrs
    return bars


def of(bars, ask): return getattr(load_bundle(small_bundle()), ask)(bars)


# ---- bars that are no bars are refused by every question, and by training; how they come is no matter

for what, bars, words in [
        ("a close below zero", at(900, close=-1.), "price not above zero in 1 bars, first at 2024-02-07 12"),
        ("an open of zero", at(900, open=0.), "price not above zero"),
        ("a low below zero", at(900, low=-1.), "price not above zero"),
        ("a high below its low", at(900, high=1e-9), "open or close outside low and high"),
        ("a volume below zero", at(900, volume=-5.), "negative volume")]:
    for ask in ASKS:
        @fault(ROWS, 23, f"{what}, {ask}", Refused(f"SIM00 60: {words}"))
        def _(folder, bars=bars, ask=ask): return of(bars, ask)

    @fault(ROWS, 23, f"{what}, make_bundle", Refused(f"A 60: {words}"))
    def _(folder, bars=bars): return made(folder, {"A": bars})

for what, bars in {"New York": HOURS.tz_convert("America/New_York"), "no zone": HOURS.tz_localize(None),
                   "nanoseconds": HOURS.set_axis(HOURS.index.as_unit("ns")), "texts": HOURS.astype(str),
                   "a turnover of NaN": HOURS.assign(turnover=np.nan),
                   "columns turned": HOURS[HOURS.columns[::-1]], "a column of times": HOURS.reset_index(),
                   "no attrs": given_as(HOURS),
                   "attrs of None": given_as(HOURS, symbol=None, interval=None, source=None),
                   "an interval that is a number": given_as(HOURS, interval=60),
                   "tiny prices": HOURS.assign(**HOURS[PRICES]*2.**-27),
                   "huge prices": HOURS.assign(**HOURS[PRICES]*2.**27)}.items():
    for ask in ASKS:
        @fault(ROWS, 23, f"{what}, {ask}", 0)
        def _(folder, bars=bars, ask=ask):
            found, wanted = of(bars, ask), of(HOURS, ask)
            if ask == "quantiles": found, wanted = map(pd.DataFrame, (found, wanted))
            pd.testing.assert_frame_equal(found, wanted, check_names=False)
            return len(found) - len(HOURS)

@fault(ROWS, 23, "a symbol of two lines", Refused("a b: bars of D; small wants 60"))
def _(folder): return of(given_as(HOURS, symbol="a\nb", interval="D"), "risk")

for what, bars in {"no zone": HOURS.tz_localize(None), "no attrs": given_as(HOURS)}.items():
    @fault(ROWS, 23, f"{what}, a fold, a scorecard, a table", [1440, 1500, "2024-03-03", "2024-03-19"])
    def _(folder, bars=bars):
        bundle, settings = load_bundle(small_bundle()), load_settings(profile="quick")
        fold, card = fold_after(bundle, bars, 60), scorecard(bundle, bars, settings)
        assert answer(bundle, bars, "encode").out_of_sample.sum() == len(HOURS) - 1440
        return [len(fold.train), int(fold.test[0]), card["from"], card["to"]]

@fault(ROWS, 23, "a gap below zero", Refused("gap = -1: wanted a whole number, 0 or more"))
def _(folder): return fold_after(load_bundle(small_bundle()), HOURS, -1)


# ---- what no bundle can be made of is refused before it is trained

def made(folder, markets, more=(), **options):
    "A bundle of a few steps."
    settings = load_settings(profile="quick", encoders=str(folder/"encoders"), **SMALL | dict(more))
    return make_bundle(markets, settings, **{"name": "tiny"} | options)

for what, markets, options, words in [
        ("a frame for markets", HOURS, {}, "no markets; wanted candles by symbol"),
        ("a number for a symbol", {1: HOURS}, {}, "symbol = 1; wanted a text of one line"),
        ("a symbol of two lines", {"a\nb": HOURS}, {}, "symbol = .*wanted a text of one line"),
        ("None for candles", {"A": None}, {}, "A has no interval in its attrs"),
        ("no interval", {"A": given_as(HOURS)}, {}, "A has no interval in its attrs"),
        ("numbers for times", {"A": given_as(HOURS.reset_index(drop=True), interval="60")}, {},
         "an index of times"),
        ("newest first", {"A": HOURS.iloc[::-1]}, {}, "A 60.*out of order"),
        ("an end without a zone", {"A": HOURS}, {"until": pd.Timestamp("2024-03-01")},
         "until = .*with a time zone"),
        ("an end that is a text", {"A": HOURS}, {"until": "2024-03-01"},
         "until = .*with a time zone"),
        ("an unknown method", {"A": HOURS}, {"method": "futur"},
         "unknown method 'futur'; did you mean 'future'"),
        ("a rate of 2", {"A": HOURS}, {"rate": 2.}, "rate = 2.0: wanted a number, 0 to 1"),
        ("no name", {"A": HOURS}, {"name": ""}, "name = ''; wanted a text")]:
    @fault(ROWS, 23, f"{what}, before the training", (True, []))
    def _(folder, markets=markets, options=options, words=words):
        check(Refused(words), lambda folder: made(folder, markets, **options), folder)
        return True, [*folder.iterdir()]

@fault(ROWS, 23, "markets in two time zones", "2024-03-19 23:00:00+00:00")
def _(folder):   # as texts 2024-03-19 22:30 comes after 2024-03-19 19:00-04:00, which is later
    markets = {"A": HOURS.tz_convert("America/New_York"), "B": OTHER.iloc[:-1]}
    return made(folder, markets).about["cut_off"]

@fault(ROWS, 23, "a first market shorter than the features", 335)
def _(folder):
    markets = {"B": OTHER.iloc[:200], "A": HOURS}
    return made(folder, markets, {"features": "chapter"}).about["warm_up"]


# ---- folders whose digests are right, and which are no bundle

def loaded(folder, change):
    "What becomes of a copy of the small bundle that was changed and sealed again."
    copy = folder/"copy"
    shutil.copytree(small_bundle(), copy)
    change(copy)
    seal(copy, FORMAT)
    return load_bundle(copy)

def saying(**more):
    def change(copy):
        found = json.loads((copy/"bundle.json").read_text()) | more
        kept = {key: value for key, value in found.items() if value != "left out"}
        (copy/"bundle.json").write_text(json.dumps(kept))
    return change

for name in ("name", "interval", "features", "licence", "cut_off", "channels", "inputs", "watched", "markets",
             "measured", "limits", "rate", "threshold", "half_life", "warm_up", "horizon", "sslts_nb"):
    @fault(ROWS, 23, f"a bundle without {name}", Refused(f"bundle.json: without '{name}'"))
    def _(folder, name=name): return loaded(folder, saying(**{name: "left out"}))

    for value in (None, True, -1, float("nan"), "a\nb", [{}], [1]):
        if name == "measured" and value == [{}]: continue
        @fault(ROWS, 23, f"a bundle whose {name} is {value!r}", Refused(f"{name} = "))
        def _(folder, name=name, value=value): return loaded(folder, saying(**{name: value}))

@fault(ROWS, 23, "an input that comes twice", Refused("inputs = .*wanted a list of different names"))
def _(folder): return loaded(folder, saying(inputs=["z_0"]*len(load_bundle(small_bundle()).about["inputs"])))

def with_numbers(change):
    def apply(copy):
        numbers = load_file(copy/"heads.safetensors")
        numbers |= change(numbers)
        save_file({key: one for key, one in numbers.items() if one is not None}, copy/"heads.safetensors")
    return apply

for what, change, words in [
        ("of double precision", lambda n: {key: one.astype("float64") for key, one in n.items()},
         "float64; wanted"),
        ("of half precision", lambda n: {key: one.astype("float16") for key, one in n.items()},
         "float16; wanted"),
        ("with a NaN", lambda n: {"up_weights": n["up_weights"]*np.float32("nan")},
         "up_weights: wanted finite"),
        ("with quantiles that fall", lambda n: {"quantiles": n["quantiles"][::-1].copy()},
         "quantiles that fall"),
        ("without prototypes", lambda n: {"prototypes": None}, "prototypes missing or unknown"),
        ("with narrow prototypes", lambda n: {"prototypes": n["prototypes"][:, :3].copy()},
         "prototypes .8, 3."),
        ("with no prototype", lambda n: {"prototypes": n["prototypes"][:0]}, "prototypes .0, 6."),
        ("with prototypes of NaN", lambda n: {"prototypes": n["prototypes"]*np.float32("nan")},
         "prototypes: wanted"),
        ("with one more", lambda n: {"more": n["quantiles"]}, "more missing or unknown")]:
    @fault(ROWS, 23, f"numbers {what}", Refused(words))
    def _(folder, change=change): return loaded(folder, with_numbers(change))

def with_encoder(kind, *given, **options):
    def change(copy):
        shutil.rmtree(copy/"encoder")
        ENCODERS[kind](*given, **options).save_pretrained(copy/"encoder")
    return change

for kind, given, options in [("recurrent", (10, 8, 6), {}),
                             ("convolution", (10, 8, 6, 2), {"causal": False})]:
    @fault(ROWS, 23, f"an encoder that looks ahead, {kind}", Refused("an encoder that looks ahead"))
    def _(folder, kind=kind, given=given, options=options):
        return loaded(folder, with_encoder(kind, *given, **options))

@fault(ROWS, 23, "a monitor of other vectors", Refused("a monitor of 64 numbers, an encoder of 6"))
def _(folder):
    pretrained("hours-small").monitor.save(folder/"monitor.json")
    return loaded(folder, lambda copy: shutil.copy(folder/"monitor.json", copy/"monitor.json"))

def linked(copy):
    (copy/"README.md").unlink()
    (copy/"README.md").symlink_to("/dev/zero")

def piped(copy):
    (copy/"README.md").unlink()
    os.mkfifo(copy/"README.md")

for change in (linked, piped):
    @fault(ROWS, 23, f"a file without an end, {change.__name__}", Refused("README.md: cannot be read"))
    def _(folder, change=change): return loaded(folder, change)

for name in (None, 5, b"hours-small", ["a"], "a"*300, "a\nb", "\0"):
    @fault(ROWS, 23, f"a bundle named {name!r:.20}", Refused("names no folder|no such folder"))
    def _(folder, name=name): return load_bundle(name)

    @fault(ROWS, 23, f"weights named {name!r:.20}", Refused("pretrained: unknown name"))
    def _(folder, name=name): return pretrained(name)


# ---- several that write and read at once

@fault(ROWS, 23, "two that save, one that loads", ([], ["copy"]))
def _(folder):
    one, two = load_bundle(small_bundle()), pretrained("hours-small")
    one.save(folder/"copy")
    faults, done, widths = [], threading.Event(), {"small": 6, "hours-small": 64}
    def writing(bundle):
        try: [bundle.save(folder/"copy") for _ in range(6)]
        except Exception as error: faults.append(repr(error))
    def reading():
        while not done.is_set():
            try: found = load_bundle(folder/"copy")
            except InputError: continue   # refused is not wrong
            if len(found.arrays["prototypes"][0]) != widths[found.about["name"]]: faults.append("mixed")
    threads = [threading.Thread(target=writing, args=(bundle,)) for bundle in (one, two)]
    reader = threading.Thread(target=reading)
    for thread in (*threads, reader): thread.start()
    for thread in threads: thread.join()
    done.set(); reader.join()
    load_bundle(folder/"copy")
    return faults, [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("wanted, act", ROWS)
def test_fault(wanted, act, tmp_path): check(wanted, act, tmp_path)

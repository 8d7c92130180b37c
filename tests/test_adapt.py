"""A model is replaced while it runs: killed, torn, raced, broken, and rolled back."""
import os, random, shutil, signal, time

import numpy as np, pandas as pd, pytest

import sslts_nb.adapt
from small_bundle import UNTIL, small_bundle
from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import load_markets
from sslts_nb.checks import sealed
from sslts_nb.bundle import FORMAT, Bundle, load_bundle
from sslts_nb.live import Engine, as_line, bars_in_order, replay
from sslts_nb.adapt import (MARGIN, Shadow, Shelf, adapt, adaptations_due, named_model, not_worse, renew,
                            renewed, shadow_losses, swap_if_not_worse)
from sslts_nb.cli import main

MARKETS = load_markets(load_settings(source="simulated", end="2024-03-20"), ["SIM00", "SIM01"])
SHORT = {symbol: candles.iloc[:60] for symbol, candles in MARKETS.items()}   # no forecast yet


def called(name, **more):
    "The small bundle under another name; its answers are moved, so that two names can be told apart."
    bundle = load_bundle(small_bundle())
    arrays = bundle.arrays | {"volatility_offsets": bundle.arrays["volatility_offsets"] + len(name)/100}
    return Bundle(bundle.encoder, bundle.monitor, arrays, bundle.about | {"name": name} | more)


@pytest.fixture
def shelf(tmp_path):
    "Two bundles, of which `a` decides."
    shelf = Shelf(tmp_path/"shelf")
    for name in ("a", "bb"): shelf.add(called(name))
    shelf.swap("a", "the first")
    return shelf


def chained(swaps):
    "Whether each swap begins where the one before ended."
    return [one["from"] for one in swaps] == ["", *(one["to"] for one in swaps)][:-1]


def child(act, *given):
    "Run in a process of its own; its number."
    if number := os.fork(): return number
    try: act(*given)
    finally: os._exit(0)


def ended(number): return os.waitpid(number, 0)[1]


# Killed

def to_and_fro(folder, swaps=10**6, why="again", trusting=False):
    "Swap as often as asked; trusting, nothing is loaded, so that nearly all time goes into writing."
    if trusting: sslts_nb.adapt._fits = lambda *given: None   # of this process
    shelf = Shelf(folder)
    for _ in range(swaps):
        now = shelf.current()
        try: shelf.swap("bb" if now == "a" else "a", why, {"p": 0.01}, instead_of=now)
        except InputError as error: assert "decides by now" in str(error), error


@pytest.mark.slow
def test_killed_in_a_swap(shelf):
    "At thirty drawn moments; who comes after finds a shelf that works, and the history of what was done."
    draw, before, changes = random.Random(0), shelf.swaps(), 0
    for _ in range(30):
        number = child(to_and_fro, shelf.folder, 10**6, "again", True)
        while len(shelf.swaps()) == len(before): pass
        time.sleep(draw.uniform(0, 0.02))
        os.kill(number, signal.SIGKILL)
        assert os.WIFSIGNALED(ended(number))
        changes += bool([*shelf.folder.glob(".swaps-*")])   # it was killed between writing and placing
        swaps = shelf.swaps()
        assert swaps[:len(before)] == before and chained(swaps)
        assert shelf.bundle().about["name"] == shelf.current()
        before = swaps
    shelf.swap("bb" if shelf.current() == "a" else "a", "afterwards")
    assert changes and not [*shelf.folder.glob(".swaps-*")]


class Killed(BaseException): pass


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize("after", [False, True])
def test_cut_off_at_each_step(shelf, monkeypatch, step, after):
    "Before or after each thing that a swap asks of the disk."
    import builtins
    owner = builtins if step == "open" else os
    act = getattr(owner, step)
    def cut(*given, **named):
        swapping = step == "fsync" or ".swaps-" in str(given[0])
        if swapping and after: act(*given, **named)
        if swapping: raise Killed
        return act(*given, **named)
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, cut)
        with pytest.raises(Killed): shelf.swap("bb", "cut off")
    assert shelf.current() == ("bb" if step == "replace" and after else "a")
    other = "a" if shelf.current() == "bb" else "bb"
    shelf.swap(other, "afterwards")
    assert shelf.current() == other and chained(shelf.swaps())


def add_many(folder):
    for number in range(10**6): Shelf(folder).add(called(f"n{number}"))


@pytest.mark.slow
def test_killed_while_a_bundle_is_put_there(tmp_path):
    draw = random.Random(1)
    for turn in range(6):
        number = child(add_many, tmp_path/f"{turn}")
        while not [*(tmp_path/f"{turn}").glob("*")]: time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.5))
        os.kill(number, signal.SIGKILL)
        ended(number)
        table = Shelf(tmp_path/f"{turn}").table()
        assert (table.whole == "yes").all() and not table.decides.any()
        shelf = Shelf(tmp_path/f"{turn}")
        shelf.add(called("later"))
        shelf.swap("later", "afterwards")
        assert shelf.bundle().about["name"] == "later"


# Two at once

@pytest.mark.slow
def test_two_processes_take_turns(shelf):
    "No swap is lost, none is written over another, and a reader sees a bundle that loads at any time."
    numbers = [child(to_and_fro, shelf.folder, 8, who) for who in ("one", "other")]
    seen = 0
    while any(os.waitpid(number, os.WNOHANG) == (0, 0) for number in numbers[:1]):
        assert shelf.bundle().about["name"] in ("a", "bb")
        seen += 1
    ended(numbers[1])
    swaps = shelf.swaps()
    assert seen and chained(swaps) and {one["why"] for one in swaps[1:]} == {"one", "other"}
    for before, after in zip(swaps, swaps[1:]): assert before["to"] != after["to"]


def test_a_candidate_that_was_judged_against_another_is_refused(shelf):
    shelf.add(called("ccc"))
    shelf.swap("bb", "quicker", instead_of="a")
    with pytest.raises(InputError, match="bb decides by now; wanted a"):
        shelf.swap("ccc", "judged against a", instead_of="a")
    assert shelf.current() == "bb"


# Torn and broken

def test_a_history_of_any_bytes_makes_no_other_bundle_decide(shelf):
    shelf.swap("bb", "to try it")
    whole, draw = shelf.file.read_bytes(), random.Random(2)
    for _ in range(120):
        torn = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])): torn[draw.randrange(len(torn))] = draw.randrange(256)
        shelf.file.write_bytes(torn[:draw.choice([len(torn), draw.randrange(len(torn))])])
        try: assert shelf.bundle().about["name"] in ("a", "bb")
        except InputError as error: assert str(shelf.folder) in str(error)


@pytest.mark.parametrize("damage, told", [
    (lambda folder: (folder/"heads.safetensors").unlink(), "is missing"),
    (lambda folder: (folder/"monitor.json").write_text("{}"), "changed since"),
    (lambda folder: (folder/"manifest.json").write_text("{"), "not what a bundle has"),
    (lambda folder: (folder/"more").write_text("x"), "does not belong here"),
    (lambda folder: shutil.rmtree(folder), "no such folder"),
    (lambda folder: folder.rename(folder.with_name("moved")), "no such folder")])
def test_a_broken_candidate_never_decides(shelf, damage, told):
    damage(shelf.folder/"bb")
    before = shelf.file.read_bytes()
    with pytest.raises(InputError, match=told): shelf.swap("bb", "why not")
    assert shelf.file.read_bytes() == before and shelf.bundle().about["name"] == "a"


def test_what_does_not_fit_is_refused(shelf):
    called("ccc").save(shelf.folder/"under another name")
    called("ccc").save(shelf.folder/"other")
    shelf.add(called("dddd", horizon=7))
    refused = {"other": "calls itself ccc", "dddd": "horizon 7 of dddd, 5 of a", "": "is no name",
               "../a": "is no name", "under another name": "is no name", "a": "decides already"}
    for name, told in refused.items():
        with pytest.raises(InputError, match=told): shelf.swap(name, "why not")
    with pytest.raises(InputError, match="a is taken"): shelf.add(called("a"))
    with pytest.raises(InputError, match="wanted letters"): shelf.add(called("no name"))
    with pytest.raises(InputError, match="wanted finite"): shelf.swap("bb", "why not", {"p": np.nan})
    with pytest.raises(InputError, match="no bundle decides"): Shelf(shelf.folder/"a").current()
    assert shelf.current() == "a" and len(shelf.swaps()) == 1


# Back

def test_the_way_back(shelf):
    shelf.add(called("ccc"))
    for name in ("bb", "ccc"): shelf.swap(name, "better")
    assert [shelf.back(), shelf.back()] == ["bb", "a"]
    with pytest.raises(InputError, match="nobody decided before"): shelf.back()
    shelf.swap("ccc", "again")
    assert shelf.back() == "a" and chained(shelf.swaps()) and len(shelf.swaps()) == 7


def test_no_way_back_to_what_is_broken(shelf):
    shelf.swap("bb", "better")
    (shelf.folder/"a"/"heads.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"): shelf.back()
    assert shelf.bundle().about["name"] == "bb"


def test_whatever_loads_may_replace_what_is_broken(shelf):
    (shelf.folder/"a"/"heads.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"): shelf.bundle()
    assert not shelf.changed()   # it is not asked for at each bar
    shelf.swap("bb", "the other is broken")
    assert shelf.changed() and shelf.bundle().about["name"] == "bb"


# A replay

@pytest.mark.slow
def test_swaps_in_the_middle_of_a_replay(shelf):
    "Each line says which bundle decided, and is what that bundle would have said from the first bar on."
    draw, said, engine = np.random.default_rng(3), [], Engine(shelf.bundle())
    markets = {"SIM00": MARKETS["SIM00"].iloc[:420]}
    bars = bars_in_order(markets)
    at = {5, *draw.choice(np.arange(330, len(bars)), 4, replace=False).tolist()}
    decides, wanted = "a", []
    for number, bar in enumerate(bars):
        if number in at:
            if decides == "bb": shelf.back()
            else: shelf.swap("bb", "in the middle")
            decides = "a" if decides == "bb" else "bb"
        if shelf.changed(): engine = renewed(engine, shelf.bundle(), markets)
        said.append(engine.on_bar(bar["symbol"], bar))
        wanted.append(decides)
    assert [one["bundle"] for one in said] == wanted and {*wanted} == {"a", "bb"}
    alone = {name: [*replay(Engine(called(name)), markets)] for name in ("a", "bb")}
    assert alone["a"][-1]["ready"] and alone["a"][-1]["median"] != alone["bb"][-1]["median"]
    for number, one in enumerate(said): assert as_line(one) == as_line(alone[one["bundle"]][number])


def test_a_past_of_each_market_is_wanted(shelf):
    engine = Engine(shelf.bundle())
    engine.warm_up({symbol: candles.iloc[:5] for symbol, candles in SHORT.items()})
    with pytest.raises(InputError, match="no past of SIM01"):
        renewed(engine, called("bb"), {"SIM00": SHORT["SIM00"]})


# When

def test_when_to_adapt():
    "After drift never sooner than the rest, never twice for one drift, never later than the calendar."
    draw = np.random.default_rng(4)
    for _ in range(200):
        every, rest, sustained = draw.integers(20, 60), draw.integers(1, 15), draw.integers(1, 4)
        drifted = draw.random(200) < draw.random()
        due = np.flatnonzero(adaptations_due(drifted, every, rest, sustained))
        cut = int(draw.integers(1, 200))   # what is due is due whatever comes
        assert (adaptations_due(drifted[:cut], every, rest, sustained) ==
                adaptations_due(drifted, every, rest, sustained)[:cut]).all()
        gaps = np.diff([-1, *due])
        assert (gaps <= every).all() and (gaps >= min(rest, every)).all()
        for before, at, gap in zip([-1, *due], due, gaps):
            if gap == every: continue
            assert drifted[at - sustained + 1:at + 1].all()
            assert before < 0 or not drifted[before + 1:at].all()
    with pytest.raises(InputError, match="rest"): adaptations_due(drifted, 5, 0)


# The shadow

def test_the_shadow_is_not_heard(shelf):
    "The incumbent says what it says without a shadow, and a candidate that fails harms nobody."
    class Broken(Engine):
        def on_bars(self, candles): raise InputError("as always")
    for candidate in (Engine(called("bb")), Broken(called("bb"))):
        shadow = Shadow(Engine(called("a")), candidate)
        said = [shadow.on_bars({bar["symbol"]: bar})[0] for bar in bars_in_order(SHORT)]
        assert [*map(as_line, said)] == [as_line(one) for one in replay(Engine(called("a")), SHORT)]
        assert shadow.old == said
    assert not shadow.new


@pytest.mark.slow
def test_losses_of_the_shadow():
    "As they would be computed from the batch's forecasts, on bars after the cut-off whose outcome is known."
    old, new = called("a"), called("bb")
    markets = {symbol: candles.iloc[1000:] for symbol, candles in MARKETS.items()}
    lines = [[*replay(Engine(one), markets)] for one in (old, new)]
    since, H = pd.Timestamp(UNTIL, tz="UTC"), old.about["horizon"]
    losses = shadow_losses(*lines, markets, H, since)
    wanted = []
    for candles in markets.values():
        square = np.log(candles.close).diff().pow(2)
        came = np.log(square.rolling(H).mean().shift(-H))
        middle = 2*np.log(new.forecast(candles)["median"])
        wanted.append(((middle - came)**2/came.var()).loc[since:].iloc[1:].dropna())
    mean = pd.concat(wanted, axis=1).mean(axis=1)
    np.testing.assert_allclose(losses.new, mean, rtol=1e-3, atol=1e-6)
    assert [*losses.index] == [*mean.index]
    assert losses.index[0] > since and losses.index[-1] == candles.index[-1 - H]
    with pytest.raises(InputError, match="no outcome of both"):
        shadow_losses(*lines, markets, H, candles.index[-1])


def pair(draw, worse, n=720):
    noise = 0.05*np.convolve(draw.normal(size=n + 4), np.ones(5)/np.sqrt(5), "valid")
    return pd.DataFrame({"old": 1., "new": 1 + worse + noise, "inside_old": 0.9, "inside_new": 0.9})


def test_a_worse_candidate_is_accepted_as_rarely_as_stated():
    draw, n = np.random.default_rng(5), 300
    rate = lambda worse: np.mean([not_worse(pair(draw, worse), 5)["accepted"] for _ in range(n)])
    assert rate(MARGIN) < 0.05 + 3*np.sqrt(0.05*0.95/n)
    assert rate(2*MARGIN) < 0.01 < 0.5 < rate(0.)


def test_only_an_accepted_candidate_decides(shelf):
    draw = np.random.default_rng(6)
    assert not swap_if_not_worse(shelf, "bb", "a", pair(draw, 0.02), 5)["accepted"]
    assert shelf.current() == "a"
    narrow = pair(draw, -0.02).assign(inside_new=0.8)
    assert not swap_if_not_worse(shelf, "bb", "a", narrow, 5)["accepted"] and shelf.current() == "a"
    found = swap_if_not_worse(shelf, "bb", "a", pair(draw, -0.02), 5)
    assert found["accepted"] and shelf.current() == "bb"
    assert shelf.swaps()[-1]["numbers"]["p"] == found["p"] < 0.05
    with pytest.raises(InputError, match="bb decides by now"):
        swap_if_not_worse(shelf, "a", "a", pair(draw, -0.02), 5)


# Training on, from the command line as well

QUICK = {"alone": 2, "alone_rate": 0.01, "steps": 3, "learning_rate": 0.001, "recent": 300}


def test_nothing_after_the_cut_off_changes_a_byte(tmp_path):
    "Other bars later, another folder of encoders: the same folder; other bars before: another one."
    until = MARKETS["SIM00"].index[-100]
    def made(name, when):
        changed = {symbol: candles.copy() for symbol, candles in MARKETS.items()}
        for candles in changed.values(): candles.loc[when:, ["open", "high", "low", "close"]] *= 2
        settings = load_settings(encoders=str(tmp_path/f"encoders of {name}"))
        adapt(load_bundle(small_bundle()), changed, settings, "new", until, QUICK).save(tmp_path/name)
        return sealed(tmp_path/name, FORMAT)
    later = until + pd.Timedelta(1, "h")
    first = made("first", MARKETS["SIM00"].index[-1] + pd.Timedelta(1, "h"))
    assert first == made("second", later) != made("third", until)
    about = load_bundle(tmp_path/"first").about
    assert about["cut_off"] == str(until) and about["trained_on_from"] == "small"


def test_bars_that_it_has_seen_and_bars_of_another_length_are_refused():
    bundle, settings = load_bundle(small_bundle()), load_settings()
    until = pd.Timestamp(bundle.about["cut_off"])
    with pytest.raises(InputError, match="has seen those up to"):
        adapt(bundle, MARKETS, settings, "new", until, QUICK)
    days = MARKETS["SIM00"].copy()
    days.attrs["interval"] = "D"
    with pytest.raises(InputError, match="bars of D; small wants 60"):
        adapt(bundle, {"SIM00": days}, settings, "new", None, QUICK)


@pytest.mark.slow
def renewing(tmp_path):
    "A shelf whose model has grown old, and steps on candles up to any bar."
    shelf, small = Shelf(tmp_path/"shelf"), called("small")
    shelf.add(small)
    shelf.swap("small", "the first")
    cut_off = pd.Timestamp(small.about["cut_off"])
    settings = load_settings(encoders=str(tmp_path/"encoders"))
    recipe = {"alone": 2, "alone_rate": 0.01, "steps": 2, "learning_rate": 0.001, "recent": 500}
    def step(bars, judged=60):
        now = {symbol: candles[candles.index <= cut_off + pd.Timedelta(bars, "h")]
               for symbol, candles in MARKETS.items()}
        return renew(shelf, now, settings, 48, judged, 20)
    return shelf, step, recipe


def test_renewed_step_by_step(tmp_path, monkeypatch):
    "Due, trained, waiting, judged once; refused ones are not judged again, and the next one is due later."
    shelf, step, recipe = renewing(tmp_path)
    monkeypatch.setattr(sslts_nb.adapt, "adapt",
                        lambda *given: adapt(*given, recipe=recipe))
    monkeypatch.setattr(sslts_nb.adapt, "_drifts", lambda *given: False)
    assert step(20) == "small decides; the next candidate is due in 28 bars, or when drift lasts"
    first = step(48).split()[0]
    assert {*shelf.table().index} == {"small", first} and shelf.current() == "small"
    assert step(100) == f"{first} is in the shadow of small: 52 of 65 bars" and shelf.current() == "small"
    monkeypatch.setattr(sslts_nb.adapt, "not_worse", lambda *given: not_worse(*given) | {"accepted": False})
    assert step(120).startswith(f"{first} is refused, small goes on: gain")
    assert step(121).split()[0] not in ("small", first)           # another one, trained on 121 bars
    second = max({*shelf.table().index} - {"small"})
    assert second != first and shelf.current() == "small"
    monkeypatch.setattr(sslts_nb.adapt, "not_worse", lambda *given: not_worse(*given) | {"accepted": True})
    assert step(200).startswith(f"{second} decides from now on: gain")
    assert shelf.current() == second and shelf.swaps()[-1]["numbers"]["bars"] == 60
    shelf.back()                                                  # what was taken back is no candidate again
    assert "is trained" in step(201)


def test_drift_asks_for_a_candidate(tmp_path, monkeypatch):
    shelf, step, recipe = renewing(tmp_path)
    monkeypatch.setattr(sslts_nb.adapt, "adapt", lambda *given: adapt(*given, recipe=recipe))
    monkeypatch.setattr(sslts_nb.adapt, "drift_share", lambda *given: pd.Series([0., 1., 1.]))
    assert "is trained" in step(47)                               # a bar before it is due by the calendar


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    "Put on a shelf, trained on, used, gone back from, and named as a model."
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_bundle(), "shelf/small")
    assert main(["models", "shelf", "--use", "small"]) == 0
    train = ["pretrain", "SIM00,SIM01", "--source", "simulated", "--start", "2024-01-01", "--end",
             "2024-03-20", "--from", "shelf", "--encoders", "kept"]
    assert main([*train, "--bundle", "shelf/new"]) == 0
    assert named_model("shelf").about["name"] == "small"
    assert main([*train, "--bundle", "shelf/new"]) == 2 and "given once" in capsys.readouterr().err
    assert main(["models", "shelf", "--use", "new"]) == 0 and named_model("shelf").about["name"] == "new"
    assert main(["models", "shelf", "--back"]) == 0 and named_model("shelf").about["name"] == "small"
    said = capsys.readouterr().out
    assert "nobody -> small: asked for" in said and "new -> small: rolled back" in said
    assert main(["models", "shelf", "--back"]) == 2 and main(["models", "shelf", "--use", "none"]) == 2
    assert main(["models", "nowhere"]) == 2
    capsys.readouterr()
    where = ["--source", "simulated", "--start", "2024-01-01", "--end", "2024-03-05", "--encoders", "kept"]
    assert main(["models", "shelf", "--renew", "SIM00,SIM01", *where]) == 0
    assert "small decides; the next candidate is due in 624 bars" in capsys.readouterr().out
    assert main(["models", "shelf", "--renew", "SIM00", "--back"]) == 2
    assert main(["models", "shelf", "--renew", "SIM00,,"]) == 2

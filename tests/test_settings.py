"""Settings: what is written anywhere arrives with its type and within its bounds, or is refused by name."""
import math, os, subprocess, sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings as how, strategies as st

from sslts_nb.settings import (BOUNDS, GROUPS, InputError, Settings, available_threads, load_settings,
                               read_settings_file)

how.register_profile("book", deadline=None, derandomize=True)  # the same examples everywhere
how.load_profile("book")
ROOT = Path(__file__).resolve().parent.parent
TYPES = {field.name: field.type for field in fields(Settings) if field.name not in ("profile", "folder")}
NUMBERS = sorted(name for name, kind in TYPES.items() if kind in (int, float))
WHOLE = sorted(name for name, kind in TYPES.items() if kind is int)


def within(name, value):
    "Is `value` one that chapter 00 allows?"
    low, high = BOUNDS[name]
    return low <= value <= high


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(), st.floats(), st.text(max_size=8)))
def test_a_number_has_its_type_and_bounds_or_is_refused_by_name(name, value):
    try: settings = load_settings(ROOT/"settings.ini", **{name: value})
    except InputError as error:
        assert name in str(error) and "\n" not in str(error).strip()
        return
    taken = getattr(settings, name)
    assert type(taken) is TYPES[name] and math.isfinite(taken) and within(name, taken)
    if not isinstance(value, str): assert taken == value


SMALL = {"hidden": 8, "dimensions": 8, "depth": 1, "batch_size": 2, "crop": 8}   # so that memory is no reason


@given(st.sampled_from(NUMBERS), st.data())
def test_a_number_within_its_bounds_is_taken_and_the_next_one_is_refused(name, data):
    low, high = BOUNDS[name]
    of, next_to = (st.integers, 1) if TYPES[name] is int else (st.floats, 1e-9)
    value = data.draw(st.one_of(st.sampled_from([low, high]), of(low, high)))
    assert getattr(load_settings(ROOT/"settings.ini", **SMALL | {name: value}), name) == value
    for beyond in (low - next_to, high + next_to):
        with pytest.raises(InputError, match=f"{name} = .*: wanted"):
            load_settings(ROOT/"settings.ini", **SMALL | {name: beyond})


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=5, unique=True))
def test_seeds_survive_being_written(seeds):
    assert load_settings(ROOT/"settings.ini", seeds=seeds).seeds == tuple(seeds)


@given(st.sampled_from(WHOLE), st.integers(0, 8), st.sampled_from(["1.5", "many", "", "nan", "1e3"]))
def test_a_file_is_refused_with_its_line(tmp_path_factory, name, lines_before, text):
    path = tmp_path_factory.mktemp("settings")/"settings.ini"
    (section,) = (group for group, names in GROUPS.items() if name in names)
    path.write_text("# a comment\n"*lines_before + f"[{section}]\n{name} = {text}\n")
    where = rf"settings\.ini line {lines_before + 2}"
    with pytest.raises(InputError, match=rf"{where}: {name} = "): read_settings_file(path)


@given(st.sampled_from(sorted(TYPES)), st.data())
def test_a_typo_is_refused_with_the_name_that_was_meant(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    typo = name[:at] + "q" + name[at:]
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        load_settings(ROOT/"settings.ini", **{typo: "1"})


@given(st.sampled_from(sorted(TYPES)), st.sampled_from(sorted(GROUPS)))
def test_a_setting_stands_in_its_own_section(tmp_path_factory, name, section):
    values = {float: "0.1", int: "4", str: "sample"}
    path = tmp_path_factory.mktemp("settings")/"settings.ini"
    path.write_text(f"[{section}]\n{name} = {values.get(TYPES[name], '1')}\n")
    if name in GROUPS[section]: assert [*read_settings_file(path)[section]] == [name]
    else:
        message = rf"settings\.ini line 2: {name} stands in \[{section}\]; wanted in "
        with pytest.raises(InputError, match=message): read_settings_file(path)


def test_a_file_of_before_says_where_its_settings_went(tmp_path, monkeypatch):
    (tmp_path/"settings.ini").write_text("[data]\nsource = sample\n\n[study]\nhorizon = 10\n")
    monkeypatch.chdir(tmp_path)
    message = r"settings\.ini line 4: \[study\] is now \[encoder\], \[training\], \[judging\], \[costs\]"
    with pytest.raises(InputError, match=message): load_settings()


def test_threads_follow_the_machine_unless_told(tmp_path, monkeypatch):
    for name in ("SSLTS_THREADS", "OMP_NUM_THREADS"): monkeypatch.delenv(name, raising=False)
    assert load_settings(ROOT/"settings.ini").threads == available_threads() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")   # a batch system's word
    assert load_settings(ROOT/"settings.ini").threads == 3
    monkeypatch.setenv("SSLTS_THREADS", "1")     # the book's
    assert load_settings(ROOT/"settings.ini").threads == 1
    assert load_settings(ROOT/"settings.ini", threads="auto").threads == 3


@pytest.mark.parametrize("environment, spin", [
    ({}, "3000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_threads_are_told_to_spin_less_unless_the_caller_says_how(environment, spin):
    told = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    clean = {name: value for name, value in os.environ.items() if name not in told}
    program = "import os, sys, sslts_nb; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", spin]


def test_a_file_of_ones_own_stands_above_the_package_and_below_what_is_given(tmp_path, monkeypatch):
    "Each pair of layers, the higher one last; within a file [quick] is the higher one, in its profile."
    path = tmp_path/"settings.ini"
    path.write_text("[training]\nsteps = 7\nseeds = 5\n[quick]\nseeds = 6\n")
    for name in ("SSLTS_STEPS", "SSLTS_SEEDS", "SSLTS_PROFILE"): monkeypatch.delenv(name, raising=False)
    taken = lambda **given: (load_settings(path, **given).steps, load_settings(path, **given).seeds)
    assert taken() == (7, (6,)) and taken(profile="full") == (7, (5,))
    monkeypatch.setenv("SSLTS_STEPS", "8")
    monkeypatch.setenv("SSLTS_PROFILE", "full")
    assert taken() == (8, (5,)) and taken(steps=9, profile="quick") == (9, (6,))


@pytest.mark.parametrize("name", ["files", "store", "ett", "ucr", "runs", "encoders"])
def test_a_path_begins_in_the_folder_of_its_file(tmp_path, monkeypatch, name):
    for folder in ("file", "elsewhere"): (tmp_path/folder).mkdir()
    section = "training" if name == "encoders" else "data"
    (tmp_path/"file"/"settings.ini").write_text(f"[{section}]\n{name} = a\n")
    monkeypatch.chdir(tmp_path/"elsewhere")
    monkeypatch.delenv("SSLTS_SOURCE", raising=False)
    assert load_settings(tmp_path/"file"/"settings.ini").path(name) == tmp_path.resolve()/"file"/"a"
    assert load_settings("../file/settings.ini").path(name) == tmp_path.resolve()/"file"/"a"


def test_the_package_carries_the_settings_of_the_repository():
    assert (ROOT/"sslts_nb"/"settings.ini").read_bytes() == (ROOT/"settings.ini").read_bytes()


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_every_setting_has_a_value_of_its_type(profile):
    settings = load_settings(ROOT/"settings.ini", profile=profile)
    for name, kind in TYPES.items():
        assert isinstance(getattr(settings, name), kind if isinstance(kind, type) else tuple), name
    of_numbers = {name for name, kind in TYPES.items() if kind in (int, float, tuple[int, ...])}
    assert of_numbers == {*BOUNDS}, "a number without bounds"

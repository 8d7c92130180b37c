"""Settings: what may be written anywhere either arrives with its type and within its bounds, or is refused by name."""
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings as how, strategies as st

from sslts_nb.settings import _BOUNDS, InputError, Settings, load_settings, read_settings_file

how.register_profile("book", deadline=None, derandomize=True)  # the same examples on every machine, however busy
how.load_profile("book")
ROOT = Path(__file__).resolve().parent.parent
TYPES = {field.name: field.type for field in fields(Settings) if field.name not in ("profile", "folder")}
NUMBERS = sorted(name for name, kind in TYPES.items() if kind in (int, float))
WHOLE = sorted(name for name, kind in TYPES.items() if kind is int)


def within(name, value):
    "Is `value` one that chapter 00 allows?"
    low, high = _BOUNDS[name]
    return value >= low and (high is None or value <= high)


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(), st.floats(), st.text(max_size=8)))
def test_a_number_has_its_type_and_bounds_or_is_refused_by_name(name, value):
    try: settings = load_settings(ROOT/"settings.ini", **{name: value})
    except InputError as error:
        assert name in str(error) and "\n" not in str(error).strip()
        return
    taken = getattr(settings, name)
    assert type(taken) is TYPES[name] and math.isfinite(taken) and within(name, taken)
    if not isinstance(value, str): assert taken == value


@given(st.sampled_from(NUMBERS), st.integers(1, 10**6))
def test_a_number_within_its_bounds_is_taken(name, value):
    value = value if TYPES[name] is int else _BOUNDS[name][0] + (_BOUNDS[name][1] - _BOUNDS[name][0])*value/10**6
    if within(name, value): assert getattr(load_settings(ROOT/"settings.ini", **{name: value}), name) == value


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=5, unique=True))
def test_seeds_survive_being_written(seeds):
    assert load_settings(ROOT/"settings.ini", seeds=seeds).seeds == tuple(seeds)


@given(st.sampled_from(WHOLE), st.integers(0, 8), st.sampled_from(["1.5", "many", "", "nan", "1e3"]))
def test_a_file_is_refused_with_its_line(tmp_path_factory, name, lines_before, text):
    path = tmp_path_factory.mktemp("settings")/"settings.ini"
    path.write_text("# a comment\n"*lines_before + f"[study]\n{name} = {text}\n")
    with pytest.raises(InputError, match=rf"settings\.ini line {lines_before + 2}: {name} = "): read_settings_file(path)


@given(st.sampled_from(sorted(TYPES)), st.data())
def test_a_typo_is_refused_with_the_name_that_was_meant(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    typo = name[:at] + "q" + name[at:]
    with pytest.raises(InputError, match=f"did you mean '{name}'"): load_settings(ROOT/"settings.ini", **{typo: "1"})


def test_the_package_carries_the_settings_of_the_repository():
    assert (ROOT/"sslts_nb"/"settings.ini").read_bytes() == (ROOT/"settings.ini").read_bytes()


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_every_setting_has_a_value_of_its_type(profile):
    settings = load_settings(ROOT/"settings.ini", profile=profile)
    for name, kind in TYPES.items(): assert isinstance(getattr(settings, name), kind if isinstance(kind, type) else tuple), name
    assert set(NUMBERS) == set(_BOUNDS), "a number without bounds"

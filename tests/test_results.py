"""Committed figures are of today: the profile full, recorded files, the settings of settings.ini."""
import ast, json, os, re
from dataclasses import asdict

import nbformat, pytest
from house import ROOT, notebooks
from sslts_nb.settings import load_settings
from sslts_nb.results import read_results

RECORDED = sorted((ROOT/"nbs"/"results").glob("*.json"))
OTHER_MARKETS = re.compile(r"\bfrom (?:sample|simulated|bybit)\b")
# their subject is where candles come from, or the simulated market
SHOW_THEM = ("market", "cli", "truth", "funding")


def slug(notebook):
    "The name of a chapter without its number."
    return re.sub(r"^\d+_", "", notebook.stem)


@pytest.fixture
def today(monkeypatch):
    "The settings of the profile full, as a reader of the repository gets them."
    for name in [name for name in os.environ if name.startswith("SSLTS_")]: monkeypatch.delenv(name)
    return load_settings(ROOT/"settings.ini", profile="full")


def test_the_front_page_has_its_results():
    assert read_results(ROOT/"nbs"/"results").below("study/accuracy"), "`make book` records them"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_figures_are_of_today(path, today):
    assert path.stem in map(slug, notebooks()), f"no chapter is called {path.stem}"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps({name: getattr(today, name, "gone") for name in recorded["settings"]}))
    assert recorded["settings"] == now
    for one in recorded["results"]:
        assert one["profile"] == "full", one["id"]
        assert path.stem in SHOW_THEM or not OTHER_MARKETS.search(one["data"]), one["id"]


def texts(notebook):
    "The committed outputs of a page, as text."
    cells = nbformat.read(notebook, as_version=4).cells
    for output in [output for cell in cells for output in cell.get("outputs", [])]:
        if "text" in output: yield output.text
        yield from [data for kind, data in output.get("data", {}).items() if kind.startswith("text")]


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_committed_outputs_are_full_and_of_recorded_files(notebook):
    for line in "\n".join(texts(notebook)).splitlines():
        assert "quick" not in re.findall(r"\bprofile (quick|full)\b", line), line
        assert slug(notebook) in SHOW_THEM or not OTHER_MARKETS.search(line), line


def test_the_settings_chapter_shows_the_profiles_of_today(today):
    quick, full = (asdict(load_settings(ROOT/"settings.ini", profile=name)) for name in ("quick", "full"))
    differ = {name: (quick[name], full[name]) for name in quick if quick[name] != full[name]}
    (chapter,) = [path for path in notebooks() if slug(path) == "settings"]
    shown = [ast.literal_eval(text) for text in texts(chapter) if "'profile':" in text and "'seeds':" in text]
    assert shown == [differ]


def test_other_markets_are_found():
    lines = ["NASDAQ D from sample, 1999-01-04", "SIM00 60 from simulated (seed 0)", "BTCUSDT 60 from bybit"]
    assert all(map(OTHER_MARKETS.search, lines)) and not OTHER_MARKETS.search("BTCUSDT 60 from files (bybit)")

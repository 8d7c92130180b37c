"""The report of a run, without a browser: links, names, widths, terms, words. browser_report.py looks."""
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest
from small_study import HOSTILE, small_study

from sslts_nb import report
from sslts_nb.labels import Dataset
from sslts_nb.report import pictures, report_html, save_study, svg


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(HOSTILE, encoders=str(tmp_path_factory.mktemp("encoders")))


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory): return save_study(study, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(folder): return Page((folder/"report.html").read_text())


class Page(HTMLParser):
    "What a page holds: tags, names, links, texts by tag, cells by row."
    def __init__(self, text):
        super().__init__()
        self.tags, self.attrs, self.links, self.rows, self.open, self.texts = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs += attrs
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href", "srcset")]
        if tag == "tr": self.rows.append([])
        if tag in ("td", "th"): self.rows[-1].append(tag)
        if tag not in ("meta", "link", "img", "br"): self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        while self.open.pop() != tag: pass

    def handle_data(self, data):
        if "style" not in self.open: self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self): return " ".join(text for _, text in self.texts)

    @property
    def ids(self): return [value for name, value in self.attrs if name == "id"]


@pytest.fixture
def told(study, monkeypatch):
    "A page without drawings, of the same study with other tables or another profile."
    monkeypatch.setattr(report, "svg", lambda *_: "<svg></svg>")
    def page(profile="quick", **tables):
        data = Dataset(study.data.candles, replace(study.data.settings, profile=profile))
        return report_html(replace(study, data=data, tables=study.tables | tables))
    return page


@pytest.mark.slow
def test_every_file_is_linked_and_every_link_leads_to_a_file(folder, page):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    outward = {link for link in page.links if not link.startswith(("#", "data:"))}
    assert files - outward == {"report.html"}
    assert [link for link in outward if not (folder/link).is_file()] == []
    assert any(link.endswith("34_study.ipynb") for link in outward)   # the book of this checkout


@pytest.mark.slow
def test_names_are_unique_and_every_place_is_there(page):
    assert len(page.ids) == len({*page.ids})
    places = {link[1:] for link in page.links if link.startswith("#")}
    assert places <= {*page.ids}
    sections = {"comparisons", "scores", "backtest", "alarms", "training", "candles", "files", "terms"}
    assert sections <= places   # the contents lead there


@pytest.mark.slow
def test_every_term_is_used_and_every_row_is_explained(page, study):
    terms = {name for name in page.ids if name.startswith("term-")}
    assert terms == {link[1:] for link in page.links if link.startswith("#term-")}
    for name in ("har", "mcc", "ts2vec", "sharpe-se", "random-weights", "row", "warned-of"):
        assert f"term-{name}" in terms
    explained = {text for tag, text in page.texts if tag == "dt"}
    rows = [row for row in study.tables["scores"].index if " + " not in row]
    assert {re.sub(r"^(random weights) of .*", r"\1", row) for row in rows} <= explained


@pytest.mark.slow
def test_tables_have_eight_columns_at_most_and_whole_rows(page):
    widths = [len(row) for row in page.rows]
    assert max(widths) == 8 and min(widths) == 2
    assert all(row[0] == "th" for row in page.rows)


@pytest.mark.slow
def test_the_page_asks_nobody_and_runs_nothing(page, study):
    assert not {"script", "img", "iframe", "object", "form", "text"} & {*page.tags}
    assert not [name for name, _ in page.attrs if name.startswith("on")]
    assert not [link for link in page.links if "//" in link or ":" in link.removeprefix("data:")]
    (policy,) = [value for name, value in page.attrs if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert ("lang", "en") in page.attrs and ("name", "viewport") in page.attrs
    assert HOSTILE in page.text and study.data.candles.attrs["symbol"] == HOSTILE


@pytest.mark.slow
def test_the_page_says_what_ran_and_what_came_out(page, study, told):
    assert "This is a smoke test: the profile quick trains 4 steps with 1 seed" in page.text
    for word in ("Began", f"{study.began:%Y-%m-%d %H:%M}", "Took", "Commit", "torch", "Python"):
        assert word in page.text, word
    (first,) = [text for tag, text in page.texts if tag == "strong"]
    assert first.startswith("Self-supervised learning")
    assert "smoke test" not in told("full")


@pytest.mark.slow
def test_what_misses_its_promise_is_marked(study, told):
    alarms, steps = study.tables["alarms"], np.linspace(1, 2, 40)
    kept, missed = (alarms.assign(promised_share=0.01, alarm_share=share) for share in (0.01, 0.2))
    name = study.tables["losses"].columns[0]
    risen, fallen = pd.DataFrame({name: steps}), pd.DataFrame({name: steps[::-1]})
    cases = [(kept, fallen, []), (missed, fallen, ["20 times as many"]),
             (kept, risen, ["the loss rises in 1 of 1"])]
    for rate, losses, wanted in cases:
        remarks = re.findall(r'<p class="remark">(.*?)</p>', told(alarms=rate, losses=losses))
        assert len(remarks) == len(wanted)
        for words, remark in zip(wanted, remarks): assert words in remark


@pytest.mark.slow
def test_rows_that_never_trade_and_markets_without_moves_are_said(study, told):
    trades = study.tables["backtest"].copy()
    trades.loc["HAR", ["sharpe", "sharpe_se", "sharpe_at_tutorial_costs"]] = np.nan
    alarms = study.tables["alarms"].assign(events=0, warned=np.nan, confirmed=np.nan)
    page = Page(told(backtest=trades, alarms=alarms))
    assert "never trades" in page.text and "No large move came." in page.text
    assert not re.search(r"\bnan\b", page.text)


@pytest.mark.slow
def test_every_row_has_a_panel_and_pictures_are_for_two_widths(study):
    drawn = pictures(study)
    for narrow in (False, True):
        axes = [ax for ax in drawn["equity"].draw(narrow).axes if ax.get_visible()]
        titles = {ax.get_title(loc="left").replace("\n", " ") for ax in axes}
        assert titles == {*study.accounts} - {"buy and hold"} == {*study.tables["scores"].index}
        report.plt.close("all")
    wide, narrow = (svg(drawn["scores"], "x", kind) for kind in (False, True))
    width = lambda text: float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    assert width(wide) == 8*72 and width(narrow) < 4*72   # points: letters of 9 stay legible at 390 pixels
    assert "currentColor" in wide and "#000000" not in wide and "#ffffff" not in wide


def test_a_commit_is_of_the_package_and_of_nobody_else(tmp_path):
    assert report.commit(tmp_path) == ""
    (tmp_path/".git").mkdir()   # no repository
    assert report.commit(tmp_path) == ""

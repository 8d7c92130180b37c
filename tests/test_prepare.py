"""Pages before Quarto reads them, on notebooks of a few cells, and what the site needs of the real ones."""
import json, re
from functools import cache

import nbformat, pytest, yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from house import ROOT, notebooks
from pages import with_line
from prepare import (anchors, api_anchor, book, defined, dressed, front, index_page, kind, options, part_page,
                     plain, public, times_page, unlinked, with_options)
from times import merged

EXPORTED = '#| code-fold: show\n#| code-summary: "Exported source"\n#| exports: true\n'
SIGNATURE = ("### twice\n\n```python\ndef twice(\n    x:__main__.Box | sslts_nb.boxes.Box, # what\n)->int:\n"
             "```\n\n*Two of it.*")
LINK = '---\n\n[source](/blob/main/p.py#L1){target="_blank" style="x"}\n\n'
IMAGE = new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"})


def code(source, *outputs):
    "A cell that was run."
    return new_code_cell(source, outputs=list(outputs))


def doc(name, text=LINK + SIGNATURE):
    "What nbdev writes about one name."
    return code(f"#| echo: false\n#| output: asis\nshow_doc({name})",
                new_output("display_data", data={"text/markdown": text}))


def written(cell):
    "The documentation in a cell."
    return cell.outputs[0].data["text/markdown"]


@pytest.mark.parametrize("source,outputs,wanted", [
    ("import numpy\nfrom torch import nn", [], "imports"),
    ("import numpy\nx = 1", [], ""),
    ("settings = load_settings()\nx = 1", [], "set-up"),
    ("a = 1\nb = 2\nc = 3\nd = 4\ntest_eq(a, 1)", [], "test"),
    ("for a in (1, 2):\n    b = a\n    c = b\n    d = c\n    assert d", [], "test"),
    ("test_eq(1, 1)", [], ""),                                        # an example that reads well
    ("a = 1\nb = 2\nc = 3\nd = 4\ntest_eq(a, 1)\na", [new_output("stream", text="1")], ""),
    ("ax = 1\nb = 2\nc = 3\nd = 4", [IMAGE], "figure"),
    ("draw()", [IMAGE], ""),
    ("#| label: tbl-x\n" + "\n".join("abcdefghi"), [], "table"),
    ("def f(x):\n    return x", [], ""),
    ("%timeit f(1)", [], ""),
    ("this is no Python", [], "")])
def test_what_a_cell_is_for(source, outputs, wanted):
    assert kind(code(source, *outputs)) == wanted


def test_options_are_read_and_written_once():
    source = "#| label: fig-x\n#| code-fold: show\nx = 1"
    assert options(source) == {"label": "fig-x", "code-fold": "show"}
    assert with_options(source, code_fold="true") == "#| code-fold: true\n#| label: fig-x\nx = 1"


def test_names_that_a_cell_defines():
    assert defined("def f(): pass\nclass C:\n    def g(self): pass\nx = 1") == ["f", "C"]
    assert "C.encode" in defined("@patch\ndef encode(self: C, x): pass")


def page(*cells):
    "A processed notebook after it was dressed, the repository without an address."
    made = new_notebook(cells=list(cells))
    dressed(made, linked=False)
    return made.cells


def test_a_signature_is_shown_once():
    short = code(EXPORTED + "def twice(x: Box) -> int:\n    return 2*x")
    long = code(EXPORTED + "def twice(x: Box) -> int:\n" + "    x += 1\n"*30)
    open_, folded = page(doc("twice"), short), page(doc("twice"), long)
    assert "```" not in written(open_[0]) and options(open_[1].source)["code-fold"] == "false"
    assert "```python" in written(folded[0]) and options(folded[1].source)["code-fold"] == "true"
    for cells in (open_, folded):
        assert "boxes" not in written(cells[0]) and "__main__" not in written(cells[0])
        assert "[source]" not in written(cells[0])
        assert "### twice" in written(cells[0]) and "*Two of it.*" in written(cells[0])


def test_a_default_that_is_an_object_is_not_written_out():
    long = "terms:Terms=Terms(fee=0.00055, slippage=0.0001, hold='units', leverage=inf), # what\n"
    text = SIGNATURE.replace("x:__main__.Box", f"{long}    few:tuple=(1, 2), # some\n    x:__main__.Box")
    page = new_notebook(cells=[doc("twice", text)])
    dressed(page, linked=False)
    said = written(page.cells[0])
    assert "terms:Terms=Terms(...), # what\n" in said and "few:tuple=(1, 2), # some" in said


def test_printed_points_are_a_list():
    printed = lambda text: page(code("x", new_output("stream", text=text)))[0].outputs[0]
    found = printed("what is new:\n- one\n- two\nand old:\n- three\n- four\n")
    assert found.data["text/markdown"] == "\nwhat is new:\n\n- one\n- two\n\nand old:\n\n- three\n- four\n"
    for other in ("# A file\n\n- one\n- two\n", "- one\n", "loss - 1\nrest - 2\n"):
        assert printed(other).text == other


def test_types_have_the_names_that_a_reader_imports():
    given = ("made:torch.nn.modules.module.Module | torch._C.Generator, # a\n"
             "    few:collections.abc.Callable, # b\n    open:NoneType=None, # c\n    x:__main__.Box")
    made = new_notebook(cells=[doc("twice", SIGNATURE.replace("x:__main__.Box", given))])
    dressed(made, linked=False)
    for wanted in ("made:torch.nn.Module | torch.Generator, #", "few:Callable, #", "open=None, #"):
        assert wanted in written(made.cells[0])


def test_a_page_does_not_say_that_something_ran():
    one = new_output("display_data", data={"text/plain": "1"})
    said = lambda text: [new_output("stream", text=text), one]
    ran, kept = "TNC, seed 0: 600 in 85.7 s loss 0.292\nheads: 4 in 0.6 s \n", "24 cells: 57.9 s in two\n"
    cells = page(code("one", *said(ran)), code("two", *said(ran + kept)), code("progress([])", *said(ran)))
    texts = [[one.text for one in cell.outputs if one.output_type == "stream"] for cell in cells]
    assert texts == [[], [kept], [ran]] and all(len(cell.outputs) for cell in cells)


def test_a_last_value_is_said_without_python():
    value = lambda text: new_output("execute_result", data={"text/plain": text})
    said = lambda text: page(code("x", value(text)))[0].outputs[0].data["text/plain"]
    assert said("'chosen: 0.01'") == "chosen: 0.01"
    assert said("{'low': 0.6, 'high': (1, 2)}") == "low: 0.6\nhigh: (1, 2)"
    for other in ("'5'", "{}", "(1, 2)", "Index(['a b'])", "0.5"): assert said(other) == other


def test_a_signature_that_says_nothing_is_left_out():
    text = SIGNATURE.replace(re.search(r"(?s)def twice\((.*?)\)", SIGNATURE)[1], "\n    *args, **kwargs\n")
    made = new_notebook(cells=[doc("twice", text)])
    dressed(made, linked=False)
    assert "args" not in written(made.cells[0]) and "*Two of it.*" in written(made.cells[0])


def test_a_docstring_of_several_lines_is_slanted_to_its_end():
    text = SIGNATURE.replace("*Two of it.*", "*Two of it, and then*\nas many `again`.\n\nMore.")
    made = new_notebook(cells=[doc("twice", text)])
    dressed(made, linked=False)
    assert "*Two of it, and then as many `again`.*\n\nMore." in written(made.cells[0])


def test_dressing_twice_is_dressing_once():
    cells = [doc("twice"), code(EXPORTED + "def twice(x: Box) -> int:\n    return 2*x"), code("import numpy")]
    once = page(*cells)
    before = json.dumps(once)
    assert json.dumps(page(*once)) == before


def test_documentation_stands_right_above_its_source_and_in_order():
    between = code(EXPORTED + "VIEWS = {}")
    first, second = (code(EXPORTED + f"def {name}(): pass") for name in ("one", "two"))
    cells = page(doc("two"), doc("one"), between, first, second, doc("borrowed"))
    assert [cell.source.splitlines()[-1] for cell in cells] == [
        "VIEWS = {}", "show_doc(one)", "def one(): pass", "show_doc(two)", "def two(): pass",
        "show_doc(borrowed)"]
    assert "```python" in written(cells[-1])   # its source is elsewhere


def test_imports_are_one_block():
    cells = page(code(EXPORTED + "import numpy"), code("import torch"), code("x = 1"), code("import math"))
    assert [cell.source.splitlines()[2:] for cell in cells[::2]] == [
        ["#| exports: true", "import numpy", "import torch"], ["import math"]]


def test_what_an_author_folds_stays_folded():
    said = "#| code-fold: true\n#| code-summary: \"Solution\"\nx = 1"
    assert page(code(said))[0].source == said
    helper = page(code(EXPORTED + "def _mean(x):\n    return x"))[0]
    assert options(helper.source)["code-summary"] == '"Source of helpers"'


@pytest.fixture
def folder(tmp_path):
    "A processed book of one chapter in one part, and its package."
    raw = "---\ntitle: Twice\ndescription: 'Two: of it'\noutput-file: twice.html\n---"
    source = code("def twice(): pass\ndef own(): pass")
    cells = [new_raw_cell(raw), new_markdown_cell("Words."), doc("twice"), source]
    nbformat.write(new_notebook(cells=cells), tmp_path/"01_twice.ipynb")
    (tmp_path/"twice.py").write_text('"""Twice"""\n# AUTOGENERATED! File to edit: ../nbs/01_twice.ipynb.\n'
                                     "__all__ = ['LIMIT', 'own', 'twice']\nLIMIT = 1\n"
                                     'def twice():\n    """Two of it\n    (@eq-two).\n\n    More."""\n'
                                     'def own(): "Mine."\n')
    (tmp_path/"times.csv").write_text("chapter,seconds,profile,date\n01_twice,2.345,quick,2026-11-27\n")
    (tmp_path/"results").mkdir()
    (tmp_path/"results"/"one.json").write_text('{"results": [{"profile": "full", "version": "torch 2"}]}')
    return tmp_path


def test_a_docstring_in_the_index_names_no_other_page():
    for said, left in [("Labels [@key2016one, section 3.4].", "Labels."), ("See @eq-a.", "See."),
                       ("A ratio (Lo 2002; @eq-s).", "A ratio (Lo 2002)."), ("Views (@eq-v)?", "Views?"),
                       ("Shares (@eq-x, unless terms differ).", "Shares (unless terms differ)."),
                       ("Up to `@data`.", "Up to `@data`."), ("Page (Hinkley, @eq-p).", "Page (Hinkley).")]:
        assert plain(said) == left


def test_pages_that_nobody_writes(folder):
    chapter = folder/"01_twice.ipynb"
    assert front(chapter) == ("Twice", "Two: of it")
    assert part_page(1, "One", "Why.\n", [chapter]).splitlines()[-3:] == [
        "Why.", "", "1. [Twice](01_twice.ipynb): Two: of it"]
    assert public(folder/"twice.py") == [("own", "Mine."), ("twice", "Two of it (@eq-two).")]
    assert index_page([chapter], folder).splitlines()[-2:] == [
        "- `own`: Mine.", "- [`twice`](01_twice.ipynb#twice): Two of it."]
    said = times_page([chapter, folder/"02_new.ipynb"][:1], folder/"times.csv", folder/"results")
    assert "| [Twice](01_twice.ipynb) | 2.3 | quick | 2026-11-27 |" in said
    assert "| one | 1 | full | torch 2 |" in said


def test_names_without_documentation_lead_nowhere(folder):
    there = anchors([folder/"01_twice.ipynb"])
    assert there == {"twice.html#twice"}
    said = ("[`twice`](/twice.html#twice), [`_own`](/twice.html#_own), [`Box.x`](twice.html#box.x), "
            "[a](b.html#c)")
    assert unlinked(said, there) == "[`twice`](/twice.html#twice), `_own`, `Box.x`, [a](b.html#c)"


def config():
    "The part of `_quarto.yml` that is changed."
    contents = ["index.ipynb", {"section": "One", "contents": ["01_twice.ipynb"]},
                {"section": "Appendix", "contents": []}]
    return {"website": {"sidebar": {"contents": contents}, "navbar": {"left": []},
                        "page-footer": {"left": "sslts_nb, MIT licence."}}}


def test_configuration_with_and_without_an_address(folder):
    plain, linked = config(), config()
    book(plain, {"One": "Why."}, folder, "")
    book(linked, {"One": "Why."}, folder, "https://github.com/someone/book")
    contents = plain["website"]["sidebar"]["contents"]
    assert contents[1]["href"] == "part-1.qmd" and (folder/"part-1.qmd").exists()
    assert contents[2]["contents"] == ["api.qmd", "execution.qmd"]
    assert re.match(r"sslts_nb \d+\.\d+\.\d+, MIT", plain["website"]["page-footer"]["left"])
    assert "repo-url" not in plain["website"] and linked["website"]["repo-actions"] == ["edit", "issue"]


def test_a_chapter_leads_to_its_notebook():
    page = '<header id="title-block-header" class="x"><h1>A</h1></header>\n<p>B</p>'
    plain = with_line(page, "01_a.ipynb", "")
    assert 'href="notebooks/01_a.ipynb"' in plain and "colab" not in plain and plain.endswith("<p>B</p>")
    assert with_line(plain, "01_a.ipynb", "") == plain
    linked = with_line(page, "01_a.ipynb", "https://github.com/me/book")
    assert "github/me/book/blob/main/nbs/01_a.ipynb" in linked


def test_times_of_today_replace_those_before():
    kept = {name: {"chapter": name, "seconds": "1", "profile": "quick", "date": "old"}
            for name in ("a", "b", "gone")}
    rows = merged(kept, {"b": 2.}, "quick", "new", ["c", "b", "a"])
    shown = [(row["chapter"], row["seconds"], row["date"]) for row in rows]
    assert shown == [("b", "2.00", "new"), ("a", "1", "old")]


# The real pages

def test_each_part_is_introduced():
    contents = yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["sidebar"]["contents"]
    parts = [part["section"] for part in contents if isinstance(part, dict)]
    words = yaml.safe_load((ROOT/"nbs"/"parts.yml").read_text())
    assert [*words] == parts[:-1] and parts[-1] == "Appendix"
    assert all(20 < len(said.split()) < 80 for said in words.values())


def headings(notebook):
    "The headings of a chapter: (level, words)."
    found = nbformat.read(notebook, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in found if cell.cell_type == "markdown")
    prose = re.sub(r"(?s)```.*?```", "", prose)
    return [(len(marks), words) for marks, words in re.findall(r"(?m)^(#{1,6}) (.+)$", prose)]


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_what_cells_say_to_quarto_is_yaml(notebook):
    "A colon in a caption without quotes stops the whole build."
    for cell in nbformat.read(notebook, as_version=4).cells:
        said = "\n".join(f"{name}: {value}" for name, value in options(cell.source).items())
        if cell.cell_type == "code": assert isinstance(yaml.safe_load(said) or {}, dict), cell.source[:200]


@cache
def everything_public():
    "The names that the package exports."
    return {name for module in (ROOT/"sslts_nb").glob("*.py") for name, _ in public(module)}


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_no_link_of_ours_holds_a_name_that_nbdev_links(notebook):
    "It would become a link within a link, shown raw."
    cells = nbformat.read(notebook, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    texts = re.findall(r"\[([^\[\]]*)\]\([^)]*\)", prose)
    assert not {name for text in texts for name in re.findall(r"`(\w+)`", text)} & everything_public()


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_headings_go_down_one_level_at_a_time(notebook):
    levels = [level for level, _ in headings(notebook)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in zip(levels, levels[1:]))


def slug(words):
    "The anchor that pandoc makes of a heading."
    if named := re.search(r"\{#([\w-]+)[^}]*\}\s*$", words): return named[1]
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words)
    kept = re.sub(r"[^\w\s.-]", "", plain.replace("`", "")).strip().lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", kept))


def places(path):
    "Every anchor of a page that a link can be checked against here."
    if path.suffix == ".qmd":
        text = path.read_text()
        heads = re.findall(r"(?m)^#{1,6} (.+)$", text)
        return {slug(words) for words in heads} | set(re.findall(r"\{#([\w-]+)", text))
    found = nbformat.read(path, as_version=4).cells
    text = "\n\n".join(cell.source for cell in found)
    names = {api_anchor(name) for cell in found if cell.cell_type == "code" for name in defined(cell.source)}
    labels = re.findall(r"#\| label: (\S+)", text) + re.findall(r"\{#([\w-]+)", text)
    return {slug(words) for _, words in headings(path)} | names | set(labels)


def test_links_with_an_anchor_find_it():
    n_checked, pages = 0, [*notebooks(), *sorted((ROOT/"nbs").glob("*.qmd"))]
    known = {path.name: places(path) for path in pages}
    for path in pages:
        text = path.read_text() if path.suffix == ".qmd" else "\n\n".join(
            cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
        for page, anchor in re.findall(r"\]\((?!https?:)([\w.-]*)#([\w.-]+)\)", text):
            assert anchor in known[page or path.name], f"{path.name}: {page}#{anchor}"
            n_checked += 1
    assert n_checked > 20


def test_equations_are_such_as_pandoc_can_write():
    for notebook in notebooks():
        found = nbformat.read(notebook, as_version=4).cells
        prose = "\n\n".join(cell.source for cell in found if cell.cell_type == "markdown")
        assert not re.search(r"\\(left|right|big|Big)g?[lr]?\s*/", prose), notebook.name


def test_outputs_in_text_are_for_readers():
    for path in notebooks():
        for n, cell in enumerate(nbformat.read(path, as_version=4).cells):
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if {"text/html", "text/markdown", "image/png"} & set(data): continue
                lines = (output.get("text") or data.get("text/plain", "")).splitlines()
                longest = max(map(len, lines), default=0)
                assert longest < 1000, f"{path.name}, cell {n}: a line of {longest} characters"


def test_workflows_run_what_a_reader_runs():
    found = {path.stem: path.read_text() for path in (ROOT/".github"/"workflows").glob("*.yaml")}
    assert {*found} == {"test", "site"}
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT/"Makefile").read_text())
    for text in found.values():
        assert yaml.safe_load(text)["jobs"]
        assert set(" ".join(re.findall(r"make ([a-z ]+)", text)).split()) <= set(targets)
    versions = yaml.safe_load(found["test"])["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert len(versions) == 2 and versions[0] == "3.11"

"""What is done to a built site, on pages of a few lines, and what can be said of the pages without Quarto."""
import ast, re

import nbformat
from house import ROOT, code_cells, notebooks, parsed
from pages import (DENSE, breakable, counted, dead_links, finish, fitted, foreign_hosts, in_english,
                   least_width, lined_up, llms, marked, one_head, referred, spaced, stripped, told_apart,
                   unsigned, warnings, whole_flags, worded)

TOP = "".join(f'<a href="./{name}.html" class="sidebar-item-text"></a>' for name in ("index", "one"))
ONE = '<title>One</title><meta name="description" content="What it is"><h1 class="title">One &amp; all</h1>'


def built(folder, **pages):
    "A site of these pages."
    for name, page in pages.items(): (folder/f"{name}.html").write_text(f"{TOP}{page}", encoding="utf-8")
    return folder


def test_an_error_in_colour_is_an_error():
    assert warnings("\x1b[91mERROR: YAMLException\x1b[39m\nall is well") == ["ERROR: YAMLException"]


def test_the_bar_marks_the_page_itself():
    bar = ('<a class="nav-link active" href="./guide.html" aria-current="page">'
           '<a class="nav-link" href="./a.html">')
    assert marked(bar, "guide.html") == bar
    assert "active" not in marked(bar, "alarms.html") and 'href="./guide.html"' in marked(bar, "alarms.html")


def test_a_short_figure_stays_on_one_line():
    assert told_apart("<td>2e-08</td>") == '<td class="number">2e-08</td>'
    for other in ("<td>words alone</td>", "<td>0.355 [0.292, 0.416], of 3</td>", "<th>R2</th>"):
        assert told_apart(other) == other


def test_cells_say_what_they_hold():
    for text in ("+14.7% [+11.4%, −17.8%]", "2025-12-07 00:00:00+00:00", "2024-01-25T22:00:00+00:00"):
        assert told_apart(f"<td>{text}</td>") == f'<td class="interval">{text}</td>'
        assert told_apart(f"<th>{text}</th>") == f'<th class="number">{text}</th>'
    role = ' data-quarto-table-cell-role="th"'
    assert told_apart(f"<th{role}>1497</th>") == f'<th{role} class="number">1497</th>'
    long = "no such bar was recorded in 2024"
    assert told_apart(f"<td>{long}</td>") == f'<td class="words">{long}</td>'
    assert told_apart(f"<td>{4*long}</td>") == f'<td class="prose">{4*long}</td>'
    linked = f'<td style="text-align: left;"{{}}>{long}, see <a href="a.html">a</a></td>'
    assert told_apart(linked.format("")) == linked.format(' class="words"')
    for other in (f"<th>{long}</th>", "<td>features</td>", '<td class="number">0.1 [0.0, 0.2], of many</td>'):
        assert told_apart(other) == other


def test_a_numbered_table_has_words_as_heads():
    table = "<table><thead><tr><th>{}</th><th>{}</th></tr></thead><tr><th>rv_24</th></tr></table>"
    code, words = table.format("log_loss", "r2_low"), table.format("log loss", "r2, low")
    for kind in ("quarto-float quarto-float-tbl", "quarto-subfloat-tbl"):
        assert worded(f'<figure class="{kind}">{code}</figure>') == f'<figure class="{kind}">{words}</figure>'
    assert worded(code) == code     # a frame: its heads are the names that code asks for


def test_a_long_name_may_be_broken():
    assert breakable('<th class="a_b">log_loss</th>') == '<th class="a_b">log_<wbr>loss</th>'
    assert breakable('<h3 id="a.b_c">A.b_c</h3>') == '<h3 id="a.b_c">A.<wbr>b_<wbr>c</h3>'
    for other in ("<td>log_loss</td>", "<th>loss</th>", "<code>log_loss</code>", "<h3>The end. It was</h3>"):
        assert breakable(other) == other


def test_a_short_flag_is_not_broken():
    assert whole_flags("<p><code>--steps N</code>") == '<p><code class="flag">--steps N</code>'
    for other in ("<code>steps</code>", "<pre><code>--steps N</code></pre>", f"<code>--{'steps '*9}</code>"):
        assert whole_flags(other) == other


def test_a_printed_table_keeps_its_columns():
    table = "a    b\n1    2\n3    4"
    assert lined_up(f"<pre><code>{table}</code></pre>") == f'<pre><code class="columns">{table}</code></pre>'
    for other in (f"<p><code>{table}</code></p>", "<pre><code>said in\nthree\nlines</code></pre>"):
        assert lined_up(other) == other


def test_a_function_has_space_before_what_it_is_taken_of():
    ln, space = "<mrow><mi>ln</mi><mo>\u2061</mo></mrow>", '<mspace width="0.167em"></mspace>'
    assert spaced(f"{ln}<mn>2</mn>") == f"{ln}{space}<mn>2</mn>"
    for other in (f'{ln}<mo stretchy="false">(</mo>', "<mi>x</mi><mn>2</mn>"): assert spaced(other) == other


def test_a_wide_table_has_small_letters():
    top = lambda n: f'<tr><th rowspan="2">row</th><th colspan="{2*n - 1}">what is above all</th></tr>'
    row = lambda n: told_apart(f'<tr>{"<th>log_<wbr>loss</th><td>0.1 ± 0.2</td>"*n}</tr>')
    table = lambda n: f'<table class="dataframe">{top(n)}{row(n)}</table>'
    # `row`; `log_` or `loss`, and the number whole; two for the padding of each
    assert least_width(table(1)) == 4 + 9 + 2*2 and least_width(table(3)) == 3*(4 + 9) + 2*6
    for n in (1, 5, 9):
        size = next((f"{name} " for name, least in DENSE.items() if 17*n > least), "")
        assert fitted(f"a {table(n)} b") == f"a {table(n)} b".replace('"dataframe', f'"{size}dataframe')


def test_a_zero_has_no_sign():
    assert unsigned("<td>-0.000</td><td>-0.001</td>") == "<td>0.000</td><td>-0.001</td>"
    assert unsigned("<td>-0%</td><td>-0.0%</td><td>-0</td>") == "<td>0%</td><td>0.0%</td><td>0</td>"
    for other in ("<td>-05</td>", "<td>0.004 [-0.000, 0.008]</td>", "<p>-0.0</p>"):
        assert unsigned(other) == other


def numbered(*rows, head=()):
    "A table with a caption: rows of cells, below rows of heads."
    line = lambda tag, cells: "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in cells) + "</tr>"
    thead = f"<thead>{''.join(line('th', one) for one in head)}</thead>"
    body = f"<tbody>{''.join(line('td', one) for one in rows)}</tbody>"
    return f'<figure class="quarto-float-tbl"><table class="dataframe">{thead}{body}</table></figure>'


def test_what_rows_are_stands_in_the_line_of_the_columns():
    heads = lambda page: [re.findall("<th>(.*?)</th>", row) for row in re.findall("(?s)<tr.*?</tr>", page)]
    plain = [["", "", "R2"], ["method", "label", ""]]
    assert heads(one_head(numbered(head=plain))) == [["method", "label", "R2"]]
    grouped = [["", "hours", "days"], ["", "R2", "R2"], ["method", "", ""]]
    assert heads(one_head(numbered(head=grouped))) == [grouped[0], ["method", "R2", "R2"]]
    for other in ([["method", "R2"]], [["of", "R2"], ["method", ""]], []):   # the columns have a name too
        assert one_head(numbered(head=other)) == numbered(head=other)


def test_counts_are_whole_and_measures_are_not():
    given = numbered(["1.5", "60.0", "1.0", "3.0"], ["2.0", "NaN", "", "4.0"], ["0.5", "-7.0", "", "5.0"])
    wanted = numbered(["1.5", "60", "1.0", "3"], ["2.0", "NaN", "", "4"], ["0.5", "-7", "", "5"])
    assert counted(given) == wanted and counted(wanted) == wanted
    assert counted("<table><td>1.0</td></table>") == "<table><td>1.0</td></table>"


def test_numbered_tables_speak_english():
    assert in_english(numbered(["NaN", "True", "False"])) == numbered(["–", "yes", "no"])
    for other in ("<td>NaN</td>", numbered(["NaN, at first", "0.1"])): assert in_english(other) == other


def test_code_names_equations_and_sources_as_the_text_does():
    page = ('<span id="eq-a"><math></math></span><span id="eq-b"><math></math></span>'
            '<span class="citation" data-cites="klass1980">Klass (<a href="#r">1980</a>)</span>'
            '<span class="citation" data-cites="yang2000">(<a href="#s">Yang 2000, sec. 3</a>)</span>'
            '<pre class="sourceCode">{}</pre><p>(@eq-b)</p>')
    given, wanted = "(@eq-b), [@klass1980, equation 20]", "(Equation 2), (Klass 1980, equation 20)"
    assert referred(page.format(given)) == page.format(wanted)
    assert referred(page.format("[@yang2000, eq. 1]")) == page.format("(Yang 2000, eq. 1)")
    for other in ("(@eq-z)", "[@nobody2000]", "[@klass1980; @nobody2000]"):
        assert referred(page.format(other)) == page.format(other)


def test_the_guide_names_every_chapter():
    guide = (ROOT/"nbs"/"guide.qmd").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([0-9]\w*\.ipynb)\)", guide[guide.index("| chapter |"):])
    assert sorted(named) == sorted(path.name for path in notebooks() if path.name[0].isdigit())


def test_scripts_of_foreign_hosts_are_taken_out():
    page = ('<script src="https://cdnjs.example/require.min.js" crossorigin="anonymous"></script>\n'
            '<script src="https://cdnjs.example/jquery.min.js"></script>\n'
            '<script src="site_libs/own.js"></script>')
    assert foreign_hosts(page) == {"cdnjs.example"}
    assert stripped(page) == '<script src="site_libs/own.js"></script>'


def test_what_a_page_loads_is_told_from_what_a_reader_may_click():
    assert foreign_hosts('<a href="https://arxiv.org/abs/1">paper</a>') == set()
    assert foreign_hosts('<link rel="canonical" href="https://book.example/one.html">') == set()
    assert foreign_hosts('<link href="//fonts.example/css" rel="stylesheet">') == {"fonts.example"}
    assert foreign_hosts('<img alt="x" src="https://img.example/x.png">') == {"img.example"}


def test_links_that_lead_nowhere(tmp_path):
    built(tmp_path, index='<a href="one.html#here">1</a><a href="two.html">2</a>',
          one='<p id="here"></p><a href="#there">3</a><a href="./index.html">4</a><a href="https://x.example">')
    assert dead_links(tmp_path) == ["index.html: two.html", "one.html: #there"]


def test_a_build_is_in_order_or_says_why_not(tmp_path):
    built(tmp_path, index="", one=ONE)
    assert finish("[1/2] index.qmd\nOutput created: index.html", tmp_path) == []
    assert llms(tmp_path).endswith("- [index.html](index.html)\n- [One & all](one.html): What it is\n")
    said = ["WARNING (main.lua:1): no reference @tbl-x", "UserWarning: a figure"]
    assert warnings("\n".join([*said, "done", *said])) == said
    built(tmp_path, one='<script src="https://x.example/a.js"></script>')
    assert finish(said[0], tmp_path) == [said[0], "one.html: loads from x.example"]


def sources():
    "Every page that is no notebook."
    return sorted((ROOT/"nbs").glob("*.qmd"))


def prose(path):
    "The words of a notebook."
    found = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in found if cell.cell_type == "markdown")


def glued(text):
    "Formulas with lines of their own in the middle of a paragraph."
    found = re.finditer(r"(?ms)^\$\$.*?\$\$[^\n]*$", text)
    return [one[0] for one in found if not re.search(r"(^|\n\n)$", text[:one.start()])
            or not re.match(r"(\n\n|\n?$)", text[one.end():])]


def test_a_formula_is_a_paragraph():
    assert glued("$$\na\n$$ {#eq-a}\n\nso\n\n$$b$$\n") == []
    assert glued("so\n$$a$$\n\n") == ["$$a$$"] and glued("$$\na\n$$\nso") == ["$$\na\n$$"]
    assert {path.name: glued(prose(path)) for path in notebooks() if glued(prose(path))} == {}


def test_every_page_is_in_the_sidebar():
    listed = (ROOT/"_quarto.yml").read_text()
    assert all(path.name in listed for path in sources()) and len(sources()) > 3


def test_links_of_pages_that_are_no_notebooks():
    for path in sources():
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", path.read_text()):
            assert (path.parent/target.split("#")[0]).exists(), f"{path.name}: {target}"


def test_every_defect_that_a_chapter_names_is_linked_to_the_sources():
    text = (ROOT/"nbs"/"sources.qmd").read_text()
    there, named = set(re.findall(r"\{#(defect-\d+)\}", text)), 0
    for path in notebooks():
        links = re.findall(r"\[([^\]]*defect \d+[^\]]*)\]\(sources\.qmd#([\w-]+)\)", prose(path))
        for words, target in links:
            assert target in there and target.removeprefix("defect-") in words, f"{path.name}: {words}"
            named += 1
        bare = re.sub(r"\[[^\]]*\]\([^)]*\)", "", prose(path))
        assert not re.search(r"\bdefect \d", bare), f"{path.name}: a defect without its link"
    assert named > 10


def mixed(cell):
    "Whether nbdev would execute a cell for the pages, without those before it: it imports, and does more."
    if "nbdev_export()" in cell or re.search(r"^#\|\s*exports?\b", cell, re.M): return False
    tree = parsed(cell)
    imports = (ast.Import, ast.ImportFrom)
    return any(isinstance(node, imports) for node in ast.walk(tree)) \
        and not all(isinstance(node, imports) for node in tree.body)


def test_imports_stand_in_cells_of_their_own():
    assert mixed("import os\nos.getcwd()") and mixed("def f():\n    import os")
    assert not any(map(mixed, ("import os\nimport re", "#| exports\nimport os\nx = 1", "x = 1")))
    found = [f"{path.stem}: {cell[:60]!r}" for path in notebooks() if "default_exp" in path.read_text("utf-8")
             for cell in code_cells(path) if mixed(cell)]
    assert found == [], "`make docs` would fail there"


def open_entries(text):
    "Entries of a bibliography that are not closed before the next one, and keys that come twice."
    entries = re.split(r"\n(?=@)", text)
    keys = [re.match(r"@\w+\{([^,\s]+),", entry)[1] for entry in entries if entry.startswith("@")]
    return [entry[:40] for entry in entries if entry.count("{") != entry.count("}")] \
        + sorted({key for key in keys if keys.count(key) > 1})


def test_the_bibliography_is_whole():
    assert open_entries("@misc{a, title={A}}\n@misc{a, title={B}\n") == ["@misc{a, title={B}\n", "a"]
    assert open_entries((ROOT/"nbs"/"references.bib").read_text("utf-8")) == []

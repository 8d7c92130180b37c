"""What is done to the processed notebooks before Quarto reads them: python tools/prepare.py FOLDER

`nbdev-proc-nbs` leaves the pages in `_proc`. Here code that is set-up, test or drawing is folded and code
that is the idea stays open, a signature is shown once, and the pages that nobody should write by hand are
made: one for each part, the index of everything public, and how long each chapter runs.
"""
import ast, csv, json, re, sys, tomllib
from pathlib import Path

import nbformat, yaml
from house import ROOT, parsed

SHOWN, SIGNATURE = 22, re.compile(r"(?s)```python\n.*?\n```\n\n?")   # a source of more lines is folded
LINK = re.compile(r"\[source\]\([^)]*\)\{[^}]*\}\n\n?")
TESTS = re.compile(r"(test_\w+|is_close|expect)$")
# of other pages: [@key, section 3], (@eq-key), (@eq-key, and words that stay), (words; @eq-key)
REFERENCE = re.compile(r"\s*\[@[^\]]*\]|\s*\(@[\w-]+\)|(?<=\()@[\w-]+,\s*|[;,]?\s*(?<![`\w])@[\w-]+")
OPTION = re.compile(r"#\|\s*([\w-]+):\s*(.*)")


def options(
    source: str,           # of a code cell
) -> dict[str, str]:       # option -> value, as written
    "What a cell says to Quarto."
    return {found[1]: found[2] for line in source.splitlines() if (found := OPTION.match(line))}


def with_options(
    source: str,   # of a code cell
    **said: str,   # option -> value, dashes as underscores
) -> str:
    "A cell that says this to Quarto, whatever it said about the same before."
    given = {name.replace("_", "-"): value for name, value in said.items()}
    lines = source.splitlines()
    kept = [line for line in lines if not ((found := OPTION.match(line)) and found[1] in given)]
    return "\n".join([*(f"#| {name}: {value}" for name, value in given.items()), *kept])


def statements(
    source: str,            # of a code cell
) -> list[ast.stmt]:        # none: it is no Python
    "What a cell does, step by step."
    try: return parsed(source).body
    except SyntaxError: return []


def defined(
    source: str,           # of a code cell
) -> list[str]:
    "The functions and classes that a cell defines, methods that are patched in by their class."
    names = []
    for node in statements(source):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): continue
        names.append(node.name)
        arguments = [] if isinstance(node, ast.ClassDef) else node.args.args
        if arguments and arguments[0].annotation is not None:
            names.append(f"{ast.unparse(arguments[0].annotation)}.{node.name}")
    return names


def tests(
    node: ast.stmt,   # of a cell
) -> bool:
    "Whether a step only tests."
    if isinstance(node, ast.Assert): return True
    if isinstance(node, (ast.For, ast.With)): return any(tests(one) for one in node.body)
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return isinstance(called, ast.Name) and bool(TESTS.match(called.id))


def kind(
    cell,       # code, with its outputs
) -> str:       # imports, set-up, test, figure, table, or nothing: the idea
    "What a cell is for."
    body, said = statements(cell.source), options(cell.source)
    lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]
    if body and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body): return "imports"
    if any("image/png" in output.get("data", {}) for output in cell.outputs):
        return "figure" if len(lines) > 3 else ""
    if re.search(r"(?m)^settings = load_settings\(", cell.source): return "set-up"
    if said.get("label", "").startswith("tbl-") and len(lines) > 8: return "table"
    if not cell.outputs and len(lines) > 4 and any(map(tests, body)): return "test"
    return ""


TIMES = ("Processor seconds of one chapter with one thread (`python tools/times.py`). The profile `quick` "
         "runs on the sample, as in `make test`; the outputs that you read come from the profile `full` on "
         "recorded candles.")
RECORDED = ("Each figure that the book quotes is kept with its data, its profile and the versions that made "
            "it ([Results](06_results.ipynb)).")
SAID = re.compile(r"(?m)^\*([^*\n]+)\*\n(\S.*(?:\n\S.*)*)")   # of a docstring nbdev slants the first line
DONE = re.compile(r"(?m)^\r?.*: \d+ in \d+\.\d s(?: .*)?$\n?")   # of `progress`: TNC: 600 in 85.7 s loss 0.3
POINTS = re.compile(r"(?:(?!#|- ).+\n)?(?:- .+\n)(?:- .+\n?)+")   # printed, perhaps with a line above
MADE = re.compile(r"=(\w+)\([^\n#]{40,}\)(?=,?(?: #|\n))")   # a default that is an object, all its fields
# where a type is defined, and as what a reader imports it
TYPES = {"torch.nn.modules.module.": "torch.nn.", "torch._C.": "torch.", "collections.abc.": "",
         "requests.sessions.": "requests."}
DEFINED = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, TYPES))})")
AUTOMATIC = re.compile(r"\[(`[^`]+`)\]\(/?([\w-]+\.html)#([\w.-]+)\)")   # a link that nbdev makes of a name
SUMMARY = {"imports": "Imports", "set-up": "Set-up", "test": "Test", "figure": "Code of the figure",
           "table": "Code of the table"}


def documented(
    cell,        # of a page
) -> str:        # empty: none
    "The name whose signature nbdev writes in this cell."
    found = re.search(r"(?m)^show_doc\(([\w.]+)", cell.source) if cell.cell_type == "code" else None
    return found[1] if found else ""


def dressed(
    page,                 # a processed notebook
    linked: bool,         # whether the repository has an address
):
    "Its cells: what is not the idea is folded, each signature stands once, right above its source."
    sources = {name: n for n, cell in enumerate(page.cells) if cell.cell_type == "code"
               and not documented(cell) for name in defined(cell.source)}
    above: dict[int, list] = {}
    rest = []
    for n, cell in enumerate(page.cells):
        source = sources.get(documented(cell), -1)
        if source > n: above.setdefault(source, []).append(cell)
        else: rest.append((n, cell))
    page.cells = []
    for n, cell in rest:
        signatures = above.get(n, [])
        if cell.cell_type == "code" and not documented(cell):
            fold(cell, bool(signatures))
            _hush(cell)
            _speak(cell)
        whole = options(cell.source).get("code-fold") == "true" if signatures else False
        for one in signatures: _clean(one, whole, linked)
        if documented(cell): _clean(cell, True, linked)
        if page.cells and "Imports" == _summary(cell) == _summary(page.cells[-1]):
            page.cells[-1].source += "\n" + _bare(cell.source)
        else: page.cells += [*signatures, cell]


def _hush(cell):
    "Without lines that say that something ran; a reader of the page waits for nothing."
    if "progress(" in cell.source: return    # it is what the cell shows
    for output in cell.outputs:
        if output.output_type == "stream": output.text = DONE.sub("", "".join(output.text))
    cell.outputs = [one for one in cell.outputs if one.output_type != "stream" or one.text.strip()]


def _listed(text: str) -> str:
    "Printed lines and points as Markdown: a list needs an empty line around it."
    return re.sub(r"(?m)^(?!- )(.+)$", r"\n\1\n", text)


def _speak(cell):
    "A sentence without the quotes of Python, a dictionary line by line, printed points as a list."
    for n, output in enumerate(cell.outputs):
        if output.output_type == "stream" and POINTS.match(output.text):
            said = {"text/markdown": _listed(output.text)}
            cell.outputs[n] = nbformat.v4.new_output("display_data", data=said)
        if output.output_type != "execute_result" or set(output.data) != {"text/plain"}: continue
        try: value = ast.literal_eval(output.data["text/plain"])
        except (SyntaxError, ValueError): continue
        if isinstance(value, str) and " " in value: output.data["text/plain"] = value
        if isinstance(value, dict) and value:
            output.data["text/plain"] = "\n".join(f"{name}: {one}" for name, one in value.items())


def _summary(cell) -> str:
    "Under which word a cell is folded."
    said = options(cell.source) if cell.cell_type == "code" else {}
    return said.get("code-summary", "").strip('"') if said.get("code-fold") == "true" else ""


def _bare(source: str) -> str:
    "A cell without what it says to Quarto."
    return "\n".join(line for line in source.splitlines() if not line.startswith("#|"))


def fold(
    cell,               # code
    has_doc: bool,      # whether its signature is shown above it
):
    "Fold a cell, or leave it open."
    said = options(cell.source)
    if exported := said.pop("exports", None): cell.outputs = []   # what a registration returns, and the like
    what = SUMMARY.get(kind(cell), "")
    if said.get("code-fold") and not exported:    # the author has said so
        named = said["code-fold"] == "true" and "code-summary" not in said and what
        if named: cell.source = with_options(cell.source, code_summary=f'"{what}"')
        return
    length = len([line for line in cell.source.splitlines() if not line.startswith("#|")])
    drawing = any(name.startswith(("plot_", "draw_")) for name in defined(cell.source))
    if exported and not what and (length > SHOWN or drawing): what = "Source"
    if exported and not what and not has_doc and _private(cell.source): what = "Source of helpers"
    if what: cell.source = with_options(cell.source, code_fold="true", code_summary=f'"{what}"')
    elif exported: cell.source = with_options(cell.source, code_fold="false")


def _private(source: str) -> bool:
    "Whether a cell defines helpers only."
    names = defined(source)
    return bool(names) and all(name.startswith("_") for name in names)


def _clean(cell, whole: bool, linked: bool):
    "nbdev's documentation of one name: types by their names, the signature only where the source is folded."
    for output in cell.outputs:
        text = output.get("data", {}).get("text/markdown", "")
        text = re.sub(r"\b(?:__main__|sslts_nb\.\w+)\.(?=[A-Z])", "", "".join(text))
        text = MADE.sub(r"=\1(...)", text).removeprefix("---\n\n")   # a heading needs no rule above it
        text = DEFINED.sub(lambda place: TYPES[place[0]], text).replace(":NoneType=", "=")
        text = SAID.sub(lambda said: f"*{said[1]} {' '.join(said[2].split())}*", text)
        if not linked: text = LINK.sub("", text)
        if not whole or "\n    *args, **kwargs\n)" in text: text = SIGNATURE.sub("", text, count=1)
        output["data"]["text/markdown"] = text


def anchors(
    pages: list[Path],     # processed notebooks
) -> set[str]:             # page.html#anchor
    "Where names are documented."
    found = set()
    for page in pages:
        name = re.sub(r"^\d+_", "", page.stem)
        cells = nbformat.read(page, as_version=4).cells
        found |= {f"{name}.html#{api_anchor(one)}" for cell in cells if (one := documented(cell))}
    return found


def unlinked(
    text: str,          # Markdown
    there: set[str],    # page.html#anchor
) -> str:
    "A text in which names that are documented nowhere, helpers among them, lead nowhere."
    return AUTOMATIC.sub(lambda link: link[0] if f"{link[2]}#{link[3]}" in there else link[1], text)


def front(
    page: Path,              # a processed notebook
) -> tuple[str, str]:        # title, subtitle
    "What stands at the head of a page."
    cells = nbformat.read(page, as_version=4).cells
    raw = next((cell.source for cell in cells if cell.cell_type == "raw"), "")
    said = yaml.safe_load(raw.strip().strip("-")) or {}
    return said.get("title", page.stem), said.get("description", "")


def head(
    title: str,
    said: str,       # subtitle
) -> list[str]:      # lines
    "The head of a page that is made here."
    return ["---", f'title: "{title}"', f'description: "{said}"', "---", ""]


def part_page(
    number: int,             # of the part
    name: str,               # of the part
    words: str,              # that introduce it
    chapters: list[Path],    # its processed notebooks
) -> str:                    # Markdown
    "What a part is about, and its chapters."
    lines = [f"{n}. [{title}]({page.name}){f': {said}' if said else ''}"
             for n, page in enumerate(chapters, 1) for title, said in [front(page)]]
    return "\n".join(["---", f'title: "Part {number}: {name}"', "---", "", words.strip(), "", *lines, ""])


def public(
    module: Path,                    # a file of the package
) -> list[tuple[str, str]]:          # name, first paragraph of its docstring
    "The functions and classes that a module exports."
    tree = ast.parse(module.read_text(encoding="utf-8"))
    listed = [node.value for node in tree.body if isinstance(node, ast.Assign)
              and getattr(node.targets[0], "id", "") == "__all__"]
    names = ast.literal_eval(listed[0]) if listed else []
    first = lambda said: " ".join((said or "").split("\n\n")[0].split())
    found = {node.name: first(ast.get_docstring(node)) for node in tree.body
             if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    return [(name, found[name]) for name in names if name in found]


def index_page(
    pages: list[Path],    # processed notebooks
    package: Path,        # folder of modules
) -> str:                 # Markdown
    "Every public function and class, with a link to where it is derived."
    lines = head("Index of functions", "Everything public, by module, and the chapter that builds it")
    for page in pages:
        cells = nbformat.read(page, as_version=4).cells
        shown = [name for cell in cells if (name := documented(cell))]
        sources = {one for cell in cells if cell.cell_type == "code" for one in defined(cell.source)}
        module = next((path for path in package.glob("*.py") if _of(path, page)), None)
        found = [(name, said) for name, said in public(module) if name in sources] if module else []
        if not found: continue
        lines += [f"## {module.stem}", "", f"Chapter: [{front(page)[0]}]({page.name})", ""]
        lines += [f"- {_named(name, page, name in shown)}: {plain(said)}" for name, said in sorted(found)]
        lines.append("")
    return "\n".join(lines)


def _of(module: Path, page: Path) -> bool:
    "Whether a module was made from this page."
    return f"nbs/{page.name}" in module.read_text(encoding="utf-8")[:300]


def plain(
    said: str,   # a docstring
) -> str:        # Markdown
    "A docstring as text: no reference of another page in it."
    return REFERENCE.sub("", said).replace("<", "&lt;").replace("*", r"\*")


def _named(name: str, page: Path, shown: bool) -> str:
    "A name, linked where its chapter has an anchor for it."
    return f"[`{name}`]({page.name}#{api_anchor(name)})" if shown else f"`{name}`"


def api_anchor(
    name: str,   # of a function or class
) -> str:
    "Where nbdev's documentation of a name stands in its page."
    return name.lower()


def times_page(
    pages: list[Path],    # processed notebooks
    times: Path,          # CSV: chapter, seconds, profile, date
    results: Path,        # folder of recorded figures
) -> str:                 # Markdown
    "How long each chapter runs, and from what its figures are."
    taken = {row["chapter"]: row for row in csv.DictReader(times.read_text(encoding="utf-8").splitlines())}
    lines = [*head("Execution", "How long each chapter runs, and what its figures are from"), TIMES, "",
             "| chapter | seconds | profile | measured |", "|---|--:|---|---|"]
    for page in pages:
        row = taken.get(page.stem, {})
        seconds = f"{float(row['seconds']):.1f}" if row else "not measured"
        lines.append(f"| [{front(page)[0]}]({page.name}) | {seconds} | {row.get('profile', '')} "
                     f"| {row.get('date', '')} |")
    lines += ["", "## Recorded figures", "", RECORDED, "",
              "| record | figures | profile | made with |", "|---|--:|---|---|"]
    for path in sorted(results.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8")).get("results", [])
        profiles, versions = (", ".join(sorted({one.get(name, "") for one in found}))
                              for name in ("profile", "version"))
        lines.append(f"| {path.stem} | {len(found)} | {profiles} | {versions} |")
    return "\n".join([*lines, ""])


def project() -> dict:
    "What pyproject.toml says of the package: its version, and under `urls` where repository and site are."
    return tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))["project"]


def address() -> str:   # empty: none
    "Where the repository is, from `[project.urls]`, the one place that says so."
    return project().get("urls", {}).get("Repository", "").rstrip("/")


def book(
    config: dict,              # of `_quarto.yml`
    introductions: dict,       # part -> its words
    folder: Path,              # of processed notebooks; pages of parts are written there
    repository: str,           # address; empty: none
):
    "The configuration with the pages that are made here, the version, and links to the repository, if any."
    website = config["website"]
    contents, number = website["sidebar"]["contents"], 0
    for part in contents:
        if not isinstance(part, dict) or part["section"] not in introductions: continue
        number += 1
        chapters = [folder/name for name in part["contents"] if name.endswith(".ipynb")]
        page = f"part-{number}.qmd"
        words = part_page(number, part["section"], introductions[part["section"]], chapters)
        (folder/page).write_text(words, encoding="utf-8")
        part["href"] = page
    contents[-1]["contents"] += ["api.qmd", "execution.qmd"]
    website["navbar"]["left"].append({"text": "Functions", "href": "api.qmd"})
    footer = website["page-footer"]
    footer["left"] = footer["left"].replace("sslts_nb", f"sslts_nb {project()['version']}", 1)
    if site := project().get("urls", {}).get("Documentation"): website["site-url"] = site
    if repository: website |= {"repo-url": repository, "repo-actions": ["edit", "issue"]}


def prepare(
    folder: Path,      # `_proc`
):
    "All of it."
    repository = address()
    pages = sorted(folder.glob("[0-9]*.ipynb"))
    there = anchors(pages)
    for path in [*pages, folder/"index.ipynb"]:
        page = nbformat.read(path, as_version=4)
        dressed(page, bool(repository))
        for cell in page.cells:
            if cell.cell_type == "markdown": cell.source = unlinked(cell.source, there)
            for output in cell.get("outputs", []):
                if documented(cell):
                    output.data["text/markdown"] = unlinked(output.data["text/markdown"], there)
        nbformat.write(page, path)
    config = yaml.safe_load((folder/"_quarto.yml").read_text(encoding="utf-8"))
    book(config, yaml.safe_load((ROOT/"nbs"/"parts.yml").read_text(encoding="utf-8")), folder, repository)
    (folder/"_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder/"api.qmd").write_text(index_page(pages, ROOT/"sslts_nb"), encoding="utf-8")
    words = times_page(pages, ROOT/"nbs"/"times.csv", ROOT/"nbs"/"results")
    (folder/"execution.qmd").write_text(words, encoding="utf-8")


if __name__ == "__main__": prepare(Path(sys.argv[1]))

"""How the house is built: imports go one way, rooms are small, nothing private is shared, lines are short."""
import ast, json, re, subprocess, sys
from pathlib import Path

import nbformat, pytest
from house import (ROOT, code_cells, imported, module_of, module_tree, modules, notebooks, parsed, picture,
                   with_picture)

MODULES = modules()
CHAPTERS = [path for path in notebooks() if path.name != "index.ipynb"]  # it imports what it likes
MOST_LINES, MOST_CELLS, LONGEST_FUNCTION = 450, 70, 40
by_name = {"ids": lambda path: path.stem}


def code(notebook):
    "The code of a page as one tree."
    return ast.Module([node for source in code_cells(notebook) for node in parsed(source).body], [])


def exported(source):
    "Whether a cell goes into the module."
    return re.search(r"(?m)^#\|\s*exports?\b", source)


def test_each_notebook_is_listed_once_and_in_the_order_of_its_number():
    listed = [path.name for path in notebooks()]
    assert sorted(listed) == sorted(path.name for path in (ROOT/"nbs").glob("*.ipynb"))
    numbered = [name for name in listed if name[0].isdigit()]
    assert numbered == sorted(numbered)  # else the folder would tell another order than the book


def test_each_module_has_its_chapter():
    files = {path.stem for path in (ROOT/"sslts_nb").glob("*.py")} - {"__init__", "_modidx"}
    assert files == set(MODULES)


# Imports

@pytest.mark.parametrize("chapter", CHAPTERS, **by_name)
def test_imports_go_one_way(chapter):
    earlier = {module_of(path) for path in CHAPTERS[:CHAPTERS.index(chapter) + 1]} - {""}
    module = module_of(chapter)
    taken = {name for name, _ in imported(code(chapter))}
    if module: taken |= {name for name, _ in imported(module_tree(module))} - {module}
    assert taken <= earlier, f"{chapter.name} imports what comes later: {', '.join(sorted(taken - earlier))}"


def test_imports_are_found():
    named = imported(parsed("from sslts_nb.probes import splits\ndef f(): from .labels import Label"))
    assert named == [("probes", "splits"), ("labels", "Label")]
    whole = imported(parsed("import sslts_nb.candles as c\nfrom . import market"))
    assert whole == [("candles", ""), ("market", "")]
    assert imported(parsed("import numpy\nfrom torch.nn import Module\n%matplotlib inline")) == []
    alone = [name for name in MODULES if not imported(module_tree(name))]
    assert alone == ["inputs"]  # every other room stands on one before it


def test_the_picture_of_imports_is_of_today():
    text = (ROOT/"CONTRIBUTING.md").read_text()
    assert picture() in text and with_picture(text) == text, "`make export` draws it anew"


def private(tree):
    "Private names of other modules that a tree takes, by name or as an attribute of a module."
    nodes = list(ast.walk(tree))
    importing = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    aliases = [alias for node in importing for alias in node.names]
    whole = {alias.asname or alias.name for alias in aliases if alias.name.split(".")[-1] in MODULES}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = [name for _, name in imported(tree)]
    names += [node.attr for node in attributes if ast.unparse(node.value) in whole]
    return [name for name in names if name.startswith("_") and not name.endswith("__")]


@pytest.mark.parametrize("chapter", CHAPTERS, **by_name)
def test_nothing_private_crosses_a_module(chapter):
    assert private(code(chapter)) == []


def test_private_names_are_found():
    for source in ("from sslts_nb.settings import _BOUNDS, one_of",
                   "import sslts_nb.settings as s\ns._BOUNDS",
                   "from . import settings\nsettings._BOUNDS\nsettings.__all__\nself._own",
                   "import sslts_nb.settings\nsslts_nb.settings._BOUNDS"):
        assert private(parsed(source)) == ["_BOUNDS"], source


# Sizes

@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module):
    n_lines = len((ROOT/"sslts_nb"/f"{module}.py").read_text().splitlines())
    assert n_lines <= MOST_LINES, f"{module} has {n_lines} lines"


@pytest.mark.parametrize("chapter", CHAPTERS, **by_name)
def test_chapters_are_short(chapter):
    assert len(code_cells(chapter)) <= MOST_CELLS


def length(function):
    "Lines of a function's body, its docstring aside."
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return function.end_lineno - first.lineno + 1


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    functions = [node for node in ast.walk(module_tree(module)) if isinstance(node, ast.FunctionDef)]
    long = {node.name: length(node) for node in functions if length(node) > LONGEST_FUNCTION}
    assert long == {}


def public(source):
    "The public names that an exported cell defines; a method that is patched in belongs to its class."
    names = []
    for node in parsed(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            decorators = [ast.unparse(one) for one in node.decorator_list]
            if not any(one.startswith("patch") for one in decorators): names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = [one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            names += [one.id for one in found if isinstance(one.ctx, ast.Store)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


@pytest.mark.parametrize("chapter", MODULES.values(), **by_name)
def test_one_public_name_a_cell(chapter):
    names = [public(source) for source in code_cells(chapter) if exported(source)]
    assert [several for several in names if len(several) > 1] == []


def test_public_names_are_found():
    assert public("def f(): pass\nclass C: pass\nA, B = 1, 2\nD: int = 3\n_e = 4") == [*"fCABD"]
    assert public("import numpy\n@patch\ndef encode(self: C): x = 1\ndef _f(): pass") == []
    assert public("KINDS['a'] = [n for n in _names]") == []


# Lines and names: ruff, with the rules of pyproject.toml

def ruff(*arguments, folder=ROOT):
    "What ruff has to say, one line each."
    command = [str(Path(sys.executable).parent/"ruff"), "check", "--no-cache", "--output-format", "json"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return [f"{Path(one['filename']).name} {one['code']}" for one in json.loads(done.stdout)]


def test_ruff_reads_notebooks(tmp_path):
    cells = ["#| fig-cap: " + "a long caption "*20, "x = 1  # " + "long "*30, "import os", "print(nowhere)",
             "def f():\n    unused = 1\ndef f(): pass"]
    text = nbformat.v4.new_markdown_cell("a long paragraph "*20)
    book = nbformat.v4.new_notebook(cells=[text, *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(book, tmp_path/"a.ipynb")
    found = ruff("--config", str(ROOT/"pyproject.toml"), "a.ipynb", folder=tmp_path)
    assert sorted(found) == [f"a.ipynb {rule}" for rule in ("E501", "F401", "F811", "F821", "F841")]


def test_lines_are_short_and_names_are_used():
    assert ruff() == [], "`make lint` says where"

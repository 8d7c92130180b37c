"""The order of the book, and the picture of its imports in CONTRIBUTING.md: python tools/house.py"""
import ast, re
from functools import cache
from pathlib import Path

import nbformat, yaml
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
PICTURE = re.compile(r"(?s)(<!-- imports -->\n).*?(<!-- end of imports -->)")


def listed(
    contents,       # a part of `_quarto.yml`
) -> list[str]:     # names of notebooks, in its order
    "The notebooks in a list of pages and sections."
    if isinstance(contents, str): return [contents] if contents.endswith(".ipynb") else []
    if isinstance(contents, list): return [name for part in contents for name in listed(part)]
    return listed(contents.get("href", "")) + listed(contents.get("contents", []))


def notebooks() -> list[Path]:
    "Every page of the book that is a notebook, in the order of `_quarto.yml`."
    book = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
    return [ROOT/"nbs"/name for name in listed(book["website"]["sidebar"]["contents"])]


@cache
def code_cells(
    notebook: Path,  # a page of the book
) -> list[str]:      # sources
    "The code of a page, cell by cell."
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def module_of(
    notebook: Path,  # a page of the book
) -> str:            # empty: it exports nothing
    "The module that a page exports."
    found = re.search(r"(?m)^#\|\s*default_exp (\w+)", "\n".join(code_cells(notebook)))
    return found[1] if found else ""


def modules() -> dict[str, Path]:
    "Module -> its notebook, in the order of the book."
    return {module: notebook for notebook in notebooks() if (module := module_of(notebook))}


def parsed(
    source: str,    # of a cell or a module
) -> ast.Module:
    "Python's view of it; IPython's own lines (`%timeit`, `!ls`) become calls."
    return ast.parse(TransformerManager().transform_cell(source))


def imported(
    tree: ast.AST,                # of a cell or a module
) -> list[tuple[str, str]]:       # (module, name); an empty name is the module itself
    "What it takes from the modules of this package."
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name.split(".") for alias in node.names]
            found += [(path[1], "") for path in paths if path[0] == "sslts_nb" and len(path) > 1]
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if node.level: path = ["sslts_nb", *filter(None, path)]  # nbdev makes a module's imports relative
            if path[0] != "sslts_nb": continue
            if len(path) > 1: found += [(path[1], alias.name) for alias in node.names]
            else: found += [(alias.name, "") for alias in node.names if alias.name != "__version__"]
    return found


def module_tree(
    module: str,    # of this package
) -> ast.Module:
    "Python's view of an exported module."
    return parsed((ROOT/"sslts_nb"/f"{module}.py").read_text(encoding="utf-8"))


def picture() -> str:
    "A row for each module and a column for each that it imports: one way means nothing beyond the diagonal."
    names = list(modules())
    numbers, margin = [f"{number:2}" for number in range(1, len(names) + 1)], " "*(max(map(len, names)) + 4)
    lines = [margin + " ".join(number[digit] for number in numbers) for digit in (0, 1)]
    for row, name in enumerate(names):
        taken = {module for module, _ in imported(module_tree(name))}
        below = ["●" if other in taken else "·" for other in names[:row]]
        beyond = ["●" if other in taken else " " for other in names[row + 1:]]
        lines.append(f"{numbers[row]} {name}".ljust(len(margin)) + " ".join([*below, "■", *beyond]))
    return "\n".join(line.rstrip() for line in lines)


def with_picture(
    text: str,      # CONTRIBUTING.md
) -> str:
    "The text with today's picture between its two marks."
    return PICTURE.sub(lambda found: f"{found[1]}```text\n{picture()}\n```\n{found[2]}", text)


if __name__ == "__main__":
    page = ROOT/"CONTRIBUTING.md"
    page.write_text(with_picture(page.read_text(encoding="utf-8")), encoding="utf-8")

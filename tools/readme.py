"""README.md from nbs/index.ipynb, without Quarto: python tools/readme.py

Text cells as they are, outputs instead of code where a cell says `#| echo: false`, and links from the root.
"""
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def output_markdown(
    output,  # of a notebook cell
) -> str:    # what a reader sees of it
    "One output as markdown: markdown itself, else its plain text."
    data = output.get("data", {})
    return data.get("text/markdown") or data.get("text/plain") or output.get("text", "")


def cell_markdown(
    cell,    # of a notebook
) -> str:    # empty for a cell that shows nothing
    "One cell as markdown."
    if cell.cell_type == "markdown": return cell.source
    shown = "\n\n".join(filter(None, map(output_markdown, cell.outputs)))
    silent = re.search(r"(?m)^#\|\s*(echo:\s*false|hide)", cell.source)
    code = "" if silent else f"```python\n{cell.source}\n```\n\n"
    return (code + shown).strip()


def readme(
    notebook: Path = ROOT/"nbs"/"index.ipynb",  # the front page
) -> str:                                       # README.md
    "The front page as the repository shows it."
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n\n".join(filter(None, map(cell_markdown, cells)))
    text = re.sub(r"\)\{fig-alt=[^}]*\}", ")", text)  # Quarto's own
    text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", r"](nbs/\1)", text)
    return f"<!-- made by `make readme` from nbs/index.ipynb; edit that -->\n\n{text.strip()}\n"


if __name__ == "__main__": (ROOT/"README.md").write_text(readme(), encoding="utf-8")

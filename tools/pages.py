"""What Quarto leaves to be done on a built site, and what must not be on it: python tools/pages.py LOG FOLDER

Scripts of foreign hosts go; the notebooks, a line above each chapter that leads to its own, and llms.txt
come; tables, printed output, names and formulas say what they hold, so that site.scss can fit them to a
window. Then every warning of the build, foreign host, and dead link is printed, and any of them is an error.
"""
import html, re, shutil, sys
from pathlib import Path

from house import notebooks
from prepare import address

ROOT = Path(__file__).resolve().parent.parent
WARNING = re.compile(r"(?i)\bwarn(?:ing)?\b|\w+Warning\b|\berror\b|unable to resolve|could not be found")
# loaded by the page itself; what a reader may click is no matter
LOADED = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(?:https?:)?//([^/"]+)')
FOREIGN = re.compile(r'<script\b[^>]*\bsrc="https?://[^"]*(?:require|jquery)[^"]*"[^>]*>\s*</script>\n?'
                     r'|<script[^>]*>\s*define\(\'jquery\'[^<]*</script>\n?')

TITLE = re.compile(r'(?s)<header id="title-block-header".*?</header>\n?')
ACTIVE = re.compile(r'<a class="nav-link active" href="\./([\w-]+\.html)" aria-current="page">')
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TEXT = re.compile(r'(?s)<(t[dh])((?: data-quarto-table-cell-role="th"| style="[^"]*")?)>(.*?)(?=</t[dh]>)')
INTERVAL = re.compile(r"[-+\u2212.,:%±×/\[\]T 0-9]*[0-9][-+\u2212.,:%±×/\[\]T 0-9]*")   # or a time
SHORT, FEW, MANY = 17, 34, 24   # characters at most of a number and of an interval, at least of some words
WORD = re.compile(r"[^\W\d_]{2,}")
NAME = re.compile(r"(<h[34]\b[^>]*>)(\w+(?:\.\w+)*)(?=</h[34]>)")
FLAG = re.compile(r"(?<!<pre>)<code>(?=[^<]*-)([^<\n]{1,24})</code>")
PRINTED = re.compile(r"(?s)(?<=<pre>)<code>(.*?)</code>(?=</pre>)")
OPERATOR = re.compile(r"(<mi[^>]*>[a-z]{2,}</mi><mo>\u2061</mo></mrow>)(?!<mo|<mrow><mo|<msup><mo)")
HEAD = re.compile(r"(<th\b[^>]*>)([^<]*)(?=</th>)")
NUMBERED = re.compile(r'(?s)<figure class="[^"]*quarto-(?:sub)?float-tbl.*?</figure>')
HEADS = re.compile(r"(?s)<thead>.*?</thead>")
CELL = re.compile(r"(?s)<t[hd]\b([^>]*)>(.*?)</t[hd]>")
TABLE = re.compile(r'(?s)<table\b([^>]*\bclass=")([^>]*>.*?</table>)')
DENSE = {"denser": 118, "dense": 76}   # characters side by side, from which on letters are small
ZERO = re.compile(r"(?<=<td>)-(0(?:\.0+)?%?)(?=</td>)")
ROW = re.compile(r"(?s)<tr\b[^>]*>.*?</tr>\n?")
WHOLE = re.compile(r"(-?[0-9]+)\.0")
WORDS = {"NaN": "–", "True": "yes", "False": "no"}   # of cells: what pandas and Python say, in English
PYTHON = re.compile(rf"(<td\b[^>]*>)({'|'.join(WORDS)})(?=</td>)")
EQUATION = re.compile(r'<span id="(eq-[\w-]+)"><math')
CODE = re.compile(r'(?s)<pre class="sourceCode.*?</pre>')
CITED = re.compile(r'(?s)<span class="citation" data-cites="(\w+)">(.*?)</span>')
NAMED = re.compile(r"\D*(?:[0-9]{4}[a-z]?)?")   # a source in the text, without the place in it
# in code: an equation, or a source with a place in it
REFERRED = re.compile(r"@(eq-[\w-]+)|\[@(\w+)([^\]<@]*)\]")


def warnings(
    log: str,          # what the build said
) -> list[str]:        # its warnings, each once
    "Lines of a build that are no progress; Quarto writes some of them in colour."
    lines = [COLOUR.sub("", line).strip() for line in log.splitlines()]
    return list(dict.fromkeys(line for line in lines if WARNING.search(line)))


def stripped(
    page: str,   # HTML
) -> str:
    "A page without the scripts that notebooks ask foreign hosts for and that nothing here uses."
    return FOREIGN.sub("", page)


def marked(
    page: str,   # HTML
    name: str,   # of its file
) -> str:
    "A page whose bar marks the page itself alone; Quarto marks whatever shares the sidebar with it."
    return ACTIVE.sub(lambda link: link[0] if link[1] == name else f'<a class="nav-link" href="./{link[1]}">',
                      page)


def one_head(
    page: str,   # HTML
) -> str:
    "A page whose tables say in one line what rows and columns are; pandas has a line for the rows alone."
    def merged(part):
        rows = ROW.findall(part[0])
        above, below = map(CELL.findall, rows[-2:] if len(rows) > 1 else ("", ""))
        apart = not any(one[1] and other[1] for one, other in zip(above, below))
        if not above or len(above) != len(below) or not apart: return part[0]
        cells = "\n".join(f"<th{one[0]}>{one[1] or other[1]}</th>" for one, other in zip(above, below))
        return "\n".join(["<thead>", *rows[:-2], '<tr class="header">', cells, "</tr>", "</thead>"])
    return HEADS.sub(merged, page)


def counted(
    page: str,   # HTML
) -> str:
    "A page whose numbered tables count in whole numbers; pandas writes 60.0 where a column lacks one."
    def plain_counts(table):
        rows = [CELL.findall(row) for row in ROW.findall(table[0].partition("</thead>")[2])]
        columns: dict[int, list[str]] = {}   # from the right, since a name may go on for several rows
        for row in rows:
            for at, (_, text) in enumerate(reversed(row)): columns.setdefault(at, []).append(text)
        numbers = {at: [text for text in texts if text not in ("", "NaN")] for at, texts in columns.items()}
        whole = {at for at, texts in numbers.items() if len(texts) > 1 and all(map(WHOLE.fullmatch, texts))}
        def cells(row):
            left = iter(range(len(CELL.findall(row[0])) - 1, -1, -1))
            said = lambda cell: WHOLE.sub(r"\1", cell[0]) if next(left) in whole else cell[0]
            return CELL.sub(said, row[0])
        head, _, body = table[0].partition("</thead>")
        return head + "</thead>" + ROW.sub(cells, body) if whole else table[0]
    return NUMBERED.sub(lambda table: TABLE.sub(plain_counts, table[0]), page)


def in_english(
    page: str,   # HTML
) -> str:
    "A page whose numbered tables say yes, no, and that there is nothing; heads of frames stay Python's."
    said = lambda table: PYTHON.sub(lambda cell: cell[1] + WORDS[cell[2]], table[0])
    return NUMBERED.sub(said, page)


def referred(
    page: str,   # HTML
) -> str:
    "A page whose code names equations and sources as its text does."
    equations = {name: number for number, name in enumerate(EQUATION.findall(page), 1)}
    cited = {key: NAMED.match(_plain(text).replace("(", ""))[0] for key, text in CITED.findall(page)}
    def said(found):
        if number := equations.get(found[1]): return f"Equation {number}"
        return f"({cited[found[2]]}{found[3]})" if found[2] in cited else found[0]
    return CODE.sub(lambda code: REFERRED.sub(said, code[0]), page)


def told_apart(
    page: str,   # HTML
) -> str:
    "A page that says which cells are numbers and are never broken, and which longer ones intervals or words."
    def named(cell):
        tag, given, text = cell[1], cell[2], _plain(cell[3])
        interval = bool(INTERVAL.fullmatch(text)) and len(text) <= FEW
        if tag == "th": word = "number" if interval else ""     # a bar's number or its time is no name
        elif len(text) <= SHORT and re.search(r"\d", text): word = "number"
        elif interval: word = "interval"
        elif len(WORD.findall(text)) < 3: word = ""
        else: word = "prose" if len(text) > 4*MANY else "words" if len(text) > MANY else ""
        return f'<{tag}{given} class="{word}">{cell[3]}' if word else cell[0]
    return TEXT.sub(named, page)


def lined_up(
    page: str,   # HTML
) -> str:
    "A page that says which printed output is a table; on a phone it must not be broken into lines."
    def named(found):
        columns = [line for line in found[1].splitlines() if re.search(r"\S {2,}\S", line)]
        return f'<code class="columns">{found[1]}</code>' if len(columns) > 2 else found[0]
    return PRINTED.sub(named, page)


def spaced(
    page: str,   # HTML
) -> str:
    "A page whose formulas have a space after a function's name where no bracket follows: ln 2."
    return OPERATOR.sub(r'\1<mspace width="0.167em"></mspace>', page)


def unsigned(
    page: str,   # HTML
) -> str:
    "A page whose tables give no sign to what is zero after rounding."
    return ZERO.sub(r"\1", page)


def worded(
    page: str,   # HTML
) -> str:
    "A page whose numbered tables have words above their columns: log loss for log_loss; r2, low for r2_low."
    said = lambda name: re.sub(r"_(low|high|se|sd)$", r", \1", name).replace("_", " ")
    heads = lambda part: HEAD.sub(lambda head: head[1] + said(head[2]), part[0])
    return NUMBERED.sub(lambda table: HEADS.sub(heads, table[0]), page)


def breakable(
    page: str,   # HTML
) -> str:
    "A page where a column's or a method's name, such as balanced_accuracy, may go on in a second line."
    page = HEAD.sub(lambda head: head[1] + re.sub(r"(?<=\w)_(?=\w)", "_<wbr>", head[2]), page)
    return NAME.sub(lambda head: head[1] + re.sub(r"(?<=\w)([._])(?=\w)", r"\1<wbr>", head[2]), page)


def whole_flags(
    page: str,   # HTML
) -> str:
    "A page whose short commands are not broken after a dash."
    return FLAG.sub(r'<code class="flag">\1</code>', page)


def least_width(
    table: str,   # HTML, after `told_apart`
) -> int:         # characters
    "How much stands side by side in a table that is as narrow as its words and numbers allow."
    columns: dict[int, int] = {}
    for row in re.findall(r"(?s)<tr\b.*?</tr>", table):
        at = 0   # counted from the right: a name that goes on for several rows is at the left
        for said, text in reversed(CELL.findall(row)):
            span = re.search(r'colspan="?([0-9]+)', said)
            at += int(span[1]) if span else 1
            if span and int(span[1]) > 1: continue
            words = re.split(r"[\s-]+", _plain(text.replace("<wbr>", " ")))
            if 'class="number"' in said: words = [text]   # is not broken into lines
            columns[at] = max(columns.get(at, 0), *map(len, words))
    return sum(columns.values()) + 2*len(columns)


def fitted(
    page: str,   # HTML
) -> str:
    "A page whose wide tables have small letters, so that none is wider than its column."
    def small(found):
        width = least_width(found[0])
        size = next((f"{name} " for name, least in DENSE.items() if width > least), "")
        return f"<table{found[1]}{size}{found[2]}"
    return TABLE.sub(small, page)


DRESSED = (one_head, counted, in_english, referred, worded, unsigned, told_apart, breakable, fitted, lined_up,
           spaced, whole_flags)


def foreign_hosts(
    page: str,          # HTML
) -> set[str]:
    "Hosts from which a page loads something."
    kept = re.sub(r'<link\b[^>]*\brel="(?:canonical|next|prev|alternate)"[^>]*>', "", page)
    return set(LOADED.findall(kept))


def anchors(
    page: str,         # HTML
) -> set[str]:
    "What a link can point to within a page."
    return {html.unescape(name) for name in re.findall(r'\b(?:id|name)="([^"]+)"', page)}


def dead_links(
    folder: Path,       # of the site
) -> list[str]:         # page: link
    "Links within the site that lead nowhere, their anchors included."
    pages = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    there = {path: anchors(page) for path, page in pages.items()}
    dead = []
    for path, page in pages.items():
        for link in set(re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', page)):
            if re.match(r"[a-z]+:|//", link) or link in ("", "#"): continue
            name, _, anchor = html.unescape(link).partition("#")
            target = Path(*(path.parent/name).parts) if name else path
            target = Path(*_without_dots(target))
            if not (folder/target).exists(): dead.append(f"{path}: {link}")
            elif anchor and target in there and anchor not in there[target]: dead.append(f"{path}: {link}")
    return sorted(dead)


def _without_dots(path: Path) -> list[str]:
    "The parts of a relative path after its dots are followed."
    parts: list[str] = []
    for part in path.parts:
        if part == "..": parts = parts[:-1]
        elif part != ".": parts.append(part)
    return parts


def titles(
    folder: Path,                    # of the site
) -> list[tuple[str, str, str]]:     # address, title, subtitle
    "Every page, in the order of the sidebar."
    front = (folder/"index.html").read_text(encoding="utf-8")
    order = re.findall(r'href="\./([\w-]+\.html)" class="sidebar-item-text', front)
    found = []
    for name in dict.fromkeys(order):
        page = (folder/name).read_text(encoding="utf-8")
        title = re.search(r'<h1 class="title">(.*?)</h1>', page, re.S)
        said = re.search(r'<meta name="description" content="([^"]*)"', page)
        found.append((name, _plain(title[1]) if title else name, _plain(said[1]) if said else ""))
    return found


def _plain(text: str) -> str:
    "Text without tags and entities."
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()


def llms(
    folder: Path,   # of the site
) -> str:
    "The pages with their subtitles, for programs that read (llmstxt.org)."
    lines = [f"- [{title}]({name}){f': {said}' if said else ''}" for name, title, said in titles(folder)]
    head = ["# sslts_nb", "", "> Self-supervised learning for financial time series: a book that runs", "",
            "## Pages", ""]
    return "\n".join([*head, *lines, ""])


def with_line(
    page: str,         # HTML
    notebook: str,     # name of the file that it was made from
    repository: str,   # address; empty: none
) -> str:
    "A chapter with a line under its title: the notebook itself, and where it can be run."
    links = [f'<a href="notebooks/{notebook}" download>Notebook</a>']
    if found := re.match(r"https://github\.com/([^/]+/[^/]+)$", repository):
        place = f"https://colab.research.google.com/github/{found[1]}/blob/main/nbs/{notebook}"
        links.append(f'<a href="{place}">Open in Colab</a>')
    line = f'<p class="chapter-line">{" · ".join(links)}</p>\n'
    if 'class="chapter-line"' in page: return page
    return TITLE.sub(lambda found: found[0] + line, page, count=1)


def add_notebooks(
    folder: Path,      # of the site
    repository: str,   # address; empty: none
):
    "The chapters as notebooks, and the lines that lead to them."
    (folder/"notebooks").mkdir(exist_ok=True)
    for notebook in notebooks():
        path = folder/f"{re.sub(r'^[0-9]+_', '', notebook.stem)}.html"
        if not path.exists(): continue
        shutil.copyfile(notebook, folder/"notebooks"/notebook.name)
        page = path.read_text(encoding="utf-8")
        path.write_text(with_line(page, notebook.name, repository), encoding="utf-8")


def finish(
    log: str,       # what the build said
    folder: Path,   # of the site
) -> list[str]:     # all that is wrong
    "Strip and add, then look."
    wrong = warnings(log)
    add_notebooks(folder, address())
    for path in folder.rglob("*.html"):
        page = marked(stripped(path.read_text(encoding="utf-8")), path.name)
        for dress in DRESSED: page = dress(page)
        path.write_text(page, encoding="utf-8")
        wrong += [f"{path.relative_to(folder)}: loads from {host}" for host in sorted(foreign_hosts(page))]
    (folder/"llms.txt").write_text(llms(folder), encoding="utf-8")
    return wrong + [f"dead link, {line}" for line in dead_links(folder)]


if __name__ == "__main__":
    found = finish(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]))
    print(*found, sep="\n")
    print(f"{len(found)} things are wrong with the site" if found else "the site is in order")
    sys.exit(bool(found))

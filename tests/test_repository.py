"""The book as a whole: package, notebooks, pages, front page and commands agree with each other."""
import ast, inspect, json, os, re, shlex, shutil, subprocess, sys, zipfile
from dataclasses import fields
from pathlib import Path

import nbformat, pandas as pd, pytest
from fastcore.docments import docments
from IPython.core.inputtransformer2 import TransformerManager
from house import ROOT, modules, notebooks
from readme import readme
from sslts_nb.baselines import STRONG
from sslts_nb.market import simulate_market

NOTEBOOKS = notebooks()
MODULES = modules()


def tool(name, *arguments, folder):
    "Run a tool of this environment in `folder`."
    here = Path(sys.executable).parent
    done = subprocess.run([str(here/name), *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PATH": f"{here}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(*which):
    "Names of the repository's files."
    command = ["git", "ls-files", *which]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The files of the repository, tracked or new, in a folder of their own."
    folder = tmp_path_factory.mktemp("copy")/"book"
    for name in files("-co", "--exclude-standard"):
        if not (ROOT/name).exists(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, folder/name, follow_symlinks=False)
    return folder


def changed(copy, pattern):
    "Files that differ from the repository's."
    names = [path.relative_to(copy) for path in sorted(copy.glob(pattern))]
    return [str(name) for name in names
            if not (ROOT/name).exists() or (copy/name).read_bytes() != (ROOT/name).read_bytes()]


def test_package_is_what_the_notebooks_export(copy):
    for path in (copy/"sslts_nb").glob("*.py"):
        if path.name != "__init__.py": path.unlink()
    tool("nbdev-export", folder=copy)
    made, kept = ({path.name for path in (root/"sslts_nb").glob("*.py")} for root in (copy, ROOT))
    assert made == kept
    assert changed(copy, "sslts_nb/*.py") == []


def test_notebooks_are_clean(copy):
    tool("nbdev-clean", folder=copy)
    assert changed(copy, "nbs/*.ipynb") == []


@pytest.mark.slow
def test_wheel_installs_and_imports_elsewhere(copy, tmp_path):
    tool("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path/"dist"), folder=copy)
    (wheel,) = (tmp_path/"dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {"sslts_nb/settings.ini", "sslts_nb/page.html", *(f"sslts_nb/{module}.py" for module in MODULES)}
    assert wanted <= set(names)
    site = str(tmp_path/"site")
    tool("pip", "install", "--quiet", "--no-deps", "--target", site, str(wheel), folder=tmp_path)
    code = ("import importlib, sslts_nb, sslts_nb.settings as s\n"
            f"for name in {list(MODULES)}: importlib.import_module('sslts_nb.' + name)\n"
            "print(sslts_nb.__file__); assert s.load_settings(profile='full').horizon == 5\n"
            "from sslts_nb.bundle import pretrained; pretrained('hours-small')")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSLTS_")}
    clean["PYTHONPATH"] = site
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(site)


def test_links():
    assert os.readlink(ROOT/"nbs"/"_quarto.yml") == "../_quarto.yml"
    assert os.readlink(ROOT/"sslts_nb"/"settings.ini") == "../settings.ini"


def cells(path, kind):
    "The cells of one kind of a notebook."
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def texts(path):
    "Markdown, code and captions of a notebook, one string."
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_cross_references_and_citations_have_targets():
    keys = set(re.findall(r"@\w+\{(\w+),", (ROOT/"nbs"/"references.bib").read_text()))
    labels, cited = [], set()
    for path in NOTEBOOKS:
        source = texts(path)
        here = re.findall(r"#\| label: (\S+)", source) + re.findall(r"\{#((?:eq|fig|tbl|sec)-[\w-]+)", source)
        labels += here
        prose = re.sub(r"`[^`]*`", "", source)
        # a capital begins a sentence
        for kind, name in re.findall(r"(?<![\w.`@])@([Ee]q|[Ff]ig|[Tt]bl|[Ss]ec)(-[\w-]*\w)", prose):
            assert kind.lower() + name in here, f"{path.name}: @{kind}{name} has no target in its chapter"
        cited |= set(re.findall(r"[\[;\s]@([a-z]+\d{4}\w*)", prose))
    assert len(labels) == len(set(labels)), "a label is used twice"
    assert cited <= keys, f"not in references.bib: {sorted(cited - keys)}"
    assert keys <= cited, f"in references.bib but never cited: {sorted(keys - cited)}"
    assert len(labels) > 20 and len(cited) > 8  # the patterns above do find something


def test_links_between_pages_exist():
    for path in NOTEBOOKS:
        prose = "\n".join(cell.source for cell in cells(path, "markdown"))
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", prose):
            assert (path.parent/target.split("#")[0]).exists(), f"{path.name}: {target}"


def test_figures_have_caption_and_alternative_text():
    for path in NOTEBOOKS:
        for source in (cell.source for cell in cells(path, "code") if "#| label: fig-" in cell.source):
            assert "#| fig-cap:" in source and "#| fig-alt:" in source, f"{path.name}: {source[:60]}"


def test_outputs_are_real_and_carry_no_machine():
    for path in NOTEBOOKS:
        outputs = [output for cell in cells(path, "code") for output in cell.outputs]
        assert outputs, f"{path.name} was never executed"
        for output in outputs:
            assert output.output_type != "error", path.name
            data = output.get("data", {})
            shown = {kind: data[kind] for kind in data if not kind.startswith("image")}
            text = json.dumps(shown) + str(output.get("text", ""))
            machine = r"/(?:work|home|root|tmp|usr|opt|mnt|var|Users)/|site-packages"
            assert not re.search(machine, text), f"{path.name}: {text[:200]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_stand_alone(path):
    "To render a page nbdev executes every cell with an import, and what else stands there misses its names."
    for cell in cells(path, "code"):
        if re.search(r"(?m)^#\|\s*exports?\b", cell.source) or "nbdev_export()" in cell.source: continue
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        alone = all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
        assert alone or not imports, f"{path.name}: {ast.unparse(imports[0])} stands with other code"


def test_readme_is_the_front_page():
    text = (ROOT/"README.md").read_text()
    assert text == readme()
    for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text): assert (ROOT/target).exists(), target


def test_readme_commands_exist():
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT/"Makefile").read_text()))
    blocks = "\n".join(re.findall(r"(?s)```sh\n(.*?)```", (ROOT/"README.md").read_text()))
    text = (ROOT/"README.md").read_text() + (ROOT/"CONTRIBUTING.md").read_text()
    used = re.findall(r"(?m)(?:^|`)make (\w+)", text)
    assert {"run", "test"} <= set(re.findall(r"(?m)^make (\w+)", blocks)) <= set(used) <= targets
    from sslts_nb.cli import read_arguments
    for line in re.findall(r"(?m)(?:^|`)sslts ([^`\n]+)", text):
        read_arguments(shlex.split(line))  # refuses what it does not know
    variables = re.findall(r"(?m)^([A-Z_]+) \?=", (ROOT/"Makefile").read_text())
    for name in re.findall(r"\b([A-Z_]+)=", blocks):
        assert name.startswith("SSLTS_") or name in variables, name


@pytest.mark.slow
def test_readme_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"candles").mkdir()
    (candles,) = simulate_market(1, end=pd.Timestamp("2024-04", tz="UTC")).candles.values()
    candles.to_parquet("candles/BTCUSDT-60.parquet")
    blocks = re.findall(r"(?s)```python\n(.*?)```", (ROOT/"README.md").read_text())
    forecast, own = blocks
    exec(forecast, {})
    assert "volatility" in capsys.readouterr().out
    exec(own, {})
    shown = capsys.readouterr().out
    assert all(row in shown for row in (STRONG, "random weights", "CPC"))


def test_ci_runs_make_test():
    lines = (ROOT/".ci"/"run").read_text().split("\n")
    assert [line for line in lines if line.startswith("make")] == ["make test"]
    assert os.access(ROOT/".ci"/"run", os.X_OK)


def methods(kind):
    "The public methods of a class that this package writes."
    own = [value for name, value in vars(kind).items() if not name.startswith("_")]
    return [value for value in own if inspect.isfunction(value) and value.__module__.startswith("sslts_nb")]


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module):
    namespace = __import__(f"sslts_nb.{module}", fromlist=["*"])
    for name in namespace.__all__:
        thing = getattr(namespace, name)
        if not callable(thing) or isinstance(thing, dict): continue
        assert thing.__doc__, f"{module}.{name}"
        for function in methods(thing) if isinstance(thing, type) else [thing]:
            parameters = inspect.signature(function).parameters.values()
            without = {"self"} | {p.name for p in parameters if p.kind is p.VAR_KEYWORD}  # docments: no place
            for parameter, comment in docments(function, returns=False).items():
                where = f"{module}.{function.__qualname__}: {parameter} is not documented"
                assert comment or parameter in without, where


def test_no_pickle_in_the_package():
    pickling = (r"^\s*(?:import|from) (?:pickle|dill)", r"\bjoblib\.", r"^\s*import joblib",
                r"^\s*from joblib import .*\b(?:dump|load|Memory)\b", r"torch\.(?:load|save)\(",
                "allow_pickle", "read_pickle")
    for path in (ROOT/"sslts_nb").glob("*.py"):
        found = re.search("|".join(pickling), path.read_text(), re.M)
        assert not found, f"{path.name}: {found[0]}"


def test_settings_file_is_complete_and_holds_nothing_else():
    from sslts_nb.settings import Settings, read_settings_file
    given = read_settings_file(ROOT/"settings.ini")
    names = [field.name for field in fields(Settings) if field.name not in ("profile", "folder")]
    quick = given.pop("quick")
    assert sorted(name for section in given.values() for name in section) == sorted(names)
    assert set(quick) <= set(names)


def test_constraints_cover_the_dependencies():
    import tomllib
    project = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]
    plain = lambda requirement: re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")
    pinned = {plain(line) for line in (ROOT/"constraints.txt").read_text().split("\n") if "==" in line}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {plain(one) for one in wanted} <= pinned


def test_recorded_market_data_is_not_committed():
    assert not [name for name in files() if name.endswith((".parquet", ".feather"))]


def test_first_cell_holds_title_and_subtitle_only():
    "nbdev makes the first cell front matter: whatever follows the subtitle there never reaches the site."
    for path in NOTEBOOKS:
        first = nbformat.read(path, 4).cells[0].source
        assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+", first), f"{path.name}: {first[:200]!r}"

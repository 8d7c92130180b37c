"""The book as a whole: package, notebooks, pages, front page and commands agree with each other."""
import ast, inspect, json, os, re, shlex, shutil, subprocess, sys, zipfile
from dataclasses import fields
from pathlib import Path

import nbformat, pytest
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
MODULES = {path.stem.split("_", 1)[1]: path.stem for path in CHAPTERS}  # module -> chapter, in the order of the book


def tool(name, *arguments, folder):
    "Run a tool of this environment in `folder`."
    done = subprocess.run([str(Path(sys.executable).parent/name), *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The files of the repository, tracked or new, in a folder of their own."
    folder = tmp_path_factory.mktemp("copy")/"book"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if not (ROOT/name).exists(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, folder/name, follow_symlinks=False)
    return folder


def changed(copy, pattern):
    "Files that differ from the repository's."
    return [str(path.relative_to(copy)) for path in sorted(copy.glob(pattern))
            if not (ROOT/path.relative_to(copy)).exists() or path.read_bytes() != (ROOT/path.relative_to(copy)).read_bytes()]


def test_package_is_what_the_notebooks_export(copy):
    for path in (copy/"sslts_nb").glob("*.py"):
        if path.name != "__init__.py": path.unlink()
    tool("nbdev-export", folder=copy)
    assert {p.name for p in (copy/"sslts_nb").glob("*.py")} == {p.name for p in (ROOT/"sslts_nb").glob("*.py")}
    assert changed(copy, "sslts_nb/*.py") == []


def test_notebooks_are_clean(copy):
    tool("nbdev-clean", folder=copy)
    assert changed(copy, "nbs/*.ipynb") == []


def test_wheel_installs_and_imports_elsewhere(copy, tmp_path):
    tool("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path/"dist"), folder=copy)
    (wheel,) = (tmp_path/"dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "sslts_nb/settings.ini" in names and {f"sslts_nb/{module}.py" for module in MODULES} <= set(names)
    tool("pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path/"site"), str(wheel), folder=tmp_path)
    code = ("import importlib, sslts_nb, sslts_nb.settings as s\n"
            f"for name in {list(MODULES)}: importlib.import_module('sslts_nb.' + name)\n"
            "print(sslts_nb.__file__); assert s.load_settings(profile='full').horizon == 5")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSLTS_")} | {"PYTHONPATH": str(tmp_path/"site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path/"site"))


def test_links():
    assert os.readlink(ROOT/"nbs"/"_quarto.yml") == "../_quarto.yml"
    assert os.readlink(ROOT/"sslts_nb"/"settings.ini") == "../settings.ini"


def test_every_chapter_is_in_the_sidebar_and_in_order():
    listed = re.findall(r"[\w]+\.ipynb", (ROOT/"_quarto.yml").read_text())
    assert listed == ["index.ipynb", *[path.name for path in CHAPTERS]]


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
        for kind, name in re.findall(r"(?<![\w.`@])@([Ee]q|[Ff]ig|[Tt]bl|[Ss]ec)(-[\w-]*\w)", prose):  # a capital begins a sentence
            assert kind.lower() + name in here, f"{path.name}: @{kind}{name} has no target in its chapter"
        cited |= set(re.findall(r"[\[;\s]@([a-z]+\d{4}\w*)", prose))
    assert len(labels) == len(set(labels)), "a label is used twice"
    assert cited <= keys, f"not in references.bib: {sorted(cited - keys)}"
    assert keys <= cited, f"in references.bib but never cited: {sorted(keys - cited)}"
    assert len(labels) > 20 and len(cited) > 8  # the patterns above do find something


def test_links_between_pages_exist():
    for path in NOTEBOOKS:
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")):
            assert (path.parent/target.split("#")[0]).exists(), f"{path.name}: {target}"


def test_figures_have_caption_and_alternative_text():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            if "#| label: fig-" in cell.source: assert "#| fig-cap:" in cell.source and "#| fig-alt:" in cell.source, f"{path.name}: {cell.source[:60]}"


def test_outputs_are_real_and_carry_no_machine():
    for path in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in cells), f"{path.name} was never executed"
        for output in (output for cell in cells for output in cell.outputs):
            assert output.output_type != "error", path.name
            text = json.dumps({k: v for k, v in output.get("data", {}).items() if not k.startswith("image")}) + str(output.get("text", ""))
            assert not re.search(r"/(?:work|home|root|tmp|usr|opt|mnt|var|Users)/|site-packages", text), f"{path.name}: {text[:200]}"


def test_readme_is_the_front_page():
    sys.path.insert(0, str(ROOT/"tools"))
    from readme import readme
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
    for line in re.findall(r"(?m)(?:^|`)sslts ([^`\n]+)", text): read_arguments(shlex.split(line))  # refuses what it does not know
    for name in re.findall(r"\b([A-Z_]+)=", blocks): assert name.startswith("SSLTS_") or re.search(rf"(?m)^{name} \?=", (ROOT/"Makefile").read_text()), name


def test_ci_runs_make_test():
    assert [line for line in (ROOT/".ci"/"run").read_text().split("\n") if line.startswith("make")] == ["make test"]
    assert os.access(ROOT/".ci"/"run", os.X_OK)


def imports(module):
    "Modules of this package that `module` imports."
    tree = ast.parse((ROOT/"sslts_nb"/f"{module}.py").read_text())
    named = ["." * node.level + (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]  # nbdev makes them relative
    return {found[1] for name in named if (found := re.match(r"(?:sslts_nb)?\.(\w+)", name))}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    order = list(MODULES)
    assert module == order[0] or imports(module)  # else nothing was found to check
    for other in imports(module): assert order.index(other) < order.index(module), f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module):
    namespace = __import__(f"sslts_nb.{module}", fromlist=["*"])
    for name in namespace.__all__:
        thing = getattr(namespace, name)
        if not callable(thing) or isinstance(thing, dict): continue
        assert thing.__doc__, f"{module}.{name}"
        own = [thing] if not isinstance(thing, type) else [value for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")
                                                           and value.__module__.startswith("sslts_nb")]
        for function in own:
            variadic = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD}  # docments knows no comment there
            for parameter, comment in docments(function, returns=False).items():
                assert comment or parameter in variadic | {"self"}, f"{module}.{function.__qualname__}: {parameter} is not documented"


def test_no_pickle_in_the_package():
    for path in (ROOT/"sslts_nb").glob("*.py"):
        assert not re.search(r"(?m)^\s*(?:import|from) (?:pickle|dill)|\bjoblib\.|^\s*(?:import joblib|from joblib import .*\b(?:dump|load|Memory)\b)|torch\.(?:load|save)\(|allow_pickle|read_pickle", path.read_text()), path.name


def test_settings_file_is_complete_and_holds_nothing_else():
    from sslts_nb.settings import Settings, read_settings_file
    given = read_settings_file(ROOT/"settings.ini")
    names = [field.name for field in fields(Settings) if field.name not in ("profile", "folder")]
    assert sorted([*given["data"], *given["study"]]) == sorted(names)
    assert set(given["quick"]) <= set(names)


def test_constraints_cover_the_dependencies():
    import tomllib
    project = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT/"constraints.txt").read_text().split("\n") if "==" in line}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for name in (re.match(r"[\w-]+", one)[0].lower().replace("_", "-") for one in wanted): assert name in pinned, name


def test_recorded_market_data_is_not_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in tracked if name.endswith((".parquet", ".feather"))]


def test_first_cell_holds_title_and_subtitle_only():
    "nbdev turns the whole first cell into front matter: whatever follows the subtitle there never reaches the site."
    for path in NOTEBOOKS:
        first = nbformat.read(path, 4).cells[0].source
        assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+", first), f"{path.name}: {first[:200]!r}"

"""Processes that begin with the large libraries imported and nothing of this package.

Importing torch, pandas and scikit-learn takes each new process two to three seconds. Here one server has done
it, and every program runs in a fork of it: with its own folder, environment, path and output, as if Python
had been started for it. What is about starting itself (what is imported, how long it takes, signals) has to
start Python.
"""
import atexit, json, os, subprocess, sys, tempfile
from functools import cache
from pathlib import Path

# no module of this package, and nothing that starts a thread
LIBRARIES = ("torch", "torch._dynamo", "pandas", "scipy.stats", "sklearn.ensemble", "sklearn.pipeline",
             "huggingface_hub", "safetensors.torch", "fastcore.basics", "matplotlib.pyplot",
             "statsmodels.tsa.stattools")


def execute(said):
    "In the fork: become the program."
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(said["environment"])
    os.chdir(said["folder"])
    sys.path[:] = [""] + [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one] + BASE
    if said["module"]:
        import runpy
        sys.argv = ["-m", *said["arguments"]]
        runpy.run_module(said["module"], run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *said["arguments"]]
        sys.modules["__main__"].__dict__.update(vars(type(sys)("__main__")))
        exec(compile(said["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)


def ended(said) -> int:
    "In the fork: the program's exit status, its last words written."
    import traceback
    try: execute(said)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int): return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve():
    "The server: a line of JSON in, a fork, the fork's exit status out."
    for name in LIBRARIES: __import__(name)
    for line in sys.stdin:
        if not (pid := os.fork()):
            status = ended(json.loads(line))
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr): stream.flush()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


@cache
def server() -> subprocess.Popen:
    "The server of this process, started once."
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipe = subprocess.PIPE
    one = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=clean)
    atexit.register(one.kill)
    return one


def run(code="", *arguments, module="", folder=".", environment=None) -> subprocess.CompletedProcess:
    "A program, or a module as `python -m` runs it, to its end; what it printed as text."
    with tempfile.TemporaryDirectory() as place:
        said = {name: f"{place}/{name}" for name in ("stdout", "stderr")}
        said |= {"code": code, "module": module, "arguments": [*map(str, arguments)],
                 "folder": str(Path(folder).resolve()), "environment": dict(environment or os.environ)}
        server().stdin.write(json.dumps(said) + "\n")
        server().stdin.flush()
        status = int(server().stdout.readline())
        told = [Path(said[name]).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([module or "-c", *arguments], status, *told)


if __name__ == "__main__":
    BASE = [one for one in sys.path if one != str(Path(__file__).parent)]
    serve()

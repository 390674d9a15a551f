"""How the tests are run against one backend at a time.

`--backend NAME` chooses it. A test that uses an engine, or the command line with a backend, is marked `backend`;
`-m backend` leaves the others out, which need no framework and so need to run only once. `only_backend(NAME)` is for what
concerns one backend: elsewhere such a test is not collected at all. `environment_of(NAME)` is for what needs a package that only
some backends' environments have, and no backend: there it runs once, too. A backend that is missing fails, it never skips.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Before any framework is loaded: tiny tensors are slower on several threads, and sums then have one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from crossdistil.backends.registry import BACKENDS, load_engine
from crossdistil.core import plugin_files, registered
from crossdistil.core.app import cli as command_line
from crossdistil.core.app import run_latency, waiting
from crossdistil.core.engine import EngineOptions
from crossdistil.core.kinds.known_kinds import KINDS
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.known_families import restore_families
from crossdistil.tests import tiny

# What a test sees does not hang on how busy the machine is.
waiting.PATIENCE_SECONDS = 3600.0

# A shell's background process ignores it, and what that starts does too: no test of an interruption would see one.
signal.signal(signal.SIGINT, signal.default_int_handler)

BACKEND_FIXTURES = {"backend_name", "make_engine", "engine"}
NAMES_BACKEND = re.compile(r"\b(?:backend_name|make_engine|engine|only_backend|torch_only|mark\.backend)\b")
"""What is in every file that has a test of `-m backend`."""


def pytest_addoption(parser):
    parser.addoption("--backend", default="torch", choices=list(BACKENDS), help="the framework to test")
    parser.addoption("--device", default="cpu", help="the device to test it on")
    parser.addoption("--part", default="1/1", metavar="K/N", help="of each N files of tests, by their names, the Kth")


def pytest_configure(config):
    # The backends' tests run beside each other: where two that end at once clean one folder, pytest fails (its
    # cleanup_dead_symlinks). So each has its own.
    part = config.getoption("--part").partition("/")[0]
    root = Path(tempfile.gettempdir()) / f"crossdistil-{os.getuid()}-{config.getoption('--backend')}-{part}"
    root.mkdir(exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(root))
    config.addinivalue_line("markers", "only_backend(*names): left out unless --backend is one of the names")
    config.addinivalue_line("markers", "environment_of(*names): the same, of what needs no backend but their environment")


def pytest_ignore_collect(collection_path, config):
    """With `-m backend`, files without such a test are not even imported: that takes seconds."""
    if not collection_path.match("test_*.py"):
        return None
    part, parts = map(int, config.getoption("--part").split("/"))
    if files_of_tests(collection_path.parent).index(collection_path) % parts != part - 1:
        return True
    return True if config.getoption("markexpr") == "backend" and not names_backend(collection_path) else None


@functools.cache
def files_of_tests(folder: Path) -> list[Path]:
    return sorted(folder.glob("test_*.py"))


@functools.cache
def names_backend(path: Path) -> bool:
    return NAMES_BACKEND.search(path.read_text(encoding="utf-8")) is not None


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(config, items):
    kept, left_out = [], []
    for item in items:
        only, environment = item.get_closest_marker("only_backend"), item.get_closest_marker("environment_of")
        if any(each is not None and config.getoption("--backend") not in each.args for each in (only, environment)):
            left_out.append(item)
            continue
        if only is not None or BACKEND_FIXTURES & set(item.fixturenames):
            item.add_marker("backend")
        if item.get_closest_marker("backend") and not names_backend(item.path):
            raise pytest.UsageError(f"{item.nodeid}: names none of what pytest_ignore_collect looks for")
        kept.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_report_header(config):
    return f"backend: {config.getoption('--backend')} on {config.getoption('--device')}"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tokens are cached in a folder of this session, here and in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDISTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def latency_seconds():
    """How long a run measures its latency where users see it. Here a text is asked a few times: hundreds of runs end with it."""
    with pytest.MonkeyPatch.context() as patch:
        seconds = run_latency._SECONDS
        patch.setattr(run_latency, "_SECONDS", 0.0)
        yield seconds


@pytest.fixture(autouse=True)
def plugins_of_one_test():
    """The families, kinds of tasks and backends that a test's plugins bring are known to it alone."""
    families, backends, in_effect = dict(CONFIGURATIONS), dict(registered.BACKENDS), dict(plugin_files._IN_EFFECT)
    kinds = dict(KINDS)
    yield
    if families != CONFIGURATIONS:
        restore_families(families)
    for kept, now in ((kinds, KINDS), (backends, registered.BACKENDS), (in_effect, plugin_files._IN_EFFECT)):
        now.clear()
        now.update(kept)


@pytest.fixture(scope="module", autouse=True)
def compiled_graphs():
    """MindSpore keeps every graph that a process has compiled: they are given back at the end of each file."""
    yield
    if mindspore := sys.modules.get("mindspore"):
        gc.collect()
        mindspore.ms_memory_recycle()


@pytest.fixture(scope="session")
def backend_name(pytestconfig) -> str:
    """The backend under test."""
    return pytestconfig.getoption("--backend")


@pytest.fixture(scope="session")
def make_engine(pytestconfig, backend_name):
    """`make_engine(**options)`: an engine of the backend under test, one for each set of options."""

    @functools.cache
    def make(**options):
        return load_engine(backend_name, EngineOptions(pytestconfig.getoption("--device"), **options))

    return make


@pytest.fixture(scope="session")
def engine(make_engine):
    """The backend under test, in float32."""
    return make_engine()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny classifier with random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.write_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory):
    """The folder of a tiny SST-2."""
    return tiny.write_task(tmp_path_factory.mktemp("tiny") / "task")


@pytest.fixture(scope="session")
def start_cli(tmp_path_factory):
    """`start_cli(*arguments)`: a running `python -m crossdistil`, with its output in pipes."""
    folder = tmp_path_factory.mktemp("cli")

    def start(*arguments, **options):
        command = [sys.executable, "-m", "crossdistil", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        return subprocess.Popen(command, cwd=folder, **{**pipes, **options})

    return start


@pytest.fixture(scope="session")
def cli(start_cli):
    """`cli(*arguments)`: what `python -m crossdistil` prints, after it ended with `code`."""

    def run(*arguments, code=0):
        process = start_cli(*arguments)
        output, errors = process.communicate(timeout=600)
        assert process.returncode == code, f"exit code {process.returncode}, expected {code}\n{output}\n{errors}"
        return output if code == 0 else errors

    return run


@pytest.fixture
def in_this_process(monkeypatch):
    """The frameworks' part of a conversion's proof here: processes of its own take seconds to start."""
    from crossdistil.core.app import framework_forward, verify

    monkeypatch.setattr(verify, "_framework_outputs", lambda python, *call: framework_forward.framework_outputs(*call))


@pytest.fixture
def said(monkeypatch, capsys):
    """`said(*arguments)`: exit code, standard output and standard error of the command line, in this process."""

    def run(*arguments):
        monkeypatch.setattr(command_line.sys, "argv", ["crossdistil", *map(str, arguments)])
        monkeypatch.setattr(command_line.signal, "signal", lambda *_: None)
        monkeypatch.setattr(command_line, "end_with_parent", lambda: None)
        capsys.readouterr()  # what the test printed before is not the command's
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return (end.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def cli_here(said):
    """`cli` without a process of its own, which takes most of a second to start."""

    def run(*arguments, code=0):
        ended, output, errors = said(*arguments)
        assert ended == code, f"exit code {ended}, expected {code}\n{output}\n{errors}"
        return output if code == 0 else errors

    return run


@pytest.fixture(scope="module")
def right_files(tmp_path_factory):
    """`wrong_input_files.Files` that are right."""
    from crossdistil.tests.wrong_input_files import write_files

    return write_files(tmp_path_factory.mktemp("right"))


@pytest.fixture
def files(right_files, tmp_path):
    """Files to spoil."""
    return right_files.copy(tmp_path / "files")

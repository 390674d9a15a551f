"""The command line. Errors that a user can cause are one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ... import __version__
from ...backends.registry import BACKENDS, default_backend, interpreter, known_backends
from ..engine import EngineOptions
from ..errors import MESSAGE_PREFIX, CrossdistilError, Errors
from ..json_files import parse_json
from ..processes import end_with_parent
from ..recipe import Recipe, find_recipe, load_recipe, parse_recipe, recipe_tree
from ..shown import plain
from .cache_command import cache_app
from .check_command import check
from .compare_command import compare
from .conversion_commands import convert, inspect
from .data_commands import data_app
from .devices import enter, machines_of, numbers_of, run_on_all
from .error_lines import words_of
from .export_command import export
from .inference_commands import evaluate, predict
from .joining import let_the_first_speak
from .latency_command import latency
from .launchers import find_place, refuse_place
from .options import (
    MOST,
    BackendOption,
    DeviceOption,
    DevicesOption,
    LogOption,
    MasterOption,
    NodeRankOption,
    NodesOption,
    PluginOption,
    Precision,
    PresetOption,
    SetOption,
    given_plugins,
)
from .options import hand_over as _hand_over
from .progress import make_console
from .push_command import push
from .report_command import report
from .run_folders import checked_plugins, identity_of, kind_of, recipe_of
from .search_command import search
from .serve_command import serve
from .trim_command import trim
from .usage import usage_text
from .worker import STANDARD_INPUT

app = typer.Typer(
    name="crossdistil",
    help="One distillation recipe, executed on PyTorch, OneFlow and MindSpore.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = make_console()
app.add_typer(data_app, name="data")
_UsageError = typer.BadParameter.__base__
"""Base of what the parsing of arguments raises; typer exports only this one of them."""

_LONGEST = 3000
"""Characters of a line of a message, which may repeat what was typed."""


def main() -> None:
    """The entry point: runs the command and turns errors into messages and exit codes."""
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))  # who started this may have held them back
    interrupted = False
    try:
        code = app(sys.argv[1:] or ["--help"], "crossdistil", standalone_mode=False) or 0
        interrupted = code == 130  # which typer makes of it
        sys.stdout.flush()
    except _UsageError as error:
        code = _fail(usage_text(error))
    except (KeyboardInterrupt, typer.Abort):
        code, interrupted = 130, True
    except SystemExit as error:
        sys.exit(error.code)  # and not raise, which `core.processes.ExitCode` does not see
    except BaseException as error:
        code, text = words_of(error)
        if isinstance(error, OSError) and code != 1 and error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if getattr(error, "told", False):
            sys.exit(code)
        if code == 1:
            raise
        if code != 141:
            _fail(text)
    if interrupted:
        has_state = sys.argv[1:2] == ["run"] or sys.argv[1:3] == ["data", "mlm"]
        what = "--resume goes on from what was saved before" if has_state else "nothing is half written"
        if sys.argv[1:3] == ["cache", "teacher"]:
            what = "the same command goes on with the rows that are not cached yet"
        print(f"crossdistil: interrupted; {what}", file=sys.stderr)
    sys.exit(code)


def _fail(text: str) -> int:
    # Whatever is in a file's name or a text: no character that a terminal obeys, and none that cannot be written.
    try:
        rank = let_the_first_speak(find_place())
    except CrossdistilError:
        rank = ""
    for line in text.split("\n"):
        print(f"{MESSAGE_PREFIX}{plain(rank + line, _LONGEST)}", file=sys.stderr)
    return 2


def _print_version(asked: bool) -> None:
    if asked:
        print(f"crossdistil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """One distillation recipe, executed on PyTorch, OneFlow and MindSpore."""


@app.command()
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A YAML file, a name of `crossdistil recipes`, or - for standard input; not needed with --resume."),
    ] = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: Annotated[Precision | None, typer.Option(help="What the model computes in; default: fp32.")] = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    log: LogOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/METHOD-BACKEND-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch: compile the step with torch.compile.")] = False,
    steps_per_call: Annotated[int | None, typer.Option(min=1, max=MOST, help="Steps the device runs per call (sinking).")] = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    node_rank: NodeRankOption = None,
    master: MasterOption = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Train nothing: find all problems, tell each on a line; exit code 0 or 2.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html, which quotes texts of dev.")] = False,
    no_latency: Annotated[
        bool,
        typer.Option("--no-latency", help="Do not measure in the end how fast the models answer (2 s; not on MindSpore)."),
    ] = False,
    probe: Annotated[bool, typer.Option("--probe", hidden=True)] = False,
    named: Annotated[str, typer.Option("--named", hidden=True)] = STANDARD_INPUT,
) -> None:
    """Train what a recipe describes, into a run folder."""
    if check_only and (devices is not None or nodes is not None):
        raise CrossdistilError(f"--check: looks at a run of one process; leave --{'devices' if devices else 'nodes'} out")
    machines = machines_of(nodes, node_rank, master, devices)
    place = enter(devices, machines)
    if resume and out is None:
        raise CrossdistilError("--resume: name the run folder with --out")
    if recipe is None and not resume:
        known = "crossdistil recipes lists them"
        raise CrossdistilError(f"run: name a recipe, for example kd ({known}); --resume --out RUN needs none")
    started: dict[str, str] = {}
    if recipe is None:  # what is not given is as it was when the run was started
        recipe, started = str(recipe_of(out)), identity_of(out)
        for plugin in checked_plugins(out):
            console.print(f"{recipe}: names the plugin {plugin}, whose code runs now", markup=False, soft_wrap=True)
    name = backend or started.get("backend") or default_backend()
    device = device or kind_of(started.get("device"), place, devices)
    precision_name = precision.value if precision else started.get("precision", Precision.fp32.value)
    text = sys.stdin.read() if recipe == "-" else None
    source = recipe if text is None else named
    problems = Errors()
    if check_only:
        from .run_check import Checked, check_recipe, check_run

        tree = recipe_tree(recipe) if text is None else parse_json(text, named)
        folder = find_recipe(recipe).parent if text is None else Path()
        loaded, problems = check_recipe(source, tree, overrides or [], preset, plugins or [], log or [], folder)
        if loaded is None:
            problems.throw()
    else:
        loaded = _recipe(recipe, text, named, overrides or [], preset, plugins or [], log or [])
    _hand_over(name, text)
    run_on_all(place, devices, name, device, text, machines)
    from .run import RunOptions, execute

    folder = out or Path("runs") / f"{loaded.method}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if resume and not folder.exists():
        console.print(f"{folder}: there is no run to resume; this is a new one")
        resume = False
    options = EngineOptions(device, precision_name, compile, steps_per_call, place)
    if check_only:
        check_run(loaded, source, Checked(name, options, folder, resume), console, problems)
        console.print(f"checked: nothing is wrong; without --check it is trained into {folder}", markup=False)
        return
    try:
        how = RunOptions(name, options, folder, resume, probe, not no_report, not no_latency)
        result = execute(loaded, source, how, console)
    except KeyboardInterrupt as error:
        if getattr(error, "told", False):
            sys.exit(130)
        if not str(error):
            raise
        print(f"crossdistil: interrupted; {error}", file=sys.stderr)  # typer would drop what it says
        sys.exit(130)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in result["student"]["metrics"].items())
    scores = f"dev {metrics}; " if metrics else ""
    console.print(f"{name}: {scores}{result['wall_seconds']:.0f} s; written to {folder}")


app.command()(evaluate)
app.command()(predict)


@app.command()
def crosscheck(
    recipe: Annotated[str, typer.Argument(help="A YAML file or a name of `crossdistil recipes`.")],
    backends: Annotated[str, typer.Option(help="Backends, with commas between them.")] = ",".join(BACKENDS),
    devices: Annotated[
        str, typer.Option(metavar="N,N", help="With how many processes each runs, with commas between the numbers.")
    ] = "1",
    steps: Annotated[int | None, typer.Option(min=1, max=MOST, help="Only this many optimizer steps.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: runs/crosscheck-METHOD-TIME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted cross-check in --out.")] = False,
    preset: PresetOption = None,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    device: DeviceOption = None,
    steps_per_call: Annotated[int | None, typer.Option(min=1, max=MOST, help="Steps the device runs per call (sinking).")] = None,
) -> None:
    """Run a recipe on several backends and numbers of devices and compare them; exit code 0 if they agree, 1 if they differ."""
    refuse_place("crosscheck")
    from .crosscheck import CrosscheckOptions, comparable, crosscheck
    from .crosscheck_tables import print_crosscheck

    loaded = comparable(load_recipe(recipe, overrides or [], preset, plugins or []), steps)
    if resume and out is None:
        raise CrossdistilError("--resume: name the folder of the cross-check with --out")
    folder = out or Path("runs") / f"crosscheck-{loaded.method}-{datetime.now():%Y%m%d-%H%M%S}"
    counts = numbers_of(devices)
    options = CrosscheckOptions(_names(backends), folder.absolute(), device, steps_per_call, recipe, resume, counts)
    try:
        result = crosscheck(loaded, options, console)
    except KeyboardInterrupt as error:
        print(f"crossdistil: interrupted; {error or '--resume goes on with what is finished'}", file=sys.stderr)
        sys.exit(130)
    print_crosscheck(result, console)
    console.print(f"report: {folder / 'report.html'}")
    raise typer.Exit(0 if result["verdict"] == "agree" else 1)


app.command()(convert)
app.command()(inspect)
app.command()(export)
app.command()(trim)
app.command()(check)
app.command()(latency)
app.command()(serve)
app.command()(compare)
app.command()(search)
app.command()(report)
app.command()(push)
app.add_typer(cache_app, name="cache")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to explain: a name of the list, or a YAML file.")] = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the catalogue, or explain one recipe: what it does, what it needs and what it costs."""
    from .explain import catalogue, explain
    from .explain_view import print_catalogue, print_explanation

    if name is None and (preset or overrides or plugins):
        option = "--preset" if preset else "--set" if overrides else "--plugin"
        raise CrossdistilError(f"{option}: needs the name of a recipe to explain")
    found = catalogue() if name is None else explain(name, overrides or [], preset, plugins or [])
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        (print_catalogue if name is None else print_explanation)(found, console)


@app.command()
def backends(plugins: PluginOption = None) -> None:
    """Show which backends there are, which Python has each, and how to install what is missing."""
    given_plugins("backends", plugins)
    table = Table(box=None)
    for heading in ("backend", "found in", "devices", "precisions"):
        table.add_column(heading, overflow="fold")
    for backend in known_backends().values():
        try:
            place = str(interpreter(backend.name))
        except CrossdistilError:
            place = f"not installed: {backend.install}"
        table.add_row(backend.name, place, backend.devices, backend.precisions)
    console.print(table)


@app.command()
def demo(
    backends: Annotated[str, typer.Option(help="Backends, with commas between them.")] = ",".join(BACKENDS),
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Seed of the sentences and of the training.")] = 42,
) -> None:
    """A whole tour without a download: make sentences, fine-tune a teacher, distil a student on each backend, compare."""
    from .demo import run_demo

    raise typer.Exit(0 if run_demo(_names(backends), out, seed, console) else 1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _recipe(
    name: str, text: str | None, named: str, overrides: list[str], preset: str | None, plugins: list[str], log: list[str]
) -> Recipe:
    if text is None:
        return load_recipe(name, overrides, preset, plugins, log)
    return parse_recipe(parse_json(text, named), named, overrides, preset, plugins, log=log)

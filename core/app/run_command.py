"""`crossdistil run`: train what a recipe describes, or with --check only find what is wrong with it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...backends.registry import default_backend
from ..errors import CrossdistilError, Errors, RecipeError
from ..json_files import parse_json
from .error_lines import Terminated, words_of
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
    hand_over,
)
from .progress import make_console

if TYPE_CHECKING:
    from ..recipe import Recipe


STANDARD_INPUT = "standard input"
"""What errors call a recipe that comes from there."""


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
    from ..engine import EngineOptions
    from ..recipe import find_recipe, recipe_tree
    from .devices import enter, machines_of, run_on_all
    from .run_folders import checked_plugins, identity_of, kind_of, recipe_of

    console = make_console()
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
    given = overrides or [], preset, plugins or [], log or []
    problems = Errors()
    try:
        loaded = _recipe(recipe, text, named, *given)
    except RecipeError as error:
        from .run_check import check_recipe

        tree = recipe_tree(recipe) if text is None else parse_json(text, named)
        folder = find_recipe(recipe).parent if text is None else Path()
        loaded, problems = check_recipe(source, tree, *given, folder)
        if not problems:
            raise error
    problems.collect(hand_over, name, text)
    if not problems:
        if resume and place.size == 1:  # before processes are started for it
            from ..held_run import refuse_complete

            refuse_complete(out, loaded)
        run_on_all(place, devices, name, device, text, machines)
    method = "run" if loaded is None else loaded.method
    folder = out or Path("runs") / f"{method}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if resume and not folder.exists():
        console.print(f"{folder}: there is no run to resume; this is a new one")
        resume = False
    options = EngineOptions(device, precision_name, compile, steps_per_call, place)
    if check_only or problems:  # with the recipe's faults, those that data, models and backend have
        from .run_check import Checked, check_run

        check_run(loaded, source, Checked(name, options, folder, resume), make_console(not check_only), problems)
        console.print(f"checked: nothing is wrong; without --check it is trained into {folder}", markup=False)
        return
    from .run import RunOptions, execute

    try:
        how = RunOptions(name, options, folder, resume, probe, not no_report, not no_latency)
        result = execute(loaded, source, how, console)
    except (KeyboardInterrupt, Terminated) as error:
        from ..runs import NOTHING_SAVED

        code, stopped = words_of(error)
        if not getattr(error, "told", False):
            saved = str(error) if isinstance(error, KeyboardInterrupt) else ""
            before = f"{folder} is as it was; --resume goes on with it" if resume else NOTHING_SAVED
            left = saved or _left(error, before)
            print(f"crossdistil: {stopped}; {left}", file=sys.stderr)  # typer would drop what it says
        sys.exit(code)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in result["student"]["metrics"].items())
    scores = f"dev {metrics}; " if metrics else ""
    console.print(f"{name}: {scores}{result['wall_seconds']:.0f} s; written to {folder}")


def _left(error: BaseException, before: str) -> str:
    """What can be gone on from; `before`, if the run had not begun. A launcher that ends the processes of a run of which one is
    dead interrupts what the others were about to say: the error of which they were is the context of this one."""
    place: BaseException | None = error
    while place is not None:
        if hasattr(place, "left"):
            return place.left
        place = place.__context__
    return before


def _recipe(
    name: str, text: str | None, named: str, overrides: list[str], preset: list[str] | None, plugins: list[str], log: list[str]
) -> Recipe:
    from ..recipe import load_recipe, parse_recipe

    if text is None:
        return load_recipe(name, overrides, preset, plugins, log)
    return parse_recipe(parse_json(text, named), named, overrides, preset, plugins, log=log)

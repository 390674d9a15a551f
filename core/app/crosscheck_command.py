"""`crossdistil crosscheck`: one recipe on several backends, compared."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ...backends.registry import BACKENDS
from ..errors import CrossdistilError
from .options import MOST, DeviceOption, PluginOption, PresetOption, SetOption, names_in
from .progress import make_console


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
    from ..recipe import load_recipe
    from .devices import numbers_of
    from .launchers import refuse_place

    console = make_console()
    refuse_place("crosscheck")
    from .crosscheck import CrosscheckOptions, comparable, crosscheck
    from .crosscheck_tables import print_crosscheck

    loaded = comparable(load_recipe(recipe, overrides or [], preset, plugins or []), steps)
    if resume and out is None:
        raise CrossdistilError("--resume: name the folder of the cross-check with --out")
    folder = out or Path("runs") / f"crosscheck-{loaded.method}-{datetime.now():%Y%m%d-%H%M%S}"
    counts = numbers_of(devices)
    options = CrosscheckOptions(names_in(backends), folder.absolute(), device, steps_per_call, recipe, resume, counts)
    try:
        result = crosscheck(loaded, options, console)
    except KeyboardInterrupt as error:
        print(f"crossdistil: interrupted; {error or '--resume goes on with what is finished'}", file=sys.stderr)
        sys.exit(130)
    print_crosscheck(result, console)
    console.print(f"report: {folder / 'report.html'}")
    raise typer.Exit(0 if result["verdict"] == "agree" else 1)

"""`crossdistil recipes`, `backends` and `demo`: what there is, and a tour of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ...backends.registry import BACKENDS, interpreter, known_backends
from ..errors import CrossdistilError
from .options import MOST, PluginOption, PresetOption, SetOption, given_plugins, names_in
from .progress import make_console


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
        (print_catalogue if name is None else print_explanation)(found, make_console())


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
    make_console().print(table)


def demo(
    backends: Annotated[str, typer.Option(help="Backends, with commas between them.")] = ",".join(BACKENDS),
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Seed of the sentences and of the training.")] = 42,
) -> None:
    """A whole tour without a download: make sentences, fine-tune a teacher, distil a student on each backend, compare."""
    from .demo import run_demo

    raise typer.Exit(0 if run_demo(names_in(backends), out, seed, make_console()) else 1)

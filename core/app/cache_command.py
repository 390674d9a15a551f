"""`crossdistil cache`: what the cache folder holds, and its removal; `cache teacher` fills a recipe's teacher cache."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer
from rich.table import Table

from ...backends.registry import default_backend
from ..cache_folder import KINDS, Entry, default_cache_folder, entries, remove
from ..errors import CrossdistilError
from .explain_view import byte_text
from .options import (
    BackendOption,
    DeviceOption,
    DevicesOption,
    MasterOption,
    NodeRankOption,
    NodesOption,
    PluginOption,
    Precision,
    PrecisionOption,
    PresetOption,
    SetOption,
    hand_over,
)
from .progress import make_console

Kind = Enum("Kind", [(name, name) for name in KINDS], type=str)


cache_app = typer.Typer()


@cache_app.callback(invoke_without_command=True)
def cache(
    context: typer.Context,
    clear: Annotated[bool, typer.Option("--clear", help="Remove them, but for those in use.")] = False,
    kind: Annotated[Kind | None, typer.Option(help="Only entries of this kind.")] = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Only entries that were not used for so many days.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Each entry, as JSON.")] = False,
) -> None:
    """Show what prepared data, teacher outputs and converted checkpoints take on disk, or remove them."""
    if context.invoked_subcommand is not None:
        if clear or kind is not None or unused_days or as_json:
            raise CrossdistilError(f"cache {context.invoked_subcommand}: takes no options of cache before it")
        return
    if clear and as_json:
        raise CrossdistilError("--json: is for the list, not for --clear")
    kinds = KINDS if kind is None else (kind.value,)
    chosen = [entry for entry in entries() if entry.kind in kinds and entry.days_unused >= unused_days]
    if as_json:
        found = [
            {"kind": entry.kind, "folder": str(entry.folder), "bytes": entry.size, "days_unused": round(entry.days_unused, 3)}
            for entry in chosen
        ]
        print(json.dumps({"folder": str(default_cache_folder()), "entries": found}, indent=2))
        return
    if clear:
        kept = remove(chosen)
        chosen = [entry for entry in chosen if entry not in kept]
    count = f"{len(chosen):,} {'entry' if len(chosen) == 1 else 'entries'}"
    console = make_console()
    console.print(f"{default_cache_folder()}: {'removed ' if clear else ''}{count}, {_size(chosen)}")
    if clear and kept:
        many = f"{len(kept):,} {'entry is' if len(kept) == 1 else 'entries are'}"
        console.print(f"{many} in use by a run or another command and left alone, {_size(kept)}")
    if chosen and not clear:
        console.print(_table(chosen))


@cache_app.command()
def teacher(
    recipe: Annotated[str, typer.Argument(help="A YAML file or a name of `crossdistil recipes`.")],
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.fp32,
    preset: PresetOption = None,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    node_rank: NodeRankOption = None,
    master: MasterOption = None,
) -> None:
    """Compute the teachers' outputs that a recipe's stages can read from a cache, without training: the teacher's machine and the
    student's need not be the same. An interrupted command goes on where it stopped."""
    from ..engine import EngineOptions
    from ..recipe import load_recipe
    from .devices import enter, machines_of, run_on_all

    machines = machines_of(nodes, node_rank, master, devices)
    place = enter(devices, machines)
    name = backend or default_backend()
    loaded = load_recipe(recipe, overrides or [], preset, plugins or [])
    hand_over(name)
    run_on_all(place, devices, name, device, machines=machines)
    from .fill_cache import fill_caches

    console = make_console()
    filled = fill_caches(loaded, recipe, name, EngineOptions(device, precision.value, place=place), console)
    for owner, found in filled:
        outputs = ", ".join(found.key.outputs)
        console.print(f"{owner}: {outputs}: {byte_text(found.size)} in {found.folder}", markup=False, soft_wrap=True)
    cards = {owner: found.folder for owner, found in filled}
    sets = [f"--set {'teacher' if loaded.teacher else f'teachers.{owner}'}.model={folder}" for owner, folder in cards.items()]
    console.print(
        f"runs of this recipe read them there or in a copy; where the teacher's weights are not: {' '.join(sets)}",
        markup=False,
        soft_wrap=True,
    )


def _table(chosen: list[Entry]) -> Table:
    table = Table(box=None)
    for heading, justify in (("kind", "left"), ("holds", "left"), ("entries", "right"), ("size", "right"), ("unused", "right")):
        table.add_column(heading, justify=justify)
    for name, holds in KINDS.items():
        own = [entry for entry in chosen if entry.kind == name]
        if own:
            days = [entry.days_unused for entry in own]
            table.add_row(name, holds, f"{len(own):,}", _size(own), f"{min(days):.1f} to {max(days):.1f} days")
    return table


def _size(chosen: list[Entry]) -> str:
    return byte_text(sum(entry.size for entry in chosen))

"""`crossdistil cache`: what the cache folder holds, and its removal."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer
from rich.table import Table

from ..cache_folder import KINDS, Entry, default_cache_folder, entries, remove
from ..errors import CrossdistilError
from .explain_view import byte_text
from .progress import make_console

Kind = Enum("Kind", [(name, name) for name in KINDS], type=str)


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them, but for those in use.")] = False,
    kind: Annotated[Kind | None, typer.Option(help="Only entries of this kind.")] = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Only entries that were not used for so many days.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Each entry, as JSON.")] = False,
) -> None:
    """Show what prepared data, teacher outputs and converted checkpoints take on disk, or remove them."""
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

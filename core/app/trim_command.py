"""`crossdistil trim`: a model whose vocabulary has only what some texts need."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..shown import plain
from .options import PluginOption, given_plugins
from .progress import make_console

console = make_console()


def trim(
    model: Annotated[Path, typer.Argument(help="A model folder, or a finished run, whose student is meant.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
    data: Annotated[
        list[Path], typer.Option(help="Texts: a .txt file of one a line, a table, or a folder of them; may be given repeatedly.")
    ],
    keep: Annotated[Path | None, typer.Option(help="A file with a token a line: kept though no text has them.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--column", help="Of tables only these columns; default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a destination that exists.")] = False,
    plugins: PluginOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Leave out the words that texts do not use, and prove on these texts that the model says the same; else exit code 1."""
    given_plugins("trim", plugins)
    from .trimming import ProofError
    from .trimming import trim as run

    try:
        found = run(model, destination, data, keep, overwrite, columns or ())
    except ProofError as error:
        print(f"crossdistil: {destination}: is not written: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return
    lines = [
        f"texts: {found.texts:,}, {found.pieces:,} pieces, of {found.used:,} kinds",
        f"words: {found.rows:,} of {found.rows_before:,} kept",
        f"weights: {found.bytes / 1e6:,.1f} MB, of {found.bytes_before / 1e6:,.1f} MB",
        f"tokenizer: {found.tokenizer_bytes / 1e6:,.1f} MB, of {found.tokenizer_bytes_before / 1e6:,.1f} MB",
        f"proved: all texts give the same pieces; {', '.join(_short(found.outputs))} of {found.proved_texts} texts are bit for "
        "bit the same",
        f"written to {destination}",
    ]
    if found.unknown_words:
        lines.insert(2, f"note: {found.unknown_words:,} line{'s' * (found.unknown_words > 1)} of {keep}: no token of the model")
    lines[1:1] = [f"note: {plain(note, 500)}" for note in found.notes]
    for line in lines:
        console.print(line, markup=False)


def _short(outputs: tuple[str, ...]) -> list[str]:
    hidden = [name for name in outputs if name.startswith("hidden/")]
    return [f"{len(hidden)} hidden states", *(name for name in outputs if name not in hidden)]

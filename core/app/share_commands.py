"""`crossdistil data tokens`: the token store of a corpus, or a machine's share of it; `data merge`: shares to one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import CrossdistilError
from .counting import CountProgress
from .mlm_command import tell_records
from .progress import make_console


def add_share_commands(data_app: typer.Typer) -> None:
    """Put both under `crossdistil data`."""
    data_app.command()(tokens)
    data_app.command()(merge)


def tokens(
    data: Annotated[Path, typer.Option(help="A .txt or .tfrecord file of texts, or a folder of them, as in task.data.")],
    tokenizer: Annotated[Path, typer.Option(help="A model's folder, or one with vocab.txt.")],
    out: Annotated[Path, typer.Option(help="A new folder, or one that all machines write to; task.data is then this folder.")],
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the Ith of N stretches of the text, for N machines; then data merge.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is in --out, if it is whole.")] = False,
) -> None:
    """Tokenize raw text once, for recipes of masked words (kind: mlm) or of raw text (kind: text)."""
    from ..data.shares import Part
    from ..data.token_shares import write_store
    from ..data.tokenize import load_tokenizer

    part = Part() if shard is None else Part.parse(shard)
    loaded = load_tokenizer(tokenizer)
    if loaded.is_words:
        raise CrossdistilError(f"--tokenizer {tokenizer}: has whole words, a token store needs word pieces")
    if (problem := loaded.case_problem()) is not None:
        raise CrossdistilError(f"--tokenizer {problem}")
    console = make_console()
    with CountProgress("tokens", "MB", console) as progress:

        def report(done: int, total: int) -> None:
            progress.count(round(done / 1e6, 1), round(total / 1e6, 1))

        note = write_store(data, loaded, out, part, resume, report)
    _tell_tokens(note, out, console)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="The folder of all shares, or the folders that they lie in.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Put together the shares of data mlm or data tokens --shard I/N, if they are whole, of one command and all there."""
    from ..augmentation.task_folder import check_new_folder
    from ..data import token_folder
    from ..data.mlm import merge as mlm_merge
    from ..data.shares import complete_shares
    from ..data.token_shares import merge_stores

    check_new_folder(out, "--out")
    shares = complete_shares(folders, (*mlm_merge.OWN, *token_folder.OWN))
    console = make_console()
    is_records = shares[0].kind == "mlm"
    with CountProgress("merge", "record files" if is_records else "shares", console) as progress:
        if is_records:
            note = mlm_merge.merge_records(shares, out, progress.count)
        else:
            note = merge_stores(shares, out, progress.count)
    console.print(f"{len(shares)} share{'' if len(shares) == 1 else 's'}, all there and whole", markup=False)
    (tell_records if is_records else _tell_tokens)(note, out, console)


def _tell_tokens(note: dict[str, Any], out: Path, console: Console) -> None:
    counts, size = note["counts"], (note["ends"] - note["begins"]) / 1e6
    told = f"{counts['tokens']:,} tokens of {counts['texts']:,} texts, {size:,.1f} MB; written to {out}"
    console.print(told, markup=False)

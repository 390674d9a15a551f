"""`crossdistil data merge`: the shares of many machines to one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..augmentation.task_folder import check_new_folder
from ..data.mlm.merge import OWN, merge_records
from ..data.shares import complete_shares
from .counting import CountProgress
from .mlm_command import tell_records
from .progress import make_console


def merge(
    folders: Annotated[list[Path], typer.Argument(help="The folder of all shares, or the folders that they lie in.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Check that the shares of data mlm --shard I/N are whole, of one command and all there, and put them together."""
    check_new_folder(out, "--out")
    shares = complete_shares(folders, OWN)
    console = make_console()
    with CountProgress("merge", "record files", console) as progress:
        note = merge_records(shares, out, progress.count)
    console.print(f"{len(shares)} share{'' if len(shares) == 1 else 's'}, all there and whole", markup=False)
    tell_records(note, out, console)

"""The command that makes of a checkpoint one that is read everywhere, for the messages about those that are not."""

from __future__ import annotations

import shlex
from pathlib import Path


def convert_command(path: Path, options: str) -> str:
    """The whole command, in backquotes, with a new folder beside the current one; `options` are written as for a shell."""
    name = path.resolve().name.partition(".")[0] if path.is_file() else path.resolve().name
    return f"`crossdistil convert {shlex.quote(str(path))} {shlex.quote(name + '-converted')} --to pytorch {options}`"

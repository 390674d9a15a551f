"""Under which name another system knows a run: kept in the run folder, so that a run that goes on is the same there."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import CrossdistilError
from ..files import write_text
from ..json_files import read_object
from ..shown import shown


def kept_id(logs: Path, system: str) -> str | None:
    """The run's id there, or None where it has none yet. Raises CrossdistilError."""
    path = logs / f"{system}.json"
    if not path.is_file():
        return None
    found = read_object(path).get("id")
    if not isinstance(found, str) or not found:
        raise CrossdistilError(f"{path}: id: got {shown(found)}, expected a text; remove the file, and the run gets a new one")
    return found


def keep_id(logs: Path, system: str, value: str) -> None:
    """Keep it for the next time."""
    logs.mkdir(parents=True, exist_ok=True)
    write_text(logs / f"{system}.json", json.dumps({"id": value}) + "\n")

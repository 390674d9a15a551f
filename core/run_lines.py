"""The lines of a run: `metrics.jsonl`, and `watched.jsonl` beside it. They only grow, and are cut back to a saved state where a
run goes on from there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import google_crc32c

from .errors import RunFolderError
from .files import clear_disk_errors, flush, write_text
from .run_files import METRICS, WATCHED


class RunLines:
    """Those of one run folder."""

    def __init__(self, folder: Path):
        self.path = folder / METRICS
        self._watched = folder / WATCHED
        self._size, self._crc = 0, 0

    @property
    def written(self) -> dict[str, Any]:
        """How many bytes of metrics.jsonl there are, and their CRC-32C: what a saved state notes."""
        return {"bytes": self._size, "crc32c": f"{self._crc:08x}"}

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        data = _add(self.path, line)
        self._size, self._crc = self._size + len(data), google_crc32c.extend(self._crc, data)

    def append_watched(self, line: dict[str, Any]) -> None:
        """Add a line to watched.jsonl."""
        _add(self._watched, line)

    def flush(self) -> None:
        """Have metrics.jsonl on the disk."""
        with clear_disk_errors(self.path):
            if self.path.exists():
                flush(self.path)

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`, and a line that was cut off: they will be written again."""
        _rewind(self._watched, step)
        found = _rewind(self.path, step)
        self._size, self._crc = len(found), google_crc32c.value(found)


def _add(path: Path, line: dict[str, Any]) -> bytes:
    data = (json.dumps(line) + "\n").encode()
    with clear_disk_errors(path), path.open("ab") as file:
        file.write(data)
    return data


def _rewind(path: Path, step: int) -> bytes:
    """What is left of the file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    kept = []
    for number, text in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(text)
            if entry["step"] > step:
                continue
        except (ValueError, TypeError, KeyError, RecursionError):
            logging.getLogger(__name__).warning("%s:%d: is no line of metrics, and is left out", path, number)
            continue
        kept.append(text + b"\n")
    found = b"".join(kept)
    if found != data:
        write_text(path, found.decode("utf-8"))
    return found

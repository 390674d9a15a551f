"""The student of a run, where the run's folder is given in place of a model."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from ..run_files import MARKER, RESULT, STATE

CROSSCHECK = "crosscheck.json"


def student_of(path: Path) -> Path:
    """The student of a run folder that is given in place of a model; any other path as it is. Raises CheckpointError for a run
    that has none yet, and for a folder of several runs."""
    if (path / "student").is_dir() and ((path / RESULT).is_file() or (path / MARKER).is_file()):
        if not (path / RESULT).is_file():
            raise CheckpointError(f"{path}: {_unfinished(path)}")
        return path / "student"
    if (path / MARKER).is_file():
        what = "a finished run without its student folder" if (path / RESULT).is_file() else _unfinished(path)
        raise CheckpointError(f"{path}: {what}")
    if path.is_dir() and not (path / "config.json").exists():
        students = sorted(file.parent / "student" for file in path.glob(f"*/{MARKER}") if (file.parent / "student").is_dir())
        if students or (path / CROSSCHECK).is_file():
            what = "is a cross-check" if (path / CROSSCHECK).is_file() else "holds runs"
            named = ", ".join(map(str, students[:3])) or "none of its runs has one"
            raise CheckpointError(f"{path}: {what}, no model; name one of its students: {named}")
    return path


def _unfinished(path: Path) -> str:
    saved = sorted((path / STATE).glob("step-*"))
    step = f", saved at step {int(saved[-1].name[5:]):,}" if saved and saved[-1].name[5:].isdigit() else ""
    return f"the run is not finished{step}; crossdistil run --resume --out {path} goes on with it"

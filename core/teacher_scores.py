"""What a teacher scored on dev, and what it answered there, kept with its outputs: where all of them are cached, it need not be
loaded to know."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import CrossdistilError
from .files import clear_disk_errors, write_arrays, write_text
from .json_files import read_object

SCORED = _METRICS, _ANSWERS = "scores.json", "answers.safetensors"
"""The files."""


class TeacherScores:
    """Those in the folder of a teacher cache. What was scored is known by a digest (`core.teacher_identity.examples_digest`)."""

    def __init__(self, folder: Path):
        self._folder = folder

    def metrics(self, of: str) -> dict[str, float] | None:
        """The teacher's scores on what has the digest `of`, where they were kept."""
        with contextlib.suppress(OSError, CrossdistilError):
            found = read_object(self._folder / _METRICS, CrossdistilError)
            if found.get("of") == of and isinstance(found.get("metrics"), dict):
                return found["metrics"]
        return None

    def answers(self, of: str) -> np.ndarray | None:
        """The teacher's logits on what has the digest `of`, where they were kept."""
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            found = load_file(self._folder / _ANSWERS)
            if found["of"].tobytes().decode(errors="replace") == of:
                return found["logits"]
        return None

    def keep(self, of: str, metrics: dict[str, float], logits: np.ndarray | None = None) -> None:
        """Keep the teacher's scores, and its logits on what was scored, with its outputs. Raises RunFolderError."""
        with clear_disk_errors(self._folder):
            if logits is not None:
                write_arrays(self._folder / _ANSWERS, {"logits": logits, "of": np.frombuffer(of.encode(), np.uint8)})
            write_text(self._folder / _METRICS, json.dumps({"of": of, "metrics": metrics}, indent=2) + "\n")

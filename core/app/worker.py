"""A run in a process of its own: for a backend that another interpreter has, and for each part of a cross-check."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ...backends.registry import interpreter
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..json_files import read_object
from ..processes import Forwarded, child_environment, ending, python_command
from ..recipe import Recipe
from ..run_files import RESULT

_ENDINGS = ("crossdistil: interrupted; ", "crossdistil: terminated; ")


def run_worker(
    recipe: Recipe, source: str, backend: str, out: Path, arguments: Sequence[str], quiet: bool
) -> dict[str, Any]:
    """`crossdistil run` of a recipe by the Python that has the backend; returns the content of its `result.json`.

    What the process finds wrong is raised here as a CrossdistilError, in which `source` names the recipe.
    """
    own = ["run", "-", "--named", source, "--backend", backend, "--out", str(out)]
    command = python_command(interpreter(backend), "crossdistil", *own)
    worker = subprocess.Popen(
        [*command, *arguments],
        env=child_environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with worker, Forwarded(worker) as forwarded:
        errors = worker.communicate(json.dumps(recipe.resolved()))[1]
    lines = errors.splitlines()
    if forwarded.number is not None:
        _stop(forwarded.number, lines)
    messages = [line.removeprefix(MESSAGE_PREFIX) for line in lines if line.startswith(MESSAGE_PREFIX)]
    if messages:
        raise CrossdistilError("\n".join(messages))
    if errors and (worker.returncode or not quiet):
        sys.stderr.write(errors)
    if worker.returncode:
        raise CrossdistilError(f"backend '{backend}': the run ended with {ending(worker.returncode)}")
    return read_object(out / RESULT)


def _stop(number: int, lines: Sequence[str]) -> NoReturn:
    """End as the process was asked to end; what it said of what it saved is said here."""
    said = next((line.partition("; ")[2] for line in reversed(lines) if line.startswith(_ENDINGS)), "")
    if number == signal.SIGTERM:
        print(f"crossdistil: terminated{said and f'; {said}'}", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    raise KeyboardInterrupt(*([said] if said else []))

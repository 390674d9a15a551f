"""The files of a run folder: what a run leaves behind, and what it needs to go on after it was interrupted.

    recipe.yaml      the resolved recipe, re-runnable
    metrics.jsonl    a line per logged step or evaluation
    watched.jsonl    what is only looked at: the norm of the gradient, and the least that loss and terms can be
    predictions.safetensors  what the finished student answers on dev, and the labels (`core.predictions`)
    result.json      the outcome; written last, so that its presence means the run is complete
    latency.json     how fast the finished student and its teachers answer, on what
    report.html      the outcome as a page, made of all the others when the run is complete
    run.json         the marker of a run folder: what the run was started with
    student/         the model folder of the best (or last) evaluation
    checkpoints/     a model folder of each epoch that `keep_states` keeps
    state/step-N/    parameters, optimizer and position after step N, complete or not there at all
    logs/            what processes other than the first printed, of a run of several
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import RunFolderError
from .json_files import read_object

RECIPE, METRICS, WATCHED, RESULT, MARKER = "recipe.yaml", "metrics.jsonl", "watched.jsonl", "result.json", "run.json"
REPORT, LATENCY, PROBE = "report.html", "latency.json", "probe.safetensors"
STUDENT, CHECKPOINTS, STATE, LOGS = "student", "checkpoints", "state", "logs"
LOCK = ".lock"
"""Held by the process that runs in the folder."""


def read_remade(path: Path, remedy: str, any_number: bool = False) -> dict[str, Any] | None:
    """The object in a JSON file that is made again where it is removed, which `remedy` says; None where it is not there. Raises
    RunFolderError for one that cannot be read. `any_number`: as of `parse_json`."""
    try:
        return read_object(path, RunFolderError, any_number=any_number)
    except FileNotFoundError:
        return None
    except RunFolderError as error:
        raise RunFolderError(f"{error}; {remedy}") from error

"""`crossdistil report`: the page of a finished run, for runs that have none, whose texts moved, or whose
latency was not measured."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ...backends.registry import default_backend, interpreter
from ..errors import CrossdistilError
from .options import BackendOption, PluginOption, given_plugins, hand_over
from .progress import make_console

if TYPE_CHECKING:
    from ..registered import Registered


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    backend: BackendOption = None,
    plugins: PluginOption = None,
) -> None:
    """Write report.html of a finished run: scores, curves, confusions, errors with their texts; measure its latency if it is
    missing."""
    from ..run_files import LATENCY, STUDENT
    from .launchers import refuse_place

    refuse_place("report")
    from ..run_result import read_result
    from .compared_runs import is_finished_run, keeps_answers, read_resolved
    from .crosscheck_files import is_raw_text
    from .run_student import student_of

    if not is_finished_run(run):
        if run.is_dir():
            student_of(run)  # which says what is missing
        raise CrossdistilError(f"{run}: {'is not the folder of a finished run' if run.exists() else 'no such folder'}")
    result, recipe, console = read_result(run), read_resolved(run), make_console()
    is_timed = (run / LATENCY).exists() or not (run / STUDENT).is_dir() or is_raw_text(recipe)
    registered = given_plugins("report", plugins)
    name = backend or _backend_of(result)
    interpreter(name)  # which there must be, also where nothing is asked
    if not is_timed or not keeps_answers(run):
        hand_over(name)
    from .asking import asker
    from .run_report import write_run_report

    def note(line: str) -> None:
        console.print(f"note: {line}", markup=False)

    if not is_timed:
        from .run_sides import measure_later

        try:
            measure_later(run, result, recipe, name, registered, note)
        except CrossdistilError as error:
            note(f"latency: not measured: {str(error).splitlines()[0]}")
    path, notes = write_run_report(run, asker(name), registered)
    for line in notes:
        note(line)
    console.print(f"report: {path}", markup=False)


def _backend_of(result: dict[str, Any]) -> str:
    """That of the run where a Python here has it, else the default: the report says which it was."""
    name = str(result.get("backend"))
    try:
        interpreter(name)
    except CrossdistilError:
        return default_backend()
    return name


def report_of_finished(folder: Path, backend: str, console: Console, registered: Registered) -> None:
    """The report of a run that has just ended. The run is complete whatever becomes of it: what goes wrong is one line."""
    from ..run_files import REPORT
    from .asking import asker

    try:
        from .run_report import write_run_report

        _, notes = write_run_report(folder, asker(backend), registered)
    except Exception as error:  # also what nobody foresaw: a page is not worth the exit code of a finished training
        logging.getLogger(__name__).debug("the report of %s", folder, exc_info=True)
        reason = str(error).partition("\n")[0] or type(error).__name__
        console.print(f"{folder / REPORT}: not written: {reason}; the run is complete", markup=False)
        return
    for note in notes:
        console.print(f"{folder / REPORT}: {note}", markup=False)

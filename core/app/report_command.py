"""`crossdistil report`: the page of a finished run, for runs that have none, or whose texts moved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...backends.registry import default_backend, interpreter
from ..errors import CrossdistilError
from ..registered import NOTHING, Registered
from ..runs import REPORT
from .launchers import refuse_place
from .options import BackendOption, hand_over
from .progress import make_console


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    backend: BackendOption = None,
) -> None:
    """Write report.html of a finished run: scores, curves, confusions, errors with their texts."""
    refuse_place("report")
    from .compared_runs import is_finished_run, keeps_answers
    from .run_folders import student_of

    if not is_finished_run(run):
        if run.is_dir():
            student_of(run)  # which says what is missing
        raise CrossdistilError(f"{run}: {'is not the folder of a finished run' if run.exists() else 'no such folder'}")
    name = backend or default_backend()
    interpreter(name)  # which there must be, also where nothing is asked
    if not keeps_answers(run):
        hand_over(name)
    from .asking import asker
    from .run_report import write_run_report

    path, notes = write_run_report(run, asker(name))
    console = make_console()
    for note in notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"report: {path}", markup=False)


def report_of_finished(folder: Path, backend: str, console: Console, registered: Registered = NOTHING) -> None:
    """The report of a run that has just ended. The run is complete whatever becomes of it: what goes wrong is one line."""
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

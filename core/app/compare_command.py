"""`crossdistil compare`: several finished runs, or models, side by side, and whether their differences are real."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...backends.registry import default_backend, interpreter
from ..errors import CrossdistilError
from ..hub_names import hub_folder
from .options import BackendOption, PluginOption, given_plugins, hand_over
from .progress import make_console


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished runs; model folders too, with --data.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the task, on whose dev those that kept no answers are asked; default: a run's.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The GLUE task of models that do not say theirs.")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Compare by this score alone, also one of a class or type: f1/positive, entity_f1/PER. Again for several.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with everything.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, a row a run.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Also write a page to look at.")] = None,
    backend: BackendOption = None,
    plugins: PluginOption = None,
) -> None:
    """Compare finished runs: scores, costs, recipes, and which differences are real."""
    from ..files import write_text
    from .launchers import refuse_place

    refuse_place("compare")
    given_plugins("compare", plugins)
    forms = [name for name, given in (("--json", as_json), ("--csv", as_csv), ("--markdown", markdown)) if given]
    if len(forms) > 1:
        raise CrossdistilError(f"{forms[1]}: is one form of the answer, and {forms[0]} another; give one of them")
    if report is not None and report.is_dir():
        raise CrossdistilError(f"--report {report}: is a folder, expected the name of a file to write")
    data = None if data is None else hub_folder(data, "--data", True)
    if data is not None and not data.is_dir():
        raise CrossdistilError(f"--data {data}: no such folder")
    from .compared_runs import is_finished_run, keeps_answers

    name = backend or default_backend()
    interpreter(name)  # which there must be, also where nothing is asked
    if not all(is_finished_run(path) and keeps_answers(path) for path in runs):
        hand_over(name)
    found = _found(runs, data, task, metrics or (), name)
    from .comparison_view import as_csv as csv_text
    from .comparison_view import as_markdown, print_comparison

    if report is not None:
        from .comparison_report import comparison_page

        write_text(report, comparison_page(found))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif as_csv:
        sys.stdout.write(csv_text(found))
    elif markdown:
        sys.stdout.write(as_markdown(found))
    else:
        console = make_console()
        print_comparison(found, console)
        if report is not None:
            console.print(f"report: {report}", markup=False)


def _found(runs: list[Path], data: Path | None, task: str | None, metrics: Sequence[str], backend: str) -> dict[str, Any]:
    from .asking import asker
    from .compared_runs import read_all
    from .comparison import compare_finished

    return compare_finished(read_all(runs, data, task, asker(backend)), metrics)

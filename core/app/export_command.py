"""`crossdistil export`: a student leaves for where it is used."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .options import PluginOption, given_plugins, hand_over
from .progress import make_console

console = make_console()


class Target(str, Enum):
    """What a model can be exported to."""

    onnx = "onnx"
    mindir = "mindir"
    pt2 = "pt2"
    aoti = "aoti"
    openvino = "openvino"


class StoredPrecision(str, Enum):
    """What an exported model computes, or is stored, in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def export(
    model: Annotated[Path, typer.Argument(help="A model folder, or a finished run, whose student is meant.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[Target, typer.Option(help="What it becomes.")] = Target.onnx,
    precision: Annotated[
        StoredPrecision, typer.Option(help="fp16: weights stored in half; bf16: computed in it; int8: linear maps in 8 bits.")
    ] = StoredPrecision.fp32,
    data: Annotated[Path | None, typer.Option(help="Folder with the task's files: dev is what the result is judged by.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, max=100, help="Points that dev's score may lose; default: 0.5, or two texts.")
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Percent of dev's answers that must stay, of vectors their mean cosine; default: 99."),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also give the pooled output and all hidden states.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a destination that exists.")] = False,
    plugins: PluginOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was measured, as JSON.")] = False,
) -> None:
    """Write a model for a runtime, and judge it: one that answers otherwise is not written, and the exit code is 1."""
    from .export_targets import TARGETS
    from .exporting import ExportOptions, GateError
    from .exporting import export as run

    if (backend := TARGETS[to.value].backend) is not None:
        hand_over(backend)
    registered = given_plugins("export", plugins)
    options = ExportOptions(precision.value, to.value, data, max_drop, min_agreement, hidden, overwrite, registered)
    try:
        report, code = run(model, destination, options, lambda line: print(line, file=sys.stderr)), 0
    except GateError as error:
        report, code = error.report, 1
    if as_json:
        print(json.dumps(report | {"passed": code == 0}, indent=2))
    else:
        _print(report)
    if code:
        print(f"crossdistil: {destination}: is not written: the model falls through a gate", file=sys.stderr)
    elif not as_json:
        console.print(f"written to {destination}", markup=False)
    raise typer.Exit(code)


def _print(report: dict[str, Any]) -> None:
    size, before = report["bytes"] / 1e6, report["bytes_fp32"] / 1e6
    console.print(f"{report['format']}, {report['precision']}: {size:,.1f} MB, of {before:,.1f} MB in float32", markup=False)
    table = Table("gate", "value", "limit", "")
    for gate in report["gates"]:
        table.add_row(gate["name"], f"{gate['value']:.3g}", f"{gate['limit']:.3g}", "passed" if gate["passed"] else "FAILED")
    console.print(table)
    for name, times in report["milliseconds"].items():
        console.print(f"{name}: " + ", ".join(f"{value:g} ms a text, {size}" for size, value in times.items()), markup=False)

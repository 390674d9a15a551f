"""`crossdistil convert` and `crossdistil inspect`: what the commands do and print."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...converters.canonical import CanonicalCheckpoint
from ...converters.convert import Conversion, ConvertOptions, convert
from .run_student import student_of
from .saved_model import check_saved_model, write_saved_model
from .verify import Verification, verify

_SHOWN = 12


@dataclass(frozen=True)
class Converted:
    """A conversion and, where it was asked for, its proof."""

    conversion: Conversion
    verification: Verification | None


def run_conversion(
    source: Path, destination: Path, options: ConvertOptions, verified: bool, saved_model: bool = False
) -> Converted:
    """Convert, and verify the result before it takes its place; with `saved_model`, TensorFlow writes one there too. Raises
    CheckpointError or RunFolderError."""
    if saved_model:
        check_saved_model(options)
    source = student_of(source)
    proofs: list[Verification] = []

    def check(checkpoint: CanonicalCheckpoint, folder: Path) -> None:
        if verified:
            proofs.append(verify(checkpoint, options.read, folder, options.to))
        if saved_model:
            write_saved_model(folder)

    conversion = convert(source, destination, options, check if verified or saved_model else None)
    return Converted(conversion, proofs[0] if proofs else None)


def as_json(converted: Converted) -> dict[str, Any]:
    """What was done, as plain data."""
    conversion, source = converted.conversion, converted.conversion.source
    told: dict[str, Any] = {
        "source": {"format": source.source.format, "names": source.dialect, "family": source.family},
        "result": {"format": conversion.layout.description, "names": conversion.layout.dialect},
        "tensors": conversion.written,
        "bytes": conversion.size,
        "heads": list(source.heads),
        "outputs": source.outputs,
        "dropped": dict(source.dropped_by_reason),
        "left_out": source.left_out,
        "missing": list(source.missing),
        "added": list(conversion.added),
        "repairs": source.repairs,
        "notes": [*source.notes, *conversion.notes],
    }
    if converted.verification is not None:
        proof = converted.verification
        told["verification"] = {
            "weights": proof.weights,
            "limit": proof.limit,
            "worst": proof.worst,
            "not_run": proof.not_run,
            "limits": {name: limit for name, limit in proof.limits.items() if limit < math.inf},
            "differences": {
                column: {row.output: {"absolute": row.absolute, "relative": row.relative} for row in rows}
                for column, rows in proof.columns.items()
            },
        }
    return told


def print_conversion(converted: Converted, destination: Path, console: Console) -> None:
    """What was read, dropped, repaired, written and proved."""
    conversion, source = converted.conversion, converted.conversion.source
    size = conversion.size / 2**20
    lines = [
        f"{source.source.path}: {source.source.format}, {source.family}, names: {source.dialect}",
        *(f"  dropped {count}: {reason}" for reason, count in sorted(source.dropped_by_reason.items())),
        *(f"  left out, as allowed: {name}" for name in source.left_out),
        *(f"  missing, as allowed: {name}" for name in source.missing),
        *(f"  repaired: {text}" for text in source.repairs),
        *(f"  note: {text}" for text in (*source.notes, *conversion.notes)),
        *(f"  added: {name}" for name in conversion.added),
        f"{destination}: {conversion.layout.description}, {conversion.written} tensors, {size:,.1f} MiB",
    ]
    for line in lines:
        console.print(line, markup=False)  # what stands in brackets is part of a name
    if converted.verification is not None:
        _print_verification(converted.verification, console)


def _print_verification(proof: Verification, console: Console) -> None:
    table = Table(title="largest difference from the source in NumPy float64", title_justify="left", box=None)
    table.add_column("output")
    for column in proof.columns:
        table.add_column(column, justify="right")
    for rows in zip(*proof.columns.values()):
        table.add_row(rows[0].output, *(f"{row.absolute:.1e}" for row in rows))
    if table.row_count:
        console.print(table)
    for text in proof.not_run:
        console.print(f"  {text}", markup=False)
    place = proof.worst_place
    outputs = "no output could be computed" if place is None else (
        f"worst output {place[1].output}, {proof.worst:.1e} of its largest value, limit {proof.limit:.1g}"
    )  # fmt: skip
    console.print(f"verified: {proof.weights}; {outputs}", markup=False)


def print_inspection(found: dict[str, Any], all_tensors: bool, console: Console) -> None:
    """A table of what `inspect` found."""
    table = Table(show_header=False, box=None, title=escape(found["path"]), title_justify="left")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in found["dtypes"].items())
    table.add_row("format", found["format"])
    table.add_row("tensors", f"{len(found['tensors'])} ({kinds}), {found['size_mb']} MiB")
    if "family" in found or "classifier" in found:
        table.add_row("classifier", escape(found["classifier"] or "none"))
    if "family" in found:
        table.add_row("names", found["names"])
        table.add_row("family", found["family"])
        for key, value in found["architecture"].items():
            table.add_row(key, str(value))
        table.add_row("pre-training heads", ", ".join(found.get("heads", [])) or "none")
        table.add_row("labels", "none" if found["labels"] is None else escape(", ".join(map(str, found["labels"]))))
        parts = ", ".join(f"{name} {size:,}" for name, size in found["parameters_by_part"].items())
        table.add_row("parameters", f"{found['parameters']:,} ({parts})")
    for reason, count in found.get("dropped", {}).items():
        table.add_row("would be dropped", f"{count}: {reason}")
    for name, reason in found["skipped"].items():
        table.add_row("no tensor", escape(f"{name}: {reason}"))
    for key in ("missing", "repairs", "notes", "problems"):
        for text in found.get(key, []):
            table.add_row(key, escape(text))
    for key, value in found.get("about", {}).items():
        table.add_row(key, escape(str(value)))
    console.print(table)
    names = list(found["tensors"])
    shown = names if all_tensors or len(names) <= _SHOWN else []
    for name in shown:
        tensor = found["tensors"][name]
        console.print(f"  {name}  {tuple(tensor['shape'])}  {tensor['dtype']}", markup=False)
    if not shown:
        console.print(f"  (--tensors lists all {len(names)})")

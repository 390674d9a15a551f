"""What `huggingface_loop.py` measured, as tables: all of a job, and of several jobs what the strongest rival takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tables import markdown

KNOWN, THEIRS_KNOWN = "crossdistil, known teacher", "same, known teacher"
TASKS = {"sst-2": "SST-2", "waimai": "Chinese reviews"}


def job(result: dict[str, Any]) -> str:
    """What is trained, in words."""
    settings = result["settings"]
    weights = ", random weights" if settings["shape"] else ""
    layers = f"{settings['teacher_layers']} to {settings['student_layers']} layers x {settings['hidden_size']}{weights}"
    return f"{layers}, {TASKS.get(settings['task'], settings['task'])}, batches of {settings['batch_size']}"


def times(ratio: dict[str, float] | None) -> str:
    """Median (smallest to largest); nothing where it was not measured."""
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def table(result: dict[str, Any]) -> str:
    """All systems of a job as a Markdown table for docs/evidence.md."""
    rows = []
    names = {
        "crossdistil": "crossdistil",
        "padded": f"transformers, padded to {result['settings']['max_length']}",
        "dynamic": "transformers, each batch padded to its longest",
        "sorted": "transformers, batches of similar length, multiples of 8",
        "exact": "transformers, batches of similar length, each padded to its longest",
        "same": "transformers, the same batches as crossdistil",
        KNOWN: "crossdistil, teacher's logits precomputed",
        THEIRS_KNOWN: "transformers, the same batches, teacher's logits precomputed",
    }
    for precision, found in result["precisions"].items():
        for system, speed in found["tokens_per_second"].items():
            share = f"{100 * found['share_of_peak'][system]['median']:.0f} %"
            faster = times(found["times_faster_than"].get(system))
            rows.append([names[system], precision, f"{speed['median']:,.0f}", share, faster])
    headings = ["training loop", "precision", "tokens/s", "of the peak", "crossdistil is faster by"]
    peaks = ", ".join(f"{found['peak_gflops']:,.0f} GFLOP/s ({name})" for name, found in result["precisions"].items())
    return f"{job(result)}; the peak is that of large matrix products, {peaks}:\n\n{markdown(headings, rows)}"


def rivals(results: Sequence[dict[str, Any]]) -> str:
    """Of each job and precision: how many times faster crossdistil is, beside the strongest rival first."""
    rows = []
    for result in results:
        for precision, found in result["precisions"].items():
            speed, faster = found["tokens_per_second"]["crossdistil"]["median"], found["times_faster_than"]
            beside = [times(faster.get(system)) for system in ("same", THEIRS_KNOWN, "sorted")]
            rows.append([job(result), precision, f"{speed:,.0f}", *beside])
    headings = [
        "teacher to student", "precision", "tokens/s", "its loop on the same batches", "the same, teacher's logits precomputed",
        "its loop in multiples of 8",
    ]  # fmt: skip
    machine, settings = results[0]["machine"], results[0]["settings"]
    clock = ", processor time" if settings["clock"] == "cpu" else ""
    return f"{markdown(headings, rows)}\n\n{machine['cpu']}, threads: {machine['threads']}{clock}."

"""Memory of a loss over a vocabulary: the losses of `core.ops.Ops`, which take a chunk of rows at a time, beside the way that
DistilBERT's published code computes them.

    python benchmarks/vocabulary_memory.py

The last step of a masked-language-model distillation, forward and backward, in float32 with random states and word tables
of student and teacher: the divergence at temperature 2 over all words of a batch, and the cross entropy of 15 % of them,
weighted 5 and 2 as published. `plain` follows `Distiller.step` (huggingface/transformers, research_projects/distillation,
distiller.py): logits (rows, length, words) of both models, the attention mask expanded to them, `masked_select`,
`KLDivLoss` of the selected, and `CrossEntropyLoss` of all with -100 for what is not asked. Each measurement is a process of
its own, which tells how far its resident memory rose above what it was before; seconds include what a graph mode compiles.
Exit code 1 if the losses differ, or if ours in PyTorch needs more than a quarter of the plain memory. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import BACKENDS, interpreters, load_engine
from crossdistil.core.engine import EngineOptions

ANSWER = "answer "
TEMPERATURE, DIVERGENCE, LABELS = 2.0, 5.0, 2.0
MASKED_SHARE, LARGEST_SHARE, DIFFERENCE = 0.15, 0.25, 1e-5
TENSORS = ("states", "weight", "bias")


def inputs(rows: int, length: int, words: int, width: int) -> tuple[dict, dict, dict]:
    """(the student's tensors, the teacher's, the batch): up to a quarter of a row is padding."""
    generator = np.random.default_rng(0)

    def tensors():
        states = generator.standard_normal((rows * length, width), np.float32)
        weight = generator.standard_normal((words, width), np.float32) * np.float32(2 / np.sqrt(width))
        return dict(zip(TENSORS, (states, weight, generator.standard_normal(words, np.float32))))

    mask = np.arange(length) < generator.integers(3 * length // 4, length + 1, (rows, 1))
    real = np.flatnonzero(mask)
    places = np.sort(generator.choice(real, round(MASKED_SHARE * len(real)), replace=False)).astype(np.int32)
    labels = generator.integers(0, words, len(places)).astype(np.int32)
    all_labels = np.full((rows, length), -100, np.int32)
    all_labels.reshape(-1)[places] = labels
    batch = {
        "row_weights": mask.reshape(-1).astype(np.float32) / np.float32(len(real)),
        "places": places,
        "labels": labels,
        "label_weights": np.full(len(places), 1 / len(places), np.float32),
        "mask": mask.astype(np.int32),
        "all_labels": all_labels,
    }
    return tensors(), tensors(), batch


def chunked(ops, student, teacher, batch):
    """Ours."""
    own, target = student["states"], teacher["states"]
    divergence = ops.word_divergence(
        own,
        student["weight"],
        student["bias"],
        target,
        teacher["weight"],
        teacher["bias"],
        batch["row_weights"],
        TEMPERATURE,
    )
    chosen = ops.embedding(own, batch["places"])
    labels, label_weights = batch["labels"], batch["label_weights"]
    cross_entropy = ops.word_cross_entropy(chosen, student["weight"], student["bias"], labels, label_weights)
    total = divergence * (DIVERGENCE * TEMPERATURE * TEMPERATURE) + cross_entropy * LABELS
    return total, ops.stack([total])


def plain(ops, student, teacher, batch):
    """The published code's, in PyTorch."""
    import torch
    from torch import nn

    def logits(model):
        states = model["states"].reshape(*batch["mask"].shape, -1)
        return nn.functional.linear(states, model["weight"], model["bias"])

    own = logits(student)
    with torch.no_grad():
        target = logits(teacher)
    mask = batch["mask"].bool().unsqueeze(-1).expand_as(own)
    own_selected = torch.masked_select(own, mask).view(-1, own.size(-1))
    target_selected = torch.masked_select(target, mask).view(-1, own.size(-1))
    divergence = nn.KLDivLoss(reduction="batchmean")(
        nn.functional.log_softmax(own_selected / TEMPERATURE, dim=-1),
        nn.functional.softmax(target_selected / TEMPERATURE, dim=-1),
    ) * (TEMPERATURE**2)
    cross_entropy = nn.CrossEntropyLoss(ignore_index=-100)(own.view(-1, own.size(-1)), batch["all_labels"].long().view(-1))
    total = DIVERGENCE * divergence + LABELS * cross_entropy
    return total, torch.stack([total])


WAYS = {"plain": plain, "chunked": chunked}


def resident(name: str) -> float:
    """This process's `VmRSS`, or `VmHWM` (the highest that it was), in MiB."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def work(backend: str, way: str, shape: list[int]) -> None:
    """The process of one measurement; answers with a line of JSON."""
    engine = load_engine(backend, EngineOptions("cpu"))
    engine.gradients(WAYS[way], *inputs(2, 64, 100, 16))  # what a framework loads at its first use is not counted
    materials = inputs(*shape)
    Path("/proc/self/clear_refs").write_text("5")  # the highest is now what it is
    before, started = resident("VmRSS"), time.perf_counter()
    values, gradients = engine.gradients(WAYS[way], *materials)
    seconds = time.perf_counter() - started
    content = {
        "versions": engine.versions(),
        "peak_mib": resident("VmHWM") - before,
        "before_mib": before,
        "seconds": seconds,
        "loss": float(values[0]),
        "gradient_norms": {name: float(np.linalg.norm(gradients[name].ravel())) for name in TENSORS},
    }
    print(ANSWER + json.dumps(content), flush=True)


def measure(python: Path, backend: str, way: str, shape: list[int], threads: int | None) -> dict:
    """Run `work` in the Python of a backend."""
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [str(python), __file__, "--worker", backend, way, "--shape", *map(str, shape)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        if line.startswith(ANSWER):
            return {"backend": backend, "way": way} | json.loads(line.removeprefix(ANSWER))
    raise SystemExit(f"{backend}, {way}: the process ended with exit code {done.returncode}")


def table(result: dict) -> str:
    """The result as a Markdown table."""
    plain_mib = result["measurements"][0]["peak_mib"]
    rows = []
    for found in result["measurements"]:
        share = f"{found['peak_mib'] / plain_mib:.2f}"
        name = f"{found['backend']}, {found['way']}"
        rows.append([name, f"{found['peak_mib']:,.0f}", share, f"{found['loss']:.5f}"])
    shape = "batch {rows} x {length}, {words:,} words, width {width}".format(**result["settings"])
    return (
        f"{markdown(['losses', 'MiB at the peak', 'of plain', 'loss'], rows)}\n\nResident memory above that before, forward and "
        f"backward, {shape}, fp32 on cpu; plain is as DistilBERT's published code computes it."
    )


def problems(found: list[dict]) -> list[str]:
    """What is wrong with the measurements, of which the first is the plain one."""
    reference, *ours = found
    wrong = [
        f"{one['backend']}: {name} {value:.7g}, plain {expected:.7g}"
        for one in ours
        for name, value, expected in [
            ("loss", one["loss"], reference["loss"]),
            *((f"gradient by {name}", norm, reference["gradient_norms"][name]) for name, norm in one["gradient_norms"].items()),
        ]
        if abs(value - expected) > DIFFERENCE * abs(expected)
    ]
    share = ours[0]["peak_mib"] / reference["peak_mib"]
    return wrong + ([f"torch: {share:.2f} of the plain memory"] if share > LARGEST_SHARE else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(BACKENDS), help="those of the chunked losses; torch is first")
    parser.add_argument("--shape", type=int, nargs=4, default=[50, 128, 21128, 768], metavar=("ROWS", "LENGTH", "WORDS", "WIDTH"))
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "vocabulary_memory.json")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker, options.shape)
    others = [name for name in options.backends.split(",") if name != "torch"]
    pythons = interpreters(["torch", *others])
    measurements = []
    for backend, way in [("torch", "plain"), *((name, "chunked") for name in pythons)]:
        measurements.append(measure(pythons[backend], backend, way, options.shape, options.threads))
        print(f"{backend}, {way}: {measurements[-1]['peak_mib']:.0f} MiB", flush=True)
    result = {
        "benchmark": "vocabulary_memory",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine() | {"threads": options.threads},
        "settings": dict(zip(("rows", "length", "words", "width"), options.shape)),
        "measurements": measurements,
    }
    write_json(options.out, result)
    print(table(result))
    wrong = problems(measurements)
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

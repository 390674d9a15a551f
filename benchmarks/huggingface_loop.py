"""Tokens per second of the torch backend against a plain Hugging Face loop that does the same distillation.

    python benchmarks/huggingface_loop.py --model-folder runs/sst2/teacher/student --data data/SST-2 --steps 10 --rounds 7
    python benchmarks/huggingface_loop.py ... --shape 12x768       a teacher of BERT-base's size, with random weights
    python benchmarks/huggingface_loop.py ... --task reviews --text text_a --label label       a table of one's own

The systems (`--systems`: some of them) take turns, `--steps` optimizer steps each, and in a round all of them train on the same
examples:
  crossdistil   the product's path: TrainBatches, Objective, the engine's compiled or eager step
  padded        transformers' modules, every example padded to --max-length when it is tokenized, as published scripts do
  dynamic       the same, in shuffled batches, each padded to its longest example
  sorted        the same, in batches of similar length, as ours, padded to a multiple of 8 (the Trainer's group_by_length, with
                a collator's pad_to_multiple_of=8)
  exact         the same, in these batches, each padded to its longest example
  same          the same, on the very batches that crossdistil takes: the strongest rival, which no published loop is
  crossdistil, known teacher    the product where the teacher's logits were computed before (untimed), as with a teacher cache
  same, known teacher           transformers on the same batches with the same logits
Only real tokens are counted, never padding. In each round large matrices are multiplied too (`gemm_peak.py`): of that peak the
share is told that the products which real tokens need are. Tokenizing is not timed, making batches is. The Hugging Face loop is
not held back: scaled-dot-product attention, fused AdamW, no value read from the device but the loss every 50 steps; in bf16 and
fp16 it uses torch.autocast. Both start from the same weights, which is checked by their logits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from gemm_peak import Products, step_operations
from huggingface_sides import Crossdistil, HuggingFace
from kd_job import KdJob, PrecomputedJob, kd_job
from rival_tables import KNOWN, THEIRS_KNOWN, table
from tables import NEW_RESULTS, machine, summary, write_json

from crossdistil.backends.registry import load_engine  # before torch: the engine sets how torch takes memory
from crossdistil.core.data.batches import real_tokens
from crossdistil.core.engine import Batch, EngineOptions

SYSTEMS = ("crossdistil", "padded", "dynamic", "sorted", "exact", "same", KNOWN, THEIRS_KNOWN)
OURS = {system: KNOWN if system == THEIRS_KNOWN else "crossdistil" for system in SYSTEMS if system not in ("crossdistil", KNOWN)}
"""What each of the others is compared with."""
_SIDE = 1024


def rows_of(batches: Sequence[Batch]) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(token ids, token types, label) of each real example."""
    rows = []
    for batch in batches:
        for row in np.flatnonzero(batch["example_mask"]):
            length = int(batch["attention_mask"][row].sum())
            rows.append(
                (batch["input_ids"][row, :length], batch["token_type_ids"][row, :length], int(batch["labels"][row]))
            )
    return rows


def padded_rows(rows: list, length: int) -> dict[str, np.ndarray]:
    """All rows padded to one length; which token pads does not matter, since it is masked."""
    arrays = {name: np.zeros((len(rows), length), np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for index, (ids, types, _) in enumerate(rows):
        arrays["input_ids"][index, : len(ids)], arrays["token_type_ids"][index, : len(ids)] = ids, types
        arrays["attention_mask"][index, : len(ids)] = 1
    return arrays | {"labels": np.array([label for _, _, label in rows], np.int64)}


def shuffled(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch."""
    order = np.random.default_rng(seed).permutation(count)
    return (order[start : start + batch_size] for start in range(0, count, batch_size))


def needed(job: KdJob, batch: Batch, known: bool) -> float:
    """Operations of the products that the real tokens of a batch need in a step; without the teacher's, where its answers are
    `known`."""
    tokens = real_tokens(batch)
    return tokens * step_operations(job, tokens / max(1, int(batch["example_mask"].sum())), known)


def measure(options: argparse.Namespace, job: KdJob, precision: str) -> dict:
    """All rounds of one precision: tokens per second of each system, in the order of the rounds."""
    ours = Crossdistil(job, options.device, precision, options.compile)
    known_job = PrecomputedJob(job, ours.teacher)
    known = Crossdistil(known_job, options.device, precision, options.compile)
    theirs = HuggingFace(job, options.device, precision)
    systems = [system for system in SYSTEMS if system in options.systems]
    speeds: dict[str, list[float]] = {system: [] for system in systems}
    rates: dict[str, list[float]] = {system: [] for system in systems}
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    products, peak = Products(ours.engine, _SIDE), 0.0
    first = next(job.batches.epoch(0))[0]
    difference = float(np.abs(ours.logits(first) - theirs.logits(first)).max())
    print(f"{precision}: largest difference of the student's first logits {difference:.1e}", flush=True)
    for number in range(-1, options.rounds):  # the round -1 warms up
        epoch, count = number + 1, options.steps if number >= 0 else 2
        known_job.compute(epoch, count)
        batches = [micro[0] for micro in islice(job.batches.epoch(epoch), count)]
        with_logits = [micro[0] for micro in islice(known_job.batches.epoch(epoch), count)]
        rows, tokens = rows_of(batches), sum(map(real_tokens, batches))
        fixed = padded_rows(rows, options.max_length)
        places = shuffled(len(rows), options.batch_size, epoch)
        work = {
            "crossdistil": lambda epoch=epoch, count=count: ours.run(epoch, count),
            "padded": lambda fixed=fixed, places=list(places): theirs.run(
                {name: array[place] for name, array in fixed.items()} for place in places
            ),
            "dynamic": lambda rows=rows, epoch=epoch: theirs.run(
                padded_rows(chosen, max(len(ids) for ids, _, _ in chosen))
                for place in shuffled(len(rows), options.batch_size, epoch)
                for chosen in [[rows[index] for index in place]]
            ),
            "sorted": lambda batches=batches: theirs.run(
                padded_rows(chosen, -(-max(len(ids) for ids, _, _ in chosen) // 8) * 8) for chosen in map(rows_of, zip(batches))
            ),
            "exact": lambda batches=batches: theirs.run(
                padded_rows(chosen, max(len(ids) for ids, _, _ in chosen)) for chosen in map(rows_of, zip(batches))
            ),
            "same": lambda batches=batches: theirs.run(batches),
            KNOWN: lambda epoch=epoch, count=count: known.run(epoch, count),
            THEIRS_KNOWN: lambda batches=with_logits: theirs.run(batches),
        }
        turn = max(number, 0) % len(systems)
        peak = max([peak, *(products.rate(clock) for _ in range(3))])
        operations = {without: sum(needed(job, batch, without) for batch in batches) for without in (False, True)}
        for system in systems[turn:] + systems[:turn]:
            started = clock()
            work[system]()
            taken = clock() - started
            if number >= 0:
                speeds[system].append(tokens / taken)
                rates[system].append(operations[system in (KNOWN, THEIRS_KNOWN)] / taken)
        if number >= 0:
            latest = ", ".join(f"{system} {values[-1]:,.0f}" for system, values in speeds.items())
            print(f"{precision}: round {number + 1}/{options.rounds}, tokens/s: {latest}", flush=True)
    return {
        "first_logits_max_difference": difference,
        "tokens_per_second": {system: summary(values) | {"rounds": values} for system, values in speeds.items()},
        "peak_gflops": peak / 1e9,
        "share_of_peak": {system: summary([rate / peak for rate in values]) for system, values in rates.items()},
        "times_faster_than": {
            system: summary([a / b for a, b in zip(speeds[own], speeds[system], strict=True)])
            for system, own in OURS.items()
            if {system, own} <= speeds.keys()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-folder", type=Path, required=True, help="the teacher, or an encoder without a head")
    parser.add_argument("--data", type=Path, required=True, help="folder with the task's train.tsv")
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--text", help="the column of the texts, of a task of one's own")
    parser.add_argument("--label", help="that of the labels")
    parser.add_argument("--shape", help="LAYERSxWIDTH of a teacher with random weights, as 12x768")
    parser.add_argument("--systems", type=lambda text: text.split(";"), default=list(SYSTEMS), help="names, by semicolons")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each system")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="the torch backend's --compile")
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: of this process, for a machine that is shared"
    )
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "huggingface_loop.json")
    options = parser.parse_args()
    step = None if options.compile else 1 if options.device == "cpu" else 8  # the engine's own
    if unknown := set(options.systems) - set(SYSTEMS):
        parser.error(f"--systems: there is no {', '.join(sorted(unknown))}; there are {'; '.join(SYSTEMS)}")
    columns = {key: getattr(options, key) for key in ("text", "label") if getattr(options, key) is not None}
    shape = tuple(map(int, options.shape.split("x"))) if options.shape else None
    job = kd_job(
        options.model_folder, options.data, options.task, options.batch_size, options.max_length, step,
        columns=columns, shape=shape,
    )  # fmt: skip
    load_engine("torch", EngineOptions(options.device))
    import torch
    import transformers

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu measures nothing on a device")
    names = ("task", "steps", "rounds", "batch_size", "max_length", "device", "compile", "clock", "shape")
    layers = [model.config.num_hidden_layers for model in (job.teacher, job.student)]
    result = {
        "benchmark": "huggingface_loop",
        "machine": machine() | {"threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": {name: getattr(options, name) for name in names}
        | {"teacher_layers": layers[0], "student_layers": layers[1], "hidden_size": job.teacher.config.hidden_size},
        "precisions": {precision: measure(options, job, precision) for precision in options.precisions.split(",")},
    }
    write_json(options.out, result)
    print(table(result))


if __name__ == "__main__":
    main()

"""The whole T4-tiny distillation of TextBrewer against crossdistil: same teacher, data, matches and precision.

    pip install textbrewer tensorboard     # for this file only; no part of crossdistil needs them
    OMP_NUM_THREADS=1 python benchmarks/textbrewer_job.py --data data/reviews --vocabulary vocab.txt --rows 192

The teacher is a BERT of 12 layers x 768 with random weights, the student T4-tiny (4 x 312), the data a folder with
train.tsv and dev.tsv: a text, a second text (the aspect), one of three labels. Both sides minimise soft targets at
temperature 8 plus TextBrewer's matches L4t_hidden_mse and L4_hidden_smmd.

Part 1, are the losses the same: both sides train from the same weights on the same padded batches, without dropout, and
the losses of each step are compared. Part 2, how long the job takes: each system in a process of its own, one epoch at a
time in turns, from models and tokens in memory to the trained student on disk; writing the teacher cache counts.
  textbrewer   its documented loop: GeneralDistiller inside `with`, transformers' models, batches padded to --max-length
  cached       crossdistil as it comes: the teacher's outputs computed once, batches of similar length
  uncached     the same with the teacher run in every step (teacher_cache.use: never)
  bf16         `cached` in bf16 (with --bf16); TextBrewer's own half precision needs a GPU and Apex
`--rows` takes fewer training rows, for all of them: steps, cache and epochs shrink alike, so the ratios are those of the
whole job but for what is paid once (the first step, the teacher's digest), which weighs more here. Take a multiple of 64.
`--epochs` decides how much the cache weighs: TextBrewer trains T4-tiny for 30 to 60, the recipe for 30. A job of 5 of them, of
the same start, first epochs and end, is told as well. The table is of processor time, since others may use the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import math
import multiprocessing
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tables import NEW_RESULTS, machine, markdown, summary, write_json
from textbrewer_sides import (
    LEARNING_RATE,
    SEED,
    WARMUP,
    Crossdistil,
    Settings,
    TextBrewer,
    recipe_of,
    write_data,
    write_teacher,
)

from crossdistil.core.engine import Step
from crossdistil.core.job import prepare
from crossdistil.core.schedules import in_steps, schedule

NAMES = {
    "textbrewer": "TextBrewer",
    "cached": "crossdistil",
    "uncached": "crossdistil, teacher run in every step",
    "bf16": "crossdistil",
}
TERMS = ("total", "kd_ce", "hidden_mse", "mmd")
SHORT = 5
"""Epochs of the shorter job that the table tells of."""


class LossRecorder:
    """Takes the place of TextBrewer's TensorBoard writer: sums its scalars to our terms."""

    def __init__(self):
        self.steps: list[dict[str, float]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """TextBrewer names its terms `scalar/unweighted_hidden_mmd_0-0_3-3`."""
        if step == len(self.steps):
            self.steps.append(dict.fromkeys(TERMS, 0.0))
        kinds = {"total_loss": "total", "kd_loss": "kd_ce", "hidden_mse": "hidden_mse", "hidden_mmd": "mmd"}
        self.steps[step][next(term for kind, term in kinds.items() if kind in name)] += value


def equality(settings: Settings, steps: int) -> dict:
    """The losses of the same steps on both sides."""
    import torch

    torch.set_num_threads(1)
    alike = ("stages.0.train.dropout=0", f"stages.0.train.length_buckets=[{settings.max_length}]")
    ours = Crossdistil(settings, "equality", "always", "fp32", (*alike, "stages.0.train.max_gradient_norm=null"))
    parameters = ours.teach()
    objective, factor = ours.stage.objective, schedule("linear", steps, in_steps(WARMUP, steps))
    micro_batches = [batch for batch, _ in zip(ours.stage.batches.epoch(0), range(steps))]
    made = (
        Step(objective.prepare(batch), LEARNING_RATE * factor(number), number)
        for number, batch in enumerate(micro_batches)
    )
    values = ours.train_step(parameters).run(made, steps).fetch()[:, : len(TERMS)]

    names = ("input_ids", "attention_mask", "token_type_ids")
    batches = [{name: torch.from_numpy(batch[name]).long() for name in names} for [batch] in micro_batches]
    theirs = TextBrewer(settings, student_dropout=0.0)
    recorder = _with_projections(theirs, parameters)
    with theirs.distiller:
        theirs.train(batches, 1, -1.0)
    found = np.array([[step[term] for term in TERMS] for step in recorder.steps])
    difference = np.abs(values / found - 1)  # (steps, terms)

    careless = TextBrewer(settings, student_dropout=0.0)
    noisy = _with_projections(careless, parameters)
    careless.train(batches[:1], 1, -1.0)
    return {
        "steps": steps,
        "first_loss": float(found[0, 0]),
        "last_loss": float(found[-1, 0]),
        "largest_relative_difference": {term: float(difference[:, index].max()) for index, term in enumerate(TERMS)},
        "teacher_in_training_mode_without_with": careless.teacher.training,
        "first_loss_without_with": noisy.steps[0]["total"],
    }


def _with_projections(side: TextBrewer, parameters: dict[str, np.ndarray]) -> LossRecorder:
    """Give TextBrewer our projections, and a writer that keeps its losses."""
    import torch

    weights = [array for name, array in parameters.items() if name.startswith("projection.") and array.ndim == 2]
    with torch.no_grad():
        for projection, array in zip(side.distiller.projs, weights):  # biases are 0 on both sides
            projection.weight.copy_(torch.from_numpy(array))
    side.distiller.tb_writer = LossRecorder()
    return side.distiller.tb_writer


def work(connection, system: str, settings: Settings, steps_per_epoch: int) -> None:
    """A system in its own process: it waits until it is told to go on, works to the end of a part, and tells its times."""
    import torch

    torch.set_num_threads(1)
    if system == "textbrewer":
        side = TextBrewer(settings)
    else:
        cache, precision = "never" if system == "uncached" else "always", "bf16" if system == "bf16" else "fp32"
        side = Crossdistil(settings, system, cache, precision, (f"stages.0.train.log_every={steps_per_epoch}",))
    connection.send("ready")
    connection.recv()
    started = [time.perf_counter(), time.process_time()]

    def turn(name: str) -> None:
        connection.send((name, time.perf_counter() - started[0], time.process_time() - started[1]))
        connection.recv()
        started[:] = time.perf_counter(), time.process_time()

    side.run(turn)


def speed(settings: Settings, systems: list[str], steps_per_epoch: int) -> dict:
    """Seconds of each part of the job of each system, which take turns."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for system in systems:
        pipes[system], other = context.Pipe()
        processes.append(context.Process(target=work, args=(other, system, settings, steps_per_epoch), daemon=True))
        processes[-1].start()
        other.close()
        pipes[system].recv()  # one after the other: they read the teacher
    parts: dict[str, dict[str, list[float]]] = {}
    for number in range(settings.epochs + 2):  # the start, the epochs, the end
        place = number % len(systems)
        for system in systems[place:] + systems[:place]:
            pipes[system].send("go")
            name, wall, cpu = pipes[system].recv()
            for clock, seconds in (("wall", wall), ("cpu", cpu)):
                parts.setdefault(system, {"wall": [], "cpu": []})[clock].append(seconds)
            print(f"{system}: {name} {max(number, 1) if name == 'epoch' else ''} {wall:.1f} s ({cpu:.1f} s of CPU)", flush=True)
    for system, process in zip(systems, processes):
        pipes[system].send("go")
        process.join()
    return {system: _summed(found) for system, found in parts.items()}


def _summed(parts: dict[str, list[float]]) -> dict:
    return {
        clock: {
            "total": sum(seconds),
            "before_the_first_epoch": seconds[0],
            "epochs": seconds[1:-1],
            "end": seconds[-1],
            "epoch_from_the_second": summary(seconds[2:-1]),
        }
        for clock, seconds in parts.items()
    }


def ratios(times: dict, clock: str) -> dict:
    """How many times as long as `cached` (or `bf16`) the others take: the whole job, and paired epochs from the second on."""
    found = {}
    for ours in ("cached", "bf16"):
        for other in ("textbrewer", "uncached"):
            if ours not in times or other not in times or (ours == "bf16" and other == "uncached"):
                continue
            a, b = times[ours][clock], times[other][clock]
            pairs = [slow / fast for slow, fast in zip(b["epochs"][1:], a["epochs"][1:], strict=True)]
            found[f"{other}/{ours}"] = {"job": b["total"] / a["total"], "epoch": summary(pairs) | {"rounds": pairs}}
    return found


def in_all(parts: dict, epochs: int) -> float:
    """Seconds of a job of so many epochs: the start, the first of the measured epochs, and the end."""
    return parts["before_the_first_epoch"] + sum(parts["epochs"][:epochs]) + parts["end"]


def table(result: dict) -> str:
    """The result as Markdown for docs/evidence.md, by processor time."""
    settings, same, seconds = result["settings"], result["equality"], result["seconds"]
    jobs = sorted({min(SHORT, settings["epochs"]), settings["epochs"]}, reverse=True)
    theirs, rows = seconds["textbrewer"]["cpu"], []
    for system, found in seconds.items():
        parts = found["cpu"]
        row = [NAMES[system], "bf16" if system == "bf16" else "fp32", f"{in_all(parts, settings['epochs']):.0f}"]
        row.append(f"{parts['before_the_first_epoch']:.0f}" if system in ("cached", "bf16") else "")
        row.append(_spread(parts["epoch_from_the_second"]))
        if system == "textbrewer":
            row += [""] * (len(jobs) + 1)
        else:
            row += [f"{in_all(theirs, epochs) / in_all(parts, epochs):.1f}" for epochs in jobs]
            pairs = zip(theirs["epochs"][1:], parts["epochs"][1:], strict=True)
            row.append(_spread(summary([slow / fast for slow, fast in pairs])))
        rows.append(row)
    headings = ["training", "precision", f"{settings['epochs']} epochs, s", "of it teacher cache, s", "a later epoch, s"]
    headings += [f"TextBrewer takes longer by, {epochs} epochs" for epochs in jobs] + ["a later epoch"]
    sentences = [
        f"T4-tiny with `L4t_hidden_mse` and `L4_hidden_smmd` on {settings['rows']:,} rows, batches of "
        f"{settings['batch_size']}, teacher of 12 layers x 768; a row has {settings['mean_tokens']:.0f} tokens in the mean, and "
        f"TextBrewer {result['versions']['textbrewer']} pads to {settings['max_length']}.",
        "All systems take turns, an epoch at a time; later epochs are those from the second on, medians "
        "(smallest to largest).",
        f"With the same batches and no dropout the losses of {same['steps']} steps differ by "
        f"{same['largest_relative_difference']['total']:.0e} at most, relatively.",
        f"Seconds are of processor time, which other work on the machine changes less; by the clock TextBrewer takes "
        f"{result['ratios']['wall']['textbrewer/cached']['job']:.1f} times as long in all.",
        f"{result['machine']['cpu']}, threads: {result['machine']['threads']}.",
    ]
    if "uncached" in seconds:
        times = _spread(result["ratios"]["cpu"]["uncached/cached"]["epoch"])
        sentences.insert(2, f"For crossdistil the teacher cache makes a later epoch {times} times as fast.")
    return f"{markdown(headings, rows)}\n\n{' '.join(sentences)}"


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.1f} ({values['min']:.1f} to {values['max']:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--text", default="text_a", help="column of the texts")
    parser.add_argument("--text-pair", default="category", help="column of the second texts")
    parser.add_argument("--label", default="polarity", help="column of the labels")
    parser.add_argument("--vocabulary", type=Path, required=True, help="vocab.txt of a BERT")
    parser.add_argument("--rows", type=int, help="training rows; default: all")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--max-length", type=int, default=70)
    parser.add_argument("--equality-steps", type=int, default=10)
    parser.add_argument("--systems", default="textbrewer,cached,uncached", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--bf16", action="store_true", help="also crossdistil in bf16")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "textbrewer.json")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs: later epochs are compared; give 2 or more")
    systems = [*options.systems.split(","), *(["bf16"] if options.bf16 else [])]
    with tempfile.TemporaryDirectory() as folder:
        job = Settings(
            Path(folder) / "job", options.text, options.text_pair, options.label, options.batch_size, options.max_length,
            options.epochs,
        )  # fmt: skip
        small = dataclasses.replace(job, work=Path(folder) / "equality")
        rows = write_data(options.data, job.work / "data", options.rows)
        write_data(options.data, small.work / "data", options.equality_steps * options.batch_size)
        write_teacher(options.vocabulary, options.data, options.label, job.work / "teacher")
        (small.work / "teacher").symlink_to(job.work / "teacher")
        same = equality(small, options.equality_steps)
        print(f"losses of {same['steps']} steps, largest relative difference: {same['largest_relative_difference']}")
        print(f"TextBrewer without `with`: teacher in training mode: {same['teacher_in_training_mode_without_with']}, ", end="")
        print(f"first loss {same['first_loss_without_with']:.5f} instead of {same['first_loss']:.5f}", flush=True)
        mean_tokens = float(prepare(recipe_of(job), "lengths", 1).data.tokens["train"].lengths.mean())
        times = speed(job, systems, math.ceil(rows / options.batch_size))
    names = ("epochs", "batch_size", "max_length")
    result = {
        "benchmark": "textbrewer_job",
        "date": datetime.date.today().isoformat(),
        "machine": machine() | {"threads": 1},
        "versions": {name: version(name) for name in ("torch", "transformers", "textbrewer")},
        "settings": {"rows": rows, "mean_tokens": mean_tokens, "seed": SEED} | {name: getattr(options, name) for name in names},
        "equality": same,
        "seconds": times,
        "ratios": {clock: ratios(times, clock) for clock in ("wall", "cpu")},
    }
    write_json(options.out, result)
    for clock, found in result["ratios"].items():
        for pair, ratio in found.items():
            print(f"{pair}, {clock} time: {ratio['job']:.2f} for the job, {ratio['epoch']['median']:.2f} for a later epoch")
    if {"textbrewer", "cached"} <= set(systems):
        print(f"{rows:,} rows on every side, all epochs: the ratios stand for the job on all rows.\n\n{table(result)}")


if __name__ == "__main__":
    main()

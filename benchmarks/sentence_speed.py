"""Tokens per second of the distillation of `sentence_embeddings.py`: crossdistil and sentence-transformers' `MSELoss` in turns.

    OMP_NUM_THREADS=1 python benchmarks/sentence_speed.py --texts data/enwiki.txt data/SST-2/train.tsv --scored data/STS-B \\
        --teacher models/minilm --count 1000 --turns 7 --out runs/embeddings

Both train the same student with the same teacher on the same batches, a few steps each in turns in one process. What is timed is
processor time, since others may use the machine; the order changes with each turn, and the first turn of each is not counted.
A step is the teacher's forward pass, the student's, backward and AdamW; tokens are those of texts, without padding. The figures
go to `runs/benchmarks/sentence_speed.json`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sentence_embeddings import add_options, overrides, sides, their_step, write_data
from tables import machine, markdown, measure, summary

from crossdistil.backends.registry import load_engine
from crossdistil.core.data.batches import Batch, real_tokens
from crossdistil.core.engine import Engine, EngineOptions, Step
from crossdistil.core.job import Job, prepare
from crossdistil.core.recipe import load_recipe

Take = Callable[[Sequence[Batch]], None]
"""Train on these batches, a step each."""


def ours(job: Job, engine: Engine) -> Take:
    """The product's step."""
    stage = job.stage(0)
    objective, parameters = stage.objective, {**job.student.parameters, **job.projections}
    frozen = {f"{name}/{key}": array for name, model in job.teachers.items() for key, array in model.parameters.items()}
    step = engine.train_step(objective.function, parameters, frozen, stage.optimizer(parameters), objective.statistics)

    def take(batches: Sequence[Batch]) -> None:
        steps: Iterator[Step] = (Step(objective.prepare([batch]), 1e-4, number) for number, batch in enumerate(batches))
        step.run(steps, len(batches)).fetch()

    return take


def theirs(job: Job, teacher: Any, student: Any) -> Take:
    """sentence-transformers' loss and torch's fused AdamW, as its trainer's default is."""
    step = their_step(job.stage(0).section.train, teacher, student, fused=True)
    student.train()

    def take(batches: Sequence[Batch]) -> None:
        for batch in batches:
            step(batch, 1e-4)

    return take


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    given = overrides(options, write_data(options))
    engine = load_engine("torch", EngineOptions("cpu"))
    job = prepare(load_recipe("embedding", given, "distil"), "embedding", engine.length_step)
    takes = {"crossdistil": ours(job, engine), "sentence_transformers": theirs(job, *sides(options))}
    batches = (batch for epoch in range(1000) for (batch,) in job.stage(0).batches.epoch(epoch))
    speeds: dict[str, list[float]] = {name: [] for name in takes}
    for turn in range(options.turns + 1):
        own = [next(batches) for _ in range(options.steps)]
        for name in (list(takes), list(takes)[::-1])[turn % 2]:
            started = time.process_time()
            takes[name](own)
            seconds = time.process_time() - started
            if turn:
                speeds[name].append(sum(map(real_tokens, own)) / seconds)
        if turn:
            told = ", ".join(f"{name} {each[-1]:.0f} tokens/s" for name, each in speeds.items())
            print(f"turn {turn}/{options.turns}: {told}", flush=True)
    ratios = [own / other for own, other in zip(speeds["crossdistil"], speeds["sentence_transformers"], strict=True)]
    return {
        "benchmark": "sentence_speed",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "threads": engine.threads,
        "clock": "process_time",
        "turns": options.turns,
        "steps": options.steps,
        "batch_size": job.stage(0).section.train.batch_size,
        "tokens_per_second": {name: summary(each) for name, each in speeds.items()},
        "ratio": summary(ratios),
    }


def table(found: dict[str, Any]) -> str:
    """For docs/evidence.md."""
    names = {"crossdistil": "crossdistil", "sentence_transformers": "sentence-transformers' MSELoss"}
    rows = [
        [names[name], f"{each['median']:,.0f}", f"{each['min']:,.0f} to {each['max']:,.0f}"]
        for name, each in found["tokens_per_second"].items()
    ]
    ratio, count = found["ratio"], f"{found['turns']} turns of {found['steps']} steps of {found['batch_size']} texts"
    told = f"The ratio of a turn is {ratio['median']:.2f} in the median, {ratio['min']:.2f} to {ratio['max']:.2f}"
    return "\n\n".join(
        [
            markdown(["trained by", "tokens per second of processor time", "of single turns"], rows),
            f"{told}, over {count}, on {found['threads']} thread. Other programs used the machine, so processor time was taken.",
        ]
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="of each side in a turn")
    measure(parser, "sentence_speed", measured, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

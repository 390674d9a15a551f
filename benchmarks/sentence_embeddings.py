"""A student of three layers of a sentence-embedding model, trained on texts alone by `recipes/embedding.yaml --preset distil`,
and by sentence-transformers' own `MSELoss` from the same start, on the same batches, with the same learning rates: how well both
score, and how fast both train, in one run.

    OMP_NUM_THREADS=1 python benchmarks/sentence_embeddings.py --texts data/enwiki.txt data/SST-2/train.tsv --scored data/STS-B \
        --teacher models/minilm --out runs/embeddings

`--texts` are files with a text a line, or .tsv with a column `sentence`; so many of each are drawn, from `--seed`. The two
trainings take turns in one process, a few steps each. What is timed is processor time, since others may use the machine; the
order changes with each turn, and the first turn of each is not counted. A step is the teacher's forward pass, the student's,
backward and AdamW; tokens are those of texts, without padding. Scored is on STS-B's dev (its test has no labels): Spearman's rank
correlation of the cosine with the human scores, by sentence-transformers' `EmbeddingSimilarityEvaluator` for all models. The
figures go to `runs/benchmarks/sentence_embeddings.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tables import machine, markdown, measure, model_at, summary

from crossdistil.backends.registry import load_engine
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.batches import Batch, real_tokens
from crossdistil.core.data.tables import read_columns
from crossdistil.core.engine import Engine, EngineOptions, Step
from crossdistil.core.job import Job, prepare
from crossdistil.core.recipe import load_recipe
from crossdistil.core.train_section import TrainSection

LAYERS = (0, 2, 4)
SHORTEST, LONGEST = 40, 200
"""Characters of a line that is taken as a sentence."""

Numbered = tuple[int, Batch]
"""The number of a step, from 0, and its batch."""
Take = Callable[[Sequence[Numbered]], None]
"""Take these steps."""


def drawn_texts(files: list[Path], count: int, seed: int) -> list[str]:
    """So many texts of each file, shuffled."""
    generator, found = random.Random(seed), []
    for path in files:
        if path.suffix == ".tsv":
            lines = list(read_columns(path, ["sentence"], texts=["sentence"]).cells["sentence"])
        else:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            lines = [line for line in lines if SHORTEST <= len(line) <= LONGEST]
        found += generator.sample(list(dict.fromkeys(lines)), count)
    generator.shuffle(found)
    return found


def overrides(options: argparse.Namespace, data: Path) -> list[str]:
    """Of the recipe."""
    return [
        f"task.data={data}",
        f"teacher.model={options.teacher}",
        f"student.init.layers={list(LAYERS)}",
        f"stages.0.train.epochs={options.epochs}",
        "stages.0.train.keep=last",
        f"seed={options.seed}",
        *options.set,
    ]


def sides(options: argparse.Namespace) -> tuple[Any, Any]:
    """(teacher, student of its layers) in sentence-transformers, as its `model_distillation` example makes them."""
    import torch
    from sentence_transformers import SentenceTransformer

    teacher, student = (SentenceTransformer(str(options.teacher), device="cpu") for _ in range(2))
    encoder = student[0].auto_model.encoder
    encoder.layer = torch.nn.ModuleList([encoder.layer[index] for index in LAYERS])
    student[0].auto_model.config.num_hidden_layers = len(LAYERS)
    return teacher, student


class Ours:
    """The product's step, with the learning rates and seeds that a run has."""

    def __init__(self, job: Job, engine: Engine):
        stage = job.stage(0)
        self._job, self._objective, self._train, self._total = job, stage.objective, stage.section.train, stage.total
        parameters = {**job.student.parameters, **job.projections}
        frozen = {f"{name}/{key}": array for name, model in job.teachers.items() for key, array in model.parameters.items()}
        optimizer, objective = stage.optimizer(parameters), stage.objective
        self._step = engine.train_step(objective.function, parameters, frozen, optimizer, objective.statistics)
        self._factor = self._train.factor(self._total)

    def take(self, steps: Sequence[Numbered]) -> None:
        """Train."""
        seed = self._job.recipe.seed
        made = (
            Step(
                self._objective.prepare([batch], number, self._total, seed),
                self._train.learning_rate * self._factor(number),
                int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) >> 1,
            )
            for number, batch in steps
        )
        self._step.run(made, len(steps)).fetch()

    def student(self) -> Model:
        """As it is now."""
        return dataclasses.replace(self._job.student, parameters={**self._job.student.parameters, **self._step.parameters()})


def their_take(train: TrainSection, total: int, teacher: Any, student: Any) -> Take:
    """sentence-transformers' loss and torch's fused AdamW, as its trainer's default is."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MSELoss

    named = [(name, weight) for name, weight in student.named_parameters() if "pooler" not in name]
    plain = [weight for name, weight in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [weight for name, weight in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    given = {"lr": train.learning_rate, "betas": (train.beta1, train.beta2), "eps": train.epsilon, "fused": True}
    optimizer, factor, loss = torch.optim.AdamW(groups, **given), train.factor(total), MSELoss(student)

    def take(steps: Sequence[Numbered]) -> None:
        for number, batch in steps:
            real = batch["example_mask"] > 0
            names = ("input_ids", "token_type_ids", "attention_mask")
            features = {name: torch.from_numpy(batch[name][real].astype(np.int64)) for name in names}
            with torch.no_grad():
                target = teacher(dict(features))["sentence_embedding"]
            loss([features], target).backward()
            torch.nn.utils.clip_grad_norm_([weight for _, weight in named], train.max_gradient_norm)
            for group in optimizer.param_groups:
                group["lr"] = train.learning_rate * factor(number)
            optimizer.step()
            optimizer.zero_grad()

    return take


def numbered(job: Job) -> Iterator[Numbered]:
    """The steps of the whole training."""
    stage, number = job.stage(0), 0
    for epoch in range(-(-stage.total // stage.batches.steps_per_epoch)):
        for (batch,) in stage.batches.epoch(epoch):
            if number < stage.total:
                yield number, batch
            number += 1


def in_turns(takes: dict[str, Take], steps: Iterator[Numbered], turn: int, total: int) -> dict[str, list[float]]:
    """Train on all steps, `turn` of them a side in turns; tokens per second of processor time, of each turn but the first."""
    speeds: dict[str, list[float]] = {name: [] for name in takes}
    done = 0
    while own := list(islice(steps, turn)):
        tokens = sum(real_tokens(batch) for _, batch in own)
        for name in (list(takes), list(takes)[::-1])[done // turn % 2]:
            started = time.process_time()
            takes[name](own)
            seconds = time.process_time() - started
            if done:
                speeds[name].append(tokens / seconds)
        done += len(own)
        told = ", ".join(f"{name} {each[-1]:.0f} tokens/s" for name, each in speeds.items() if each)
        print(f"step {done}/{total}: {told}", flush=True)
    return speeds


def spearman(model: Any, scored: Path) -> float:
    """As sentence-transformers has it."""
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    read = read_columns(scored / "dev.tsv", ["sentence1", "sentence2", "score"], texts=["sentence1", "sentence2"])
    first, second = (list(read.cells[name]) for name in ("sentence1", "sentence2"))
    evaluator = EmbeddingSimilarityEvaluator(first, second, [float(cell) / 5 for cell in read.cells["score"]])
    return float(evaluator(model)["spearman_cosine"])


def write_data(options: argparse.Namespace) -> Path:
    """The folder of the drawn texts and the scored pairs."""
    data = options.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    texts = drawn_texts(options.texts, options.count, options.seed)
    (data / "train.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    shutil.copy(options.scored / "dev.tsv", data)
    return data


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    from sentence_transformers import SentenceTransformer

    given, engine = overrides(options, write_data(options)), load_engine("torch", EngineOptions("cpu"))
    job = prepare(load_recipe("embedding", given, "distil"), "embedding", engine.length_step)
    stage, (teacher, student) = job.stage(0), sides(options)
    dev = {"teacher": spearman(teacher, options.scored), "before": spearman(student, options.scored)}
    own, train = Ours(job, engine), stage.section.train
    takes = {"crossdistil": own.take, "sentence_transformers": their_take(train, stage.total, teacher, student)}
    student.train()
    speeds = in_turns(takes, numbered(job), options.turn, stage.total)
    student.eval()
    save_model(own.student(), options.out / "student", job.data.tokenizer)
    dev["crossdistil"] = spearman(SentenceTransformer(str(options.out / "student"), device="cpu"), options.scored)
    dev["sentence_transformers"] = spearman(student, options.scored)
    return {
        "benchmark": "sentence_embeddings",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "texts": len(options.texts) * options.count,
        "epochs": options.epochs,
        "steps": stage.total,
        "batch_size": train.batch_size,
        "turn": options.turn,
        "threads": engine.threads,
        "dev": dev,
        "tokens_per_second": {name: summary(each) for name, each in speeds.items()},
        "ratio": summary([ours / other for ours, other in zip(*speeds.values(), strict=True)]),
    }


def table(found: dict[str, Any]) -> str:
    """For docs/evidence.md."""
    names = {
        "teacher": "teacher, 6 layers",
        "before": "three of its layers, before training",
        "crossdistil": "three layers, trained by crossdistil",
        "sentence_transformers": "three layers, trained by sentence-transformers",
    }
    rows = []
    for key, value in found["dev"].items():
        speed = found["tokens_per_second"].get(key)
        told = [f"{speed['median']:,.0f}", f"{speed['min']:,.0f} to {speed['max']:,.0f}"] if speed else ["", ""]
        rows.append([names[key], f"{value:.4f}", *told])
    headings = ["model", "Spearman on STS-B dev", "tokens per second of processor time", "of single turns"]
    how = f"{found['texts']:,} texts, as many from each file, {found['epochs']} epochs, {found['steps']:,} steps"
    ratio = found["ratio"]
    sentences = [
        f"Trained on {how} of {found['batch_size']} texts; both on the same batches, from the same start, in one run, "
        f"{found['turn']} steps each in turns.",
        f"The ratio of a turn is {ratio['median']:.2f} in the median, {ratio['min']:.2f} to {ratio['max']:.2f}; threads: "
        f"{found['threads']}.",
    ]
    return f"{markdown(headings, rows)}\n\n{' '.join(sentences)}"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--teacher", type=model_at, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000, help="texts of each file")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--turn", type=int, default=4, help="steps of a side in a turn")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for both")
    measure(parser, "sentence_embeddings", measured, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A student of three layers of a sentence-embedding model, trained on texts alone by `recipes/embedding.yaml --preset distil`,
and by sentence-transformers' own `MSELoss` from the same start, on the same batches, with the same learning rates.

    python benchmarks/sentence_embeddings.py --texts data/enwiki.txt data/SST-2/train.tsv --scored data/STS-B \
        --teacher models/minilm --out runs/embeddings

`--texts` are files with a text a line, or .tsv with a column `sentence`; so many of each are drawn, from `--seed`. Scored is on
STS-B's dev (its test has no labels): Spearman's rank correlation of the cosine with the human scores, by sentence-transformers'
`EmbeddingSimilarityEvaluator` for all models. The figures go to `runs/benchmarks/sentence_embeddings.json`.
"""

from __future__ import annotations

import argparse
import datetime
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tables import machine, markdown, measure, model_at

from crossdistil.core.app.api import run
from crossdistil.core.data.batches import Batch
from crossdistil.core.data.tables import read_columns
from crossdistil.core.job import Job, prepare
from crossdistil.core.kinds.sentence_embeddings import cosines
from crossdistil.core.recipe import load_recipe
from crossdistil.core.train_section import TrainSection

LAYERS = (0, 2, 4)
SHORTEST, LONGEST = 40, 200
"""Characters of a line that is taken as a sentence."""


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


def their_step(train: TrainSection, teacher: Any, student: Any, fused: bool = False) -> Callable[[Batch, float], float]:
    """`step(batch, learning rate) -> loss`, with sentence-transformers' loss and torch's AdamW, `fused` as its trainer has it."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MSELoss

    named = [(name, weight) for name, weight in student.named_parameters() if "pooler" not in name]
    plain = [weight for name, weight in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [weight for name, weight in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    given = {"lr": train.learning_rate, "betas": (train.beta1, train.beta2), "eps": train.epsilon, "fused": fused}
    optimizer = torch.optim.AdamW(groups, **given)
    loss = MSELoss(student)

    def step(batch: Batch, rate: float) -> float:
        real = batch["example_mask"] > 0
        names = ("input_ids", "token_type_ids", "attention_mask")
        features = {name: torch.from_numpy(batch[name][real].astype(np.int64)) for name in names}
        with torch.no_grad():
            target = teacher(dict(features))["sentence_embedding"]
        value = loss([features], target)
        value.backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in named], train.max_gradient_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def trained(job: Job, teacher: Any, student: Any) -> None:
    """Train `student` on the batches of the job's first stage."""
    import torch

    stage = job.stage(0)
    train, total = stage.section.train, stage.total
    torch.manual_seed(job.recipe.seed)
    take, factor, step = their_step(train, teacher, student), train.factor(total), 0
    student.train()
    for epoch in range(-(-total // stage.batches.steps_per_epoch)):
        for (batch,) in stage.batches.epoch(epoch):
            if step == total:
                break
            value = take(batch, train.learning_rate * factor(step))
            step += 1
            if step % 50 == 0:
                print(f"sentence-transformers: step {step}/{total}, loss {value:.6f}", flush=True)
    student.eval()


def spearman(model: Any, scored: Path) -> float:
    """As sentence-transformers has it."""
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    read = read_columns(scored / "dev.tsv", ["sentence1", "sentence2", "score"], texts=["sentence1", "sentence2"])
    first, second = (list(read.cells[name]) for name in ("sentence1", "sentence2"))
    evaluator = EmbeddingSimilarityEvaluator(first, second, [float(cell) / 5 for cell in read.cells["score"]])
    return float(evaluator(model)["spearman_cosine"])


def apart(folder: Path, scored: Path, own: float) -> dict[str, float]:
    """How far the run's own score, and its answers, are from those of its student's folder in sentence-transformers."""
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "student"), device="cpu")
    read = read_columns(scored / "dev.tsv", ["sentence1", "sentence2"], texts=["sentence1", "sentence2"])
    theirs = cosines(*(model.encode(list(read.cells[name])) for name in ("sentence1", "sentence2")))
    ours = load_file(folder / "predictions.safetensors")["logits"][:, 0]
    return {"spearman": abs(own - spearman(model, scored)), "cosine": float(np.abs(ours - theirs).max())}


def write_data(options: argparse.Namespace) -> Path:
    """The folder of the drawn texts and the scored pairs."""
    data = options.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    texts = drawn_texts(options.texts, options.count, options.seed)
    (data / "train.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    shutil.copy(options.scored / "dev.tsv", data)
    return data


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that say what is trained on what."""
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--teacher", type=model_at, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000, help="texts of each file")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for both")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    data = write_data(options)
    given = overrides(options, data)
    folder = options.out / "student"
    result = run("embedding", out=folder, overrides=given, preset="distil", backend="torch")
    teacher, student = sides(options)
    found: dict[str, Any] = {
        "benchmark": "sentence_embeddings",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "texts": len(options.texts) * options.count,
        "epochs": options.epochs,
        "steps": result["steps"],
        "dev": {"teacher": spearman(teacher, options.scored), "before": spearman(student, options.scored)},
    }
    found["dev"]["crossdistil"] = own = result["student"]["metrics"]["spearman"]
    found["apart"] = apart(folder, options.scored, own)
    trained(prepare(load_recipe("embedding", given, "distil"), "embedding", 8), teacher, student)
    found["dev"]["sentence_transformers"] = spearman(student, options.scored)
    return found


def table(found: dict[str, Any]) -> str:
    """For docs/evidence.md."""
    names = {
        "teacher": "teacher, 6 layers",
        "before": "three of its layers, before training",
        "crossdistil": "three layers, trained by crossdistil",
        "sentence_transformers": "three layers, trained by sentence-transformers",
    }
    rows = [[names[key], f"{value:.4f}"] for key, value in found["dev"].items()]
    how = f"{found['texts']:,} texts, as many from each file, {found['epochs']} epochs, {found['steps']:,} steps"
    scores = markdown(["model", "Spearman on STS-B dev"], rows)
    return f"{scores}\n\nTrained on {how}; both on the same batches, from the same start."


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    measure(parser, "sentence_embeddings", measured, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The demo: a whole tour on data that is made here, with a real pretrained encoder that comes with pip.

Sentences -> a teacher fine-tuned from MiniLM -> the same 3-layer student distilled on every backend -> the comparison.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...backends.registry import interpreters
from ..errors import RunFolderError
from ..recipe import Recipe, parse_recipe
from .api import run
from .crosscheck import CrosscheckOptions, comparable, crosscheck
from .crosscheck_tables import print_crosscheck
from .demo_data import find_minilm, write_demo_task

TRAIN_SENTENCES, DEV_SENTENCES = 1200, 300


def run_demo(backends: tuple[str, ...], out: Path, seed: int, console: Console) -> bool:
    """Run the tour into `out`; returns whether the backends agree. With one backend there is nothing to compare."""
    started = time.perf_counter()
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: holds something already; remove it, or choose another (--out; with make: OUT=...)")
    interpreters(backends)
    encoder = find_minilm()
    console.rule("[bold]1  sentences")
    data = out / "data"
    write_demo_task(data, seed, TRAIN_SENTENCES, DEV_SENTENCES)
    console.print(f"{TRAIN_SENTENCES} train and {DEV_SENTENCES} dev sentences in {data}, for example:")
    for line in (data / "train.tsv").read_text(encoding="utf-8").splitlines()[1:4]:
        sentence, label = line.split("\t")
        console.print(f"  {('negative', 'positive')[int(label)]}: {sentence}")
    # The teacher is trained where it is fastest; the backends are compared on the student.
    teacher_backend = "torch" if "torch" in backends else backends[0]
    console.rule(f"[bold]2  teacher: MiniLM, fine-tuned with {teacher_backend}")
    teacher = run(teacher_recipe(data, encoder, seed), out=out / "teacher", backend=teacher_backend)
    console.print(f"teacher: dev accuracy {teacher['student']['metrics']['accuracy']:.4f}")
    console.rule("[bold]3  student: 3 layers, distilled")
    recipe = student_recipe(data, out / "teacher" / "student", seed)
    if len(backends) == 1:
        result = {"backends": {backends[0]: run(recipe, out=out / "student", backend=backends[0])}, "verdict": "agree"}
    else:
        options = CrosscheckOptions(backends, out / "crosscheck")
        result = crosscheck(comparable(recipe, None), options, console)
        print_crosscheck(result, console)
    _summary(teacher, result, console)
    if len(backends) > 1:
        console.print(f"report: {out / 'crosscheck' / 'report.html'}")
    console.print(f"the whole demo took {time.perf_counter() - started:.0f} s")
    return result["verdict"] == "agree"


def teacher_recipe(data: Path, encoder: Path, seed: int) -> Recipe:
    """Fine-tuning of the encoder on the demo's sentences."""
    return parse_recipe(
        {
            "method": "finetune",
            "task": {"name": "sst-2", "data": str(data), "max_length": 48},
            "student": {"init": {"from": str(encoder)}},
            "stages": [
                {
                    "name": "finetune",
                    "objective": [{"loss": "hard_label"}],
                    "train": {"epochs": 2, "batch_size": 32, "learning_rate": 1e-4, "log_every": 25},
                }
            ],
            "seed": seed,
        },
        "demo teacher",
    )


def student_recipe(data: Path, teacher: Path, seed: int) -> Recipe:
    """Knowledge distillation into three of the teacher's layers."""
    return parse_recipe(
        {
            "method": "kd",
            "task": {"name": "sst-2", "data": str(data), "max_length": 48},
            "teacher": {"model": str(teacher)},
            "student": {
                "architecture": {"num_hidden_layers": 3},
                "init": {"from": "teacher", "layers": [0, 2, 4]},
            },
            "stages": [
                {
                    "name": "distil",
                    "objective": [
                        {"loss": "kd_ce", "weight": 0.5, "temperature": 4},
                        {"loss": "hard_label", "weight": 0.5},
                    ],
                    "train": {
                        "epochs": 1,
                        "batch_size": 32,
                        "learning_rate": 1e-4,
                        "length_buckets": [24],
                    },
                }
            ],
            "seed": seed,
        },
        "demo student",
    )


def _summary(teacher: dict, result: dict, console: Console) -> None:
    table = Table(title="dev accuracy", title_justify="left", box=None)
    for heading in ("model", "backend", "layers", "parameters", "accuracy"):
        table.add_column(heading, justify="left" if heading in ("model", "backend") else "right")
    rows = [("teacher", 6, teacher)] + [("student", 3, found) for found in result["backends"].values()]
    for model, layers, found in rows:
        student = found["student"]
        millions = f"{student['parameters'] / 1e6:.1f}M"
        table.add_row(model, found["backend"], str(layers), millions, f"{student['metrics']['accuracy']:.4f}")
    console.print(table)

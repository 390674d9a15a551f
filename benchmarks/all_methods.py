"""The runs behind the tables of results: a teacher, and for each seed a student by every method; then their comparison.

    python benchmarks/all_methods.py --data data/SST-2 --encoder models/encoder --out runs/sst2
    python benchmarks/all_methods.py --data data/SST-2 --encoder models/mpnet --out runs/sst2_mpnet --layers 3,6 --epochs 2 \
        --methods finetune,kd,pkd,theseus,minilm --teacher-set task.limit.train=6000 --student-set task.limit.train=2000
    python benchmarks/all_methods.py --data data/msra --encoder models/zh --out runs/msra --methods ner-alone,ner --layers 3,4

The students have three layers, or as many as `--layers` says, and start from those of the teacher's layers that begin equal
blocks (of six: 0, 2 and 4; tinybert_td and minilm: from those that end them, 1, 3 and 5, which they are compared with; Theseus:
from the first), the BiLSTM and the T4-tiny-like student from random weights; `-alone` trains the same student on labels alone.
With `--small FOLDER`, a small model of its own width (`crossdistil run tinybert_gd` makes one), the methods that take any width
train a student that starts from it, beside those of `--layers` or, without that, instead; with `--small random` one of TinyBERT's
small size, 4 layers x 312, from random weights.
`tinybert_td+aug` trains on the folder of augmented texts that `--augmented` names, for as many steps as without.
`ner-alone`, `ner` and `ner_layers` are for words with labels, and so is their teacher.
Every command is printed before it runs (`--dry-run`: instead).
Started again, it skips the runs that are complete and resumes the one that was interrupted. When all are complete, it writes
OUT/compared.json: what `crossdistil compare` finds of them, without times, for `results_table.py` and `pages.py`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from run_names import REFERENCE, run_name
from tables import machine, write_json

from crossdistil.core.app.run_student import student_of
from crossdistil.core.config_file import load_config
from crossdistil.core.recipe import load_recipe

T4TINY = load_recipe("t4tiny").student.architecture
T4TINY_TEACHER = 12
"""Layers of the teacher that the recipe is for as it is."""
TEACHER_LEARNING_RATE, STUDENT_LEARNING_RATE = "7e-5", "1e-4"
COMPARED = "compared.json"

# The T4-tiny-like student needs more than the others, which start from trained layers.
FROM_NOTHING = {
    "stages.0.train.epochs": 5,
    "stages.0.train.batch_size": 64,
    "stages.0.train.learning_rate": "5e-4",
    "stages.0.train.optimizer": "adamw",
}

# Method -> recipe, preset, overrides. What is not here is the recipe's.
METHODS = {
    "finetune": ("finetune", None, {}),
    "kd": ("kd", None, {}),
    "pkd": ("pkd", None, {}),
    "theseus": ("theseus", None, {}),
    "minilm": ("minilm", None, {}),
    "tinybert_td": ("tinybert_td", None, {}),
    # With two copies of each text, an epoch has the steps of three.
    "tinybert_td+aug": ("tinybert_td", None, {"stages.0.train.epochs": 1, "stages.1.train.epochs": 1}),
    "t4tiny": ("t4tiny", "small_teacher", FROM_NOTHING),
    "t4tiny-alone": ("finetune", None, {**FROM_NOTHING, "stages.0.train.schedule": "slanted_triangular"}),
    "bilstm": ("bilstm", None, {}),
    "bilstm-alone": ("bilstm", "alone", {}),
    "ner-alone": ("ner", None, {}),
    "ner": ("ner", "distil", {}),
    "ner_layers": ("ner", "distil_layers", {}),
}
WORDS = ("ner-alone", "ner", "ner_layers")
"""Methods for words with labels."""
OWN_SIZE = ("t4tiny", "t4tiny-alone", "bilstm", "bilstm-alone")
"""Methods whose students are no layers of the teacher."""
LAYERS_BY_METHOD = {"theseus": "first", "minilm": "ends", "tinybert_td": "ends", "tinybert_td+aug": "ends", "ner_layers": "ends"}
ANY_WIDTH = ("finetune", "kd", "minilm", "tinybert_td")
"""Methods whose students may be narrower than the teacher."""
LEARNED_PAIRS = ("ner_layers",)
"""Methods whose recipe names the pairs of layers that are compared, which depend on their numbers."""


def chosen_layers(method: str, count: int, total: int) -> list[int]:
    """Which of the teacher's `total` layers, counted from 0, the `count` layers of a student start from."""
    rule = LAYERS_BY_METHOD.get(method, "starts")
    if rule == "first":
        return list(range(count))
    if rule == "ends":
        return [(index + 1) * total // count - 1 for index in range(count)]
    return [index * total // count for index in range(count)]


def commands(options: argparse.Namespace, total: int) -> dict[Path, list[str]]:
    """Run folder -> arguments of `crossdistil`, in the order in which they can run, of a teacher of `total` layers."""
    teacher = options.out / REFERENCE
    own = {"student.init.from": options.encoder, "stages.0.train.learning_rate": TEACHER_LEARNING_RATE}
    name = "ner" if set(options.methods) <= set(WORDS) else "finetune"
    planned = {teacher: _command(teacher, (name, None), own, options.teacher_overrides, options)}
    for seed in options.seeds:
        for method in options.methods:
            small = [_size_of(options.small)] if options.small is not None and method in ANY_WIDTH else []
            sizes = [None] if method in OWN_SIZE else [*(options.layers or ([] if small else [None])), *small]
            for size in sizes:
                recipe, preset, overrides = METHODS[method]
                if method == "t4tiny" and total == T4TINY_TEACHER:
                    preset = None
                if isinstance(size, str):
                    student = _small_student(method, teacher, options)
                else:
                    student = _student(method, size or 3, total, teacher, options)
                chosen = {"seed": seed, **student, **overrides}
                folder = options.out / run_name(method, size, seed)
                planned[folder] = _command(folder, (recipe, preset), chosen, options.student_overrides, options)
    return planned


def _student(method: str, layers: int, total: int, teacher: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Recipe keys of a student and of what it starts and learns from."""
    chosen: dict[str, Any] = {}
    if method == "t4tiny-alone":
        return {"student": json.dumps(_random_student(teacher, options))}
    if method not in OWN_SIZE:
        chosen["student.init.layers"] = json.dumps(chosen_layers(method, layers, total))
        chosen["student.architecture.num_hidden_layers"] = layers
    if method in ("finetune", "ner-alone"):
        chosen |= {"student.init.from": teacher / "student", "stages.0.train.learning_rate": STUDENT_LEARNING_RATE}
    elif method != "bilstm-alone":
        chosen["teacher.model"] = teacher / "student"
    if method in LEARNED_PAIRS:
        pairs = [[last + 1, index + 1] for index, last in enumerate(chosen_layers(method, layers, total))]
        chosen["stages.0.objective.2.layers"] = json.dumps(pairs)
    if method.endswith("+aug"):
        chosen["task.data"] = options.augmented
    return chosen


def _random_student(teacher: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TinyBERT's small size from random weights, of the teacher's family, also where a recipe has no teacher to take it from."""
    family = load_config(student_of(options.encoder)).family.model_type
    return {"architecture": {"model_type": family, **T4TINY}, "init": {"from": "random"}, "tokenizer": str(teacher / "student")}


def _size_of(small: str) -> str:
    if small == "random":
        return f"{T4TINY['num_hidden_layers']}x{T4TINY['hidden_size']}"
    config = load_config(student_of(Path(small)))
    return f"{config.num_hidden_layers}x{config.hidden_size}"


def _small_student(method: str, teacher: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Recipe keys of a student that is another model, narrower than its teacher."""
    student = {"init": {"from": options.small, "layers": None}}
    if options.small == "random":
        student = _random_student(teacher, options)
    chosen: dict[str, Any] = {"student": json.dumps(student)}
    if method == "finetune":
        return chosen | {"stages.0.train.learning_rate": STUDENT_LEARNING_RATE}
    chosen["teacher.model"] = teacher / "student"
    if method == "tinybert_td":
        chosen["stages.0.objective.1.projection"] = json.dumps({"kind": "linear", "name": "fit_dense"})
    return chosen


def _command(
    folder: Path, recipe: tuple[str, str | None], chosen: dict[str, Any], own: list[str], options: argparse.Namespace
) -> list[str]:
    name, preset = recipe
    settings = {"task.data": options.data}
    for index in range(len(load_recipe(name).stages)):
        settings[f"stages.{index}.train.evaluate_every"] = options.evaluate_every
        for key in ("epochs", "batch_size"):
            if getattr(options, key) is not None:
                chosen[f"stages.{index}.train.{key}"] = f"{getattr(options, key):g}"
    return [
        *("run", name, "--out", str(folder), "--resume"),
        *("--backend", options.backend, "--precision", options.precision),
        *(() if preset is None else ("--preset", preset)),
        *(part for key, value in (settings | chosen).items() for part in ("--set", f"{key}={value}")),
        *(part for override in (*options.overrides, *own) for part in ("--set", override)),
    ]


def compare(folders: list[Path], out: Path) -> None:
    """Compare the runs, and keep what is no time and no path of this machine."""
    names = [folder.name for folder in folders]
    command = [sys.executable, "-m", "crossdistil", "compare", *names, "--json"]
    done = subprocess.run(command, cwd=out, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    found = json.loads(done.stdout)
    timed = ("wall_seconds", "tokens_per_second", "latency_milliseconds")
    for entry in (*found["runs"], *found["groups"]):
        for key in timed:
            entry.pop(key, None)
    del found["differences"], found["notes"]  # which name every key, and the paths among them
    write_json(out / COMPARED, {"date": time.strftime("%Y-%m-%d"), "machine": machine(), **found})
    print(f"written: {out / COMPARED}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the task: train.tsv and dev.tsv, as SST-2 has them")
    parser.add_argument("--augmented", type=Path, help="the same, augmented by `crossdistil data augment`")
    parser.add_argument("--encoder", type=Path, required=True, help="pretrained model folder that the teacher starts from")
    parser.add_argument("--out", type=Path, default=Path("runs/sst2"))
    parser.add_argument("--seeds", type=_numbers, default=[42, 43, 44])
    parser.add_argument("--layers", type=_numbers, help="of the students that start from the teacher's; default: 3")
    parser.add_argument("--small", help="a small model folder that narrower students start from, or `random`")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[name for name in METHODS if name not in WORDS])
    parser.add_argument("--epochs", type=float, help="of every stage; default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="of every stage; default: the recipe's")
    parser.add_argument("--evaluate-every", type=int, default=527, help="steps; by default half an epoch of SST-2")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every run, as crossdistil's")
    parser.add_argument("--teacher-set", dest="teacher_overrides", action="append", default=[], help="for the teacher's run")
    parser.add_argument("--student-set", dest="student_overrides", action="append", default=[], help="for the students' runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args()
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown:
        parser.error(f"--methods: unknown {unknown[0]}; known: {', '.join(METHODS)}")
    if len(set(method in WORDS for method in options.methods)) > 1:
        parser.error(f"--methods: {', '.join(WORDS)} label words, the others texts; one teacher does one of them")
    if options.augmented is None and any(method.endswith("+aug") for method in options.methods):
        parser.error("--augmented: needed for tinybert_td+aug, or leave it out of --methods")
    planned = commands(options, load_config(student_of(options.encoder)).num_hidden_layers)
    for folder, arguments in planned.items():
        if (folder / "result.json").is_file():
            print(f"# complete: {folder}", flush=True)
            continue
        print(shlex.join(["crossdistil", *arguments]), flush=True)
        if options.dry_run:
            continue
        code = subprocess.run([sys.executable, "-m", "crossdistil", *arguments]).returncode
        if code:
            sys.exit(code)
    if not options.dry_run:
        compare(list(planned), options.out)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()

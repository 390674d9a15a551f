"""The runs behind the tables of results: a teacher, and for each seed a student by every method.

    python benchmarks/all_methods.py --data data/SST-2 --encoder models/encoder --out runs/sst2
    python benchmarks/all_methods.py --data data/reviews --encoder models/zh --out runs/reviews --epochs 10 --evaluate-every 42 \
        --set task.name=reviews --set task.text=text_a --set task.text_pair=category --set task.label=polarity

The students have three layers and start from the teacher's layers 0, 2 and 4 (tinybert_td and minilm: from 1, 3 and 5,
which they are compared with; Theseus: from the first three), the BiLSTM and the T4-tiny-like student from random weights;
`-alone` trains the same student on labels alone.
`tinybert_td+aug` trains on the folder of augmented texts that `--augmented` names, for as many steps as without.
Every command is printed before it runs (`--dry-run`: instead).
Started again, it skips the runs that are complete and resumes the one that was interrupted.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from crossdistil.core.recipe import load_recipe

T4TINY = load_recipe("t4tiny").student.architecture
TEACHER_LEARNING_RATE, STUDENT_LEARNING_RATE = "7e-5", "1e-4"

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
}


def commands(options: argparse.Namespace) -> dict[Path, list[str]]:
    """Run folder -> arguments of `crossdistil`, in the order in which they can run."""
    teacher = options.out / "teacher"
    planned = {
        teacher: (
            ("finetune", None),
            {"student.init.from": options.encoder, "stages.0.train.learning_rate": TEACHER_LEARNING_RATE},
        )
    }
    for seed in options.seeds:
        for method in options.methods:
            recipe, preset, overrides = METHODS[method]
            chosen = {"seed": seed, **overrides}
            if method == "finetune":
                chosen |= {
                    "student.init.from": teacher / "student",
                    "student.init.layers": "[0, 2, 4]",
                    "student.architecture.num_hidden_layers": 3,
                    "stages.0.train.learning_rate": STUDENT_LEARNING_RATE,
                }
            elif method == "t4tiny-alone":
                student = {"architecture": T4TINY, "init": {"from": "random"}, "tokenizer": str(teacher / "student")}
                chosen["student"] = json.dumps(student)
            elif method != "bilstm-alone":
                chosen["teacher.model"] = teacher / "student"
            if method.endswith("+aug"):
                chosen["task.data"] = options.augmented
            planned[options.out / f"{method}-{seed}"] = ((recipe, preset), chosen)
    return {folder: _command(folder, *plan, options) for folder, plan in planned.items()}


def _command(folder: Path, recipe: tuple[str, str | None], chosen: dict, options: argparse.Namespace) -> list[str]:
    name, preset = recipe
    settings = {"task.data": options.data}
    for index in range(len(load_recipe(name).stages)):
        settings[f"stages.{index}.train.evaluate_every"] = options.evaluate_every
        if options.epochs is not None:
            chosen[f"stages.{index}.train.epochs"] = options.epochs
    return [
        *("run", name, "--out", str(folder), "--resume"),
        *("--backend", options.backend, "--precision", options.precision),
        *(() if preset is None else ("--preset", preset)),
        *(part for key, value in (settings | chosen).items() for part in ("--set", f"{key}={value}")),
        *(part for override in options.overrides for part in ("--set", override)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--augmented", type=Path, help="the same, augmented by `crossdistil data augment`")
    parser.add_argument("--encoder", type=Path, required=True, help="pretrained model folder that the teacher starts from")
    parser.add_argument("--out", type=Path, default=Path("runs/sst2"))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--epochs", type=int, help="of every stage; default: the recipe's")
    parser.add_argument("--evaluate-every", type=int, default=527, help="steps; by default half an epoch of SST-2")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every run, as crossdistil's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args()
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown:
        parser.error(f"--methods: unknown {unknown[0]}; known: {', '.join(METHODS)}")
    if options.augmented is None and any(method.endswith("+aug") for method in options.methods):
        parser.error("--augmented: needed for tinybert_td+aug, or leave it out of --methods")
    for folder, arguments in commands(options).items():
        if (folder / "result.json").is_file():
            print(f"# complete: {folder}", flush=True)
            continue
        print(shlex.join(["crossdistil", *arguments]), flush=True)
        if options.dry_run:
            continue
        code = subprocess.run([sys.executable, "-m", "crossdistil", *arguments]).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()

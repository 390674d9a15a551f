"""The runs behind the README's table of results: a teacher, and for each seed a distilled and a fine-tuned student.

    python benchmarks/sst2.py --data data/SST-2 --encoder models/encoder --out runs/sst2

The students have three layers and start from the teacher's layers 0, 2 and 4, so that only the loss differs. Every command
is printed before it runs (`--dry-run`: instead). Started again, it skips the runs that are complete and resumes the one that
was interrupted. On two CPU cores in bf16 the teacher takes about 20 minutes and each student about 10.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

TEACHER_LEARNING_RATE, STUDENT_LEARNING_RATE = "7e-5", "1e-4"
EVALUATE_EVERY = "527"  # twice an epoch at batch 64


def commands(options: argparse.Namespace) -> dict[Path, list[str]]:
    """Run folder -> arguments of `crossdistil`, in the order in which they can run."""
    teacher = options.out / "teacher"
    start = {
        "student.init.from": teacher / "student",
        "student.init.layers": "[0, 2, 4]",
        "student.architecture.num_hidden_layers": 3,
        "stages.0.train.learning_rate": STUDENT_LEARNING_RATE,
    }
    planned = {
        teacher: (
            "finetune", {"student.init.from": options.encoder, "stages.0.train.learning_rate": TEACHER_LEARNING_RATE}
        )
    }  # fmt: skip
    for seed in options.seeds:
        planned[options.out / f"kd-{seed}"] = ("kd", {"teacher.model": teacher / "student", "seed": seed})
        planned[options.out / f"finetune-{seed}"] = ("finetune", start | {"seed": seed})
    common = {"task.data": options.data, "stages.0.train.evaluate_every": EVALUATE_EVERY}
    return {
        folder: [
            *("run", recipe, "--out", str(folder), "--resume"),
            *("--backend", options.backend, "--precision", options.precision),
            *(part for key, value in (common | chosen).items() for part in ("--set", f"{key}={value}")),
            *(part for override in options.overrides for part in ("--set", override)),
        ]
        for folder, (recipe, chosen) in planned.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--encoder", type=Path, required=True, help="pretrained model folder that the teacher starts from")
    parser.add_argument("--out", type=Path, default=Path("runs/sst2"))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="for every run, as crossdistil's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args()
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

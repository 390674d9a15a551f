"""From raw text to a small model: an encoder goes on as a masked language model, teaches a student of half its layers on the
same text, and the student learns a task and goes to TensorFlow.

    python benchmarks/from_text.py --text data/enwiki --task data/SST-2 --encoder models/encoder --out runs/from_text

The folder of the text holds train.txt and dev.txt. Every command is printed before it runs; started again, the script skips
what is complete. The student's twin is the same three layers of the same encoder without the distillation. At the end the
student is read by TensorFlow, and the figures go to `runs/benchmarks/from_text.json`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import load_engine
from crossdistil.core.engine import EngineOptions
from crossdistil.core.job import prepare
from crossdistil.core.recipe import load_recipe

FILE = NEW_RESULTS / "from_text.json"
TRAIN = "stages.0.train"
STEPS, DISTILLATION_STEPS = 1000, 400
LAYERS = "[1, 3, 5]"


def settings(options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Run -> recipe and overrides, in the order in which they run."""
    text = {"task.data": options.text, "task.files.dev": "dev.txt", f"{TRAIN}.batch_size": 32, f"{TRAIN}.epochs": "null"}
    task = {"task.data": options.task, f"{TRAIN}.learning_rate": "1e-4", f"{TRAIN}.evaluate_every": 527}
    encoder = options.out / "mlm" / "student"
    taken = {"student.init.layers": LAYERS, "student.architecture.num_hidden_layers": 3}
    return {
        "mlm": (
            "mlm",
            text
            | {"student.init.from": options.encoder, f"{TRAIN}.steps": STEPS}
            | {f"{TRAIN}.evaluate_every": STEPS // 2, f"{TRAIN}.learning_rate": "3e-4"},
        ),
        "distilbert": (
            "distilbert",
            text
            | {"teacher.model": encoder, f"{TRAIN}.steps": DISTILLATION_STEPS}
            | {f"{TRAIN}.evaluate_every": DISTILLATION_STEPS // 2},
        ),
        "distilled": ("finetune", task | {"student.init.from": options.out / "distilbert" / "student"}),
        "taken": ("finetune", task | {"student.init.from": encoder} | taken),
    }


def untrained_loss(recipe: str, overrides: dict[str, Any]) -> float:
    """The loss of the first weights on the texts that are held out, with the masks that the run is scored on."""
    job = prepare(load_recipe(recipe, [f"{key}={value}" for key, value in overrides.items()]), recipe, 1)
    engine = load_engine("torch", EngineOptions("cpu"))
    infer = engine.infer(job.data.answers(job.student.config), job.student.parameters)
    return job.data.score("dev", infer)[0]["mlm_loss"]


def read_by_tensorflow(folder: Path) -> dict[str, Any]:
    """What TensorFlow finds in a checkpoint, and its configuration."""
    import tensorflow as tf

    names = [name for name, _ in tf.train.list_variables(str(folder / "bert_model.ckpt"))]
    config = json.loads((folder / "bert_config.json").read_text(encoding="utf-8"))
    keys = ("num_hidden_layers", "type_vocab_size", "vocab_size")
    return {"variables": len(names), **{key: config[key] for key in keys}}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        ["encoder, its head drawn anew", "", f"{result['untrained']:.2f}", ""],
        ["`mlm`", _text(result, "mlm"), f"{_loss(result, 'mlm'):.2f}", ""],
        ["3 of its layers, before `distilbert`", "", f"{result['undistilled']:.2f}", _accuracy(result, "taken")],
        ["`distilbert`", _text(result, "distilbert"), f"{_loss(result, 'distilbert'):.2f}", _accuracy(result, "distilled")],
    ]
    found, run = result["tensorflow"], result["runs"]["mlm"]
    return (
        markdown(["model", "trained on", "loss of masked words, held out", "then SST-2, %"], rows)
        + "\n\nNats a masked token, masks as BERT draws them; SST-2 is dev accuracy after `finetune`, one seed. "
        + f"{run['device']} in {run['precision']}, {result['machine']['cpu']}, 1 thread. Converted, the "
        + f"distilled student gives TensorFlow {found['variables']} variables: embeddings with token types, layers, pooler and "
        + f"the head of masked words, and a bert_config.json with {found['num_hidden_layers']} layers and "
        + f"{found['type_vocab_size']} token types."
    )


def _loss(result: dict[str, Any], name: str) -> float:
    return result["runs"][name]["student"]["metrics"]["mlm_loss"]


def _accuracy(result: dict[str, Any], name: str) -> str:
    return f"{100 * result['runs'][name]['student']['metrics']['accuracy']:.1f}"


def _text(result: dict[str, Any], name: str) -> str:
    run = result["runs"][name]
    return f"{run['steps']:,} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with train.txt and dev.txt")
    parser.add_argument("--task", type=Path, required=True, help="folder with SST-2's files")
    parser.add_argument("--encoder", type=Path, required=True, help="pretrained encoder")
    parser.add_argument("--out", type=Path, default=Path("runs/from_text"))
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    planned = settings(options)
    for name, (recipe, overrides) in planned.items():
        folder = options.out / name
        if (folder / "result.json").is_file():
            continue
        arguments = ["run", recipe, "--precision", options.precision, "--out", str(folder), "--resume"]
        _command([*arguments, *(part for key, value in overrides.items() for part in ("--set", f"{key}={value}"))])
    student, converted = options.out / "distilbert" / "student", options.out / "tensorflow"
    _command(["convert", str(student), str(converted), "--to", "tf", "--verify", "--overwrite"])
    runs = {name: json.loads((options.out / name / "result.json").read_text(encoding="utf-8")) for name in planned}
    write_json(
        FILE,
        {
            "benchmark": "from_text",
            "machine": machine(),
            "untrained": untrained_loss(*planned["mlm"]),
            "undistilled": untrained_loss(*planned["distilbert"]),
            "runs": runs,
            "tensorflow": read_by_tensorflow(converted),
        },
    )


def _command(arguments: list[str]) -> None:
    print(shlex.join(["crossdistil", *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", "crossdistil", *arguments], check=True)


if __name__ == "__main__":
    main()

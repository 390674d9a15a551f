"""Whether every recipe runs at BERT-base's true size, with its published layers, on each backend, and in how much memory.

    python benchmarks/bert_base_shapes.py
    python benchmarks/bert_base_shapes.py --backends mindspore --methods kd,bilstm --vocabularies 30522,21128

The teacher is 12 layers x 768 with random weights; vocabularies are made up, of the sizes of bert-base-uncased, -cased and
-chinese, or read with `--vocabulary`. Nothing is downloaded. Each combination takes `--steps` optimizer steps in every
stage of its recipe, over rows of random words that fill the batch, in a process of its own that tells its largest resident
memory, the seconds of the last step and the losses. What was measured before is kept in the result file and not measured
again (`--again`: it is). Exit code 1 if one fails, needs more than `--limit-gib`, or has a loss that is not finite.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import BACKENDS, interpreters, load_engine
from crossdistil.core.app.progress import make_console
from crossdistil.core.app.teaching import Teaching
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.theseus import predecessor_tensors
from crossdistil.core.recipe import load_recipe

ANSWER = "answer "
VOCABULARIES = {30522: "uncased", 28996: "cased", 21128: "chinese"}
ROWS, WORDS = 64, 200  # longer than a row, so that a BiLSTM finds its 10,000 words in them

EVERY_SECOND = ["student.architecture.num_hidden_layers=6", "student.init.layers=[0, 2, 4, 6, 8, 10]"]
FIRST_SIX = ["student.architecture.num_hidden_layers=6", "student.init.layers=[0, 1, 2, 3, 4, 5]"]
# Method -> recipe, preset, overrides, and what a table says about it.
METHODS = {
    "kd": ("kd", None, EVERY_SECOND, "12 → 6 layers"),
    "pkd": ("pkd", None, FIRST_SIX, "12 → 6, skip: 2, 4, 6, 8, 10"),
    "pkd-3": (
        "pkd",
        None,
        ["student.architecture.num_hidden_layers=3", "student.init.layers=[0, 1, 2]"],
        "12 → 3, skip: 4, 8",
    ),
    "tinybert_td": ("tinybert_td", "paper", ["student.init={from: random}"], "12 → 4 x 312, `fit_dense`"),
    "tinybert_gd": ("tinybert_gd", "paper", [], "12 → 4 x 312, `fit_dense`, raw text"),
    "theseus": ("theseus", None, FIRST_SIX, "12 → 6 modules of 2"),
    "t4tiny": ("t4tiny", None, [], "12 → 4 x 312, 5 projections"),
    "minilm": ("minilm", None, EVERY_SECOND, "12 → 6 x 768, attention and values"),
    "bilstm": ("bilstm", None, [], "12 → BiLSTM 150, logits"),
}


def write_materials(folder: Path, size: int, vocabulary: Path | None) -> None:
    """A teacher with random weights, its tokenizer, and texts, under `folder`."""
    tokens = tokenizer_lines(size, vocabulary)
    words = [token for token in tokens if token.isalnum()]
    for name in ("vocabulary", "task"):
        (folder / name).mkdir(parents=True)
    (folder / "vocabulary" / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    config = BertConfig(vocab_size=size)
    shapes = tensor_shapes(config, 2)
    weights = {name: config.new_tensor(name, shape, 0) for name, shape in shapes.items()}
    model = Model(config, weights, 2, ("negative", "positive"))
    save_model(model, folder / "teacher", load_tokenizer(folder / "vocabulary"))
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, WORDS)) for _ in range(ROWS)]
    for split in ("train", "dev"):
        lines = [f"{text}\t{number % 2}\n" for number, text in enumerate(texts)]
        (folder / "task" / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    (folder / "corpus.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def tokenizer_lines(size: int, vocabulary: Path | None) -> list[str]:
    """The tokens of a vocabulary of that size."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if vocabulary is None:
        return [*special, *(f"word{number}" for number in range(size - len(special)))]
    path = vocabulary / "vocab.txt" if vocabulary.is_dir() else vocabulary
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) != size:
        raise SystemExit(f"{path}: has {len(lines)} tokens, expected {size}")
    return lines


def work(backend: str, settings: dict) -> None:
    """The process of one measurement; answers with a line of JSON."""
    engine = load_engine(backend, EngineOptions(settings["device"]))
    stages = []
    started = time.perf_counter()
    try:
        for name, seconds, losses in trained(engine, settings):
            stages.append({"name": name, "seconds": seconds, "losses": losses})
        problem = None
    except CrossdistilError as error:
        problem = str(error)
    content = {
        "versions": engine.versions(),
        "problem": problem,
        "stages": stages,
        "wall_seconds": round(time.perf_counter() - started, 2),
        "resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "device_gib": None if engine.peak_memory_mb() is None else engine.peak_memory_mb() / 2**10,
    }
    print(ANSWER + json.dumps(content), flush=True)


def trained(engine, settings: dict):
    """Take the steps of each stage, as a run does; yields its name, the seconds of each step and the losses."""
    name, preset, overrides, _ = METHODS[settings["method"]]
    folder, length = Path(settings["folder"]), settings["length"]
    recipe = load_recipe(name, [], preset)
    overrides = [*overrides, f"teacher.model={folder / 'teacher'}", f"task.max_length={length}"]
    overrides.append(f"task.data={folder / ('corpus.txt' if recipe.task.kind == 'text' else 'task')}")
    for index in range(len(recipe.stages)):
        place = f"stages.{index}.train"
        overrides += [f"{place}.batch_size={settings['batch_size']}", f"{place}.length_buckets=[{length}]"]
    recipe = load_recipe(name, overrides, preset)
    job = prepare(recipe, name, engine.length_step)
    teaching = Teaching(job, engine, make_console(quiet=True))
    parameters = {**job.student.parameters, **job.projections}
    for index, section in enumerate(recipe.stages):
        stage = teaching.stage(index, False)
        parameters |= stage.new_projections(parameters, recipe.seed)
        held = dict(parameters)
        if stage.objective.replacement is not None:
            held |= predecessor_tensors(job.teachers["teacher"].config, job.teachers["teacher"].parameters)
        step = engine.train_step(stage.objective.function, held, teaching.frozen(stage), stage.optimizer(held))
        batches = islice(stage.batches.epoch(0), settings["steps"])
        seconds, losses = [], []
        for number, micro_batches in enumerate(batches):
            prepared = stage.objective.prepare(micro_batches, number, settings["steps"], recipe.seed)
            each = Step(prepared, section.train.learning_rate, number)
            started = time.perf_counter()
            values = step.run(iter([each]), 1).fetch()
            seconds.append(round(time.perf_counter() - started, 3))
            losses.append(float(values[0, 0]))
        parameters |= step.parameters()
        yield stage.name, seconds, losses


def measure(python: Path, backend: str, settings: dict, threads: int | None) -> dict:
    """Run `work` in the Python of a backend."""
    environment = {**os.environ, "CROSSDISTIL_CACHE": str(Path(settings["folder"]) / f"cache-{backend}")}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [str(python), __file__, "--worker", backend, "--settings", json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    return {"problem": f"the process ended with exit code {done.returncode}", "stages": []}


def problem_of(found: dict, limit_gib: float) -> str | None:
    """What is wrong with a measurement."""
    if found["problem"]:
        return found["problem"]
    if not all(np.isfinite(stage["losses"]).all() for stage in found["stages"]):
        return "a loss is not finite"
    return f"more than {limit_gib:g} GiB" if found["resident_gib"] > limit_gib else None


def table(result: dict) -> str:
    """The result as a Markdown table: peak memory."""
    found = result["measurements"]
    backends = [name for name in BACKENDS if any(each["backend"] == name for each in found)]
    pairs = sorted({(each["method"], each["vocabulary"]) for each in found}, key=_table_order)
    rows = []
    for method, size in pairs:
        row = [f"`{METHODS[method][0]}` {METHODS[method][3]}", f"{size:,}"]
        for backend in backends:
            one = [e for e in found if (e["method"], e["vocabulary"], e["backend"]) == (method, size, backend)]
            row.append(_cell(one[0], result["settings"]["limit_gib"]) if one else "")
        rows.append(row)
    settings = result["settings"]
    return (
        f"{markdown(['recipe', 'vocabulary', *(f'{name}, GiB' for name in backends)], rows)}\n\n"
        f"Teacher of 12 layers x 768, {settings['steps']} steps of {settings['batch_size']} x {settings['length']} tokens in "
        f"fp32; largest resident memory of the process."
    )


def _table_order(pair: tuple[str, int]) -> tuple[int, int]:
    return list(METHODS).index(pair[0]), -pair[1]


def _cell(found: dict, limit_gib: float) -> str:
    problem = problem_of(found, limit_gib)
    if problem is not None:
        return problem
    return f"{found['resident_gib']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--vocabularies", default=",".join(map(str, VOCABULARIES)), help="sizes")
    parser.add_argument("--vocabulary", type=Path, help="a vocab.txt, or the folder of one, of the one size named")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--limit-gib", type=float, default=24.0)
    parser.add_argument("--again", action="store_true", help="measure what the result file holds already")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "bert_base_shapes.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options.settings)
    settings = {name: getattr(options, name) for name in ("steps", "batch_size", "length", "device")}
    result = {
        "benchmark": "bert_base_shapes",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine() | {"threads": options.threads},
        "settings": settings | {"limit_gib": options.limit_gib},
        "measurements": [],
    }
    if options.out.is_file():
        old = json.loads(options.out.read_text(encoding="utf-8"))
        if old["settings"] == result["settings"]:
            result["measurements"] = old["measurements"]
    failed = False
    for size in map(int, options.vocabularies.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "materials"
            for backend, python in interpreters(options.backends.split(",")).items():
                for method in options.methods.split(","):
                    place = {"backend": backend, "method": method, "vocabulary": size}
                    known = [one for one in result["measurements"] if place.items() <= one.items()]
                    if not known or options.again:
                        if not folder.exists():
                            write_materials(folder, size, options.vocabulary)
                        found = place | measure(python, backend, settings | place | {"folder": str(folder)}, options.threads)
                        result["measurements"] = [one for one in result["measurements"] if one not in known] + [found]
                        write_json(options.out, result)
                        known = [found]
                    failed |= problem_of(known[0], options.limit_gib) is not None
                    print(f"{backend} {method} {size}: {_cell(known[0], options.limit_gib)}", flush=True)
    print(table(result))
    sys.exit(failed)


if __name__ == "__main__":
    main()

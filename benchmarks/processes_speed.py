"""What several processes cost and gain, measured by `processes.py speed` on a machine that does nothing else.

Overhead of a run of one process: turns of a step by this tree and by an earlier commit, one after the other in two processes
that wait for each other. Two processes with one thread each against one process with two threads: `crossdistil run` of one recipe
on the same global batches, in turns; tokens a second are those of the log's windows without the first, in which graphs compile.
The model is a 6 x 384 BERT with 30,522 words (random weights: the time is the same) that teaches its 3 layers, texts have 8 to 30
words, in batches of 64 x 32 tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tables import markdown, summary
from turns import TurnTaker

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig

BEFORE = "e474481"
"""The last commit without several processes."""
ROOT = Path(__file__).resolve().parent.parent
PLANS = {"torch": (15, 3), "oneflow": (6, 2), "mindspore": (6, 2)}
"""Steps of a run, a third of them a window of the log, and turns."""
OVERHEAD_TURNS, OVERHEAD_STEPS = 15, 2
WORDS = 30522


def measure(pythons: dict[str, Path], before: str, about: dict[str, Any]) -> dict[str, Any]:
    """Backend -> overhead of one process (torch only), and speed of one and of two."""
    found = {}
    with tempfile.TemporaryDirectory() as root:
        files = write_inputs(Path(root))
        for backend, python in pythons.items():
            found[backend] = {"version": version_of(backend, python), **about, **_two(backend, python, files)}
            print(f"{backend}: two processes of one thread at {found[backend]['ratio']:.2f} of one of two", flush=True)
        if "torch" in pythons:
            found["torch"]["overhead"] = _overhead(files, before)
            print(f"torch: {found['torch']['overhead']['ratio']:.4f} of the step before", flush=True)
    return found


def write_inputs(folder: Path) -> Path:
    """A teacher with random weights, and a task."""
    config = BertConfig(
        vocab_size=WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    shapes = tensor_shapes(config, 2)
    parameters = {name: config.new_tensor(name, shape, 0) for name, shape in shapes.items()}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(WORDS - 5))]
    (folder / "vocabulary").mkdir(parents=True)
    (folder / "vocabulary" / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary))
    model = Model(config, parameters, 2, ("negative", "positive"))
    save_model(model, folder / "teacher", load_tokenizer(folder / "vocabulary"))
    generator = np.random.default_rng(0)
    (folder / "task").mkdir()
    for split, rows in {"train": 4000, "dev": 64}.items():
        lines = ["sentence\tlabel\n"]
        for number in range(rows):
            words = " ".join(f"w{word}" for word in generator.integers(0, WORDS - 5, generator.integers(8, 31)))
            lines.append(f"{words}\t{number % 2}\n")
        (folder / "task" / f"{split}.tsv").write_text("".join(lines))
    return folder


def _two(backend: str, python: Path, files: Path) -> dict[str, Any]:
    """Tokens a second of one process with two threads and of two with one, in turns."""
    steps, turns = PLANS[backend]
    speeds: dict[int, list[float]] = {1: [], 2: []}
    shares = []
    for turn in range(turns):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            out = files / f"{backend}-{count}-{turn}"
            _run(backend, python, files, out, count, steps)
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            windows = [line["tokens_per_second"] for line in lines if "loss" in line][1:]
            speeds[count].append(statistics.mean(windows))
            if count == 2:
                shares.append(json.loads((out / "result.json").read_text())["communication_share"])
    ratio = statistics.median(speeds[2]) / statistics.median(speeds[1])
    return {
        "one_process": summary(speeds[1]),
        "two_processes": summary(speeds[2]),
        "ratio": ratio,
        "communication_share": statistics.median(shares),
        "steps": steps,
        "turns": turns,
    }


def _run(backend: str, python: Path, files: Path, out: Path, count: int, steps: int) -> None:
    settings = {
        "task.data": files / "task",
        "task.max_length": 32,
        "teacher.model": files / "teacher",
        "teacher_cache.use": "never",
        "stages.0.train.steps": steps,
        "stages.0.train.length_buckets": "[32]",
        "stages.0.train.log_every": steps // 3,
        "stages.0.train.evaluate_every": 1000000,
        "stages.0.train.save_every": 1000000,
    }
    command = [python, "-m", "crossdistil", "run", "kd", "--backend", backend, "--device", "cpu", "--out", out]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command += ["--devices", count] if count > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": str(2 // count)}
    done = subprocess.run(list(map(str, command)), env=environment, cwd=files, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")


def _overhead(files: Path, before: str) -> dict[str, Any]:
    """The time of a step by this tree over that of the tree of an earlier commit, the median of paired turns."""
    place = files / "before" / "crossdistil"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--force", str(place), before], check=True, capture_output=True)
    try:
        workers = [_worker(tree, files) for tree in (ROOT, place)]
        turns = []
        for number in range(OVERHEAD_TURNS + 1):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            seconds = {each: workers[each].turn()["seconds"] for each in order}
            turns.append((seconds[0], seconds[1]))
        for worker in workers:
            worker.stop()
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True, capture_output=True)
    pairs = turns[1:]  # the first ones load and warm up
    ratios = [now / then for now, then in pairs]
    return {"ratio": statistics.median(ratios), "commit": before, "seconds": pairs, "steps": OVERHEAD_STEPS}


def _worker(tree: Path, files: Path) -> TurnTaker:
    """`backends_step_time.py --worker` of a tree, with one thread."""
    settings = {
        "model_folder": str(files / "teacher"),
        "data": str(files / "task"),
        "task": "sst-2",
        "batch_size": 32,
        "length": 32,
        "device": "cpu",
        "steps_per_call": None,
        "clock": "wall",
        "steps": OVERHEAD_STEPS,
    }
    script = tree / "benchmarks" / "backends_step_time.py"
    command = [sys.executable, script, "--worker", "torch", "--settings", json.dumps(settings)]
    return TurnTaker(str(tree), command, {**os.environ, "PYTHONPATH": str(tree.parent), "OMP_NUM_THREADS": "1"})


def version_of(backend: str, python: Path) -> str:
    """The version of a framework that an interpreter has."""
    code = f"import importlib.metadata as found; print(found.version({backend!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def table(result: dict[str, Any]) -> str:
    """A row for each backend."""
    rows = []
    for backend, each in result.items():
        one, two = (f"{each[key]['median']:,.0f}" for key in ("one_process", "two_processes"))
        share = f"{100 * each['communication_share']:.0f} %"
        rows.append([f"{backend} {each['version']}", one, two, f"{each['ratio']:.2f}", share])
    heads = ["backend", "tokens/s, 1 process x 2 threads", "2 processes x 1 thread", "ratio", "of it waiting for sums"]
    about = next(iter(result.values()))
    text = (
        "`kd`, a 6 x 384 BERT with 30,522 words teaches its 3 layers, batches of 64 texts of 8 to 30 words, each process half "
        "of them; 68 MB of gradients a step go through the machine's own network. Medians of turns; "
        f"{about['machine']['cpu']}, {about['date']}."
    )
    overhead = result.get("torch", {}).get("overhead")
    if overhead is not None:
        text += (
            f" A step of one process takes {overhead['ratio']:.3f} of the time that it took before there could be several "
            f"(torch, one thread, median of {len(overhead['seconds'])} pairs of turns of {overhead['steps']} steps)."
        )
    return f"{markdown(heads, rows)}\n\n{text}"

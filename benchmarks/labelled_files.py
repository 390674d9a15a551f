r"""What a student keeps of a teacher that is a file: a real encoder's probabilities stand in for an LLM's answers, whole, as
labels alone, as noisy votes with abstentions, and beside them the texts' own labels.

    crossdistil cache teacher kd --set task.data=data/SST-2 --set task.limit.train=4000 --set teacher.model=runs/teacher \
        --set teacher_cache.use=always --set teacher_cache.folder=runs/answers
    python benchmarks/labelled_files.py --data data/SST-2 --cache runs/answers/teacher --limit 4000 \
        --encoder models/minilm --out runs/labelled

The stand-in's answers are those of a teacher cache over `--limit` texts of SST-2's train, of which `--count` are taken that the
teacher was not trained on (`--taught` says how many its own training was limited to). Noise: an answer is the other class with
a probability of `--noise`, and none with one of `--silent`. The figures go to `runs/benchmarks/labelled_files.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import softmax
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.core.app.api import run
from crossdistil.core.app.models import model_folder
from crossdistil.core.data.tables import read_columns
from crossdistil.core.shown import counted

LABELS = ("negative", "positive")
SIDES = {
    "gold": "the texts' own labels (`finetune`)",
    "probabilities": "probabilities (`llm`)",
    "labels": "the more probable label alone (`llm --preset labels`)",
    "one vote": "one noisy answer (`llm --preset labels`)",
    "three votes": "three noisy answers, weighed by agreement (`llm --preset votes`)",
}


def limited(rows: int, limit: int) -> np.ndarray:
    """Which rows `task.limit.train` takes."""
    return np.sort(np.random.default_rng([zlib.crc32(b"train"), limit]).permutation(rows)[:limit])


def drawn(options: argparse.Namespace) -> tuple[list[str], list[str], np.ndarray]:
    """Different texts of train that are none of the teacher's own, their labels, and the stand-in's logits for them."""
    columns = read_columns(options.data / "train.tsv", ["sentence", "label"], texts=["sentence"]).cells
    rows = len(columns["sentence"])
    known = {columns["sentence"][row].strip() for row in limited(rows, options.taught)}
    logits = np.fromfile(options.cache / "logits.bin", "<f4").reshape(options.limit, len(LABELS))
    found: dict[str, tuple[str, np.ndarray]] = {}
    for place, row in enumerate(limited(rows, options.limit)):
        text = columns["sentence"][row].strip()
        if text not in known and len(text.split()) > 2:
            found.setdefault(text, (columns["label"][row], logits[place]))
    texts = list(found)
    chosen = [texts[place] for place in np.random.default_rng(options.seed).permutation(len(texts))[: options.count]]
    return chosen, [found[text][0] for text in chosen], np.stack([found[text][1] for text in chosen])


def written(folder: Path, texts: list[str], labels: list[str] | None, split: str) -> None:
    names = ["sentence"] + ([] if labels is None else ["label"])
    rows = zip(texts) if labels is None else zip(texts, labels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in [names, *rows]), encoding="utf-8")


def files(options: argparse.Namespace, texts: list[str], logits: np.ndarray) -> None:
    """The stand-in's answers, as files."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    generator = np.random.default_rng(options.seed)
    wrong = generator.random((len(texts), 3)) < options.noise
    said = np.where(wrong, 1 - probabilities.argmax(axis=1)[:, None], probabilities.argmax(axis=1)[:, None])
    silent = generator.random((len(texts), 3)) < options.silent
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in ("probabilities", "labels", "one vote", "three votes")}
    for row, text in enumerate(texts):
        votes = [None if quiet else LABELS[place] for place, quiet in zip(said[row], silent[row])]
        whole = dict(zip(LABELS, probabilities[row].tolist()))
        lines["probabilities"].append({"text": text, "probabilities": whole})
        lines["labels"].append({"text": text, "label": LABELS[int(probabilities[row].argmax())]})
        lines["one vote"].append({"text": text, "label": votes[0]})
        lines["three votes"] += [{"text": text, "label": vote} for vote in votes]
    for name, rows in lines.items():
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (options.out / f"{name.replace(' ', '_')}.jsonl").write_text(content, encoding="utf-8")


def side(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """The result of one student."""
    given = [
        f"student.init.from={options.encoder}",
        "student.init.layers=[0, 2, 4]",
        "student.architecture.num_hidden_layers=3",
        f"stages.0.train.epochs={options.epochs}",
        f"stages.0.train.batch_size={options.batch_size}",
        f"seed={seed}",
        *options.set,
    ]
    out = options.out / f"{name.replace(' ', '_')}-{seed}"
    if (out / "result.json").is_file():
        return json.loads((out / "result.json").read_text(encoding="utf-8"))
    if name == "gold":
        given.append(f"task.data={options.out / 'labelled'}")
        return run("finetune", out=out, overrides=given, backend="torch", report=False, latency=False)
    given += [f"task.data={options.out / 'texts'}", f"teacher.file.path={options.out / (name.replace(' ', '_') + '.jsonl')}"]
    given += ["teacher.file.unanswered=leave_out"]
    preset = {"labels": "labels", "one vote": "labels", "three votes": "votes"}.get(name)
    return run("llm", out=out, preset=preset, overrides=given, backend="torch", report=False, latency=False)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    texts, labels, logits = drawn(options)
    columns = read_columns(options.data / "dev.tsv", ["sentence", "label"], texts=["sentence"]).cells
    dev = [text.strip() for text in columns["sentence"]]
    for folder, own in (("labelled", labels), ("texts", None)):
        written(options.out / folder, texts, own, "train")
        written(options.out / folder, dev, list(columns["label"]), "dev")
    of_dev = load_file(options.cache / "answers.safetensors")["logits"]
    files(options, [*texts, *dev], np.concatenate([logits, of_dev]))
    found: dict[str, Any] = {"benchmark": "labelled_files", "machine": machine(), "date": datetime.date.today().isoformat()}
    found |= {"texts": len(texts), "noise": options.noise, "silent": options.silent, "sides": {}}
    found |= {"epochs": options.epochs, "seeds": len(options.seeds)}
    for name in options.sides:
        results = [side(options, name, seed) for seed in options.seeds]
        own: dict[str, Any] = {"accuracy": [result["student"]["metrics"]["accuracy"] for result in results]}
        if name != "gold":
            kept = [result["teacher"]["kept"] for result in results]
            own |= {"file": kept[0]["teacher"], "answered": results[0]["teacher"]["file"]["splits"]["train"]["answered"]}
            own |= {"agreement": [each["agreement"] for each in kept], "by_confidence": kept[0].get("by_confidence")}
        found["sides"][name] = own
        write_json(options.results, found)
    return found


def table(found: dict[str, Any]) -> str:
    """For docs/evidence.md."""

    def text(values: list[float]) -> str:
        spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{100 * np.mean(values):.1f}{spread}"

    rows = []
    for name, own in found["sides"].items():
        rest = ["", "", ""]
        if name != "gold":
            rest = [f"{own['answered']:,}", f"{100 * own['file']:.1f}", text(own["agreement"])]
        rows.append([SIDES[name], rest[0] or f"{found['texts']:,}", rest[1], text(own["accuracy"]), rest[2]])
    headings = ["learned from", "texts", "file's accuracy, %", "student's accuracy, %", "says the same as the file, %"]
    noise = f"Noisy answers are the other class with a probability of {found['noise']:g} and none with {found['silent']:g}"
    how = f"a student of three layers, {found['epochs']:g} epochs, {counted(found['seeds'], 'seed')}"
    return f"{markdown(headings, rows)}\n\n{noise}; {how}."


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--cache", "--encoder", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--limit", type=int, default=4000, help="task.limit.train of the cache")
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--taught", type=int, default=12000, help="task.limit.train of the teacher's own training")
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--silent", type=float, default=0.1)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=42, help="of texts and noise")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[42])
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(SIDES))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipes, for all")
    parser.add_argument("--results", type=Path, default=NEW_RESULTS / "labelled_files.json")
    options = parser.parse_args()
    options.out, options.encoder = options.out.absolute(), model_folder(options.encoder.absolute())
    found = measured(options)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

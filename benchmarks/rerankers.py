"""Rerankers of three layers, by `recipes/reranker.yaml`: fine-tuned on what is relevant, and distilled from one of six layers
that was, on rankings that are made of articles.

    python benchmarks/rerankers.py --articles data/enwiki.txt --encoder models/minilm --out runs/rerankers

Made data: a query is a sentence of a paragraph, which is taken out of it; relevant is the rest of the paragraph, and the other
candidates are paragraphs of the same article, or where it has too few, of the next ones (the inverse cloze task of Lee et al.
2019). So the figures say how much of a teacher a student keeps, and nothing of search. `--articles` has a paragraph a line, and
an empty line between articles. The figures go to `runs/benchmarks/rerankers.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from tables import machine, markdown, measure, model_at

from crossdistil.core.app.api import run

SHORTEST, LONGEST = 200, 500
"""Characters of a paragraph that is taken."""
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
TEACHER = "teacher"
STUDENTS = {
    "finetune": ("three layers of the encoder, fine-tuned", None),
    "distil": ("three layers of the teacher, its margins (`distil`)", "distil"),
    "distil_lists": ("three layers of the teacher, its distributions (`distil_lists`)", "distil_lists"),
}


def articles(path: Path) -> list[list[str]]:
    """The paragraphs of each article that are neither short nor long."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    found = [[line for line in block.splitlines() if SHORTEST <= len(line) <= LONGEST] for block in blocks]
    return [lines for lines in found if lines]


def rankings(path: Path, count: int, others: int, seed: int) -> list[dict[str, Any]]:
    """So many queries with one relevant candidate and `others`."""
    drawn, blocks, found = random.Random(seed), articles(path), []
    drawn.shuffle(blocks)
    for place, block in enumerate(blocks):
        paragraph = drawn.choice(block)
        sentences = _SENTENCE.split(paragraph)
        if len(sentences) < 3:
            continue
        query = drawn.randrange(len(sentences))
        rest = " ".join(sentences[:query] + sentences[query + 1 :])
        near = [line for line in block if line != paragraph]
        near += [line for other in blocks[place + 1 : place + 1 + 2 * others] for line in other[:1]]
        if len(near) < others:
            break
        found.append({"query": sentences[query], "positive": [rest], "negative": near[:others]})
        if len(found) == count:
            return found
    raise SystemExit(f"{path}: has {len(found)} queries, expected {count}")


def write(path: Path, found: list[dict[str, Any]]) -> None:
    """A list a line."""
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in found), encoding="utf-8")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    data = options.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    found = rankings(options.articles, options.train + options.dev, options.others, options.seed)
    write(data / "train.jsonl", found[: options.train])
    write(data / "dev.jsonl", found[options.train :])
    common = [f"task.data={data}", f"task.max_length={options.length}", f"task.ranking.candidates={options.others + 1}"]
    common += [f"seed={options.seed}", "stages.0.train.keep=last", *options.set]
    start = [f"student.init.from={options.encoder}"]
    place = options.out / TEACHER
    results = {TEACHER: run("reranker", out=place, overrides=[*common, *start], backend="torch")}
    layers = ["student.architecture.num_hidden_layers=3", "student.init.layers=[0,2,4]"]
    for name, (_, preset) in STUDENTS.items():
        own = [*common, *(start if preset is None else [f"teacher.model={place}"]), *layers]
        own += [f"stages.0.train.learning_rate={options.rate}"]
        results[name] = run("reranker", out=options.out / name, overrides=own, preset=preset, backend="torch")
    return {
        "benchmark": "rerankers",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "train": options.train,
        "dev": options.dev,
        "candidates": options.others + 1,
        "steps": results[TEACHER]["steps"],
        "metrics": {name: result["student"]["metrics"] for name, result in results.items()},
    }


def table(found: dict[str, Any]) -> str:
    """For docs/evidence.md."""
    names = {TEACHER: "teacher, six layers, fine-tuned"} | {name: told for name, (told, _) in STUDENTS.items()}
    rows = [
        [names[name], *(f"{metrics[key]:.3f}" for key in ("ndcg@10", "mrr@10"))] for name, metrics in found["metrics"].items()
    ]
    made = f"{found['train']:,} made queries of {found['candidates']} candidates to train on, {found['dev']:,} to score on"
    return f"{markdown(['model', 'nDCG@10', 'MRR@10'], rows)}\n\n{made}; {found['steps']:,} steps each, one seed."


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--encoder", type=model_at, required=True)
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--train", type=int, default=320)
    parser.add_argument("--dev", type=int, default=160)
    parser.add_argument("--others", type=int, default=4, help="candidates beside the relevant one")
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--rate", default="1e-4", help="the students' learning rate")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for all")
    measure(parser, "rerankers", measured, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

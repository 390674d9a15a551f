"""Small files of rankings, and a recipe of them: sentences of `tiny`, relevant where their good or bad word is of the query's
side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.tests import tiny


def lists(count: int, seed: int, candidates: int = 5) -> list[dict[str, Any]]:
    """Queries with 2 to `candidates` candidates, their labels, and scores as a teacher has them."""
    drawn, found = np.random.default_rng(seed), []
    queries, sides = tiny.sentences(count, seed)
    for number, (query, side) in enumerate(zip(queries, sides)):
        texts, own = tiny.sentences(int(drawn.integers(2, candidates + 1)), seed * 1000 + number)
        labels = [int(each == side) for each in own]
        scores = [round(float(value), 3) for value in 3 * np.array(labels) - 1 + drawn.normal(0, 0.5, len(labels))]
        found.append({"query": query, "candidates": texts, "labels": labels, "teacher_score": scores})
    return found


def write_rankings(folder: Path, train: int = 24, dev: int = 12) -> Path:
    """train.jsonl and dev.jsonl with lists of candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("dev", dev, 2)):
        lines = [f"{json.dumps(each)}\n" for each in lists(count, seed)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def ranking_recipe(data: Path, teacher: Path | None, objective: list[dict[str, Any]], **train: Any) -> dict[str, Any]:
    """Plain data of a recipe: a student of one layer of the teacher's, four candidates an example."""
    settings = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "length_buckets": [24], "log_every": 3}
    start = {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [0]}}
    return {
        "method": "reranker",
        "task": {
            **{"name": "sides", "kind": "ranking", "data": str(data), "max_length": 24},
            "ranking": {"candidates": 4, "teacher_score": "teacher_score"},
        },
        **({} if teacher is None else {"teacher": {"model": str(teacher)}}),
        "student": start,
        "stages": [{"name": "rank", "objective": objective, "train": settings | train}],
        "seed": 7,
    }


def of_rows(table, suffix):
    """A table's text, as files of this suffix hold it."""
    mark = {".tsv": "\t", ".csv": ","}[suffix]
    return "".join(mark.join(map(str, row)) + "\n" for row in table)


def written(path, rows):
    """`path`, with these rows in it."""
    path.write_text(
        of_rows(rows, path.suffix) if path.suffix != ".jsonl" else "".join(f"{json.dumps(row)}\n" for row in rows)
    )
    return path

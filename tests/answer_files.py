"""Small files of questions whose answers a small model learns: the one word of a text that says whether it is good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

_NAMES, _OTHERS = ("good", "bad", "great", "poor"), ("the", "film", "a", "plot", "is", "not")


def paragraphs(count: int, seed: int, none: float = 0.0) -> list[dict]:
    """`count` contexts of ten words, of which one is the answer to the question, whatever its place; `none` is the share of those
    that have no such word."""
    drawn, found = np.random.default_rng(seed), []
    for number in range(count):
        words = list(drawn.choice(_OTHERS, 10))
        place, name = int(drawn.integers(10)), str(drawn.choice(_NAMES))
        is_there = drawn.random() >= none
        if is_there:
            words[place] = name
        start = len(" ".join(words[:place])) + (place > 0)
        answers = [{"text": name, "answer_start": start}] if is_there else []
        asked = {"id": f"q{seed}-{number}", "question": "it was", "answers": answers}
        found.append({"context": " ".join(words), "qas": [asked | ({"is_impossible": not is_there} if none else {})]})
    return found


def squad(parts: list[dict]) -> dict:
    """As SQuAD's files have them."""
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": parts}]}


def write_questions(folder: Path, none: float = 0.0, train: int = 96) -> Path:
    """train.json, of so many questions, and dev.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("dev", 32, 2)):
        (folder / f"{split}.json").write_text(json.dumps(squad(paragraphs(count, seed, none))))
    return folder


def qa_recipe(data: Path, encoder: Path | str, steps: int = 40, **more) -> dict:
    """A recipe that fine-tunes on them."""
    return {
        "method": "qa",
        "task": {"name": "words", "kind": "question_answering", "data": str(data), "max_length": 12, "answers": {"stride": 4}},
        "student": {"init": {"from": str(encoder)}},
        "stages": [{"name": "s", "objective": [{"loss": "hard_label"}],
                    "train": {"steps": steps, "batch_size": 16, "learning_rate": 3e-3}}],
        **more,
    }  # fmt: skip

"""Small files of words with labels: names among the words of `tiny`."""

from __future__ import annotations

import random
from pathlib import Path

NAMES = {"PER": ["good", "great", "fine"], "LOC": ["bad", "dull"]}
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
"""In the order in which they are counted."""
PLAIN = "the a film plot actor scene story it is was very".split()


def sentences(count: int, seed: int) -> list[list[tuple[str, str]]]:
    """(word, tag in BIO) of each word."""
    drawn, found = random.Random(seed), []
    for _ in range(count):
        words: list[tuple[str, str]] = []
        for _ in range(drawn.randint(3, 7)):
            if drawn.random() < 0.4:
                kind = drawn.choice(list(NAMES))
                name = [drawn.choice(NAMES[kind]) for _ in range(drawn.randint(1, 2))]
                words += [(word, ("I-" if place else "B-") + kind) for place, word in enumerate(name)]
            words.append((drawn.choice(PLAIN), "O"))
        found.append(words)
    return found


def columns(rows) -> str:
    """The text of a file of columns."""
    return "\n\n".join("\n".join(f"{word} x {tag}" for word, tag in row) for row in rows) + "\n"


def write_names(folder: Path, train: int = 120, dev: int = 40) -> Path:
    """A task folder with train and dev."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("dev", dev, 2)):
        (folder / f"{split}.conll").write_text(columns(sentences(count, seed)))
    return folder


def ner_recipe(data: Path, encoder: Path, steps: int = 12, **more) -> dict:
    """Fine-tuning on them."""
    return {
        "method": "ner",
        "task": {"name": "names", "kind": "tokens", "data": str(data), "max_length": 16},
        "student": {"init": {"from": str(encoder)}},
        "stages": [
            {
                "name": "words",
                "objective": [{"loss": "hard_label"}],
                "train": {"steps": steps, "batch_size": 8, "learning_rate": 5e-3, "dropout": 0.0},
            }
        ],
        "seed": 1,
        **more,
    }

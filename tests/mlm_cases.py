"""What the tests of masked language model examples share: vocabularies, a corpus of random sentences, and records read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from crossdistil.core.data.mlm.blocks import Source
from crossdistil.core.data.mlm.create import create
from crossdistil.core.data.mlm.documents import Corpus
from crossdistil.core.data.mlm.settings import Settings
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.data.records.tfrecord import parse_example, read_records
from crossdistil.core.data.shares import Part
from crossdistil.tests import tiny

SPECIAL = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>"]
ENGLISH = [*SPECIAL, *tiny.GOOD, *tiny.BAD, *tiny.WORDS, *tiny.LETTERS]
_CHARACTERS = [*"我们使用语言模型预测卡拉的一个词在京大学文件中国人民。，！"]
CHINESE = [*SPECIAL, *_CHARACTERS, *(f"##{one}" for one in _CHARACTERS), *tiny.LETTERS, "ok", "##ok", "t", "1", "##9"]
CHINESE = list(dict.fromkeys(CHINESE))


def write_vocabulary(folder: Path, tokens=ENGLISH, **config) -> Path:
    """A vocab.txt, with a tokenizer_config.json if anything is to be in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in dict.fromkeys(tokens)), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "vocab.txt"


def write_corpus(path: Path, documents: int = 60, seed: int = 0) -> Path:
    """Documents of 1 to 12 sentences of 2 to 40 words, one in four of several pieces."""
    generator = np.random.default_rng(seed)
    letters = list("bdfghjklmnprstvwxz")
    lines = []
    for _ in range(documents):
        for _ in range(generator.integers(1, 13)):
            words = generator.choice(tiny.WORDS, generator.integers(2, 41)).tolist()
            for place in range(0, len(words), 4):
                words[place] = "".join(generator.choice(letters, generator.integers(2, 7)))
            lines.append(" ".join(words) + " .")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def make(
    folder: Path,
    corpus: Path,
    vocabulary: Path,
    processes: int = 1,
    part: Part | None = None,
    resume: bool = False,
    **settings,
) -> dict:
    """Create records in `folder`; returns the note."""
    chosen = Settings(**settings)
    chosen.check()
    source = Source(vocabulary, None, chosen)
    return create(
        Corpus([corpus]), source, Vocabulary(vocabulary), folder, part or Part(), processes, resume, lambda done, total: None
    )


def read(folder: Path) -> dict[str, np.ndarray]:
    """The features of all record files, one after the other: (examples, numbers of the feature)."""
    found = [
        parse_example(data) for path in sorted(folder.glob("*.tfrecord")) for _, data in read_records(path)
    ]
    return {name: np.stack([example[name] for example in found]) for name in found[0]}


def originals(records: dict[str, np.ndarray]) -> np.ndarray:
    """input_ids (examples, L) with the masked pieces put back."""
    ids = records["input_ids"].copy()
    rows, places = np.nonzero(records["masked_lm_weights"])
    ids[rows, records["masked_lm_positions"][rows, places]] = records["masked_lm_ids"][rows, places]
    return ids

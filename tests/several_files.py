"""The tiny tasks, texts and models that the cases of several processes (`several_cases`) train on, in one folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.kinds.known_kinds import ANSWERS, SEVERAL_LABELS, TOKEN_LABELS
from crossdistil.core.models.answer_heads import SPANS, TOKENS
from crossdistil.tests import tiny
from crossdistil.tests.answer_files import write_questions
from crossdistil.tests.kind_recipes import write_answering
from crossdistil.tests.tagged_files import LABELS, write_names
from crossdistil.tests.tiny_masked_lm import write_masked_lm
from crossdistil.tests.tiny_rankings import write_rankings
from crossdistil.tests.tiny_sentences import write_embedder, write_sentences

ROWS = 44
"""Training texts of each task: with the cases' batches the last step of an epoch is incomplete."""
TOPICS = ("actor", "film", "plot")
TEACHER = tiny.CONFIG.model_copy(update={"num_hidden_layers": 4})


def write_files(folder: Path) -> Path:
    """Everything that the cases read; returns the folder."""
    tiny.write_task(folder / "task", train=ROWS)
    generator = np.random.default_rng(3)
    texts = tiny.sentences(ROWS, 5)[0]
    _write_table(folder / "scores", [f"{text}\t{value:.3f}" for text, value in zip(texts, generator.normal(2, 1, ROWS))])
    labels = ["|".join(topic for topic in TOPICS if topic in text.split()) for text in texts]
    _write_table(folder / "topics", [f"{text}\t{label}" for text, label in zip(texts, labels)])
    # Four of 44 rows have a label when the others are mixed in: most parts of a step have none.
    tiny.write_task(folder / "few", train=4)
    _write_table(folder / "more", [f"{text}\t{'xyz'[number % 3]}" for number, text in enumerate(tiny.sentences(40, 9)[0])])
    lines = [" ".join(generator.choice(tiny.WORDS, generator.integers(3, 14))) for _ in range(ROWS)]
    (folder / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")

    write_sentences(folder / "sentences", train=ROWS)
    write_embedder(folder / "embedder", config=TEACHER, seed=5)
    tiny.write_model(folder / "teacher", TEACHER, seed=1)
    tiny.write_model(folder / "other", TEACHER, seed=2)
    tiny.write_model(folder / "shallow", seed=1)
    tiny.write_model(folder / "scorer", TEACHER, labels=None, seed=3)
    tagger = tiny.write_model(folder / "tagger", TEACHER, labels=TOPICS, seed=4)
    save_model(dataclasses.replace(tagger, kind=SEVERAL_LABELS), folder / "tagger", load_tokenizer(folder / "tagger"))
    write_masked_lm(folder / "writer")

    write_names(folder / "names", ROWS, 8)
    write_questions(folder / "questions", train=ROWS)
    write_rankings(folder / "rankings", ROWS)
    write_answering(folder / "namer", TOKENS, LABELS, TEACHER, kind=TOKEN_LABELS)
    write_answering(folder / "answerer", SPANS, None, TEACHER, kind=ANSWERS)
    return folder


def _write_table(folder: Path, rows: list[str]) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8")

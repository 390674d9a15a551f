"""Small files for sentence embeddings, and a recipe of them: sentences of `tiny`, alike where their good or bad words are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.batches import evaluation_batches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import EMBEDDINGS
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.models.spec import EncoderConfig
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

TEXTS = ["good film", "the plot was quite bad , and the scene so dull", "x", "fine"]


def write_embedder(folder: Path, pooling: Pooling = Pooling(), config: EncoderConfig = tiny.CONFIG, seed: int = 0) -> Model:
    """A folder of a model that embeds texts, with random weights and the tiny tokenizer."""
    vocabulary = tiny.write_vocabulary(folder.parent / f"{folder.name}-vocabulary")
    parameters = tiny.random_parameters(config, 2, seed)
    model = Model(config.embedding(pooling), parameters, None, about={"max_length": 16})
    save_model(model, folder, load_tokenizer(vocabulary))
    return model


def write_sentences(folder: Path, train: int = 40, dev: int = 20) -> Path:
    """train.txt with a text a line, scored.jsonl and triplets.jsonl to train on, and dev.jsonl, scored pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = tiny.sentences(train, 1)[0]
    (folder / "train.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    for name, count, seed in (("scored", train, 2), ("dev", dev, 3)):
        first, second = tiny.sentences(count, seed), tiny.sentences(count, seed + 10)
        scores = np.random.default_rng(seed).integers(0, 3, count) + 2 * (np.array(first[1]) == np.array(second[1]))
        rows = zip(first[0], second[0], scores)
        lines = [f'{{"a": "{one}", "b": "{other}", "alike": {score}}}\n' for one, other, score in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    columns = [tiny.sentences(train, seed)[0] for seed in (5, 6, 7)]
    lines = [f'{{"a": "{one}", "b": "{two}", "c": "{three}"}}\n' for one, two, three in zip(*columns)]
    (folder / "triplets.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def embedding_recipe(data: Path, teacher: Path | None, objective: list[dict[str, Any]], examples: str = "texts", **train: Any):
    """Plain data of a recipe: a student of one layer of the teacher's, or of two random ones without it."""
    files = {"texts": "train.txt", "scored": "scored.jsonl", "pairs": "triplets.jsonl", "triplets": "triplets.jsonl"}
    given = {"examples": examples, "scores": [0, 4]} | ({"negative": "c"} if examples == "triplets" else {})
    settings = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "length_buckets": [16], "log_every": 3}
    start = {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [0]}}
    return {
        "method": "embedding",
        "task": {
            **{"name": "alike", "kind": "embeddings", "data": str(data), "max_length": 16, "files": {"train": files[examples]}},
            **{"text": "a", "text_pair": "b", "label": "alike", "embeddings": given},
        },
        **({} if teacher is None else {"teacher": {"model": str(teacher)}}),
        "student": start,
        "stages": [{"name": "embed", "objective": objective, "train": settings | train}],
        "seed": 7,
    }


def vectors_of(folder, texts, length=16):
    """What the model in a folder makes of texts, by the NumPy reference."""
    model = load_model(folder, classifier=EMBEDDINGS)
    table = load_tokenizer(folder).encode_pairs(texts, None, length)
    found = np.zeros((len(texts), model.config.hidden_size))
    for rows, batch in evaluation_batches(table, None, 3, (length,)):
        found[rows] = logits_function(model.config)(ReferenceOps(), model.parameters, batch)[0][: len(rows)]
    return found


def change(path, **entries):
    """Entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))

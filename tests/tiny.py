"""What many tests need small and random: a BERT of 2 layers x 32, batches with padding tokens and rows, a model folder, and
tasks of a few dozen sentences. Everything is made from a seed, and nothing here imports a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.known_families import is_norm
from crossdistil.core.models.spec import EncoderConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = ["good", "great", "fine", "warm", "lovely"], ["bad", "dull", "poor", "cold", "awful"]
WORDS = "the a film plot actor scene story it is was very quite not and but so".split()
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), *".,!?"]
VOCABULARY = list(dict.fromkeys([*SPECIAL, *GOOD, *BAD, *WORDS, *LETTERS]))

CONFIG = BertConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)
STILL = CONFIG.without_dropout()
"""The same without dropout."""
ONE_LAYER = CONFIG.model_copy(update={"num_hidden_layers": 1})


def random_parameters(config: EncoderConfig = CONFIG, outputs: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights far from a fresh model's: every bias and normalisation matters, and attention is not uniform."""
    generator = np.random.default_rng(seed)
    parameters = {}
    for name, shape in tensor_shapes(config, outputs).items():
        values = generator.normal(0.0, 0.2, shape)
        parameters[name] = (values + (1.0 if is_norm(name) and name.endswith("weight") else 0.0)).astype(np.float32)
    return parameters


def random_batch(
    rows: int = 5, length: int = 12, fill: int = 1, outputs: int = 2, seed: int = 0, vocabulary: int = CONFIG.vocab_size
) -> dict[str, np.ndarray]:
    """Rows of uneven length, the first one full and the last `fill` only there to fill the batch; `outputs` 1 is a
    regression."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, length, rows)
    lengths[0] = length
    lengths[rows - fill :] = 1
    positions = np.arange(length)
    is_token = positions < lengths[:, None]
    ids = np.where(is_token, generator.integers(5, vocabulary, (rows, length)), 0)
    second = positions >= generator.integers(1, length, rows)[:, None]
    labels = generator.normal(2.5, 1.0, rows) if outputs == 1 else generator.integers(0, outputs, rows)
    example_mask = (np.arange(rows) < rows - fill).astype(np.float32)
    return {
        "input_ids": ids.astype(np.int32),
        "token_type_ids": (second & is_token).astype(np.int32),
        "attention_mask": is_token.astype(np.float32),
        "labels": labels.astype(np.float32 if outputs == 1 else np.int32),
        "example_mask": example_mask,
        "label_mask": example_mask.copy(),
    }


def write_vocabulary(folder: Path) -> Path:
    """A tokenizer folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    return folder


def write_model(
    folder: Path,
    config: EncoderConfig = CONFIG,
    labels: tuple[str, ...] | None = ("negative", "positive"),
    seed: int = 0,
) -> Model:
    """A model folder with random weights and the tiny tokenizer; `labels` None is a regression."""
    outputs = 1 if labels is None else len(labels)
    parameters = random_parameters(config, outputs, seed)
    vocabulary = write_vocabulary(folder.parent / f"{folder.name}-vocabulary")
    model = Model(config, parameters, outputs, labels)
    save_model(model, folder, load_tokenizer(vocabulary))
    return model


def sentences(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Sentences of 1 to 9 words, and whether the good word in each is good."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = int(generator.integers(2))
        words = [str(word) for word in generator.choice(WORDS, generator.integers(0, 9))]
        words.insert(int(generator.integers(len(words) + 1)), str(generator.choice((BAD, GOOD)[label])))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def write_task(folder: Path, train: int = 44, dev: int = 21) -> Path:
    """SST-2's files with tiny content."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": train, "dev": dev}.items()):
        lines = [f"{text}\t{label}\n" for text, label in zip(*sentences(count, seed))]
        (folder / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    return folder


def kd_recipe(data: Path, teacher: Path, **train: Any) -> dict[str, Any]:
    """Plain data of a recipe that distils a one-layer student from a tiny teacher on SST-2; all texts fit in 16 tokens,
    so that a graph mode compiles one step."""
    settings = {"steps": 12, "batch_size": 8, "learning_rate": 1e-3, "length_buckets": [16], "log_every": 4}
    return {
        "method": "kd",
        "task": {"name": "sst-2", "data": str(data), "max_length": 16},
        "teacher": {"model": str(teacher)},
        "student": {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [0]}},
        "stages": [
            {
                "name": "distil",
                "objective": [{"loss": "kd_ce", "temperature": 2, "weight": 0.5}, {"loss": "hard_label", "weight": 0.5}],
                "train": settings | train,
            }
        ],
        "seed": 7,
    }

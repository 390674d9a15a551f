"""A small recipe of each kind of task beyond one label a text, with its files, for what all of them must stand: kills, full
disks, damaged files, several processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.kinds.known_kinds import ANSWERS, TOKEN_LABELS
from crossdistil.core.models.answer_heads import SPANS, TOKENS
from crossdistil.core.models.spec import EncoderConfig
from crossdistil.tests import tiny
from crossdistil.tests.answer_files import qa_recipe, write_questions
from crossdistil.tests.tagged_files import LABELS, ner_recipe, write_names
from crossdistil.tests.tiny_causal import write_causal_lm
from crossdistil.tests.tiny_rankings import ranking_recipe, write_rankings
from crossdistil.tests.tiny_sentences import embedding_recipe, write_embedder, write_sentences
from crossdistil.tests.word_runs import word_recipe, write_texts

_TAUGHT = [{"loss": "kd_ce", "weight": 0.5, "temperature": 2}, {"loss": "hard_label", "weight": 0.5}]
_ONE_LAYER = {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [0]}}


def write_answering(
    folder: Path, head: str, labels: tuple[str, ...] | None, config: EncoderConfig = tiny.CONFIG, **about: Any
) -> Path:
    """A model with a head over tokens and random weights."""
    vocabulary, config = tiny.write_vocabulary(folder.parent / "vocabulary"), config.answering(head)
    outputs = 2 if labels is None else len(labels)
    model = Model(config, tiny.random_parameters(config, outputs, 3), outputs, labels, **about)
    save_model(model, folder, load_tokenizer(vocabulary))
    return folder


def _ner(root: Path) -> dict[str, Any]:
    teacher = write_answering(root / "teacher", TOKENS, LABELS, kind=TOKEN_LABELS)
    tree = ner_recipe(write_names(root / "data", 48, 16), teacher, teacher={"model": str(teacher)}, student=_ONE_LAYER)
    tree["stages"][0]["objective"] = _TAUGHT
    return tree


def _qa(root: Path) -> dict[str, Any]:
    teacher = write_answering(root / "teacher", SPANS, None, kind=ANSWERS)
    tree = qa_recipe(write_questions(root / "data"), teacher, teacher={"model": str(teacher)}, student=_ONE_LAYER, seed=1)
    tree["stages"][0]["objective"] = _TAUGHT
    return tree


def _embedding(root: Path) -> dict[str, Any]:
    write_embedder(root / "teacher")
    return embedding_recipe(write_sentences(root / "data"), root / "teacher", [{"loss": "sentence_mse"}])


def _reranker(root: Path) -> dict[str, Any]:
    tiny.write_model(root / "teacher", labels=None, seed=3)
    return ranking_recipe(write_rankings(root / "data"), root / "teacher", [{"loss": "ranking_margin_mse", "by": "teacher"}])


def _llm(root: Path) -> dict[str, Any]:
    tiny.write_model(root / "teacher")
    tree = tiny.kd_recipe(tiny.write_task(root / "data"), root / "teacher")
    texts, labels = tiny.sentences(44, 0)
    rows = {text: {"text": text, "probabilities": {"positive": 0.1 + 0.8 * label}} for text, label in zip(texts, labels)}
    (root / "labelled.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows.values()))
    tree["teacher"] = {"file": {"path": str(root / "labelled.jsonl")}}
    tree["student"]["init"]["from"] = str(root / "teacher")
    tree["stages"][0]["objective"] = [{"loss": "kd_ce", "temperature": 1}]
    return tree


def _clm(root: Path) -> dict[str, Any]:
    tree = _distilgpt2(root)
    tree["student"] = {"init": {"from": tree.pop("teacher")["model"]}}
    tree["stages"][0]["objective"] = [{"loss": "causal_lm"}]
    return tree | {"method": "clm"}


def _distilgpt2(root: Path) -> dict[str, Any]:
    write_causal_lm(root / "teacher")
    write_texts(root, 40, 2, 5)
    return word_recipe("distilgpt2", "clm", "causal_lm", 24, root)


_MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ner": _ner,
    "qa": _qa,
    "embedding": _embedding,
    "reranker": _reranker,
    "llm": _llm,
    "clm": _clm,
    "distilgpt2": _distilgpt2,
}
KIND_RECIPES = tuple(_MAKERS)
"""Their names."""


def write_kind(root: Path, name: str, **train: Any) -> Path:
    """The recipe file of a kind, `recipe.yaml` in a folder with all that it needs: eight steps of batches of eight, with dropout,
    unless `train` says otherwise."""
    root.mkdir(parents=True, exist_ok=True)
    tree = _MAKERS[name](root)
    own = tree["stages"][0]["train"]
    own |= {"steps": 8, "batch_size": 8, "log_every": 1, "save_every": 2, "evaluate_every": 3, "dropout": 0.1, **train}
    path = root / "recipe.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path

"""A student whose tokenizer is not its teacher's: it is taught the teacher's answers, each made from the teacher's own
tokens of the same text, and nothing that belongs to a token."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.app import teaching
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import teach

ANSWERS = [{"loss": "kd_ce", "temperature": 2}, {"loss": "hard_label", "weight": 0.3}]


@pytest.fixture
def tree(tiny_task, tiny_model):
    """One step of distillation: too little for `auto` to cache where the tokenizers are the same."""
    tree = tiny.kd_recipe(tiny_task, tiny_model, steps=1, length_buckets=[40])
    tree["stages"][0]["objective"] = ANSWERS
    return tree


def write_other_vocabulary(folder):
    """A tokenizer that cuts the same texts otherwise: it knows no whole words."""
    folder.mkdir()
    tokens = [*tiny.SPECIAL, *tiny.LETTERS]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return folder, len(tokens)


def apart(tree, tmp_path, kind):
    if kind == "bilstm":
        sizes = {"embedding_size": 8, "hidden_size": 6, "fully_connected_size": 5}
        tree["student"] = {"architecture": {"model_type": "bilstm", **sizes}, "words": {"max_length": 9}}
    else:
        folder, size = write_other_vocabulary(tmp_path / "vocabulary")
        tree["student"] = {"architecture": {"num_hidden_layers": 1, "vocab_size": size}, "tokenizer": str(folder)}
    return tree


@pytest.mark.parametrize("use", ["auto", "always", "never"])
@pytest.mark.parametrize("kind", ["bilstm", "bert"])
def test_a_student_with_another_tokenizer_gets_its_teachers_logits(tree, tmp_path, tiny_model, kind, use):
    tree = apart(tree, tmp_path, kind)
    tree["teacher_cache"] = {"use": use, "folder": str(tmp_path / "cache")}
    stage, printed = teach(tree)
    assert stage.objective.cached and (tmp_path / "cache").exists() is (use != "never")
    assert ("kept in memory" in printed) is (use == "never")
    texts = tiny.sentences(44, 0)[0]
    [batch] = next(stage.batches.epoch(0))
    table = load_tokenizer(tiny_model).encode_pairs(texts, None, 16)
    model = load_model(tiny_model)
    rows = dict(zip(map(tuple, _student_rows(tree, texts)), range(44)))
    for ids, mask, real, logits in zip(*(batch[n] for n in ("input_ids", "attention_mask", "example_mask", "teacher/logits"))):
        if not real:
            assert not logits.any()
            continue
        row = rows[tuple(ids[mask > 0].tolist())]
        own = table.ids[table.offsets[row] : table.offsets[row + 1]][None]
        alone = {"input_ids": own, "attention_mask": np.ones(own.shape), "token_type_ids": np.zeros(own.shape, int)}
        expected = make_forward(model.config.without_dropout())(ReferenceOps(), model.parameters, alone)["logits"]
        np.testing.assert_allclose(logits, expected[0], rtol=1e-5, atol=1e-6)


def _student_rows(tree, texts):
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    table = job.data.tokens["train"]
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets[:-1], table.offsets[1:])]


@pytest.mark.parametrize("use", ["auto", "never"])
def test_a_student_with_another_tokenizer_gets_no_hidden_states(tree, tmp_path, use):
    tree = apart(tree, tmp_path, "bert") | {"teacher_cache": {"use": use}}
    tree["stages"][0]["objective"] = [{"loss": "hidden_mse", "layers": [[2, 1]]}]
    with pytest.raises(CrossdistilError, match=r"objective\[0\].loss: hidden_mse compares token by token, but the student has"):
        teach(tree)
    tree["stages"][0]["objective"] = ANSWERS
    with pytest.raises(CrossdistilError, match="'teacher' has another tokenizer than the student, but teacher_dropout"):
        teach(tree | {"teacher_dropout": True})


def test_memory_is_not_filled_with_a_teachers_layers(tree, tmp_path, tiny_model, monkeypatch):
    """`never` and a teacher with another tokenizer: the other teacher's outputs have to be kept as well."""
    monkeypatch.setattr(teaching, "LARGEST_IN_MEMORY", 1000)
    tree = apart(tree, tmp_path, "bert") | {"teacher_cache": {"use": "never"}}
    with pytest.raises(CrossdistilError, match="'never', but a teacher has another tokenizer .* 'auto' keeps them on the disk"):
        tree["task"] = tree["task"] | {"data": str(tiny.write_task(tmp_path / "larger", train=200))}
        teach(tree)

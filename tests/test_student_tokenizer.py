"""A student with another tokenizer than its teacher's: two encodings of one text, and what cannot be compared is refused."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.tiny_tokenizers import write_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a classifier of each of two tokenizers."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("unigram", "byte_level"):
        tokenizer = load_tokenizer(write_tokenizer(folder / "tokenizer", kind))
        config = BertConfig(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, **SIZES)
        parameters = {name: config.new_tensor(name, shape, 3) for name, shape in tensor_shapes(config, 2).items()}
        save_model(Model(config, parameters, 2, ("0", "1")), folder / kind, tokenizer)
    return folder


def prepared(task, models, loss, **student):
    stage = {"name": "a", "objective": [{"loss": loss}], "train": {"steps": 1}}
    recipe = {
        "method": "x",
        "task": {"name": "sst-2", "data": str(task), "max_length": 32},
        "teacher": {"model": str(models / "unigram")},
        "student": student,
        "stages": [stage],
    }
    return prepare(parse_recipe(recipe, "recipe"), "recipe", 8)


def test_logits_are_learnt_from_two_encodings(tiny_task, models):
    own = str(models / "byte_level")
    for init in ({"from": "random"}, {"from": own}):
        job = prepared(tiny_task, models, "kd_ce", tokenizer=own, init=init)
        [teacher] = job.teacher_data.values()
        assert job.data.tokenizer.kind == "BPE" and teacher.tokenizer.kind == "Unigram"
        assert not np.array_equal(job.data.tokens["train"].ids, teacher.tokens["train"].ids)
        assert job.student.config.vocab_size == job.data.tokenizer.vocab_size


def test_weights_of_fewer_other_words_are_told_of_once(tiny_task, models, tmp_path):
    """More rows for them would be those of no word."""
    tiny.write_model(tmp_path / "small")
    with pytest.raises(CrossdistilError) as refused:
        prepared(tiny_task, models, "kd_ce", init={"from": str(tmp_path / "small")})
    assert "whose tokenizer" in str(refused.value) and "--resize-vocabulary" not in str(refused.value)


def test_token_losses_and_rows_of_other_words_are_refused(tiny_task, models):
    own = str(models / "byte_level")
    with pytest.raises(CrossdistilError, match="compares token by token, but the student has another tokenizer than 'teacher'"):
        prepared(tiny_task, models, "hidden_mse", tokenizer=own, init={"from": own})
    with pytest.raises(CrossdistilError, match="student.init.from: 'teacher', whose tokenizer .* is not the student's"):
        prepared(tiny_task, models, "kd_ce", tokenizer=own, init={"from": "teacher"})
    with pytest.raises(CrossdistilError, match="use `student.tokenizer: .*byte_level`"):
        prepared(tiny_task, models, "kd_ce", init={"from": own})

"""Students of the families DistilBERT, ALBERT and ELECTRA: how they begin, and that each family teaches and learns."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import RecipeError
from crossdistil.core.fit import same_inputs
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.architectures import part_of, tensor_shapes
from crossdistil.core.models.families.distilbert import sinusoids
from crossdistil.core.models.families.gpt2 import Gpt2Config
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.student import build_student
from crossdistil.tests import tiny, tiny_causal
from crossdistil.tests.tiny_families import (
    ALBERT,
    DEBERTA_V2,
    DISTILBERT,
    ELECTRA,
    FAMILIES,
    LABELS,
    MPNET,
    ROBERTA,
    VARIANTS,
    each_trained_family,
    each_variant,
    hugging_face_config,
)


def build(teacher, init=None, **architecture):
    section = StudentSection(architecture=architecture, init=init or {"from": "teacher"})
    return build_student(section, teacher, 2, LABELS[:2], 3)


def teacher_of(config):
    return Model(config, tiny.random_parameters(config), 2, LABELS[:2])


@pytest.mark.parametrize("config", [DISTILBERT, ELECTRA], ids=["distilbert", "electra"])
def test_student_layer_i_is_teacher_layer_layers_i(config):
    deep = config.model_copy(update={config.own_key("num_hidden_layers"): 4})
    teacher = teacher_of(deep)
    # BERT's names of sizes are understood too.
    for key in {config.own_key("num_hidden_layers"), "num_hidden_layers"}:
        student, problems = build(teacher, {"from": "teacher", "layers": [3, 1]}, **{key: 2})
        assert problems == [] and not student.new and student.config == config
        for name, array in student.parameters.items():
            source = name
            for own, taken in enumerate((3, 1)):
                if f".layer.{own}." in name:
                    source = name.replace(f".layer.{own}.", f".layer.{taken}.")
            np.testing.assert_array_equal(array, teacher.parameters[source], err_msg=name)
    student, problems = build(teacher, **{key: 2})
    assert student is None and problems[0].startswith("student.init.layers: missing")


def test_an_albert_shares_its_layers_whatever_their_number():
    teacher = teacher_of(ALBERT)
    student, problems = build(teacher, num_hidden_layers=7)
    assert problems == [] and not student.new and student.config.num_hidden_layers == 7
    for name, array in teacher.parameters.items():
        np.testing.assert_array_equal(student.parameters[name], array)
    student, problems = build(teacher, {"from": "teacher", "layers": [0]}, num_hidden_layers=1)
    assert student is None and problems[0].startswith("student.init.layers: the layers of an ALBERT are shared")
    student, problems = build(teacher, num_hidden_groups=2)
    assert student is None and problems[0].startswith("student.architecture.num_hidden_groups: 2, but the weights")


def test_a_student_of_another_family():
    for config in VARIANTS.values():
        for kind, own in FAMILIES.items():
            teacher = teacher_of(config)
            if isinstance(config, type(own)):
                continue
            student, problems = build(teacher, model_type=kind)
            if (config.family.model_type, kind) == ("bert", "distilbert"):  # its layers are BERT's (test_word_training)
                assert problems == [] and student.config.family.model_type == kind
                continue
            assert student is None and "are of another architecture" in problems[0], problems
            student, problems = build(teacher, {"from": "random"}, model_type=kind, num_hidden_layers=1)
            assert problems == [] and student.config.family.model_type == kind
            for name in ("vocab_size", "hidden_size", "embedding_size", "num_attention_heads", "intermediate_size"):
                if name in own.model_fields_set:
                    assert getattr(student.config, name) == getattr(config, name), name
            assert {name: array.shape for name, array in student.parameters.items()} == tensor_shapes(student.config, 2)


_OF_NORM = re.compile(r"(norm|(\b|_)ln(\b|_))\w*\.(weight|bias)$", re.IGNORECASE)


@pytest.mark.only_backend("torch")
@each_variant
def test_a_new_model_has_plain_normalisations(config):
    """As many as transformers' model has, by what its modules are."""
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_config(hugging_face_config(config))
    expected = sum(
        tensor is not None
        for module in theirs.modules()
        if type(module).__name__.lower().endswith("norm")
        for tensor in (module.weight, module.bias)
    )
    student, _ = build(None, {"from": "random"}, model_type=config.family.model_type, **config.model_dump())
    norms = {name: array for name, array in student.parameters.items() if _OF_NORM.search(name)}
    assert len(norms) == expected
    assert all((array == (1 if name.endswith("weight") else 0)).all() for name, array in norms.items())


@pytest.mark.only_backend("torch")
def test_sinusoidal_positions_are_transformers_s():
    from transformers.models.distilbert.modeling_distilbert import DistilBertModel

    config = DISTILBERT.model_copy(update={"sinusoidal_pos_embds": True})
    theirs = DistilBertModel(hugging_face_config(config)).embeddings.position_embeddings.weight.detach().numpy()
    np.testing.assert_allclose(sinusoids(40, 32), theirs, atol=1e-6)
    student, _ = build(None, {"from": "random"}, model_type="distilbert", **config.model_dump())
    np.testing.assert_array_equal(student.parameters["distilbert.embeddings.position_embeddings.weight"], sinusoids(40, 32))


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    return tiny.write_task(tmp_path_factory.mktemp("families") / "task", train=40, dev=12)


def run(tree, backend, out):
    options = RunOptions(backend, EngineOptions("cpu", "fp32"), out)
    execute(parse_recipe(tree, "test"), "test", options, Console(file=io.StringIO()))


@each_trained_family
def test_each_teaches_and_learns(backend_name, config, tmp_path, task_folder):
    key = config.own_key("num_hidden_layers")
    teacher = tiny.write_model(tmp_path / "teacher", config)
    tree = tiny.kd_recipe(task_folder, tmp_path / "teacher", steps=4, log_every=1)
    tree["student"] = {"architecture": {key: 1}, "init": {"from": "teacher", "layers": [1]}}
    if config is ALBERT:
        del tree["student"]["init"]["layers"]
    tree["stages"][0]["freeze"] = ["embeddings"]
    tree["stages"][0]["objective"].append({"loss": "hidden_mse", "layers": [[2, 1], [0, 0]]})
    run(tree, backend_name, tmp_path / "run")
    student = load_model(tmp_path / "run" / "student")
    assert type(student.config) is type(config) and student.config.num_hidden_layers == 1 and student.outputs == 2
    changed = {name for name, array in student.parameters.items() if not any_equal(array, teacher.parameters)}
    assert changed == {name for name in student.parameters if part_of(student.config, name) != "embeddings"}


def any_equal(array, tensors):
    return any(array.shape == other.shape and np.array_equal(array, other) for other in tensors.values())


def test_theseus_is_for_layers_of_their_own(backend_name, tmp_path, task_folder):
    tiny.write_model(tmp_path / "teacher", ALBERT)
    tree = tiny.kd_recipe(task_folder, tmp_path / "teacher", steps=4)
    del tree["student"]["init"]["layers"]
    tree["stages"][0] |= {"objective": [{"loss": "hard_label"}], "replacement": {"rate": 0.5}}
    with pytest.raises(RecipeError, match="each layer with weights of its own; got albert"):
        run(tree, backend_name, tmp_path / "run")


@pytest.mark.parametrize(("key", "value"), [("relative_attention_num_buckets", 64), ("num_attention_heads", 2)])
def test_a_table_of_distances_is_taken_in_its_size(key, value):
    student, problems = build(teacher_of(MPNET), {"from": "teacher", "layers": [0]}, num_hidden_layers=1, **{key: value})
    assert student is None and problems == [
        f"student.architecture.{key}: {value}, but the weights of student.init.from ('teacher') have {getattr(MPNET, key)}; "
        "for another size: --set 'student.init={from: random}'"
    ]


def test_a_table_of_distances_is_taken_in_its_size_where_a_key_does_not_tell_it():
    student, problems = build(teacher_of(DEBERTA_V2), {"from": "teacher"}, position_buckets=6)
    assert student is None and problems == [
        "student.architecture: its distance_rows is 12, but the weights of student.init.from ('teacher') have 16; "
        "for another size: --set 'student.init={from: random}'"
    ]


@pytest.mark.parametrize("said", [{}, {"n_inner": 128}])
def test_an_inner_width_that_follows_from_another_is_a_size_all_the_same(said):
    """GPT-2's own config.json leaves `n_inner` open."""
    teacher = teacher_of(Gpt2Config(**tiny_causal.KEYS | {"n_inner": None}))
    student, problems = build(teacher, {"from": "teacher", "layers": [0]}, num_hidden_layers=1, **said)
    assert student is not None and not problems and student.config.intermediate_size == 128
    student, problems = build(teacher, {"from": "teacher", "layers": [0]}, num_hidden_layers=1, n_inner=64)
    assert student is None and problems == [
        "student.architecture.n_inner: 64, but the weights of student.init.from ('teacher') have 128; "
        "for another size: --set 'student.init={from: random}'"
    ]


def test_positions_are_those_of_texts_not_rows():
    """A BERT takes as many tokens as its table has rows, a RoBERTa two fewer: what fits the one may not fit the other."""
    rows = {"max_position_embeddings": 40, "vocab_size": tiny.CONFIG.vocab_size}
    bert, roberta = (teacher_of(config.model_copy(update=rows)) for config in (tiny.CONFIG, ROBERTA))
    assert same_inputs(bert, bert) and not same_inputs(bert, roberta)

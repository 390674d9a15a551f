"""The student before its first step: which of its tensors come from where, and how the others are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from crossdistil.core.checkpoint import Model
from crossdistil.core.errors import CheckpointError
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.spec import initial_tensor
from crossdistil.core.student import build_student
from crossdistil.tests import tiny

LABELS = ("negative", "positive")
DEEP = tiny.CONFIG.model_copy(update={"num_hidden_layers": 4})


@pytest.fixture(scope="module")
def teacher():
    return Model(DEEP, tiny.random_parameters(DEEP), 2, LABELS)


def build(teacher, init=None, labels=LABELS, seed=3, **architecture):
    section = StudentSection(architecture=architecture, init=init or {"from": "teacher"})
    return build_student(section, teacher, 1 if labels is None else len(labels), labels, seed)


def built(*arguments, **options) -> Model:
    student, problems = build(*arguments, **options)
    assert problems == []
    return student


@pytest.mark.parametrize("layers", [[0, 3], [3, 1], [2, 2]])
def test_student_layer_i_is_teacher_layer_layers_i(teacher, layers):
    student = built(teacher, {"from": "teacher", "layers": layers}, num_hidden_layers=2)
    assert student.config == DEEP.model_copy(update={"num_hidden_layers": 2})
    assert list(student.parameters) == list(tensor_shapes(student.config, 2)) and not student.new
    for name, array in student.parameters.items():
        source = name
        for own, taken in enumerate(layers):
            if name.startswith(f"bert.encoder.layer.{own}."):
                source = name.replace(f".layer.{own}.", f".layer.{taken}.")
        np.testing.assert_array_equal(array, teacher.parameters[source], err_msg=name)


@pytest.mark.parametrize(
    ("depth", "layers", "told"),
    [
        (12, [0, 2, 4], "[0, 4, 8]"),  # a recipe's own for six layers
        (12, [3, 4, 5], "[0, 4, 8]"),
        (12, [0, 3, 6], None),
        (6, [0, 2, 4], None),
        (4, [0, 1], "[0, 2]"),
        (3, [0, 1, 2], None),
        (2, [0], None),  # which is the spread one
    ],
)
def test_low_layers_alone_are_told_with_the_setting_that_spreads_them(depth, layers, told):
    config = tiny.CONFIG.model_copy(update={"num_hidden_layers": depth})
    source = Model(config, tiny.random_parameters(config), 2, LABELS)
    notes = built(source, {"from": "teacher", "layers": layers}, num_hidden_layers=len(layers)).notes
    expected = f"student.init.layers: {layers}: all of the lower half of the source's {depth} layers (counted from 0); "
    assert notes == (() if told is None else (f"{expected}spread over all of them: --set 'student.init.layers={told}'",))


def test_the_student_owns_its_weights(teacher):
    student = built(teacher, num_hidden_layers=4)
    before = {name: array.copy() for name, array in teacher.parameters.items()}
    for array in student.parameters.values():
        array += 1.0
    for name, array in teacher.parameters.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (LABELS, True),
        (("positive", "negative"), False),  # the same classes in another order
        (("no", "yes"), False),
        (("a", "b", "c"), False),
        (None, False),
    ],
)
def test_a_head_is_kept_for_the_same_labels_only(teacher, labels, kept):
    student = built(teacher, labels=labels, num_hidden_layers=4)
    assert student.new == (() if kept else ("classifier.weight", "classifier.bias"))
    assert student.outputs == student.parameters["classifier.weight"].shape[0] == (1 if labels is None else len(labels))
    if kept:
        np.testing.assert_array_equal(student.parameters["classifier.weight"], teacher.parameters["classifier.weight"])
    else:
        drawn = student.parameters["classifier.weight"]
        assert 0 < np.abs(drawn).max() <= 0.04  # drawn anew at a deviation of 0.02, cut at two
        assert not student.parameters["classifier.bias"].any()
    np.testing.assert_array_equal(student.parameters["bert.pooler.dense.weight"], teacher.parameters["bert.pooler.dense.weight"])


def test_a_model_folder_can_be_the_start(tmp_path, teacher):
    source = tiny.write_model(tmp_path / "other", tiny.CONFIG, LABELS, seed=8)
    student = built(teacher, {"from": str(tmp_path / "other"), "layers": [1]}, num_hidden_layers=1)
    taken = source.parameters["bert.encoder.layer.1.output.dense.weight"]
    np.testing.assert_array_equal(student.parameters["bert.encoder.layer.0.output.dense.weight"], taken)
    with pytest.raises(CheckpointError, match="student.init.from: .*nowhere: no such model folder"):
        build(teacher, {"from": str(tmp_path / "nowhere")})


def test_a_student_from_nothing_has_its_tokenizers_words(teacher):
    def words(architecture, like, **more):
        section = StudentSection(architecture=architecture, init={"from": "random"}, **more)
        student, problems = build_student(section, like, 2, ("no", "yes"), 1, vocabulary=77)
        assert problems == []
        assert student.parameters["bert.embeddings.word_embeddings.weight"].shape[0] == student.config.vocab_size
        return student.config.vocab_size

    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    assert words(small, None, tokenizer="folder") == words(small, teacher, tokenizer="folder") == 77
    assert words(small | {"vocab_size": 80}, None, tokenizer="folder") == 80
    assert words(small, teacher) == teacher.config.vocab_size  # with the teacher's tokenizer, its padded table


def test_a_random_student_has_the_size_that_is_asked_for():
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "num_hidden_layers": 1}
    student = built(None, {"from": "random"}, **sizes)
    shapes = {name: array.shape for name, array in student.parameters.items()}
    assert shapes == tensor_shapes(student.config, 2)
    assert set(student.new) == set(shapes)
    assert shapes["bert.encoder.layer.0.intermediate.dense.weight"] == (40, 24)
    again, other = built(None, {"from": "random"}, **sizes), built(None, {"from": "random"}, seed=4, **sizes)
    for name, array in student.parameters.items():
        np.testing.assert_array_equal(array, again.parameters[name])
    assert not np.array_equal(student.parameters["classifier.weight"], other.parameters["classifier.weight"])


@pytest.mark.parametrize(
    ("init", "architecture", "expected"),
    [
        ({"from": "teacher"}, {"num_hidden_layers": 2}, ["student.init.layers: missing"]),
        ({"from": "teacher", "layers": [0, 4]}, {"num_hidden_layers": 2}, ["layer 4 does not exist"]),
        ({"from": "teacher", "layers": [0, -1]}, {"num_hidden_layers": 2}, ["layer -1 does not exist"]),
        ({"from": "teacher", "layers": [0, 1, 2]}, {"num_hidden_layers": 2}, ["3 layers for a student with"]),
        ({"from": "teacher", "layers": [9]}, {"num_hidden_layers": 2}, ["layer 9 does not exist", "1 layers for a student"]),
        ({"from": "teacher"}, {"hidden_size": 16, "vocab_size": 9}, ["vocab_size: 9", "hidden_size: 16"]),
        ({"from": "teacher"}, {"hidden_sise": 16}, ["student.architecture.hidden_sise: unknown key; did you mean 'hidden_size'"]),
        ({"from": "random"}, {"hidden_size": 30}, ["hidden_size 30 is not a multiple of num_attention_heads 4"]),
    ],
)
def test_what_is_impossible_is_reported_with_its_key(teacher, init, architecture, expected):
    student, problems = build(teacher, init, **architecture)
    assert student is None
    assert len(problems) == len(expected), problems
    for problem, part in zip(problems, expected):
        assert problem.startswith("student.") and part in problem


def test_a_tensor_depends_on_its_name_and_the_seed_only():
    shallow, deep = (tensor_shapes(tiny.CONFIG.model_copy(update={"num_hidden_layers": n}), 2) for n in (1, 3))
    for name, shape in shallow.items():
        np.testing.assert_array_equal(initial_tensor(name, shape, 0.02, 5), initial_tensor(name, deep[name], 0.02, 5))
    weights = {name: initial_tensor(name, shape, 0.02, 5) for name, shape in deep.items() if len(shape) == 2}
    firsts = [float(array.flat[0]) for array in weights.values()]
    assert len(set(firsts)) == len(firsts)  # no two tensors share a stream
    name, shape = next(iter(deep.items()))
    assert not np.array_equal(initial_tensor(name, shape, 0.02, 5), initial_tensor(name, shape, 0.02, 6))


# initial_tensor("classifier.weight", (2, 3), 0.02, seed=42). A seed means these weights on every machine and for good:
# results are reproduced from a recipe alone.
FOR_GOOD = [0.0137134120, -0.0117608672, 0.0276825428, 0.0103143873, 0.0025683916, -0.0132998060]


def test_the_values_never_change():
    values = initial_tensor("classifier.weight", (2, 3), 0.02, 42)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.flatten(), FOR_GOOD, rtol=1e-6)


def test_the_distribution_is_a_normal_cut_at_two_deviations():
    values = initial_tensor("bert.embeddings.word_embeddings.weight", (500, 200), 0.02, 1).astype(np.float64)
    assert np.abs(values).max() <= 0.04
    # Deviation of a standard normal cut at +-2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) = 0.87963. 100,000 draws.
    assert values.std() == pytest.approx(0.02 * 0.87963, rel=0.01)
    assert abs(values.mean()) < 5 * 0.02 / np.sqrt(values.size)
    # Cut, not clipped: nothing piles up at the limits.
    beyond = (norm.sf(1.5) - norm.sf(2)) / (0.5 - norm.sf(2))
    assert (np.abs(values) > 0.03).mean() == pytest.approx(beyond, rel=0.05)
    assert not initial_tensor("a.dense.bias", (9,), 0.02, 1).any()
    assert (tiny.CONFIG.new_tensor("bert.embeddings.LayerNorm.weight", (9,), 1) == 1).all()
    assert not tiny.CONFIG.new_tensor("bert.embeddings.LayerNorm.bias", (9,), 1).any()

"""Label smoothing and class weights of `hard_label`: against NumPy float64 and torch's own losses, cut into micro-batches, and
what cannot work."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, log_softmax

from crossdistil.core.kinds.known_kinds import SEVERAL_LABELS, kind_of_model
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.hard_label import HardLabel
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.recipe import load_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.loss_cases import REAL, VALUE, Case, check, results

LABELS, COUNTS = ("bad", "fair", "good"), (6, 1, 3)
BALANCED = [10 / 18, 10 / 3, 10 / 9]
"""scikit-learn's compute_class_weight("balanced") of those counts."""
RARE = [4 / 6, 9 / 1, 7 / 3]
"""Examples without a label / with it."""


def context(outputs=3, multi_label=False, counts=COUNTS):
    kind = SEVERAL_LABELS if multi_label else kind_of_model(outputs)
    return TermContext(outputs, kind, tiny.CONFIG, {}, LABELS[:outputs], counts, sum(COUNTS))


def labelled(batch):
    return [row for row in range(REAL) if batch["label_mask"][row]]


def classes(weights=(1, 1, 1), smoothing=0.0):
    """sum_rows -sum_c w_c ((1 - e) [c = y] + e / C) log p_c, over sum_rows w_y."""
    w = np.asarray(weights)

    def formula(student, teacher, params, batch, start):
        total = below = 0.0
        for row in labelled(batch):
            y, log_p = int(batch["labels"][row]), log_softmax(student["logits"][row])
            total += (1 - smoothing) * -w[y] * log_p[y] + smoothing / len(w) * -(w * log_p).sum()
            below += w[y]
        return total / below

    return formula


def several(weights=(1, 1, 1), smoothing=0.0):
    def formula(student, teacher, params, batch, start):
        values = []
        for row in labelled(batch):
            z, t = student["logits"][row], batch["labels"][row] * (1 - smoothing) + smoothing / 2
            values.append(np.mean(-(weights * t * np.log(expit(z)) + (1 - t) * np.log(expit(-z)))))
        return np.mean(values)

    return formula


def case(formula, multi_label=False, seed=0, **options):
    return Case({"loss": "hard_label", **options}, context(3, multi_label), formula, seed=seed)


NAMED = {"good": 2.5, "bad": 0.5, "fair": 1}
CASES = {
    "smoothing": case(classes(smoothing=0.1), label_smoothing=0.1),
    "weights": case(classes([0.5, 1, 2.5]), class_weights=[0.5, 1, 2.5], seed=1),
    "named weights, smoothing": case(classes([0.5, 1, 2.5], 0.2), class_weights=NAMED, label_smoothing=0.2, seed=2),
    "balanced": case(classes(BALANCED), class_weights="balanced", seed=3),
    "several labels, smoothing": case(several(smoothing=0.2), True, label_smoothing=0.2),
    "several labels, balanced, smoothing": case(several(RARE, 0.1), True, class_weights="balanced", label_smoothing=0.1),
}


@pytest.fixture(scope="module")
def found(engine):
    return results(engine, CASES)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(found, name):
    check(CASES[name], found[name])


@pytest.mark.only_backend("torch")
def test_they_are_torch_s(found):
    import torch

    def expected(name, loss):
        student, _, _, batch = CASES[name].inputs
        rows, y = labelled(batch), batch["labels"]
        y = torch.from_numpy(y[rows]) if y.ndim == 2 else torch.from_numpy(y[rows]).long()
        return float(loss(torch.from_numpy(student["logits"][rows]), y))

    cross_entropy, binary = torch.nn.CrossEntropyLoss, torch.nn.BCEWithLogitsLoss
    for name, loss in {
        "smoothing": cross_entropy(label_smoothing=0.1),
        "weights": cross_entropy(weight=torch.tensor([0.5, 1, 2.5])),
        "named weights, smoothing": cross_entropy(weight=torch.tensor([0.5, 1, 2.5]), label_smoothing=0.2),
        "balanced": cross_entropy(weight=torch.tensor(BALANCED)),
        "several labels, smoothing": lambda z, y: binary()(z, y * 0.8 + 0.1),
        "several labels, balanced, smoothing": lambda z, y: binary(pos_weight=torch.tensor(RARE))(z, y * 0.9 + 0.05),
    }.items():
        assert found[name][0] == pytest.approx(expected(name, loss), rel=VALUE), name


def test_the_balanced_weights_are_scikit_learn_s():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(3), COUNTS)
    np.testing.assert_allclose(compute_class_weight("balanced", classes=np.arange(3), y=labels), BALANCED)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_micro_batches_of_several_processes_make_the_mean_of_the_whole(parts):
    """Weights enter what the sums are divided by, over all micro-batches: torch's weighted mean over all eight rows."""
    import torch

    generator = np.random.default_rng(parts)
    z, y = generator.normal(0, 2, (8, 3)), generator.integers(0, 3, 8).astype(np.int32)
    term = HardLabel(loss="hard_label", class_weights=[0.5, 1, 2.5], label_smoothing=0.2)
    objective = Objective([term], context(), Teachers({}))
    whole = {"labels": y, "label_mask": np.ones(8, np.float32), "example_mask": np.ones(8, np.float32)}
    rows = [range(8)[part::parts] for part in range(parts)]
    cut = objective.prepare([{name: array[list(own)] for name, array in whole.items()} for own in rows])
    function = term.bound(objective.context, "stage.term")
    value = sum(
        function(ReferenceOps(), {}, {"logits": z[list(own)]}, {}, batch) / batch["denominators"][0]
        for own, batch in zip(rows, cut)
    )
    expected = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1, 2.5]).double(), label_smoothing=0.2)
    assert value == pytest.approx(float(expected(torch.from_numpy(z), torch.from_numpy(y).long())), rel=1e-6)


REFUSED = [
    ({"class_weights": [1, 2]}, {}, "class_weights", r"got 2 weights, expected 3, one for each class \('bad', 'fair', 'good'\)"),
    ({"class_weights": {"bad": 1, "god": 2}}, {}, "class_weights", "unknown: 'god'; missing: 'fair', 'good'"),
    ({"class_weights": "balanced"}, {"counts": (1, 0, 9)}, "class_weights", "no training example has 'fair': give the weights"),
    ({"label_smoothing": 0.1}, {"outputs": 1}, "label_smoothing", "is for classes, but the task is a regression"),
    ({"class_weights": "balanced"}, {"outputs": 1}, "class_weights", "is for classes, but the task is a regression"),
]


@pytest.mark.parametrize(("options", "where", "key", "message"), REFUSED)
def test_what_cannot_work_is_told(options, where, key, message):
    [(found_key, found)] = HardLabel(loss="hard_label", **options).problems(context(**where))
    assert found_key == key and re.search(message, found), found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("even", "got 'even', expected balanced, a list"),
        ([1, 0, 1], "weight 1: got 0, expected a number above 0"),
        ({"bad": True}, "'bad': got True, expected a number above 0"),
        ([], "expected balanced, a list"),
        ([1, float("nan")], "expected a number above 0"),
    ],
)
def test_what_is_no_weight_is_told(value, message):
    with pytest.raises(ValidationError, match=message):
        HardLabel(loss="hard_label", class_weights=value)


def test_recipes_without_them_have_the_digest_they_had():
    plain = load_recipe("finetune")
    same = load_recipe("finetune", ["stages.0.objective.0.label_smoothing=0", "stages.0.objective.0.class_weights=null"])
    other = load_recipe("finetune", ["stages.0.objective.0.class_weights={0: 1, 1: 3}"])
    assert plain.digest() == same.digest() != other.digest()
    assert other.stages[0].objective[0].class_weights == {"0": 1.0, "1": 3.0}
    assert load_recipe("finetune", ["stages.0.objective.0.class_weights=balanced"]).digest() != other.digest()

"""Each loss against its formula, written here once more in NumPy float64, and its gradient against finite differences of
that formula. Fill rows hold numbers that would be noticed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from crossdistil.core.losses.base import UNITS, TermContext
from crossdistil.core.losses.logits import LOSSES
from crossdistil.core.models.bert import make_forward
from crossdistil.core.models.spec import BertConfig
from crossdistil.core.objective import Objective
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

VALUE, GRADIENT = 1e-6, 1e-4
REAL, ROWS = 5, 7  # two fill rows


def log_softmax(x):
    return x - logsumexp(x, axis=1, keepdims=True)


def hard_label(z, t, y):
    return np.mean([-log_softmax(z)[row, y[row]] for row in range(len(z))])


def squared_error(z, t, y):
    return np.mean((z[:, 0] - y) ** 2)


def kd_ce(temperature, squared=True, classes_too=False):
    def formula(z, t, y):
        soft = np.exp(log_softmax(t / temperature))
        cross_entropy = -(soft * log_softmax(z / temperature)).sum(axis=1)
        value = cross_entropy.mean() * (temperature**2 if squared else 1.0)
        return value / z.shape[1] if classes_too else value

    return formula


def kd_mse(temperature):
    def formula(z, t, y):
        return np.mean(((z - t) / temperature) ** 2)

    return formula


# Options of the term, number of logits (1: regression), formula.
CASES = {
    "hard_label, 2 classes": ({"loss": "hard_label"}, 2, hard_label),
    "hard_label, 3 classes": ({"loss": "hard_label"}, 3, hard_label),
    "hard_label, regression": ({"loss": "hard_label"}, 1, squared_error),
    "kd_ce": ({"loss": "kd_ce"}, 2, kd_ce(1)),
    "kd_ce, T 4": ({"loss": "kd_ce", "temperature": 4}, 3, kd_ce(4)),
    "kd_ce, T 4, no T^2": ({"loss": "kd_ce", "temperature": 4, "temperature_squared": False}, 3, kd_ce(4, squared=False)),
    "kd_ce, T 4, mean": ({"loss": "kd_ce", "temperature": 4, "reduction": "mean"}, 3, kd_ce(4, classes_too=True)),
    "kd_ce, no T^2, mean": (
        {"loss": "kd_ce", "temperature": 4, "temperature_squared": False, "reduction": "mean"},
        3,
        kd_ce(4, squared=False, classes_too=True),
    ),
    "kd_mse": ({"loss": "kd_mse"}, 3, kd_mse(1)),
    "kd_mse, T 4": ({"loss": "kd_mse", "temperature": 4}, 2, kd_mse(4)),
    "kd_mse, regression": ({"loss": "kd_mse"}, 1, kd_mse(1)),
}
every_case = pytest.mark.parametrize(("options", "outputs", "formula"), CASES.values(), ids=list(CASES))


def inputs(outputs):
    generator = np.random.default_rng(outputs)
    student, teacher = generator.normal(0, 2, (2, ROWS, outputs)).astype(np.float32)
    student[REAL:] += 50.0
    labels = generator.normal(2, 1, ROWS) if outputs == 1 else generator.integers(0, outputs, ROWS)
    return student, teacher, labels.astype(np.float32 if outputs == 1 else np.int32)


def term_of(options, outputs):
    context = TermContext(outputs=outputs, regression=outputs == 1)
    term = LOSSES[options["loss"]](**options)
    assert term.problems(context) == []
    return term, term.function(context)


@pytest.fixture
def evaluated(engine):
    """Value and gradient by the student's logits of a term, on the backend."""

    def evaluate(options, outputs):
        student, teacher, labels = inputs(outputs)
        term, function = term_of(options, outputs)

        def objective(ops, parameters, frozen, batch):
            total = function(ops, parameters, frozen, batch) / batch["units"][0]
            return total, ops.stack([total])

        mask = (np.arange(ROWS) < REAL).astype(np.float32)
        batch = {"labels": labels, "example_mask": mask}
        batch["units"] = np.array([UNITS[term.unit](batch)], np.float32)
        values, gradients = engine.gradients(objective, {"logits": student}, {"logits": teacher}, batch)
        return float(values[0]), gradients["logits"]

    return evaluate


@every_case
def test_value_and_gradient(evaluated, options, outputs, formula):
    student, teacher, labels = (array[:REAL].astype(np.float64) for array in inputs(outputs))
    labels = labels if outputs == 1 else labels.astype(int)
    value, gradient = evaluated(options, outputs)
    assert value == pytest.approx(formula(student, teacher, labels), rel=VALUE)
    assert not gradient[REAL:].any()
    for place in np.ndindex(student.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = student.copy()
            moved[place] += step
            ends.append(formula(moved, teacher, labels))
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=GRADIENT, abs=GRADIENT)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_ce_is_the_divergence_plus_the_teacher_s_entropy(evaluated, temperature):
    import torch
    import torch.nn.functional as F

    student, teacher, _ = (torch.from_numpy(array[:REAL]).double() for array in inputs(3))
    log_student, log_teacher = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    entropy = torch.distributions.Categorical(logits=log_teacher).entropy().mean()
    value, _ = evaluated({"loss": "kd_ce", "temperature": temperature, "temperature_squared": False}, 3)
    assert value == pytest.approx(float(divergence + entropy), rel=VALUE)


@pytest.mark.only_backend("torch")
def test_hard_label_is_torch_s_cross_entropy_and_squared_error(evaluated):
    import torch
    import torch.nn.functional as F

    student, _, labels = (torch.from_numpy(array[:REAL]) for array in inputs(3))
    assert evaluated({"loss": "hard_label"}, 3)[0] == pytest.approx(float(F.cross_entropy(student, labels.long())), rel=VALUE)
    student, _, labels = (torch.from_numpy(array[:REAL]) for array in inputs(1))
    assert evaluated({"loss": "hard_label"}, 1)[0] == pytest.approx(float(F.mse_loss(student[:, 0], labels)), rel=VALUE)


def test_soft_targets_of_a_regression_are_refused():
    term = LOSSES["kd_ce"](loss="kd_ce")
    assert term.problems(TermContext(outputs=1, regression=True))


def test_an_objective_weighs_its_terms_and_counts_the_units_of_all_micro_batches():
    teacher_config = BertConfig(**{**tiny.CONFIG.model_dump(), "num_hidden_layers": 1})
    terms = [
        LOSSES["kd_ce"](loss="kd_ce", temperature=2, weight=0.25),
        LOSSES["hard_label"](loss="hard_label", weight=3),
        LOSSES["kd_ce"](loss="kd_ce", weight=0),
    ]
    objective = Objective(terms, TermContext(2, False), tiny.STILL, teacher_config)
    assert objective.names == ["kd_ce", "hard_label", "kd_ce_2"]
    student, teacher = tiny.random_parameters(), tiny.random_parameters(teacher_config, seed=1)
    micro_batches = [tiny.random_batch(4, 8, fill=0), tiny.random_batch(4, 12, fill=3, seed=1)]
    prepared = objective.prepare(micro_batches)
    assert [batch["denominators"].tolist() for batch in prepared] == [[5.0] * 3] * 2
    assert "denominators" not in micro_batches[0]
    results = [objective.function(ReferenceOps(), student, teacher, batch) for batch in prepared]
    total, values = sum(result[0] for result in results), sum(result[1] for result in results)

    def logits(config, parameters):
        forward = make_forward(config)
        real = [batch["example_mask"] > 0 for batch in micro_batches]
        outputs = [forward(ReferenceOps(), parameters, batch)["logits"] for batch in micro_batches]
        return np.concatenate([rows[mask] for rows, mask in zip(outputs, real)])

    z, t = logits(tiny.STILL, student), logits(teacher_config.without_dropout(), teacher)
    y = np.concatenate([batch["labels"][batch["example_mask"] > 0] for batch in micro_batches])
    expected = [kd_ce(2)(z, t, y), hard_label(z, t, y), kd_ce(1)(z, t, y)]
    np.testing.assert_allclose(values[1:], expected, rtol=1e-9)
    assert total == pytest.approx(0.25 * expected[0] + 3 * expected[1]) == values[0]

"""Each loss on the logits against its formula, written here once more in NumPy float64, and its gradient against finite
differences of that formula. Then what an objective makes of its terms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from crossdistil.core.kinds.known_kinds import ONE_CLASS, SEVERAL_LABELS, kind_of_model
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.loss_cases import REAL, VALUE, Case, check, results

TEACHERS = {"first": tiny.CONFIG, "second": tiny.CONFIG}


def context(outputs, multi_label=False):
    return TermContext(outputs, SEVERAL_LABELS if multi_label else kind_of_model(outputs), tiny.CONFIG, TEACHERS)


def log_softmax(x):
    return x - logsumexp(x)


def labelled(batch):
    return [row for row in range(REAL) if batch["label_mask"][row]]


def hard_label(student, teacher, params, batch, start):
    z, y = student["logits"], batch["labels"]
    return np.mean([-log_softmax(z[row])[int(y[row])] for row in labelled(batch)])


def squared_error(student, teacher, params, batch, start):
    return np.mean([(student["logits"][row, 0] - batch["labels"][row]) ** 2 for row in labelled(batch)])


def binary_cross_entropies(z, p):
    return -(p * np.log(expit(z)) + (1 - p) * np.log(expit(-z)))


def hard_multi_label(student, teacher, params, batch, start):
    rows = labelled(batch)
    return np.mean([binary_cross_entropies(student["logits"][row], batch["labels"][row]).mean() for row in rows])


def temperatures(schedule, temperature, start, teacher_logits):
    """The temperature of each real example; TextBrewer's code in NumPy."""
    if schedule is None:
        return [temperature] * REAL
    weights = []
    for v, t in zip(start["logits"][:REAL], teacher_logits):
        if schedule["kind"] == "flsw":
            v, t = v / (np.linalg.norm(v) + 1e-4), t / (np.linalg.norm(t) + 1e-4)
            weights.append((1 - v @ t) ** schedule["gamma"])
        else:
            weights.append(1 / (np.exp(log_softmax(v)).max() + 1e-3))
    return [temperature + (np.mean(weights) - w) * schedule["beta"] for w in weights]


def taught(teacher, batch, key, shift):
    """The teacher's logits of the real examples, its mistakes corrected if `shift`."""
    logits = [row.copy() for row in teacher[key][:REAL]]
    for row in labelled(batch) if shift else []:
        best, true = int(np.argmax(logits[row])), int(batch["labels"][row])
        logits[row][best], logits[row][true] = logits[row][true], logits[row][best]
    return logits


def kd(compare, temperature=1.0, squared=False, schedule=None, shift=False, key="logits"):
    def formula(student, teacher, params, batch, start):
        t = taught(teacher, batch, key, shift)
        total = 0.0
        for row, tau in enumerate(temperatures(schedule, temperature, start, t)):
            total += compare(student["logits"][row] / tau, t[row] / tau) * (tau**2 if squared else 1.0)
        return total / REAL

    return formula


def soft(z, t):
    return -np.sum(np.exp(log_softmax(t)) * log_softmax(z))


def soft_mean(z, t):
    return soft(z, t) / len(z)


def squared(z, t):
    return np.mean((z - t) ** 2)


def soft_multi_label(z, t):
    return binary_cross_entropies(z, expit(t)).mean()


FLSW = {"kind": "flsw", "beta": 0.7, "gamma": 2}
FLSW_FRACTION = {"kind": "flsw", "beta": 1, "gamma": 1.5}
CWSM = {"kind": "cwsm", "beta": 0.8}


def kd_ce(outputs, formula, **options):
    return Case({"loss": "kd_ce", **options}, context(outputs), formula, seed=outputs)


def kd_mse(outputs, formula, **options):
    return Case({"loss": "kd_mse", **options}, context(outputs), formula, seed=outputs)


def kd_multi_label(formula, **options):
    return Case({"loss": "kd_multi_label", **options}, context(3, True), formula)


def no_label_number(student, teacher, batch):
    batch["labels"][1] = -100


CASES = {
    "hard_label, 2 classes": Case({"loss": "hard_label"}, context(2), hard_label),
    "hard_label, 3 classes": Case({"loss": "hard_label"}, context(3), hard_label),
    "hard_label, regression": Case({"loss": "hard_label"}, context(1), squared_error),
    "hard_label, multi-label": Case({"loss": "hard_label"}, context(3, True), hard_multi_label),
    "kd_ce": kd_ce(2, kd(soft)),
    "kd_ce, 3 classes, T 4": kd_ce(3, kd(soft, 4, squared=True), temperature=4),
    "kd_ce, no T^2": kd_ce(3, kd(soft, 4), temperature=4, temperature_squared=False),
    "kd_ce, mean": kd_ce(3, kd(soft_mean, 4, squared=True), temperature=4, reduction="mean"),
    "kd_ce, mean, 2 classes": kd_ce(2, kd(soft_mean, 4), temperature=4, reduction="mean", temperature_squared=False),
    "kd_ce, one teacher": kd_ce(3, kd(soft, key="second/logits"), teacher="second"),
    "kd_ce, shift": kd_ce(3, kd(soft, shift=True), probability_shift=True),
    "kd_ce, shift, 2 classes": kd_ce(2, kd(soft, 2, shift=True, squared=True), probability_shift=True, temperature=2),
    "kd_ce, flsw": kd_ce(3, kd(soft, 8, schedule=FLSW), temperature=8, temperature_schedule=FLSW, temperature_squared=False),
    "kd_ce, flsw, T^2": kd_ce(3, kd(soft, 8, True, FLSW_FRACTION), temperature=8, temperature_schedule=FLSW_FRACTION),
    "kd_ce, flsw, 2 classes": kd_ce(
        2, kd(soft, 8, schedule=FLSW), temperature=8, temperature_schedule=FLSW, temperature_squared=False
    ),
    "kd_ce, cwsm": kd_ce(3, kd(soft, 8, schedule=CWSM), temperature=8, temperature_schedule=CWSM, temperature_squared=False),
    "kd_ce, cwsm, mean, shift": kd_ce(
        2,
        kd(soft_mean, 4, True, CWSM, shift=True),
        temperature=4,
        temperature_schedule=CWSM,
        reduction="mean",
        probability_shift=True,
    ),
    "kd_mse": kd_mse(3, kd(squared)),
    "kd_mse, T 4": kd_mse(2, kd(squared, 4), temperature=4),
    "kd_mse, regression": kd_mse(1, kd(squared)),
    "kd_mse, one teacher": kd_mse(3, kd(squared, 2, key="first/logits"), temperature=2, teacher="first"),
    "kd_mse, flsw, shift": kd_mse(
        3, kd(squared, 6, schedule=FLSW, shift=True), temperature=6, temperature_schedule=FLSW, probability_shift=True
    ),
    "kd_mse, cwsm": kd_mse(2, kd(squared, 4, schedule=CWSM), temperature=4, temperature_schedule=CWSM),
    "kd_multi_label": kd_multi_label(kd(soft_multi_label)),
    "kd_multi_label, T 3": kd_multi_label(kd(soft_multi_label, 3, squared=True), temperature=3),
    "kd_multi_label, no T^2": kd_multi_label(
        kd(soft_multi_label, 3, key="second/logits"), temperature=3, temperature_squared=False, teacher="second"
    ),
}


@pytest.fixture(scope="module")
def found(engine):
    return results(engine, CASES)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(found, name):
    check(CASES[name], found[name])


def test_extreme_logits_and_rows_without_a_label_number_are_finite(engine):
    def extreme(student, teacher, batch):
        student["logits"][:REAL] = [[1e4, -1e4, 0]] * REAL
        student["logits"][REAL:] = 0
        for logits in teacher.values():
            logits[:] = [-1e4, 1e4, 1e4]

    def formula(student, teacher, params, batch, start):
        return np.nan

    cases = {
        "several labels": Case({"loss": "kd_multi_label"}, context(3, True), formula, extreme),
        "labels": Case({"loss": "hard_label"}, context(3, True), formula, extreme),
        "shift": Case({"loss": "kd_ce", "probability_shift": True}, context(3), formula, no_label_number),
        "flsw": Case({"loss": "kd_ce", "temperature": 8, "temperature_schedule": FLSW_FRACTION}, context(3), formula, extreme),
    }
    for name, (value, gradients) in results(engine, cases).items():
        assert np.isfinite(value), name
        assert all(np.isfinite(gradient).all() for gradient in gradients.values()), name
    shifted = Case({"loss": "kd_ce", "probability_shift": True}, context(3), kd(soft, shift=True), no_label_number)
    assert results(engine, {"shift": shifted})["shift"][0] == pytest.approx(shifted.value(), rel=VALUE)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_ce_is_the_divergence_plus_the_teacher_s_entropy(engine, temperature):
    import torch
    import torch.nn.functional as F

    case = kd_ce(3, None, temperature=temperature, temperature_squared=False)
    student, teacher = (torch.from_numpy(part["logits"][:REAL]).double() for part in case.inputs[:2])
    log_student, log_teacher = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    entropy = torch.distributions.Categorical(logits=log_teacher).entropy().mean()
    assert results(engine, {"": case})[""][0] == pytest.approx(float(divergence + entropy), rel=VALUE)


@pytest.mark.only_backend("torch")
def test_hard_label_is_torch_s(found):
    import torch
    import torch.nn.functional as F

    losses = {
        "hard_label, 3 classes": lambda z, y: F.cross_entropy(z, y.long()),
        "hard_label, regression": lambda z, y: F.mse_loss(z[:, 0], y),
        "hard_label, multi-label": F.binary_cross_entropy_with_logits,
    }
    for name, loss in losses.items():
        student, _, _, batch = CASES[name].inputs
        rows = labelled(batch)
        expected = loss(torch.from_numpy(student["logits"][rows]), torch.from_numpy(batch["labels"][rows]))
        assert found[name][0] == pytest.approx(float(expected), rel=VALUE)


def test_an_objective_weighs_its_terms_and_counts_the_units_of_all_micro_batches():
    teacher_config = BertConfig(**{**tiny.CONFIG.model_dump(), "num_hidden_layers": 1})
    terms = [
        LOSSES["kd_ce"](loss="kd_ce", temperature=2, weight=0.25),
        LOSSES["hard_label"](loss="hard_label", weight=3),
        LOSSES["kd_ce"](loss="kd_ce", weight=0),
    ]
    job = TermContext(2, ONE_CLASS, tiny.STILL, {"teacher": teacher_config})
    objective = Objective(terms, job, Teachers({"teacher": 1.0}))
    assert objective.names == ["kd_ce", "hard_label", "kd_ce_2"]
    student, teacher = tiny.random_parameters(), tiny.random_parameters(teacher_config, seed=1)
    micro_batches = [tiny.random_batch(4, 8, fill=0), tiny.random_batch(4, 12, fill=3, seed=1)]
    for batch in micro_batches:
        batch["label_mask"] = np.array([1, 0, 1, 1], np.float32)
    prepared = objective.prepare(micro_batches)
    assert [batch["denominators"].tolist() for batch in prepared] == [[5.0, 4.0, 5.0, 5.0, 5.0]] * 2
    assert "denominators" not in micro_batches[0]
    frozen = {f"teacher/{name}": tensor for name, tensor in teacher.items()}
    results = [objective.function(ReferenceOps(), student, frozen, batch) for batch in prepared]
    total, values = sum(result[0] for result in results), sum(result[1] for result in results)

    def logits(config, parameters):
        forward = make_forward(config)
        real = [batch["example_mask"] > 0 for batch in micro_batches]
        outputs = [forward(ReferenceOps(), parameters, batch)["logits"] for batch in micro_batches]
        return np.concatenate([rows[mask] for rows, mask in zip(outputs, real)])

    z, t = logits(tiny.STILL, student), logits(teacher_config.without_dropout(), teacher)
    y = np.concatenate([batch["labels"][batch["example_mask"] > 0] for batch in micro_batches])
    expected = [
        np.mean([soft(z_row / 2, t_row / 2) * 4 for z_row, t_row in zip(z, t)]),
        np.mean([-log_softmax(z[row])[y[row]] for row in (0, 2, 3, 4)]),
        np.mean([soft(z_row, t_row) for z_row, t_row in zip(z, t)]),
    ]
    np.testing.assert_allclose(values[1:4], expected, rtol=1e-9)
    entropies = [np.mean([soft(row / heat, row / heat) * heat**2 for row in t]) for heat in (2, 1)]
    np.testing.assert_allclose(values[4:], entropies, rtol=1e-9)
    assert total == pytest.approx(0.25 * expected[0] + 3 * expected[1]) == values[0]

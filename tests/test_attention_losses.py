"""Each loss on attention against its formula, written here once more in NumPy float64, and its gradient by the student's
outputs against finite differences. The `official` case is TinyBERT's published code, padding and all."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from crossdistil.tests.loss_cases import LENGTHS, REAL, STUDENT_SIZE, Case, against, check, over, results

LENGTH = max(LENGTHS)


def attention_mse(s, t, batch):
    blocks = [(s[row, :, :n, :n] - t[row, :, :n, :n]).ravel() for row, n in enumerate(LENGTHS[:REAL])]
    return np.mean(np.concatenate(blocks) ** 2)


def attention_mse_sum(s, t, batch):
    blocks = [(s[row].sum(0) - t[row].sum(0))[:n, :n].ravel() for row, n in enumerate(LENGTHS[:REAL])]
    return np.mean(np.concatenate(blocks) ** 2)


def clamped(scores):
    return np.where(scores <= -1e2, 0.0, scores)


def clamped_mse(s, t, batch):
    return attention_mse(clamped(s), clamped(t), batch)


def padded_mse(clamp):
    """TinyBERT's code: -10000 is added to the scores of padding, what is -100 or less becomes 0, and the mean is over all
    pairs of places."""

    def formula(s, t, batch):
        total = 0.0
        for row in range(REAL):
            for key in range(LENGTH):
                own, taught = s[row, :, :, key].copy(), t[row, :, :, key].copy()
                if clamp:
                    own, taught = (clamped(x - 10000 * (key >= LENGTHS[row])) for x in (own, taught))
                elif key >= LENGTHS[row]:
                    own, taught = own * 0, taught * 0
                total += np.sum((own - taught) ** 2)
        return total / (REAL * s.shape[1] * LENGTH * LENGTH)

    return formula


def rows_of(s, t):
    """(student scores, teacher scores) over the real keys, of every real query and head."""
    for row, n in enumerate(LENGTHS[:REAL]):
        for head in range(t.shape[1]):
            for query in range(n):
                yield s[row, head, query, :n], t[row, head, query, :n]


def attention_ce(s, t, batch):
    return np.mean([-np.sum(softmax(own_t) * log_softmax(own_s)) for own_s, own_t in rows_of(s, t)])


def attention_ce_mean(s, t, batch):
    return attention_ce(s.mean(1, keepdims=True), t.mean(1, keepdims=True), batch)


def attention_kl(s, t, batch):
    return np.mean([np.sum(softmax(b) * (log_softmax(b) - log_softmax(a))) for a, b in rows_of(s, t)])


def relation(x):
    return np.einsum("bhid,bhjd->bhij", x, x) / np.sqrt(x.shape[3])


def value_relation(s, t, batch):
    return attention_kl(relation(s), relation(t), batch)


def self_relation(heads):
    def cut(x):
        joined = np.concatenate([x[:, head] for head in range(x.shape[1])], axis=-1)  # (B, L, H)
        return np.stack(np.split(joined, heads, axis=-1), axis=1)

    def formula(s, t, batch):
        return attention_kl(relation(cut(s)), relation(cut(t)), batch)

    return formula


def far_below(student, teacher, batch):
    """Some real scores that the code of TinyBERT takes for padding, on one side or both."""
    for scores in student.values():
        scores[0, 0, 1, 2] = -150
    for scores in teacher.values():
        scores[0, 0, 1, 2] = -120
        scores[2, 1, 0, 1] = -100


UNIFORM = ((2, 1), (4, 2))
WIDER = (2, 8, 2)


def attention(formula, teacher="wide", edit=Case.edit, student=STUDENT_SIZE, **options):
    return Case(options, against(teacher, student=student), formula, edit)


def scores(one_pair, who="wide", pairs=UNIFORM, kind="scores"):
    return over(pairs, one_pair, who, kind=kind)


CASES = {
    "attention_mse": attention(scores(attention_mse), loss="attention_mse"),
    "attention_mse_sum": attention(scores(attention_mse_sum, "heads"), "heads", loss="attention_mse_sum"),
    "attention_ce": attention(scores(attention_ce), loss="attention_ce"),
    "attention_ce_mean": attention(scores(attention_ce_mean, "heads"), "heads", loss="attention_ce_mean"),
    "attention_score_mse": attention(scores(attention_mse), loss="attention_score_mse"),
    "attention_score_mse, clamp": attention(scores(clamped_mse), edit=far_below, loss="attention_score_mse", clamp=True),
    "attention_score_mse, no mask": attention(
        scores(padded_mse(False)), edit=far_below, loss="attention_score_mse", mask_padding=False
    ),
    "attention_score_mse, official": attention(
        scores(padded_mse(True)), edit=far_below, loss="attention_score_mse", mask_padding=False, clamp=True
    ),
    "attention_kl": attention(scores(attention_kl, pairs=((4, 2),)), loss="attention_kl", layers=[[4, 2]]),
    "attention_kl, mean": Case(
        {"loss": "attention_kl", "layer_reduction": "mean"},
        against("wide"),
        over(UNIFORM, attention_kl, mean=True, kind="scores"),
    ),
    "value_relation_kl": attention(scores(value_relation, kind="values"), loss="value_relation_kl"),
    "self_relation_kl, query": attention(
        scores(self_relation(4), "heads", ((4, 2),), "queries"),
        "heads",
        student=WIDER,
        loss="self_relation_kl",
        relation="query",
        relation_heads=4,
        layers=[[4, 2]],
    ),
    "self_relation_kl, key": attention(
        scores(self_relation(1), "heads", ((3, 2),), "keys"),
        "heads",
        student=WIDER,
        loss="self_relation_kl",
        relation="key",
        relation_heads=1,
        layers=[[3, 2]],
    ),
    "self_relation_kl, value": attention(
        scores(self_relation(2), kind="values"), student=WIDER, loss="self_relation_kl", relation="value"
    ),
}


@pytest.fixture(scope="module")
def found(engine):
    return results(engine, CASES)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(found, name):
    check(CASES[name], found[name])

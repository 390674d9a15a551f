"""Losses on the scores of layers that see only the tokens near by: what a token does not see takes no part, whatever the numbers
of heads are. NumPy's sums over the pairs that are seen are the referee."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import GPT2, MODERNBERT

LAYER, LENGTH, NEAR = 2, 14, MODERNBERT.local_attention // 2
FEW = MODERNBERT.model_copy(update={"num_attention_heads": 2})


@pytest.fixture(scope="module")
def batch():
    found = tiny.random_batch(rows=5, length=LENGTH, fill=0, seed=5)
    return found | {"example_mask": np.ones(5)}


def scores(config, batch, seed):
    parameters = tiny.random_parameters(config, seed=seed)
    forward = make_forward(config.without_dropout(), frozenset({f"scores/{LAYER}"}))
    return {f"scores/{LAYER}": forward(ReferenceOps(), parameters, batch)[f"scores/{LAYER}"].astype(np.float64)}


def over_seen(name, own, taught, mask, causal):
    """The sum over the queries of a text: (A, L, L) and (A', L, L) scores."""
    real = int(mask.sum())
    total = 0.0
    for query in range(real):
        keys = np.arange(query + 1) if causal else np.arange(max(0, query - NEAR), min(real, query + NEAR + 1))
        s, t = own[:, query, keys], taught[:, query, keys]
        if name == "attention_mse_sum":
            total += np.sum((s.sum(0) - t.sum(0)) ** 2)
        elif name in ("attention_mse", "attention_score_mse"):
            total += np.sum((s - t) ** 2) / len(t)
        elif name == "attention_ce_mean":
            total -= np.sum(softmax(t.mean(0)) * log_softmax(s.mean(0)))
        elif name == "attention_ce":
            total -= np.sum(softmax(t, 1) * log_softmax(s, 1)) / len(t)
        else:
            total += np.sum(softmax(t, 1) * (log_softmax(t, 1) - log_softmax(s, 1))) / len(t)
    return total


@pytest.mark.parametrize("student", [MODERNBERT, FEW, GPT2], ids=["heads alike", "other heads", "tokens before"])
@pytest.mark.parametrize(
    "name",
    ["attention_mse", "attention_mse_sum", "attention_score_mse", "attention_ce", "attention_ce_mean", "attention_kl"],
)
def test_what_is_not_seen_takes_no_part(name, student, batch):
    term = LOSSES[name](loss=name, layers=[(LAYER, LAYER)])
    teacher = GPT2 if student is GPT2 else MODERNBERT
    context = TermContext(2, ONE_CLASS, student, {"teacher": teacher})
    if student is FEW and term.needs_equal_heads:
        ((_, problem),) = term.problems(context)
        assert "the numbers of heads differ (student 2, teacher 4)" in problem
        return
    assert not term.problems(context)
    own, taught = scores(student, batch, 1), scores(teacher, batch, 2)
    given = {f"teacher/{key}": value for key, value in taught.items()}
    found = term.function(context, "t")(ReferenceOps(), {}, own, given, batch)
    [s], [t] = own.values(), taught.values()
    causal = student is GPT2
    expected = sum(over_seen(name, s[row], t[row], batch["attention_mask"][row], causal) for row in range(len(s)))
    assert found == pytest.approx(expected, rel=1e-9) and expected > 1


def test_layers_that_see_other_tokens_are_refused():
    for name in (name for name, term in LOSSES.items() if getattr(term, "kind", "") == "scores"):
        term = LOSSES[name](loss=name, layers=[(1, LAYER)])
        ((_, problem),) = term.problems(TermContext(2, ONE_CLASS, FEW, {"teacher": MODERNBERT}))
        assert f"layer 1 of the teacher sees all tokens, layer {LAYER} of the student {NEAR} tokens on each side" in problem
        ((_, problem),) = term.problems(TermContext(2, ONE_CLASS, tiny.CONFIG, {"teacher": GPT2}))
        assert "tokens of the teacher see only those before them, those of the student all" in problem

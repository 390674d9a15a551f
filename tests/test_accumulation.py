"""Cutting a batch into micro-batches changes the memory that is needed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.next_words import next_words
from crossdistil.core.data.tokenize import TokenTable
from crossdistil.core.engine import Step
from crossdistil.core.kinds.known_kinds import (
    MASKED_TEXT,
    NEXT_TEXT,
    ONE_CLASS,
    ONE_NUMBER,
    RANKING,
    SENTENCE_EMBEDDINGS,
    SEVERAL_LABELS,
)
from crossdistil.core.losses.base import STATISTICS, TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.gpt2 import Gpt2Config
from crossdistil.core.models.heads import head_shapes
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

BATCH, EXAMPLES, TOLERANCE = 8, 21, 1e-6
STUDENT = tiny.STILL.model_copy(update={"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24})
# An epsilon far above rounding: with a small one, Adam turns the sign of a gradient that is zero but for rounding (that of
# a key's bias) into a whole step.
SPEC = OptimizerSpec("adamw", epsilon=1e-2, weight_decay=0.1)

FLSW, CWSM = {"kind": "flsw", "beta": 1, "gamma": 2}, {"kind": "cwsm", "beta": 2}
SCHEDULED = [
    {"loss": "kd_ce", "temperature": 8, "temperature_schedule": FLSW, "weight": 0.5},
    {"loss": "kd_mse", "temperature": 8, "temperature_schedule": CWSM, "probability_shift": True},
]


def make_term(**options):
    return LOSSES[options["loss"]](**options)


def make_batches(
    accumulation: int,
    one_length: bool = False,
    labels: np.ndarray | None = None,
    lengths: tuple[int, ...] = (8, 16),
    members: int = 1,
) -> TrainBatches:
    generator = np.random.default_rng(4)
    tokens = generator.integers(3, 9, EXAMPLES * members)
    tokens[[3, 11]] = 15, 16
    ids = generator.integers(5, STUDENT.vocab_size, tokens.sum())
    offsets = np.concatenate([[0], np.cumsum(tokens)])
    firsts = generator.integers(1, tokens + 1).astype(np.int32)
    table = TokenTable(ids.astype(np.int32), offsets, firsts, members=members)
    labels = generator.integers(0, 2, EXAMPLES).astype(np.int32) if labels is None else labels
    return TrainBatches(table, labels, BATCH, accumulation, lengths, 5, None, one_length)


@pytest.fixture(scope="module")
def train(make_engine, backend_name):
    """Two epochs with this accumulation: the values of each step and the weights after them. MindSpore has one length, since each
    is compiled for ten seconds."""
    lengths = (16,) if backend_name == "mindspore" else (8, 16)
    terms = [make_term(loss="hard_label", weight=0.5), *(make_term(**options) for options in SCHEDULED)]
    objective = Objective(terms, TermContext(2, ONE_CLASS, STUDENT, {"teacher": STUDENT}), Teachers({"teacher": 1.0}))
    student = tiny.random_parameters(STUDENT, seed=1)
    frozen = {f"teacher/{name}": array for name, array in tiny.random_parameters(STUDENT, seed=2).items()}

    def run(accumulation, **options):
        batches = make_batches(accumulation, lengths=lengths)
        steps = [
            Step(objective.prepare(micro_batches), 1e-2, seed=0)
            for epoch in range(2)
            for micro_batches in batches.epoch(epoch)
        ]
        assert len(steps) == 6
        step = make_engine(**options).train_step(objective.function, student, frozen, SPEC, objective.statistics)
        return steps, step.run(iter(steps), len(steps)).fetch(), step.parameters()

    return run


@pytest.fixture(scope="module")
def whole(train, backend_name):
    """MindSpore's in sinks, which compute the statistics of each of their steps."""
    return train(1, **({"steps_per_call": 3} if backend_name == "mindspore" else {}))


@pytest.mark.parametrize(
    "accumulation",
    [pytest.param(2, marks=pytest.mark.only_backend("torch", "oneflow")), 4],  # MindSpore compiles half a minute for each
)
def test_accumulation_changes_nothing(train, whole, accumulation, backend_name):
    _, expected_values, expected = whole
    steps, values, parameters = train(accumulation)
    micro_batches = [micro for step in steps for micro in step.micro_batches]
    assert {len(step.micro_batches) for step in steps} == {accumulation}
    # The premises: some steps mix lengths, some micro-batches are incomplete and some have no example at all.
    mixed = any(len({micro["input_ids"].shape for micro in step.micro_batches}) > 1 for step in steps)
    assert mixed == (backend_name != "mindspore")
    real = [micro["example_mask"].sum() for micro in micro_batches]
    assert sum(real) == 2 * EXAMPLES and any(0 < count < BATCH / accumulation for count in real)
    np.testing.assert_allclose(values, expected_values, rtol=TOLERANCE)
    student = tiny.random_parameters(STUDENT, seed=1)
    for name, array in parameters.items():
        np.testing.assert_allclose(array, expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    moved = {name: np.abs(array - student[name]).max() for name, array in parameters.items()}
    assert moved["classifier.weight"] > 1e-2


def test_the_statistics_see_the_dropout_of_the_step(engine):
    """A micro-batch with nothing but padding rows adds nothing to what the other one has alone."""
    config = STUDENT.with_dropout(0.4)
    context = TermContext(2, ONE_CLASS, config, {"teacher": STUDENT})
    objective = Objective([make_term(**SCHEDULED[0])], context, Teachers({"teacher": 1.0}))
    student = tiny.random_parameters(STUDENT, seed=1)
    frozen = {f"teacher/{name}": array for name, array in tiny.random_parameters(STUDENT, seed=2).items()}
    batch = tiny.random_batch(rows=8, length=8)
    fill = {**batch, "example_mask": np.zeros(8, np.float32), "label_mask": np.zeros(8, np.float32)}
    values = []
    for cut in ([batch], [batch, fill]):
        step = engine.train_step(objective.function, student, frozen, SPEC, objective.statistics)
        values.append(step.run(iter([Step(objective.prepare(cut), 1e-2, seed=3)]), 1).fetch())
    np.testing.assert_allclose(values[1], values[0], rtol=TOLERANCE)


def test_vectors_of_the_whole_batch_are_compared_however_it_is_cut(engine):
    """Values, and weights after two steps, are those of one part, and so all gradients: those of the texts' vectors in other
    parts too. With dropout, what another part adds that only fills is nothing: where each graph is compiled for eight seconds,
    `test_the_statistics_see_the_dropout_of_the_step` shows it."""
    embedder, taught = STUDENT.embedding(Pooling("mean", False)), {"teacher": STUDENT.embedding(Pooling("mean", True))}
    student, names = tiny.random_parameters(STUDENT, seed=1), tensor_shapes(embedder, None)
    student = {name: array for name, array in student.items() if name in names}
    frozen = {f"teacher/{name}": array for name, array in tiny.random_parameters(STUDENT, seed=2).items()}
    found = {}
    compared = {2: 1} if engine.length_step is None else {2: 1, "filled": "whole"}
    for parts in (each for pair in compared.items() for each in pair):
        dropout = 0.0 if parts in (1, 2) else 0.4
        context = TermContext(None, SENTENCE_EMBEDDINGS, embedder.with_dropout(dropout), taught, members=2)
        objective = Objective([make_term(**options) for options in PAIRS], context, Teachers({"teacher": 1.0}))
        if dropout:
            batch = tiny.random_batch(rows=8, length=16)
            cuts = [[batch, {**batch, "example_mask": np.zeros(8, np.float32)}] if parts == "filled" else [batch]]
        else:
            cuts = list(make_batches(parts, lengths=(16,), members=2).epoch(0))[:2]
        step = engine.train_step(objective.function, student, frozen, SPEC, objective.statistics)
        given = [Step(objective.prepare(cut), 1e-2, seed=3) for cut in cuts]
        found[parts] = step.run(iter(given), len(given)).fetch(), step.parameters()
    for cut, whole in compared.items():
        np.testing.assert_allclose(found[cut][0], found[whole][0], rtol=5e-6)
        for name, array in found[cut][1].items():
            np.testing.assert_allclose(array, found[whole][1][name], rtol=5e-6, atol=5e-6, err_msg=name)


# Every loss with every option that changes what is summed, and its formula is written once: held in float64.
CLASSES = [
    *SCHEDULED,
    {"loss": "hard_label"},
    {"loss": "kd_ce", "temperature": 4, "reduction": "mean", "probability_shift": True},
    {"loss": "kd_ce", "temperature": 8, "temperature_schedule": CWSM, "temperature_squared": False, "teacher": "other"},
    {"loss": "kd_mse"},
    {"loss": "kd_mse", "temperature": 8, "temperature_schedule": {**FLSW, "gamma": 1.5}},
    {"loss": "hidden_mse"},
    {"loss": "hidden_mse", "mask_padding": False, "projection": {"kind": "tanh"}},
    {"loss": "embedding_mse"},
    {"loss": "embedding_mse", "mask_padding": False},
    {"loss": "hidden_cosine", "embeddings": True, "layer_reduction": "mean"},
    {"loss": "pkd", "layers": "uniform"},
    {"loss": "pkd", "layers": "uniform", "normalize": False, "reduction": "mean"},
    {"loss": "mmd", "layers": [[[0, 2], [0, 1]]]},
    {"loss": "mmd", "divide_by": "length"},
    {"loss": "fsp"},
    {"loss": "attention_mse"},
    {"loss": "attention_mse_sum"},
    {"loss": "attention_ce"},
    {"loss": "attention_ce_mean"},
    {"loss": "attention_score_mse", "clamp": True},
    {"loss": "attention_score_mse", "mask_padding": False},
    {"loss": "attention_kl"},
    {"loss": "value_relation_kl"},
    {"loss": "self_relation_kl", "relation": "key", "relation_heads": 2},
]
WORDS = [
    {"loss": "masked_lm"},
    {"loss": "word_kl"},
    {"loss": "word_kl", "tokens": "masked", "temperature_squared": False},
    {"loss": "word_mse"},
    {"loss": "word_mse", "tokens": "masked"},
]
NEXT = [{"loss": "causal_lm"}, {"loss": "word_kl"}, {"loss": "word_mse", "tokens": "masked"}]
ALONE = [{"loss": "sentence_mse"}, {"loss": "sentence_mse", "widths": (4, 8)}, {"loss": "sentence_cosine"}]
ALONE.append({"loss": "similarity_kl"})
PAIRS = [{"loss": "contrastive"}, {"loss": "similarity_kl", "similarity": "dot"}, {"loss": "sentence_cosine"}]
"""Vectors of all texts, and each text alone."""
SCORED = [{"loss": "similarity_mse"}, {"loss": "sentence_mse"}]
TRIPLETS = [
    {"loss": "margin_mse"},
    {"loss": "margin_mse", "similarity": "cosine"},
    {"loss": "similarity_kl", "candidates": "own"},
    {"loss": "contrastive", "widths": (4, 16)},
]
RANKINGS = [
    {"loss": "ranking_bce"},
    {"loss": "ranking_mse", "by": "teacher"},
    {"loss": "ranking_margin_mse"},
    {"loss": "ranking_margin_mse", "pairs": "all"},
    {"loss": "ranknet"},
    {"loss": "ranknet", "by": "teacher", "temperature": 2},
    {"loss": "lambdarank"},
    {"loss": "listnet", "by": "teacher", "temperature": 2},
]
SEVERAL = [{"loss": "hard_label"}, {"loss": "kd_multi_label", "temperature": 2}]
REGRESSION = [{"loss": "hard_label"}, {"loss": "kd_mse"}]
TEACHER = STUDENT.model_copy(update={"num_hidden_layers": 2})
CAUSAL = Gpt2Config(
    vocab_size=STUDENT.vocab_size, n_embd=16, n_layer=1, n_head=2, n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
)
TAUGHT = {"teacher": TEACHER}
EMBEDDER, EMBEDDERS = STUDENT.embedding(Pooling("mean", False)), {"teacher": TEACHER.embedding(Pooling("mean", True))}
CATALOGUE = {
    "classes": (CLASSES, TermContext(2, ONE_CLASS, STUDENT, {"teacher": TEACHER, "other": TEACHER})),
    "words": (WORDS, TermContext(None, MASKED_TEXT, STUDENT, TAUGHT)),
    "next words": (NEXT, TermContext(None, NEXT_TEXT, CAUSAL, {"teacher": CAUSAL})),
    "texts": (ALONE, TermContext(None, SENTENCE_EMBEDDINGS, EMBEDDER, EMBEDDERS)),
    "pairs": (PAIRS, TermContext(None, SENTENCE_EMBEDDINGS, EMBEDDER, EMBEDDERS, members=2)),
    "scored pairs": (SCORED, TermContext(None, SENTENCE_EMBEDDINGS, EMBEDDER, EMBEDDERS, members=2, scored=True)),
    "triplets": (TRIPLETS, TermContext(None, SENTENCE_EMBEDDINGS, EMBEDDER, EMBEDDERS, members=3)),
    "several labels": (SEVERAL, TermContext(3, SEVERAL_LABELS, STUDENT, TAUGHT)),
    "rankings": (RANKINGS, TermContext(1, RANKING, STUDENT, TAUGHT, members=3, scored=True)),
    "regression": (REGRESSION, TermContext(1, ONE_NUMBER, STUDENT, TAUGHT)),
}


def test_the_catalogue_is_whole():
    assert {options["loss"] for terms, _ in CATALOGUE.values() for options in terms} == set(LOSSES)
    mentioned = {(options["loss"], key) for terms, _ in CATALOGUE.values() for options in terms for key in options}
    switches = {"mask_padding", "divide_by", "reduction", "normalize", "tokens", "probability_shift", "temperature_schedule"}
    assert {(name, key) for name, term in LOSSES.items() for key in term.model_fields if key in switches} <= mentioned


@pytest.mark.parametrize("kind", CATALOGUE)
def test_no_loss_depends_on_the_cut(kind):
    options, context = CATALOGUE[kind]
    terms = [make_term(**each) for each in options]
    assert [term.problems(context) for term in terms] == [[] for _ in terms]
    objective = Objective(terms, context, Teachers({name: 1 / len(context.teachers) for name in context.teachers}))
    held = parameters_of(context, objective)
    values = [
        [value_of(objective, held, micro_batches) for micro_batches in batches_of(terms, context, accumulation).epoch(0)]
        for accumulation in (1, 2, 4)
    ]
    whole = np.array(values[0])
    assert whole.shape == (3, 1 + len(terms) + len(objective.entropies))
    assert np.isfinite(whole).all() and (whole[:, 1:] != 0).all()
    for cut in values[1:]:
        np.testing.assert_allclose(cut, whole, rtol=1e-9)


def batches_of(terms, context, accumulation):
    drawn, one_length = np.random.default_rng(8), any(term.counts_padding for term in terms)
    labels = None
    if context.kind in (ONE_NUMBER, SEVERAL_LABELS):
        labels = context.kind.drawn(drawn, EXAMPLES, context.outputs)
    if context.scored:
        rows = EXAMPLES * context.members if context.kind.ranks else EXAMPLES
        labels = drawn.uniform(size=rows).astype(np.float32)
    batches = make_batches(accumulation, one_length, labels, members=context.members)
    if context.kind.guesses_words:
        batches.attach_masks(next_words if context.kind == NEXT_TEXT else mask_last_tokens)
    return batches


def mask_last_tokens(batch, rows, epoch):
    lengths, width = batch["attention_mask"].sum(axis=1).astype(np.int32), batch["input_ids"].shape[1]
    places = np.arange(len(rows), dtype=np.int32) * width + lengths - 1
    return batch | {
        "masked_rows": places,
        "masked_labels": batch["input_ids"].reshape(-1)[places],
        "masked_weights": batch["example_mask"],
    }


def value_of(objective, held, micro_batches):
    """The values (1 + terms,) of a step, summed over its micro-batches."""
    prepared, ops = objective.prepare(micro_batches), ReferenceOps()
    if objective.statistics is not None and len(prepared) > 1:
        sums = sum(objective.statistics(ops, *held, batch) for batch in prepared)
        prepared = [batch | {STATISTICS: sums} for batch in prepared]
    return sum(objective.function(ops, *held, batch)[1] for batch in prepared)


def parameters_of(context, objective):
    """Student with projections, and teachers, in float64."""
    outputs, drawn = context.outputs or 2, np.random.default_rng(6)
    student = random_model(context.student, outputs, 1)
    student |= {name: drawn.normal(0, 0.3, tensor.shape) for name, tensor in objective.projections.items()}
    taught = {
        f"{name}/{tensor}": array
        for seed, (name, config) in enumerate(context.teachers.items(), start=2)
        for tensor, array in random_model(config, outputs, seed).items()
    }
    return student, taught


def random_model(config, outputs, seed):
    drawn = np.random.default_rng(seed)
    head = {name: drawn.normal(0, 0.2, shape) for name, shape in head_shapes(config).get("mlm", {}).items()}
    return head | {name: array.astype(np.float64) for name, array in tiny.random_parameters(config, outputs, seed).items()}

"""BERT-of-Theseus: when modules are replaced, what is computed then, what is trained, and what is left in the end."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app.api import run
from crossdistil.core.checkpoint import load_model
from crossdistil.core.engine import Step
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.theseus import PREDECESSOR, Replacement, make_replacing_forward, predecessor_tensors
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import assert_refused, write_files, write_model

TOLERANCE = 1e-5
STUDENT, OLD = tiny.STILL, tiny.STILL.model_copy(update={"num_hidden_layers": 4, "intermediate_size": 40})
STUDENT_WEIGHTS, OLD_WEIGHTS = tiny.random_parameters(STUDENT, seed=1), tiny.random_parameters(OLD, seed=2)
HELD = STUDENT_WEIGHTS | predecessor_tensors(OLD, OLD_WEIGHTS)
ENCODER = frozenset(name for name in STUDENT_WEIGHTS if name.startswith("bert.encoder."))
WANTED = frozenset({"logits", "pooled", "hidden/0", "hidden/1", "hidden/2"})
MIXED = {"first": (1.0, 0.0), "second": (0.0, 1.0)}
SEED = 11
FOR_GOOD = "1230231003130120"
"""The first gates of two modules at rate 0.5 with this seed, as numbers: a recipe's results are reproduced from it alone."""


def replacement(schedule="constant", rate=0.5, **options):
    return Replacement(OLD, STUDENT.num_hidden_layers, schedule, rate, **options)


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        ("constant", {"rate": 0.5}),
        ("constant", {"rate": 0.3, "until": 600}),
        ("constant", {"rate": 0.3, "until": 0.6}),
        ("linear", {"rate": 0.3, "until": 0.7}),
        ("linear", {"rate": 0.3, "until": 700}),
        ("linear", {"rate": 0.3}),
    ],
)
def test_the_share_of_replaced_modules_follows_the_schedule(schedule, options):
    blocks, steps = 6, np.arange(1000)
    plan = Replacement(OLD, blocks, schedule, **options)
    if schedule == "linear":
        expected = np.minimum(1.0, 0.3 + (1e-3 if "until" in options else 7e-4) * steps)  # the paper's k
    else:
        expected = np.where(steps < (600 if "until" in options else 1000), options["rate"], 1.0)
    gates = np.array([plan.gates(SEED, step, 1000) for step in steps])
    assert gates.shape == (1000, blocks) and gates.dtype == np.float32 and set(np.unique(gates)) == {0.0, 1.0}
    # Four deviations of a sum of independent draws, over all steps, in each tenth of them, and of each module alone.
    for place in (slice(None), *(slice(start, start + 100) for start in range(0, 1000, 100))):
        p = expected[place]
        assert abs(gates[place].sum() - blocks * p.sum()) <= 4 * np.sqrt(blocks * (p * (1 - p)).sum())
    for block in range(blocks):
        assert abs(gates[:, block].sum() - expected.sum()) <= 4 * np.sqrt((expected * (1 - expected)).sum())
    # Modules are drawn independently of each other, and a step of the one before it.
    draws = (gates - expected[:, None])[:500]
    for other in (np.roll(draws, 1, axis=1), np.roll(draws, 1, axis=0)):
        deviation = (expected * (1 - expected))[:500].mean() / np.sqrt(draws.size)
        assert abs((draws * other).mean()) < 4 * deviation


def test_gates_depend_on_seed_and_step_only():
    plan = replacement()
    gates = [plan.gates(SEED, step, 40).tolist() for step in range(40)]
    assert gates == [plan.gates(SEED, step, 4000).tolist() for step in range(40)]
    assert gates != [plan.gates(SEED + 1, step, 40).tolist() for step in range(40)]
    assert len({tuple(each) for each in gates}) == 4
    assert "".join(str(int(each[0] * 2 + each[1])) for each in gates[:16]) == FOR_GOOD
    objective = make_objective(plan)
    one, other = tiny.random_batch(seed=1), tiny.random_batch(rows=3, length=7, seed=2)
    for step in range(5):
        made = [*objective.prepare([one, other], step, 40, SEED), *objective.prepare([other], step, 4000, SEED)]
        assert [batch["gates"].tolist() for batch in made] == [gates[step]] * 3


def make_objective(plan):
    context = TermContext(2, ONE_CLASS, STUDENT, {"teacher": OLD})
    return Objective([LOSSES["hard_label"](loss="hard_label")], context, Teachers({"teacher": 1.0}), "replace", plan)


def prefix(layer):
    return OLD.layer_prefixes(layer)[0]


def assembled(gates):
    """The plain BERT that a replacing forward stands for: its configuration, its weights, and for each of their names the
    one in `HELD`."""
    sources = []
    for block, gate in enumerate(gates):
        sources += [prefix(block)] if gate else [PREDECESSOR + prefix(2 * block + inner) for inner in (0, 1)]
    names = {name: name for name in STUDENT_WEIGHTS if name not in ENCODER}
    for layer, source in enumerate(sources):
        names |= {prefix(layer) + name.removeprefix(source): name for name in HELD if name.startswith(source)}
    return len(sources), names


def module_by_module(gates, batch, weights=HELD):
    """The outputs of such a BERT, computed layer by layer by the plain forward passes of both models in float64."""
    depth, names = assembled(gates)
    chosen = {name: np.asarray(weights[source], np.float64) for name, source in names.items()}
    wanted = frozenset({"logits", "pooled", *(f"hidden/{layer}" for layer in range(depth + 1))})
    config = STUDENT.model_copy(update={"num_hidden_layers": depth})
    made = make_forward(config, wanted)(ReferenceOps(), chosen, batch)
    first = 1 if gates[0] else 2
    ends = {"hidden/0": "hidden/0", "hidden/1": f"hidden/{first}", "hidden/2": f"hidden/{depth}"}
    return {name: made[ends.get(name, name)] for name in WANTED}


def test_all_gates_1_is_the_student_and_all_gates_0_the_predecessor(engine):
    batch, names = tiny.random_batch(seed=3), sorted(WANTED)
    forward = make_replacing_forward(STUDENT, WANTED, replacement())

    def listed(ops, params, batch):
        made = forward(ops, params, batch)
        return [made[name] for name in names]

    infer = engine.infer(listed, HELD)
    student = make_forward(STUDENT, WANTED)(ReferenceOps(), STUDENT_WEIGHTS, batch)
    whole = OLD_WEIGHTS | {name: array for name, array in STUDENT_WEIGHTS.items() if name not in ENCODER}
    old = make_forward(OLD, frozenset({"logits", "pooled", "hidden/0", "hidden/2", "hidden/4"}))(ReferenceOps(), whole, batch)
    predecessor = {**old, "hidden/1": old["hidden/2"], "hidden/2": old["hidden/4"]}
    for gates in ((1.0, 1.0), (0.0, 0.0), *MIXED.values()):
        inputs = batch | {"gates": np.array(gates, np.float32)}
        expected = {(1.0, 1.0): student, (0.0, 0.0): predecessor}.get(gates) or module_by_module(gates, batch)
        made = forward(ReferenceOps(), HELD, inputs)
        assert set(made) == WANTED
        for name, found in zip(names, infer(inputs), strict=True):
            np.testing.assert_allclose(made[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=f"{gates}: {name}")
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE, err_msg=f"{gates}: {name}")


def step_with(plan, gates):
    """A step at which the gates are these."""
    return next(step for step in range(100) if tuple(plan.gates(SEED, step, 100)) == gates)


def loss_of(gates, batch, weights):
    logits = module_by_module(gates, batch, weights)["logits"]
    picked = ReferenceOps().pick(ReferenceOps().log_softmax(logits), batch["labels"])
    return -(picked * batch["example_mask"]).sum() / batch["example_mask"].sum()


def test_gradients_of_mixed_gates_are_finite_differences(engine):
    plan = replacement()
    objective, generator = make_objective(plan), np.random.default_rng(4)
    wide = {name: array.astype(np.float64) for name, array in HELD.items()}
    batch = tiny.random_batch(seed=6)
    # One graph holds for all gates, and is compiled anew for each gradient: once there.
    for gates in list(MIXED.values())[: 1 if engine.length_step is None else None]:
        [prepared] = objective.prepare([batch], step_with(plan, gates), 100, SEED)
        values, gradients = engine.gradients(objective.function, HELD, {}, prepared)
        np.testing.assert_allclose(values, [loss_of(gates, batch, wide)] * 2, rtol=1e-5)
        used = set(assembled(gates)[1].values())
        largest = max(np.abs(array).max() for array in gradients.values())
        for name, gradient in gradients.items():
            if name not in used:
                assert not gradient.any(), f"{gates}: {name} is not in this model"
                continue
            for place in generator.integers(0, gradient.size, 2):
                ends = []
                for move in (1e-5, -1e-5):
                    moved = wide[name].copy()
                    moved.flat[place] += move
                    ends.append(loss_of(gates, batch, {**wide, name: moved}))
                expected = (ends[0] - ends[1]) / 2e-5
                assert gradient.flat[place] == pytest.approx(expected, abs=1e-5 * largest, rel=1e-3), f"{gates}: {name}"


def spec(**options):
    return OptimizerSpec("adamw", trainable=ENCODER, **{"weight_decay": 0.0, **options})


def test_only_successors_that_are_in_move(engine):
    plan = replacement()
    objective, batch = make_objective(plan), tiny.random_batch(seed=8)
    # With the norm of all gradients, those of the predecessor are computed too, and it stays all the same.
    # Where a step is compiled, which takes seconds, it is this one throughout: the other is that of the next test.
    kinds = (True,) if engine.length_step is None else (False, True)
    clipping = {each: engine.train_step(objective.function, HELD, {}, spec(clip_frozen=each)) for each in kinds}
    start = clipping[True].state()
    for number, (gates, clip_frozen) in enumerate([((1.0, 0.0), False), ((0.0, 1.0), False), ((0.0, 0.0), True)]):
        prepared, train = objective.prepare([batch], step_with(plan, gates), 100, SEED), clipping.get(clip_frozen, clipping[True])
        train.restore(HELD, start)
        losses = train.run(iter([Step(prepared, 1e-2, number), Step(prepared, 0.0, number)]), 2).fetch()
        after = train.parameters()
        assert set(after) == ENCODER
        for name, array in after.items():
            moved = not np.array_equal(array, STUDENT_WEIGHTS[name])
            assert moved == bool(gates[int(name.split(".")[3])]), f"{gates}: {name}"
        # The second loss is that of what moved beside what did not: the frozen parts kept their values on the device.
        expected = [loss_of(gates, batch, HELD), loss_of(gates, batch, HELD | after)]
        np.testing.assert_allclose(losses[:, 0], expected, rtol=1e-5)


def test_at_rate_1_the_successor_is_trained_alone(engine):
    """The second phase is plain training of the student's encoder."""
    plan = replacement("linear", 1.0)
    objective, batch = make_objective(plan), tiny.random_batch(seed=9)
    plain = Objective([LOSSES["hard_label"](loss="hard_label")], TermContext(2, ONE_CLASS, STUDENT), Teachers({}))
    steps = [Step(objective.prepare([batch], step, 100, SEED), 1e-2, step) for step in range(4)]
    assert all(step.micro_batches[0]["gates"].all() for step in steps)
    alone = [Step(plain.prepare([batch], step, 100, SEED), 1e-2, step) for step in range(4)]
    # An epsilon far above rounding, which Adam would turn into whole steps for the key's biases.
    replacing = engine.train_step(objective.function, HELD, {}, spec(epsilon=1e-2, weight_decay=0.1))
    student = engine.train_step(plain.function, STUDENT_WEIGHTS, {}, spec(epsilon=1e-2, weight_decay=0.1))
    np.testing.assert_allclose(replacing.run(iter(steps), 4).fetch(), student.run(iter(alone), 4).fetch(), rtol=1e-5)
    expected = student.parameters()
    for name, array in replacing.parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6, err_msg=name)
        if not name.endswith("key.bias"):
            assert np.abs(array - STUDENT_WEIGHTS[name]).max() > 1e-4, name


@pytest.fixture(scope="module")
def finished(backend_name, pytestconfig, tmp_path_factory, tiny_task):
    """A run with dropout and with both phases: the predecessor's and the run's folder. Half as deep where it is compiled."""
    folder, layers = tmp_path_factory.mktemp("theseus"), 1 if backend_name == "mindspore" else 2
    old = tiny.CONFIG.model_copy(update={"num_hidden_layers": 2 * layers})
    tiny.write_model(folder / "predecessor", old, seed=5)
    tree = tiny.kd_recipe(tiny_task, folder / "predecessor", steps=10, learning_rate=1e-3, weight_decay=0.1, log_every=1)
    tree["student"] = {"architecture": {"num_hidden_layers": layers}, "init": {"from": "teacher", "layers": [*range(layers)]}}
    tree["stages"][0] |= {
        "objective": [{"loss": "hard_label"}],
        "freeze": ["embeddings", "pooler", "classifier"],
        "replacement": {"schedule": "linear", "rate": 0.4, "until": 0.6},
    }
    tree["stages"][0]["train"]["clip_scope"] = "all"
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    device = pytestconfig.getoption("--device")
    run(folder / "recipe.yaml", out=folder / "run", backend=backend_name, device=device, quiet=True)
    return folder


def test_a_run_leaves_the_student_alone(finished):
    student, predecessor = load_model(finished / "run" / "student"), load_model(finished / "predecessor")
    tensors = load_file(finished / "run" / "student" / "model.safetensors")
    assert set(tensors) == set(tensor_shapes(student.config, 2))  # and no tensor of the predecessor
    assert not (finished / "run" / "student" / "projections.safetensors").exists()
    for name, array in student.parameters.items():
        start = predecessor.parameters[name]
        if name in ENCODER:
            assert not np.array_equal(array, start), f"{name} was not trained"
        else:
            np.testing.assert_array_equal(array, start, err_msg=f"{name} is frozen")
    states = list((finished / "run" / "state").glob("*/parameters.safetensors"))
    assert len(states) == 1 and set(load_file(states[0])) == set(tensors)


@pytest.mark.only_backend("torch")
def test_the_student_of_a_run_is_the_same_in_transformers(finished):
    import torch
    from transformers import AutoModelForSequenceClassification

    theirs, report = AutoModelForSequenceClassification.from_pretrained(
        finished / "run" / "student", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    student, batch = load_model(finished / "run" / "student"), tiny.random_batch(fill=0, seed=12)
    names = ("input_ids", "token_type_ids", "attention_mask")
    with torch.no_grad():
        logits = theirs.eval()(**{name: torch.from_numpy(batch[name]).long() for name in names}).logits.numpy()
    ours = make_forward(student.config.without_dropout())(ReferenceOps(), student.parameters, batch)["logits"]
    np.testing.assert_allclose(logits, ours, rtol=0, atol=TOLERANCE)


REPLACE = "stages.0={name: replace, objective: [{loss: hard_label}], replacement: {rate: 0.5}, train: {steps: 2}}"
START = "{root}/recipe.yaml: "
WRONG = {
    "six layers into four": (
        6, ["student={architecture: {num_hidden_layers: 4}, init: {from: teacher, layers: [0, 1, 2, 3]}}"],
        "stages[0].replacement: the predecessor's 6 layers cannot be cut into 4 equal modules, one a student layer",
    ),
    "another width": (
        4, ["student={architecture: {num_hidden_layers: 2, hidden_size: 16}, init: {from: random}}"],
        "stages[0].replacement: the hidden sizes differ (student 16, predecessor 8): modules could not stand in for each other",
    ),
    "attention": (
        4, ["stages.0.objective=[{loss: hard_label}, {loss: attention_mse, layers: [[4, 2]]}]"],
        "stages[0].objective[1].loss: attention_mse needs attention, which replaced modules do not show",
    ),
    "a BiLSTM": (
        4, ["student={architecture: {model_type: bilstm}}"],
        "stages[0].replacement: both models must be Transformers of one family, each layer with weights of its own; "
        "got bert and bilstm",
    ),
    "no predecessor": (
        4, ["teacher=null", "student.init={from: random}"], "a replacement needs its predecessor: give teacher.model",
    ),
    "a negative end": (
        4, ["stages.0.replacement={schedule: linear, until: -5}"],
        "stages[0].replacement.until: should be greater than or equal to 0, got -5",
    ),
    "a pooler that is not the predecessor's": (
        4, ["stages.0.freeze=[pooler, encoder]", "student={architecture: {num_hidden_layers: 2}, init: {from: random}}"],
        "stages[0].freeze: pooler shall stay the predecessor's, but student.init.from is 'random'; start from 'teacher', "
        "or train them too (freeze: [])",
    ),
    "nothing to train": (
        4, ["stages.0.freeze=[embeddings, encoder, pooler, classifier]"],
        "stages[0].freeze: nothing is left to train: the objective's tensors are all frozen",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("layers", "sets", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_replaced_is_refused(tmp_path, layers, sets, message):
    files = write_files(tmp_path / "files")
    shutil.rmtree(files.teacher)
    write_model(files.teacher, num_hidden_layers=layers)
    assert_refused(files, files.run(sets=[REPLACE, *sets]), START + message)

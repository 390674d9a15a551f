"""Several processes give the numbers of one: each recipe, and everything that a step's parts could be counted by, divided by or
drawn by, trained by one process here and by several beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossdistil.core.job import prepare
from crossdistil.core.world import World
from crossdistil.tests.several import differences, start, train
from crossdistil.tests.several_cases import BUCKETS, CASES, RECIPES, STEPS
from crossdistil.tests.several_files import ROWS, write_files

SOME = ["kd", "minilm in 3 parts", "theseus", "few labels", "flsw without a text"]
CASES_OF = {
    "torch": {2: [name for name, case in CASES.items() if "torch" in case.backends], 3: [*SOME, "dropout in 3 parts"]},
    "oneflow": {2: [*RECIPES, *SOME, "dropout", "padding counts in 3 parts", "dropout of replaced modules", "adadelta"]},
    # Each compiled graph takes seconds. Accumulation, dropout by the parts' numbers of values that a step has only as a whole
    # too, one part a process with parameters without a gradient path, sinks.
    "mindspore": {2: ["shallow in 3 parts", "shallow flsw with dropout", "shallow theseus", "sinks of several lengths"]},
}
CASES_OF = {
    backend: {count: list(dict.fromkeys(names)) for count, names in counts.items()} for backend, counts in CASES_OF.items()
}
ALL = [
    pytest.param(count, name, marks=pytest.mark.only_backend(backend), id=f"{backend} {count} {name}")
    for backend, counts in CASES_OF.items()
    for count, names in counts.items()
    for name in names
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of what the cases read."""
    return write_files(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def together(backend_name, pytestconfig, files, tmp_path_factory):
    """`together(count)`: what `count` processes made of their cases; they are started once."""
    found = {}

    def run(count):
        if count not in found:
            found[count] = None  # once, even if it fails
            out, device = tmp_path_factory.mktemp(f"of-{count}"), pytestconfig.getoption("--device")
            found[count] = start(backend_name, count, CASES_OF[backend_name][count], files, out, device)()
        assert found[count] is not None, "the processes have failed, as the test before says"
        return found[count]

    return run


@pytest.fixture(scope="module")
def alone(files, make_engine):
    """`alone(name)`: what one process makes of a case."""
    found = {}

    def run(name):
        if name not in found:
            found[name] = train(CASES[name], files, make_engine(**CASES[name].engine), World())
        return found[name]

    return run


@pytest.mark.parametrize(("count", "name"), ALL)
def test_several_processes_give_the_numbers_of_one(together, alone, count, name):
    loss, weights, shown = differences(alone(name), together(count)[name])
    case, told = CASES[name], f"loss {loss:.1e}, weights {weights:.1e}, shown {shown:.1e}"
    assert loss <= case.loss and weights <= case.weights and shown <= 10 * case.loss, told


@pytest.mark.only_backend("torch", "oneflow")
def test_a_step_is_one_sum_of_gradients_and_losses(backend_name, together):
    """And one more of statistics, before it, where a term has them."""
    for name, found in together(2).items():
        case = CASES[name]
        for stage in (key.removeprefix("sums/") for key in found if key.startswith("sums/")):
            gradients, terms, statistics = found[f"floats/{stage}"].tolist()
            step = [4 * statistics] * (statistics > 0) + [4 * (gradients + terms + 1)]
            sums = found[f"sums/{stage}"]
            steps = case.train.get("steps", STEPS)
            if case.bucket_bytes is None:
                assert sums.tolist() == step * steps, name
            else:
                assert len(sums) > 3 * steps and sums.sum() == steps * sum(step), name


@pytest.mark.only_backend("torch")
def test_buckets_change_nothing(together):
    """That all processes have summed the same buckets in the same order was compared there."""
    found = together(2)
    for name in BUCKETS:
        plain, cut = found[name], found[f"{name} in buckets"]
        assert plain.keys() == cut.keys()
        for key in plain:
            assert key.startswith("sums/") or np.array_equal(plain[key], cut[key]), f"{name}: {key}"


@pytest.fixture(scope="module")
def rows(files):
    """The lines of the task's table that each step of the case `kd` trains on."""
    job = prepare(CASES["kd"].load(files, 1), "kd", 1)
    batches, found = job.stage(0).batches.with_arrays(lambda rows, length: {"rows": rows}), []
    for step in itertools.islice(itertools.chain.from_iterable(batches.epoch(number) for number in range(2)), STEPS):
        drawn = np.concatenate([batch["rows"] for batch in step])
        found.append(drawn[drawn >= 0])
    assert sorted(np.concatenate(found[:4])) == list(range(ROWS))  # an epoch
    return found


@pytest.mark.only_backend("torch")
def test_two_processes_train_as_plain_pytorch_does(files, rows, together):
    """Neither its model, its losses nor its optimizer are ours."""
    from crossdistil.tests.plain_distillation import adamw, distil

    values, parameters = distil(files, rows, 1.0, lambda pairs: adamw(pairs, 1e-2, 1e-2, 0.01))
    found = together(2)["constant rate"]
    np.testing.assert_allclose(found["values/distil"][:, : values.shape[1]], values, rtol=1e-5)  # entropies follow
    for name, array in parameters.items():
        np.testing.assert_allclose(found[f"parameters/{name}"], array, atol=1e-5, err_msg=name)


@pytest.mark.only_backend("torch")
def test_the_summed_gradient_is_that_of_the_whole_batch(files, rows, together):
    import torch

    from crossdistil.tests.plain_distillation import distil

    _, expected = distil(files, rows[:1], None, lambda pairs: torch.optim.SGD([tensor for _, tensor in pairs], lr=1.0))
    found = together(2)["gradient"]
    for name, array in expected.items():
        np.testing.assert_allclose(found[f"parameters/{name}"], array, atol=1e-6, err_msg=name)

"""Several processes give the numbers of one: each recipe, and everything that a step's parts could be counted by, divided by or
drawn by, trained by one process here and by several beside it."""

from __future__ import annotations

import pytest

from crossdistil.core.world import World
from crossdistil.tests.several import differences, start, train
from crossdistil.tests.several_cases import CASES
from crossdistil.tests.several_files import write_files

BACKENDS = {"torch": [name for name, case in CASES.items() if "torch" in case.backends]}
FEW = ["kd", "minilm in 3 parts", "theseus", "few labels", "flsw"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of what the cases read."""
    return write_files(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def together(backend_name, pytestconfig, files, tmp_path_factory):
    """`together(count)`: what `count` processes made of their cases; they are started once."""
    found = {}

    def run(count, names):
        if count not in found:
            found[count] = None  # once, even if it fails
            out = tmp_path_factory.mktemp(f"of-{count}")
            found[count] = start(backend_name, count, names, files, out, pytestconfig.getoption("--device"))()
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


def near(name, alone, together):
    loss, weights = differences(alone, together)
    assert loss <= CASES[name].loss and weights <= CASES[name].weights, f"loss {loss:.1e}, weights {weights:.1e}"


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", BACKENDS["torch"])
def test_two_processes_give_the_numbers_of_one(together, alone, name):
    near(name, alone(name), together(2, BACKENDS["torch"])[name])


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", FEW)
def test_three_processes_give_them_too(together, alone, name):
    near(name, alone(name), together(3, FEW)[name])

"""Two MindSpore processes give the numbers of one: one launch of them carries all checks, since each start and each compiled
graph takes seconds. `tests/test_several.py` has the other backends."""

from __future__ import annotations

import pytest

from crossdistil.core.world import World
from crossdistil.tests.several import differences, start, train
from crossdistil.tests.several_cases import CASES
from crossdistil.tests.several_files import write_files

pytestmark = pytest.mark.only_backend("mindspore")

# One part a process, accumulation, dropout by the parts' numbers, values that a step has only as a whole, parameters without a
# gradient path, sinks.
NAMES = ["kd", "kd in 3 parts", "dropout", "flsw with dropout", "theseus", "sinks of several lengths"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of what the cases read."""
    return write_files(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def together(files, pytestconfig, tmp_path_factory):
    """By name, what two processes made of each case."""
    return start("mindspore", 2, NAMES, files, tmp_path_factory.mktemp("two"), pytestconfig.getoption("--device"))()


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_give_the_numbers_of_one(together, files, make_engine, name):
    loss, weights = differences(train(CASES[name], files, make_engine(**CASES[name].engine), World()), together[name])
    assert loss <= CASES[name].loss and weights <= CASES[name].weights, f"loss {loss:.1e}, weights {weights:.1e}"

"""A run goes on with another number of processes: on the same texts, to the same weights and the same log."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.world import World
from crossdistil.tests.several import start
from crossdistil.tests.several_files import write_files
from crossdistil.tests.several_resumed import PARTS, PATHS, PHASES, WHOLE, end_of, go_on, logged

pytestmark = pytest.mark.only_backend("torch")


@pytest.fixture(scope="module")
def runs(backend_name, engine, tmp_path_factory):
    """The folder of the runs, and what was found for each part; one process is this one."""
    root = tmp_path_factory.mktemp("resumed")
    files, found = write_files(root / "files"), {}
    for number, phase in enumerate(PHASES):
        started = [
            start(backend_name, count, names, files, root / f"{number}-{count}") for count, names in phase if count > 1
        ]
        found |= {name: go_on(PARTS[name], files, engine, World()) for count, names in phase if count == 1 for name in names}
        for finish in started:
            found |= finish()
    return files / "runs", found


@pytest.mark.parametrize("path", PATHS)
def test_it_ends_as_the_unbroken_run(runs, path):
    folder, found = runs
    expected, end = end_of(path, found)
    lines, unbroken = logged(folder / path), logged(folder / WHOLE[PATHS[path]])
    # Two parts are summed in one order, whoever does it; four are not.
    if PATHS[path] == 2:
        for name, array in expected.items():
            np.testing.assert_array_equal(end[name], array, err_msg=name)
        assert lines == unbroken
    else:
        for name, array in expected.items():
            np.testing.assert_allclose(end[name], array, rtol=0, atol=1e-6, err_msg=name)
        for line, other in zip(lines, unbroken, strict=True):
            assert line.keys() == other.keys() and line["step"] == other["step"]
            assert "loss" not in line or line["loss"] == pytest.approx(other["loss"], rel=1e-6)

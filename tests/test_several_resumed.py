"""A run goes on with another number of processes: on the same texts, to the same weights and the same log."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.world import World
from crossdistil.tests.several import start
from crossdistil.tests.several_files import write_files
from crossdistil.tests.several_resumed import BETWEEN, FIRST, LAST, WHOLE, go_on, logged

pytestmark = pytest.mark.only_backend("torch")


@pytest.fixture(scope="module")
def runs(backend_name, engine, tmp_path_factory):
    """The files, and what was found by folder: the parts of each run in order, and of the unbroken ones."""
    root = tmp_path_factory.mktemp("resumed")
    files, found = write_files(root / "files"), {}

    def together(count, prefix, parts):
        names = [f"{prefix} {name}" for name in parts]
        return start(backend_name, count, names, files, root / f"{prefix} {count}")

    begun = [together(count, "begin", parts) for count, parts in FIRST.items()]
    for part in WHOLE.values():
        found[part.folder] = [go_on(part, files, engine, World())]
    for finish in begun:
        for name, arrays in finish().items():
            found.setdefault(name.split()[1], []).append(arrays)
    for part in BETWEEN:
        found.setdefault(part.folder, []).append(go_on(part, files, engine, World()))
    for name, arrays in together(2, "end", LAST)().items():
        found[name.split()[1]].append(arrays)
    return files / "runs", found


@pytest.mark.parametrize("path", LAST)
def test_it_ends_as_the_unbroken_run(runs, path):
    folder, found = runs
    accumulation = LAST[path].accumulation
    whole, parts = WHOLE[accumulation].folder, found[path]
    assert len(parts) == path.count("-") + 1 and all(len(part["rows"]) for part in parts)
    assert np.concatenate([part["rows"] for part in parts]).tolist() == found[whole][0]["rows"].tolist()
    expected = {name: array for name, array in found[whole][0].items() if name != "rows"}
    end = {name: array for name, array in parts[-1].items() if name != "rows"}
    assert expected.keys() == end.keys() and len(expected) > 20
    # Two parts are summed in one order, whoever does it; four are not.
    if accumulation == 2:
        for name, array in expected.items():
            np.testing.assert_array_equal(end[name], array, err_msg=name)
        assert logged(folder / path) == logged(folder / whole)
    else:
        for name, array in expected.items():
            np.testing.assert_allclose(end[name], array, rtol=0, atol=1e-6, err_msg=name)
        for line, other in zip(logged(folder / path), logged(folder / whole), strict=True):
            assert line.keys() == other.keys() and line["step"] == other["step"]
            assert "loss" not in line or line["loss"] == pytest.approx(other["loss"], rel=1e-6)

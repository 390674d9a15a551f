"""A teacher cache that cannot be written: with `auto` the teacher runs in each step, which is told; with `always` it is an
error."""

from __future__ import annotations

import errno
import os

import pytest

from crossdistil.core import teacher_writing
from crossdistil.tests.wrong_input_files import Files, crossdistil, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return write_files(tmp_path_factory.mktemp("right"))


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_cache_that_cannot_be_written(files, tmp_path, monkeypatch, number):
    def refuse(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(teacher_writing, "reserve" if number in (errno.ENOSPC, errno.EDQUOT) else "make_folder", refuse)
    cache, weights = tmp_path / "cache", []
    sets = ["--set=stages.0.train.steps=40", f"--set=teacher_cache.folder={cache}"]
    for use in ("auto", "never"):
        answer = crossdistil("run", files.recipe, "--out", tmp_path / use, *sets, f"--set=teacher_cache.use={use}")
        assert answer.code == 0 and not answer.stderr
        text = " ".join(answer.stdout.split())
        told = f"cannot be written: {os.strerror(number)}"
        assert (told in text and "; the teachers run in every step" in text) == (use == "auto"), text
        weights.append((tmp_path / use / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    answer = crossdistil("run", files.recipe, "--out", tmp_path / "always", *sets, "--set=teacher_cache.use=always")
    (message,) = answer.messages
    told = f"teacher_cache.use: 'always', but {cache}/teacher: cannot be written: {os.strerror(number)}"
    assert message.startswith(told)
    assert not (tmp_path / "always").exists()

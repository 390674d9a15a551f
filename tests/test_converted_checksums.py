"""Converted folders note what was written: a changed file is refused by whatever reads it, and folders without a note are
read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import crossdistil
from crossdistil.core.checksums import CHECKSUMS
from crossdistil.core.errors import CheckpointError
from crossdistil.tests import conversion_sources as sources
from crossdistil.tests.network_cases import CASES, write_case

TARGETS = [
    ("pytorch", "safetensors"), ("pytorch", "bin"), ("tf", "google"), ("mindspore", "ckpt"), ("oneflow", "state-dict"),
    ("oneflow", "legacy-raw"),
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "bert"
    write_case(folder, *CASES["bert"])
    return folder


def damage(folder: Path) -> Path:
    """Flip a bit of the last number of the largest file, which no format's own reader need notice."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".json", ".txt")]
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-3 if path.suffix == ".safetensors" else len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("to, layout", TARGETS)
def test_a_changed_file_is_refused(to, layout, source, tmp_path):
    folder = tmp_path / "converted"
    crossdistil.convert(source, folder, to=to, layout=layout, with_code=layout != "legacy-raw")
    noted = json.loads((folder / CHECKSUMS).read_text())["files"]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(noted) == there - {CHECKSUMS}
    weights = folder / "weights" if to == "oneflow" else folder / "bert_model.ckpt" if to == "tf" else folder
    for path in {folder, weights}:
        sources.assert_same(sources.tensors_of(path), sources.tensors_of(source))
    changed = damage(folder)
    for path in {folder, weights}:
        with pytest.raises(CheckpointError) as caught:
            crossdistil.convert(path, tmp_path / "back", to="pytorch")
        own = "is damaged: the checksum at its end is not that of its content"  # MindSpore's format has one
        ours = f"is not as it was written; if it was changed on purpose, remove {CHECKSUMS}"
        assert str(caught.value) == f"{changed}: {own if to == 'mindspore' else ours}"
        assert not (tmp_path / "back").exists()
    if to != "mindspore":
        assert any("is not as it was written" in problem for problem in crossdistil.inspect(folder)["problems"])


@pytest.mark.parametrize("to, layout", [("pytorch", "safetensors"), ("oneflow", "state-dict")])
def test_folders_of_earlier_versions_are_read(to, layout, source, tmp_path):
    """Without a note: and then a flipped bit is another number."""
    folder = tmp_path / "converted"
    crossdistil.convert(source, folder, to=to, layout=layout)
    (folder / CHECKSUMS).unlink()
    sources.assert_same(sources.tensors_of(folder), sources.tensors_of(source))
    damage(folder)
    crossdistil.convert(folder, tmp_path / "back", to="pytorch")


def test_a_text_may_be_edited_and_is_told(source, tmp_path, caplog):
    folder = tmp_path / "converted"
    crossdistil.convert(source, folder, to="mindspore")
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    crossdistil.convert(folder, tmp_path / "back", to="pytorch")
    assert caplog.messages == [f"{config}: is not as it was written; if it was changed on purpose, remove {CHECKSUMS}"]

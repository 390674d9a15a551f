"""Where `crossdistil convert` writes: a destination is the whole, verified result or as it was, and nothing is left beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

import crossdistil
from crossdistil.converters import convert as conversions
from crossdistil.converters.layouts import LAYOUTS
from crossdistil.core.app import verify
from crossdistil.tests.conversion_sources import BERT, write_source
from crossdistil.tests.damages import full_disk
from crossdistil.tests.wrong_input_files import crossdistil as command
from crossdistil.tests.wrong_input_files import refused_conversion as refused

QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def source(tmp_path) -> Path:
    write_source(tmp_path / "source", BERT)
    return tmp_path / "source"


def test_destinations(tmp_path, source):
    crossdistil.convert(source, tmp_path / "tf", to="tf")
    crossdistil.convert(source, tmp_path / "oneflow", to="oneflow")
    prefix, ckpt = tmp_path / "tf" / "bert_model.ckpt", source / "model.safetensors"
    (tmp_path / "file").write_text("x")
    is_file, occupied = "is a file; the result is a folder", "exists and is not empty; --overwrite replaces it"
    holds, lies = (f"{what} the source {{root}}/{{}}; choose another destination" for what in ("holds", "lies in"))
    cases = [
        (source, "file", [], is_file),
        (source, "file", ["--overwrite"], is_file),
        (source, "file/out", [], "cannot be written: {root}/file is a file"),
        (source, "file/deep/out", [], "cannot be written: Not a directory"),
        (source, "tf", [], occupied),
        (source, "source", ["--overwrite"], holds.replace("{}", "source")),
        (ckpt, "source", ["--overwrite"], holds.replace("{}", "source/model.safetensors")),
        (prefix, "tf", ["--overwrite"], holds.replace("{}", "tf/bert_model.ckpt")),
        (source, "", ["--overwrite"], holds.replace("{}", "source")),
        (tmp_path / "oneflow" / "weights", "oneflow/weights/new", [], lies.replace("{}", "oneflow/weights")),
    ]
    for path, out, options, message in cases:
        place = f"{{root}}/{out}".rstrip("/")
        assert refused(tmp_path, path, *options, to="mindspore", out=out) == [f"{place}: {message}"], (path, out)


def test_a_new_folder_in_the_sources(tmp_path, source):
    """As in `crossdistil convert . tf`, which harms nothing."""
    crossdistil.convert(source, source / "tf", to="tf")
    crossdistil.convert(source / "tf", tmp_path / "back", to="pytorch")
    assert (tmp_path / "back" / "model.safetensors").is_file()


@pytest.mark.parametrize(("to", "layout"), [(to, layout) for to, layouts in LAYOUTS.items() for layout in layouts])
def test_a_full_disk(tmp_path, source, to, layout):
    for free in (0, 3000):
        with full_disk(free):
            messages = refused(tmp_path, source, "--layout", layout, to=to)
        assert messages == ["{root}/out: cannot be written: File too large"]


def test_a_full_disk_leaves_the_old_result(tmp_path, source):
    crossdistil.convert(source, tmp_path / "tf", to="tf")
    with full_disk(3000):
        assert refused(tmp_path, source, "--overwrite", out="tf") == ["{root}/tf: cannot be written: File too large"]


def wrong_conversion(monkeypatch, change) -> None:
    """From now on names are given as `change` changes them."""
    right = conversions.foreign_names
    monkeypatch.setattr(conversions, "foreign_names", lambda *arguments: change(right(*arguments)))
    monkeypatch.setattr(verify, "python_with", lambda module: None)


def test_a_kernel_that_is_written_untransposed(tmp_path, source, monkeypatch):
    wrong_conversion(monkeypatch, lambda names: names | {QUERY: (names[QUERY][0], False)})
    assert refused(tmp_path, source, "--verify") == [f"verification failed: {QUERY} is not the same in the result"]
    assert command("convert", source, tmp_path / "out", "--to", "tf").code == 0, "seen by nothing but the verification"
    with pytest.raises(crossdistil.CrossdistilError, match="verification failed"):
        crossdistil.convert(source, tmp_path / "other", to="tf", verify=True)


def test_a_configuration_that_differs(tmp_path, source, monkeypatch):
    """Equal weights are not enough: the configuration matters too."""
    wrong_conversion(monkeypatch, lambda names: names)
    right = conversions.write_files

    def write_files(folder, raw, *others):
        right(folder, raw | {"num_attention_heads": 2}, *others)

    monkeypatch.setattr(conversions, "write_files", write_files)
    (message,) = refused(tmp_path, source, "--verify", to="mindspore")
    assert message == "verification failed: num_attention_heads is 2 in the result, 4 in the source"

"""A model's weights stay in their file until they are asked for: nothing of them is on the heap, what is damaged is found when
the file is opened, and a teacher's digest is remembered for as long as its file is untouched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core import stored_tensors, teacher_identity
from crossdistil.core.cache_folder import kind_folder
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError
from crossdistil.core.stored_tensors import TensorFile
from crossdistil.core.teacher_identity import model_digest
from crossdistil.tests import tiny


@pytest.fixture
def folder(tmp_path, tiny_model):
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_loading_takes_no_memory_for_the_weights(folder):
    rows, path = 600_000, folder / "model.safetensors"
    name = "bert.embeddings.word_embeddings.weight"
    save_file(load_file(path) | {name: np.zeros((rows, tiny.CONFIG.hidden_size), np.float32)}, path)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"vocab_size": rows}))
    weights = path.stat().st_size
    tracemalloc.start()
    model = load_model(folder)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert weights > 76_000_000 and kept < 1_000_000 and peak < weights / 2  # reading any JSON file takes 32 MiB for a moment
    assert model.parameter_count * 4 == pytest.approx(weights, rel=1e-3)


def test_float32_is_the_file_and_cannot_be_changed(folder):
    parameters, stored = load_model(folder).parameters, load_file(folder / "model.safetensors")
    assert parameters.keys() == stored.keys() and len(parameters.items()) == len(stored)
    for name, array in parameters.items():
        assert not array.flags.owndata and not array.flags.writeable and array.flags.aligned
        assert array.dtype == np.float32 and parameters.shape(name) == array.shape == stored[name].shape
        np.testing.assert_array_equal(array, stored[name])
    with pytest.raises(ValueError, match="read-only"):
        parameters["classifier.bias"] += 1


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_file_whose_numbers_are_not_aligned_is_read_all_the_same(folder, shift):
    """The format does not ask other writers for alignment."""
    path = folder / "model.safetensors"
    expected, content = load_file(path), path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * shift
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    for name, array in load_model(folder).parameters.items():
        assert array.flags.aligned
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_are_made_float32(folder, kind):
    path = folder / "model.safetensors"
    arrays = {name: array.astype(kind) for name, array in load_file(path).items()}
    save_file(arrays, path)
    for name, array in load_model(folder).parameters.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32))


@pytest.mark.parametrize("change", [-1, -4096, 1])
def test_a_file_of_another_size_than_its_header_says_is_refused(folder, change):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"\0")
    with pytest.raises(CheckpointError, match="model.safetensors: "):
        load_model(folder)


def test_a_file_that_is_cut_while_it_is_opened_is_refused(folder, monkeypatch):
    path = folder / "model.safetensors"

    class Checked:
        def __init__(self, *_, **options):
            pass

        def __enter__(self):
            os.truncate(path, path.stat().st_size - 4)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(stored_tensors, "safe_open", Checked)
    with pytest.raises(CheckpointError, match="its size changed while it was opened"):
        load_model(folder)


def test_a_released_tensor_is_read_again(folder):
    file = TensorFile(folder / "model.safetensors")
    tensor = file.tensor("classifier.weight")
    before = tensor.read()
    kept = before.copy()
    tensor.release()
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(tensor.read(), kept)


# The digest of a teacher.


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """The models whose digest was computed and not remembered."""
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_tensors, "_TICK_NS", 0)
    computed, compute = [], teacher_identity._computed_digest
    monkeypatch.setattr(teacher_identity, "_computed_digest", lambda model: computed.append(model) or compute(model))
    return computed


def test_the_digest_of_an_untouched_file_is_computed_once(folder, counted):
    first = model_digest(load_model(folder))
    assert [model_digest(load_model(folder)) for _ in range(3)] == [first] * 3 and len(counted) == 1
    [entry] = kind_folder("digests").iterdir()
    entry.write_text("{")  # whatever is there
    assert model_digest(load_model(folder)) == first and len(counted) == 2
    entry.unlink()
    entry.mkdir()
    assert [model_digest(load_model(folder)) for _ in range(2)] == [first] * 2


@pytest.mark.parametrize("times", ["new", "put back"])
def test_one_changed_weight_is_another_teacher(folder, counted, times):
    """Also where size and time of the file are put back by hand: the kernel's own time of the last change cannot be."""
    path = folder / "model.safetensors"
    status, first = path.stat(), model_digest(load_model(folder))
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    if times == "put back":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
    assert model_digest(load_model(folder)) != first and len(counted) == 2


def test_another_configuration_is_another_teacher(folder, counted):
    first = model_digest(load_model(folder))
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"layer_norm_eps": 1e-5}))
    assert model_digest(load_model(folder)) != first


def test_a_file_that_was_just_written_is_not_remembered(folder, counted, monkeypatch):
    """Another change within the same tick of the clock would not show."""
    monkeypatch.setattr(stored_tensors, "_TICK_NS", 2_000_000_000)
    (folder / "model.safetensors").touch()
    model_digest(load_model(folder))
    assert not kind_folder("digests").exists()
    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(stored_tensors.time, "time_ns", lambda: later)
    model_digest(load_model(folder))
    assert len(list(kind_folder("digests").iterdir())) == 1


def test_the_digest_is_that_of_earlier_versions(folder, counted):
    """By which caches that are complete are found again."""
    model = load_model(folder)
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name, array in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.tobytes())
    assert model_digest(model) == digest.hexdigest()

"""PyTorch's pickles that are damaged, or that describe tensors which are not in their storages, are refused with the file and
the tensor."""

from __future__ import annotations

import re
import struct
import zipfile

import numpy as np
import pytest

from crossdistil.converters import torch_archive
from crossdistil.converters.torch_pickle import is_checkpoint, open_checkpoint, write
from crossdistil.converters.torch_pickle_write import _global as named
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import FUZZED_FILES, mutated, tensors_of
from crossdistil.tests.torch_pickle_files import (
    ARGUMENTS,
    REFERENCE,
    archive,
    arrays_of,
    both_formats,
    pickled,
    quiet,
    storing,
    torch_only,
)

pytestmark = quiet

# ---------------------------------------------------------------------------------------------- wild arguments

HUGE = b"\x8a\x0a" + b"\xff" * 9 + b"\x00"
WILD = {
    "nothing": b"",
    "no storage": b"K\x01" + ARGUMENTS,
    "a function": named("torch._utils", "_rebuild_tensor_v2") + ARGUMENTS,
    "offset": REFERENCE + b"K\x01K\x02K\x02\x86K\x02K\x01\x86\x89}",
    "negative offset": REFERENCE + b"J\xff\xff\xff\xffK\x02K\x02\x86K\x02K\x01\x86\x89}",
    "huge offset": REFERENCE + HUGE + b"K\x02K\x02\x86K\x02K\x01\x86\x89}",
    "shape": REFERENCE + b"K\x00K\x02K\x03\x86K\x02K\x01\x86\x89}",
    "negative shape": REFERENCE + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89}",
    "huge shape": REFERENCE + b"K\x00" + HUGE + b"\x85K\x00\x85\x89}",
    "hidden shape": REFERENCE + b"K\x00K\x00" + HUGE + b"\x86K\x00K\x00\x86\x89}",
    "repeated": REFERENCE + b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85\x89}",
    "strides": REFERENCE + b"K\x00K\x02\x85K\x04\x85\x89}",
    "negative strides": REFERENCE + b"K\x03K\x02\x85J\xff\xff\xff\xff\x85\x89}",
    "huge strides": REFERENCE + b"K\x00K\x02\x85" + HUGE + b"\x85\x89}",
    "fewer strides": REFERENCE + b"K\x00K\x02K\x02\x86K\x01\x85\x89}",
    "text": REFERENCE + b"K\x00X\x01\0\0\0aK\x01\x85\x89}",
    "many": REFERENCE + b"K\x00(" + b"K\x01" * 40 + b"t(" + b"K\x01" * 40 + b"t\x89}",
    "negated": REFERENCE + ARGUMENTS + b"}X\x03\0\0\0neg\x88s",
    "too many": REFERENCE + ARGUMENTS * 2,
}


@pytest.mark.parametrize("case", WILD)
def test_wild_arguments(tmp_path, case):
    path = archive(tmp_path / "a.pt", pickled(WILD[case]))
    with pytest.raises(CheckpointError, match=r"a\.pt: "):
        open_checkpoint(path)


def test_what_wild_arguments_are_made_from(tmp_path):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS), np.arange(4, dtype=np.float32).tobytes())
    assert arrays_of(path)["w"].tolist() == [[0, 1], [2, 3]]


# ---------------------------------------------------------------------------------------------- damage


def test_archives_that_are_wrong(tmp_path):
    good = pickled(REFERENCE + ARGUMENTS)
    path = tmp_path / "a.pt"
    for options, message in (
        ({"order": b"big"}, "was saved with byte order 'big', expected 'little'"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or encrypted, which PyTorch's are not"),
        ({"storage": None}, "w: its storage 0 is missing"),
        ({"storage": bytes(12)}, "w: its storage has 12 bytes, expected 16"),
        ({"more": {"constants.pkl": b""}}, "is a TorchScript program"),
    ):
        with pytest.raises(CheckpointError, match=rf"a\.pt: .*{message}"):
            open_checkpoint(archive(path, good, **options))
    assert arrays_of(archive(path, good, order=None))["w"].tolist() == [[0, 0], [0, 0]]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "")
    assert not is_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"a\.pt: has 0 entries NAME/data\.pkl, expected 1"):
        open_checkpoint(path)


def test_any_changed_bit_of_the_numbers_is_found(tmp_path):
    arrays = {"a": np.arange(4, dtype=np.float32), "b.weight": np.arange(3, dtype=np.int8)}
    write(tmp_path, tensors_of(arrays))
    path = tmp_path / "pytorch_model.bin"
    whole = path.read_bytes()
    for name, array in arrays.items():
        start = whole.index(array.tobytes(), whole.index(b"archive/data/" + str([*arrays].index(name)).encode()))
        for place in range(start, start + array.nbytes):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin: {name} is damaged: the checksum of its storage"):
                arrays_of(path)


@torch_only
def test_a_changed_bit_beside_a_view_is_found_once(tmp_path):
    import torch

    base = torch.arange(8, dtype=torch.float32)
    path = storing(tmp_path / "a.pt", {"left": base[:2], "right": base[6:], "steps": base[::3]})
    tensors = open_checkpoint(path).tensors
    assert [tensor.load().tolist() for tensor in tensors.values()] == [[0, 1], [6, 7], [0, 3, 6]]
    whole = bytearray(path.read_bytes())
    whole[whole.index(base.numpy().tobytes()) + 12] ^= 1
    path.write_bytes(whole)
    for name in ("left", "right", "steps"):
        with pytest.raises(CheckpointError, match=rf"a\.pt: {name} is damaged"):
            open_checkpoint(path).tensors[name].load()


@torch_only
@both_formats
def test_any_missing_end_is_found(tmp_path, zipped):
    import torch

    path = storing(tmp_path / "a.pt", {"first": torch.arange(4.0), "last": torch.arange(4.0) + 5}, zipped)
    whole = path.read_bytes()
    messages = set()
    for size in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:size])
        assert is_checkpoint(path) or size < 100
        with pytest.raises(CheckpointError, match=r"a\.pt: ") as error:
            open_checkpoint(path)
        messages.add(re.sub(r"\d+", "", str(error.value).removeprefix(f"{path}: ")))
    assert len(messages) > 1
    if not zipped:
        # PyTorch sorts the storages by their keys, which are addresses: either may be the last in the file.
        assert f"{'first' if whole.endswith(torch.arange(4.0).numpy().tobytes()) else 'last'} is cut off" in messages
        path.write_bytes(whole + b"a")
        with pytest.raises(CheckpointError, match=r"a\.pt: 1 bytes follow the last storage"):
            open_checkpoint(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a"
    archives = (b"PK\x03\x04", b"PK\x03\x04" + b"\xff" * 100, b"PK\x05\x06" + bytes(18))
    for data in (b"", b"a", b"\x80", b"\x80\x02].", b"{}" * 50, *archives):
        path.write_bytes(data)
        assert not is_checkpoint(path)
        with pytest.raises(CheckpointError, match=r"/a: "):
            open_checkpoint(path)
    path.unlink()
    assert not is_checkpoint(path) and not is_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"/a: cannot be read: No such file"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"has neither pytorch_model\.bin nor pytorch_model\.bin\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 8)])
def test_an_entry_that_says_it_is_encrypted_or_compressed(tmp_path, place, value):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pt: archive/data\.pkl is compressed or encrypted"):
        open_checkpoint(path)


def test_a_directory_that_is_large(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    monkeypatch.setattr(torch_archive, "_MAX_DIRECTORY", 200)
    with pytest.raises(CheckpointError, match=r"a\.pt: .*the directory has 2\d\d bytes, expected at most 200"):
        open_checkpoint(path)


def test_a_directory_that_claims_to_be_large(tmp_path):
    path = archive(tmp_path / "a.pt", pickled(REFERENCE + ARGUMENTS))
    data = bytearray(path.read_bytes())
    data[-10:-6] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pt: is cut off or damaged: its directory"):
        open_checkpoint(path)


def fuzz(path, write_damaged):
    """How many of the damaged files were read, at most `FUZZED_FILES`; any other exception than CheckpointError fails."""
    read = 0
    for number in range(FUZZED_FILES):
        path.unlink(missing_ok=True)
        write_damaged(number)
        try:
            is_checkpoint(path)
            for tensor in open_checkpoint(path).tensors.values():
                assert tensor.load().nbytes == tensor.info.size
            read += 1
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error)) < 1500
    return read


@torch_only
def test_ten_thousand_damaged_archives(tmp_path):
    import torch

    generator, path = np.random.default_rng(0), tmp_path / "a.pt"
    whole = storing(path, {"a": torch.ones(2, 2).T, "b": torch.ones(3, dtype=torch.bool), "n": 1}).read_bytes()
    with zipfile.ZipFile(path) as file:
        content, storage = file.read("a/data.pkl"), file.read("a/data/0")

    def damaged(number):
        if number % 2:
            path.write_bytes(mutated(generator, whole))
        else:  # the pickle alone, with the right checksum
            archive(path, mutated(generator, content), storage, more={"data/1": b"\1\1\1"})

    assert 50 < fuzz(path, damaged) < FUZZED_FILES


@torch_only
def test_ten_thousand_damaged_files_of_the_old_format(tmp_path):
    import torch

    generator, path = np.random.default_rng(1), tmp_path / "a.pt"
    whole = storing(path, {"a": torch.ones(2, 2).T, "b": torch.ones(3, dtype=torch.bool), "n": 1}, False).read_bytes()
    assert 50 < fuzz(path, lambda _: path.write_bytes(mutated(generator, whole))) < FUZZED_FILES

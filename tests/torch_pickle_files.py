"""PyTorch's checkpoints for the tests: as torch.save writes them, and archives of hand-made pickles."""

from __future__ import annotations

import zipfile

import pytest

from crossdistil.converters.torch_pickle import open_checkpoint
from crossdistil.converters.torch_pickle_write import _global as named

# What pickletools says to damaged names, and PyTorch of its own jit.
quiet = pytest.mark.filterwarnings("ignore:invalid escape sequence", "ignore:.*torch.jit")

torch_only = pytest.mark.only_backend("torch")
both_formats = pytest.mark.parametrize("zipped", [True, False])


def arrays_of(path):
    """What the tensors of a checkpoint hold."""
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


def storing(path, value, zipped=True):
    """The path, where torch.save wrote the value; not zipped is the format before 1.6."""
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


REFERENCE = b"(X\x07\0\0\0storage" + named("torch", "FloatStorage") + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
"""A storage of 4 floats."""

ARGUMENTS = b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89}"
"""What follows it for a tensor [2, 2] of the whole storage."""


def archive(path, content, storage=bytes(16), order=b"little", compression=zipfile.ZIP_STORED, more=()):
    """A file of PyTorch's with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        entries = {"data.pkl": content, "byteorder": order, "data/0": storage, "version": b"3", **dict(more)}
        for name, data in entries.items():
            if data is not None:
                file.writestr(f"archive/{name}", data)
    return path


def pickled(arguments):
    """{"w": a tensor of these arguments}"""
    return b"\x80\x02}X\x01\0\0\0w" + named("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tRs."

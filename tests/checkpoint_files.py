"""What the tests of several checkpoint formats share: tensors of every type, damage done to the bytes of a file, and the memory
that a conversion takes."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name

FUZZED_FILES = 10_000


def tensors_of(arrays):
    """Tensors as a writer takes them."""
    return [
        Tensor(TensorInfo(name, array.shape, dtype_name(array.dtype)), lambda array=array: array)
        for name, array in arrays.items()
    ]


def every_type(generator=None):
    """An array of random bytes of each type, and all kinds of shapes."""
    generator = generator or np.random.default_rng(0)
    arrays = {}
    for name, dtype in DTYPES.items():
        bits = generator.integers(0, 2 if name == "BOOL" else 256, 24 * dtype.itemsize, dtype=np.uint8)
        arrays[f"x.{name}"] = bits.view(dtype).reshape(2, 3, 4)
    return arrays | {
        "scalar": np.array(1.5, np.float32),
        "counter": np.array(7, np.int64),
        "empty": np.empty((0, 3), np.float32),
        "umlaut-ä \U0001f600 \"'\\": np.arange(3, dtype=np.int8),
    }


def assert_same(found, expected):
    """Names, types, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].flags.c_contiguous and found[name].flags.writeable, name
        assert found[name].tobytes() == array.tobytes(), name


def assert_same_bits(found, expected):
    """Shape, type and bits of one array."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def mutated(generator, data):
    """The bytes with one to three damages: cut, changed, put in, overwritten, or a number that became another."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        size = len(changed)
        place, count = int(generator.integers(size + 1)), int(generator.integers(1, 9))
        match generator.integers(6):
            case 0:
                del changed[place:]
            case 1 if place < size:
                changed[place] ^= 1 << int(generator.integers(8))
            case 2:
                changed[place:place] = generator.bytes(count)
            case 3:
                changed[place : place + count] = generator.choice([b"\xff", b"\x00", b"\x7f"]) * count
            case 4:
                changed[place : place + count] = generator.bytes(count)
            case 5:
                numbers = [0, 1, size, size + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
                number = struct.pack("<Q", numbers[generator.integers(len(numbers))])
                changed[place : place + 8] = number[: generator.choice([1, 2, 4, 8])]
    return bytes(changed)


@pytest.fixture
def tiny_bert():
    """A BertModel of transformers with random weights."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertModel(BertConfig(vocab_size=50, max_position_embeddings=20, **sizes)).eval()


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from crossdistil.converters import safetensors_files, torch_pickle
from crossdistil.converters.tensors import Tensor, TensorInfo
module = {"safetensors": safetensors_files, "torch": torch_pickle}[sys.argv[1]]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
made = [Tensor(TensorInfo(f"t{i}", (2, 1 << 20), "F32"), lambda: np.ones((2, 1 << 20), np.float32)) for i in range(12)]
folder = Path(sys.argv[2])
module.write(folder, made)
(folder / "second").mkdir()
module.write(folder / "second", list(module.open_checkpoint(folder).tensors.values()), shard_size=20 << 20)
assert [float(t.load().sum()) for t in module.open_checkpoint(folder / "second").tensors.values()] == [2 * 2.0**20] * 12
print(peak() - before)
"""


def memory_of(module, folder):
    """MiB above the start of a process that writes 12 tensors of 8 MiB, converts them to several files and reads those."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", MEMORY, module, folder], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)

"""Conversions in processes of their own: no framework is imported, little memory is taken, and a kill leaves no half result."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from crossdistil.converters import tensorflow_checkpoint
from crossdistil.converters.dialects import foreign_names
from crossdistil.converters.tensors import Tensor, TensorInfo
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.tests.conversion_sources import BERT, write_config, write_source
from crossdistil.tests.wrong_input_files import crossdistil as command


@pytest.fixture
def source(tmp_path):
    write_source(tmp_path / "source", BERT)
    return tmp_path / "source"


_WITHOUT_FRAMEWORKS = """
import sys
import crossdistil
from pathlib import Path
source, out = map(Path, sys.argv[1:])
for to in ("pytorch", "tf", "mindspore", "oneflow"):
    crossdistil.convert(source, out / to, to=to)
    crossdistil.convert(out / to, out / (to + "-back"), to="pytorch", layout="bin")
    crossdistil.inspect(out / to)
found = {"torch", "tensorflow", "mindspore", "oneflow"} & set(sys.modules)
assert not found, found
"""


def test_no_framework_is_imported(source, tmp_path):
    done = subprocess.run([sys.executable, "-c", _WITHOUT_FRAMEWORKS, source, tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_PEAK = """
import sys
import crossdistil
peak = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
small, source, out, to = sys.argv[1:]
crossdistil.convert(small, out + "-small", to=to)
before = peak()
crossdistil.convert(source, out, to=to)
print(peak() - before)
"""
LARGEST, WHOLE = 16, 110
"""MiB of the word embeddings, and at least of the model."""


def write_large(folder) -> None:
    """A TensorFlow checkpoint whose numbers are nowhere in memory all at once."""
    sizes = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    config = BertConfig(vocab_size=8192, num_hidden_layers=8, **sizes)
    write_config(folder, config, None)
    shapes = tensor_shapes(config, None)
    tensors = []
    for name, (foreign, transpose) in foreign_names(shapes, "bert", "tensorflow").items():
        shape = shapes[name][::-1] if transpose else shapes[name]
        info = TensorInfo(foreign, shape, "F32")
        tensors.append(Tensor(info, lambda shape=shape: np.full(shape, 0.5, np.float32)))
    sizes = [tensor.info.size / 2**20 for tensor in tensors]
    assert max(sizes) == LARGEST and sum(sizes) > WHOLE
    tensorflow_checkpoint.write(folder, tensors)


def test_memory_holds_a_tensor_and_not_the_model(tmp_path, source):
    """Above what the same conversion of a tiny model takes."""
    write_large(tmp_path / "tf")
    for large, to in (("tf", "pytorch"), ("pytorch", "mindspore")):
        call = [sys.executable, "-c", _PEAK, source, tmp_path / large, tmp_path / to, to]
        peak = int(subprocess.run(call, capture_output=True, text=True, check=True).stdout) / 1024
        assert peak < 3 * LARGEST + 16, f"{large} to {to}: {peak:.0f} MiB"


_SLOW = """
import sys, time
from crossdistil.converters import convert
whole = convert._target
def slow(*arguments):
    tensor = whole(*arguments)
    def load():
        time.sleep(0.3)
        return tensor.load()
    return type(tensor)(tensor.info, load)
convert._target = slow
import crossdistil
crossdistil.convert(sys.argv[1], sys.argv[2], to="mindspore")
"""


def test_a_conversion_that_is_killed(tmp_path, source):
    process = subprocess.Popen([sys.executable, "-c", _SLOW, source, tmp_path / "out"])
    end = time.monotonic() + 60
    while not any(tmp_path.rglob("model.ckpt")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert command("convert", source, tmp_path / "out", "--to", "mindspore").code == 0

"""Pickles from strangers, alone and in PyTorch's checkpoints: what would run code is refused and does not run, and what is made
to exhaust its reader costs nothing."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from crossdistil.converters.torch_pickle import is_checkpoint, open_checkpoint
from crossdistil.converters.torch_pickle_write import _global as named
from crossdistil.core import safe_pickle
from crossdistil.core.errors import CheckpointError
from crossdistil.core.safe_pickle import load, load_next
from crossdistil.tests.checkpoint_files import FUZZED_FILES, mutated
from crossdistil.tests.torch_pickle_files import archive, both_formats, quiet, storing, torch_only

pytestmark = quiet

# ---------------------------------------------------------------------------------------------- code


class Runs:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(folder):
    """Values that make a file when they are unpickled, as `pickle` shows."""
    target = str(folder / "ran")
    return {
        "os.system": Runs(os.system, f"touch {target}"),
        "eval": Runs(eval, f"open({target!r}, 'w').close()"),
        "open": Runs(open, target, "w"),
        "nested": {"model": {"w": [1, (2, {"a": Runs(exec, f"open({target!r}, 'w')")})]}},
        "getattr": Runs(getattr, "", "join"),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_and_does_not_run(tmp_path, protocol):
    for name, value in harmful(tmp_path).items():
        data = pickle.dumps({"a": value}, protocol)
        with pytest.raises(CheckpointError, match=r"^w: refused: the pickle would run [a-z_]+\.[a-z]+, which is no part"):
            load(data, "w", {("collections", "OrderedDict"): dict})
        assert not (tmp_path / "ran").exists()
        pickle.loads(data)
        assert (tmp_path / "ran").exists() or name == "getattr"
        (tmp_path / "ran").unlink(missing_ok=True)


@torch_only
@both_formats
def test_code_in_a_checkpoint_is_refused(tmp_path, zipped):
    import torch

    for value in harmful(tmp_path).values():
        path = storing(tmp_path / "a.pt", {"a": torch.ones(2), "b": value}, zipped)
        with pytest.raises(CheckpointError, match=r"a\.pt: .*refused: the pickle would run "):
            open_checkpoint(path)
        assert is_checkpoint(path) and not (tmp_path / "ran").exists()


@torch_only
@both_formats
def test_a_whole_model_is_refused(tmp_path, zipped):
    import torch

    path = storing(tmp_path / "a.pt", torch.nn.Linear(2, 2), zipped)
    message = r"would run torch\.nn\.modules\.linear\.Linear, .*; if a whole model was saved, save its state_dict\(\) instead"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt: is a TorchScript program; save the model's state_dict\(\) instead"):
        open_checkpoint(tmp_path / "b.pt")


def test_what_a_function_returns_is_not_called():
    with pytest.raises(CheckpointError, match="^w: .*something is called that is no function"):
        load(named("a", "b") + b")R)R.", "w", {("a", "b"): lambda: os.getpid})


# ---------------------------------------------------------------------------------------------- traps


def nested_pairs(depth):
    """A list of itself twice, and so on: exponentially large to whoever walks it."""
    return b"]" + b"".join(b"q" + bytes([n]) + b"0]h" + bytes([n]) + b"ah" + bytes([n]) + b"a" for n in range(depth))


def pairs_of_dictionaries(depth):
    """The same, of dictionaries."""
    parts = (b"q" + bytes([n]) + b"0}K\x00h" + bytes([n]) + b"sK\x01h" + bytes([n]) + b"s" for n in range(depth))
    return b"}" + b"".join(parts)


TRAPS = {
    "empty": b"",
    "no end": b"]",
    "unknown": b"\xff",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "longest bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b"a.",
    "long text": b"X\xff\xff\xff\x7fa.",
    "long integer": b"\x8b\xff\xff\xff\x7f1.",
    "negative integer": b"\x8b\xff\xff\xff\xff1.",
    "many bits": b"\x8b\x00\x01\x00\x00" + b"\x01" * 256 + b".",
    "many digits": b"I" + b"1" * 100_000 + b"\n.",
    "long line": b"V" + b"1" * 100_000 + b"\n.",
    "memo": b"]r\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
    "text memo": b"]p" + b"9" * 20 + b"\ng1\n.",
    "no memo": b"h\x00.",
    "frames": b"\x80\x04\x95" + b"\xff" * 8 + b"]]" + b".",
    "protocol": b"\x80\x09].",
    "no mark": b"t.",
    "open mark": b"(].",
    "two values": b"]].",
    "no value": b"N0.",
    "empty stack": b"\x85.",
    "set": b"\x8f.",
    "extension": b"\x82\x01.",
    "old object": b"(ios\nsystem\n.",
    "object": b"(" + named("a", "b") + b"o.",
    "buffer": b"\x97.",
    "byte array": b"\x80\x05\x96\x01" + b"\0" * 7 + b"a.",
    "keyword arguments": named("a", "b") + b")}\x92.",
    "call of a text": b"X\x01\0\0\0a)R.",
    "attributes of a function": named("a", "b") + b"}X\x0c\0\0\0__defaults__)sb.",
    "attributes of a number": b"K\x01}b.",
    "reference": b"NQ.",
    "a list as key": b"}]Ns.",
    "a tuple as key": b"})Ns.",
    "keys of one hash": b"}\x8a\x09" + b"\x01" + b"\x00" * 7 + b"\x20Ns.",
    "key twice": b"}K\x01NsK\x01Ns.",
    "append to a dictionary": b"}Na.",
    "odd entries": b"}(Nu.",
    "name of a number": b"K\x01K\x01\x93.",
    "more": b"N.N",
}


@pytest.mark.parametrize("case", TRAPS)
def test_a_pickle_that_is_a_trap(case):
    with pytest.raises(CheckpointError, match="^w: "):
        load(TRAPS[case], "w", {("a", "b"): lambda: 1})


def test_too_many_instructions(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 1000)
    assert load(b"]" + b"N0" * 499 + b".", "w", {}) == []
    with pytest.raises(CheckpointError, match="^w: the pickle has more than 1,000 instructions"):
        load(b"]" + b"N0" * 500 + b".", "w", {})


def test_no_more_is_asked_of_a_file_than_it_has():
    class File(io.BytesIO):
        asked = 0

        def read(self, count):
            self.asked = max(self.asked, count)
            return super().read(count)

        def readline(self, count):
            return self.read(count)

    for trap in ("long bytes", "longest bytes", "long text", "long integer", "negative integer", "frames", "long line"):
        file = File(TRAPS[trap])
        with pytest.raises(CheckpointError, match="^w: "):
            load_next(file, len(TRAPS[trap]), "w", {})
        assert file.asked <= 1 << 16


def test_depth_and_doubling_cost_nothing(tmp_path):
    deep = load(b"]" * 200_000 + b"a" * 199_999 + b".", "w", {})
    assert len(deep) == 1
    wide = load(nested_pairs(200) + b".", "w", {})
    assert wide[0] is wide[1]
    for content in (nested_pairs(200), pairs_of_dictionaries(200), b"}q\x00K\x01h\x00s"):
        for around in (b"%s.", b"}X\x05\0\0\0model%ss.", b"}K\x01%ss."):
            with pytest.raises(CheckpointError, match=r"a\.pt: "):
                open_checkpoint(archive(tmp_path / "a.pt", b"\x80\x02" + around % content))


def test_ten_thousand_damaged_pickles():
    generator = np.random.default_rng(2)
    allowed = {("collections", "OrderedDict"): dict, ("builtins", "complex"): complex}
    value = {"a": [1, 2.5, 2**70, None, True, "text"], "b": collections.OrderedDict(x=(1, 2), y=1j), 3: ("a", ()), "c": "x" * 300}
    read = 0
    for number in range(FUZZED_FILES):
        data = mutated(generator, pickle.dumps(value, number % 6))
        try:
            load(data, "w", allowed)
            read += 1
        except CheckpointError as error:
            assert str(error).startswith("w: ")
    assert 50 < read < FUZZED_FILES


# ---------------------------------------------------------------------------------------------- plain values


def test_plain_values_of_every_protocol():
    values = [1, 2.5, -3, 2**70, None, True, False, "é\n", (1,), (1, 2, 3, 4), {"x": -(2**40)}, ()]
    value = {"a": values, 1: {2: 3}, None: "x" * 300}
    for protocol in range(6):
        assert load(pickle.dumps(value, protocol), "w", {}) == value
    for protocol in (3, 4, 5):
        assert load(pickle.dumps([b"abc", b"x" * 300], protocol), "w", {}) == [b"abc", b"x" * 300]
    assert load(b"U\x02\xc3\xa9.", "w", {}) == "é"  # a text of Python 2

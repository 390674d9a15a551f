"""OneFlow's folders whose pickle would run code, whose paths lead out of them, or whose variables are damaged, are refused
with the folder and the tensor."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from crossdistil.converters.oneflow_folder import is_checkpoint, open_checkpoint
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.mindspore_checkpoint_files import mutated
from crossdistil.tests.oneflow_folder_files import (
    ONEFLOW,
    dictionary,
    flow_saved,
    meta_of,
    saved,
    tensor_at,
    text,
    variables,
)

__all__ = ["saved", "variables"]

# ---------------------------------------------------------------------------------------------- pickles and paths

PICKLES = {
    "system": (b"cposix\nsystem\n(Vtrue\ntR.", "refused: the pickle would run posix.system"),
    "in a tensor": (flow_saved(dictionary(a=tensor_at("tensor_2", "oneflow.nn", "Module"))), "would run oneflow.nn.Module"),
    "no dictionary": (b"\x80\x04].", "is not of flow.save"),
    "version": (b"\x80\x04" + dictionary(protocol_version=b"K\x02", data=b"}") + b".", "is not of flow.save"),
    "true": (b"\x80\x04" + dictionary(protocol_version=b"\x88", data=b"}") + b".", "is not of flow.save"),
    "no data": (b"\x80\x04" + dictionary(protocol_version=b"K\x01") + b".", "is not of flow.save"),
    "list": (flow_saved(b"]"), "is a list; expected a state dict"),
    "empty": (flow_saved(b"}"), "holds no state dict; .* found nothing"),
    "deep": (flow_saved(dictionary(net=dictionary(w=tensor_at("tensor_2")))), "holds no state dict; .* found net"),
    "no path": (flow_saved(dictionary(a=text("oneflow") + text("Tensor") + b"\x93)\x81")), "'a': has no path"),
    "no text": (flow_saved(dictionary(a=tensor_at("tensor_2")[:-15] + b"K\x01sb")), "not one path"),
    "two paths": (flow_saved(dictionary(a=tensor_at("tensor_2") + b"}" + text("path") + text("x") + b"sb")), "not one path"),
    "arguments": (flow_saved(dictionary(a=text("oneflow") + text("Tensor") + b"\x93K\x01\x85\x81")), "no pickle of what it"),
    "number": (flow_saved(b"}(K\x01" + tensor_at("tensor_2") + b"u"), "the name of a tensor is a int"),
    "cut off": (ONEFLOW[:-30], "no pickle of what it should hold, or damaged"),
    "nothing": (b"", "no pickle of what it should hold, or damaged"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_wrong_pickle_is_named(saved, case):
    data, message = PICKLES[case]
    (saved / "pickled_data").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"model.*: .*{message}"):
        open_checkpoint(saved)


def test_paths_do_not_lead_out(saved, tmp_path):
    shutil.copytree(saved / "tensor_2", tmp_path / "outside")
    outside = str(tmp_path / "outside")
    for path in ("../outside", outside, "..", ".", "", "tensor_2/../../outside", "a\0b", "..\\outside", "tensor_2/"):
        (saved / "pickled_data").write_bytes(flow_saved(dictionary(w=tensor_at(path))))
        with pytest.raises(CheckpointError, match=r"model: 'w': refused: its path .* is no name of a folder"):
            open_checkpoint(saved)
    (saved / "inside").symlink_to(tmp_path / "outside")
    (saved / "pickled_data").write_bytes(flow_saved(dictionary(w=tensor_at("inside"))))
    with pytest.raises(CheckpointError, match=r"inside: 'w': is a link"):
        open_checkpoint(saved)
    for name in ("out", "meta"):
        (saved / "inside").unlink(missing_ok=True)
        shutil.copytree(saved / "tensor_2", saved / "inside", dirs_exist_ok=True)
        (saved / "inside" / name).unlink()
        (saved / "inside" / name).symlink_to(tmp_path / "outside" / name)
        with pytest.raises(CheckpointError, match=rf"inside: 'w': {name} is a link"):
            open_checkpoint(saved)
        shutil.rmtree(saved / "inside")


def test_links_among_variables(variables, tmp_path):
    shutil.copytree(variables / "bert-a.w", tmp_path / "outside")
    (variables / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="linked: 'linked': is a link"):
        open_checkpoint(variables)


# ---------------------------------------------------------------------------------------------- damaged variables

METAS = {
    "empty": ("", "meta is not understood"),
    "words": ("the film was good", "meta is not understood"),
    "bytes": ("\x00\xff", "meta is not understood"),
    "no type": ("shape {\n  dim: 2\n  dim: 3\n}\n", "meta is not understood"),
    "negative": (meta_of(2, -3), "meta is not understood"),
    "octal": (meta_of("02", 3), "meta is not understood"),
    "type": (meta_of(2, 3, kind="kFloat12"), "meta has the data_type 'kFloat12'; expected one of kFloat, kDouble"),
    "number": (meta_of(2, 3, kind="2"), "meta has the data_type '2'"),
    "other type": (meta_of(2, 3, kind="kDouble"), r"out has 24 bytes, but 48 are expected of the shape \[2, 3\] of F64"),
    "larger": (meta_of(2, 4), r"out has 24 bytes, but 32"),
    "smaller": (meta_of(2, 2), r"out has 24 bytes, but 16"),
    "impossible": (meta_of(1 << 60, 1 << 60), "impossible shape"),
    "impossible nothing": (meta_of(1 << 60, 0), "impossible shape"),
    "dimensions": (meta_of(*[1] * 40, 6), "impossible shape"),
    "long": (meta_of(2, 3) + " " * 5000, "meta is longer than any shape"),
}


@pytest.mark.parametrize("case", METAS)
def test_a_wrong_meta_is_named(saved, variables, case):
    meta, message = METAS[case]
    for folder, name in ((saved / "tensor_2", "weight"), (variables / "bert-a.w", "bert-a.w")):
        (folder / "meta").write_text(meta, encoding="latin-1")
        with pytest.raises(CheckpointError, match=rf"{folder}: '{name}': .*{message}"):
            open_checkpoint(folder.parent)
        (folder / "meta").write_text(meta_of(2, 3))


def test_missing_and_short_files(saved, tmp_path):
    out, meta = saved / "tensor_2" / "out", saved / "tensor_2" / "meta"
    tensor = open_checkpoint(saved).tensors["weight"]
    out.write_bytes(bytes(23))
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out has 23 bytes, but 24"):
        open_checkpoint(saved)
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out became shorter"):
        tensor.load()
    out.unlink()
    for action in (lambda: open_checkpoint(saved), tensor.load):
        with pytest.raises(CheckpointError, match="tensor_2: 'weight': out (is missing or )?cannot be read: No such file"):
            action()
    out.mkdir()
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out is a link, folder or device"):
        open_checkpoint(saved)
    meta.unlink()
    shutil.rmtree(saved / "tensor_2")
    with pytest.raises(CheckpointError, match="tensor_2: 'weight': out is missing"):
        open_checkpoint(saved)
    for wrong in (tmp_path / "missing", saved / "pickled_data"):
        assert not is_checkpoint(wrong)
        with pytest.raises(CheckpointError, match="is no folder"):
            open_checkpoint(wrong)
    (tmp_path / "empty").mkdir()
    assert not is_checkpoint(tmp_path / "empty") and not is_checkpoint(tmp_path / "a\0b")
    with pytest.raises(CheckpointError, match="there is no variable in this folder"):
        open_checkpoint(tmp_path / "empty")


def test_missing_and_short_files_of_variables(variables):
    folder = variables / "bert-a.w"
    (folder / "meta").unlink()
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': meta is missing"):
        open_checkpoint(variables)
    (variables / "bert-a.w-m" / "meta").unlink()
    assert open_checkpoint(variables).tensors["bert-a.w"].info.shape == (6,)
    (folder / "out").write_bytes(bytes(23))
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': out has 23 bytes, which is no row of float32"):
        open_checkpoint(variables)
    (folder / "out").unlink()
    with pytest.raises(CheckpointError, match=r"'bert-a\.w': out is missing"):
        open_checkpoint(variables)


def test_ten_thousand_damaged_pickles_and_metas(saved):
    generator = np.random.default_rng(0)
    originals = {saved / "pickled_data": ONEFLOW, saved / "tensor_2" / "meta": meta_of(2, 3).encode()}
    opened = 0
    for path, data in originals.items():
        for _ in range(10_000):
            path.unlink()
            path.write_bytes(mutated(generator, data))
            assert is_checkpoint(saved)
            try:
                for tensor in open_checkpoint(saved).tensors.values():
                    assert tensor.load().nbytes == tensor.info.size <= 64
                opened += 1
            except CheckpointError as error:
                assert str(error).startswith(str(saved)) and str(error).isprintable() and len(str(error)) < 1000
        path.write_bytes(data)
    assert 100 < opened < 10_000


def test_a_meta_that_takes_long_does_not(saved):
    long = " " * 4000
    for meta in (long, "shape" + long, "shape {" + long, "shape {" + " dim: 1" * 580 + " !", meta_of(*"1" * 400)):
        (saved / "tensor_2" / "meta").write_text(meta)
        start = time.perf_counter()
        with pytest.raises(CheckpointError):
            open_checkpoint(saved)
        assert time.perf_counter() - start < 1

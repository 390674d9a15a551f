"""Folders exchanged with OneFlow itself: those that it saves are read with identical bits, and it loads those written here."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.converters import oneflow_legacy
from crossdistil.converters.oneflow_folder import open_checkpoint, write
from crossdistil.converters.tensors import DTYPES
from crossdistil.tests.checkpoint_files import assert_same_bits, tensors_of
from crossdistil.tests.oneflow_folder_files import arrays_of_all_types


def make_module(seed):
    import oneflow as flow

    flow.manual_seed(seed)

    class Module(flow.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = flow.nn.Linear(3, 2)
            self.norm = flow.nn.BatchNorm1d(2)
            self.register_buffer("ids", flow.arange(4) + seed)
            self.scale = flow.nn.Parameter(flow.tensor(1.5 + seed))

        def forward(self, x):
            return self.norm(self.dense(x)) * self.scale

    return Module()


@pytest.mark.only_backend("oneflow")
def test_a_state_dict_that_oneflow_saves_is_read_and_its_copy_loaded(tmp_path):
    import oneflow as flow

    module = make_module(1)
    flow.save(module.state_dict(), str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    state = module.state_dict()
    assert list(checkpoint.tensors) == list(state) and "scale" in state and checkpoint.skipped == {}
    for name, tensor in state.items():
        assert_same_bits(checkpoint.tensors[name].load(), tensor.numpy())
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy", list(checkpoint.tensors.values()))
    other = make_module(2)
    loaded = flow.load(str(tmp_path / "copy"))
    assert list(loaded) == list(state) and loaded["dense.weight"].dtype == flow.float32
    other.load_state_dict(loaded, strict=True)
    for name, tensor in other.state_dict().items():
        assert_same_bits(tensor.numpy(), state[name].numpy())


@pytest.mark.only_backend("oneflow")
def test_a_dictionary_with_a_state_dict_that_oneflow_saves_is_read(tmp_path):
    import oneflow as flow

    module = make_module(1)
    optimizer = flow.optim.Adam(module.parameters(), lr=0.1)
    module(flow.ones(4, 3)).sum().backward()
    optimizer.step()
    whole = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": 0.5, "scores": [flow.ones(2)]}
    flow.save(whole, str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert list(checkpoint.tensors) == list(module.state_dict()) and "'model'" in checkpoint.notes[1]
    assert list(checkpoint.skipped) == ["optimizer", "epoch", "best", "scores"]
    for name, tensor in module.state_dict().items():
        assert_same_bits(checkpoint.tensors[name].load(), tensor.numpy())


@pytest.mark.only_backend("oneflow")
def test_every_type_that_oneflow_saves_is_read(tmp_path):
    import oneflow as flow

    arrays = arrays_of_all_types()
    flow.save({name: flow.tensor(array) for name, array in arrays.items()}, str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert list(checkpoint.tensors) == list(arrays)
    for name, array in arrays.items():
        assert_same_bits(checkpoint.tensors[name].load(), array)
    values = np.array([0, 1.5, -2, 3e38], "<f4").astype(DTYPES["BF16"]).astype("<f4")
    flow.save({"a": flow.tensor(values).to(flow.bfloat16)}, str(tmp_path / "bfloat16"))
    assert_same_bits(open_checkpoint(tmp_path / "bfloat16").tensors["a"].load(), values)


@pytest.mark.only_backend("oneflow")
def test_oneflow_loads_every_type(tmp_path):
    import oneflow as flow

    arrays = arrays_of_all_types()
    write(tmp_path, tensors_of(arrays))
    loaded = flow.load(str(tmp_path))
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert isinstance(loaded[name], flow.Tensor)
        assert_same_bits(loaded[name].numpy(), array)


@pytest.mark.only_backend("oneflow")
def test_oneflow_loads_variables_with_shapes(tmp_path):
    import oneflow as flow

    arrays = {name: array for name, array in arrays_of_all_types().items() if "/" not in name}
    oneflow_legacy.write(tmp_path, tensors_of(arrays))
    loaded = flow.load(str(tmp_path))
    assert sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert_same_bits(loaded[name].numpy(), array)
        assert_same_bits(open_checkpoint(tmp_path).tensors[name].load(), array)


@pytest.mark.only_backend("oneflow")
def test_variables_without_shapes_are_not_for_oneflow_of_today(tmp_path):
    import oneflow as flow

    oneflow_legacy.write(tmp_path, tensors_of({"a": np.ones(3, "<f4")}), meta=False)
    with pytest.raises(AssertionError):
        flow.load(str(tmp_path))
    (tmp_path / "snapshot_done").touch()
    with pytest.raises(RuntimeError, match="does not have meta info"):
        flow.load(str(tmp_path))

"""TensorFlow checkpoints, with TensorFlow as the referee: it writes what is read here, and reads what is written here."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.converters.leveldb_table import BLOCK_SIZE, read_table
from crossdistil.converters.tensorflow_checkpoint import open_checkpoint, write
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.checkpoint_files import tensors_of
from crossdistil.tests.tensorflow_checkpoint_files import assert_same, compressed_table, every_kind

with_tensorflow = pytest.mark.only_backend("torch")


def load_all(path):
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


@pytest.fixture
def tensorflow():
    """TensorFlow, with a quiet log."""
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


@pytest.fixture
def save(tensorflow):
    """`save(prefix, arrays)`: by tf.compat.v1.train.Saver, each variable on the device that `device(name)` gives."""
    v1 = tensorflow.compat.v1

    def save(prefix, arrays, device=lambda name: None, partitioners=None, **options):
        with tensorflow.Graph().as_default():
            for name, array in arrays.items():
                with v1.device(device(name)):
                    partitioner = (partitioners or {}).get(name)
                    if partitioner:
                        v1.get_variable(name, array.shape, array.dtype, array_initializer(array), partitioner=partitioner)
                    else:  # ResourceVariable, since a name of get_variable may not be any text
                        v1.get_variable_scope().set_use_resource(True)
                        v1.get_variable("v/" + name.encode().hex(), initializer=array, use_resource=True)
            variables = {}
            for variable in v1.global_variables():
                name = variable.op.name
                if name.startswith("v/"):
                    variables[bytes.fromhex(name[2:]).decode()] = variable
                else:
                    variables.setdefault(name.rpartition("/part_")[0], []).append(variable)
            with v1.Session(config=v1.ConfigProto(device_count={"CPU": 3})) as session:
                session.run(v1.global_variables_initializer())
                v1.train.Saver(variables, **options).save(session, str(prefix), write_meta_graph=False)

    def array_initializer(array):
        def initialize(shape, dtype=None, partition_info=None):
            where = zip(partition_info.var_offset, shape)
            return tensorflow.constant(array[tuple(slice(start, start + length) for start, length in where)])

        return initialize

    return save


@pytest.fixture
def restore(tensorflow):
    """`restore(prefix, arrays)`: what tf.compat.v1.train.Saver restores to variables of these shapes and types."""
    v1 = tensorflow.compat.v1

    def restore(prefix, arrays):
        with tensorflow.Graph().as_default():
            variables = {
                name: v1.get_variable(f"v{place}", initializer=np.zeros_like(array), use_resource=True)
                for place, (name, array) in enumerate(arrays.items())
            }
            with v1.Session() as session:
                v1.train.Saver(variables).restore(session, str(prefix))
                return session.run(variables)

    return restore


@with_tensorflow
def test_every_kind_that_tensorflow_wrote(save, tmp_path):
    arrays = every_kind()
    save(tmp_path / "model.ckpt-100", arrays)
    checkpoint = open_checkpoint(tmp_path / "model.ckpt-100")
    assert checkpoint.format == "TensorFlow checkpoint (V2, 1 shard)" and not checkpoint.notes and not checkpoint.skipped
    assert_same(checkpoint, arrays)
    assert_same(open_checkpoint(tmp_path), arrays)


@with_tensorflow
def test_the_files_are_those_that_tensorflow_writes(save, tmp_path):
    arrays = every_kind() | {f"{place:03d}/{'x' * 3000}": np.full(3, place, np.float32) for place in range(200)}
    arrays = {name: arrays[name] for name in sorted(arrays, key=str.encode)}
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    save(theirs / "bert_model.ckpt", arrays, save_relative_paths=True)
    write(ours, tensors_of(arrays))
    names = sorted(path.name for path in theirs.iterdir())
    assert names == ["bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "checkpoint"]
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert (ours / "bert_model.ckpt.index").stat().st_size > 2 * BLOCK_SIZE  # several blocks
    assert_same(open_checkpoint(theirs), arrays)


@with_tensorflow
@pytest.mark.parametrize("shard_size", [None, 1, 300])
def test_tensorflow_reads_what_is_written(tensorflow, restore, tmp_path, shard_size):
    arrays = dict(reversed(every_kind().items())) | {f"bert/layer_{i}/{'kernel' * 300}": np.float32([i]) for i in range(200)}
    write(tmp_path, tensors_of(arrays), "m\"ü'.ckpt", shard_size)
    shards = len(list(tmp_path.glob("*.data-*")))
    assert shards == 1 if shard_size is None else shards > {1: 200, 300: 5}[shard_size]
    prefix = tensorflow.train.latest_checkpoint(str(tmp_path))
    assert prefix == str(tmp_path / "m\"ü'.ckpt")
    assert (tmp_path / "m\"ü'.ckpt.index").stat().st_size > BLOCK_SIZE
    reader = tensorflow.train.load_checkpoint(prefix)
    assert reader.get_variable_to_shape_map() == {name: list(array.shape) for name, array in arrays.items()}
    restored = restore(prefix, arrays)
    for name, array in arrays.items():
        assert reader.get_variable_to_dtype_map()[name].as_numpy_dtype == array.dtype
        for found in (restored[name], reader.get_tensor(name)):
            found = np.asarray(found)
            assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes()), name
    assert_same(open_checkpoint(tmp_path), arrays)


@with_tensorflow
def test_shards_that_tensorflow_wrote(save, tmp_path):
    arrays = {f"v{place}": np.arange(place, dtype=np.float32) for place in range(9)}
    save(tmp_path / "m", arrays, lambda name: f"/cpu:{int(name[1:]) % 3}", sharded=True)
    checkpoint = open_checkpoint(tmp_path / "m.index")
    assert checkpoint.format == "TensorFlow checkpoint (V2, 3 shards)"
    assert_same(checkpoint, arrays)
    missing = tmp_path / "m.data-00001-of-00003"
    missing.unlink()
    with pytest.raises(CheckpointError, match=r"m\.data-00001-of-00003: is missing; tensor 'v\d' of m\.index is in it"):
        open_checkpoint(tmp_path)


@with_tensorflow
def test_partitioned_variables_of_tensorflow(tensorflow, save, tmp_path):
    split = tensorflow.compat.v1.fixed_size_partitioner
    generator = np.random.default_rng(0)
    arrays = {
        "rows": generator.normal(size=(7, 5)).astype(np.float32),
        "columns": generator.normal(size=(3, 30000)).astype(np.float32),
        "whole": np.float32([1, 2]),
        "many": np.arange(100, dtype=np.int64),
    }
    partitioners = {"rows": split(3, axis=0), "columns": split(2, axis=1), "many": split(100, axis=0)}
    for sharded in (False, True):
        save(tmp_path / "m", arrays, lambda name: f"/cpu:{len(name) % 2}", partitioners, sharded=sharded)
        checkpoint = open_checkpoint(tmp_path / "m")
        assert_same(checkpoint, arrays)
        assert checkpoint.notes == ["Variables that are saved in parts: 3"]


@with_tensorflow
def test_objects_of_tensorflow(tensorflow, tmp_path):
    class Model(tensorflow.Module):
        def __init__(self):
            super().__init__("bert")
            with self.name_scope:
                self.kernel = tensorflow.Variable(np.float32([[1, 2], [3, 4]]), name="kernel")
                self.twins = [tensorflow.Variable(1.5, name="twin"), tensorflow.Variable(2.5, name="twin")]
                self.label = tensorflow.Variable("a text", name="label")

    model, optimizer = Model(), tensorflow.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tensorflow.ones((2, 2)), model.kernel)])
    kernel = model.kernel.numpy()
    path = tensorflow.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "m"))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == tmp_path / "m-1.index" and "object-based" in checkpoint.format and len(checkpoint.notes) == 1
    found = load_all(tmp_path)
    assert found["bert/kernel"].tolist() == kernel.tolist() and found["save_counter"] == 1
    assert (found["model/twins/0"], found["model/twins/1"]) == (1.5, 2.5)
    slots = [name for name in found if "OPTIMIZER_SLOT" in name]
    assert sorted(slots) == ["model/kernel/.OPTIMIZER_SLOT/optimizer/m", "model/kernel/.OPTIMIZER_SLOT/optimizer/v"]
    assert checkpoint.skipped == {
        "_CHECKPOINTABLE_OBJECT_GRAPH": "the graph of the saved objects",
        "bert/label": "DT_STRING is no type of numbers here",
    }
    assert len(found) + 2 == len(tensorflow.train.load_checkpoint(path).get_variable_to_shape_map())
    # A bit of the graph is not read over.
    data = tmp_path / "m-1.data-00000-of-00001"
    whole = bytearray(data.read_bytes())
    whole[whole.index(b"twins")] ^= 1
    data.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"m-1\.data-00000-of-00001: tensor '_CHECK.*' is damaged: the checksum"):
        open_checkpoint(tmp_path)


@with_tensorflow
def test_a_keras_model(tensorflow, tmp_path):
    keras = tensorflow.keras
    layers = [keras.layers.Input((3,)), keras.layers.Dense(4, name="first"), keras.layers.Dense(2, name="second")]
    model = keras.Sequential(layers, name="bert")
    model.compile("adam", "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    tensorflow.train.Checkpoint(model=model).write(str(tmp_path / "k"))
    found = load_all(tmp_path / "k")
    for variable in model.variables + model.optimizer.variables:
        assert found[variable.path].tobytes() == np.asarray(variable).tobytes()
    assert {f"bert/{layer}/{part}" for layer in ("first", "second") for part in ("kernel", "bias")} <= set(found)
    assert all(name.startswith(("adam/", "bert/")) for name in found)


@with_tensorflow
def test_compressed_blocks_as_tensorflow_reads_them(tensorflow, tmp_path):
    arrays = {f"bert/encoder/layer_{place}/kernel": np.float32([place]) for place in range(300)}
    write(tmp_path, tensors_of(arrays), "m")
    index = tmp_path / "m.index"
    entries = read_table(index)
    plain = index.stat().st_size
    index.write_bytes(compressed_table(entries))
    assert index.stat().st_size < plain * 0.8  # there are copies in it
    assert read_table(index) == entries
    assert_same(open_checkpoint(tmp_path), arrays)
    reader = tensorflow.train.load_checkpoint(str(tmp_path / "m"))
    assert {name: reader.get_tensor(name).tolist() for name in arrays} == {name: array.tolist() for name, array in arrays.items()}

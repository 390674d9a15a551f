"""TensorFlow checkpoints: TensorFlow writes what is read here, and reads what is written here; and every kind of damage."""

from __future__ import annotations

import shutil
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.converters.leveldb_table import BLOCK_SIZE, is_table, read_table, write_table
from crossdistil.converters.tensorflow_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensorflow_entries import is_grid, part_key, write_entry, write_header
from crossdistil.converters.tensorflow_objects import object_names
from crossdistil.converters.tensors import DTYPES, Tensor, TensorInfo, dtype_name
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, mask_crc, masked_crc, number, varint

with_tensorflow = pytest.mark.only_backend("torch")


def make_tensors(arrays):
    infos = [TensorInfo(name, array.shape, dtype_name(array.dtype)) for name, array in arrays.items()]
    return [Tensor(info, lambda array=arrays[info.name]: array) for info in infos]


def every_kind():
    """All types, all bits of small numbers, scalars and empty tensors; sorted by name, as TensorFlow sorts them."""
    generator = np.random.default_rng(0)
    arrays = {"bert/embeddings/größe": generator.normal(size=(7, 3)).astype(np.float32), "a b": np.float64(np.pi).reshape(())}
    for name, dtype in DTYPES.items():
        if name == "BOOL":
            arrays[f"kind/{name}"] = generator.integers(0, 2, (3, 5)).astype(bool)
        else:
            arrays[f"kind/{name}"] = generator.integers(0, 256, (2, 3, 4 * dtype.itemsize), np.uint8).view(dtype)
        arrays[f"scalar/{name}"] = np.ones((), dtype)
        arrays[f"empty/{name}"] = np.zeros((3, 0, 2), dtype)
    return {name: arrays[name] for name in sorted(arrays, key=str.encode)}


def assert_same(checkpoint, arrays):
    assert list(checkpoint.tensors) == sorted(arrays, key=str.encode)
    for name, tensor in checkpoint.tensors.items():
        array, found = arrays[name], tensor.load()
        assert tensor.info == TensorInfo(name, array.shape, dtype_name(array.dtype))
        assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes()), name
        assert found.flags.writeable and found.flags.c_contiguous


def load_all(path):
    return {name: tensor.load() for name, tensor in open_checkpoint(path).tensors.items()}


# ---------------------------------------------------------------------------------------------- TensorFlow as the referee

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
    write(ours, make_tensors(arrays))
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
    write(tmp_path, make_tensors(arrays), "m\"ü'.ckpt", shard_size)
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
    write(tmp_path, make_tensors(arrays), "m")
    index = tmp_path / "m.index"
    entries = read_table(index)
    plain = index.stat().st_size
    index.write_bytes(compressed_table(entries))
    assert index.stat().st_size < plain * 0.8  # there are copies in it
    assert read_table(index) == entries
    assert_same(open_checkpoint(tmp_path), arrays)
    reader = tensorflow.train.load_checkpoint(str(tmp_path / "m"))
    assert {name: reader.get_tensor(name).tolist() for name in arrays} == {name: array.tolist() for name, array in arrays.items()}


def compressed_table(entries):
    """A table of one block, whose blocks Snappy compressed."""
    data = b""
    for key in sorted(entries):
        data += varint(0) + varint(len(key)) + varint(len(entries[key])) + key + entries[key]
    file, places = b"", []
    for block in (data, b"", None):
        if block is None:
            block = varint(0) + varint(4) + varint(len(places[0])) + b"\xff" * 4 + places[0]
        content = snappy(block + struct.pack("<II", 0, 1)) + b"\1"
        places.append(varint(len(file)) + varint(len(content) - 1))
        file += content + struct.pack("<I", masked_crc(content))
    return file + (places[1] + places[2]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def snappy(data):
    """All four elements of Snappy: literals, and copies by 1, 2 and 4 bytes of offset, also such that overlap themselves."""
    out, position, literal, seen = varint(len(data)), 0, b"", {}
    while position < len(data):
        key = data[position : position + 4]
        start = seen.get(key, -1)
        seen[key] = position
        if len(key) < 4 or start < 0:
            literal += data[position : position + 1]
            position += 1
            continue
        length = 4
        while length < 64 and position + length < len(data) and data[start + length] == data[position + length]:
            length += 1
        back = position - start
        out += snappy_literal(literal)
        literal = b""
        if length < 12 and back < 2048:
            out += bytes([1 | length - 4 << 2 | back >> 8 << 5, back & 0xFF])
        elif position % 2 and back < 65536:
            out += bytes([2 | length - 1 << 2]) + struct.pack("<H", back)
        else:
            out += bytes([3 | length - 1 << 2]) + struct.pack("<I", back)
        position += length
    return out + snappy_literal(literal)


def snappy_literal(literal):
    if not literal:
        return b""
    size = len(literal) - 1
    return (bytes([size << 2]) if size < 60 else bytes([61 << 2]) + struct.pack("<H", size)) + literal


# ---------------------------------------------------------------------------------------------- the format, without TensorFlow

def test_what_is_written_comes_back(tmp_path):
    arrays = every_kind()
    for number_, shard_size in enumerate((None, 1, 500)):
        folder = tmp_path / str(number_)
        folder.mkdir()
        write(folder, make_tensors(arrays), shard_size=shard_size)
        assert_same(open_checkpoint(folder), arrays)
    assert len(list((tmp_path / "2").glob("*.data-*"))) == 3
    write(folder, [], "none")
    assert open_checkpoint(folder).tensors == {}


def test_large_tensors_are_read_in_pieces(tmp_path):
    array = np.random.default_rng(0).normal(size=(1000, 777)).astype(np.float32)
    write(tmp_path, make_tensors({"a": np.int8([1]), "b": array}))
    assert_same(open_checkpoint(tmp_path), {"a": np.int8([1]), "b": array})


def test_tables_of_many_sizes(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "table"
    for count in (0, 1, 2, 15, 16, 17, 33, 400):
        lengths = generator.integers(0, 9, count)
        keys = {generator.integers(0, 256, length, np.uint8).tobytes() + b"\xff" * (count % 3) for length in lengths}
        entries = {key: key[::-1] * 3 for key in sorted(keys)}
        for block_size in (1, 100, BLOCK_SIZE):
            write_table(path, entries, block_size)
            assert list(read_table(path).items()) == list(entries.items()) and is_table(path)


def test_no_more_than_one_tensor_is_held(tmp_path):
    def measured(action):
        tracemalloc.start()
        action()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    info = TensorInfo("", (3, 1 << 20), "F32")
    tensors = [Tensor(replace(info, name=name), lambda: np.ones(info.shape, np.float32)) for name in "abc"]
    assert info.size < measured(lambda: write(tmp_path, tensors)) < 1.5 * info.size
    checkpoint = open_checkpoint(tmp_path)
    assert info.size < measured(lambda: [tensor.load().shape for tensor in checkpoint.tensors.values()]) < 1.5 * info.size


def test_numbers_in_the_keys_of_parts():
    # As ordered_code_test.cc has them: the shortest and the longest of each length.
    assert part_key("", ()) == b"\0\0\1\0"
    assert part_key("a\0b", ((0, None), (63, -64), (64, -65))) == b"\0a\0\xffb\0\1\1\3" + bytes.fromhex("807fbf40c0403fbf")
    assert part_key("", ((8191, 8192),)) == b"\0\0\1\1\1" + bytes.fromhex("dfffe02000")
    assert part_key("", ((2**63 - 1, -(2**63)),)) == b"\0\0\1\1\1" + bytes.fromhex("ffc07fffffffffffffff003f8000000000000000")


def test_grids():
    assert is_grid([()], ()) and not is_grid([(), ()], ())
    assert is_grid([((0, 2),), ((2, 3),)], (5,)) and is_grid([((2, 3),), ((0, 2),)], (5,))
    assert not is_grid([((0, 3),), ((2, 2),)], (5,))
    for wrong in ([((0, 2),), ((3, 2),)], [((0, 3),), ((2, 3),)], [((0, 2),)], [((0, 5),), ((0, 5),)], [((0, 6),), ((6, -1),)]):
        assert not is_grid(wrong, (5,))
    rows = [((0, 1), (0, 4)), ((1, 2), (0, 1)), ((1, 2), (1, 3))]
    assert is_grid(rows, (3, 4)) and not is_grid(rows[:2], (3, 4))


def test_names_of_objects():
    def node(key, name, *slots):
        attribute = delimited(1, b"VARIABLE_VALUE") + delimited(2, name.encode()) + delimited(3, key.encode())
        return delimited(1, delimited(2, attribute) + b"".join(delimited(3, number(3, slot)) for slot in slots))

    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = {f"a{end}": "x", f"b{end}": "c", f"c{end}": "y", f"d{end}": "", f"e{end}": "e", f"f{end}": "twin", f"g{end}": "twin"}
    graph = b"".join(node(*item) for item in names.items()) + node(f"s{end}", "x/Adam", len(names)) + node("gone", "y")
    found = object_names(graph, [*names, f"s{end}", "d", "unknown"])
    assert found == dict(
        zip([*names, f"s{end}", "d", "unknown"], ["x", "b", "y", f"d{end}", "e", "f", "g", "s", "d", "unknown"])
    )


def test_writing_checks_what_it_is_given(tmp_path):
    info = TensorInfo("a", (2,), "F32")
    for wrong in (np.zeros(3, np.float32), np.zeros(2), np.zeros((1, 2), np.float32), np.zeros(2, ">f4")):
        with pytest.raises(CheckpointError, match=r"tensor 'a' is .*, expected F32 \[2\]"):
            write(tmp_path, [Tensor(info, lambda wrong=wrong: wrong)])
    for names in ([""], ["\0a"], ["a", "a"]):
        with pytest.raises(CheckpointError, match="cannot hold a tensor"):
            write(tmp_path, [Tensor(TensorInfo(name, (), "F32"), lambda: np.zeros((), np.float32)) for name in names])


# ---------------------------------------------------------------------------------------------- which files

@pytest.fixture
def two_shards(tmp_path):
    """The folder of a checkpoint `m` with the tensors a and b, each in its shard."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder, make_tensors({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int64([1, 2])}), "m", 1)
    return folder


def test_all_that_names_a_checkpoint(two_shards):
    (two_shards / "other.index").write_bytes(b"no table")
    for name in ("", "m", "m.index", "m.data-00000-of-00002", "m.data-00001-of-00002"):
        path = two_shards / name
        assert is_checkpoint(path) and sorted(open_checkpoint(path).tensors) == ["a", "b"]
    state = two_shards / "checkpoint"
    for name in (f"{two_shards}/m", "/old machine/m", "\\155"):
        state.write_text(f'\n model_checkpoint_path: "{name}"')
        assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
    for name in ("n", "../n", "/x/n"):
        state.write_text(f'model_checkpoint_path: "{name}"\n')
        with pytest.raises(CheckpointError, match=f"checkpoint: names '{name}', whose .index is missing; .*: m.index, other"):
            open_checkpoint(two_shards)
    (two_shards / "other.index").unlink()
    state.unlink()
    for text in ("", "{}", 'model_checkpoint_path: ""', 'model_checkpoint_path: "\\000"'):  # it is something else
        assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
        state.write_text(text)
    assert sorted(open_checkpoint(two_shards).tensors) == ["a", "b"]
    state.unlink()
    shutil.copy(two_shards / "m.index", two_shards / "n.index")
    assert is_checkpoint(two_shards)
    with pytest.raises(CheckpointError, match="model: expected one TensorFlow checkpoint, .* found m.index, n.index"):
        open_checkpoint(two_shards)


def test_what_is_no_checkpoint(two_shards, tmp_path):
    (tmp_path / "x.index").write_bytes(b"x" * 100)
    (tmp_path / "empty").mkdir()
    shutil.copy(two_shards / "m.index", tmp_path / "old.ckpt")
    for name, message in {
        "x": "x.index: is no index of a TensorFlow checkpoint, or damaged: its last 8 bytes",
        "x.index": "x.index: is no index of a TensorFlow checkpoint, or damaged: its last 8 bytes",
        "empty": "empty: expected one TensorFlow checkpoint, .*; found none",
        "gone": "gone: is no TensorFlow checkpoint: there is no file gone.index",
        "gone.data-00000-of-00001": "there is no file gone.index",
        "gone.index": "gone.index: is no TensorFlow checkpoint: there is no file gone.index",
        "old.ckpt": "old.ckpt: is a TensorFlow checkpoint of the old format V1",
        "n" * 300: "n.index: cannot be read: File name too long",
    }.items():
        assert not is_checkpoint(tmp_path / name)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path / name)
    assert not is_checkpoint(tmp_path / "a\0b")


# ---------------------------------------------------------------------------------------------- damage

def test_any_changed_bit_of_the_index_is_found(two_shards):
    index = two_shards / "m.index"
    whole = index.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        index.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"m\.index: is no index of a TensorFlow checkpoint, or damaged"):
            open_checkpoint(two_shards)
    for size in range(len(whole)):
        index.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"m\.index: is no index of a TensorFlow checkpoint, or damaged"):
            open_checkpoint(two_shards)


def test_any_changed_bit_of_the_data_is_found(two_shards):
    data = two_shards / "m.data-00000-of-00002"
    whole = data.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        data.write_bytes(changed)
        checkpoint = open_checkpoint(two_shards)
        with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' is damaged: the checksum"):
            checkpoint.tensors["a"].load()
        assert checkpoint.tensors["b"].load().tolist() == [1, 2]


def test_missing_data_is_found_at_opening(two_shards):
    data = two_shards / "m.data-00000-of-00002"
    whole = data.read_bytes()
    checkpoint = open_checkpoint(two_shards)
    for size in range(len(whole)):
        data.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=rf"m\.data-00000-of-00002: is cut off: it has {size} bytes.*'a'"):
            open_checkpoint(two_shards)
        with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' is cut off"):
            checkpoint.tensors["a"].load()
    data.unlink()
    with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: is missing; tensor 'a' of m\.index is in it"):
        open_checkpoint(two_shards)
    with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00002: tensor 'a' cannot be read: No such file"):
        checkpoint.tensors["a"].load()


def entry_of(dtype="F32", shape=(2,), shard=0, offset=0, size=8, crc=0, slices=()):
    """An entry as bytes; slices are rows of (start, length)."""
    parts = (b"".join(delimited(1, number(1, start) + number(2, length)) for start, length in part) for part in slices)
    return write_entry(dtype, shape, shard, offset, size, crc) + b"".join(delimited(7, part) for part in parts)


WHOLE = entry_of(shape=(4,), size=0, slices=(((0, 2),), ((2, 2),)))
FIRST, SECOND = part_key("a", ((0, 2),)), part_key("a", ((2, 2),))

WRONG_ENTRIES = {
    "no header": ({b"a": entry_of()}, "m.index: is no index of a TensorFlow checkpoint: it has no header"),
    "big endian": ({b"": write_header(1) + number(2, 1)}, "its numbers are big-endian"),
    "newer": ({b"": number(1, 1) + delimited(3, number(2, 2))}, "it asks for version 2 of the format"),
    "shard": ({b"a": entry_of(shard=1)}, "tensor 'a' is in shard 1, but there are 1"),
    "offset": ({b"a": entry_of(offset=1 << 62)}, r"m.data-00000-of-00001: is cut off: it has 16 bytes, expected at least 4,6"),
    "behind": ({b"a": entry_of(offset=9)}, "is cut off: it has 16 bytes, expected at least 17 for tensor 'a'"),
    "size": ({b"a": entry_of(shape=(3,))}, r"tensor 'a' has 8 bytes, expected 12 for F32 \[3\]"),
    "huge": ({b"a": entry_of(shape=(1 << 62, 1 << 62))}, r"tensor 'a' has the impossible shape"),
    "hidden": ({b"a": entry_of(shape=(0, 1 << 62), size=0)}, r"tensor 'a' has the impossible shape \[0, 4611"),
    "negative": ({b"a": entry_of(shape=(0, -1), size=0)}, r"tensor 'a' has the impossible shape \[0, 18446"),
    "dimensions": ({b"a": entry_of(shape=(1,) * 33, size=4)}, "tensor 'a' has 33 dimensions, expected at most 32"),
    "rank": ({b"a": number(1, 1) + delimited(2, number(3, 1))}, "the entry of tensor 'a' is damaged: its shape is not known"),
    "entry": ({b"a": b"\xff"}, "m.index: the entry of tensor 'a' is damaged: "),
    "name": ({b"\xff\xfe": entry_of()}, "m.index: is damaged: the name b'.*' is not UTF-8"),
    "no part": ({b"a": WHOLE, FIRST: entry_of()}, r"tensor 'a': its part at \[2\] is missing"),
    "more parts": ({b"a": entry_of(), FIRST: entry_of()}, "m.index: is damaged: it holds parts of tensors that it does not name"),
    "type": ({b"a": WHOLE, FIRST: entry_of(), SECOND: entry_of("I32")}, r"its part at \[2\] has another type or shape"),
    "shape": ({b"a": WHOLE, FIRST: entry_of(), SECOND: entry_of(shape=(3,), size=12)}, r"its part at \[2\] has another type"),
    "gap": ({b"a": entry_of(shape=(5,), slices=(((0, 2),), ((3, 2),)))}, r"its 2 parts do not make its shape \[5\]"),
    "rows": ({b"a": entry_of(shape=(5,), slices=(((0, 5), (0, 1)),))}, r"its 1 parts do not make its shape \[5\]"),
    "cheap": (
        {b"a": entry_of(shape=(9, 2), slices=[((i, 1), (0, 2)) for i in range(9)])}
        | {part_key("a", ((i, 1), (0, 2))): entry_of(shape=(1, 2)) for i in range(9)},
        "tensor 'a' has 72 bytes, more than all shards",
    ),
}


@pytest.mark.parametrize("case", WRONG_ENTRIES)
def test_a_wrong_entry_is_named(tmp_path, case):
    entries, message = WRONG_ENTRIES[case]
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    if case != "no header":
        entries = {b"": write_header(1)} | entries
    write_table(tmp_path / "m.index", entries)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_parts_and_other_types(tmp_path):
    """Parts without length are everything; what is no tensor of numbers is named and left out, with its parts."""
    data = np.arange(4, dtype=np.float32).tobytes()
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    everything = number(1, 1) + delimited(2, delimited(2, number(1, 4))) + delimited(7, delimited(1, b""))
    complex_part = part_key("c", ((0, 1),))
    entries = {
        b"": write_header(1),
        b"a": everything,
        part_key("a", ((0, None),)): entry_of(shape=(4,), size=16, crc=masked_crc(data)),
        b"b": number(1, 7) + number(5, 4),
        b"c": number(1, 8) + delimited(2, delimited(2, number(1, 1))) + delimited(7, delimited(1, number(2, 1))),
        complex_part: number(1, 8),
        b"d": number(1, 99),
    }
    write_table(tmp_path / "m.index", entries)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors["a"].load().tolist() == [0, 1, 2, 3] and list(checkpoint.tensors) == ["a"]
    assert {name: reason.split(" is ")[0] for name, reason in checkpoint.skipped.items()} == {
        "b": "DT_STRING",
        "c": "DT_COMPLEX64",
        "d": "TensorFlow's type 99",
    }
    assert mask_crc(0) == 0xA282EAD8  # an empty tensor's

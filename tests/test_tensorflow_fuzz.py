"""Damaged TensorFlow checkpoints, ten thousand of each kind: only CheckpointErrors, and nothing large is allocated."""

from __future__ import annotations

import resource
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from crossdistil.converters.leveldb_table import read_table, write_table
from crossdistil.converters.tensorflow_checkpoint import is_checkpoint, open_checkpoint, write
from crossdistil.converters.tensorflow_entries import part_key
from crossdistil.converters.tensorflow_objects import GRAPH_KEY
from crossdistil.core.errors import CheckpointError
from crossdistil.core.wire import delimited, masked_crc, number, varint
from crossdistil.tests.checkpoint_files import tensors_of
from crossdistil.tests.tensorflow_checkpoint_files import EMPTY, block_of, entry_of, index_of, snappy, table_of

COUNT = 10_000
MOST = 64 << 20
"""Bytes that may be allocated for a file of a few hundred, on top of what the process has."""


@pytest.fixture
def folder(tmp_path):
    """A checkpoint `m` of two shards with a matrix, a scalar, an empty tensor, a variable in parts, and a graph of objects."""
    arrays = {"a/.ATTRIBUTES/VARIABLE_VALUE": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64(1).reshape(())}
    write(tmp_path, tensors_of(arrays | {"c": np.zeros((0, 3), np.int8), "d": np.ones(3, bool)}), "m", 30)
    index = tmp_path / "m.index"
    entries = read_table(index)
    data = tmp_path / "m.data-00000-of-00002"
    offset = data.stat().st_size
    numbers = np.arange(4, dtype=np.float32).tobytes()
    attribute = delimited(2, b"bert/kernel") + delimited(3, b"a/.ATTRIBUTES/VARIABLE_VALUE")
    graph = delimited(1, delimited(2, attribute) + delimited(3, number(3, 7))) + delimited(1, delimited(2, delimited(3, b"b")))
    length = struct.pack("<I", len(graph))
    text = varint(len(graph)) + struct.pack("<I", masked_crc(length)) + graph
    data.write_bytes(data.read_bytes() + numbers + text)
    crc = struct.pack("<I", masked_crc(length + text[1:]))
    entries[GRAPH_KEY.encode()] = number(1, 7) + delimited(2, b"") + number(4, offset + 16) + number(5, len(text)) + b"\x35" + crc
    entries[b"p"] = entry_of(shape=(2, 2), size=0, slices=(((0, 2), (0, 1)), ((0, 2), (1, 1))))
    for column in range(2):
        place, part = offset + 8 * column, numbers[8 * column : 8 * column + 8]
        entries[part_key("p", ((0, 2), (column, 1)))] = entry_of(shape=(2, 1), offset=place, crc=masked_crc(part))
    write_table(index, entries)
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["bert/kernel", "b", "c", "d", "p"] and list(checkpoint.skipped) == [GRAPH_KEY]
    assert checkpoint.tensors["p"].load().tolist() == [[0, 2], [1, 3]]
    return tmp_path


@pytest.fixture
def attempt(folder):
    """`attempt()`: whether the folder is read to the end; fails where it is not and the reason is no CheckpointError."""

    def attempt():
        is_checkpoint(folder)
        try:
            checkpoint = open_checkpoint(folder / "m")
        except CheckpointError as error:
            assert str(error).startswith(str(folder))
            return False
        whole = True
        for name, tensor in checkpoint.tensors.items():
            try:
                array = tensor.load()
            except CheckpointError as error:
                assert name in str(error)
                whole = False
            else:
                assert array.shape == tensor.info.shape and array.nbytes < 1000
        return whole

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, before[1]))  # beyond it is a MemoryError
    yield attempt
    resource.setrlimit(resource.RLIMIT_AS, before)


def put(path, data):
    """Without truncation to nothing, behind which some file systems write to the disk."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def mutate(data, generator):
    """Cut off, changed, longer, with parts exchanged, or with numbers that are large."""
    data = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        place = int(generator.integers(0, len(data) + 1))
        end = min(len(data), place + int(generator.integers(1, 9)))
        kind = generator.integers(0, 7)
        if kind == 0 and generator.integers(0, 4) == 0:
            del data[place:]
        elif kind == 1 and place < len(data):
            data[place] ^= 1 << int(generator.integers(0, 8))
        elif kind == 2:
            data[place:place] = generator.integers(0, 256, end - place, np.uint8).tobytes()
        elif kind == 3:
            data[place:end] = b"\xff" * (end - place)
        elif kind == 4:
            data[place:end] = generator.integers(0, 256, end - place, np.uint8).tobytes()
        elif kind == 5:
            other = int(generator.integers(0, len(data) + 1))
            data[place:end] = data[other : other + end - place]
        else:
            data[place:end] = varint(int(generator.integers(0, 1 << 63)) >> int(generator.integers(0, 63)))
    return bytes(data)


def changed_index(whole, data, entries, generator, turn):
    """A damaged index: any of its bytes, or with right checksums its blocks, plain and compressed, or its entries."""
    if turn % 4 == 0:
        return mutate(whole, generator)
    if turn % 4 == 3:
        keys = list(entries)
        changed, key, kind = dict(entries), keys[generator.integers(0, len(keys))], generator.integers(0, 8)
        if kind == 0:
            changed[mutate(key, generator)] = changed.pop(key)
        else:
            other = keys[generator.integers(0, len(keys))]
            changed[key] = entries[other] if kind == 1 else mutate(entries[key], generator)
        data = block_of(changed)
    pack = snappy if turn % 4 == 2 else bytes
    data = pack(data) if turn % 4 == 3 else mutate(pack(data), generator)
    index = index_of(len(data))
    if turn % 16 == 1:
        index = mutate(index, generator)
    return table_of(data, pack(EMPTY), pack(index), int(turn % 4 == 2))


def test_any_index(folder, attempt):
    generator, index = np.random.default_rng(0), folder / "m.index"
    whole, entries = index.read_bytes(), read_table(index)
    data = block_of(entries)
    for pack in (bytes, snappy):
        put(index, table_of(pack(data), pack(EMPTY), pack(index_of(len(pack(data)))), int(pack is snappy)))
        assert attempt()
    read = [0] * 4
    for turn in range(COUNT):
        put(index, changed_index(whole, data, entries, generator, turn))
        read[turn % 4] += attempt()
    assert all(0 < kind < COUNT / 8 for kind in read), read


def test_any_data(folder, attempt):
    """The shards, and the graph of objects with right checksums."""
    generator, index = np.random.default_rng(0), folder / "m.index"
    shards = [folder / f"m.data-0000{shard}-of-00002" for shard in range(2)]
    entries, contents = read_table(index), [shard.read_bytes() for shard in shards]
    whole = index.read_bytes()
    start = contents[0].index(b"bert/kernel") - 6  # of the graph
    graph, place = contents[0][start:], start - 5
    read = [0] * 2
    for turn in range(COUNT):
        shard = generator.integers(0, 2)
        if turn % 2:
            changed = mutate(graph, generator)
            length = struct.pack("<I", len(changed))
            text = struct.pack("<I", masked_crc(length)) + changed
            crc = b"\x35" + struct.pack("<I", masked_crc(length + text))
            entry = number(1, 7) + delimited(2, b"") + number(4, place) + number(5, len(varint(len(changed)) + text)) + crc
            put(index, table_of(block := block_of(entries | {GRAPH_KEY.encode(): entry}), EMPTY, index_of(len(block)), 0))
            put(shards[0], contents[0][:place] + varint(len(changed)) + text)
        else:
            put(shards[shard], mutate(contents[shard], generator))
        read[turn % 2] += attempt()
        put(index, whole)
        put(shards[0 if turn % 2 else shard], contents[0 if turn % 2 else shard])
    assert all(0 < kind < COUNT / 4 for kind in read), read


# ---------------------------------------------------------------------------------------------- files that ask for much


def test_small_files_that_would_be_large(tmp_path):
    """One block named often, keys that share much, and copies of copies: refused before they are made."""
    index = tmp_path / "m.index"

    def refused(table, message):
        index.write_bytes(table)
        tracemalloc.start()
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 64 * len(table) + (4 << 20)

    block = varint(0) + varint(1) + varint(0) + b"a" + EMPTY
    place = varint(0) + varint(len(block))
    often = b"".join(b"\0\2" + varint(len(place)) + struct.pack(">H", turn) + place for turn in range(1000))
    refused(table_of(block, EMPTY, often + EMPTY, 0), "the block at byte 0 overlaps the one before it")

    size = 20_000
    keys = b"\0" + varint(size) + b"\0" + b"a" * size + b"".join(varint(size + turn) + b"\1\0b" for turn in range(size))
    keys += EMPTY
    refused(table_of(keys, EMPTY, index_of(len(keys)), 0), "its keys share more bytes than a writer would let them")

    bomb = varint(1 << 40) + b"\0a" + bytes([63 << 2 | 2, 1, 0]) * 1000
    refused(table_of(bomb, snappy(EMPTY), snappy(index_of(len(bomb))), 1), "a block claims 1,099,511,627,776 bytes")
    key_of_no_key = varint(1) + varint(1) + varint(0) + b"a" + EMPTY
    refused(table_of(key_of_no_key, EMPTY, index_of(len(key_of_no_key)), 0), "an entry .* shares more than there is")

    longer = varint(100) + bomb[6:]
    refused(table_of(longer, snappy(EMPTY), snappy(index_of(len(longer))), 1), "a compressed block is longer than it says")

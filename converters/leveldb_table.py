"""The sorted table of LevelDB, which the `.index` file of a TensorFlow checkpoint is: keys and values of bytes.

It exists because TensorFlow belongs to none of the backends, and neither LevelDB nor Snappy is needed for a few kilobytes.
The file is a row of blocks and a footer of 48 bytes:
  data blocks; a meta block that is empty here; an index block, whose values say where the data blocks are;
  footer: place of the meta block, place of the index block, zeros up to byte 40, magic (uint64).
A place is two varints, offset and size. Behind each block, not counted in its size, are its compression (1 byte: 0 none,
1 Snappy) and the masked CRC32C of block and compression. A block is
  entries: bytes shared with the key before, bytes of the key not shared, bytes of the value (3 varints), key's end, value;
  restarts: the offsets (uint32) of those entries whose key is whole, then their number (uint32).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..core.errors import CheckpointError
from ..core.wire import Malformed, masked_crc, read_varint, varint

BLOCK_SIZE = 262144
"""TensorFlow's: a block ends with the entry that makes it this large."""

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_SIZE = 48
_UINT32 = struct.Struct("<I")
_TRAILER = struct.Struct("<BI")
_PLAIN, _SNAPPY = 0, 1
_RESTART_INTERVAL, _INDEX_RESTART_INTERVAL = 16, 1
_SNAPPY_EXPANSION = 22  # no element of Snappy makes more: 64 bytes from 3
_KEY_EXPANSION = 64  # of the whole file; with a whole key in each 16 entries, keys are at most 16 times as large as their block


def is_table(path: Path) -> bool:
    """Whether the file ends as a table does. Never raises."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _FOOTER_SIZE))
            return size >= _FOOTER_SIZE and file.read(_FOOTER_SIZE).endswith(_MAGIC)
    except (OSError, ValueError):
        return False


def read_table(path: Path) -> dict[bytes, bytes]:
    """All entries in the order of their keys; every checksum is compared. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            return dict(_entries(file, file.seek(0, os.SEEK_END)))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Malformed as error:
        raise CheckpointError(f"{path}: is no index of a TensorFlow checkpoint, or damaged: {error}") from error


def write_table(path: Path, entries: Mapping[bytes, bytes], block_size: int = BLOCK_SIZE) -> None:
    """Write the entries, sorted; byte by byte what TensorFlow writes."""
    with path.open("wb") as file:
        block, index = _BlockBuilder(_RESTART_INTERVAL), _BlockBuilder(_INDEX_RESTART_INTERVAL)
        keys = sorted(entries)
        for key, following in zip(keys, [*keys[1:], None]):
            block.add(key, entries[key])
            if block.size >= block_size or following is None:
                place = _append_block(file, block)
                index.add(_separator(key, following), place)
                block = _BlockBuilder(_RESTART_INTERVAL)
        footer = _append_block(file, _BlockBuilder(_RESTART_INTERVAL)) + _append_block(file, index)
        file.write(footer.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC)


# ---------------------------------------------------------------------------------------------- reading

def _entries(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    if size < _FOOTER_SIZE:
        raise Malformed(f"it has {size} bytes, less than its footer")
    file.seek(size - _FOOTER_SIZE)
    footer = file.read(_FOOTER_SIZE)
    if not footer.endswith(_MAGIC):
        raise Malformed("its last 8 bytes are not those of a table")
    meta, position = _place(footer, 0)
    index, position = _place(footer, position)
    if footer[position : -len(_MAGIC)].strip(b"\0"):
        raise Malformed("its footer is not filled with zeros")
    _read_block(file, *meta, size)
    last, behind, left = None, 0, _KEY_EXPANSION * size
    for _, value in _block_entries(_read_block(file, *index, size)):
        (offset, length), _ = _place(value, 0)
        if offset < behind:  # else a small file with one block named often would be a large table
            raise Malformed(f"the block at byte {offset} overlaps the one before it")
        behind = offset + length + _TRAILER.size
        for key, content in _block_entries(_read_block(file, offset, length, size)):
            if last is not None and key <= last:
                raise Malformed("its keys are not sorted")
            left -= len(key)
            if left < 0:
                raise Malformed("its keys share more bytes than a writer would let them")
            last = key
            yield key, content


def _place(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """((offset, size), position behind them)."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _read_block(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    # Before anything is read: the length may be larger than the memory.
    if offset + length + _TRAILER.size > size - _FOOTER_SIZE:
        raise Malformed(f"a block is at byte {offset:,} and has {length:,} bytes, but the file has {size:,}")
    file.seek(offset)
    data = file.read(length + _TRAILER.size)
    if len(data) < length + _TRAILER.size:
        raise Malformed(f"the block at byte {offset} is cut off")
    compression, crc = _TRAILER.unpack_from(data, length)
    if masked_crc(memoryview(data)[: length + 1]) != crc:
        raise Malformed(f"the checksum of the block at byte {offset} is wrong")
    if compression == _SNAPPY:
        return _unpack_snappy(data[:length])
    if compression != _PLAIN:
        raise Malformed(f"the block at byte {offset} has the unknown compression {compression}")
    return data[:length]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < _UINT32.size:
        raise Malformed("a block has no number of restarts")
    (restarts,) = _UINT32.unpack_from(block, len(block) - _UINT32.size)
    end = len(block) - _UINT32.size * (restarts + 1)
    if end < 0:
        raise Malformed(f"a block of {len(block)} bytes has {restarts} restarts")
    data, position, key = memoryview(block)[:end], 0, b""
    while position < end:
        shared, position = read_varint(data, position)
        own, position = read_varint(data, position)
        length, position = read_varint(data, position)
        if shared > len(key) or own + length > end - position:
            raise Malformed("an entry is longer than its block, or shares more than there is")
        key = key[:shared] + data[position : position + own]
        position += own
        yield key, bytes(data[position : position + length])
        position += length


def _unpack_snappy(data: bytes) -> bytes:
    """The length of the content (varint), then literals and copies of what is already there."""
    length, position = read_varint(data, 0)
    if length > _SNAPPY_EXPANSION * len(data):
        raise Malformed(f"a block claims {length:,} bytes, compressed to {len(data):,}")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        kind, count = tag & 3, (tag >> 2) + 1
        position += 1
        if kind == 0:
            if count > 60:  # the length is in the next 1 to 4 bytes
                extra = count - 60
                count = int.from_bytes(data[position : position + extra], "little") + 1
                position += extra
            if count > len(data) - position:
                raise Malformed("a compressed block is cut off")
            out += data[position : position + count]
            position += count
        else:
            extra = (1, 2, 4)[kind - 1]
            if extra > len(data) - position:
                raise Malformed("a compressed block is cut off")
            back = int.from_bytes(data[position : position + extra], "little")
            position += extra
            if kind == 1:
                back, count = back | tag >> 5 << 8, (tag >> 2 & 7) + 4
            if not 0 < back <= len(out):
                raise Malformed("a compressed block copies what it does not have")
            # What is copied may be what the copy itself makes: a text that repeats.
            start = len(out) - back
            repeated = bytes(out[start : start + count])
            out += (repeated * (count // back + 1))[:count]
        if len(out) > length:
            raise Malformed("a compressed block is longer than it says")
    if len(out) != length:
        raise Malformed("a compressed block is shorter than it says")
    return bytes(out)


# ---------------------------------------------------------------------------------------------- writing

class _BlockBuilder:
    def __init__(self, interval: int):
        self._interval = interval
        self._data = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self._last = b""

    @property
    def size(self) -> int:
        return len(self._data) + _UINT32.size * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._interval:
            shared = len(os.path.commonprefix([self._last, key]))
        else:
            self._restarts.append(len(self._data))
            self._since_restart = 0
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._since_restart += 1
        self._last = key

    def finish(self) -> bytes:
        return bytes(self._data) + b"".join(map(_UINT32.pack, [*self._restarts, len(self._restarts)]))


def _append_block(file: BinaryIO, block: _BlockBuilder) -> bytes:
    """Write a block and its trailer; its place."""
    data = block.finish() + bytes([_PLAIN])
    offset = file.tell()
    file.write(data + _UINT32.pack(masked_crc(data)))
    return varint(offset) + varint(len(data) - 1)


def _separator(key: bytes, following: bytes | None) -> bytes:
    """A short key from `key` on and before `following`, as LevelDB chooses it; without `following` a short one behind."""
    if following is None:
        for place, byte in enumerate(key):
            if byte < 0xFF:
                return key[:place] + bytes([byte + 1])
        return key
    shared = len(os.path.commonprefix([key, following]))
    if shared < min(len(key), len(following)) and key[shared] + 1 < following[shared]:
        return key[:shared] + bytes([key[shared] + 1])
    return key

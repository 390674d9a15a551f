"""MindSpore's `.ckpt` files made by hand, and damage done to them."""

from __future__ import annotations

import binascii

from crossdistil.core.wire import delimited, number

MINDSPORE = bytes.fromhex(
    "0a2e0a03612e771227080208031207466c6f617433321a18000000000000803f000000400000404000008040"
    "0000a0400a190a01621214080312084246 6c6f617431361a060000803f00400a140a0173120f1207466c6f617433321a04000060400a1a0a0565706f63"
    "6812111205496e7436341a0803000000000000000a150a026c72120f1207466c6f617433321a04cdcccc3d0a0f0a026f6b12091204426f6f6c1a0101"
    "0a1a0a0174121508001203737472 1a0c68000000e90000007900000063 72635f6e756d0000000000007ea8e743".replace(" ", "")
)
"""What mindspore.save_checkpoint of 2.10.0 wrote: two tensors, a scalar, and append_dict of each type, with crc_check."""


def value(tag, dims, kind, content, maps=False):
    """A value by hand."""
    tensor = b"".join(number(1, size) for size in dims) + delimited(2, kind.encode()) + delimited(3, content)
    return delimited(1, delimited(1, tag.encode()) + delimited(3 if maps else 2, tensor))


def with_checksum(data):
    """The bytes with the trailer that `crc_check` adds."""
    return data + b"crc_num" + binascii.crc32(data).to_bytes(10, "big")


def saving(folder):
    """`saving(folder)(data)`: the path of a file of these bytes."""

    def save(data):
        path = folder / "model.ckpt"
        path.unlink(missing_ok=True)  # a new file is faster than one that is overwritten
        path.write_bytes(data)
        return path

    return save


def mutated(generator, data):
    """A damaged copy: cut, flipped, longer, overwritten, or with another length."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        kind, place, count = generator.integers(6), int(generator.integers(max(1, len(changed)))), int(generator.integers(1, 9))
        if kind == 0:
            del changed[place:]
        elif kind == 1 and changed:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            changed[place:place] = generator.bytes(count)
        elif kind == 3:
            changed[place : place + count] = generator.bytes(count)
        elif kind == 4:
            changed[place : place + count] = b"\xff" * count
        elif changed:
            changed[place] = int(generator.integers(len(data)))
    return bytes(changed)

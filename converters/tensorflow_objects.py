"""Names for the tensors of TensorFlow's object-based checkpoints, which are saved by their place in a graph of objects.

`tf.train.Checkpoint` and Keras save a variable under the path of attributes that leads to it
(`model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`), which says little of what it is. The graph of the objects is
in the same file, as a text of one element under `_CHECKPOINTABLE_OBJECT_GRAPH`, and has the names that the variables had:
  TrackableObjectGraph{1: nodes{2: attributes{2: full_name, 3: checkpoint_key}, 3: slot_variables{3: node}}}
of trackable_object_graph.proto. A slot variable is an optimizer's state for another variable.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence

import google_crc32c

from ..core.wire import VARINT, Malformed, fields, mask_crc, messages, read_varint

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_LARGEST_MESSAGE = (1 << 31) - 1
_NODES, _ATTRIBUTES, _FULL_NAME, _CHECKPOINT_KEY, _SLOT_VARIABLES, _SLOT_NODE = 1, 2, 2, 3, 3, 3


def read_text(data: bytes, crc: int) -> bytes:
    """The only element of a tensor of texts: its length (varint), masked CRC32C of the length as uint32, then itself.

    `crc` is the tensor's masked CRC32C, which is of the length as uint32 and of what follows it. Raises Malformed.
    """
    length, position = read_varint(data, 0)
    if len(data) - position - 4 != length or length > _LARGEST_MESSAGE:
        raise Malformed(f"its text has {len(data) - position - 4} bytes, and {length} according to its length")
    length_crc = google_crc32c.value(struct.pack("<I", length))
    if struct.pack("<I", mask_crc(length_crc)) != data[position : position + 4]:
        raise Malformed("the checksum of its length is wrong")
    if mask_crc(google_crc32c.extend(length_crc, data[position:])) != crc:
        raise Malformed("the checksum of its data is wrong")
    return data[position + 4 :]


def object_names(graph: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Key -> name: the variable's own if no other has it, else the key without its constant end. Raises Malformed."""
    known, present = _full_names(graph), set(keys)
    short = {key: key.removesuffix(_SUFFIX) for key in keys}
    # The end stays on where another key is the same without it.
    short = {key: key if not name or name in present else name for key, name in short.items()}
    full = {key: known[key] for key in keys if known.get(key)}
    taken = Counter(full.values()) + Counter(set(short.values()))
    own = {key: name for key, name in full.items() if taken[name] == 1 or (taken[name] == 2 and short[key] == name)}
    return short | own


def _full_names(graph: bytes) -> dict[str, str]:
    """Key -> the name that the variable had, of those that are no slot variables."""
    nodes = list(messages(graph, _NODES))
    slots = {
        value
        for node in nodes
        for slot in messages(node, _SLOT_VARIABLES)
        for field, kind, value in fields(slot)
        if field == _SLOT_NODE and kind == VARINT
    }
    found = {}
    for number, node in enumerate(nodes):
        for attribute in messages(node, _ATTRIBUTES):
            key, name = (_text(attribute, field) for field in (_CHECKPOINT_KEY, _FULL_NAME))
            if number not in slots:
                found[key] = name
    return found


def _text(message: memoryview, field: int) -> str:
    text = b""
    for value in messages(message, field):
        text = bytes(value)
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a name is not UTF-8") from error

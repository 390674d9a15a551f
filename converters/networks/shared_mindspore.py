# SPDX-License-Identifier: Apache-2.0
"""What the networks of MindSpore share. It is copied into each that is written, from the mark on, after what those of its
architecture share."""

import mindspore as ms
import numpy as np

from .shared import each_of, opened

# --- copied from here on


def tanh(x):
    """By the sigmoid: MindSpore's own tanh is off by up to 1e-4 on a CPU."""
    return 2.0 * ms.ops.sigmoid(2.0 * x) - 1.0


def read_weights(path):
    """Name in the checkpoint -> parameter. Raises FileNotFoundError where there is none, and ValueError where it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    kind = "safetensors" if path.suffix == ".safetensors" else "ckpt"
    return opened(path, lambda path: ms.load_checkpoint(str(path), format=kind))


def answers(network, ids, more):
    """Arrays that the network answers for one text, and its types or a second text."""
    ids = np.array([ids], np.int32)
    inputs = (ids,) if more is None else (ids, np.ones_like(ids), np.array([more], np.int32))
    return [each.asnumpy() for each in each_of(network(*map(ms.Tensor, inputs)))]

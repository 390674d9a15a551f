# SPDX-License-Identifier: Apache-2.0
"""What the networks of OneFlow share. It is copied into each that is written, from the mark on, after what those of its
architecture share."""

import numpy as np
import oneflow as flow

from .shared import each_of, opened

# --- copied from here on


def read_weights(path):
    """Name in the checkpoint -> tensor. Raises FileNotFoundError where there is none, and ValueError where it is damaged."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return opened(path, lambda path: flow.load(str(path)))


def answers(network, ids, more):
    """Arrays that the network answers for one text, and its types or a second text."""
    ids, more = (None if row is None else flow.tensor(np.array([row])) for row in (ids, more))
    with flow.no_grad():
        found = network(ids, None, more)
    return [each.numpy() for each in each_of(found)]

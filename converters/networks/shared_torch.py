# SPDX-License-Identifier: Apache-2.0
"""What the networks of PyTorch share. It is copied into each that is written, from the mark on, after what those of its
architecture share."""

import torch

from .shared import each_of, opened

# --- copied from here on


def read_weights(path):
    """Name in the checkpoint -> tensor. Raises FileNotFoundError where there is none, and ValueError where it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return opened(path, load_file)
    return opened(path, lambda path: torch.load(path, map_location="cpu", weights_only=True))


def answers(network, ids, more):
    """Arrays that the network answers for one text, and its types or a second text."""
    with torch.no_grad():
        found = network(torch.tensor([ids]), None, None if more is None else torch.tensor([more]))
    return [each.numpy() for each in each_of(found)]

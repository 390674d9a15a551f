"""What tests ask of the reference in float64: the values of a function, how far others are from them, and where dropout is."""

from __future__ import annotations

import numpy as np

from crossdistil.core.reference import ReferenceOps


def reference(function, parameters, batch):
    """`function(ops, parameters, batch)` in float64."""
    return function(ReferenceOps(), {name: array.astype(np.float64) for name, array in parameters.items()}, batch)


def assert_close(found, expected, tolerance, what):
    """Equal but for `tolerance`, as a share of the value (or of 1)."""
    assert found.shape == expected.shape, what
    difference = (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max()
    assert difference <= tolerance, f"{what} differs by {difference:.1e}"


class RecordingOps(ReferenceOps):
    """Writes down where dropout is applied, and at which rate, instead of applying it."""

    def __init__(self):
        self.places = []

    def dropout(self, x, rate):
        self.places.append((x.shape, rate))
        return x

    def attention(self, query, key, value, bias, dropout):
        self.places.append(("attention", dropout))
        return super().attention(query, key, value, bias, 0.0)

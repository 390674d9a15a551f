"""What docs/dialect.md says of MindSpore's compiler: the constructs that it reads as Python does, and one that it refuses."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.only_backend("mindspore")


def scaled(x, factor):
    return x * factor


def every_construct(params, x, options=("a", "b")):
    """Each construct of the page's table, over tensors or arrays."""
    total = 0.0
    for weight, tensor in zip((1.0, 2.0), [x, x + 1.0]):
        total = total + tensor.sum() * weight
    for index, name in enumerate(options):
        total = total + params[name].sum() * (index + 1.0)
    for name, tensor in params.items():
        total = total + (tensor.sum() if name in options else x.sum())
    rows = [tensor[:, 1:] for tensor in params.values()]
    named = {name: params[f"{name}"] for name in options}

    def inner(tensor):
        return tensor * 3.0

    if x.shape[0] == 2:
        total = total + inner(rows[0]).sum() + (lambda tensor: tensor - 1.0)(named["b"]).sum()
    return total + scaled(*(x, 2.0)).sum()


def united(params, x):
    return {**params, "c": x}["c"].sum()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {name: np.arange(6, dtype=np.float32).reshape(2, 3) + shift for name, shift in (("a", 0.5), ("b", 2.0))}


def compiled(function, arrays, x):
    import mindspore

    params = {name: mindspore.Tensor(array) for name, array in arrays.items()}

    def step(given):
        return function(params, given)

    return float(mindspore.jit(step)(mindspore.Tensor(x)).asnumpy())


def test_the_constructs_of_the_page_compute_what_python_computes(make_engine, arrays):
    make_engine()  # which sets MindSpore up
    x = np.full((2, 3), 0.25, np.float32)
    assert compiled(every_construct, arrays, x) == pytest.approx(float(every_construct(arrays, x)), rel=1e-6)


def test_a_union_of_dicts_is_refused(make_engine, arrays):
    make_engine()
    with pytest.raises(IndexError):
        compiled(united, arrays, np.ones((2, 3), np.float32))

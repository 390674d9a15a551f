"""What PyTorch's step on a CPU has of its own: dropout from 16-bit numbers, attention that shares its masks, and memory that is
kept. Values and gradients are compared with the plain form in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from crossdistil.core.dropout_masks import LEVELS, Draws, scale, threshold
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.optimizers import OptimizerSpec

pytestmark = pytest.mark.only_backend("torch")


@pytest.fixture
def cpu():
    from crossdistil.backends.torch.engine import TorchEngine

    return TorchEngine(EngineOptions("cpu"))


@pytest.mark.parametrize(("rate", "levels"), [(0.1, 6554), (0.25, 16384), (0.5, 32768), (1e-9, 1), (1 - 1e-9, 65535)])
def test_a_rate_is_a_whole_number_of_levels(rate, levels):
    assert threshold(rate) == levels
    numbers = np.random.SFC64(3).random_raw(LEVELS).view(np.uint16)
    kept = Draws(3).kept((4, LEVELS), rate)
    assert kept.dtype == bool and np.array_equal(kept.ravel(), numbers >= levels)
    share = levels / LEVELS
    assert abs((~kept).mean() - share) <= 5 * math.sqrt(share * (1 - share) / kept.size)
    assert scale(rate) * (LEVELS - levels) == pytest.approx(LEVELS, rel=1e-15)


def test_masks_are_a_function_of_seed_and_order():
    draws = Draws(11)
    shapes = [(3, 5), (7,), (2, 2, 3, 3)]
    first = [draws.kept(shape, 0.5) for shape in shapes]
    draws.reseed(11)
    again = [draws.kept(shape, 0.5) for shape in shapes]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(Draws(12).kept((64,), 0.5), Draws(11).kept((64,), 0.5))
    assert not np.array_equal(draws.kept((64,), 0.5), draws.kept((64,), 0.5))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_a_seed_on_a_cpu_begins_the_same_numbers_of_pytorch_as_its_own_way(cpu, seed):
    import torch

    torch.manual_seed(seed)
    expected = torch.rand(5)
    cpu.ops.masks.reseed(seed)
    assert torch.equal(torch.rand(5), expected) and torch.initial_seed() == seed


@pytest.mark.parametrize(("length", "queries"), [(1, 1), (5, 5), (7, 7), (7, 1)])  # 7 x 7 x 6: not a multiple of four numbers
def test_attention_with_dropout_and_its_gradients_are_the_formula(cpu, length, queries):
    import torch

    generator = np.random.default_rng(length)
    batch, heads, size, rate = 2, 3, 4, 0.25
    # As the model gives them: (batch, length, heads, head) with two axes swapped.
    arrays = [generator.normal(size=(batch, length, heads, size)) for _ in range(4)]
    bias = np.where(np.arange(length) < np.array([[length], [max(1, length - 2)]]), 0.0, -10000.0)[:, None, None]
    found, wanted = ([torch.tensor(array, dtype=kind, requires_grad=True) for array in arrays[:3]]
                     for kind in (torch.float32, torch.float64))
    weights = torch.tensor(arrays[3]).transpose(1, 2)[:, :, :queries]
    cpu.ops.masks.reseed(5)
    query, key, value = (part.transpose(1, 2) for part in found)
    result = cpu.ops.attention(query[:, :, :queries], key, value, torch.tensor(bias, dtype=torch.float32), rate)
    (result * weights.float()).sum().backward()
    query, key, value = (part.transpose(1, 2) for part in wanted)
    mask = torch.tensor(Draws(5).kept((batch, heads, queries, length), rate)) * scale(rate)
    scores = query[:, :, :queries] @ key.transpose(2, 3) / math.sqrt(size) + torch.tensor(bias)
    expected = (torch.softmax(scores, -1) * mask) @ value
    (expected * weights).sum().backward()
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [0, 2])
@pytest.mark.parametrize("length", [5, 17, 70])  # softmax by its parts, by PyTorch's kernel, and all by its fused kernel
def test_attention_in_bf16_is_the_formula(length, padded):
    import torch

    from crossdistil.backends.torch.engine import TorchEngine

    ops, generator, rate = TorchEngine(EngineOptions("cpu", "bf16")).ops, np.random.default_rng(length), 0.25
    arrays = [generator.normal(size=(2, length, 3, 4)) for _ in range(4)]
    bias = torch.zeros(2, 1, 1, length)
    bias[1, ..., length - padded :] = -10000.0 if padded else 0.0
    found, wanted = ([torch.tensor(array).to(torch.bfloat16).to(kind).requires_grad_() for array in arrays[:3]]
                     for kind in (torch.bfloat16, torch.float64))  # fmt: skip
    weights = torch.tensor(arrays[3]).transpose(1, 2)
    ops.masks.reseed(5)
    result = ops.attention(*(part.transpose(1, 2) for part in found), bias, rate)
    (result * weights.to(torch.bfloat16)).sum().backward()
    query, key, value = (part.transpose(1, 2) for part in wanted)
    probabilities = torch.softmax(query @ key.transpose(2, 3) / 2.0 + bias.double(), -1)
    mask = torch.tensor(Draws(5).kept((2, 3, length, length), rate)) * scale(rate)
    expected = (probabilities * mask) @ value
    (expected * weights).sum().backward()
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=0.03)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0, atol=0.05)
    with torch.no_grad():  # as a teacher
        plain = ops.attention(*(part.transpose(1, 2) for part in found), bias, 0.0)
    torch.testing.assert_close(plain.double(), (probabilities @ value).detach(), rtol=0, atol=0.03)


def test_the_gradient_of_attention_is_that_of_finite_differences():
    import torch

    from crossdistil.backends.torch.attention import _DroppedAttention

    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.zeros(2, 1, 1, 4, dtype=torch.float64)
    bias[1, :, :, 3] = -10000.0
    kept = torch.from_numpy(Draws(2).kept((2, 2, 4, 4), 0.4))
    for added in (bias, None):
        assert torch.autograd.gradcheck(_DroppedAttention.apply, (*parts, added, kept, 1.7))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dropout_multiplies_by_its_mask(cpu, precision):
    import torch

    x = torch.randn(6, 7, dtype=getattr(torch, precision), requires_grad=True)
    cpu.ops.masks.reseed(9)
    result = cpu.ops.dropout(x, 0.3)
    result.sum().backward()
    mask = torch.tensor(Draws(9).kept((6, 7), 0.3)) * scale(0.3)
    tolerance = 1e-6 if precision == "float32" else 1e-2
    torch.testing.assert_close(x.grad.double(), mask.double(), rtol=tolerance, atol=0)
    torch.testing.assert_close(result.double(), x.double() * mask, rtol=tolerance, atol=0)
    assert result.dtype is x.dtype


def test_a_run_of_an_earlier_version_keeps_its_masks(cpu):
    assert cpu.kernels["dropout"] == "masks of 16 bits" and cpu.keep_kernels(dict(cpu.kernels)) == []
    [line] = cpu.keep_kernels({"linear": cpu.kernels["linear"]})
    assert line.startswith("dropout: by PyTorch's own masks, as in the process that started the run")
    assert cpu.kernels["dropout"] == "pytorch" and not cpu.ops.masks.own
    assert cpu.keep_kernels(dict(cpu.kernels)) == []  # a state that this process saves


def test_freed_memory_is_kept_unless_the_user_decides(monkeypatch):
    import platform

    from crossdistil.backends.torch.memory import keep_freed

    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert keep_freed() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")
    assert not keep_freed()


def test_a_forward_pass_alone_keeps_freed_memory_on_a_cpu(monkeypatch, cpu):
    asked = []
    monkeypatch.setattr("crossdistil.backends.torch.engine.keep_freed", lambda: asked.append(True))
    infer = cpu.infer(lambda ops, params, batch: [batch["x"]], {})
    assert asked and np.array_equal(infer({"x": np.ones(2, np.float32)})[0], np.ones(2))


@pytest.mark.parametrize("name", ["adamw", "bert_adam", "adadelta"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_of_a_table_row_by_row_is_that_of_all_of_it(monkeypatch, cpu, name, tied):
    from crossdistil.backends.torch import tables

    table, generator = "embeddings.word_embeddings.weight", np.random.default_rng(3)

    def objective(ops, params, frozen, batch):
        rows = ops.embedding(params[table], batch["ids"]) + ops.embedding(params[table], batch["others"])
        total = ops.sum(rows * rows * batch["y"]) if batch["ids"].shape[0] > 1 else ops.sum(params["dense.bias"])
        if tied:
            total = total + ops.sum(ops.linear(rows, params[table], None)) * 0.1
        return total, ops.stack([total])

    given = {table: generator.normal(size=(40, 6)), "dense.bias": generator.normal(size=6)}
    given = {key: array.astype(np.float32) for key, array in given.items()}

    def batch(count):
        ids = {key: generator.integers(0, 40, (count, 5)).astype(np.int32) for key in ("ids", "others")}
        return ids | {"y": generator.normal(size=(count, 5, 6)).astype(np.float32), "denominators": np.ones(1, np.float32)}

    # One micro-batch, several, and a step that does not look anything up (but for the tied map).
    steps = [Step([batch(count) for count in counts], 0.1, 0) for counts in ((3,), (2, 4, 2), (1,), (3, 2))]
    found = []
    for large in (1, 2**20):
        monkeypatch.setattr(tables, "_LARGE", large)
        step = cpu.train_step(objective, given, {}, OptimizerSpec(name, max_gradient_norm=1.0))
        values = step.run(iter(steps), len(steps)).fetch()
        found.append({"values": values} | step.parameters() | step.state())
    for key, array in found[0].items():
        np.testing.assert_allclose(array, found[1][key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("relative", [False, True])
def test_attention_of_one_query_is_that_of_all_keys_and_values(relative):
    """With dropout, whose masks are the same ones; with padding, or a bias that is learnt of each head."""
    import torch

    from crossdistil.backends.torch.dropout import DropoutMasks
    from crossdistil.backends.torch.ops import TorchOps
    from crossdistil.core.models.components import attention_by_maps

    generator = np.random.default_rng(4)
    batch, heads, length, size, hidden = 3, 2, 7, 4, 6
    shapes = [(batch, heads, 1, size), (batch, length, hidden), *2 * [(heads * size, hidden), (heads * size,)]]
    arrays = [generator.normal(size=shape) for shape in shapes]
    padding = np.where(np.arange(length) < np.array([[length], [length - 2], [1]]), 0.0, -10000.0)[:, None, None]
    arrays.append(generator.normal(size=(1, heads, 1, length)) if relative else padding)
    weights, found = torch.from_numpy(generator.normal(size=shapes[0])), []
    for function in (TorchOps.attention_to_states, attention_by_maps):
        ops = TorchOps(torch.device("cpu"), torch.float64, DropoutMasks(own=True))
        ops.masks.reseed(5)
        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        result = function(ops, *tensors, 0.25)
        (result * weights).sum().backward()
        found.append([result.detach(), *(tensor.grad for tensor in tensors[: 7 if relative else 6])])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", ["onednn", "pytorch"])
def test_the_linear_maps_of_a_step_are_found_and_timed_alone(monkeypatch, kernel):
    """By what benchmarks/step_profile.py says how much is left: forward, both gradients, and a weight that was packed."""
    import torch

    import crossdistil
    from crossdistil.backends.torch import linear

    monkeypatch.syspath_prepend(str(Path(crossdistil.__file__).parent / "benchmarks"))
    monkeypatch.setattr(linear, "_chosen", linear._chosen)  # put back after the test
    linear.choose(kernel)
    from gemm_peak import linear_maps_alone

    x, weight, bias = torch.randn(40, 6, requires_grad=True), torch.randn(5, 6, requires_grad=True), torch.randn(5)
    frozen = linear.packable(torch.randn(5, 6))

    def run():
        linear.linear(x, weight, bias).sum().backward()
        with torch.no_grad():
            linear.linear(x, frozen, bias)

    run()
    seconds, operations = linear_maps_alone(run, turns=1)
    assert operations == 4 * 2 * 40 * 6 * 5
    assert seconds > 0

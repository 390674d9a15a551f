"""How the processor time of a step is shared out over the operations of each framework, and which kind of work each is.

PyTorch's profiler says it itself. MindSpore's has the time of the clock, which goes on while another program has the processor:
the processor's, read a thousand times a second beside it, says how much of an operation's time was its own. OneFlow's needs a
GPU: here each operation of the adapter is waited for and timed, forward as it is called, backward by hooks on its results.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {
        "linear maps": ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm"),
        "attention": (
            "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::exp_",
            "aten::amax", "aten::addcmul_", "aten::reciprocal_", "aten::sub_",
        ),
        "activations": ("aten::gelu", "aten::gelu_backward", "aten::tanh", "aten::tanh_backward"),
        "normalisation": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
        "optimizer, norm of the gradient": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
        "look-ups and new memory": (
            "aten::fill_", "aten::zero_", "aten::embedding_dense_backward", "aten::index_select", "aten::_index_put_impl_",
            "aten::_unique2", "aten::empty", "aten::empty_strided",
        ),
        "sums and products of elements": (
            "aten::add", "aten::add_", "aten::mul", "aten::mul_", "aten::sum", "aten::where", "aten::div", "aten::sub",
        ),
        "copies and changes of type": ("aten::copy_",),
    },
    "mindspore": {
        "linear maps": ("MatMul", "BiasAdd", "BiasAddGrad"),
        "attention": ("BatchMatMul", "Softmax", "SoftmaxGrad", "ReduceMax", "BroadcastTo"),
        "activations": ("Erf", "Exp", "Pow", "Neg", "Sigmoid", "SigmoidGrad", "Tanh", "TanhGrad", "GeLU", "GeLUGrad"),
        "normalisation": ("LayerNorm", "LayerNormGrad"),
        "optimizer": ("AdamWeightDecay", "Adam", "AssignSub"),
        "look-ups": ("Gather", "UnsortedSegmentSum", "GatherD", "GatherDGradV2"),
        "sums and products of elements (GELU's, dropout's, the norm's too)": (
            "Add", "AddN", "Mul", "Sub", "Div", "ReduceSum", "GreaterEqual", "Floor", "Select", "Sqrt",
        ),
        "copies, transpositions and changes of type": (
            "Cast", "Tile", "Assign", "StridedSlice", "StridedSliceGrad", "Stack", "Unstack", "Concat", "TensorMove",
        ),
    },
    "oneflow": {
        "linear maps, forward": ("linear",),
        "linear maps, backward": ("linear back",),
        "attention, forward": ("attention", "transpose"),
        "attention, backward": ("attention back", "transpose back"),
        "activations, forward": ("gelu", "tanh"),
        "activations, backward": ("gelu back", "tanh back"),
        "normalisation, forward": ("layer_norm",),
        "normalisation, backward": ("layer_norm back",),
        "dropout, forward": ("dropout",),
        "dropout, backward": ("dropout back",),
        "look-ups, forward": ("embedding",),
        "look-ups, backward": ("embedding back",),
        "optimizer, norm of the gradient": ("optimizer",),
    },
}  # fmt: skip
"""Backend -> kind of work -> its operations."""
ALL_ELSE = "all else, Python too"


def by_torch(run: Callable[[], float], ops) -> tuple[float, dict[str, float]]:
    """Seconds of a profiled turn, and of each of its operations. `run` returns the processor time that it took."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        whole = run()
    known = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    return max(whole, sum(known.values())), known  # its clock goes on while another program has the processor


def by_mindspore(run: Callable[[], float], ops) -> tuple[float, dict[str, float]]:
    """The same."""
    from mindspore.profiler import Profiler

    clock = _ProcessorClock()
    with tempfile.TemporaryDirectory() as folder:
        profiler = Profiler(output_path=folder, start_profile=False)
        profiler.start()
        with clock:
            whole = run()
        profiler.stop()
        profiler.analyse()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_execute_timestamp_0.txt")
        lines = path.read_text(encoding="utf-8").splitlines()
    known: Counter[str] = Counter()
    for line in lines:  # scope/Name-op7;device;start in ns,ms,0 start in ns,ms,0 ...
        name, _, runs = line.split(";", 2)
        for start, took, _ in (each.split(",") for each in runs.split()):
            known[name.rpartition("/")[2].rpartition("-op")[0]] += clock.between(int(start), int(start) + int(float(took) * 1e6))
    return whole, dict(known)


def by_oneflow(run: Callable[[], float], ops) -> tuple[float, dict[str, float]]:
    """The same, of the operations `ops`, each of which is waited for."""
    timed = _Timed(ops)
    run()
    timed.turn_to(ALL_ELSE)
    timed.seconds.clear()
    whole = run()
    timed.turn_to(ALL_ELSE)
    return whole, dict(timed.seconds)


BY = {"torch": by_torch, "mindspore": by_mindspore, "oneflow": by_oneflow}


class _ProcessorClock(threading.Thread):
    """The processor time of this process at any moment that it ran."""

    def __init__(self):
        super().__init__(daemon=True)
        self._read: list[tuple[int, int]] = []
        self._ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    def run(self):
        while not self._ended.wait(0.001):
            self._read.append((time.time_ns(), time.process_time_ns()))

    def between(self, start: int, end: int) -> float:
        """Seconds of the processor between two moments in nanoseconds since the epoch."""
        moments, used = np.array(self._read, np.float64).T
        low, high = np.interp((start, end), moments, used)
        return float(high - low) / 1e9


class _Timed:
    """Puts itself before the methods of OneFlow's operations."""

    METHODS = ("linear", "attention", "transpose", "gelu", "tanh", "layer_norm", "dropout", "embedding")

    def __init__(self, ops):
        import oneflow

        self._wait = oneflow._oneflow_internal.eager.Sync
        self.seconds: Counter[str] = Counter()
        self._now, self._since = ALL_ELSE, time.process_time()
        for name in self.METHODS:
            setattr(ops, name, self._timed(name, getattr(ops, name)))

    def turn_to(self, name: str) -> None:
        """What went before is done; now `name` is."""
        self._wait()
        now = time.process_time()
        self.seconds[self._now] += now - self._since
        self._now, self._since = name, now

    def _timed(self, name, method):
        def timed(*arguments):
            if self._now not in (ALL_ELSE, "optimizer"):  # a part of another operation
                return method(*arguments)
            self.turn_to(name)
            result = method(*arguments)
            self.turn_to(ALL_ELSE)
            if result.requires_grad:
                result.register_hook(lambda _: self.turn_to(f"{name} back"))
            if name == "embedding" and arguments[0].requires_grad:  # the last gradient, behind which the optimizer comes
                arguments[0].register_hook(lambda _: self.turn_to("optimizer"))
            return result

        return timed

"""A device whose memory does not suffice: what is needed, and what can be done about it, in one line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from ..checkpoint import Model
from ..engine import Engine
from ..errors import CrossdistilError
from ..models.architectures import tensor_shapes
from ..models.known_families import is_norm, is_table
from ..shown import plain

_LONGEST = 200


@contextlib.contextmanager
def told_what_is_needed(engine: Engine, teachers: Callable[[], str], less: str) -> Iterator[None]:
    """What a framework reports of memory that it does not get becomes a CrossdistilError; `teachers()` says what part teachers
    have in it, or nothing; `less` is what helps."""
    try:
        yield
    except CrossdistilError:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not engine.out_of_memory(error):
            raise
        found = plain(" ".join(str(error).split()), _LONGEST)
        half = " or --precision bf16" if engine.precision == "fp32" and engine.name != "oneflow" else ""
        raise CrossdistilError(
            f"{engine.device}: there is not enough memory{f' ({found})' if found else ''}; {teachers()}{less}{half} helps"
        ) from error


def weight_bytes(model: Model, precision: str) -> int:
    """What the frozen weights of a model take on a device: in half precision, embeddings and normalisations stay in float32."""
    total = 0
    for name, shape in tensor_shapes(model.config, model.outputs or 1, model.words).items():
        if name in model.parameters:
            whole = precision == "fp32" or is_table(name) or is_norm(name)
            total += math.prod(shape) * (4 if whole else 2)
    return total

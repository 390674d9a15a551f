"""The names that each framework's code has for the tensors of a model: its dialect.

    canonical       Hugging Face transformers 5, PyTorch
    tensorflow      Google's code; read, other TensorFlow code as well
    mindspore       the model zoo since r1.2 (BERT); Hugging Face's names with MindSpore's parameters (others)
    mindspore-old   the model zoo before
    oneflow         OneFlow 0.9: canonical names
    oneflow-legacy  OneFlow up to 0.4
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ..core.errors import CheckpointError, did_you_mean
from . import names_canonical, names_mindspore, names_oneflow, names_tensorflow
from .bilstm_checkpoint import BILSTM
from .names_canonical import tied_of
from .rules import Dialect

_SHOWN = 3

_CANONICAL = Dialect(
    names_canonical.table,
    ".",
    names_canonical.clean,
    names_canonical.spelled,
    names_canonical.settle,
    names_canonical.STARTS,
    names_canonical.ENDS,
)


def _mindspore(dialect: str) -> Dialect:
    own = partial(names_mindspore.table, dialect=dialect)
    clean, settle = names_canonical.clean, names_canonical.settle
    return Dialect(own, ".", clean, names_mindspore.spelled, settle, names_mindspore.STARTS, names_mindspore.ENDS)


DIALECTS: dict[str, Dialect] = {
    "canonical": _CANONICAL,
    "tensorflow": Dialect(
        names_tensorflow.table,
        "/",
        names_tensorflow.clean,
        names_tensorflow.spelled,
        names_tensorflow.settle,
        names_tensorflow.STARTS,
        names_tensorflow.ENDS,
    ),
    "mindspore": _mindspore("mindspore"),
    "mindspore-old": _mindspore("mindspore-old"),
    "oneflow": _CANONICAL,
    "oneflow-legacy": Dialect(
        names_oneflow.table,
        "-",
        names_oneflow.clean,
        names_oneflow.spelled,
        names_oneflow.settle,
        frozenset(),
        names_oneflow.ENDS,
    ),
}


def foreign_names(canonical: Iterable[str], family: str, dialect: str) -> dict[str, tuple[str, bool]]:
    """Canonical name -> (name in the dialect, whether it is transposed there). Raises CheckpointError for names that have
    none there: unknown ones, and decoders that are not tied, where the dialect's networks tie them."""
    if family == BILSTM:
        return {name: (name, False) for name in canonical}
    table = DIALECTS[dialect].table(family)
    names, problems = {}, []
    for name in canonical:
        found = table.foreign(name)
        if found is not None:
            names[name] = found
        elif name in tied_of(family):
            problems.append(f"{name}: networks of {dialect} {family} tie it to {tied_of(family)[name]}; it cannot be kept apart")
        else:
            expected = [rule.canonical.replace("{}", "0") for rule in table.rules]
            problems.append(f"{name}: no tensor of {family} has this name{did_you_mean(name, expected)}")
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError("\n".join(problems[:_SHOWN]) + more)
    return names

"""The canonical names: those of Hugging Face transformers 5, for each family, and how PyTorch files deviate from them.

They follow from the family's parts (`core.models.parts`): templates with `{}` for the number of a layer (ALBERT: of a group and
of a layer in it). `Linear` weights are (out, in). Older PyTorch files call the parts of a LayerNorm gamma and beta, and encoders
are saved without their root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.models.families import CONFIGURATIONS
from ..core.models.known_families import encoder_families, of_families
from ..core.models.parts import UNUSED
from ..core.models.tree import templates, tied
from .rules import Rule, Spelling, Table

_BESIDE = tuple(
    f"{name}.{part}" for name in ("classifier", "qa_outputs", "fit_dense", "fit_denses.{}") for part in ("weight", "bias")
)
"""What some classes of every family have, or were trained with: a map of each token's state, and TinyBERT's projections."""

_NORM_PARTS = (
    (re.compile(r"(LayerNorm|(?:^|[._])norm)\.gamma$"), r"\1.weight"),
    (re.compile(r"(LayerNorm|(?:^|[._])norm)\.beta$"), r"\1.bias"),
)
STARTS = frozenset("embeddings embeddings_project encoder transformer pooler layers final_norm".split())
"""What an encoder without its root starts with."""
ENDS = frozenset("gamma beta".split())
_TRANSPARENT = re.compile(
    r"(?<![^.])(?:_orig_mod|module|_module|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Of torch.compile, DataParallel and its successors, Opacus, Lightning, FSDP and activation checkpoints."""


@of_families
def told_by_names() -> tuple[str, ...]:
    """The families that names can tell: of several with the same names, the first."""
    first = {templates_of(kind): kind for kind in reversed(encoder_families())}
    return tuple(kind for kind in encoder_families() if kind in first.values())


@of_families
def templates_of(family: str) -> tuple[str, ...]:
    """Every kind of tensor that a model of the family has of its own."""
    return tuple(dict.fromkeys((*templates(CONFIGURATIONS[family].family), *_BESIDE)))


@of_families
def tied_of(family: str) -> dict[str, str]:
    """Name -> the tensor that it is a copy of, unless the configuration says `tie_word_embeddings: false`."""
    return tied(CONFIGURATIONS[family].family)


@of_families
def _starts_of(family: str) -> frozenset[str]:
    """What the names of an encoder of the family start with where they are without their root; those of BERT's kind in any."""
    own = CONFIGURATIONS[family].family
    behind = (name.removeprefix(own.root) for name in templates(own) if name.startswith(own.root))
    return STARTS - {"layers", "final_norm", own.root.removesuffix(".")} | {name.partition(".")[0] for name in behind}


@of_families
def table(family: str) -> Table:
    """The rules of the canonical form itself: every name stands for itself."""
    return Table(Rule(name, name) for name in (*templates_of(family), *tied_of(family)))


def clean(name: str) -> str:
    """Without the names of wrapping modules, which PyTorch puts before those of the module inside, at any place."""
    return _TRANSPARENT.sub("", name)


def wrappers(names: Iterable[str]) -> list[str]:
    """The wrapping modules in the names of a file."""
    return sorted({found for name in names for found in _TRANSPARENT.findall(name)})


def spelled(name: str, kind: str) -> str:
    """A name of a PyTorch file, without its prefix, as the rules have it."""
    for old, new in _NORM_PARTS:
        name = old.sub(new, name)
    start = name.partition(".")[0]
    own = start in _starts_of(kind) and start not in without_root(kind)
    return CONFIGURATIONS[kind].family.root + name if own else name


@of_families
def without_root(family: str) -> frozenset[str]:
    """What names start with that are not the encoder's: DeBERTa's pooler is one of them."""
    root = CONFIGURATIONS[family].family.root
    return frozenset(name.partition(".")[0] for name in templates_of(family) if not name.startswith(root))


def settle(spelling: Spelling, kind: str, config: Mapping[str, Any]) -> None:
    """What an encoder has and the classifier of its family does not use: its pooler, a head that nothing computes with."""
    family, names = CONFIGURATIONS[kind].family, set(spelling.names.values())
    unused = {name: part for part in family.at(UNUSED) for name in part.tensors()}
    if f"{family.name('classifier')}.weight" in names:
        for source, name in [(source, name) for source, name in spelling.names.items() if name in unused]:
            del spelling.names[source]
            what = "pooler of the encoder" if unused[name].role == "encoder_pooler" else "head of the pre-training"
            spelling.dropped[source] = f"{what} that its classifier does not use"

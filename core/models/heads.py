"""The heads of pre-training: what their parts are called, and their shapes.

    mlm            bert, distilbert, albert   what a word in a gap could be
    lm             deberta-v2                 as mlm, of the published files
    clm            gpt2                       what the next word could be
    nsp            bert                       whether the second text follows the first (0: it does)
    sop            albert                     whether the two texts are in their order (0: they are)
    generator      electra                    as mlm
    discriminator  electra                    whether a word was put in by the generator

Names and layouts are those of Hugging Face's *ForPreTraining and *ForMaskedLM.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from . import tree
from .parts import WORDS, Family
from .spec import EncoderConfig


@dataclass(frozen=True)
class Head:
    """A head and what its parts are called."""

    kind: str
    """`words` predicts a word for each position, `tokens` one number, `pairs` tells of a pair of texts one of two classes."""
    last: str
    """The last linear map; empty where its weight is the table of words in any case."""
    last_bias: str
    """Its bias; empty where it has none."""
    transform: str = ""
    """The linear map before it; empty where there is none."""
    norm: str = ""
    """The normalisation after the transform; empty where there is none."""
    activation: str | None = None
    """That of the transform, where it is not the encoder's."""


@functools.cache
def heads_of(family: Family) -> dict[str, Head]:
    """Head -> its parts."""
    found: dict[str, Head] = {}
    for place, kind in {part.place: part.role.partition(".")[0] for part in family.parts if "." in part.role}.items():
        own = {part.role.partition(".")[2]: part.name for part in family.at(place)}
        last = own["last"] if "last" in own else own.get("decoder", "").removesuffix(".weight")
        activation = family.words_activation if kind == WORDS else None
        bias = own.get("bias", "" if kind == WORDS else f"{last}.bias")
        found[place] = Head(kind, last, bias, own.get("transform", ""), own.get("norm", ""), activation)
    return found


def decoders(config: EncoderConfig) -> dict[str, str]:
    """Head -> name of its decoder's weight (vocabulary, embedding), for the heads that predict words. As a rule it is tied
    to the word embeddings, and then no part of `head_shapes`."""
    return {name: f"{head.last}.weight" for name, head in heads_of(config.family).items() if head.kind == WORDS and head.last}


def head_shapes(config: EncoderConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Head -> name -> shape of each of its tensors but the decoder's weight. A bias that many files hold under two names
    (`cls.predictions.bias`, `cls.predictions.decoder.bias`) is there once, under the first one."""
    return {name: tree.head_shapes(config, name) for name in heads_of(config.family)}


def words_head(config: EncoderConfig) -> Head:
    """The head that predicts words."""
    return heads_of(config.family)[tree.words_place(config)]


def word_embeddings(config: EncoderConfig) -> str:
    """Name of the table of words, which as a rule is the weight of that head's last map too."""
    return f"{config.family.name('words')}.weight"


def words_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of the head that predicts words, without the decoder's weight."""
    return tree.head_shapes(config, tree.words_place(config))

"""What a family of models is, as data: the tree of its named tensors, and in what its layers compute otherwise than BERT's.

Names are those of Hugging Face's classes. Shapes are names of sizes, which every configuration has as a field or a property, so
that one tree serves all models of a family; what follows from it (shapes, used tensors, names in other frameworks, costs) is in
`core.models.tree` and asked for by role: parts of equal roles mean the same in every family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

TABLE, DENSE, CONV1D, NORM, TENSOR = "table", "dense", "conv1d", "norm", "tensor"
EMBEDDINGS, LAYER, ENCODER, POOLER, CLASSIFIER = "embeddings", "layer", "encoder", "pooler", "classifier"
UNUSED, NEVER = "unused", "never"
WORDS, PAIRS, TOKENS = "words", "pairs", "tokens"
"""Kinds of pre-training heads, with which the roles of their parts start: one predicts a word for each position, one tells of a
pair of texts one of two classes, one gives each position a number."""
ATTENTION_INPUT, ATTENTION_NORM, FINAL_NORM = "attention_input", "attention_norm", "final_norm"
"""Roles: the map that makes queries, keys and values at once, the normalisation at the attention, and that of the last layer's
result."""
OUTPUTS = "outputs"
"""The size of a classifier's logits, which no configuration has."""
NEVER = "never"
"""In place of a property: no model of the family has this bias."""

Shape = tuple["str | int", ...]


@dataclass(frozen=True)
class Part:
    """A part of a model: one or two tensors."""

    role: str
    """What it is for, the same in every family."""
    name: str
    """What its tensors' names start with; of a `LAYER` what follows the layer's prefix; of a `TENSOR` the whole name."""
    kind: str
    """`TABLE` has a weight whose rows are looked up, `DENSE` a weight (out, in) and a bias, `CONV1D` the same with a weight
    (in, out), as GPT-2's files have it, `NORM` both, `TENSOR` is one."""
    shape: Shape
    """Of the weight: names of sizes, and numbers."""
    place: str
    """`EMBEDDINGS`, `LAYER`, `ENCODER` (beside the layers), `POOLER`, `CLASSIFIER`, the name of a head of pre-training, or
    `UNUSED`: encoders' files hold it, and nothing here is computed with it."""
    tied: str | None = None
    """The tensor that it is a copy of."""
    when: str | None = None
    """The property of a configuration that says whether it is there."""
    biased: str | None = None
    """The property of a configuration that says whether it has its bias; None: it has. `NEVER`: in no model."""
    from_layer: int = 0
    """The first layer, from 0, that has it."""

    def tensors(self, config: Any = None) -> dict[str, Shape]:
        """Name -> sizes of each of its tensors in a model of this configuration; None: in any model."""
        if self.kind == TENSOR:
            return {self.name: self.shape}
        weight = {f"{self.name}.weight": self.shape}
        return weight | {f"{self.name}.bias": (self.outputs,)} if self.has_bias(config) else weight

    @property
    def outputs(self) -> str | int:
        """The size of what it gives: of its bias, where it has one."""
        return self.shape[1] if self.kind == CONV1D else self.shape[0]

    def has_bias(self, config: Any = None) -> bool:
        """Whether it has a bias in a model of this configuration; None: in any model."""
        if self.kind not in (DENSE, CONV1D, NORM) or self.biased == NEVER:
            return False
        return config is None or self.biased is None or getattr(config, self.biased)

    def is_there(self, config: Any, layer: int | None = None) -> bool:
        """Whether a model of this configuration has it; with `layer`, from 0, whether that layer has."""
        return (self.when is None or getattr(config, self.when)) and (layer is None or layer >= self.from_layer)


@dataclass(frozen=True)
class Block:
    """In what a layer differs. All are attention and feed-forward part, each added to its input and then normalised."""

    normalised_before: bool = False
    """Whether what goes into either part is normalised instead, and the last layer's result once more
    (`core.models.normalised_before`)."""
    causal: bool = False
    """Whether a token sees only itself and those before it. Texts are padded behind, so that no token sees padding."""
    gated: bool = False
    """Whether the feed-forward part multiplies half of its inner numbers, activated, with the others; of layers that are
    normalised before."""
    output_dropout: bool = True
    """Whether the feed-forward output is dropped out."""
    relative_buckets: int = 0
    """Whether a learnt number for each head and bucket of distances is added to the scores (Raffel et al. 2020, section 2.1): how
    many buckets, in the part of role `relative_positions`."""
    farthest: int = 128
    """Distances from here on are in the last bucket."""


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models."""

    model_type: str
    """As config.json has it."""
    title: str
    """What transformers' classes start with."""
    root: str
    """What the encoder's names start with."""
    parts: tuple[Part, ...]
    layer: str = ""
    """Prefix of a layer, with `{layer}`, or with `{group}` and `{inner}` where layers are shared; empty of no Transformer."""
    block: Block = Block()
    pooler_in_encoder: bool = True
    """Whether the pooler belongs to an encoder without a classifier."""
    pooler_activation: str = "tanh"
    pooler_dropout: bool = False
    """Whether there is a dropout before the pooler too."""
    classifies_tokens: bool = False
    """Whether it has a classifier of tokens, in transformers as here."""
    answers_questions: bool = True
    """Of those, whether it has a head for the beginning and the end of an answer too, in transformers as here."""
    own_heads: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    """Name of a head in `core.models.answer_heads` -> its parts, `POOLER` and `CLASSIFIER`, where it has others than in most
    families: those of the classifier of sentences, or one map of each token's state. In their names `{root}` stands for the
    family's."""
    words_activation: str | None = None
    """That of the head which predicts words, where it is not the encoder's."""
    classes: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Heads of pre-training -> how transformers' class that has them ends."""
    head_keys: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Head of pre-training -> what config.json says where a file has it."""
    entries: Mapping[str, str] = field(default_factory=dict)
    """What config.json has beside class, type and configuration."""
    buffers: tuple[str, ...] = ()
    """What files hold in each layer beside its tensors, and nothing is computed with: masks that code makes anew."""
    google: Mapping[str, str] = field(default_factory=dict)
    """Role -> what Google's TensorFlow code calls the part, with dots and without the numbers of layers (`{}`), where that is not
    the name here."""
    starts_from: tuple[str, ...] = ()
    """Families whose weights a model of this one can start from, beside its own (`core.models.transfer`)."""
    in_googles_code: bool = True
    """Whether Google's TensorFlow code, or what was written after it, has a model of this kind."""
    others_write: bool = True
    """Whether others write its config.json as well, with keys of their own."""

    @property
    def is_encoder(self) -> bool:
        """Whether it is a Transformer, with layers and hidden states that can be matched."""
        return bool(self.layer)

    @property
    def shares_layers(self) -> bool:
        """Whether several layers are the same tensors."""
        return self.is_encoder and "{layer}" not in self.layer

    @cached_property
    def by_role(self) -> dict[str, Part]:
        """Role -> part, the first where there are several."""
        return {part.role: part for part in reversed(self.parts)}

    @cached_property
    def _ends(self) -> dict[str, set[str]]:
        """Kind of parts -> their names without the root and a layer's prefix."""
        heads, found = (part for parts in self.own_heads.values() for part in parts), {}
        for part in (*self.parts, *heads):
            found.setdefault(part.kind, set()).add(part.name.removeprefix("{root}").removeprefix(self.root))
        return found

    def has(self, kind: str, name: str) -> bool:
        """Whether a tensor of this name is of a part of the kind, whatever the name starts with."""
        place = name.rpartition(".")[0]
        return any(place == end or place.endswith(f".{end}") for end in self._ends.get(kind, ()))

    def name(self, role: str) -> str:
        """What the tensors' names of a part start with; KeyError where there is none of this role."""
        return self.by_role[role].name

    def at(self, *places: str) -> list[Part]:
        """The parts at these places, in order."""
        return [part for place in places for part in self.parts if part.place == place]


def embedding_parts(root: str, width: str, types: bool = True, normalised: bool = True) -> tuple[Part, ...]:
    """Tables of words, positions and, with `types`, of token types, and the normalisation of their sum, where it is
    `normalised`."""
    start, tables = f"{root}embeddings.", {"words": "word", "positions": "position"} | ({"types": "token_type"} if types else {})
    rows = {"words": "vocab_size", "positions": "max_position_embeddings", "types": "type_vocab_size"}
    return (
        *(Part(role, f"{start}{name}_embeddings", TABLE, (rows[role], width), EMBEDDINGS) for role, name in tables.items()),
        *((Part("embeddings_norm", f"{start}LayerNorm", NORM, (width,), EMBEDDINGS),) if normalised else ()),
    )


def layer_parts(
    query: str = "attention.self.query",
    key: str = "attention.self.key",
    value: str = "attention.self.value",
    attention_output: str = "attention.output.dense",
    attention_norm: str = "attention.output.LayerNorm",
    intermediate: str = "intermediate.dense",
    output: str = "output.dense",
    output_norm: str = "output.LayerNorm",
) -> tuple[Part, ...]:
    """Those of a layer as BERT has it, by BERT's names where no others are given."""
    width, inner = "hidden_size", "intermediate_size"
    names = {"query": query, "key": key, "value": value, "attention_output": attention_output}
    return (
        *(Part(role, name, DENSE, (width, width), LAYER) for role, name in names.items()),
        Part("attention_norm", attention_norm, NORM, (width,), LAYER),
        Part("intermediate", intermediate, DENSE, (inner, width), LAYER),
        Part("output", output, DENSE, (width, inner), LAYER),
        Part("output_norm", output_norm, NORM, (width,), LAYER),
    )


def classifier_parts(pooler: str, classifier: str = "classifier") -> tuple[Part, ...]:
    """The hidden map of the first token, and the classifier."""
    return (
        Part("pooler", pooler, DENSE, ("hidden_size", "hidden_size"), POOLER),
        Part("classifier", classifier, DENSE, (OUTPUTS, "hidden_size"), CLASSIFIER),
    )


def words_parts(
    head: str, width: str, table: str, transform: str, norm: str, bias: str, decoder: str = "",
    biased: str | None = None, norm_biased: str | None = None,
) -> tuple[Part, ...]:  # fmt: skip
    """The head that predicts words with the `table` of words: `decoder` is the name of its last map in files that hold the copy,
    whose bias they hold twice where its name is not `bias`; empty where there can be no other weight than the table. `biased` and
    `norm_biased` are those of the parts before it."""
    copy = Part("words.decoder", f"{decoder}.weight", TENSOR, ("vocab_size", width), head, f"{table}.weight")
    twice = Part("words.decoder_bias", f"{decoder}.bias", TENSOR, ("vocab_size",), head, bias)
    return (
        Part("words.transform", transform, DENSE, (width, "hidden_size"), head, biased=biased),
        Part("words.norm", norm, NORM, (width,), head, biased=norm_biased),
        Part("words.bias", bias, TENSOR, ("vocab_size",), head),
        *((copy,) if decoder else ()),
        *((twice,) if decoder and bias != f"{decoder}.bias" else ()),
    )


def pairs_part(head: str, name: str) -> Part:
    """The head that tells of two texts whether they belong together."""
    return Part("pairs.last", name, DENSE, (2, "hidden_size"), head)

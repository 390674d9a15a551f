"""BERT (Devlin et al. 2018) and the families of its kind written once over `Ops`: the encoder, the pooler and a
classification or regression head. In what they differ and what their parts are called is data (`core.models.parts`).

The forward pass takes parameters as a dict of canonical names, so that the same function serves teacher and student,
training and inference, and every backend. What it returns is asked for by name (`core.models.outputs`), and nothing that
nobody asked for is computed: a teacher whose sixth layer is matched does not run its other six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ops import Ops, Tensor
from . import normalised_after, normalised_before
from .answer_heads import EMBEDDINGS as EMBEDDER
from .components import activate, attention_bias, dense, last_token, mean_of_tokens, normalise
from .disentangled import make_distances
from .heads import Head, word_embeddings, words_head
from .normalised_after import is_relative
from .outputs import (
    DECODER_BIAS,
    DECODER_WEIGHT,
    EMBEDDING,
    LOGITS,
    MASKED_WORDS,
    POOLED,
    WORDS,
    attention_kinds,
    depth,
    output_name,
)
from .parts import CLASSIFIER, EMBEDDINGS, POOLER
from .parts import WORDS as OF_WORDS
from .pooling import make_pooling
from .spec import ACTIVATIONS, EncoderConfig
from .tree import has_bias, present, used_tensors

_OF_WORDS = frozenset({WORDS, MASKED_WORDS, DECODER_WEIGHT, DECODER_BIAS})

Forward = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor]], dict]


def make_forward(config: EncoderConfig, wanted: frozenset[str] = frozenset({LOGITS}), root: str = "") -> Forward:
    """The forward pass of a model: `forward(ops, params, batch) -> {name: float32 tensor}` for the `wanted` names.

    The names and shapes are those of `core.models.outputs`. Parameters are read as `params[root + name]`. Dropout is
    applied at the configuration's rates: give `config.without_dropout()` to evaluate.
    """
    last = depth(wanted, config.num_hidden_layers)
    layers = []
    for number in range(1, config.num_hidden_layers + 1):
        if number <= last or attention_kinds(wanted, number):
            prefixes = [root + prefix for prefix in config.layer_prefixes(number - 1)]
            layers.append(make_layer(config, prefixes[0], number, wanted, partial=number > last))
            if number <= last and len(prefixes) > 1:
                layers[-1] = _chain(layers[-1], [make_layer(config, prefix, number) for prefix in prefixes[1:]])
    return assemble(config, wanted, root, layers)


def _chain(first, others: list):
    """Layers that count as one, whose attention is that of the first."""

    def layer(ops, params, x, bias, batch):
        x, taken = first(ops, params, x, bias, batch)
        for index in range(len(others)):
            x = others[index](ops, params, x, bias, batch)[0]
        return x, taken

    return layer


def assemble(config: EncoderConfig, wanted: frozenset[str], root: str, layers: list) -> Forward:
    """Embeddings, `layers` and head as one forward pass. A layer is `layer(ops, params, x, bias, batch) -> (x, taken)`, with
    `bias` as `make_bias` has it and `taken` what is wanted of its attention by name."""
    embed, head, words = make_embed(config, root), make_head(config, wanted, root), make_words(config, wanted, root)
    make = make_bias(config, root, wanted)
    hidden_names = [output_name("hidden", number) for number in range(config.num_hidden_layers + 1)]

    def forward(ops, params, batch):
        bias = make(ops, params, batch)
        x = embed(ops, params, batch)
        outputs = {}
        if hidden_names[0] in wanted:
            outputs[hidden_names[0]] = ops.float32(x)
        for index in range(len(layers)):
            x, taken = layers[index](ops, params, x, bias, batch)
            for name in taken:
                outputs[name] = taken[name]
            if hidden_names[index + 1] in wanted:
                outputs[hidden_names[index + 1]] = ops.float32(x)
        ends = head(ops, params, x, batch)
        for name in ends:
            outputs[name] = ends[name]
        ends = words(ops, params, x, batch)
        for name in ends:
            outputs[name] = ends[name]
        return outputs

    return forward


def make_bias(config: EncoderConfig, root: str, wanted: frozenset[str] = frozenset({LOGITS})):
    """`bias(ops, params, batch) -> (added, shown)`: what the layers add to the scores, and what of it belongs to the scores that
    they show, (heads, length, length); where that is only padding, they show nothing of it. With disentangled attention each
    layer adds terms of its own, and `shown` is the distances that it makes them of. Of layers that are normalised before:
    `core.models.normalised_before`."""
    block = config.family.block
    if block.normalised_before:
        return normalised_before.make_bias(config)
    if not is_relative(config) or f"{config.family.name('relative_positions')}.weight" not in used_tensors(config, wanted):
        return padding_bias
    if config.distance_terms:
        distances = make_distances(config, root)

        def apart(ops, params, batch):
            return attention_bias(ops, batch["attention_mask"]), distances(ops, params, ops.shape(batch["input_ids"])[1])

        return apart
    table = f"{root}{config.family.name('relative_positions')}.weight"
    # One place more than a text has: torch.export makes another program where a slice is the whole.
    arguments = (config.positions + 1, block.relative_buckets, block.farthest)

    def bias(ops, params, batch):
        length = ops.shape(batch["input_ids"])[1]
        buckets = ops.static("relative_buckets", arguments)[:length, :length]
        shown = ops.transpose(ops.embedding(params[table], buckets), (2, 0, 1))  # (A, L, L)
        return attention_bias(ops, batch["attention_mask"]) + shown, shown  # (B, A, L, L)

    return bias


def padding_bias(ops, params, batch):
    """The bias of layers that add nothing for themselves."""
    bias = attention_bias(ops, batch["attention_mask"])
    return bias, bias


def make_embed(config: EncoderConfig, root: str):
    """`embed(ops, params, batch) -> (batch, length, hidden)`: what the first layer sees, layer 0 of the hidden states."""
    epsilon, dropout, first = config.layer_norm_eps, config.hidden_dropout_prob, config.first_position
    named = {part.role: root + part.name for part in present(config, EMBEDDINGS)}
    words, positions, types, tasks = (f"{named.get(role)}.weight" for role in ("words", "positions", "types", "tasks"))
    has_types, has_tasks, projects = "types" in named, "tasks" in named, "projection" in named
    has_positions, normalises = "positions" in named, "embeddings_norm" in named
    norm, projection = named.get("embeddings_norm"), named.get("projection")
    norm_biased = normalises and has_bias(config, "embeddings_norm")

    def embed(ops, params, batch):
        length = ops.shape(batch["input_ids"])[1]
        x = ops.embedding(params[words], batch["input_ids"])  # (B, L, E)
        if has_types:
            x = x + ops.embedding(params[types], batch["token_type_ids"])
        if has_positions:
            table = params[positions]
            if first:
                table = table[first:]
            x = x + table[:length]  # (L, E) over (B, L, E)
        if has_tasks:
            x = x + params[tasks][0]
        x = ops.dropout(normalise(ops, params, norm, x, epsilon, norm_biased) if normalises else x, dropout)
        return dense(ops, params, projection, x) if projects else x  # (B, L, H)

    return embed


def make_layer(
    config: EncoderConfig, prefix: str, number: int, wanted: frozenset[str] = frozenset(), partial: bool = False
):
    """`layer(ops, params, x, bias, batch) -> (x, taken)`: encoder layer `number` (from 1), whose tensors' names start with
    `prefix`, and what is wanted of its attention by name. A `partial` layer ends there and returns its input."""
    if config.family.block.normalised_before:
        return normalised_before.make_layer(config, prefix, number, wanted, partial)
    return normalised_after.make_layer(config, prefix, number, wanted, partial)


def make_head(config: EncoderConfig, wanted: frozenset[str], root: str):
    """`head(ops, params, x, batch) -> {name: tensor}`: `pooled` and `logits` where they are wanted."""
    if config.classifier.token_map:
        return _make_token_head(config, wanted, root)
    if config.classifier == EMBEDDER:
        return _make_embedding_head(config, wanted)
    classifier, hidden, dropout = _classifier(config, root), _make_hidden_map(config, root), config.head_dropout
    biased, causal, positions = has_bias(config, "classifier"), config.family.block.causal, config.positions
    pooler_dropout, drops_first, averages = config.before_pooler_dropout, config.family.pooler_dropout, config.averages_tokens
    wants_pooled, wants_logits, relu = POOLED in wanted, LOGITS in wanted, config.relu_before_classifier

    def head(ops, params, x, batch):
        ends = {}
        if wants_pooled or wants_logits:
            mask = batch["attention_mask"]
            if causal:
                text = last_token(ops, x, mask, positions)  # (B, H)
            else:
                text = mean_of_tokens(ops, x, mask) if averages else x[:, 0]
            pooled = hidden(ops, params, ops.dropout(text, pooler_dropout) if drops_first else text)
            if wants_pooled:
                ends[POOLED] = ops.float32(pooled)
            if wants_logits:
                inner = ops.relu(pooled) if relu else pooled
                ends[LOGITS] = ops.float32(dense(ops, params, classifier, ops.dropout(inner, dropout), biased))
        return ends

    return head


def _classifier(config: EncoderConfig, root: str) -> str:
    return next(root + part.name for part in present(config, CLASSIFIER) if part.role == "classifier")


def _make_hidden_map(config: EncoderConfig, root: str):
    """`hidden(ops, params, x) -> x` of the same shape: what comes before the classifier's last map."""
    activation, epsilon = config.pooler_activation, config.layer_norm_eps
    parts = {part.role: part for part in present(config, POOLER)}
    if "pooler" not in parts:
        return _as_it_is
    kind, normalises, biased = ACTIVATIONS.get(activation), "pooler_norm" in parts, parts["pooler"].has_bias(config)
    pooler, norm = root + parts["pooler"].name, root + parts["pooler_norm"].name if normalises else ""
    norm_biased = normalises and parts["pooler_norm"].has_bias(config)

    def hidden(ops, params, x):
        x = dense(ops, params, pooler, x, biased)
        x = ops.tanh(x) if activation == "tanh" else activate(ops, x, kind)
        return normalise(ops, params, norm, x, epsilon, norm_biased) if normalises else x

    return hidden


def _make_token_head(config: EncoderConfig, wanted: frozenset[str], root: str):
    classifier, dropout, wants_logits = _classifier(config, root), config.token_head_dropout, LOGITS in wanted
    maps = bool(present(config, POOLER))
    hidden = _make_hidden_map(config, root) if maps else None

    def head(ops, params, x, batch):
        ends = {}
        if wants_logits:
            inner = hidden(ops, params, x) if maps else x
            ends[LOGITS] = ops.float32(dense(ops, params, classifier, ops.dropout(inner, dropout)))  # (B, L, C)
        return ends

    return head


def _make_embedding_head(config: EncoderConfig, wanted: frozenset[str]):
    if EMBEDDING not in wanted:
        return _nothing
    pool = make_pooling(config.pooling)

    def head(ops, params, x, batch):
        return {EMBEDDING: pool(ops, x, batch["attention_mask"])}

    return head


def make_transform(config: EncoderConfig, head: Head, root: str = ""):
    """`f(ops, params, x) -> x`: what a head of pre-training does before its last map."""
    if not head.transform:
        return _as_it_is
    activation, epsilon = ACTIVATIONS[config.words_act if head.kind == OF_WORDS else config.hidden_act], config.layer_norm_eps
    transform, norm, normalises = root + head.transform, root + head.norm, bool(head.norm)
    biased = has_bias(config, f"{head.kind}.transform")
    norm_biased = normalises and has_bias(config, f"{head.kind}.norm")

    def apply(ops, params, x):
        x = activate(ops, dense(ops, params, transform, x, biased), activation)
        return normalise(ops, params, norm, x, epsilon, norm_biased) if normalises else x

    return apply


def make_words(config: EncoderConfig, wanted: frozenset[str], root: str):
    """`words(ops, params, x, batch) -> {name: tensor}`: what is wanted of the head that predicts words (BERT, section 3.1).
    Only the masked places go through it where no others are wanted."""
    wants_all, wants_masked = WORDS in wanted, MASKED_WORDS in wanted
    wants_weight, wants_bias = DECODER_WEIGHT in wanted, DECODER_BIAS in wanted
    if not wanted & _OF_WORDS:
        return _nothing
    head, width = words_head(config), config.hidden_size
    transform, weight = make_transform(config, head, root), root + word_embeddings(config)
    bias, biased, no_bias = root + head.last_bias, bool(head.last_bias), (config.vocab_size,)

    def transformed(ops, params, rows):
        return ops.float32(transform(ops, params, rows))  # (rows, E)

    def words(ops, params, x, batch):
        ends = {}
        rows = ops.reshape(x, (-1, width))  # (B L, H)
        if wants_all:
            ends[WORDS] = transformed(ops, params, rows)
            if wants_masked:
                ends[MASKED_WORDS] = ops.embedding(ends[WORDS], batch["masked_rows"])
        elif wants_masked:
            ends[MASKED_WORDS] = transformed(ops, params, ops.embedding(rows, batch["masked_rows"]))
        if wants_weight:
            ends[DECODER_WEIGHT] = params[weight]
        if wants_bias:
            ends[DECODER_BIAS] = params[bias] if biased else ops.static("zeros", no_bias)
        return ends

    return words


def _as_it_is(ops, params, x):
    return x


def _nothing(ops, params, x, batch):
    return {}

"""BERT (Devlin et al. 2018) and the families of its kind written once over `Ops`: embeddings, layers and what follows them
(`core.models.encoder_heads`). In what they differ and what their parts are called is data (`core.models.parts`).

The forward pass takes parameters as a dict of canonical names, so that the same function serves teacher and student,
training and inference, and every backend. What it returns is asked for by name (`core.models.outputs`), and nothing that
nobody asked for is computed: a teacher whose sixth layer is matched does not run its other six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ops import Ops, Tensor
from . import normalised_after, normalised_before
from .components import attention_bias, dense, normalise
from .disentangled import make_distances
from .encoder_heads import make_head, make_words, wants_first_only
from .normalised_after import is_relative
from .outputs import LOGITS, attention_kinds, depth, output_name
from .parts import EMBEDDINGS
from .spec import EncoderConfig
from .tree import has_bias, present, used_tensors

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
            first = number == config.num_hidden_layers and wants_first_only(config, wanted)
            layers.append(make_layer(config, prefixes[0], number, wanted, partial=number > last, first_only=first))
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
    first_names = [output_name("first", number) for number in range(config.num_hidden_layers + 1)]

    def forward(ops, params, batch):
        bias = make(ops, params, batch)
        x = embed(ops, params, batch)
        outputs = {}
        if hidden_names[0] in wanted:
            outputs[hidden_names[0]] = ops.float32(x)
        if first_names[0] in wanted:
            outputs[first_names[0]] = ops.float32(x[:, 0])
        for index in range(len(layers)):
            x, taken = layers[index](ops, params, x, bias, batch)
            for name in taken:
                outputs[name] = taken[name]
            if hidden_names[index + 1] in wanted:
                outputs[hidden_names[index + 1]] = ops.float32(x)
            if first_names[index + 1] in wanted:
                outputs[first_names[index + 1]] = ops.float32(x[:, 0])
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
    config: EncoderConfig,
    prefix: str,
    number: int,
    wanted: frozenset[str] = frozenset(),
    partial: bool = False,
    first_only: bool = False,
):
    """`layer(ops, params, x, bias, batch) -> (x, taken)`: encoder layer `number` (from 1), whose tensors' names start with
    `prefix`, and what is wanted of its attention by name. A `partial` layer ends there and returns its input. One of the
    `first_only` token (`wants_first_only`) gives its state alone, (batch, 1, hidden)."""
    if config.family.block.normalised_before:
        return normalised_before.make_layer(config, prefix, number, wanted, partial)
    return normalised_after.make_layer(config, prefix, number, wanted, partial, first_only)

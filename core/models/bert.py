"""BERT (Devlin et al. 2018) written once over `Ops`: the encoder, the pooler and a classification or regression head.

The forward pass takes parameters as a dict of canonical names, so that the same function serves teacher and student,
training and inference, and every backend. What it returns is asked for by name (`core.models.outputs`), and nothing that
nobody asked for is computed: a teacher whose sixth layer is matched does not run its other six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ops import Ops, Tensor
from .outputs import ATTENTION_KINDS, LOGITS, POOLED, attention_kinds, depth, output_name
from .spec import ACTIVATIONS, BertConfig, layer_prefix, tensor_shapes

# Added to the scores of padding. exp() of it is exactly 0 in float32 and float16; -inf would give NaN on rows without
# any real token.
MASKED_SCORE = -10000.0

Forward = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor]], dict]


def make_forward(config: BertConfig, wanted: frozenset[str] = frozenset({LOGITS}), root: str = "") -> Forward:
    """The forward pass of a model: `forward(ops, params, batch) -> {name: float32 tensor}` for the `wanted` names.

    The names and shapes are those of `core.models.outputs`. Parameters are read as `params[root + name]`. Dropout is
    applied at the configuration's rates: give `config.without_dropout()` to evaluate.
    """
    last = depth(wanted, config.num_hidden_layers)
    layers = [
        make_layer(config, root + layer_prefix(number - 1), number, wanted, partial=number > last)
        for number in range(1, config.num_hidden_layers + 1)
        if number <= last or attention_kinds(wanted, number)
    ]
    return assemble(config, wanted, root, layers)


def assemble(config: BertConfig, wanted: frozenset[str], root: str, layers: list) -> Forward:
    """Embeddings, `layers` and head as one forward pass. A layer is `layer(ops, params, x, bias, batch) -> (x, taken)`, with
    `taken` what is wanted of its attention by name."""
    embed, head = make_embed(config, root), make_head(config, wanted, root)
    hidden_names = [output_name("hidden", number) for number in range(config.num_hidden_layers + 1)]

    def forward(ops, params, batch):
        bias = attention_bias(ops, batch["attention_mask"])
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
        ends = head(ops, params, x)
        for name in ends:
            outputs[name] = ends[name]
        return outputs

    return forward


def used_tensors(config: BertConfig, wanted: frozenset[str]) -> frozenset[str]:
    """Names of the tensors that the `wanted` outputs depend on; the others get no gradient and are not trained."""
    last, used = depth(wanted, config.num_hidden_layers), set()
    for name in tensor_shapes(config, 1):
        if name.startswith("bert.encoder."):
            number = int(name.split(".")[3]) + 1
            kinds = attention_kinds(wanted, number)
            projections = {f"attention.self.{part}." for kind in kinds for part in ATTENTION_KINDS[kind]}
            needed = number <= last or any(part in name for part in projections)
        elif name.startswith("bert.pooler."):
            needed = bool({LOGITS, POOLED} & wanted)
        else:
            needed = LOGITS in wanted if name.startswith("classifier.") else True
        if needed:
            used.add(name)
    return frozenset(used)


def attention_bias(ops: Ops, mask: Tensor) -> Tensor:
    """What is added to the scores so that padding gets no attention: (batch, 1, 1, length) from the mask (batch, length)."""
    batch_size, length = ops.shape(mask)
    return ops.reshape((1.0 - mask) * MASKED_SCORE, (batch_size, 1, 1, length))


def _dense(ops, params, name, x):
    return ops.linear(x, params[name + ".weight"], params[name + ".bias"])


def make_embed(config: BertConfig, root: str):
    """`embed(ops, params, batch) -> (batch, length, hidden)`: the embedding output, layer 0 of the hidden states."""
    prefix, epsilon, dropout = root + "bert.embeddings.", config.layer_norm_eps, config.hidden_dropout_prob

    def embed(ops, params, batch):
        length = ops.shape(batch["input_ids"])[1]
        x = ops.embedding(params[prefix + "word_embeddings.weight"], batch["input_ids"])  # (B, L, H)
        x = x + ops.embedding(params[prefix + "token_type_embeddings.weight"], batch["token_type_ids"])
        x = x + params[prefix + "position_embeddings.weight"][:length]  # (L, H) over (B, L, H)
        x = ops.layer_norm(x, params[prefix + "LayerNorm.weight"], params[prefix + "LayerNorm.bias"], epsilon)
        return ops.dropout(x, dropout)

    return embed


def make_layer(
    config: BertConfig, prefix: str, number: int, wanted: frozenset[str] = frozenset(), partial: bool = False
):
    """`layer(ops, params, x, bias, batch) -> (x, taken)`: encoder layer `number` (from 1), whose tensors' names start with
    `prefix`, and what is wanted of its attention by name. A `partial` layer ends there and returns its input."""
    heads, head_size, epsilon = config.num_attention_heads, config.head_size, config.layer_norm_eps
    hidden_dropout, attention_dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    activation = ACTIVATIONS[config.hidden_act]
    kinds = attention_kinds(wanted, number)
    scores_name, wants_scores = output_name("scores", number), "scores" in kinds
    parts = [kind for kind in ("queries", "keys", "values") if kind in kinds]
    part_names = [output_name(kind, number) for kind in parts]

    def split_heads(ops, x):
        batch_size, length, _ = ops.shape(x)
        return ops.transpose(ops.reshape(x, (batch_size, length, heads, head_size)), (0, 2, 1, 3))  # (B, A, L, D)

    def project(ops, params, part, x):
        return split_heads(ops, _dense(ops, params, prefix + "attention.self." + part, x))

    def scaled_scores(ops, query, key):
        return ops.matmul_transposed(query * (head_size**-0.5), key)  # (B, A, L, L)

    def finish(ops, params, x, context):
        merged = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), ops.shape(x))  # (B, L, H)
        x = _add_and_norm(ops, params, prefix + "attention.output.", x, merged)
        inner = _dense(ops, params, prefix + "intermediate.dense", x)  # (B, L, I)
        inner = ops.relu(inner) if activation == "relu" else ops.gelu(inner, activation == "tanh")
        return _add_and_norm(ops, params, prefix + "output.", x, inner)

    def _add_and_norm(ops, params, name, x, inner):
        output = ops.dropout(_dense(ops, params, name + "dense", inner), hidden_dropout)
        return ops.layer_norm(
            x + output, params[name + "LayerNorm.weight"], params[name + "LayerNorm.bias"], epsilon
        )

    def whole(ops, params, x, bias, batch):
        query, key = project(ops, params, "query", x), project(ops, params, "key", x)
        value = project(ops, params, "value", x)
        taken = {}
        if wants_scores:
            scores = scaled_scores(ops, query, key)
            taken[scores_name] = ops.float32(scores)
            context = ops.matmul(ops.dropout(ops.softmax(scores + bias), attention_dropout), value)
        else:
            context = ops.attention(query, key, value, bias, attention_dropout)  # (B, A, L, D)
        tensors = {"queries": query, "keys": key, "values": value}
        for index in range(len(parts)):
            taken[part_names[index]] = ops.float32(tensors[parts[index]])
        return finish(ops, params, x, context), taken

    def only_attention(ops, params, x, bias, batch):
        taken, tensors = {}, {}
        if wants_scores or "queries" in parts:
            tensors["queries"] = project(ops, params, "query", x)
        if wants_scores or "keys" in parts:
            tensors["keys"] = project(ops, params, "key", x)
        if "values" in parts:
            tensors["values"] = project(ops, params, "value", x)
        if wants_scores:
            taken[scores_name] = ops.float32(scaled_scores(ops, tensors["queries"], tensors["keys"]))
        for index in range(len(parts)):
            taken[part_names[index]] = ops.float32(tensors[parts[index]])
        return x, taken

    return only_attention if partial else whole


def make_head(config: BertConfig, wanted: frozenset[str], root: str):
    """`head(ops, params, x) -> {name: tensor}`: `pooled` and `logits` where they are wanted."""
    pooler, classifier, dropout = root + "bert.pooler.dense", root + "classifier", config.head_dropout
    wants_pooled, wants_logits, relu = POOLED in wanted, LOGITS in wanted, config.classifier_relu

    def head(ops, params, x):
        ends = {}
        if wants_pooled or wants_logits:
            pooled = ops.tanh(_dense(ops, params, pooler, x[:, 0]))  # (B, H)
            if wants_pooled:
                ends[POOLED] = ops.float32(pooled)
            if wants_logits:
                inner = ops.relu(pooled) if relu else pooled
                ends[LOGITS] = ops.float32(_dense(ops, params, classifier, ops.dropout(inner, dropout)))
        return ends

    return head

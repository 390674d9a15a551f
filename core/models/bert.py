"""BERT (Devlin et al. 2018) written once over `Ops`: the encoder, the pooler and a classification or regression head.

The forward pass takes parameters as a dict of canonical names, so that the same function serves teacher and student,
training and inference, and every backend. Layer 0 of `hidden` is the embedding output, as in Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ops import Ops, Tensor
from .spec import ACTIVATIONS, BertConfig, layer_prefix

# Added to the scores of padding. exp() of it is exactly 0 in float32 and float16; -inf would give NaN on rows without
# any real token.
MASKED_SCORE = -10000.0

Forward = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor]], dict]


def make_forward(config: BertConfig) -> Forward:
    """The forward pass of a model: `forward(ops, params, batch) -> {"hidden": [...], "pooled": ..., "logits": ...}`.

    `hidden` has `num_hidden_layers + 1` tensors (batch, length, hidden), `pooled` is (batch, hidden) and `logits`
    (batch, outputs). Dropout is applied at the configuration's rates: give `config.without_dropout()` to evaluate.
    """
    heads, head_size, epsilon = config.num_attention_heads, config.head_size, config.layer_norm_eps
    layers = [layer_prefix(layer) for layer in range(config.num_hidden_layers)]
    hidden_dropout, attention_dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    head_dropout = config.head_dropout
    activation = ACTIVATIONS[config.hidden_act]

    def dense(ops, params, name, x):
        return ops.linear(x, params[name + ".weight"], params[name + ".bias"])

    def norm(ops, params, name, x):
        return ops.layer_norm(x, params[name + ".weight"], params[name + ".bias"], epsilon)

    def embed(ops, params, batch):
        prefix = "bert.embeddings."
        length = ops.shape(batch["input_ids"])[1]
        x = ops.embedding(params[prefix + "word_embeddings.weight"], batch["input_ids"])  # (B, L, H)
        x = x + ops.embedding(params[prefix + "token_type_embeddings.weight"], batch["token_type_ids"])
        x = x + params[prefix + "position_embeddings.weight"][:length]  # (L, H) over (B, L, H)
        return ops.dropout(norm(ops, params, prefix + "LayerNorm", x), hidden_dropout)

    def split_heads(ops, x):
        batch_size, length, _ = ops.shape(x)
        return ops.transpose(ops.reshape(x, (batch_size, length, heads, head_size)), (0, 2, 1, 3))  # (B, A, L, D)

    def attend(ops, params, prefix, x, bias):
        query = split_heads(ops, dense(ops, params, prefix + "attention.self.query", x))
        key = split_heads(ops, dense(ops, params, prefix + "attention.self.key", x))
        value = split_heads(ops, dense(ops, params, prefix + "attention.self.value", x))
        context = ops.attention(query, key, value, bias, attention_dropout)  # (B, A, L, D)
        merged = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), ops.shape(x))  # (B, L, H)
        output = ops.dropout(dense(ops, params, prefix + "attention.output.dense", merged), hidden_dropout)
        return norm(ops, params, prefix + "attention.output.LayerNorm", x + output)

    def feed_forward(ops, params, prefix, x):
        inner = dense(ops, params, prefix + "intermediate.dense", x)  # (B, L, I)
        inner = ops.relu(inner) if activation == "relu" else ops.gelu(inner, activation == "tanh")
        output = ops.dropout(dense(ops, params, prefix + "output.dense", inner), hidden_dropout)
        return norm(ops, params, prefix + "output.LayerNorm", x + output)

    def forward(ops, params, batch):
        mask = batch["attention_mask"]
        batch_size, length = ops.shape(mask)
        bias = ops.reshape((1.0 - mask) * MASKED_SCORE, (batch_size, 1, 1, length))
        x = embed(ops, params, batch)
        hidden = [x]
        for prefix in layers:
            x = feed_forward(ops, params, prefix, attend(ops, params, prefix, x, bias))
            hidden.append(x)
        pooled = ops.tanh(dense(ops, params, "bert.pooler.dense", x[:, 0]))
        logits = dense(ops, params, "classifier", ops.dropout(pooled, head_dropout))
        return {"hidden": hidden, "pooled": pooled, "logits": ops.float32(logits)}

    return forward

"""ELECTRA as a network of MindSpore, to be the referee of conversions as those of `mindspore_zoo`, which has none: its cells are
named after Hugging Face's modules.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from crossdistil.tests.mindspore_zoo import activation, attend, inputs, layer_norm, named


class Parts(nn.Cell):
    """Cells under the names given, where Hugging Face has a module only to hold others."""

    def __init__(self, **parts: nn.Cell):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Bias(nn.Cell):
    """A decoder that is tied to the word embeddings has a bias of its own and nothing else."""

    def __init__(self, size: int):
        super().__init__()
        self.bias = Parameter(ops.zeros((size,), ms.float32))


class ElectraLayer(nn.Cell):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        maps = {name: nn.Dense(hidden, hidden) for name in ("query", "key", "value")}
        merged = Parts(dense=nn.Dense(hidden, hidden), LayerNorm=layer_norm(config, hidden))
        self.attention = Parts(output=merged)
        self.attention.insert_child_to_cell("self", Parts(**maps))
        self.intermediate = Parts(dense=nn.Dense(hidden, inner))
        self.output = Parts(dense=nn.Dense(inner, hidden), LayerNorm=layer_norm(config, hidden))
        self.heads, self.activation = config.num_attention_heads, activation(config.hidden_act)

    def construct(self, x, mask):
        maps, merged = self.attention.self, self.attention.output
        attended = attend(maps.query(x), maps.key(x), maps.value(x), mask, self.heads)
        x = merged.LayerNorm(merged.dense(attended) + x)
        return self.output.LayerNorm(self.output.dense(self.activation(self.intermediate.dense(x))) + x)


class Electra(nn.Cell):
    """With both heads of pre-training and a classifier."""

    def __init__(self, config, outputs: int):
        super().__init__()
        width, hidden = config.embedding_size, config.hidden_size
        tables = {"word": config.vocab_size, "position": config.max_position_embeddings, "token_type": config.type_vocab_size}
        embeddings = {f"{kind}_embeddings": nn.Embedding(rows, width) for kind, rows in tables.items()}
        self.electra = Parts(
            embeddings=Parts(**embeddings, LayerNorm=layer_norm(config, width)),
            embeddings_project=nn.Dense(width, hidden),
            encoder=Parts(layer=nn.CellList([ElectraLayer(config) for _ in range(config.num_hidden_layers)])),
        )
        self.discriminator_predictions = Parts(dense=nn.Dense(hidden, hidden), dense_prediction=nn.Dense(hidden, 1))
        self.generator_predictions = Parts(dense=nn.Dense(hidden, width), LayerNorm=layer_norm(config, width))
        self.generator_lm_head = Bias(config.vocab_size)
        self.classifier = Parts(dense=nn.Dense(hidden, hidden), out_proj=nn.Dense(hidden, outputs))
        self.activation, self.gelu = activation(config.hidden_act), activation("gelu")

    def outputs(self, batch) -> dict[str, np.ndarray]:
        ids, types, mask = inputs(batch)
        parts, words = self.electra.embeddings, self.electra.embeddings.word_embeddings.embedding_table
        x = ops.gather(words, ids, 0) + ops.gather(parts.token_type_embeddings.embedding_table, types, 0)
        x = parts.LayerNorm(x + parts.position_embeddings.embedding_table[: ids.shape[1]])
        hidden = [self.electra.embeddings_project(x)]
        for layer in self.electra.encoder.layer:
            hidden.append(layer(hidden[-1], mask))
        found, made = self.discriminator_predictions, self.generator_predictions
        generated = made.LayerNorm(self.gelu(made.dense(hidden[-1])))
        return named(
            hidden,
            logits=self.classifier.out_proj(self.gelu(self.classifier.dense(hidden[-1][:, 0]))),
            discriminator=found.dense_prediction(self.activation(found.dense(hidden[-1])))[:, :, 0],
            generator=ops.matmul(generated, words.T) + self.generator_lm_head.bias,
        )

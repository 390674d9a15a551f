"""BERT as networks of MindSpore, to be the referee of conversions: what `mindspore.load_checkpoint` and a strict
`load_param_into_net` accept, and what these networks then compute.

Names of parameters come out of the structure of the cells, and that is the model zoo's (official/nlp/bert): the network that is
trained holds the task's network as `bert`, and that the encoder as `bert`, hence `bert.bert.`. Before its r1.2 token types and
positions were bare parameters. TinyBERT's student says `tinybert_` for `bert_` and is in its network without a task's network.
Nothing here knows the converters' tables.

MindSpore's own defaults are avoided where they are not BERT's: its GELU is the tanh approximation unless told otherwise, and the
epsilon of its LayerNorm 1e-7. Its tanh is off by 1e-4 on the CPU.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def randomise(network: nn.Cell, seed: int = 0) -> None:
    """Random weights, normalisations included, of a size that a trained model has."""
    generator = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        scale = 0.2 if parameter.ndim == 1 else min(0.2, 1.5 / np.sqrt(parameter.shape[1]))
        centre = 1.0 if parameter.name.endswith("gamma") else 0.0
        parameter.set_data(Tensor(generator.normal(centre, scale, parameter.shape).astype(np.float32)))


def load_strictly(network: nn.Cell, path, format: str = "ckpt") -> None:
    """Load a file; AssertionError unless it has exactly the network's parameters, of the same shapes."""
    values = ms.load_checkpoint(str(path), format=format)
    own = {parameter.name: parameter.shape for parameter in network.get_parameters()}
    assert {name: value.shape for name, value in values.items()} == own
    missing, extra = ms.load_param_into_net(network, values, strict_load=True)
    assert (missing, extra) == ([], [])


def tanh(x):
    return 2 * ops.sigmoid(2 * x) - 1


def activation(name: str):
    """What a configuration's `hidden_act` means."""
    if name == "gelu":
        return lambda x: 0.5 * x * (1 + ops.erf(x / 2**0.5))
    assert name == "gelu_new"
    return lambda x: 0.5 * x * (1 + tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


def layer_norm(config, width: int) -> nn.Cell:
    return nn.LayerNorm((width,), epsilon=config.layer_norm_eps)


def attend(query, key, value, mask, heads: int):
    """Multi-head attention of (batch, length, width); `mask` is 1 where a token is."""
    batch, length, width = query.shape

    def split(x):
        return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)

    scores = ops.matmul(split(query), split(key).transpose(0, 1, 3, 2)) / (width // heads) ** 0.5
    weights = ops.softmax(scores + (1.0 - mask.reshape(batch, 1, 1, length)) * -10000.0, axis=-1)
    return ops.matmul(weights, split(value)).transpose(0, 2, 1, 3).reshape(batch, length, width)


def named(hidden, pooled=None, **others) -> dict[str, np.ndarray]:
    """Outputs under the names that the reference gives them, as arrays."""
    found = {f"hidden/{layer}": state for layer, state in enumerate(hidden)}
    found |= {name: value for name, value in {"pooled": pooled, **others}.items() if value is not None}
    return {name: value.asnumpy() for name, value in found.items()}


def inputs(batch: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(Tensor(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask"))


# ---------------------------------------------------------------------------------------------- the model zoo's BERT


class EmbeddingPostprocessor(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.token_type_embedding = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.full_position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layernorm = layer_norm(config, config.hidden_size)

    def construct(self, words, types):
        tables = self.token_type_embedding.embedding_table, self.full_position_embedding.embedding_table
        return self.layernorm(words + ops.gather(tables[0], types, 0) + tables[1][: words.shape[1]])


class OldEmbeddingPostprocessor(nn.Cell):
    """As before r1.2."""

    def __init__(self, config):
        super().__init__()
        self.embedding_table = Parameter(ops.zeros((config.type_vocab_size, config.hidden_size), ms.float32))
        self.full_position_embeddings = Parameter(ops.zeros((config.max_position_embeddings, config.hidden_size), ms.float32))
        self.layernorm = layer_norm(config, config.hidden_size)

    def construct(self, words, types):
        positions = self.full_position_embeddings[: words.shape[1]]
        return self.layernorm(words + ops.gather(self.embedding_table, types, 0) + positions)


class Output(nn.Cell):
    def __init__(self, config, inner: int):
        super().__init__()
        self.dense = nn.Dense(inner, config.hidden_size)
        self.layernorm = layer_norm(config, config.hidden_size)

    def construct(self, x, residual):
        return self.layernorm(self.dense(x) + residual)


class Attention(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_layer, self.key_layer, self.value_layer = (nn.Dense(config.hidden_size, config.hidden_size) for _ in range(3))

    def construct(self, x, mask):
        return attend(self.query_layer(x), self.key_layer(x), self.value_layer(x), mask, self.heads)


class SelfAttention(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.output = Output(config, config.hidden_size)

    def construct(self, x, mask):
        return self.output(self.attention(x, mask), x)


class EncoderCell(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.attention = SelfAttention(config)
        self.intermediate = nn.Dense(config.hidden_size, config.intermediate_size)
        self.output = Output(config, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def construct(self, x, mask):
        x = self.attention(x, mask)
        return self.output(self.activation(self.intermediate(x)), x)


class Transformer(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.CellList([EncoderCell(config) for _ in range(config.num_hidden_layers)])

    def construct(self, x, mask):
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states


class BertModel(nn.Cell):
    """The encoder; `prefix` is tinybert in TinyBERT's student."""

    def __init__(self, config, prefix: str = "bert", old: bool = False):
        super().__init__()
        embedding = (OldEmbeddingPostprocessor if old else EmbeddingPostprocessor)(config)
        setattr(self, f"{prefix}_embedding_lookup", nn.Embedding(config.vocab_size, config.hidden_size))
        setattr(self, f"{prefix}_embedding_postprocessor", embedding)
        setattr(self, f"{prefix}_encoder", Transformer(config))
        self.prefix = prefix
        self.dense = nn.Dense(config.hidden_size, config.hidden_size)

    def part(self, name: str) -> nn.Cell:
        return getattr(self, f"{self.prefix}_{name}")

    @property
    def word_table(self) -> Parameter:
        return self.part("embedding_lookup").embedding_table

    def construct(self, ids, types, mask):
        words = ops.gather(self.word_table, ids, 0)
        hidden = self.part("encoder")(self.part("embedding_postprocessor")(words, types), mask)
        return hidden, tanh(self.dense(hidden[-1][:, 0]))


class MaskedLanguageModel(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Dense(config.hidden_size, config.hidden_size)
        self.layernorm = layer_norm(config, config.hidden_size)
        self.output_bias = Parameter(ops.zeros((config.vocab_size,), ms.float32))
        self.activation = activation(config.hidden_act)

    def construct(self, x, table):
        return ops.matmul(self.layernorm(self.activation(self.dense(x))), table.T) + self.output_bias


class NextSentence(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.dense = nn.Dense(config.hidden_size, 2)

    def construct(self, pooled):
        return self.dense(pooled)


class PreTraining(nn.Cell):
    def __init__(self, config, old: bool = False):
        super().__init__()
        self.bert = BertModel(config, old=old)
        self.cls1 = MaskedLanguageModel(config)
        self.cls2 = NextSentence(config)

    def outputs(self, batch) -> dict[str, np.ndarray]:
        hidden, pooled = self.bert(*inputs(batch))
        return named(hidden, pooled, mlm=self.cls1(hidden[-1], self.bert.word_table), nsp=self.cls2(pooled))


class Classifier(nn.Cell):
    def __init__(self, config, outputs: int):
        super().__init__()
        self.bert = BertModel(config)
        self.dense_1 = nn.Dense(config.hidden_size, outputs)

    def outputs(self, batch) -> dict[str, np.ndarray]:
        hidden, pooled = self.bert(*inputs(batch))
        return named(hidden, pooled, logits=self.dense_1(pooled))


class OfEachToken(nn.Cell):
    """BertNERModel, whose last map is `dense_1`, and BertSquadModel, whose is `dense1`; both hold a pooler that neither uses."""

    def __init__(self, config, outputs: int, last: str):
        super().__init__()
        self.bert, self.last = BertModel(config), last
        setattr(self, last, nn.Dense(config.hidden_size, outputs))

    def outputs(self, batch) -> dict[str, np.ndarray]:
        hidden, pooled = self.bert(*inputs(batch))
        return named(hidden, pooled, logits=getattr(self, self.last)(hidden[-1]))


class TinyBert(BertModel):
    """TinyBERT's student after general distillation: an encoder and nothing else."""

    def __init__(self, config):
        super().__init__(config, prefix="tinybert")

    def outputs(self, batch) -> dict[str, np.ndarray]:
        return named(*self(*inputs(batch)))


class NetworkWithLoss(nn.Cell):
    """What the zoo trains and saves: the task's network is `bert`. Its loss is the mean of the first output, for an optimizer
    to have gradients."""

    def __init__(self, network: nn.Cell):
        super().__init__()
        self.bert = network

    def outputs(self, batch) -> dict[str, np.ndarray]:
        return self.bert.outputs(batch)

    def construct(self, ids, types, mask):
        return self.bert.bert(ids, types, mask)[1].mean()

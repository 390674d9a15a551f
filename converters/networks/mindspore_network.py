# SPDX-License-Identifier: Apache-2.0
"""bert in MindSpore. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from .shared import check, command_line, loaded, respond
from .shared_encoder import ASKED, HAS, checkpoint_names, distance_buckets, layer_order, problem_of, read_config
from .shared_mindspore import answers, read_weights, tanh

# --- what the weights beside this file are
FAMILY = "bert"
WEIGHTS = "model.safetensors"
HEADS = {"logits": 2}
TASK = "sentences"
POOLER = "tanh"
POOLER_DROPOUT = False
FIRST = 0
HALF, EDGES = 0, []
KEYS = {}
NAMES = {}
BESIDE = []
# --- end


def activation(kind, x):
    """GELU by erf, its tanh approximation, or ReLU, by the names that transformers has for them."""
    if kind == "relu":
        return ops.relu(x)
    if kind in ("gelu", "gelu_python"):
        return x * (0.5 * (ops.erf(x * 0.7071067811865476) + 1.0))
    return x * ops.sigmoid(1.5957691216057308 * (x + 0.044715 * (x * x * x)))  # 0.5 (1 + tanh(y)) = sigmoid(2 y)


class Layer(nn.Cell):
    """An encoder layer: attention and feed-forward part, each added to its input and normalised."""

    def __init__(self, config):
        super().__init__()
        width, inner, epsilon = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads, self.kind = config["num_attention_heads"], config["hidden_act"]
        self.scale = (width // self.heads) ** -0.5
        self.query, self.key, self.value = nn.Dense(width, width), nn.Dense(width, width), nn.Dense(width, width)
        self.attention, self.attention_norm = nn.Dense(width, width), nn.LayerNorm((width,), epsilon=epsilon)
        self.inner, self.outer = nn.Dense(width, inner), nn.Dense(inner, width)
        self.outer_norm = nn.LayerNorm((width,), epsilon=epsilon)
        self.dropout, self.attention_dropout = (
            nn.Dropout(p=config[name]) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        )

    def split(self, x):
        """(B, L, H) -> (B, heads, L, H / heads)."""
        batch, length, width = x.shape
        return x.reshape(batch, length, self.heads, width // self.heads).transpose(0, 2, 1, 3)

    def construct(self, x, bias):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = ops.matmul(query * self.scale, key.transpose(0, 1, 3, 2)) + bias
        context = ops.matmul(self.attention_dropout(ops.softmax(scores, axis=-1)), value)
        context = self.attention(context.transpose(0, 2, 1, 3).reshape(x.shape))
        x = self.attention_norm(x + self.dropout(context))
        return self.outer_norm(x + self.dropout(self.outer(activation(self.kind, self.inner(x)))))


class Network(nn.Cell):
    """The encoder and its heads.

    `network(input_ids, attention_mask, token_type_ids)`, each (batch, length); the last two may be left out: ones and zeros.
    Returns what HEADS names: one tensor, or a tuple in this order. Without a head, the hidden states (batch, length, hidden).
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.order, self.heads = config, tuple(layer_order(config)), tuple(HEADS)
        width, narrow, epsilon = config["hidden_size"], config["embedding_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], narrow)
        self.positions = nn.Embedding(config["max_position_embeddings"], narrow)
        self.has_types, self.has_projection, self.has_decoder = ("types" in HAS, "projection" in HAS, "decoder" in HAS)
        if self.has_types:
            self.types = nn.Embedding(config["type_vocab_size"], narrow)
        self.has_tasks, self.has_distances = "tasks" in HAS, "relative_positions" in HAS
        if self.has_tasks:
            self.tasks = nn.Embedding(config["task_type_vocab_size"], narrow)
        if self.has_distances:
            self.relative_positions = nn.Embedding(config["relative_attention_num_buckets"], config["num_attention_heads"])
            self.buckets = ms.Tensor(distance_buckets(config), ms.int32)
        self.embeddings_norm = nn.LayerNorm((narrow,), epsilon=epsilon)
        if self.has_projection:
            self.projection = nn.Dense(narrow, width)
        self.encoder = nn.CellList([Layer(config) for _ in range(max(self.order) + 1)])
        if "pooler" in HAS:
            self.pooler = nn.Dense(width, width)
        if "classifier" in HAS:
            self.classifier = nn.Dense(width, HEADS["logits"])
        if "words_dense" in HAS:
            self.words_dense, self.words_norm = nn.Dense(width, narrow), nn.LayerNorm((narrow,), epsilon=epsilon)
            self.words_bias = ms.Parameter(ops.zeros((config["vocab_size"],), ms.float32), name="words_bias")
        if self.has_decoder:  # else the table of words
            self.decoder = nn.Dense(narrow, config["vocab_size"], has_bias=False)
        if "pairs" in HAS:
            self.pairs = nn.Dense(width, 2)
        if "replaced" in HAS:
            self.replaced_dense, self.replaced = nn.Dense(width, width), nn.Dense(width, 1)
        self.dropout, self.head_dropout = nn.Dropout(p=config["hidden_dropout_prob"]), nn.Dropout(p=config["head_dropout"])
        self.of_text, self.relu = TASK in ("sentences", "choices"), config["classifier_relu"]

    def encode(self, input_ids, attention_mask=None, token_type_ids=None):
        """The hidden states (batch, length, hidden)."""
        mask = ops.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.words(input_ids) + self.positions.embedding_table[FIRST : FIRST + input_ids.shape[1]]
        if self.has_types:
            x = x + self.types(ops.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        if self.has_tasks:  # a text is of the first
            x = x + self.tasks.embedding_table[0]
        x = self.dropout(self.embeddings_norm(x))
        if self.has_projection:
            x = self.projection(x)
        bias = ((1.0 - mask.astype(ms.float32)) * -10000.0).reshape(mask.shape[0], 1, 1, mask.shape[1])
        if self.has_distances:
            bias = bias + self.distances(input_ids.shape[1])
        for number in self.order:
            x = self.encoder[number](x, bias)
        return x

    def distances(self, length):
        """What is added to the scores of each head for the distance of two places: (heads, length, length)."""
        places = ops.arange(length)
        rows = self.buckets[places.reshape(1, length) - places.reshape(length, 1) + self.buckets.shape[0] // 2]
        return self.relative_positions(rows).transpose(2, 0, 1)

    def pooled(self, x):
        """The first token's state through the pooler; that of some families has a dropout before it."""
        first = self.pooler(self.head_dropout(x[:, 0]) if POOLER_DROPOUT else x[:, 0])
        return tanh(first) if POOLER == "tanh" else activation(POOLER, first)

    def logits(self, x):
        """The classifier: of each token's state, or of the whole text's."""
        if self.of_text:
            x = self.pooled(x)
            if self.relu:
                x = ops.relu(x)
        return self.classifier(self.head_dropout(x))

    def words_of(self, x):
        """What each token could be: (batch, length, vocabulary)."""
        x = self.words_norm(activation(self.config["words_act"], self.words_dense(x)))
        table = self.decoder.weight if self.has_decoder else self.words.embedding_table
        return ops.matmul(x, table.transpose(1, 0)) + self.words_bias

    def head(self, name, x):
        """One of the outputs that HEADS names."""
        if name == "logits":
            return self.logits(x)
        if name == "words":
            return self.words_of(x)
        if name == "pairs":
            return self.pairs(self.pooled(x))
        return self.replaced(activation(self.config["hidden_act"], self.replaced_dense(x)))[..., 0]

    def construct(self, input_ids, attention_mask=None, token_type_ids=None):
        x = self.encode(input_ids, attention_mask, token_type_ids)
        found = ()
        for name in self.heads:
            found = found + (self.head(name, x),)
        return found if len(found) > 1 else found[0] if found else x


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_config(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    names, own = checkpoint_names(config), {name: parameter for name, parameter in network.parameters_and_names()}
    shapes = {names[name]: tuple(parameter.shape) for name, parameter in own.items()}
    check(path, shapes, {name: tuple(value.shape) for name, value in stored.items() if name not in BESIDE})
    for name, parameter in own.items():
        parameter.set_data(ms.Tensor(stored[names[name]]).astype(ms.float32))
    return network.set_train(False)


def main():
    """Print what the network answers for the token ids of one text."""
    parser = command_line(ASKED)
    given = parser.parse_args()
    respond(parser, given, loaded(load, given.folder), problem_of, answers)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""bert in OneFlow. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import oneflow as flow
from oneflow import nn

from .shared import check, command_line, loaded, respond
from .shared_encoder import ASKED, HAS, checkpoint_names, distance_buckets, layer_order, problem_of, read_config
from .shared_oneflow import answers, read_weights

# --- what the weights beside this file are
FAMILY = "bert"
WEIGHTS = "weights"
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
        return flow.relu(x)
    if kind in ("gelu", "gelu_python"):
        return 0.5 * x * (1.0 + flow.erf(x * 0.7071067811865476))
    return 0.5 * x * (1.0 + flow.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


class Layer(nn.Module):
    """An encoder layer: attention and feed-forward part, each added to its input and normalised."""

    def __init__(self, config):
        super().__init__()
        width, inner, epsilon = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads, self.kind = config["num_attention_heads"], config["hidden_act"]
        self.rate, self.attention_rate = config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention, self.attention_norm = nn.Linear(width, width), nn.LayerNorm(width, eps=epsilon)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.outer_norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, x, bias):
        batch, length, width = x.shape

        def split(states):  # (B, L, H) -> (B, heads, L, H / heads)
            return states.reshape(batch, length, self.heads, width // self.heads).permute(0, 2, 1, 3)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = flow.matmul(query * (width // self.heads) ** -0.5, key.permute(0, 1, 3, 2)) + bias
        shares = nn.functional.dropout(flow.softmax(scores, dim=-1), self.attention_rate, self.training)
        context = self.attention(flow.matmul(shares, value).permute(0, 2, 1, 3).reshape(batch, length, width))
        x = self.attention_norm(x + nn.functional.dropout(context, self.rate, self.training))
        states = self.outer(activation(self.kind, self.inner(x)))
        return self.outer_norm(x + nn.functional.dropout(states, self.rate, self.training))


class Network(nn.Module):
    """The encoder and its heads.

    `network(input_ids, attention_mask, token_type_ids)`, each (batch, length); the last two may be left out: ones and zeros.
    Returns what HEADS names: one tensor, or a tuple in this order. Without a head, the hidden states (batch, length, hidden).
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.order = config, layer_order(config)
        width, narrow, epsilon = config["hidden_size"], config["embedding_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], narrow)
        self.positions = nn.Embedding(config["max_position_embeddings"], narrow)
        if "types" in HAS:
            self.types = nn.Embedding(config["type_vocab_size"], narrow)
        if "tasks" in HAS:
            self.tasks = nn.Embedding(config["task_type_vocab_size"], narrow)
        if "relative_positions" in HAS:
            self.relative_positions = nn.Embedding(config["relative_attention_num_buckets"], config["num_attention_heads"])
            self.buckets = distance_buckets(config)
        self.embeddings_norm = nn.LayerNorm(narrow, eps=epsilon)
        if "projection" in HAS:
            self.projection = nn.Linear(narrow, width)
        self.encoder = nn.ModuleList([Layer(config) for _ in range(max(self.order) + 1)])
        if "pooler" in HAS:
            self.pooler = nn.Linear(width, width)
        if "classifier" in HAS:
            self.classifier = nn.Linear(width, HEADS["logits"])
        if "words_dense" in HAS:
            self.words_dense = nn.Linear(width, narrow)
            self.words_norm = nn.LayerNorm(narrow, eps=epsilon)
            self.words_bias = nn.Parameter(flow.zeros(config["vocab_size"]))
        if "decoder" in HAS:  # else the table of words
            self.decoder = nn.Linear(narrow, config["vocab_size"], bias=False)
        if "pairs" in HAS:
            self.pairs = nn.Linear(width, 2)
        if "replaced" in HAS:
            self.replaced_dense, self.replaced = nn.Linear(width, width), nn.Linear(width, 1)

    def encode(self, input_ids, attention_mask=None, token_type_ids=None):
        """The hidden states (batch, length, hidden)."""
        mask = flow.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.words(input_ids) + self.positions.weight[FIRST : FIRST + input_ids.shape[1]]
        if "types" in HAS:
            x = x + self.types(flow.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        if "tasks" in HAS:  # a text is of the first
            x = x + self.tasks.weight[0]
        x = self.drop(self.embeddings_norm(x), self.config["hidden_dropout_prob"])
        if "projection" in HAS:
            x = self.projection(x)
        bias = ((1.0 - mask.to(x.dtype)) * -10000.0).reshape(mask.shape[0], 1, 1, mask.shape[1])
        if "relative_positions" in HAS:
            bias = bias + self.distances(input_ids.shape[1], x.device)
        for number in self.order:
            x = self.encoder[number](x, bias)
        return x

    def distances(self, length, device):
        """What is added to the scores of each head for the distance of two places: (1, heads, length, length)."""
        middle = len(self.buckets) // 2
        rows = [self.buckets[middle - place : middle - place + length] for place in range(length)]
        return self.relative_positions(flow.tensor(rows, device=device)).permute(2, 0, 1).unsqueeze(0)

    def pooled(self, x):
        """The first token's state through the pooler."""
        rate = self.config["head_dropout"]
        first = self.pooler(self.drop(x[:, 0], rate) if POOLER_DROPOUT else x[:, 0])
        return flow.tanh(first) if POOLER == "tanh" else activation(POOLER, first)

    def logits(self, x):
        """The classifier: of each token's state, or of the whole text's."""
        if TASK in ("sentences", "choices"):
            x = self.pooled(x)
            if self.config["classifier_relu"]:
                x = flow.relu(x)
        return self.classifier(self.drop(x, self.config["head_dropout"]))

    def words_of(self, x):
        """What each token could be: (batch, length, vocabulary)."""
        x = self.words_norm(activation(self.config["words_act"], self.words_dense(x)))
        table = self.decoder.weight if "decoder" in HAS else self.words.weight
        return flow.matmul(x, table.transpose(0, 1)) + self.words_bias

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        x = self.encode(input_ids, attention_mask, token_type_ids)
        ends = {
            "logits": self.logits,
            "words": self.words_of,
            "pairs": lambda x: self.pairs(self.pooled(x)),
            "replaced": lambda x: self.replaced(activation(self.config["hidden_act"], self.replaced_dense(x)))[..., 0],
        }
        found = tuple(ends[name](x) for name in HEADS)
        return found if len(found) > 1 else found[0] if found else x

    def drop(self, x, rate):
        """Dropout, in training only."""
        return nn.functional.dropout(x, rate, self.training)


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_config(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    names, own = checkpoint_names(config), network.state_dict()
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in own.items()}
    check(path, shapes, {name: tuple(tensor.shape) for name, tensor in stored.items() if name not in BESIDE})
    network.load_state_dict({name: stored[names[name]].to(flow.float32) for name in own})
    return network.eval()


def main():
    """Print what the network answers for the token ids of one text."""
    parser = command_line(ASKED)
    given = parser.parse_args()
    respond(parser, given, loaded(load, given.folder), problem_of, answers)


if __name__ == "__main__":
    main()

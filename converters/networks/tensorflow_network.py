# SPDX-License-Identifier: Apache-2.0
"""bert in TensorFlow. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

from .shared import check, each_of
from .shared_encoder import ASKED, HAS, checkpoint_names, distance_buckets, layer_order, problem_of, read_config
from .shared_tensorflow import read_weights, respond_or_save

# --- what the weights beside this file are
FAMILY = "bert"
WEIGHTS = "bert_model.ckpt"
HEADS = {"logits": 2}
TASK = "sentences"
POOLER = "tanh"
POOLER_DROPOUT = False
FIRST = 0
HALF, EDGES = 0, []
KEYS = {}
NAMES = {}
BESIDE = []
TURNED = []
# --- end


def activation(kind, x):
    """GELU by erf, its tanh approximation, or ReLU, by the names that transformers has for them."""
    return tf.nn.relu(x) if kind == "relu" else tf.nn.gelu(x, approximate=kind not in ("gelu", "gelu_python"))


class Layer(keras.layers.Layer):
    """An encoder layer: attention and feed-forward part, each added to its input and normalised."""

    def __init__(self, config):
        super().__init__()
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.heads, self.kind, self.width = config["num_attention_heads"], config["hidden_act"], width
        self.query, self.key, self.value, self.attention = (keras.layers.Dense(width) for _ in range(4))
        self.inner, self.outer = keras.layers.Dense(config["intermediate_size"]), keras.layers.Dense(width)
        self.attention_norm, self.outer_norm = (keras.layers.LayerNormalization(epsilon=epsilon) for _ in range(2))
        self.dropout = keras.layers.Dropout(config["hidden_dropout_prob"])
        self.attention_dropout = keras.layers.Dropout(config["attention_probs_dropout_prob"])

    def call(self, x, bias, training=False):
        batch, length, size = tf.shape(x)[0], tf.shape(x)[1], self.width // self.heads

        def split(states):  # (B, L, H) -> (B, heads, L, H / heads)
            return tf.transpose(tf.reshape(states, (batch, length, self.heads, size)), (0, 2, 1, 3))

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        shares = tf.nn.softmax(tf.matmul(query * size**-0.5, key, transpose_b=True) + bias)
        context = tf.matmul(self.attention_dropout(shares, training=training), value)
        context = self.attention(tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (batch, length, self.width)))
        x = self.attention_norm(x + self.dropout(context, training=training))
        states = self.outer(activation(self.kind, self.inner(x)))
        return self.outer_norm(x + self.dropout(states, training=training))


class Network(keras.Model):
    """The encoder and its heads.

    `network(input_ids, attention_mask, token_type_ids)`, each (batch, length); the last two may be left out: ones and zeros.
    Returns what HEADS names: one tensor, or a tuple in this order. Without a head, the hidden states (batch, length, hidden).
    """

    def __init__(self, config):
        super().__init__()
        self.settings, self.order = config, layer_order(config)
        width, narrow, epsilon = config["hidden_size"], config["embedding_size"], config["layer_norm_eps"]
        self.words = keras.layers.Embedding(config["vocab_size"], narrow)
        self.positions = keras.layers.Embedding(config["max_position_embeddings"], narrow)
        if "types" in HAS:
            self.types = keras.layers.Embedding(config["type_vocab_size"], narrow)
        if "tasks" in HAS:
            self.tasks = keras.layers.Embedding(config["task_type_vocab_size"], narrow)
        if "relative_positions" in HAS:
            heads = config["num_attention_heads"]
            self.relative_positions = keras.layers.Embedding(config["relative_attention_num_buckets"], heads)
            self.buckets = distance_buckets(config)
        self.embeddings_norm = keras.layers.LayerNormalization(epsilon=epsilon)
        if "projection" in HAS:
            self.projection = keras.layers.Dense(width)
        self.encoder = [Layer(config) for _ in range(max(self.order) + 1)]
        if "pooler" in HAS:
            self.pooler = keras.layers.Dense(width)
        if "classifier" in HAS:
            self.classifier = keras.layers.Dense(HEADS["logits"])
        if "words_dense" in HAS:
            self.words_dense, self.words_norm = keras.layers.Dense(narrow), keras.layers.LayerNormalization(epsilon=epsilon)
            self.words_bias = self.add_weight(shape=(config["vocab_size"],), initializer="zeros", name="words_bias")
        if "pairs" in HAS:
            self.pairs = keras.layers.Dense(2)
        if "replaced" in HAS:
            self.replaced_dense, self.replaced = keras.layers.Dense(width), keras.layers.Dense(1)
        self.dropout = keras.layers.Dropout(config["hidden_dropout_prob"])
        self.head_dropout = keras.layers.Dropout(config["head_dropout"])
        # Keras makes a layer's variables when it is called, and one that no head uses is called nowhere else.
        self(tf.zeros((1, 1), tf.int32))
        if "pooler" in HAS and not self.pooler.built:
            self.pooler.build((None, width))

    def encode(self, input_ids, attention_mask=None, token_type_ids=None, training=False):
        """The hidden states (batch, length, hidden)."""
        mask = tf.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.words(input_ids) + self.positions(tf.range(FIRST, FIRST + tf.shape(input_ids)[1]))
        if "types" in HAS:
            x = x + self.types(tf.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        if "tasks" in HAS:  # a text is of the first
            x = x + self.tasks(tf.zeros((1, 1), tf.int32))
        x = self.dropout(self.embeddings_norm(x), training=training)
        if "projection" in HAS:
            x = self.projection(x)
        bias = ((1.0 - tf.cast(mask, x.dtype)) * -10000.0)[:, None, None, :]
        if "relative_positions" in HAS:
            bias = bias + self.distances(tf.shape(input_ids)[1])
        for number in self.order:
            x = self.encoder[number](x, bias, training=training)
        return x

    def distances(self, length):
        """What is added to the scores of each head for the distance of two places: (heads, length, length)."""
        places = tf.range(length)
        rows = tf.gather(tf.constant(self.buckets), places[None, :] - places[:, None] + len(self.buckets) // 2)
        return tf.transpose(self.relative_positions(rows), (2, 0, 1))

    def pooled(self, x, training=False):
        """The first token's state through the pooler; that of some families has a dropout before it."""
        first = self.pooler(self.head_dropout(x[:, 0], training=training) if POOLER_DROPOUT else x[:, 0])
        return tf.tanh(first) if POOLER == "tanh" else activation(POOLER, first)

    def logits(self, x, training=False):
        """The classifier: of each token's state, or of the whole text's."""
        if TASK in ("sentences", "choices"):
            x = self.pooled(x, training)
            if self.settings["classifier_relu"]:
                x = tf.nn.relu(x)
        return self.classifier(self.head_dropout(x, training=training))

    def words_of(self, x):
        """What each token could be: (batch, length, vocabulary)."""
        x = self.words_norm(activation(self.settings["words_act"], self.words_dense(x)))
        return tf.matmul(x, self.words.embeddings, transpose_b=True) + self.words_bias

    def call(self, input_ids, attention_mask=None, token_type_ids=None, training=False):
        x = self.encode(input_ids, attention_mask, token_type_ids, training)
        ends = {
            "logits": lambda x: self.logits(x, training),
            "words": self.words_of,
            "pairs": lambda x: self.pairs(self.pooled(x, training)),
            "replaced": lambda x: self.replaced(activation(self.settings["hidden_act"], self.replaced_dense(x)))[..., 0],
        }
        found = tuple(ends[name](x) for name in HEADS)
        return found if len(found) > 1 else found[0] if found else x


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_config(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    shapes = {name: value.shape for name, value in stored.items() if name not in BESIDE}
    names = checkpoint_names(config)
    own = {name: variable_of(network, name) for name in names}
    if len(own) != len(network.weights):
        raise ValueError(f"{path}: NAMES has {len(own)} variables, the network {len(network.weights)}")
    turned = {names[name] for name in TURNED}  # (out, in) there, (in, out) here
    expected = {names[name]: tuple(variable.shape) for name, variable in own.items()}
    check(path, {name: shape[::-1] if name in turned else shape for name, shape in expected.items()}, shapes)
    for name, variable in own.items():
        value = stored[names[name]].astype(np.float32)
        variable.assign(value.T if name in TURNED else value)
    return network


def variable_of(network, name):
    """The variable under a name as `encoder.0.query.kernel`."""
    for part in name.split("."):
        network = network[int(part)] if part.isdigit() else getattr(network, part)
    return network


def save(network, folder):
    """Write a SavedModel with one signature, of any batch and length: `input_ids`, `attention_mask` and `token_type_ids` in, what
    HEADS names out."""
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if "types" in HAS else ()))

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32, name) for name in inputs])
    def serve(*tensors):
        return dict(zip(HEADS or {"hidden": 0}, each_of(network(*tensors))))

    tf.saved_model.save(network, str(folder), signatures={"serving_default": serve})


def main():
    """Print what the network answers for the token ids of one text, or write it as a SavedModel."""
    respond_or_save(ASKED, load, problem_of, save)


if __name__ == "__main__":
    main()

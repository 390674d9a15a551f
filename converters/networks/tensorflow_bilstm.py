# SPDX-License-Identifier: Apache-2.0
"""BiLSTM in TensorFlow. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

from .shared import check, read_settings
from .shared_bilstm import ASKED, features, problem_of, stored_shapes
from .shared_tensorflow import read_weights, respond_or_save

# --- what the weights beside this file are
WEIGHTS = "bert_model.ckpt"
HEADS = {"logits": 2}
TASK = "sentences"
PAIRS = False
KEYS = {}
# --- end


class Network(keras.Model):
    """Words, one bidirectional LSTM, and a classifier with a hidden layer (Tang et al. 2019).

    `network(input_ids, attention_mask)`, each (batch, length), padded on the right; without a mask, all are words. Where PAIRS
    is true, `network(input_ids, attention_mask, second_ids, second_mask)`. Returns the logits (batch, classes).
    """

    def __init__(self, config):
        super().__init__()
        self.settings = config
        self.words = keras.layers.Embedding(config["vocab_size"], config["embedding_size"])
        self.lstm = keras.layers.Bidirectional(keras.layers.LSTM(config["hidden_size"]))
        self.fully_connected = keras.layers.Dense(config["fully_connected_size"], activation="relu")
        self.dropout = keras.layers.Dropout(config["dropout"])
        self.classifier = keras.layers.Dense(HEADS["logits"])
        self.words.build((None, None))
        self.lstm.build((None, None, config["embedding_size"]))
        self.fully_connected.build((None, features(config)))
        self.classifier.build((None, config["fully_connected_size"]))

    def encode(self, ids, mask, training):
        """The forward state after the last word and the backward one after the first: (batch, 2 hidden)."""
        real = tf.ones_like(ids, tf.bool) if mask is None else tf.cast(mask, tf.bool)
        return self.lstm(self.words(ids), mask=real, training=training)

    def call(self, input_ids, attention_mask=None, second_ids=None, second_mask=None, training=False):
        x = self.encode(input_ids, attention_mask, training)
        if PAIRS:
            second = self.encode(second_ids, second_mask, training)
            x = tf.concat([x, second, tf.abs(x - second), x * second], 1)
        return self.classifier(self.dropout(self.fully_connected(x), training=training))


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_settings(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    check(path, stored_shapes(config), {name: value.shape for name, value in stored.items()})
    stored = {name: value.astype(np.float32) for name, value in stored.items()}
    network.words.set_weights([stored["embeddings.weight"]])
    bias = stored["lstm.input_bias"] + stored["lstm.hidden_bias"]  # Keras has one
    for number, layer in enumerate((network.lstm.forward_layer, network.lstm.backward_layer)):
        layer.set_weights([stored["lstm.input_weight"][number].T, stored["lstm.hidden_weight"][number].T, bias[number]])
    for name in ("fully_connected", "classifier"):
        getattr(network, name).set_weights([stored[f"{name}.weight"].T, stored[f"{name}.bias"]])
    return network


def save(network, folder):
    """Write a SavedModel with one signature, of any batch and length: `input_ids` and `attention_mask`, of pairs `second_ids` and
    `second_mask` too, in, what HEADS names out."""
    inputs = ("input_ids", "attention_mask", *(("second_ids", "second_mask") if PAIRS else ()))

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32, name) for name in inputs])
    def serve(*tensors):
        return dict(zip(HEADS, [network(*tensors)]))

    # The variables alone: of a model itself, Keras would save a signature of its own, of one input.
    saved = tf.Module()
    saved.weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in network.weights]
    tf.saved_model.save(saved, str(folder), signatures={"serving_default": serve})


def main():
    """Print what the network answers for the word ids of one text, or of a pair, or write it as a SavedModel."""
    respond_or_save(ASKED, load, problem_of, save)


if __name__ == "__main__":
    main()

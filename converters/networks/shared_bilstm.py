# SPDX-License-Identifier: Apache-2.0
"""What the BiLSTMs share, in all frameworks. It is copied into each that is written, from the mark on, after what all
networks share."""

from .shared import HEADS

PAIRS = False
# --- copied from here on

ASKED = ("the word ids of one text, or of a pair", "word ids", "--second", "those of the second text of a pair")


def features(config):
    """How many numbers the hidden layer sees: both ends of a text, or of two, with their distance and their product."""
    return (8 if PAIRS else 2) * config["hidden_size"]


def stored_shapes(config):
    """Name of each tensor in the checkpoint -> its shape: both directions of the LSTM in one, the forward one first, with the
    gates in the order input, forget, cell, output; linear maps as (out, in)."""
    words, gates, inner = config["embedding_size"], 4 * config["hidden_size"], config["fully_connected_size"]
    return {
        "embeddings.weight": (config["vocab_size"], words),
        "lstm.input_weight": (2, gates, words),
        "lstm.hidden_weight": (2, gates, config["hidden_size"]),
        "lstm.input_bias": (2, gates),
        "lstm.hidden_bias": (2, gates),
        "fully_connected.weight": (inner, features(config)),
        "fully_connected.bias": (inner,),
        "classifier.weight": (HEADS["logits"], inner),
        "classifier.bias": (HEADS["logits"],),
    }


def problem_of(config, ids, second):
    """What is wrong with the ids of a text, and of a second one; an empty string where nothing is."""
    if PAIRS != (second is not None):
        return f"--second: expected {'the second text of a pair' if PAIRS else 'none, it takes one text'}"
    wrong = [number for number in [*ids, *(second or [])] if not 0 <= number < config["vocab_size"]]
    return f"got id {wrong[0]}, expected 0 to {config['vocab_size'] - 1}" if wrong else ""

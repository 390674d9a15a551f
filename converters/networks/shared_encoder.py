# SPDX-License-Identifier: Apache-2.0
"""What the networks of encoders share, in all frameworks. It is copied into each that is written, from the mark on, after
what all networks share."""

from bisect import bisect_right

from .shared import KEYS, config_path, read_settings, wrong_setting

NAMES = {}
FIRST = 0
HALF, EDGES = 0, []
# --- copied from here on

HAS = {name.split(".")[0] for name in NAMES}
ASKED = (
    "the token ids of one text",
    "token ids, those of [CLS] and [SEP] too",
    "--types",
    "their token types: 0, and 1 in the second text of a pair",
)
ACTIVATIONS = "gelu gelu_python relu gelu_new gelu_pytorch_tanh gelu_python_tanh gelu_fast gelu_accurate".split()


def read_config(folder=None):
    """The settings of the model, under BERT's names. Raises ValueError for those that no network can be made of."""
    config, path = read_settings(folder), config_path(folder)
    for name in ("hidden_act", "words_act"):
        if config[name] not in ACTIVATIONS:
            raise wrong_setting(path, config, name, f"one of {', '.join(ACTIVATIONS)}")
    if config["hidden_size"] % config["num_attention_heads"]:
        divisor = f"a divisor of {KEYS['hidden_size'][0] or 'hidden_size'} {config['hidden_size']}"
        raise wrong_setting(path, config, "num_attention_heads", divisor)
    return config


def layer_order(config):
    """Which layers follow one another. ALBERT's are shared by groups and come several times."""
    count, inner = config["num_hidden_layers"], config.get("inner_group_num", 1)
    groups = [int(number / (count / config.get("num_hidden_groups", count))) for number in range(count)]
    return [group * inner + number for group in groups for number in range(inner)]


def distance_buckets(config):
    """The row of `relative_positions` for each distance from a place to another, from the farthest behind to the farthest ahead.
    A row of its own begins at each of EDGES; what lies ahead has the second HALF."""
    longest = config["max_position_embeddings"] - FIRST
    return [bisect_right(EDGES, abs(distance)) + (HALF if distance > 0 else 0) for distance in range(1 - longest, longest)]


def checkpoint_names(config):
    """Name of each parameter here -> its name in the checkpoint."""
    names, inner = {}, config.get("inner_group_num", 1)
    for own, stored in NAMES.items():
        numbers = sorted(set(layer_order(config))) if "{layer}" in own else [0]
        for layer in numbers:
            place = {"layer": layer, "group": layer // inner, "inner": layer % inner}
            names[own.format(**place)] = stored.format(**place)
    return names


def problem_of(config, ids, types):
    """What is wrong with the ids of a text; an empty string where nothing is."""
    most, longest = config["vocab_size"], config["max_position_embeddings"] - FIRST
    if len(ids) > longest:
        return f"got {len(ids)} ids, expected at most {longest}"
    wrong = [number for number in ids if not 0 <= number < most]
    if wrong:
        return f"got id {wrong[0]}, expected 0 to {most - 1}"
    if types is not None and (len(types) != len(ids) or not set(types) <= set(range(config["type_vocab_size"] or 1))):
        return f"--types: expected {len(ids)} numbers below {config['type_vocab_size'] or 1}"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""What the networks of all frameworks share. It is copied into each that is written, from the mark on, in place of its import."""

import json
from pathlib import Path

HEADS = {}
TASK = "sentences"
KEYS = {}
NAMES = {}
# --- copied from here on

HAS = {name.split(".")[0] for name in NAMES}
ACTIVATIONS = "gelu gelu_python relu gelu_new gelu_pytorch_tanh gelu_python_tanh gelu_fast gelu_accurate".split()


def read_config(folder=None):
    """The settings of the model, under BERT's names, from the config.json in a folder (this file's, unless given).
    Raises ValueError, with the file's name and what was expected, where it is damaged."""
    path = Path(folder or Path(__file__).parent) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: got no JSON, expected an object: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got {type(found).__name__}, expected an object")
    config = {name: found.get(key, default) for name, (key, default) in KEYS.items()}
    check_settings(path, config)
    labels = found.get("id2label") or {}
    if not isinstance(labels, dict) or set(labels) != {str(number) for number in range(len(labels))}:
        raise ValueError(f'{path}: id2label: got {labels!r:.80}, expected {{"0": name, "1": name, ...}}')
    return config | {"labels": [labels[str(number)] for number in range(len(labels))]}


def check_settings(path, config):
    """Raise ValueError for settings that no network can be made of."""

    def wrong(name, expected):
        return ValueError(f"{path}: {KEYS[name][0] or name}: got {config[name]!r}, expected {expected}")

    for name, (_, default) in KEYS.items():
        value, kinds = config[name], (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in kinds:
            raise wrong(name, " or ".join(kind.__name__ for kind in kinds))
        if kinds == (int,) and value < (0 if name == "type_vocab_size" else 1):
            raise wrong(name, "a number from 1")
    for name in ("hidden_act", "words_act"):
        if config[name] not in ACTIVATIONS:
            raise wrong(name, f"one of {', '.join(ACTIVATIONS)}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise wrong("num_attention_heads", f"a divisor of {KEYS['hidden_size'][0] or 'hidden_size'} {config['hidden_size']}")


def layer_order(config):
    """Which layers follow one another. ALBERT's are shared by groups and come several times."""
    count, inner = config["num_hidden_layers"], config.get("inner_group_num", 1)
    groups = [int(number / (count / config.get("num_hidden_groups", count))) for number in range(count)]
    return [group * inner + number for group in groups for number in range(inner)]


def checkpoint_names(config):
    """Name of each parameter here -> its name in the checkpoint."""
    names, inner = {}, config.get("inner_group_num", 1)
    for own, stored in NAMES.items():
        numbers = sorted(set(layer_order(config))) if "{layer}" in own else [0]
        for layer in numbers:
            place = {"layer": layer, "group": layer // inner, "inner": layer % inner}
            names[own.format(**place)] = stored.format(**place)
    return names


def unreadable(path, error):
    """What is raised for weights that are damaged: frameworks' own errors are of many types, and name no file."""
    return ValueError(f"{path}: cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def check(path, expected, found):
    """Raise ValueError unless both have the same names and shapes."""
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    both = [name for name in expected if name in found]
    problems += [
        f"{name}: got shape {found[name]}, expected {expected[name]}" for name in both if found[name] != expected[name]
    ]
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{path}: does not fit this network:\n  " + "\n  ".join(problems[:8]) + more)


def problem_of(config, ids, types):
    """What is wrong with the ids of a text; an empty string where nothing is."""
    most, longest = config["vocab_size"], config["max_position_embeddings"]
    if len(ids) > longest:
        return f"got {len(ids)} ids, expected at most {longest}"
    wrong = [number for number in ids if not 0 <= number < most]
    if wrong:
        return f"got id {wrong[0]}, expected 0 to {most - 1}"
    if types is not None and (len(types) != len(ids) or not set(types) <= set(range(config["type_vocab_size"] or 1))):
        return f"--types: expected {len(ids)} numbers below {config['type_vocab_size'] or 1}"
    return ""


def tell(config, answers):
    """Print arrays, the logits of a text's classes with their names."""
    for name, answer in zip(HEADS or {"hidden": 0}, answers):
        if name == "logits" and TASK == "sentences" and len(config["labels"]) == answer.shape[-1]:
            for label, logit in zip(config["labels"], answer[0]):
                print(f"{label}: {logit:.6f}")
        else:
            print(f"{name} {answer.shape}:\n{answer}")

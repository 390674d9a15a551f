# SPDX-License-Identifier: Apache-2.0
"""What the networks of all frameworks and architectures share. It is copied into each that is written, from the mark on, in
place of its import."""

import argparse
import json
import sys
from pathlib import Path

HEADS = {}
TASK = "sentences"
KEYS = {}
# --- copied from here on


def config_path(folder=None):
    """The config.json in a folder, this file's unless given."""
    return Path(folder or Path(__file__).parent) / "config.json"


def read_settings(folder=None):
    """The settings of the model, by their names here. Raises ValueError, with the file's name and what was expected, where it is
    damaged."""
    path = config_path(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: got no JSON, expected an object: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got {type(found).__name__}, expected an object")
    config = {name: found.get(key, default) for name, (key, default) in KEYS.items()}
    for name, (_, default) in KEYS.items():
        value, kinds = config[name], (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in kinds:
            raise wrong_setting(path, config, name, " or ".join(kind.__name__ for kind in kinds))
        if kinds == (int,) and value < (0 if name == "type_vocab_size" else 1):
            raise wrong_setting(path, config, name, "a number from 1")
    labels = found.get("id2label") or {}
    if not isinstance(labels, dict) or set(labels) != {str(number) for number in range(len(labels))}:
        raise ValueError(f'{path}: id2label: got {labels!r:.80}, expected {{"0": name, "1": name, ...}}')
    return config | {"labels": [labels[str(number)] for number in range(len(labels))]}


def wrong_setting(path, config, name, expected):
    """What is raised for a setting that no network can be made of."""
    return ValueError(f"{path}: {KEYS[name][0] or name}: got {config[name]!r}, expected {expected}")


def opened(path, read):
    """What `read(path)` finds in the weights. Raises ValueError, with their name, where they are damaged: frameworks' own errors
    are of many types, and name no file."""
    try:
        return read(path)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


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


def each_of(answers):
    """What a network answers, as a tuple."""
    return answers if isinstance(answers, tuple) else (answers,)


def tell(config, answers):
    """Print arrays, the logits of a text's classes with their names."""
    for name, answer in zip(HEADS or {"hidden": 0}, answers):
        if name == "logits" and TASK == "sentences" and len(config["labels"]) == answer.shape[-1]:
            for label, logit in zip(config["labels"], answer[0]):
                print(f"{label}: {logit:.6f}")
        else:
            print(f"{name} {answer.shape}:\n{answer}")


def command_line(asked, count="+", also=""):
    """A parser of the command line. `asked` is what it says of the ids it takes: whose they are, what they are, and the option
    that goes with them and what that is."""
    whose, what, option, more = asked
    parser = argparse.ArgumentParser(description=f"Print what the network answers for {whose}{also}.")
    parser.add_argument("ids", nargs=count, type=int, help=what)
    parser.add_argument(option, dest="more", metavar=option[2:].upper(), nargs="+", type=int, help=more)
    parser.add_argument("--folder", type=Path, help="where the weights and config.json lie; default: beside this file")
    return parser


def loaded(load, folder):
    """The network of a folder. What is wrong with it is one line, and ends the program."""
    try:
        return load(folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def respond(parser, given, network, problem_of, answers):
    """Print what `answers(network, ids, more)` gives for the ids of a command line, where `problem_of` finds nothing wrong."""
    config = read_settings(given.folder)
    problem = problem_of(config, given.ids, given.more)
    if problem:
        parser.error(problem)
    tell(config, answers(network, given.ids, given.more))

"""Draws the wrong inputs that `wrong_inputs.py` gives to the command line.

Most are certainly wrong: a value that the option or the key cannot take, a file that the command reads and cannot understand.
The others, about one of eight, are damaged at random, and may be fine: `Case.fine` says why.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from wrong_input_world import A_TASK, ANY_LABEL, ANY_VALUES, CONTENTS, GOOD, READS, Case, called

from crossdistil.core.app import cli
from crossdistil.core.recipe import flat, parse_recipe
from crossdistil.tests import tiny

FINE = {
    "words": "the words in another order, or fewer, are a whole command",
    "value": "a number or a text that an option or a key may take",
    "text": "any text may be a corpus, a vocabulary or what is to be classified",
    "tokenizer": "the tokenizer is read from another file of the folder",
    "entry": "an entry of a JSON file that is optional, or another value that it may have",
    "rows": "the rows of the damaged table are still a task",
}

ODD = ["no such thing", "a" * 5000, "\x1b[31mred", "ÿ\n二\u2028", "[1, 2]", '{"a": 1}', "[", "%", "!!python/object:os.system x"]
"""No number, no name, no path that there is."""
NO_NUMBER = [*ODD, "", " ", "nan", "0x10", "1,5", "--", "null", "True"]
NO_NAME = [*ODD, "-1", "1e5", "x/../y"]
NO_PATH = [*ODD, "~nobody/x", "../../no/such", "recipe.yaml/x"]
_NUMERALS = ["0", "-1", "1", "2", "17", "1000000000", "1" + "0" * 30, "3.5", "1e308"]
ANY = [*ODD, *_NUMERALS, "", "true", "null", "[]", "{}", "task", "model", "out"]

NUMBERS = frozenset(
    """--steps-per-call --max-length --steps --resize-vocabulary --type-vocabulary --unused-days --seed --max-seq-length
    --max-predictions-per-seq --masked-lm-prob --dupe-factor --short-seq-prob --processes --shard-mib --copies
    --nodes --node-rank --replace-probability --mask-probability --ngram-probability --candidates --batch-size
    --max-drop --min-agreement --texts --requests --rounds --warm-up --threads --port --max-batch
    --max-wait-ms --queue --timeout --max-texts --max-body-kib --max-connections""".split()
)
NAMES = frozenset(
    """--backend --device --devices --precision --preset --task --split --text --text-pair --label --text-column --pair-column
    --id-column --encoding --backends --to --layout --dtype --kind --format --algorithm --whole-words --method --shard
    --master --clock --picture --batch-sizes --lengths --host --allowed-host""".split()
)
PATHS = frozenset("--plugin --data --vocabulary --tokenizer --file --config --set --token-file".split())
"""Options by what they take. The others take any text."""

SIZES = "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size max_position_embeddings".split()


class Grammar:
    """Draws cases."""

    def __init__(self, seed: int, world: Path):
        self._random = random.Random(seed)
        self._recipes = {name: json.loads((world / name).read_text(encoding="utf-8")) for name in ("recipe.yaml", "ner.yaml")}
        settings = {name: flat(parse_recipe(recipe, name, [], None).resolved()) for name, recipe in self._recipes.items()}
        self._settings = {command: settings.get(words[0], settings["recipe.yaml"]) for command, words in GOOD.items() if words}
        known = dict(commands(typer.main.get_command(cli.app), []))
        self._options = {command: known[" ".join(called(command))] for command in GOOD}
        self._untried: dict[tuple[str, str], list[str]] = defaultdict(list)

    def cases(self, count: int, only: Sequence[str] = ()) -> Iterator[Case]:
        """`count` cases, the commands, or only some, in turn; those that refuse their good arguments in one round of four."""
        twice = [self._option_value, self._setting, self._file]
        wrong = [self._option, self._argument, self._json_value, *twice, *twice]
        fine = [self._any_words, self._any_value, self._any_file, self._any_entry, self._any_rows]
        made = turn = 0
        while made < count:
            for command in only or GOOD:
                if not only and "none" in GOOD[command] and turn % 4:
                    continue
                kinds = fine if self._random.random() < 0.12 else wrong
                case = self._random.choice(kinds)(command)
                if case is not None and made < count:
                    made += 1
                    yield case
            turn += 1

    def _in_turn(self, kind: str, command: str, options: list[str]) -> str | None:
        """One of the options of a command, each once before any twice; None where there are none."""
        left = self._untried[kind, command]
        if not left:
            left += options
            self._random.shuffle(left)
        return left.pop() if left else None

    def _case(self, command: str, kind: str, what: str, words: list[str], **other: Any) -> Case:
        return Case(command, kind, what, [*called(command), *words], **other)

    def _option(self, command: str) -> Case | None:
        """An option that there is not, or that lacks its value, or a word too many."""
        good, choose, options = GOOD[command], self._random, self._options[command]
        known = choose.choice([*options, "--help"])
        drawn = [
            ("unknown option", [*good, "--" + choose.choice(["epochs", "gpu", "lr", "no-such", "-", "Ü", "\x1b[1m"]), "3"]),
            ("unknown short option", ["-" + choose.choice("qz9\n"), *good]),
            ("misspelled option", [*good, known + choose.choice("xyz")]),
        ]
        if called(command) != ["predict"]:  # texts are its words
            drawn.append(("words too many", [*good, *choose.choices(["x", "model", "\x1b[1m"], k=3)]))
        if options.get(known) is False:
            drawn.append(("option without a value", [*good, known]))
        if options.get(known) is True:
            drawn.append(("flag with a value", [*good, known + "=" + choose.choice(ODD)]))
        what, words = choose.choice(drawn)
        return self._case(command, "option", f"{what}: {known}", words)

    def _option_value(self, command: str) -> Case | None:
        """A value that the option cannot take."""
        option = self._in_turn("option value", command, sorted(set(self._options[command]) & (NUMBERS | NAMES | PATHS)))
        if option is None:
            return None
        value = self._random.choice(NO_NUMBER if option in NUMBERS else NO_NAME if option in NAMES else NO_PATH)
        good = list(GOOD[command])
        if option in good:
            good[good.index(option) + 1] = value
        else:
            good += [option, value]
        return self._case(command, "option value", f"{option} {value[:60]!r}", good)

    def _argument(self, command: str) -> Case | None:
        """The word that the command works on replaced, or an option's name."""
        good = list(GOOD[command])
        places = [place for place, word in enumerate(good) if word.startswith("--") or place == 0]
        if not places:
            return None
        place = self._random.choice(places)
        value = self._random.choice(["--no-such", "--Out", "--" + "x" * 3000] if good[place].startswith("--") else NO_PATH)
        what = f"{good[place]} -> {value[:60]!r}"
        good[place] = value
        return self._case(command, "argument", what, good)

    def _setting(self, command: str) -> Case | None:
        """`--set` with a key that there is not, a value of another type, or what is no YAML."""
        if "--set" not in self._options[command] or GOOD[command][0] not in self._recipes:
            return None
        choose, settings = self._random, self._settings[command]
        key = choose.choice(sorted(settings))
        keys = [key + "x", key[:-1] + "_", "x." + key, key + ".x.y", "", ".", key.upper(), " " + key + " x", "\x1b" + key]
        setting = choose.choice(
            [
                f"{choose.choice(keys)}=1",
                f"{key}={choose.choice(other_type(settings[key]))}",
                f"{key}={choose.choice(['[', '{', '&a [*a]', '*a', '!!python/object:os.system x', '- ' * 3000, '[' * 3000])}",
                key,
            ]
        )
        return self._case(command, "setting", setting[:80], [*GOOD[command], "--set", setting])

    def _file(self, command: str) -> Case | None:
        """A file that the command reads is something else."""
        if command not in READS:
            return None
        name = self._random.choice(READS[command])
        fine = A_TASK | ANY_LABEL if command == "data augment" else A_TASK
        content = self._random.choice([each for each in CONTENTS if not (name.endswith(".tsv") and each in fine)])
        files: dict[str, bytes | None] = {name: CONTENTS[content]}
        if self._random.random() < 0.1:
            content, files = "a folder", {name: None, name + "/": b""}
        return self._case(command, "file", f"{name}: {content}", GOOD[command], files=files)

    def _json_value(self, command: str) -> Case | None:
        """A size of the model that is none, or a value of the recipe of another type."""
        reads, choose = READS.get(command, []), self._random
        recipe = next((name for name in reads if name in self._recipes), None)
        config = next((name for name in reads if name.endswith("/config.json")), None)
        if recipe is not None:
            value = self._recipes[recipe]
            way = choose.choice(list(leaves(value, [])))
            for step in way:
                value = value[step]
            entry = (recipe, way, json.loads(choose.choice(other_type(value, quoted=True))))
        elif config is not None:
            no_size = [value for value in ANY_VALUES if type(value) is not int or value < 1 or value >= 10**9]
            entry = (config, [choose.choice(SIZES)], choose.choice(no_size))
        else:
            return None
        what = f"{entry[0]}: {'.'.join(map(str, entry[1]))} = {str(entry[2])[:60]!r}"
        return self._case(command, "value in a file", what, GOOD[command], entry=entry)

    def _any_words(self, command: str) -> Case:
        good, choose = GOOD[command], self._random
        left_out = choose.randrange(len(good) + 1)
        shorter = [word for place, word in enumerate(good) if place != left_out]
        words = choose.choice([shorter, choose.sample(good, len(good)), []])
        if command == "demo" and "--backends" not in words:
            words = ["--backends", "none", *words]  # no processes
        return self._case(command, "any words", " ".join(words), words, fine="words")

    def _any_value(self, command: str) -> Case | None:
        option = self._in_turn("any value", command, [option for option, flag in self._options[command].items() if not flag])
        if option is None:
            return None
        value = self._random.choice(ANY)
        if option == "--set":
            value = f"{self._random.choice(sorted(self._settings[command]))}={value}"
        return self._case(command, "any value", f"{option} {value[:60]!r}", [*GOOD[command], option, value], fine="value")

    def _any_file(self, command: str) -> Case:
        name = self._random.choice(["texts.txt", "model/vocab.txt", "model/tokenizer.json", "task/dev.tsv"])
        content = self._random.choice(list(CONTENTS))
        rule = "tokenizer" if name.startswith("model") else "text"
        files = {name: CONTENTS[content]}
        return self._case(command, "any file", f"{name}: {content}", GOOD[command], files=files, fine=rule)

    def _any_entry(self, command: str) -> Case:
        name = self._random.choice(["model/config.json", "model/tokenizer_config.json", "model/tokenizer.json", "recipe.yaml"])
        draw = self._random.randrange(10**6)
        what, entry = f"{name}: #{draw}", (name, [], None)
        return self._case(command, "any entry of a file", what, GOOD[command], entry=entry, draw=draw, fine="entry")

    def _any_rows(self, command: str) -> Case:
        """A row damaged at a random place."""
        split, choose = self._random.choice(["train", "dev"]), self._random
        lines = [f"{text}\t{label}" for text, label in zip(*tiny.sentences(24, choose.randrange(99)))]
        damage = choose.choice([*'\t\x00\r"\ufeff\ud7ff\u2028-', "\t\t1", "", "9" * 22, "1.5"])
        row = choose.randrange(len(lines))
        cut = choose.randrange(len(lines[row]) + 1)
        lines[row] = choose.choice([lines[row][:cut] + damage + lines[row][cut:], damage, lines[row][:cut] + damage])
        good = "sentence\tlabel"
        header = choose.choice([good, good, "sentence\tlabel\tlabel", "label\tsentence", "text\tlabel", ""])
        files: dict[str, bytes | None] = {f"task/{split}.tsv": ("\n".join([header, *lines]) + "\n").encode()}
        return self._case(command, "any rows", f"{split}.tsv row {row}: {damage!r}", GOOD[command], files=files, fine="rows")


def other_type(value: Any, quoted: bool = False) -> list[str]:
    """YAML of values that cannot stand where `value` does; `quoted`: as JSON."""
    text = '"no such thing"' if quoted else "no such thing"
    if isinstance(value, bool):
        return [text, "[1, 2]", '{"a": 1}', "3.5", "17"]
    if isinstance(value, (int, float)):
        return [text, "[1, 2]", '{"a": 1}', '""', "true"]
    if isinstance(value, (list, tuple)):
        return ['{"a": 1}', '{"a": [1]}', "[[{}]]"]
    return ["[[1, 2]]", '{"a": 1}', '{"": {}}']


def leaves(tree: Any, way: list[Any]) -> Iterator[list[Any]]:
    """The way to each value of a JSON tree that holds no others."""
    for step, below in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(below, (dict, list)):
            yield from leaves(below, [*way, step])
        else:
            yield [*way, step]


def commands(command: Any, path: list[str]) -> Iterator[tuple[str, dict[str, bool]]]:
    """Each command and its options; true for those that take no value."""
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, [*path, name])
    if not hasattr(command, "commands") or (path and command.invoke_without_command):
        yield " ".join(path), {name: bool(each.is_flag) for each in command.params for name in each.opts if name.startswith("--")}

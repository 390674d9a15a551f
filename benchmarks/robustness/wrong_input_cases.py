"""Draws the wrong inputs that `wrong_inputs.py` gives to the command line, and makes the folder that each is given in.

Most are certainly wrong: a value that the option or the key cannot take, a file that the command reads and cannot understand.
The others, about one of eight, are damaged at random, and may be fine: `Case.fine` says why.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from crossdistil.core.app import cli
from crossdistil.core.recipe import flat, parse_recipe
from crossdistil.tests import tiny


@dataclass
class Case:
    """A command line in a folder of its own."""

    command: str
    kind: str
    what: str
    arguments: list[str]
    fine: str | None = None
    """Why the input may be fine (a key of `FINE`), so that exit code 0 is right; None where it is certainly wrong."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """Files of the world with other content; None is a missing one, and a name that ends in / is a folder in its place."""
    entry: tuple[str, list[Any], Any] | None = None
    """A JSON file, the way to an entry of it, and what stands there instead."""
    draw: int | None = None
    """The seed of one change anywhere in the JSON file of `entry`."""


FINE = {
    "words": "the words in another order, or fewer, are a whole command",
    "value": "a number or a text that an option or a key may take",
    "text": "any text may be a corpus, a vocabulary or what is to be classified",
    "tokenizer": "the tokenizer is read from another file of the folder",
    "entry": "an entry of a JSON file that is optional, or another value that it may have",
    "rows": "the rows of the damaged table are still a task",
}

GOOD = {
    "run": ["recipe.yaml", "--out", "out", "--backend", "torch"],
    "evaluate": ["model", "--data", "task", "--task", "sst-2", "--backend", "torch"],
    "predict": ["model", "--file", "task/dev.tsv", "--text-column", "sentence", "--backend", "torch"],
    "crosscheck": ["recipe.yaml", "--backends", "none", "--steps", "1", "--out", "out"],
    "convert": ["model", "out", "--to", "tf"],
    "inspect": ["model"],
    "cache": ["--kind", "tokens"],
    "recipes": ["recipe.yaml"],
    "backends": [],
    "demo": ["--backends", "none", "--out", "out"],
    "data mlm": ["--data", "texts.txt", "--vocabulary", "model", "--out", "out", "--max-seq-length", "16", "--processes", "1"],
    "data export": ["--task", "sst-2", "--data", "task", "--tokenizer", "model", "--out", "out", "--max-length", "16"],
    "data import": ["records", "--out", "out", "--tokenizer", "model"],
    "data augment": ["--task", "sst-2", "--data", "task", "--out", "out", "--method", "words", "--copies", "1"],
}
"""What each command is given. `none` stands for backends that would be processes: it is refused itself, so that the cases of
`crosscheck` and `demo` show only that the refusal is clean; they are drawn less often."""

ODD = ["no such thing", "a" * 5000, "\x1b[31mred", "ÿ\n二", "[1, 2]", '{"a": 1}', "[", "%", "!!python/object:os.system x", "\u2028"]
"""No number, no name, no path that there is."""
NO_NUMBER = [*ODD, "", " ", "nan", "0x10", "1,5", "--", "null", "True"]
NO_NAME = [*ODD, "-1", "1e5", "x/../y"]
NO_PATH = [*ODD, "~nobody/x", "../../no/such", "recipe.yaml/x"]
ANY = [*ODD, "", "0", "-1", "1", "2", "17", "1000000000", "1" + "0" * 30, "3.5", "1e308", "true", "null", "[]", "{}", "task", "model", "out"]
ANY_VALUES: list[Any] = [None, True, "", "x", "a" * 5000, "\u0000", -1, 0, 1, 3.5, 1e308, 10**9, 10**30, -(2**31), [], {}, [1, 2], {"a": 1}]

NUMBERS = {
    "--steps-per-call", "--max-length", "--steps", "--resize-vocabulary", "--type-vocabulary", "--unused-days", "--seed",
    "--max-seq-length", "--max-predictions-per-seq", "--masked-lm-prob", "--dupe-factor", "--short-seq-prob", "--processes",
    "--shard-mib", "--copies", "--replace-probability", "--mask-probability", "--ngram-probability", "--candidates", "--batch-size",
}
NAMES = {
    "--backend", "--device", "--precision", "--preset", "--task", "--split", "--text", "--text-pair", "--label", "--text-column",
    "--pair-column", "--id-column", "--encoding", "--backends", "--to", "--layout", "--dtype", "--kind", "--format", "--algorithm",
    "--whole-words", "--method",
}
PATHS = {"--data", "--vocabulary", "--tokenizer", "--file", "--config", "--set"}
"""Options by what they take. The others take any text."""

SIZES = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"]
MODEL = ["model/config.json", "model/model.safetensors"]
READS = {
    "run": ["recipe.yaml", "task/train.tsv", "task/dev.tsv", *MODEL],
    "evaluate": ["task/dev.tsv", *MODEL],
    "predict": MODEL,
    "crosscheck": ["recipe.yaml"],
    "convert": MODEL,
    "inspect": MODEL,
    "recipes": ["recipe.yaml"],
    "data export": ["task/train.tsv", "task/dev.tsv"],
    "data import": ["records/records.json", "records/train.tfrecord", "records/dev.tfrecord"],
    "data augment": ["task/train.tsv"],
}
"""The files that a command must understand, whatever is beside them."""
CONTENTS: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "zeros": bytes(4096),
    "noise": random.Random(0).randbytes(5000),
    "not UTF-8": "caf\xe9 \xfcber\tnaiv\n".encode("latin-1") * 20,
    "UTF-16": "sentence\tlabel\nfine\t1\n".encode("utf-16"),
    "a lone surrogate": b'{"sentence": "\\ud800", "label": 1, "a": 1}\n',
    "deep JSON": b"[" * 50000 + b"]" * 50000,
    "deep YAML": b"- " * 20000 + b"x",
    "aliases": b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n".encode() for n in range(9)
    ),
    "a huge number": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "an array": b"[1, 2, 3]",
    "a number": b"17",
    "JSON cut off": b'{"model_type": "bert", "hidden',
    "control characters": b"sentence\tlabel\n\x1b[2J\x07bad\x00\t1\n",
    "a pickle": b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "a zip": b"PK\x03\x04" + bytes(200),
    "one long line": b"word " * 100000,
    "a table of one column": b"sentence\ngood\nbad\n",
    "a table without rows": b"sentence\tlabel\n",
    "one class": b"sentence\tlabel\n" + b"good\t1\n" * 30,
    "labels that are texts": b"sentence\tlabel\n" + b"good\tpositive thinking\nbad\tother\n" * 20,
    "labels that are missing": b"sentence\tlabel\n" + b"good\t\nbad\t0\n" * 20,
    "ragged rows": b"sentence\tlabel\n" + b"good\t1\textra\nbad\nfine\t0\n" * 20,
}
A_TASK = {"one class", "UTF-16", "ragged rows"}
"""Contents of which a table can be made, UTF-16 by its byte-order mark, and GLUE's ragged rows are left out and told; all
others are no table, or have no label that can be used."""
ANY_LABEL = {"labels that are texts", "labels that are missing"}
"""Contents that `data augment`, which carries labels as the file holds them, can copy."""


class Grammar:
    """Draws cases."""

    def __init__(self, seed: int, world: Path):
        self._random = random.Random(seed)
        self._recipe = json.loads((world / "recipe.yaml").read_text(encoding="utf-8"))
        self._settings = flat(parse_recipe(self._recipe, "recipe.yaml", [], None).resolved())
        self._options = dict(commands(typer.main.get_command(cli.app), []))

    def cases(self, count: int, only: str | None = None) -> Iterator[Case]:
        """`count` cases, the commands in turn; those that refuse their good arguments in one round of four."""
        wrong = [self._option, self._option_value, self._option_value, self._argument, self._setting, self._setting, self._file, self._file, self._json_value]
        fine = [self._any_words, self._any_value, self._any_file, self._any_entry, self._any_rows]
        made = turn = 0
        while made < count:
            for command in [name for name in GOOD if only in (None, name)]:
                if only is None and "none" in GOOD[command] and turn % 4:
                    continue
                kinds = fine if self._random.random() < 0.12 else wrong
                case = self._random.choice(kinds)(command)
                if case is not None and made < count:
                    made += 1
                    yield case
            turn += 1

    def _case(self, command: str, kind: str, what: str, words: list[str], **other: Any) -> Case:
        return Case(command, kind, what, [*command.split(), *words], **other)

    def _option(self, command: str) -> Case | None:
        """An option that there is not, or that lacks its value, or a word too many."""
        good, choose, options = GOOD[command], self._random, self._options[command]
        known = choose.choice([*options, "--help"])
        drawn = [
            ("unknown option", [*good, "--" + choose.choice(["epochs", "gpu", "lr", "no-such", "-", "Ü", "\x1b[1m"]), "3"]),
            ("unknown short option", ["-" + choose.choice("qz9\n"), *good]),
            ("misspelled option", [*good, known + choose.choice("xyz")]),
        ]
        if command != "predict":  # texts are its words
            drawn.append(("words too many", [*good, *choose.choices(["x", "model", "\x1b[1m"], k=3)]))
        if options.get(known) is False:
            drawn.append(("option without a value", [*good, known]))
        if options.get(known) is True:
            drawn.append(("flag with a value", [*good, known + "=" + choose.choice(ODD)]))
        what, words = choose.choice(drawn)
        return self._case(command, "option", f"{what}: {known}", words)

    def _option_value(self, command: str) -> Case | None:
        """A value that the option cannot take."""
        options = sorted(set(self._options[command]) & (NUMBERS | NAMES | PATHS))
        if not options:
            return None
        option = self._random.choice(options)
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
        if command not in ("run", "crosscheck", "recipes"):
            return None
        choose = self._random
        key = choose.choice(sorted(self._settings))
        keys = [key + "x", key[:-1] + "_", "x." + key, key + ".x.y", "", ".", key.upper(), " " + key + " x", "\x1b" + key]
        setting = choose.choice(
            [
                f"{choose.choice(keys)}=1",
                f"{key}={choose.choice(other_type(self._settings[key]))}",
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
        if "recipe.yaml" in reads:
            way = choose.choice(list(leaves(self._recipe, [])))
            value = self._recipe
            for step in way:
                value = value[step]
            entry = ("recipe.yaml", way, json.loads(choose.choice(other_type(value, quoted=True))))
        elif MODEL[0] in reads:
            entry = (MODEL[0], [choose.choice(SIZES)], choose.choice([None, True, "", "x", -1, 0, 3.5, 1e308, 10**30, [], {}, [1, 2], {"a": 1}, "\u0000"]))
        else:
            return None
        return self._case(command, "value in a file", f"{entry[0]}: {'.'.join(map(str, entry[1]))} = {str(entry[2])[:60]!r}", GOOD[command], entry=entry)

    def _any_words(self, command: str) -> Case:
        good, choose = GOOD[command], self._random
        left_out = choose.randrange(len(good) + 1)
        words = choose.choice([[word for place, word in enumerate(good) if place != left_out], choose.sample(good, len(good)), []])
        if command == "demo" and "--backends" not in words:
            words = ["--backends", "none", *words]  # no processes
        return self._case(command, "any words", " ".join(words), words, fine="words")

    def _any_value(self, command: str) -> Case | None:
        options, choose = [option for option, flag in self._options[command].items() if not flag], self._random
        if not options:
            return None
        option, value = choose.choice(options), choose.choice(ANY)
        if option == "--set":
            value = f"{choose.choice(sorted(self._settings))}={value}"
        return self._case(command, "any value", f"{option} {value[:60]!r}", [*GOOD[command], option, value], fine="value")

    def _any_file(self, command: str) -> Case:
        name, content = self._random.choice(["texts.txt", "model/vocab.txt", "model/tokenizer.json", "task/dev.tsv"]), self._random.choice(list(CONTENTS))
        rule = "tokenizer" if name.startswith("model") else "text"
        return self._case(command, "any file", f"{name}: {content}", GOOD[command], files={name: CONTENTS[content]}, fine=rule)

    def _any_entry(self, command: str) -> Case:
        name = self._random.choice(["model/config.json", "model/tokenizer_config.json", "model/tokenizer.json", "recipe.yaml"])
        draw = self._random.randrange(10**6)
        return self._case(command, "any entry of a file", f"{name}: #{draw}", GOOD[command], entry=(name, [], None), draw=draw, fine="entry")

    def _any_rows(self, command: str) -> Case:
        """A row damaged at a random place."""
        split, choose = self._random.choice(["train", "dev"]), self._random
        lines = [f"{text}\t{label}" for text, label in zip(*tiny.sentences(24, choose.randrange(99)))]
        damage = choose.choice(["\t", "\x00", "\r", '"', "\ufeff", "\ud7ff", "\u2028", "\t\t1", "", "9999999999999999999999", "-", "1.5"])
        row = choose.randrange(len(lines))
        cut = choose.randrange(len(lines[row]) + 1)
        lines[row] = choose.choice([lines[row][:cut] + damage + lines[row][cut:], damage, lines[row][:cut] + damage])
        header = choose.choice(["sentence\tlabel", "sentence\tlabel", "sentence\tlabel\tlabel", "label\tsentence", "text\tlabel", ""])
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
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from commands(below, [*path, name])
    else:
        yield " ".join(path), {name: bool(each.is_flag) for each in command.params for name in each.opts if name.startswith("--")}


def write_world(folder: Path) -> None:
    """A task, a model, a recipe and texts, all good."""
    tiny.write_task(folder / "task", 24, 12)
    tiny.write_model(folder / "model")
    (folder / "texts.txt").write_text("the film was good .\nit was bad .\n\nso the plot .\na scene .\n" * 8, encoding="utf-8")
    tree = tiny.kd_recipe(Path("task"), Path("model"), steps=1, batch_size=4, length_buckets=[16])
    (folder / "recipe.yaml").write_text(json.dumps(tree, indent=1), encoding="utf-8")


def prepare(case: Case, world: Path, folder: Path) -> None:
    """The world in a folder of the case, with what the case makes wrong."""
    shutil.copytree(world, folder)
    for name, content in case.files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        elif name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(content)
    if case.entry is not None:
        name, way, value = case.entry
        tree = below = json.loads((folder / name).read_text(encoding="utf-8"))
        if case.draw is not None:
            replace_one(tree, random.Random(case.draw))
        else:
            for step in way[:-1]:
                below = below[step]
            below[way[-1]] = value
        (folder / name).write_text(json.dumps(tree), encoding="utf-8")


def replace_one(tree: Any, choose: random.Random) -> None:
    """Replace, remove or rename one entry, somewhere in a JSON value."""
    while True:
        place = choose.choice(list(tree) if isinstance(tree, dict) else list(range(len(tree))))
        below = tree[place]
        if isinstance(below, (dict, list)) and below and choose.random() < 0.7:
            tree = below
            continue
        if choose.random() < 0.15:
            del tree[place]
        elif isinstance(tree, dict) and choose.random() < 0.15:
            tree[str(place) + "x"] = tree.pop(place)
        else:
            tree[place] = choose.choice(ANY_VALUES)
        return

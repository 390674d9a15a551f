"""Wrong inputs given to the command line: each ends with clear errors, never with a traceback, a time-out or half a result.

    python benchmarks/robustness/wrong_inputs.py [--count 2400] [--seed 1] [--only COMMAND] [--jobs N] [--out FILE]

Every case is a good command with one thing made wrong: an option, a key of the recipe, a value, or a file. The commands and
their options are read from the command line itself, the keys from a resolved recipe, the files from a small world that is made
anew for each case; which wrong thing is drawn from the seed. A case runs `main()` in a forked child of this process, which has
imported everything, with a limit of time and memory.

Right is: exit code 2 (1 is crosscheck's and demo's own answer), every line on standard error begins with "crossdistil: error: ",
and no file is new or changed. Exit code 0 is right only for what a rule of `HARMLESS` explains.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a child of a fork has no threads

import typer

from crossdistil.core.app import cli
from crossdistil.core.errors import MESSAGE_PREFIX
from crossdistil.core.recipe import flat, parse_recipe
from crossdistil.tests import tiny

SECONDS, MEMORY = 60, 4 << 30

HARMLESS = {
    "value": "the value is one that the key or the option takes",
    "text": "any text can be classified, and any bytes that are text can be a text",
    "file": "a file that this command does not read, or reads to the same meaning",
    "data": "the rows that are left are a task; what was skipped is told",
    "option": "asks for help, or repeats an option: the last one counts",
}


@dataclass
class Case:
    """A command line in a folder of its own."""

    command: str
    kind: str
    what: str
    arguments: list[str]
    harmless: str | None = None
    """Which rule explains an exit code of 0."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """Files of the world with other content; None is a missing one, and a name that ends in / is a folder in its place."""


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
"""What each command is given; `none` stands for what would start processes, and is refused itself."""

VALUES: list[Any] = [
    None, True, "", " ", "no such thing", "../../etc/passwd", "~nobody/x", "a" * 5000, "\u0000", "\x1b[31mred", "\ud800", "ÿ\n二",
    "nan", "inf", -1, 0, 1, 2, 3.5, 1e308, 10**9, 10**30, -(2**31), 2**31, "1e5", "0x10", [], {}, [[]], [1, 2], ["a"], {"a": 1},
    "[", "{", "&a [*a]", "!!python/object:os.system x", "a: b", "*", "%", "task", "model", "recipe.yaml", "out",
]
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


def write_world(folder: Path) -> None:
    """A task, a model, a recipe and texts, all good."""
    tiny.write_task(folder / "task", 24, 12)
    tiny.write_model(folder / "model")
    (folder / "texts.txt").write_text("the film was good .\nit was bad .\n\nso the plot .\na scene .\n" * 8, encoding="utf-8")
    train = {"steps": 1, "batch_size": 4, "length_buckets": [16]}
    tree = tiny.kd_recipe(Path("task"), Path("model"), **train)
    (folder / "recipe.yaml").write_text(json.dumps(tree, indent=1), encoding="utf-8")
    (folder / "table.csv").write_text("sentence,label\ngood,1\nbad,0\n" * 8, encoding="utf-8")


def check_good(world: Path, folder: Path) -> None:
    """The good commands are good; what `data export` writes becomes the world's records."""
    for command in ("data export", *(name for name, words in GOOD.items() if "none" not in words)):
        ended = run_case(Case(command, "good", "", [*command.split(), *GOOD[command]], "value"), world, folder)
        if ended["code"] != 0:
            raise RuntimeError(f"the good command {command} ends with {ended}")
        if not (world / "records").exists():
            shutil.copytree(folder / "case" / "out", world / "records")


def keys_of(folder: Path) -> list[str]:
    """Every key of the resolved recipe, lists by number."""
    recipe = parse_recipe(json.loads((folder / "recipe.yaml").read_text(encoding="utf-8")), "recipe.yaml", [], None)
    return sorted(flat(recipe.resolved()))


class Grammar:
    """Draws cases."""

    def __init__(self, seed: int, world: Path):
        self._random = random.Random(seed)
        self._keys = keys_of(world)
        self._files = sorted(str(path.relative_to(world)) for path in world.rglob("*") if path.is_file())
        self._commands = dict(_commands(typer.main.get_command(cli.app), []))

    def cases(self, count: int, only: str | None = None) -> Iterator[Case]:
        """`count` cases, the commands and kinds in turn."""
        commands = [name for name in GOOD if only in (None, name)]
        kinds = [self._option, self._option_value, self._argument, self._setting, self._file, self._json_value, self._table]
        made = 0
        while made < count:
            for command in commands:
                case = kinds[self._random.randrange(len(kinds))](command)
                if case is not None and made < count:
                    made += 1
                    yield case

    def _case(self, command: str, kind: str, what: str, arguments: list[str], harmless: str | None = None, **files) -> Case:
        return Case(command, kind, what, [*command.split(), *arguments], harmless, files.get("files", {}))

    def _option(self, command: str) -> Case:
        """An option that there is not, or that lacks its value, or a word too many or few."""
        good, choose = GOOD[command], self._random
        options = [option for option in self._commands[command] if option]
        known = choose.choice(options) if options else "--help"
        place = choose.randrange(len(good) + 1)
        what, arguments, harmless = choose.choice(
            [
                ("misspelled option", [*good, known + choose.choice("xyz")], None),
                ("unknown option", [*good, "--" + choose.choice(["epochs", "gpu", "lr", "no-such", "", "-", "Ü"]), "3"], None),
                ("option without a value", [*good, known], "value"),
                ("option twice", [*good, known, "x", known], "value"),
                ("a word too many", [*good, *choose.choices(["x", "model", "", "-", "\x1b[1m"], k=3)], "text"),
                ("a word left out", [word for index, word in enumerate(good) if index != place], "value"),
                ("words in another order", choose.sample(good, len(good)), "option"),
                ("nothing", ["--out"] if command == "demo" else [], "option"),
            ]
        )
        return self._case(command, "option", f"{what}: {known}", arguments, harmless)

    def _option_value(self, command: str) -> Case | None:
        options = [option for option in self._commands[command] if option and option != "--help"]
        if not options:
            return None
        option, value = self._random.choice(options), self._value()
        return self._case(command, "option value", f"{option} {value[:60]!r}", [*GOOD[command], option, value], "value")

    def _argument(self, command: str) -> Case | None:
        """A word of the command replaced."""
        good = list(GOOD[command])
        if not good:
            return None
        place, value = self._random.randrange(len(good)), self._value()
        what = f"{good[place]} -> {value[:60]!r}"
        good[place] = value
        return self._case(command, "argument", what, good, "value")

    def _setting(self, command: str) -> Case | None:
        if command not in ("run", "crosscheck", "recipes"):
            return None
        choose, key, value = self._random, self._random.choice(self._keys), self._value()
        harmless: str | None = "value"
        if choose.random() < 0.3:
            key, harmless = choose.choice([key + "x", key[:-1], "x." + key, key + ".0", key + ".x", "", ".", key.upper()]), "value"
        setting = choose.choice([f"{key}={value}", f"{key}={json.dumps(value)}", f"{key}={value}", key])
        return self._case(command, "setting", setting[:80], [*GOOD[command], "--set", setting], harmless)

    def _file(self, command: str) -> Case:
        """A file of the world with other content."""
        name, content = self._random.choice(self._files), self._random.choice(list(CONTENTS))
        files: dict[str, bytes | None] = {name: CONTENTS[content]}
        if self._random.random() < 0.1:
            content, files = "a folder", {name: None, name + "/": b""}
        return self._case(command, "file", f"{name}: {content}", GOOD[command], "file", files=files)

    def _json_value(self, command: str) -> Case:
        """One value of a JSON file of the model, or of the recipe, replaced."""
        name = self._random.choice(["model/config.json", "model/tokenizer_config.json", "model/tokenizer.json", "recipe.yaml"])
        return self._case(command, "value in a file", f"{name}: #{self._random.randrange(10**6)}", GOOD[command], "value")

    def _table(self, command: str) -> Case:
        """Rows of a table damaged at random places."""
        split, choose = self._random.choice(["train", "dev"]), self._random
        lines = [f"{text}\t{label}" for text, label in zip(*tiny.sentences(24, choose.randrange(99)))]
        damage = choose.choice(["\t", "\x00", "\r", '"', "\ufeff", "\ud7ff", "\u2028", "\t\t1", "", "9999999999999999999999", "-", "1.5"])
        row = choose.randrange(len(lines))
        cut = choose.randrange(len(lines[row]) + 1)
        lines[row] = choose.choice([lines[row][:cut] + damage + lines[row][cut:], damage, lines[row][:cut] + damage])
        header = choose.choice(["sentence\tlabel", "sentence\tlabel", "sentence\tlabel\tlabel", "label\tsentence", "text\tlabel", ""])
        text = "\n".join([header, *lines]) + "\n"
        files = {f"task/{split}.tsv": text.encode("utf-8", "surrogatepass")}
        return self._case(command, "table", f"{split}.tsv row {row}: {damage!r}", GOOD[command], "data", files=files)

    def _value(self) -> str:
        value = self._random.choice(VALUES)
        return value if isinstance(value, str) else json.dumps(value)


def _commands(command: Any, path: list[str]) -> Iterator[tuple[str, list[str]]]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, [*path, name])
    else:
        yield " ".join(path), [option for each in command.params if each.opts for option in each.opts if option.startswith("--")]


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
    if case.kind == "value in a file":
        name, number = case.what.split(": #")
        path, choose = folder / name, random.Random(int(number))
        tree = json.loads(path.read_text(encoding="utf-8"))
        replace_one(tree, choose)
        path.write_text(json.dumps(tree), encoding="utf-8")


def replace_one(tree: Any, choose: random.Random) -> None:
    """Replace, remove or rename one entry, somewhere in a JSON value."""
    while True:
        places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        place = choose.choice(places)
        below = tree[place]
        if isinstance(below, (dict, list)) and below and choose.random() < 0.7:
            tree = below
            continue
        if choose.random() < 0.15:
            del tree[place]
        elif isinstance(tree, dict) and choose.random() < 0.15:
            tree[str(place) + "x"] = tree.pop(place)
        else:
            tree[place] = choose.choice([value for value in VALUES if value != "\ud800"])
        return


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder: size and time of change of each file."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def run_case(case: Case, world: Path, folder: Path) -> dict[str, Any]:
    """Run a case in a forked child; returns what was wrong with how it ended (`problem`, or None), and how."""
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    prepare(case, world, place)
    before, started = contents(place), time.monotonic()
    output, errors = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        _child(case, place, output, errors)
    code = _wait(child, started)
    lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
    changed = sorted(name for name, stat in contents(place).items() if before.get(name) != stat)
    result = {"code": code, "seconds": round(time.monotonic() - started, 2), "stderr": lines[-6:]}
    return {**result, "problem": _problem(case, code, lines, changed)}


def _problem(case: Case, code: int | str, lines: list[str], changed: list[str]) -> str | None:
    if isinstance(code, str):
        return code
    if any(line.startswith("Traceback") for line in lines):
        return "a traceback"
    if code == 0:
        return None if case.harmless else "exit code 0 for a wrong input"
    if code != 2 and not (code == 1 and case.command in ("crosscheck", "demo")):
        return f"exit code {code}"
    other = [line for line in lines if not line.startswith(MESSAGE_PREFIX)]
    if other:
        return f"a line that is no error: {other[0][:200]!r}"
    if not lines:
        return "no error is told"
    if any(ord(character) < 32 for line in lines for character in line):
        return "control characters"
    if any(len(line) > 4000 for line in lines) or len(lines) > 200:
        return "an endless message"
    return f"left behind: {', '.join(changed[:4])}" if changed else None


def _child(case: Case, place: Path, output: Path, errors: Path) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
        for path, number in ((output, 1), (errors, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["crossdistil", *(word.replace("\x00", "") for word in case.arguments)]
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int, started: float) -> int | str:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else f"signal {signal.Signals(-code).name}"
        if time.monotonic() - started > SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"over {SECONDS} seconds"
        time.sleep(0.002)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def load_everything() -> None:
    """Import what the commands import when they run, so that the children need not."""
    from crossdistil.backends.registry import load_engine
    from crossdistil.core.app import crosscheck, demo, explain_view, inference, run, tables  # noqa: F401
    from crossdistil.core.engine import EngineOptions

    load_engine("torch", EngineOptions("cpu"))


def drive(count: int, seed: int, only: str | None = None, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Run every `parts`-th of the cases, from number `part` on; counts by command, kind and exit code, and the failures."""
    load_everything()
    gc.freeze()  # what is imported stays where it is, and children share it
    counts: dict[str, Counter] = {}
    kinds: Counter = Counter()
    rules: Counter = Counter()
    failures = []
    with tempfile.TemporaryDirectory(prefix="crossdistil-wrong-") as name:
        folder = Path(name)
        os.environ["CROSSDISTIL_CACHE"] = str(folder / "cache")
        world = folder / "world"
        world.mkdir()
        write_world(world)
        check_good(world, folder)
        for case in islice(Grammar(seed, world).cases(count, only), part, None, parts):
            ended = run_case(case, world, folder)
            kinds[case.kind] += 1
            counts.setdefault(case.command, Counter())[str(ended["code"])] += 1
            if ended["problem"] is not None:
                failures.append({"arguments": [word[:200] for word in case.arguments], "kind": case.kind, "what": case.what, **ended})
                print(json.dumps(failures[-1]), file=sys.stderr, flush=True)
            elif ended["code"] == 0:
                rules[HARMLESS[case.harmless]] += 1
    return {
        "cases": sum(kinds.values()),
        "seed": seed,
        "kinds": dict(kinds),
        "commands": {command: dict(codes) for command, codes in counts.items()},
        "exit code 0": dict(rules),
        "failures": failures,
    }


def drive_parts(options: argparse.Namespace) -> dict[str, Any]:
    """The same in as many processes as are asked for."""
    if options.jobs == 1:
        return drive(options.count, options.seed, options.only)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs) as pool:
        settings = [(options.count, options.seed, options.only, part, options.jobs) for part in range(options.jobs)]
        found = pool.starmap(drive, settings)
    commands = {name: sum((Counter(each["commands"].get(name, {})) for each in found), Counter()) for name in GOOD}
    return {
        "cases": sum(each["cases"] for each in found),
        "seed": options.seed,
        "kinds": dict(sum((Counter(each["kinds"]) for each in found), Counter())),
        "commands": {name: dict(codes) for name, codes in commands.items() if codes},
        "exit code 0": dict(sum((Counter(each["exit code 0"]) for each in found), Counter())),
        "failures": [failure for each in found for failure in each["failures"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(GOOD), help="one command")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/robustness_wrong_inputs.json for a whole run")
    options = parser.parse_args()
    started = time.monotonic()
    found = drive_parts(options)
    from crossdistil.core.processor import vendor

    found |= {"seconds": round(time.monotonic() - started), "processor": vendor(), "date": time.strftime("%Y-%m-%d")}
    out = options.out
    if out is None and options.only is None and options.count >= 2000:
        out = Path(__file__).resolve().parents[1] / "results" / "robustness_wrong_inputs.json"
    text = json.dumps(found, indent=2, ensure_ascii=True) + "\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()

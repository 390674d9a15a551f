"""Small files that are right, for the tests to spoil, and the command line as a user meets it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from crossdistil.core.app import cli
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import MESSAGE_PREFIX
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a the film is good bad fine poor and not".split()
CONFIG = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


@dataclass
class Answer:
    """What a command ended with."""

    code: int
    stdout: str
    stderr: str

    @property
    def messages(self) -> list[str]:
        """The error messages without their prefix. Anything else on stderr fails the test."""
        lines = self.stderr.splitlines()
        strangers = [line for line in lines if not line.startswith(MESSAGE_PREFIX)]
        assert not strangers, f"stderr holds more than messages:\n{self.stderr}"
        return [line.removeprefix(MESSAGE_PREFIX) for line in lines]


def crossdistil(*arguments: object) -> Answer:
    """The command line in this process: the same parsing, messages and exit codes, without the start of an interpreter."""
    saved, sys.argv = sys.argv, ["crossdistil", *map(str, arguments)]
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = saved
    return Answer(code, stdout.getvalue(), stderr.getvalue())


def contents(folder: Path) -> dict[str, str]:
    """Every path below `folder` with a digest of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def write_vocabulary(folder: Path, words: list[str] = WORDS) -> Path:
    """A folder with a vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return folder


def write_model(folder: Path, labels: tuple[str, ...] | None = ("negative", "positive"), **config: Any) -> Path:
    """A model folder with random weights; `labels` None makes a regression."""
    outputs = 1 if labels is None else len(labels)
    spec = BertConfig(**{**CONFIG, **config})
    parameters = {name: spec.new_tensor(name, shape, 1) for name, shape in tensor_shapes(spec, outputs).items()}
    vocabulary = write_vocabulary(folder.with_name(f"{folder.name}-vocabulary"), WORDS)
    save_model(Model(spec, parameters, outputs, labels), folder, load_tokenizer(vocabulary))
    return folder


def write_task(folder: Path, rows: int = 12) -> Path:
    """A folder with SST-2's three files."""
    folder.mkdir(parents=True)
    lines = [f"the film is {'good' if row % 2 else 'bad'}\t{row % 2}\n" for row in range(rows)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    (folder / "test.tsv").write_text("index\tsentence\n0\tthe film is fine\n", encoding="utf-8")
    return folder


def recipe_tree(data: Path, teacher: Path) -> dict[str, Any]:
    """A recipe that works: two of four layers, four steps."""
    return {
        "method": "kd",
        "task": {"name": "sst-2", "data": str(data), "max_length": 16},
        "teacher": {"model": str(teacher)},
        "student": {"architecture": {"num_hidden_layers": 2}, "init": {"from": "teacher", "layers": [0, 2]}},
        "stages": [
            {
                "name": "distil",
                "objective": [{"loss": "kd_ce", "weight": 0.5, "temperature": 4}, {"loss": "hard_label", "weight": 0.5}],
                "train": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "save_every": 2},
            }
        ],
        "seed": 1,
    }


@dataclass
class Files:
    """A folder with everything that a run needs, all of it right."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def out(self) -> Path:
        """Where a run is to be written; it does not exist."""
        return self.root / "out"

    def run(self, *arguments: object, sets: Sequence[str] = ()) -> Answer:
        """`crossdistil run` of the recipe into `out`, with `--set` for each of `sets`."""
        overrides = [part for each in sets for part in ("--set", each)]
        return crossdistil("run", self.recipe, "--out", self.out, *overrides, *arguments)

    def copy(self, root: Path) -> Files:
        """The same files in another folder, of which their recipe speaks."""
        shutil.copytree(self.root, root)
        copied = Files(root)
        copied.recipe.write_text(self.recipe.read_text().replace(str(self.root), str(root)))
        return copied

    def append(self, name: str, text: str) -> None:
        """Add lines to a data file."""
        with (self.data / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def change_config(self, **changes: Any) -> None:
        """Change keys of the teacher's config.json."""
        path = self.teacher / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def change_weights(self, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
        """Change the teacher's weights."""
        path = self.teacher / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})


def write_files(root: Path) -> Files:
    """A task, a teacher of four layers, and a recipe that makes a student of two in four steps."""
    files = Files(root)
    write_task(files.data)
    write_model(files.teacher)
    with files.recipe.open("w", encoding="utf-8") as file:
        YAML().dump(recipe_tree(files.data, files.teacher), file)
    return files


def assert_refused(files: Files, answer: Answer, *messages: str) -> None:
    """Exit code 2 and just these messages; `{root}` in them is the folder of the files."""
    assert answer.messages == [message.replace("{root}", str(files.root)) for message in messages]
    assert answer.code == 2
    assert not files.out.exists()


def refused_conversion(root: Path, source: object, *options: object, to: str = "tf", out: str = "out") -> list[str]:
    """The messages of `crossdistil convert`, with {root} for the folder that holds everything and must stay as it is."""
    before = contents(root)
    answer = crossdistil("convert", source, root / out, "--to", to, *options)
    assert answer.code == 2 and not answer.stdout
    assert contents(root) == before
    return [message.replace(str(root), "{root}") for message in answer.messages]

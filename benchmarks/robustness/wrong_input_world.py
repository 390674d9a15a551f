"""The folder that each wrong input is given in, a command that is right there for each command line, and the files that take the
place of others."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.predictions import rows_digest
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.compared import answers, write_run
from crossdistil.tests.tagged_files import ner_recipe, write_names
from crossdistil.tests.tiny_families import DEBERTA_V2, MODERNBERT, MPNET, ROBERTA


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


GOOD = {
    "run": ["recipe.yaml", "--out", "out", "--backend", "torch"],
    "run #ner": ["ner.yaml", "--out", "out", "--backend", "torch"],
    "run #plugin": [*"recipe.yaml --plugin my_losses.py --set stages.0.objective.1.loss=small --out out --backend torch".split()],
    "evaluate": ["model", "--data", "task", "--task", "sst-2", "--backend", "torch"],
    "predict": ["model", "--file", "task/dev.tsv", "--text-column", "sentence", "--backend", "torch"],
    "evaluate #ner": ["tagger", "--data", "names", "--backend", "torch"],
    "predict #ner": ["tagger", "--file", "names/dev.conll", "--backend", "torch"],
    "crosscheck": ["recipe.yaml", "--backends", "none", "--steps", "1", "--out", "out"],
    "convert": ["model", "out", "--to", "tf"],
    "inspect": ["model"],
    "inspect #roberta": ["roberta"],
    "convert #mpnet": ["mpnet", "out", "--to", "pytorch"],
    "evaluate #deberta": ["deberta", "--data", "task", "--task", "sst-2", "--backend", "torch"],
    "export #modernbert": ["modernbert", "out"],
    "export": ["classifier", "out", "--data", "task"],
    "trim": ["model", "out", "--data", "texts.txt"],
    "push": ["classifier", "me/student", "--license", "mit", "--dry-run"],
    "search": ["recipe.yaml", "--grid", "paper", "--trials", "1", "--backend", "none", "--out", "out"],
    "latency": ["model", *"--lengths 8 --batch-sizes 1 --rounds 1 --warm-up 0 --requests 1 --backend torch".split()],
    "serve": ["model", "--backend", "none"],
    "check": ["my_losses.py", "--backends", "torch"],
    "compare": ["finished", "model", "--data", "task", "--backend", "torch"],
    "report": ["finished"],
    "cache": ["--kind", "tokens"],
    "cache teacher": ["recipe.yaml", "--backend", "torch"],
    "recipes": ["recipe.yaml"],
    "backends": [],
    "demo": ["--backends", "none", "--out", "out"],
    "data mlm": ["--data", "texts.txt", "--vocabulary", "model", "--out", "out", "--max-seq-length", "16", "--processes", "1"],
    "data export": ["--task", "sst-2", "--data", "task", "--tokenizer", "model", "--out", "out", "--max-length", "16"],
    "data import": ["records", "--out", "out", "--tokenizer", "model"],
    "data tokens": ["--data", "texts.txt", "--tokenizer", "model", "--out", "out"],
    "data merge": ["shares", "--out", "out"],
    "data augment": ["--task", "sst-2", "--data", "task", "--out", "out", "--method", "words", "--copies", "1"],
}
"""What each command is given; behind ` #` stands what else it is given, under the same name. `none` stands for backends that
would be processes, and keeps `serve` from staying: it is refused itself, so that the cases of `crosscheck`, `demo`, `search` and
`serve` show only that the refusal is clean; they are drawn less often."""
MAKE = {
    "records": [["data", "export", *GOOD["data export"]]],
    "shares": [["data", "mlm", *GOOD["data mlm"], "--shard", f"{share}/2"] for share in (1, 2)],
    "classifier": [["run", *GOOD["run"]]],
    "tagger": [["run", *GOOD["run #ner"]]],
}
"""Folder that commands read -> what makes it as `out`, from the rest of the world."""

MODEL = ["model/config.json", "model/model.safetensors"]
ANSWERED = ["finished/result.json", "finished/recipe.yaml", "finished/predictions.safetensors"]
READS = {
    "run": ["recipe.yaml", "task/train.tsv", "task/dev.tsv", *MODEL],
    "run #ner": ["ner.yaml", "names/train.conll", "names/dev.conll", *MODEL],
    "run #plugin": ["my_losses.py"],
    "evaluate #ner": ["names/dev.conll", "tagger/student/config.json", "tagger/student/model.safetensors"],
    "predict #ner": ["tagger/student/config.json", "tagger/student/model.safetensors"],
    **{
        command: [f"{command.partition('#')[2]}/config.json", f"{command.partition('#')[2]}/model.safetensors"]
        for command in ("inspect #roberta", "convert #mpnet", "evaluate #deberta", "export #modernbert")
    },
    "evaluate": ["task/dev.tsv", *MODEL],
    "predict": MODEL,
    "crosscheck": ["recipe.yaml"],
    "convert": MODEL,
    "inspect": MODEL,
    "export": ["task/dev.tsv", "classifier/student/config.json", "classifier/student/model.safetensors"],
    "trim": MODEL,
    "push": ["classifier/student/config.json", "classifier/student/model.safetensors"],
    "search": ["recipe.yaml"],
    "latency": MODEL,
    "check": ["my_losses.py"],
    "cache teacher": ["recipe.yaml", "task/train.tsv", *MODEL],
    "compare": ["task/dev.tsv", *MODEL, *ANSWERED],
    "report": ANSWERED,
    "recipes": ["recipe.yaml"],
    "data export": ["task/train.tsv", "task/dev.tsv"],
    "data import": ["records/records.json", "records/train.tfrecord", "records/dev.tfrecord"],
    "data augment": ["task/train.tsv"],
    "data merge": ["shares/mlm-1-of-2.json", "shares/examples-00000.json", "shares/examples-00000.tfrecord"],
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
    "aliases": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n".encode() for n in range(9)),
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

_NUMBERS = [-(2**31), -1, 0, 1, 3.5, 10**9, 10**30, 1e308]
ANY_VALUES: list[Any] = [*_NUMBERS, None, True, "", "x", "a" * 5000, "\u0000", [], {}, [1, 2], {"a": 1}]
"""What stands in place of an entry of a JSON file."""


LOSS = """from typing import Literal
from crossdistil import LossTerm, register_loss, sum_rows


class Small(LossTerm):
    loss: Literal["small"]

    def function(self, context, label):
        def small(ops, params, student, teacher, batch):
            return sum_rows(ops, ops.sum(student["logits"] * student["logits"], axis=1), batch)

        return small


register_loss(Small)
"""


def called(command: str) -> list[str]:
    """The words of a command's name."""
    return command.partition(" #")[0].split()


def write_world(folder: Path) -> None:
    """A task, a model, a recipe and texts, all good."""
    tiny.write_task(folder / "task", 24, 12)
    tiny.write_model(folder / "model")
    (folder / "texts.txt").write_text("the film was good .\nit was bad .\n\nso the plot .\na scene .\n" * 8, encoding="utf-8")
    (folder / "my_losses.py").write_text(LOSS, encoding="utf-8")
    tree = tiny.kd_recipe(Path("task"), Path("model"), steps=1, batch_size=4, length_buckets=[16])
    (folder / "recipe.yaml").write_text(json.dumps(tree, indent=1), encoding="utf-8")
    write_names(folder / "names", 24, 8)
    (folder / "ner.yaml").write_text(json.dumps(ner_recipe(Path("names"), Path("model"), steps=1), indent=1), encoding="utf-8")
    for name, config in {"roberta": ROBERTA, "mpnet": MPNET, "deberta": DEBERTA_V2, "modernbert": MODERNBERT}.items():
        tiny.write_model(folder / name, config)
    labels = np.array(tiny.sentences(12, 1)[1], np.int32)
    spec = TaskSection(name="sst-2", data=folder / "task", max_length=16)
    rows = rows_digest(resolve_task(spec), read_split(resolve_task(spec), folder / "task", "dev"))
    write_run(folder / "finished", answers(labels, labels == 1), labels, rows=rows)


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

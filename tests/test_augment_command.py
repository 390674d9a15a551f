"""`crossdistil data augment`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

from crossdistil.core.augmentation.word_copies import MASK
from crossdistil.tests.tiny_masked_lm import write_masked_lm
from crossdistil.tests.wrong_input_files import contents, crossdistil


@pytest.fixture(scope="module")
def masked_lm_folder(tmp_path_factory):
    return write_masked_lm(tmp_path_factory.mktemp("mlm") / "model")


def read_lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def augment(data, out, *options, task="sst-2", method="words"):
    return crossdistil("data", "augment", "--task", task, "--data", data, "--out", out, "--method", method, *options)


def test_the_command_writes_a_task_folder(tiny_task, tmp_path):
    out = tmp_path / "new" / "task"
    answer = augment(tiny_task, out, "--copies", 3, "--seed", 5)
    assert answer.code == 0 and not answer.stderr, answer.stderr
    old, new = read_lines(tiny_task / "train.tsv"), read_lines(out / "train.tsv")
    assert new[: len(old)] == old and len(new) > len(old) + 40
    assert contents(out)["dev.tsv"] == contents(tiny_task)["dev.tsv"]
    assert sorted(contents(out)) == ["augmentation.json", "dev.tsv", "train.tsv"]
    note = json.loads((out / "augmentation.json").read_text())
    assert note["examples"] == {"original": len(old) - 1, "added": len(new) - len(old)}
    assert note["settings"] == {"copies": 3, "mask": 0.1, "replace": 0.1, "ngram": 0.25} and note["seed"] == 5
    assert note["sha256"] == {
        "source": contents(tiny_task)["train.tsv"], "train.tsv": contents(out)["train.tsv"],
    }
    assert augment(tiny_task, tmp_path / "again", "--copies", 3, "--seed", 5).code == 0
    assert contents(tmp_path / "again") == contents(out)


def test_labels_are_those_of_the_original(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"word{index} other{index} third{index}\t{index % 2}\n" for index in range(40))
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
    assert augment(data, tmp_path / "out", "--copies", 4, "--replace-probability", 0, "--mask-probability", 0.3).code == 0
    added = read_lines(tmp_path / "out" / "train.tsv")[41:]
    assert len(added) > 40
    for line in added:
        text, label = line.split("\t")
        kept = next(word for word in text.split() if word != MASK)
        assert int(re.sub("[a-z]", "", kept)) % 2 == int(label)


def test_files_without_a_header_and_tables_of_every_kind(tmp_path, tiny_task):
    cola = tmp_path / "cola"
    cola.mkdir()
    for split in ("train", "dev"):
        (cola / f"{split}.tsv").write_text("gj04\t1\t\tThe boat sank slowly today.\ngj04\t0\t*\tBoat the sank.\n")
    assert augment(cola, tmp_path / "cola-new", task="cola").code == 0
    lines = read_lines(tmp_path / "cola-new" / "train.tsv")
    assert lines[:2] == ["\t1\t\tThe boat sank slowly today.", "\t0\t\tBoat the sank."] and len(lines) > 4
    assert all(line.count("\t") == 3 for line in lines)
    rows = [("the \"film\", it's good", "plot here", "yes"), ("a bad one", "the actor was fine", "no")]
    for kind in ("csv", "jsonl"):
        data = tmp_path / kind
        data.mkdir()
        for split in ("train", "dev"):
            if kind == "csv":
                cells = "".join('"' + '","'.join(cell.replace('"', '""') for cell in row) + '"\n' for row in rows)
                (data / f"{split}.csv").write_text("q,a,label\n" + cells)
            else:
                records = [json.dumps({"q": q, "a": a, "label": label}) for q, a, label in rows]
                (data / f"{split}.jsonl").write_text("\n".join(records) + "\n")
        options = ("--text", "q", "--text-pair", "a", "--label", "label")
        assert augment(data, tmp_path / f"{kind}-new", *options, task="reviews").code == 0
        note = json.loads((tmp_path / f"{kind}-new" / "augmentation.json").read_text())
        assert note["examples"]["added"] > 4 and note["settings"]["copies"] == 10
        # What was written is a table to augment in turn.
        again = augment(tmp_path / f"{kind}-new", tmp_path / f"{kind}-twice", *options, "--copies", 1, task="reviews")
        assert again.code == 0, again.stderr
        twice = json.loads((tmp_path / f"{kind}-twice" / "augmentation.json").read_text())
        assert twice["examples"]["original"] == sum(note["examples"].values())


def test_the_command_with_a_language_model(tiny_task, masked_lm_folder, tmp_path, backend_name, pytestconfig):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("xyz 1 0 0\nfine 0.9 0.1 0\n")
    options = ["--model", masked_lm_folder, "--vectors", vectors, "--backend", backend_name]
    answer = augment(
        tiny_task, tmp_path / "out", *options, "--device", pytestconfig.getoption("--device"), "--copies", 2, method="masked-lm"
    )
    assert answer.code == 0 and not answer.stderr, answer.stderr
    note = json.loads((tmp_path / "out" / "augmentation.json").read_text())
    assert note["examples"]["added"] > 60
    assert note["settings"] == {"copies": 2, "replace": 0.4, "candidates": 15}
    assert note["vectors"] == {"file": "vectors.txt", "words": 2}
    assert note["backend"]["name"] == backend_name and note["backend"]["precision"] == "fp32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "masked-lm"], "--model: needed for --method masked-lm, the folder of a BertForMaskedLM"),
        (["--vectors", "v.txt"], "--vectors: only for --method masked-lm"),
        (["--precision", "bf16"], "--precision: only for --method masked-lm"),
        (["--method", "masked-lm", "--model", "m", "--pos-lexicon", "p"], "--pos-lexicon: only for --method words"),
        (
            ["--mask-probability", "0.7", "--replace-probability", "0.6"],
            "--mask-probability 0.7 and --replace-probability 0.6: together more than 1",
        ),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--task", "ss2"], "--text: needed, because 'ss2' is not a GLUE task; did you mean 'sst-2'?"),
        (["--task", "x", "--text", "sentence"], "--label: needed, because 'x' is not a GLUE task"),
        (["--text", "sentense"], "{data}/dev.tsv: no column 'sentense'; did you mean 'sentence'?"),
        (["--pos-lexicon", "nowhere.tsv"], "nowhere.tsv: no such file; the folder holds "),
        (["--method", "masked-lm", "--model", "nowhere"], "nowhere: no such model folder"),
        (
            ["--method", "masked-lm", "--model", "{model}", "--replace-probability", "0"],
            "--replace-probability 0: nothing would change with --method masked-lm",
        ),
        (["--method", "masked-lm", "--model", "{model}", "--vectors", "nowhere"], "nowhere: no such file"),
        (["--out", "{data}"], "--out {data}: is a folder that is not empty; name a new one"),
        (["--out", "{data}/dev.tsv"], "--out {data}/dev.tsv: is a file, expected a new folder"),
    ],
)
def test_what_is_wrong_is_one_line(options, message, tiny_task, masked_lm_folder, tmp_path):
    before = contents(tiny_task)

    def filled(text):
        return text.replace("{data}", str(tiny_task)).replace("{model}", str(masked_lm_folder))

    answer = augment(tiny_task, tmp_path / "out", *map(filled, options))
    assert answer.code == 2
    assert len(answer.messages) == 1 and answer.messages[0].startswith(filled(message)), answer.messages
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir()) and contents(tiny_task) == before


def test_a_model_without_the_head_is_refused(tiny_task, tiny_model, tmp_path):
    answer = augment(tiny_task, tmp_path / "out", "--model", tiny_model, method="masked-lm")
    assert answer.code == 2 and len(answer.messages) == 1
    assert "has no cls.predictions.transform.dense.weight" in answer.messages[0]
    assert not list(tmp_path.iterdir())

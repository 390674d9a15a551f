"""Model cards: read as the hub reads them, with nothing in a label that is markup, and never written over a person's text."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from ruamel.yaml import YAML

import crossdistil
from crossdistil.core.app.exporting import ExportOptions, export
from crossdistil.core.card_file import README, is_generated, place_card
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.checksums import noted_checksums
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.kinds.known_kinds import ONE_NUMBER, SEVERAL_LABELS
from crossdistil.core.model_card import card, escaped
from crossdistil.tests import tiny
from crossdistil.tests.test_export import BILSTM, random_model, trained
from crossdistil.tests.tiny_families import VARIANTS

ABOUT = {
    "task": {"name": "sst-2", "max_length": 16},
    "max_length": 16,
    "method": "kd",
    "recipe_digest": "ab" * 32,
    "dev": {"accuracy": np.float64(0.875), "matthews": 0.5},
    "seed": 7,
    "data": {"train": {"rows": 44000, "at_limit": 0.25, "left_out": ["train.tsv: 3 rows left out of 44,003"]}},
    "teachers": {"teacher": {"model": "runs/teacher", "parameters": 1234567, "metrics": {"accuracy": 0.9}}},
}
HOSTILE = ["a|b", "`rm`", "# x\n---\nlicense: mit", "<script>alert(1)</script>", "*bold* _it_ ~~no~~", "[a](http://b)"]
HOSTILE += ["back\\", "&lt;", "积极"]


def front_matter(text):
    _, yaml, rest = text.split("---\n", 2)
    return YAML(typ="safe").load(yaml), rest


def test_a_card_says_what_was_recorded_and_nothing_else(tiny_model):
    model = replace(load_model(tiny_model), about=ABOUT)
    text = card(model, model.parameter_count)
    front, rest = front_matter(text)
    assert front["metrics"] == ["accuracy", "matthews_correlation"] and front["tags"] == ["crossdistil", "distillation", "kd"]
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.875
    assert not {"license", "language", "base_model", "datasets"} & front.keys()
    for part in ("44,000 | 25.0%", "3 rows left out", "1,234,567 parameters, dev accuracy 0.9000", "seed 7", "cut to 16 tokens"):
        assert part in rest, part
    _, bare = front_matter(card(replace(model, about={}), 1))
    assert "Nothing is recorded" in bare and "None is recorded" in bare and "## Data" not in bare and "seed" not in bare
    assert is_generated(text.encode()) and not is_generated(text.replace("44,000", "45,000").encode())


@pytest.mark.only_backend("torch")  # the hub's library comes with transformers
def test_the_hub_reads_a_card(tiny_model, tmp_path):
    from huggingface_hub import ModelCard

    model = replace(load_model(tiny_model), about=ABOUT)
    (tmp_path / README).write_text(card(model, 1), encoding="utf-8")
    data = ModelCard.load(tmp_path / README).data
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("accuracy", 0.875), ("matthews_correlation", 0.5),
    ]  # fmt: skip
    assert data.library_name == "transformers" and data.license is None


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_are_no_markup(label, tiny_model):
    from markdown_it import MarkdownIt

    shown = MarkdownIt("gfm-like", {"linkify": False}).parse(f"* Labels: {escaped(label)}, other\n\n| {escaped(label)} | 1 |\n")
    inline = next(token for token in shown if token.type == "inline")
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children) == f"Labels: {label.replace(chr(10), chr(92) + 'n')}, other"
    model = replace(load_model(tiny_model), labels=(label, "other"), about={**ABOUT, "method": label, "task": {"name": label}})
    front, _ = front_matter(card(model, 1))
    assert "license" not in front and front["pipeline_tag"] == "text-classification"


def test_what_a_person_wrote_is_kept(tiny_model, tmp_path):
    model = load_model(tiny_model)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(), new.mkdir()
    assert place_card(new, card(model, 1), old) is None and (new / README).read_text() == card(model, 1)
    assert place_card(old, card(model, 2), new) is None and "parameters" in (old / README).read_text()
    for text in ("# mine", (old / README).read_text().replace("# license", "license: mit #"), ""):
        (old / README).write_text(text)
        assert "was written or edited by hand" in place_card(new, card(model, 3), old)
        assert (new / README).read_text() == text


def test_an_export_has_a_card(tiny_model, tmp_path):
    lines = []
    report = export(tiny_model, tmp_path / "out", ExportOptions(), lines.append)
    front, rest = front_matter((tmp_path / "out" / README).read_text())
    assert front["library_name"] == "onnx" and "parity with float64" in rest and f"{report['bytes'] / 1e6:,.1f} MB" in rest
    assert README not in noted_checksums(tmp_path / "out") and not any("by hand" in line for line in lines)
    (tmp_path / "out" / README).write_text("# mine")
    export(tiny_model, tmp_path / "out", ExportOptions(overwrite=True), lines.append)
    assert (tmp_path / "out" / README).read_text() == "# mine" and "by hand" in lines[-1]


def test_an_exports_score_is_its_own_or_none(tiny_model, tiny_task, tmp_path):
    """What the model had before is never told as that of other numbers."""
    model = load_model(trained(tiny_model, tmp_path / "task"))
    about = {**model.about, "dev": {"accuracy": 0.987654}}
    save_model(replace(model, about=about), tmp_path / "model", load_tokenizer(tiny_model))
    found = {}
    for name, options in {
        "own": ExportOptions("int8", data=tiny_task), "none": ExportOptions("fp16"), "same": ExportOptions(),
    }.items():  # fmt: skip
        report = export(tmp_path / "model", tmp_path / name, options, print)
        front, rest = front_matter((tmp_path / name / README).read_text())
        results = front.get("model-index", [{"results": [{"metrics": []}]}])[0]["results"][0]["metrics"]
        found[name] = ([result["value"] for result in results], rest, report)
    values, rest, report = found["own"]
    assert values == [report["dev"]["accuracy"]] != [0.987654] and "of this export (int8)" in rest
    assert "The model that was exported had on dev, when it was trained: accuracy 0.9877" in rest
    values, rest, report = found["none"]
    assert not values and "dev" not in report and "* It was not scored." in rest
    assert "of the model that was exported: this file (fp16) was not scored itself" in rest and "0.9877" in rest
    assert found["same"][0] == [0.987654] and "this file (fp32) was not scored itself" in found["same"][1]


def python_of(text):
    """The Python of a card."""
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


LONG = "a fine film , \"and\" so on " * 20
EXPORTS = {
    "bert": (VARIANTS["bert"], {}, {}),
    "without token types": (VARIANTS["distilbert"], {}, {}),
    "of pairs": (VARIANTS["bert"], {"name": "mrpc"}, {}),
    "of several labels": (VARIANTS["bert"], {}, {"kind": SEVERAL_LABELS}),
    "regression": (VARIANTS["bert"], {}, {"labels": None, "outputs": 1, "kind": ONE_NUMBER}),
    "bilstm": (BILSTM, {}, {}),
    "bilstm of pairs": (BILSTM.model_copy(update={"pairs": True}), {"name": "mrpc"}, {}),
}


def folder_of(tiny_model, tmp_path, config, task, changes):
    """A folder with random weights, of texts that are cut to 16 tokens."""
    words = load_tokenizer(tiny_model) if hasattr(config, "num_attention_heads") else build_words([LONG], 20)
    config = config.model_copy(update={"vocab_size": words.vocab_size})
    model = random_model(config)
    if changes.get("outputs"):
        parameters = {name: array[:1] if name.startswith("classifier.") else array for name, array in model.parameters.items()}
        model = replace(model, parameters=parameters)
    about = {"max_length": 16, "task": {"name": "sst-2", "max_length": 16} | task}
    save_model(replace(model, about=about, **changes), tmp_path / "model", words)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "to"),
    [
        *((name, "onnx") for name in EXPORTS),
        pytest.param("bert", "pt2", marks=pytest.mark.only_backend("torch")),
        ("without token types", "openvino"),
    ],
)
def test_the_python_of_an_export_answers_as_predict_does(name, to, tiny_model, tmp_path, said, monkeypatch, capsys):
    export(folder_of(tiny_model, tmp_path, *EXPORTS[name]), tmp_path / "out", ExportOptions(to=to), print)
    code = python_of((tmp_path / "out" / README).read_text())
    imported = {
        name for part in ast.walk(ast.parse(code)) for name in (
            [alias.name for alias in part.names] if isinstance(part, ast.Import)
            else [part.module] if isinstance(part, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= {"json", "numpy", "tokenizers", {"onnx": "onnxruntime", "pt2": "torch"}.get(to, to)}
    monkeypatch.chdir(tmp_path / "out")
    is_pair = "another" in code
    assert is_pair == ("pairs" in name)
    for text in ("a text", LONG):
        capsys.readouterr()
        exec(compile(code.replace('"a text"', repr(text)), "card", "exec"), {})
        found = dict(line.rsplit(" ", 1) if " " in line else ("score", line) for line in capsys.readouterr().out.splitlines())
        status, output, _ = said("predict", ".", text, *(["--pair", "another"] if is_pair else []))
        expected = json.loads(output)
        expected = expected["probabilities"] if "regression" != name else {"score": expected["score"]}
        assert status == 0 and list(found) == list(expected)
        np.testing.assert_allclose([*map(float, found.values())], [*expected.values()], atol=1e-5)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", ["bert", "distilbert", "albert", "electra", "of pairs"])
def test_the_python_for_transformers_answers_as_the_model_does(name, tiny_model, tmp_path, said, capsys):
    case = EXPORTS[name] if name in EXPORTS else (VARIANTS[name], {}, {})
    folder = folder_of(tiny_model, tmp_path, *case)
    code = python_of(card(load_model(folder), 1)).replace("FOLDER", str(folder))
    assert "truncation=True, max_length=16" in code and ('"another"' in code) == (name == "of pairs")
    places = {}
    exec(compile(code.replace('"a text"', repr(LONG)), "card", "exec"), places)
    logits = places["model"](**places["tokens"]).logits[0].detach().double().numpy()
    capsys.readouterr()
    _, output, _ = said("predict", folder, LONG, *(["--pair", "another"] if name == "of pairs" else []), "--backend", "torch")
    expected = list(json.loads(output)["probabilities"].values())
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), expected, atol=1e-5)


def test_a_bilstm_has_one_too():
    front, rest = front_matter(card(random_model(BILSTM), 5))
    assert front["library_name"] == "crossdistil" and "transformers" not in rest and "--with-code" not in rest


@pytest.mark.only_backend("torch")
def test_a_run_leaves_a_card_that_may_be_edited(tiny_model, tiny_task, tmp_path, said):
    (tmp_path / "recipe.yaml").write_text(json.dumps(tiny.kd_recipe(tiny_task, tiny_model, steps=2)))
    crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "run", backend="torch", quiet=True)
    readme = tmp_path / "run" / "student" / README
    _, rest = front_matter(readme.read_text())
    assert is_generated(readme.read_bytes()) and "| train | 44 |" in rest and "seed 7" in rest and str(tmp_path) not in rest
    readme.write_text("# mine")
    code, _, errors = said("run", "--resume", "--out", tmp_path / "run")
    assert code == 2 and "there is nothing to resume" in errors
    (tmp_path / "run" / "result.json").unlink()
    assert said("run", "--resume", "--out", tmp_path / "run")[0] == 0 and readme.read_text() == "# mine"


def test_a_changed_card_is_no_damage(tiny_model, tmp_path, caplog):
    model, tokenizer = load_model(tiny_model), load_tokenizer(tiny_model)
    save_model(model, tmp_path / "m", tokenizer, checksums=True, finish=lambda folder: place_card(folder, "card", folder))
    (tmp_path / "m" / README).write_text("# mine")
    load_model(tmp_path / "m")
    assert not caplog.records

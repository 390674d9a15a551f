"""Run folders made by hand: the verdict names what differs and where; the report is one file and needs no network."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from crossdistil.core.app.compare import compare
from crossdistil.core.app.crosscheck_files import display_name
from crossdistil.core.app.report import percent, write_report
from crossdistil.core.app.report_charts import parameter_group
from crossdistil.core.app.tables import print_crosscheck
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.tolerances import TOLERANCES, tolerance

BACKENDS = ["torch", "oneflow", "mindspore"]
LAYER_PARAMETERS = (
    "attention.self.query.weight",
    "attention.self.key.bias",
    "attention.output.dense.weight",
    "attention.output.LayerNorm.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
    "output.LayerNorm.bias",
)
RECIPE = """method: kd
description: Response distillation from a fine-tuned BERT
task: {name: sst-2, data: data/SST-2, max_length: 128}
teacher: {model: runs/teacher/student}
student:
  architecture: {num_hidden_layers: LAYERS}
  init: {from: teacher}
stages:
- name: distil
  objective:
  - {loss: kd_ce, weight: 0.5, temperature: 4}
  - {loss: hard_label, weight: 0.5}
  train: {steps: STEPS, batch_size: 32, learning_rate: 5e-5, schedule: linear, optimizer: adamw, keep: last}
seed: 42
"""


def make_runs(folder, backends=BACKENDS, steps=12, layers=2, examples=200, noise=1e-7, flips=0, growth=1.1):
    """Run folders of one training, with rounding noise of relative size `noise` for all backends but the first."""
    shared = np.random.default_rng(0)
    number = np.arange(1, steps + 1)
    loss = 0.35 + 1.1 * np.exp(-number / (steps / 3.5)) + shared.normal(0, 0.035, steps)
    mask = (np.arange(16) < shared.integers(5, 17, (8, 1))).astype(np.float32)
    probe = {"logits": shared.normal(size=(8, 2)), "mask": mask, "values": shared.random(3)}
    probe |= {f"hidden/{layer}": shared.normal(size=(8, 16, 12)) for layer in range(layers + 1)}
    names = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.bias", "bert.pooler.dense.weight"]
    names += [f"bert.encoder.layer.{layer}.{name}" for layer in range(layers) for name in LAYER_PARAMETERS]
    probe |= {f"gradient/{name}": shared.normal(0, 0.1, (30, 12)) for name in [*names, "classifier.weight"]}
    predictions = shared.normal(0, 2, (examples, 2))
    for index, backend in enumerate(backends):
        own = np.random.default_rng(index + 1)
        size = noise * (0 if index == 0 else 0.5 + index)

        def noisy(array, depth=1.0, own=own, size=size):
            return (array * (1 + own.normal(0, 1, array.shape) * size * depth)).astype(np.float32)

        run = folder / backend
        run.mkdir(parents=True)
        save_file(
            {name: array if name == "mask" else noisy(array, 1 + _depth(name)) for name, array in probe.items()},
            run / "probe.safetensors",
        )
        flipped = predictions.copy()
        flipped[index * 5 : index * 5 + flips * index] *= -1
        save_file({"logits": noisy(flipped)}, run / "predictions.safetensors")
        drift = np.cumsum(own.normal(0, size, steps) * growth ** (number / 2))
        lines = [
            {
                "step": int(step),
                "epoch": step / 50,
                "loss": float(value),
                "terms": {"kd_ce": float(value)},
                "learning_rate": 5e-5,
                "tokens_per_second": 9000.0,
            }
            for step, value in zip(number, loss * (1 + drift), strict=True)
        ]
        lines.append({"step": steps, "epoch": steps / 50, "evaluation": {"dev": {"accuracy": 0.9}}})
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "recipe.yaml").write_text(RECIPE.replace("STEPS", str(steps)).replace("LAYERS", str(layers)))
        version = {"torch": "2.13.0", "oneflow": "0.9.0", "mindspore": "2.10.0"}.get(backend, "1.0")
        (run / "result.json").write_text(
            json.dumps(
                {
                    "backend": backend,
                    "device": "cpu",
                    "precision": "fp32",
                    "seed": 42,
                    "steps": steps,
                    "epochs": steps / 50,
                    "versions": {
                        "python": "3.10.16" if backend == "oneflow" else "3.11.11",
                        "numpy": "1.26.4",
                        backend: version,
                    },
                    "wall_seconds": [48.31, 131.7, 66.04][index % 3],
                    "peak_memory_mb": [1290.4, 1711.9, 2244.0][index % 3],
                    "tokens_per_second": [9120.4, 3310.7, 8740.2][index % 3],
                    "student": {
                        "metrics": {"accuracy": 0.8979 + 0.0011 * flips * index, "f1": 0.9001},
                        "parameters": 45_690_626,
                    },
                    "teacher": {"metrics": {"accuracy": 0.9243, "f1": 0.9251}, "parameters": 109_483_778},
                }
            )
        )
    return folder


def _depth(name):
    return int(re.search(r"\d+", name)[0]) if re.search(r"\d+", name) else 0


def edit_step(folder, step, change):
    file = folder / "metrics.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    edited = [change(entry) if entry["step"] == step and "loss" in entry else entry for entry in entries]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in edited if entry))


def edit_arrays(file, change):
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)


def reasons(result, a, b):
    return next(pair["reasons"] for pair in result["pairs"] if (pair["a"], pair["b"]) == (a, b))


def report(folder, backends=BACKENDS):
    (folder / "crosscheck.json").write_text(json.dumps(compare(folder, backends), allow_nan=False))
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    return make_runs(tmp_path / "out")


def test_equal_runs_agree(folder):
    result = compare(folder, BACKENDS)
    assert result["verdict"] == "agree"
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [
        ("torch", "oneflow"),
        ("torch", "mindspore"),
        ("oneflow", "mindspore"),
    ]
    assert list(result["backends"]) == BACKENDS and result["recipe"]["method"] == "kd"
    for pair in result["pairs"]:
        assert pair["agree"] and pair["reasons"] == [] and pair["steps_compared"] == 12
        assert 0 < pair["loss_max_relative_difference"] < 5e-5
        assert pair["prediction_agreement"] == 1.0 and pair["prediction_disagreements"] == 0
        assert pair["metric_differences"] == {"accuracy": 0, "f1": 0}
    json.dumps(result, allow_nan=False)


def test_figures_are_those_of_the_definition(folder):
    probes = [load_file(folder / name / "probe.safetensors") for name in ("torch", "oneflow")]
    pair = compare(folder, ["torch", "oneflow"])["pairs"][0]
    a, b = ({name: array.astype(np.float64) for name, array in probe.items()} for probe in probes)
    assert pair["initial_logits_max_difference"] == np.abs(a["logits"] - b["logits"]).max()
    real = a["mask"] > 0
    expected = []
    for name in ("hidden/0", "hidden/1", "hidden/2"):
        squares = [(values[real] ** 2).sum() for values in (a[name] - b[name], a[name], b[name])]
        expected.append(np.sqrt(squares[0] / max(squares[1:])))
    assert pair["hidden_max_relative_difference"] == pytest.approx(max(expected), rel=1e-9)


def test_one_perturbed_loss_is_found(folder):
    edit_step(folder / "oneflow", 7, lambda entry: {**entry, "loss": entry["loss"] * 1.001})
    result = compare(folder, BACKENDS)
    assert result["verdict"] == "differ"
    pair = result["pairs"][0]
    assert not pair["agree"] and pair["loss_max_relative_difference_step"] == 7
    assert pair["loss_max_relative_difference"] == pytest.approx(1e-3, rel=0.01)
    [reason] = pair["reasons"]
    assert "torch and oneflow" in reason and "at step 7" in reason and "5.0e-05" in reason
    assert result["pairs"][1]["agree"]
    page = report(folder)
    assert "OneFlow does not train the same model as PyTorch and MindSpore." in page and reason in page


def test_flipped_predictions(folder):
    def change(arrays):
        arrays["logits"][:5] *= -1

    edit_arrays(folder / "mindspore" / "predictions.safetensors", change)
    result = compare(folder, BACKENDS)
    assert result["verdict"] == "differ" and result["pairs"][0]["agree"]
    pair = result["pairs"][1]
    assert pair["prediction_agreement"] == pytest.approx(0.975) and pair["prediction_disagreements"] == 5
    assert "prediction_agreement is 0.9750" in pair["reasons"][0]
    assert "1, 2, 3, 4, 5<" in report(folder)


def test_wrong_layer_is_named(folder):
    def change(arrays):
        arrays["hidden/2"] *= np.float32(1.001)
        arrays["gradient/bert.encoder.layer.1.output.dense.weight"] *= np.float32(1.01)

    edit_arrays(folder / "oneflow" / "probe.safetensors", change)
    found = reasons(compare(folder, BACKENDS), "torch", "oneflow")
    assert any("in state 2" in reason for reason in found)
    assert any("bert.encoder.layer.1.output.dense.weight" in reason for reason in found)


def test_padding_does_not_count(folder):
    def change(arrays):
        arrays["hidden/1"][arrays["mask"] == 0] = 9.0

    edit_arrays(folder / "torch" / "probe.safetensors", change)
    assert compare(folder, BACKENDS)["verdict"] == "agree"


def test_noise_in_a_gradient_that_is_zero_in_theory_does_not_count(folder):
    name = "gradient/bert.encoder.layer.0.attention.self.key.bias"
    for index, backend in enumerate(BACKENDS):
        noise = np.random.default_rng(index).normal(0, 1e-10, (30, 12)).astype(np.float32)
        edit_arrays(folder / backend / "probe.safetensors", lambda arrays, noise=noise: arrays.update({name: noise}))
    assert compare(folder, BACKENDS)["verdict"] == "agree"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_differs(folder, value):
    edit_step(folder / "mindspore", 9, lambda entry: {**entry, "loss": value})
    result = compare(folder, BACKENDS)
    assert result["verdict"] == "differ" and result["pairs"][0]["agree"]
    assert any("mindspore" in reason and "step 9" in reason for reason in reasons(result, "torch", "mindspore"))
    json.dumps(result, allow_nan=False)
    assert "NaN" not in report(folder)


def test_nan_everywhere_still_makes_a_report(folder):
    for step in range(1, 13):
        edit_step(folder / "torch", step, lambda entry: {**entry, "loss": math.nan})
    for file, name in (("probe", "logits"), ("probe", "hidden/1"), ("predictions", "logits")):
        edit_arrays(folder / "torch" / f"{file}.safetensors", lambda arrays, name=name: arrays[name].fill(np.nan))
    result = compare(folder, BACKENDS)
    pair = result["pairs"][0]
    assert pair["loss_max_relative_difference"] is None and pair["prediction_agreement"] is None
    assert pair["hidden_max_relative_difference"] is None and pair["initial_logits_max_difference"] is None
    assert not pair["agree"] and result["pairs"][2]["agree"]
    assert report(folder).count("<svg id=") == 4
    print_crosscheck(result, Console(width=140))


def test_missing_step_and_unequal_counts(folder):
    edit_step(folder / "oneflow", 12, lambda entry: None)
    found = reasons(compare(folder, BACKENDS), "torch", "oneflow")
    assert found == ["torch logged 12 steps and oneflow 11: step 12 is only in torch"]


def test_other_recipe_batch_shape_or_conditions(folder):
    (folder / "oneflow" / "recipe.yaml").write_text("method: pkd\n")
    edit_arrays(folder / "mindspore" / "probe.safetensors", lambda arrays: arrays["mask"].fill(1))
    result = json.loads((folder / "mindspore" / "result.json").read_text())
    (folder / "mindspore" / "result.json").write_text(json.dumps({**result, "precision": "bf16"}))
    result = compare(folder, BACKENDS)
    assert any("same recipe" in reason for reason in reasons(result, "torch", "oneflow"))
    found = " ".join(reasons(result, "torch", "mindspore"))
    assert "same first batch" in found and "torch has fp32, mindspore has bf16" in found


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "probe.safetensors", "predictions.safetensors"])
def test_missing_or_broken_file_is_named(folder, name):
    file = folder / "oneflow" / name
    file.write_text('{"step": 1,')
    with pytest.raises(CrossdistilError, match=f"oneflow.{re.escape(name)}"):
        compare(folder, BACKENDS)
    file.unlink()
    with pytest.raises(CrossdistilError, match=f"oneflow.{re.escape(name)}: no such file"):
        compare(folder, BACKENDS)


@pytest.mark.parametrize("backends", [[], ["torch"], ["torch", "torch"], ["torch", "paddle"]])
def test_two_different_backends_are_needed(folder, backends):
    with pytest.raises(CrossdistilError, match="paddle: no such folder|at least two different"):
        compare(folder, backends)


def test_regression_scores_are_compared_by_distance(folder):
    for index, backend in enumerate(BACKENDS):
        scores = np.linspace(0, 5, 100, dtype=np.float32)[:, None] + np.float32(0.02 * (index == 2))
        save_file({"logits": scores}, folder / backend / "predictions.safetensors")
    result = compare(folder, BACKENDS)
    assert [pair["prediction_agreement"] for pair in result["pairs"]] == [1.0, 0.0, 0.0]


def test_labels_of_an_example_are_compared_one_by_one(folder):
    """Where it may have several, the largest logit says nothing."""
    for index, backend in enumerate(BACKENDS):
        recipe = folder / backend / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("{name: sst-2,", "{name: topics, kind: multi_label,"))
        logits = np.tile(np.array([[1.0, 2.0, -1.0]], np.float32), (100, 1))
        logits[:, :2] += np.float32(2.0 * (index == 1)) * np.array([1.0, -0.5], np.float32)  # another largest, the same signs
        logits[:25, 2] += np.float32(1.5 * (index == 2))
        save_file({"logits": logits}, folder / backend / "predictions.safetensors")
    result = compare(folder, BACKENDS)
    assert [pair["prediction_agreement"] for pair in result["pairs"]] == [1.0, 0.75, 0.75]


def test_report_is_one_offline_file(folder):
    page = report(folder)
    assert "http://" not in page and "https://" not in page
    assert all(link.startswith("#") for link in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page))
    assert "@import" not in page and "url(" not in page and "<link" not in page and "<img" not in page
    for backend in BACKENDS:
        assert display_name(backend) in page
    for chart in ("loss", "difference", "hidden", "gradient"):
        assert re.search(rf'<svg id="{chart}"[^>]*role="img"[^>]*aria-labelledby="{chart}-text"', page)
    for text in (
        "train the same model.",
        "kd_ce",
        "92.4%",
        "45 690 626",
        "Layer 1 · feed-forward",
        "color-scheme: dark",
    ):
        assert text in page
    assert all('scope="' in cell for cell in re.findall(r"<th\b[^>]*>", page))
    for series in re.findall(r'<script type="application/json" class="readout">(.*?)</script>', page):
        assert len(json.loads(series)["x"]) == 12


def test_report_escapes_what_it_shows(folder):
    for backend in BACKENDS:
        (folder / backend / "recipe.yaml").write_text("method: <script>alert(1)</script>\n")
    assert "<script>alert" not in report(folder)


def test_long_runs_are_thinned_without_losing_the_peak(tmp_path):
    folder = make_runs(tmp_path / "out", ["torch", "oneflow"], steps=4000, noise=1e-9, growth=1.0)
    edit_step(folder / "oneflow", 2717, lambda entry: {**entry, "loss": entry["loss"] * 1.5})
    page = report(folder, ["torch", "oneflow"])
    assert "step 2717" in page and len(page) < 600_000


def test_terminal_tables(folder):
    console = Console(width=140, record=True)
    edit_step(folder / "oneflow", 7, lambda entry: {**entry, "loss": entry["loss"] * 1.001})
    print_crosscheck(compare(folder, BACKENDS), console)
    text = console.export_text()
    assert "PyTorch" in text and "1.0e-03 ✗" in text and "89.8%" in text and "✗ differ" in text


def test_tolerances_have_reasons_and_refuse_nan():
    for row in TOLERANCES:
        assert row.reason.endswith(".") and row.limit > 0 and row.holds(row.limit)
        assert not row.holds(math.nan) and not row.holds(None)
    assert tolerance("loss_max_relative_difference").limit == 5e-5


@pytest.mark.parametrize(
    "name, group",
    [
        ("bert.embeddings.LayerNorm.weight", "Embeddings"),
        ("bert.encoder.layer.11.attention.output.LayerNorm.bias", "Layer 11 · norms"),
        ("bert.encoder.layer.3.attention.output.dense.bias", "Layer 3 · attention"),
        ("bert.encoder.layer.3.output.dense.bias", "Layer 3 · feed-forward"),
        ("bert.pooler.dense.bias", "Pooler"),
        ("classifier.bias", "Classifier"),
        ("lstm.weight_ih_l0", "lstm"),
    ],
)
def test_parameter_groups(name, group):
    assert parameter_group(name)[1] == group


@pytest.mark.parametrize(
    "value, text", [(1.0, "100.0%"), (0.99999, "99.999%"), (0.9243, "92.4%"), (0.0, "0.0%"), (None, "–")]
)
def test_percentages_never_round_to_all(value, text):
    assert percent(value) == text

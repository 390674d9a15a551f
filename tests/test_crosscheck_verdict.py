"""Run folders made by hand: the verdict of a cross-check names what differs and where."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.app.compare import compare
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.tolerances import TOLERANCES, tolerance
from crossdistil.tests.crosscheck_runs import BACKENDS, edit_arrays, edit_step, make_runs, report


def reasons(result, a, b):
    return next(pair["reasons"] for pair in result["pairs"] if (pair["a"], pair["b"]) == (a, b))


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


def test_noise_in_what_is_added_to_all_scores_does_not_count_where_an_order_is_learned(folder):
    for index, backend in enumerate(BACKENDS):
        noise = np.array([1e-2 * (1 + index)], np.float32)
        edit_arrays(folder / backend / "probe.safetensors", lambda arrays, noise=noise: arrays.update({"gradient/x.bias": noise}))
    assert compare(folder, BACKENDS)["verdict"] == "differ"
    for backend in BACKENDS:
        path = folder / backend / "recipe.yaml"
        path.write_text(re.sub(r"loss: (kd_ce|hard_label)", "loss: listnet", path.read_text()))
    assert compare(folder, BACKENDS)["verdict"] == "agree"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_differs(folder, value):
    edit_step(folder / "mindspore", 9, lambda entry: {**entry, "loss": value})
    result = compare(folder, BACKENDS)
    assert result["verdict"] == "differ" and result["pairs"][0]["agree"]
    assert any("mindspore" in reason and "step 9" in reason for reason in reasons(result, "torch", "mindspore"))
    json.dumps(result, allow_nan=False)
    assert "NaN" not in report(folder)


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


def test_tolerances_have_reasons_and_refuse_nan():
    for row in TOLERANCES:
        assert row.reason.endswith(".") and row.limit > 0 and row.holds(row.limit)
        assert not row.holds(math.nan) and not row.holds(None)
    assert tolerance("loss_max_relative_difference").limit == 5e-5

"""A cross-check with several numbers of processes: what is compared with what, within which limits, and what is said of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from crossdistil.core.app import crosscheck as module
from crossdistil.core.app.compare import compare
from crossdistil.core.app.crosscheck import CrosscheckOptions, comparable, crosscheck
from crossdistil.core.app.crosscheck_files import display_name, parts_of_name, run_name
from crossdistil.core.app.crosscheck_tables import print_crosscheck
from crossdistil.core.app.devices import numbers_of
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.tolerances import PROCESS_TOLERANCES
from crossdistil.tests import tiny
from crossdistil.tests.crosscheck_runs import BACKENDS, edit_arrays, edit_step, make_runs, report

NAMES = [*BACKENDS, "torch-2", "oneflow-2", "mindspore-2"]
START = {"recipe": "a" * 64, "texts": "b" * 64, "weights/student": "c" * 64}
WEIGHTS = "student/model.safetensors"
KEY_BIAS = "bert.encoder.layer.0.attention.self.key.bias"


def edit_result(run, **changes):
    """Changes entries of a result.json."""
    path = run / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def folder(tmp_path):
    """Three backends with one process, and with two: the same but for rounding."""
    folder, generator = make_runs(tmp_path / "out"), np.random.default_rng(0)
    weights = {name: generator.normal(size=(6, 4)).astype(np.float32) for name in ("classifier.weight", KEY_BIAS)}
    for name in BACKENDS:
        run, several = folder / name, folder / f"{name}-2"
        (run / "student").mkdir()
        save_file(weights, run / WEIGHTS)
        edit_result(run, processes=1, communication_share=0.0, start=START)
        shutil.copytree(run, several)
        edit_result(several, processes=2, communication_share=0.125)
        edit_step(several, 3, lambda entry: {**entry, "loss": entry["loss"] * (1 + 1e-7)})
        edit_arrays(several / WEIGHTS, lambda arrays: arrays["classifier.weight"].__imul__(np.float32(1 + 1e-6)))
    return folder


def pair_of(result, a, b):
    """The entry of a pair."""
    return next(pair for pair in result["pairs"] if (pair["a"], pair["b"]) == (a, b))


def test_names():
    assert [run_name("torch", count) for count in (1, 2, 16)] == ["torch", "torch-2", "torch-16"]
    assert [parts_of_name(name) for name in ("torch", "torch-2", "torch-16")] == [("torch", 1), ("torch", 2), ("torch", 16)]
    assert parts_of_name("torch-0") == ("torch-0", 1) and display_name("oneflow-4") == "OneFlow × 4"
    assert numbers_of("2, 1,2") == (1, 2)
    for text in ("", "1,", "all", "0", "1,x", "-1", "1.5", "²"):
        with pytest.raises(CrossdistilError, match="expected numbers from 1"):
            numbers_of(text)


def test_all_agree(folder):
    result = compare(folder, NAMES)
    assert result["verdict"] == "agree" and result["start"] == START
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [
        ("torch", "oneflow"),
        ("torch", "mindspore"),
        ("oneflow", "mindspore"),
        ("torch-2", "oneflow-2"),
        ("torch-2", "mindspore-2"),
        ("oneflow-2", "mindspore-2"),
        ("torch", "torch-2"),
        ("oneflow", "oneflow-2"),
        ("mindspore", "mindspore-2"),
    ]
    pair = pair_of(result, "torch", "torch-2")
    assert pair["loss_max_relative_difference"] == pytest.approx(1e-7, rel=1e-3)
    assert pair["weights_max_relative_difference"] == pytest.approx(1e-6, rel=0.1)
    assert pair["weights_max_relative_difference_name"] == "classifier.weight"
    assert "gradient_max_relative_difference" not in pair
    assert set(result["process_tolerances"]) == {row.name for row in PROCESS_TOLERANCES}
    json.dumps(result, allow_nan=False)

    page = report(folder, NAMES)
    assert page.count("<svg id=") == 5 and '<svg id="processes"' in page
    for text in (
        "PyTorch, OneFlow and MindSpore train the same model, with 1 and 2 processes.",
        "all processes of all runs started",
        "OneFlow – OneFlow × 2",
        "One backend, with 2 processes as with 1",
        "Backend against backend, 2 processes each",
        "--devices 1,2",
        "<td>2</td><td>12.5%</td>",
    ):
        assert text in page, text
    console = Console(width=140, record=True)
    print_crosscheck(result, console)
    text = console.export_text()
    assert "Pairs, 2 processes each" in text and "The same with 2 processes" in text and "✓ agree" in text


def test_limits_of_one_backend_are_tighter(folder):
    """A loss that would pass between backends does not between two runs of one."""
    edit_step(folder / "oneflow-2", 7, lambda entry: {**entry, "loss": entry["loss"] * (1 + 1e-5)})
    edit_arrays(folder / "mindspore-2" / WEIGHTS, lambda arrays: arrays["classifier.weight"].__imul__(np.float32(1.0001)))
    result = compare(folder, NAMES)
    assert {(pair["a"], pair["b"]) for pair in result["pairs"] if not pair["agree"]} == {
        ("oneflow", "oneflow-2"),
        ("mindspore", "mindspore-2"),
    }
    [loss] = pair_of(result, "oneflow", "oneflow-2")["reasons"]
    [weights] = pair_of(result, "mindspore", "mindspore-2")["reasons"]
    assert "at step 7, expected at most 1.0e-06" in loss
    assert "weights_max_relative_difference is 1.0e-04 for classifier.weight, expected at most 1.0e-05" in weights
    assert loss in report(folder, NAMES)


def test_idle_parameters_do_not_count_but_all_must_be_there(folder):
    edit_arrays(folder / "torch-2" / WEIGHTS, lambda arrays: arrays[KEY_BIAS].fill(9.0))
    assert pair_of(compare(folder, NAMES), "torch", "torch-2")["agree"]
    edit_arrays(folder / "torch-2" / WEIGHTS, lambda arrays: arrays.pop("classifier.weight"))
    assert pair_of(compare(folder, NAMES), "torch", "torch-2")["reasons"][0] == "the weight classifier.weight is only in torch"


def test_other_starts_and_numbers_are_told(folder):
    edit_result(folder / "torch-2", processes=1)
    edit_result(folder / "oneflow-2", start={**START, "weights/student": "d" * 64, "texts": "e" * 64})
    result = compare(folder, NAMES)
    assert result["start"] is None
    assert pair_of(result, "torch", "torch-2")["reasons"] == ["torch-2 ran with 1 process, expected 2"]
    assert pair_of(result, "oneflow", "oneflow-2")["reasons"] == [
        "oneflow and oneflow-2 did not start alike: the training texts differ",
        "oneflow and oneflow-2 did not start alike: the first weights of student differ",
    ]
    assert "started from the same" not in report(folder, NAMES).replace("\n", " ")


def test_one_backend_alone(folder):
    names = ["torch", "torch-2"]
    page = report(folder, names)
    assert page.count("<svg id=") == 2 and "PyTorch trains the same model, with 1 and 2 processes." in page
    edit_step(folder / "torch-2", 7, lambda entry: {**entry, "loss": entry["loss"] * 1.1})
    assert "PyTorch × 2 does not train the same model as PyTorch." in report(folder, names)
    files = folder / "torch-2" / WEIGHTS
    files.unlink()
    with pytest.raises(CrossdistilError, match="model.safetensors: no such file"):
        compare(folder, names)


def test_each_backend_runs_with_each_number(tmp_path, monkeypatch):
    """Which runs are started, and with --resume only those that are missing."""
    tiny.write_model(tmp_path / "teacher")
    source = tiny.kd_recipe(tiny.write_task(tmp_path / "task"), tmp_path / "teacher")
    recipe = comparable(parse_recipe(source, "recipe"), 3)
    started = []

    def run(recipe, source, backend, folder, arguments, quiet):
        started.append((backend, folder.name, [each for each in arguments if each != "--probe"]))
        if len(started) == 3:
            raise CrossdistilError("interrupted")
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"recipe_digest": recipe.digest()}))

    compared = []
    monkeypatch.setattr(module, "run_worker", run)
    monkeypatch.setattr(module, "interpreters", lambda names: None)
    monkeypatch.setattr(module, "compare", lambda folder, names: compared.append(names) or {})
    monkeypatch.setattr(module, "write_report", lambda folder, registered: None)
    options = CrosscheckOptions(("torch", "oneflow"), tmp_path / "out", processes=(1, 2))
    with pytest.raises(CrossdistilError, match="interrupted"):
        crosscheck(recipe, options, Console(quiet=True))
    crosscheck(
        recipe, CrosscheckOptions(("torch", "oneflow"), tmp_path / "out", resume=True, processes=(1, 2)), Console(quiet=True)
    )
    two = ["--devices", "2"]
    assert started[2:] == [("torch", "torch-2", two), ("torch", "torch-2", two), ("oneflow", "oneflow-2", two)]
    assert started[:2] == [("torch", "torch", []), ("oneflow", "oneflow", [])]
    assert compared == [["torch", "oneflow", "torch-2", "oneflow-2"]]
    with pytest.raises(CrossdistilError, match="several numbers of processes"):
        crosscheck(recipe, CrosscheckOptions(("torch",), tmp_path / "new"), Console(quiet=True))
    (tmp_path / "out" / "notes-2").mkdir()
    with pytest.raises(CrossdistilError, match="holds notes-2, which is of no cross-check"):
        crosscheck(recipe, CrosscheckOptions(("torch", "oneflow"), tmp_path / "out", resume=True), Console(quiet=True))

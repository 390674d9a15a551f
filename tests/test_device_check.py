"""`make device-check`: what it finds on a CPU, and that a part which fails, crashes or hangs is told while the others go on.
`benchmarks/` are no package: what is in it is imported as its scripts import each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import crossdistil
from crossdistil.tests import op_cases

FOLDER = Path(crossdistil.__file__).resolve().parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import device_check

    return device_check


@pytest.fixture
def here(script):
    """`here(part, ...)`: a part in this process."""

    def run(part, device, folder, small, seconds):
        yield from script.work(part, script.settings_of(part, device, folder, small))

    return run



def test_every_device_has_its_parts(script):
    on_cuda = script.parts_of("cuda:1", False)
    assert [part.title for part in on_cuda[:4]] == ["checks fp32", "checks bf16", "checks fp16", "reference fp32"]
    for name in ("checks", "trainings", "speed"):
        assert {part.precision for part in on_cuda if part.name == name} == {"fp32", "bf16", "fp16"}
    assert {part.model for part in on_cuda if part.name == "compiled speed"} == {"MiniLM", "BERT-base"}
    on_cpu = script.parts_of("cpu", False)
    assert "fp16" not in {part.precision for part in on_cpu} and "compiled step" not in {part.name for part in on_cpu}
    assert {part.name for part in script.parts_of("cpu", True)} == {"checks", "reference", "trainings", "speed"}


@pytest.mark.only_backend("torch")
def test_a_cpu_is_right(script, here, monkeypatch, tmp_path, capsys):
    kept = {("checks", "fp32"), ("reference", "fp32"), ("trainings", "bf16"), ("speed", "fp32")}
    parts = [part for part in script.parts_of("cpu", True) if (part.name, part.precision) in kept]
    monkeypatch.setattr(script, "parts_of", lambda device, small: parts)
    result = script.check("cpu", 8, True, here)
    assert result["faults"] == [] and result["not_run"] == []
    names = {finding["name"] for finding in result["findings"]}
    assert set(op_cases.CASES) <= names
    assert {"lstm", "word_divergence", "kd_ce, classification", "hidden_mse, classification: gradient, hidden/1"} <= names
    assert {"bert: gradients against the CPU's", "bilstm: logits", "kd: first loss", "accumulation: 1 part and 2"} <= names
    assert len(names) > 150
    speeds = [finding for finding in result["findings"] if "tokens_per_second" in finding]
    assert [each["system"] for each in speeds][:1] == ["crossdistil"]
    text = script.tables(json.loads(json.dumps(result)) | {"machine": {"cpu": "some"}})
    assert "| checks | fp32 |" in text and "| MiniLM, crossdistil | fp32 |" in text and "torch " in text
    assert "checks fp32: " in capsys.readouterr().out


@pytest.mark.only_backend("torch")
def test_all_its_recipes_can_be_trained(script, monkeypatch, tmp_path):
    import device_trainings

    monkeypatch.setattr(device_trainings, "STEPS", 1)
    settings = script.settings_of(script.Part("reference", "fp32", 9), "cpu", tmp_path, False)
    found = list(device_trainings.reference_trainings(settings))
    assert [finding["name"].partition(":")[0] for finding in found] == list(device_trainings.RECIPES)
    assert [script.told(finding) for finding in found if not finding["ok"]] == []


@pytest.mark.only_backend("torch")
def test_what_is_wrong_or_raises_is_told_and_the_rest_goes_on(script, here, monkeypatch, tmp_path, capsys):
    import device_findings

    def doubled(ops, p, batch):
        x = p["x"] * 2.0
        return x if type(ops).__name__ == "ReferenceOps" else x * 1.01

    def raising(ops, p, batch):
        if type(ops).__name__ == "ReferenceOps":
            return p["x"]
        raise RuntimeError("no kernel\nand a page of C++")

    cases = {"right": op_cases.CASES["relu"], "raising": op_cases.Case(raising, op_cases.CASES["relu"].parameters)}
    cases["wrong"] = op_cases.Case(doubled, op_cases.CASES["relu"].parameters)
    monkeypatch.setattr(op_cases, "CASES", cases)
    settings = script.settings_of(script.Part("checks", "fp32", 9), "cpu", tmp_path, True)
    found = {finding["name"]: finding for finding in device_findings.operations(settings)}
    assert found["right"]["ok"] and found["right: gradient, x"]["ok"] and found["lstm"]["ok"]
    assert found["raising"] == {"name": "raising", "ok": False, "value": "RuntimeError: no kernel"}
    assert not found["wrong"]["ok"] and found["wrong"]["value"] > found["wrong"]["limit"]
    assert script.told(found["wrong"]).startswith("wrong: 1.00e-02, expected at most 2e-05")


@pytest.mark.only_backend("torch")
def test_a_device_that_is_not_there_ends_it(script, here, capsys):
    assert script.check("npu", 8, True, here) is None
    assert capsys.readouterr().err.startswith("device_check: device 'npu': needs the package torch_npu")
    assert script.main(["--device", "gpu"]) == 2
    assert capsys.readouterr().err == "device_check: device 'gpu': expected cuda, npu, ascend or cpu\n"


ANSWERS = {
    "good": ("", []),
    "crashed": ("import os; os.kill(os.getpid(), 6)", ["process: ended with exit code -6"]),
    "failed": ("sys.exit('out of memory')", ["process: ended with exit code 1: out of memory"]),
    "hung": ("import time; time.sleep(60)", ["time: not finished after its 2 s, and stopped"]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_how_a_part_ends_is_told_and_what_it_found_is_kept(script, tmp_path, name):
    code, expected = ANSWERS[name]
    program = f"import sys; print('noise'); print({script.ANSWER!r} + '{{\"name\": \"one\", \"ok\": true}}', flush=True); {code}"
    found = list(script.answers([sys.executable, "-c", program], 2 if name == "hung" else 60, tmp_path / "errors.txt"))
    assert found[0] == {"name": "one", "ok": True}
    assert [script.told(each) for each in found[1:]] == expected and not any(each["ok"] for each in found[1:])


def test_what_there_is_no_time_for_is_told(script):
    result = script.check("cpu", 0, True, None)
    assert result["not_run"] == [part.title for part in script.parts_of("cpu", True)] and result["findings"] == []

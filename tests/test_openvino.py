"""Exports for OpenVINO: they answer as NumPy does in float64, are calibrated with the task's texts, and are judged as all are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crossdistil.core import extras
from crossdistil.core.app import exporting, openvino_runtime
from crossdistil.core.app.export_targets import TARGETS
from crossdistil.core.app.exporting import ExportOptions, export
from crossdistil.core.app.finished_model import load_classifier
from crossdistil.core.errors import BackendError, CheckpointError, CrossdistilError
from crossdistil.core.processes import code_command
from crossdistil.tests import tiny
from crossdistil.tests.test_export import BILSTM, random_model, trained
from crossdistil.tests.test_export_frameworks import OTHER_ANSWERS, largest_difference, named
from crossdistil.tests.tiny_families import FAMILIES

MODELS = {"bert": tiny.CONFIG, **FAMILIES, **{named(config): config for config in OTHER_ANSWERS}}
OPENVINO = TARGETS["openvino"]


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_encoder_answers_at_every_size(config, tmp_path):
    assert largest_difference(OPENVINO, config, tmp_path) <= 2e-6


def test_8_bits_are_calibrated_and_judged(tiny_model, tiny_task, tmp_path, said):
    import openvino

    folder = trained(tiny_model, tmp_path / "model")
    report = export(folder, tmp_path / "out", ExportOptions("int8", "openvino", tiny_task, 100, 0), print)
    assert {gate["name"] for gate in report["gates"]} >= {"alone and in a batch", "same answers on dev, %"}
    assert report["bytes"] == sum((tmp_path / "out" / f"openvino_model.{end}").stat().st_size for end in ("xml", "bin"))
    model = openvino.Core().read_model(str(tmp_path / "out" / OPENVINO.file))
    assert any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    code, output, errors = said("evaluate", tmp_path / "out", "--data", tiny_task)
    assert code == 0 and 0 <= json.loads(output)["accuracy"] <= 1, errors


def test_signals_are_handled_where_they_were(tiny_model, tiny_task, tmp_path):
    """In a process of its own, which a fault of memory would end: OpenVINO frees its memory for signals."""
    code = '''
import ctypes, faulthandler, gc, signal, sys
from pathlib import Path
from crossdistil.core.app.exporting import ExportOptions, export
faulthandler.enable()
export(Path(sys.argv[1]), Path(sys.argv[2]), ExportOptions("int8", "openvino", Path(sys.argv[3]), 100, 0), print)
gc.collect()
stack = (ctypes.c_char * 24)()
ctypes.CDLL(None).sigaltstack(None, stack)
address = int.from_bytes(stack[:8], "little")
spans = [line.split()[0].split("-") for line in open("/proc/self/maps")]
assert any(int(first, 16) <= address < int(end, 16) for first, end in spans), hex(address)
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
'''
    given = (trained(tiny_model, tmp_path / "model"), tmp_path / "out", tiny_task)
    command = [*code_command(sys.executable, code), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "handled"), done.stderr


def test_it_is_calibrated_with_train_where_that_is_there(tiny_model, tiny_task, tmp_path):
    (tmp_path / "dev.tsv").write_text((tiny_task / "dev.tsv").read_text())
    model, tokenizer = load_classifier(trained(tiny_model, tmp_path / "model"), print)
    for folder, rows, note in ((tiny_task, 44, 0), (tmp_path, 21, 1)):
        told, options = [], ExportOptions("int8", "openvino", folder, 100, 0)
        batches = exporting._calibration(exporting._task_data(tiny_model, model, tokenizer, options, True), told.append)
        assert len(batches) == rows and all(len(batch["input_ids"]) == 1 for batch in batches)
        assert ["there is no train split to calibrate with" in line for line in told] == [True] * note


def test_bfloat16_only_where_the_processor_has_it(tiny_model, tiny_task, tmp_path):
    import openvino

    folder, options = trained(tiny_model, tmp_path / "model"), ExportOptions("bf16", "openvino", tiny_task, 100, 0)
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert export(folder, tmp_path / "out", options, print)["precision"] == "bf16"
        return
    with pytest.raises(BackendError, match="--precision bf16: this processor computes nothing in bfloat16"):
        export(folder, tmp_path / "out", options, print)
    assert not (tmp_path / "out").exists()


def test_what_it_does_not_take(tiny_model, tmp_path, monkeypatch):
    (tmp_path / OPENVINO.file).write_text("<net")
    with pytest.raises(CheckpointError, match=f"{OPENVINO.file}: OpenVINO does not take it: "):
        openvino_runtime.load_openvino(tmp_path / OPENVINO.file)
    with pytest.raises(CrossdistilError, match="a BiLSTM goes to onnx"):
        OPENVINO.write(random_model(BILSTM), tmp_path / "m.xml", "fp32", False)
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="--to openvino: needs openvino in .*: pip install 'crossdistil"):
        export(tiny_model, tmp_path / "out", ExportOptions(to="openvino"), print)

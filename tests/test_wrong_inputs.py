"""A slice of the wrong inputs that `benchmarks/robustness/wrong_inputs.py` gives to the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[1] / "benchmarks" / "robustness" / "wrong_inputs.py"


@pytest.mark.only_backend("torch")
def test_a_hundred_wrong_inputs(tmp_path):
    out = tmp_path / "found.json"
    # A process of its own: its children are forks of one that has no threads yet.
    command = [sys.executable, DRIVER, "--count", "100", "--seed", "11", "--out", out]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert out.is_file(), done.stderr
    found = json.loads(out.read_text())
    assert found["failures"] == []
    assert found["cases"] == 100 and sum(codes.get("2", 0) for codes in found["commands"].values()) > 40


def test_every_command_has_wrong_inputs():
    spec = importlib.util.spec_from_file_location("wrong_inputs", DRIVER)
    driver = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = driver
    spec.loader.exec_module(driver)
    commands = dict(driver._commands(driver.typer.main.get_command(driver.cli.app), []))
    assert set(driver.GOOD) == set(commands)

"""What a command imports before it does anything: the list of commands needs none of them, a recipe that is wrong needs no
framework, and a check nothing that only draws, trains or compares."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import typer

from crossdistil.core.app import cli
from crossdistil.core.app.commands import COMMANDS, load
from crossdistil.tests import tiny

FRAMEWORKS = {"torch", "oneflow", "mindspore", "tensorflow"}
ONLY_LATER = {"transformers", "matplotlib", "scipy", "jinja2", "sklearn"}
ONLY_LATER |= {"onnxruntime", "openvino", "pyarrow", "fastapi", "optuna"}
FOR_DATA = {"numpy", "pydantic", "ruamel", "tokenizers", "safetensors"}
PROGRAM = """
import json, sys
sys.argv = ["crossdistil", *{arguments!r}]
from crossdistil.core.app import cli
try:
    cli.main()
except SystemExit as end:
    pass
print("loaded " + json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
"""


def loaded(*arguments: object) -> set[str]:
    """The top-level modules that a command has imported in the end."""
    program = PROGRAM.replace("{arguments!r}", repr([str(each) for each in arguments]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    return set(json.loads(line.removeprefix("loaded ")))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_list_of_commands_imports_none_of_them(arguments):
    assert not loaded(*arguments) & (FRAMEWORKS | ONLY_LATER | FOR_DATA)


def test_the_help_of_a_command_imports_nothing_that_it_works_with():
    assert not loaded("run", "--help") & (FRAMEWORKS | ONLY_LATER | FOR_DATA - {"pydantic"})  # which typer itself imports


def test_no_command_is_declared_with_what_it_works_with():
    program = (
        "import sys\n"
        "from crossdistil.core.app.commands import COMMANDS, load\n"
        "for name in COMMANDS:\n"
        "    load(name)\n"
        f"    found = {FRAMEWORKS | ONLY_LATER | FOR_DATA!r} & {{module.partition('.')[0] for module in sys.modules}}\n"
        "    assert not found, (name, found)\n"
        "ours = [module for module in sys.modules if module.startswith('crossdistil.')]\n"
        "assert len(ours) < 60, ours\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.backend
def test_a_check_imports_nothing_that_only_a_run_needs(tmp_path, tiny_model, tiny_task, backend_name):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(tiny.kd_recipe(tiny_task, tiny_model)))
    found = loaded("run", path, "--check", "--backend", backend_name, "--device", "cpu")
    assert backend_name in found
    own = {"mindspore": {"scipy"}, "oneflow": set(), "torch": set()}[backend_name]  # what a framework imports by itself
    assert not found & (ONLY_LATER - own)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_what_the_list_says(name):
    command = load(name)
    assert command.name == name
    place = COMMANDS[name]
    function = getattr(sys.modules[f"{cli.__package__}.{place.module}"], place.name)
    text = command.help if isinstance(function, typer.Typer) else inspect.getdoc(function)
    assert " ".join(text.split("\n\n")[0].split()) == place.summary


NOT_TO_ANSWER = [
    "core.recipe", "core.recipe_schema", "core.task_section", "core.plan", "core.job", "core.teacher_cache", "core.runs",
    "core.training", "core.losses.catalogue", "core.objective", "core.data.tasks", "core.data.records", "core.data.mlm",
    "core.augmentation", "core.app.converted", "core.app.recipe_models", "converters.formats", "converters.convert",
    "converters.onnx_graph",
]  # fmt: skip
"""What recipes, trainings, conversions and exports are made of."""


def modules(*arguments: object) -> set[str]:
    """All modules that a command has imported in the end, which ends well."""
    program = PROGRAM.replace("{arguments!r}", repr([str(each) for each in arguments])).replace('name.partition(".")[0]', "name")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1].removeprefix("loaded ")))


@pytest.mark.backend
def test_an_answer_imports_nothing_that_only_training_and_conversion_need(tiny_model, backend_name):
    found = modules("predict", tiny_model, "one text", "--backend", backend_name, "--device", "cpu")
    assert backend_name in found and "crossdistil.core.app.predicting" in found
    assert not {f"crossdistil.{name}" for name in NOT_TO_ANSWER} & found
    assert not {"torch._dynamo", "torch._inductor", "sympy", "ruamel.yaml", "transformers"} & found
    assert backend_name == "mindspore" or "scipy" not in found  # MindSpore itself imports it


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_told_by_what_parsing_needs(command):
    found = loaded(command, "--no-such-option")
    assert not found & (FRAMEWORKS | ONLY_LATER | FOR_DATA - {"pydantic"})

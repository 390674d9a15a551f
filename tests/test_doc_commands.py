"""Each command on the pages is one that there is, with options and recipe keys that there are; README's and the tutorial's are
done in their order."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

import crossdistil
from crossdistil.core.recipe import Recipe
from crossdistil.tests import tiny
from crossdistil.tests.doc_commands import ROOT, blocks, lines, own_arguments, pages, problem_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
from crossdistil.tests.service_process import service

OTHERS = set(
    "make pip python source hf torchrun msrun srun sbatch docker curl printf export head tensorboard mlflow wandb swanlab "
    "echo chmod test".split()
)
"""Programs that pages call besides our own."""
TRAINING = {"epochs": "null", "steps": 2, "batch_size": 8}
SHORTER = {
    "run": ["--backend", "torch", *(word for key in TRAINING for word in ("--set", f"stages.0.train.{key}={TRAINING[key]}"))],
    "latency": ["--rounds", "1", "--backend", "torch"],
}
"""What a command is given besides, so that it takes a second and not an hour."""


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_exists(page):
    problems = []
    for line in lines(page):
        if re.match(r"\w+=\$\(", line.text):
            continue  # a variable of the shell
        words = line.words()
        calls = own_arguments(words)
        problems += [f"{line.text}\n    {problem}" for call in calls if (problem := problem_of(call))]
        problems += [f"{line.text}\n    {problem}" for problem in others(words) if not calls]
    assert not problems, "\n".join(problems)


def others(words: list[str]) -> list[str]:
    """What is wrong with a line that does not call crossdistil."""
    words = words[next((place for place, word in enumerate(words) if not re.match(r"\w+=", word)), len(words)) :]
    if not words:
        return []
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return [f"make has no {word}" for word in words[1:] if "=" not in word and word not in targets]
    if words[:2] == ["pip", "install"]:
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        named = [name for word in words for extras in re.findall(r"\[([\w,]+)\]", word) for name in extras.split(",")]
        return [f"there is no extra {name}" for name in named if name not in known]
    if words[0] == "python" and words[1].endswith(".py") and words[1].startswith(("benchmarks", "docs")):
        path = ROOT / words[1]
        if not path.is_file():
            return [f"there is no {words[1]}"]
        source = path.read_text(encoding="utf-8")
        return [f"{words[1]} has no {word}" for word in words[2:] if word.startswith("--") and f'"{word}"' not in source]
    return [] if words[0] in OTHERS else [f"{words[0]}: which program is that?"]


def test_every_other_program_is_called_somewhere():
    assert {word for page in pages() for line in lines(page) for word in line.words()} >= OTHERS


def of_language(language: str) -> list:
    found = [(path.name, content) for path in pages() for name, content in blocks(path.read_text("utf-8")) if name == language]
    return [pytest.param(content, id=f"{name} {number}") for number, (name, content) in enumerate(found)]


@pytest.mark.parametrize("content", of_language("python"))
def test_what_python_asks_of_the_package_is_there(content):
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "crossdistil":
            module = importlib.import_module(node.module)
            assert not [each.name for each in node.names if not hasattr(module, each.name)], node.module
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("crossdistil."):
            function = getattr(crossdistil, node.func.attr)
            inspect.signature(function).bind_partial(*node.args, **{each.arg: None for each in node.keywords})


@pytest.mark.parametrize("content", of_language("yaml"))
def test_the_keys_of_a_recipe_s_part_are_there(content):
    tree = YAML(typ="safe").load(content)
    if "." in "".join(tree):
        return  # keys as `--set` names them, of a search, whose values are spaces
    try:
        Recipe.model_validate(tree)
    except ValidationError as error:
        assert not [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]


def test_both_readmes_have_the_same_commands_in_the_same_order():
    def commands(name: str) -> list[list[str]]:
        return [line.words() for line in lines(ROOT / name)]

    assert commands("README.md") == commands("README.zh-CN.md") != []


def test_both_readmes_lead_to_the_same_places():
    def links(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("README")]

    assert links("README.md") == links("README.zh-CN.md")


def test_no_block_is_left_open():
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fences = len(re.findall(r"^ *```", text, re.MULTILINE))
        assert fences == 2 * len(blocks(text)), page.name


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the two pages read: tables of texts and an encoder, small."""
    config = tiny.CONFIG.model_copy(update={"num_hidden_layers": 6, "max_position_embeddings": 128})
    tiny.write_model(tmp_path / "models" / "encoder", config)
    for folder in ("data", "reviews"):
        (tmp_path / folder).mkdir()
        for seed, (split, count) in enumerate({"train": 40, "dev": 20}.items()):
            rows = [f"{text}\t{('bad', 'good')[label]}\n" for text, label in zip(*tiny.sentences(count, seed))]
            (tmp_path / folder / f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    ("name", "ran"),
    [
        ("README.md", ["run", "run", "compare", "export", "serve"]),
        (
            "docs/tutorial.md",
            ["inspect", "run", "recipes", "run", "run", "compare", "export", "predict", "latency", "serve", "curl"],
        ),
    ],
)
def test_the_page_is_done_from_top_to_bottom(name, ran, workplace, said):
    done = []
    for line in lines(ROOT / name):
        words = line.words()
        if words[0] not in ("crossdistil", "curl"):
            continue
        done.append(words[1] if words[0] == "crossdistil" else "curl")
        if done[-1] == "serve":
            with service(workplace / words[2]) as running:
                assert running.request("GET", "/ready")[0] == 200
                posted = [each.words() for each in lines(ROOT / name) if each.text.startswith("curl")]
                for call in posted:
                    status, answer, _ = running.predict(call[call.index("-d") + 1].encode())
                    assert status == 200 and answer["label"] in ("bad", "good")
        elif done[-1] != "curl":
            code, output, errors = said(*words[1:], *SHORTER.get(done[-1], ()))
            assert code == 0, f"{line.text}\n{output}{errors}"
    assert done == ran
    assert (workplace / "runs" / "kd" / "report.html").is_file()

"""The Hugging Face hub, of which there is none here: names are looked up in a cache with its layout, and what is pushed goes to a
stand-in of its client."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from ruamel.yaml import YAML

from crossdistil.core.app.dev_texts import read_dev
from crossdistil.core.app.recipe_models import found_models
from crossdistil.core.card_file import is_generated
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.core.hub_names import hub_folder
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.registered import NOTHING
from crossdistil.tests import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """`cache(kind, name, folder)`: put a folder into an offline cache as huggingface_hub lays it out."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(kind, name, folder):
        place = home / f"{kind}s--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(COMMIT)
        return Path(shutil.copytree(folder, place / "snapshots" / COMMIT))

    return put


def test_names_are_snapshots_of_the_cache(cache, tiny_model, tiny_task):
    model, data = cache("model", "me/teacher", tiny_model), cache("dataset", "me/reviews", tiny_task)
    recipe = parse_recipe(tiny.kd_recipe("hf:me/reviews", "hf:me/teacher"), "test")
    assert str(recipe.teacher.model) == "hf:me/teacher" and str(recipe.task.data) == "hf:me/reviews"
    found = found_models(recipe).recipe
    assert (found.teacher.model, found.task.data) == (model, data)
    assert hub_folder(Path(f"hf:me/teacher@{COMMIT}"), "model") == model
    assert hub_folder(tiny_model, "model") == tiny_model


def test_data_of_the_hub_is_evaluated_and_compared_on_and_read_again(cache, tiny_model, tiny_task, tmp_path, said):
    cache("dataset", "me/reviews", tiny_task)
    other = shutil.copytree(tiny_model, tmp_path / "other")
    found = []
    for data in (tiny_task, "hf:me/reviews"):
        code, output, errors = said("evaluate", tiny_model, "--task", "sst-2", "--data", data)
        assert code == 0, errors
        found.append(output)
    assert found[0] == found[1]
    code, _, errors = said("compare", tiny_model, other, "--task", "sst-2", "--data", "hf:me/reviews")
    assert code == 0, errors
    here, there = (read_dev(tiny.kd_recipe(data, tiny_model), NOTHING)[1].texts for data in (str(tiny_task), "hf:me/reviews"))
    assert here == there
    code, _, errors = said("evaluate", tiny_model, "--task", "sst-2", "--data", "hf:me/gone")
    assert code == 2 and errors.startswith("crossdistil: error: --data: hf:me/gone: is not in the hub's cache")


def test_what_is_not_there_says_how_it_gets_there(cache):
    with pytest.raises(
        CheckpointError,
        match=r"teacher\.model: hf:me/gone: is not in the hub's cache, and with HF_HUB_OFFLINE nothing is asked of the network; "
        r"on a machine with a network: hf download me/gone --local-dir models/gone; then give"
    ):
        hub_folder(Path("hf:me/gone"), "teacher.model")
    with pytest.raises(DataError, match=r"hf download --repo-type dataset me/gone --local-dir data/gone"):
        hub_folder(Path("hf:me/gone"), "task.data", True)
    for name in ("hf:", "hf:a/b/c", "hf:../x", "hf:me/\x1b"):
        with pytest.raises(CheckpointError, match="expected hf:OWNER/NAME"):
            hub_folder(Path(name), "model")


def test_a_long_reason_ends_at_a_word(cache, monkeypatch):
    def fails(*given, **options):
        raise OSError("the connection\nwas cut " * 40)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(CheckpointError, match=r"the hub \(the connection was cut .* (the|connection|was|cut) \.\.\.\)"):
        hub_folder(Path("hf:me/gone"), "teacher.model")


class Hub:
    """As much of HfApi as is used."""

    def __init__(self):
        self.calls = []

    def __call__(self):
        return self

    def create_repo(self, repo, private, exist_ok):
        self.calls.append((repo, private, exist_ok))

    def create_commit(self, repo_id, operations, commit_message):
        self.files = {each.path_in_repo: each.path_or_fileobj for each in operations}
        return type("Done", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})


@pytest.fixture
def run_folder(tmp_path, tiny_model, tiny_task):
    """A finished run's folder, with a card as runs write it."""
    from crossdistil.core.checkpoint import load_model
    from crossdistil.core.job import with_about
    from crossdistil.core.model_card import card

    folder = tmp_path / "run"
    shutil.copytree(tiny_model, folder / "student")
    about = {
        "method": "kd",
        "task": {"name": "sst-2"},
        "dev": {"accuracy": 0.75},
        "teachers": {"teacher": {"model": "runs/teacher"}},
    }
    model = load_model(tiny_model)
    model = with_about(model, dict(model.parameters), about)
    (folder / "student" / "README.md").write_text(card(model, model.parameter_count))
    (folder / "result.json").write_text("{}")
    (folder / "run.json").write_text("{}")
    parse_recipe(tiny.kd_recipe(tiny_task, tiny_model), "test").write(folder / "recipe.yaml")
    return folder


def test_a_student_is_sent_in_one_commit(run_folder, said, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    code, output, errors = said("push", run_folder, "me/student", "--license", "apache-2.0", "--private")
    assert (code, errors) == (0, "") and "sent: https://hub/me/student/commit/1" in output
    assert hub.calls == [("me/student", True, True)]
    assert {"config.json", "model.safetensors", "README.md", "recipe.yaml", "vocab.txt"} <= set(hub.files)
    card = hub.files["README.md"].decode()
    front = YAML(typ="safe").load(card.split("---")[1])
    assert front["license"] == "apache-2.0" and front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.75
    assert "`apache-2.0`, as who published it states." in card and "Fill in" not in card
    assert is_generated(hub.files["README.md"])
    recipe = YAML(typ="safe").load(hub.files["recipe.yaml"].decode())
    assert recipe["method"] == "kd" and not any(
        part.startswith("/") for part in (recipe["teacher"]["model"], recipe["task"]["data"])
    )
    assert str(run_folder) not in card + hub.files["recipe.yaml"].decode()


def test_a_dry_run_sends_nothing(run_folder, said, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("asked the hub"))
    code, output, _ = said("push", run_folder / "student", "me/student", "--license", "mit", "--dry-run")
    assert code == 0 and "license: mit" in output and output.splitlines()[-1].endswith("files for me/student; nothing was sent")
    assert "Fill in `license` above" in (run_folder / "student" / "README.md").read_text()  # the folder is as it was
    _, _, errors = said("push", run_folder / "student", "me/student", "--license", "appache-2.0", "--dry-run")
    assert errors == "note: --license appache-2.0: is no name of the hub's that is known here; did you mean 'apache-2.0'?\n"


def test_what_cannot_be_pushed_is_told(run_folder, said, monkeypatch):
    class Refusing(Hub):
        def create_repo(self, *given, **named):
            raise OSError("401\nUnauthorized")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing())
    for arguments, message in (
        ((run_folder, "me/student"), "names no license: give --license, for example apache-2.0"),
        ((run_folder, "student"), "expected OWNER/NAME"),
        ((run_folder, "me/student", "--license", "My own"), "--license My own: expected a name of the hub's"),
        ((run_folder, "me/student", "--license", "mit"), "the hub did not take it: 401 Unauthorized; `hf auth login`"),
    ):
        code, _, errors = said("push", *arguments)
        assert code == 2 and message in errors and errors.count("\n") == 1
    (run_folder / "student" / "README.md").unlink()
    assert "README.md: missing" in said("push", run_folder, "me/student", "--license", "mit")[2]

"""A kind of task in a user's own file: ordinal regression as docs/plugins.md has it, from the recipe to its predictions, and what
is wrong with a kind, told in a line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError, PluginError, RecipeError
from crossdistil.core.kinds.known_kinds import KINDS
from crossdistil.core.plugin_files import load_plugins, named_plugins
from crossdistil.core.recipe import load_recipe
from crossdistil.tests import tiny
from crossdistil.tests.doc_plugins import write_shown

STARS = ("1", "2", "3", "4")


def write_stars(folder, train=24, dev=12):
    """Tables whose stars depend on the good word, and on whether the text is long."""
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": train, "dev": dev}.items()):
        rows = (f"{text}\t{1 + 2 * label + (len(text) > 20)}\n" for text, label in zip(*tiny.sentences(count, seed)))
        (folder / f"{split}.tsv").write_text("text\tstars\n" + "".join(rows))


@pytest.fixture
def world(tmp_path, monkeypatch):
    write_stars(tmp_path / "stars")
    tiny.write_model(tmp_path / "model")
    write_shown(tmp_path, "my_kind.py", "ordinal.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(*files):
    return load_plugins(named_plugins({"plugins": list(map(str, files))}, "test"))


DISTIL = {
    "method": "ordinal_kd",
    "plugins": ["my_kind.py"],
    "task": {"name": "stars", "data": "stars", "text": "text", "label": "stars", "kind": "ordinal", "max_length": 16},
    "teacher": {"model": "runs/ordinal"},
    "student": {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [1]}},
    "stages": [
        {
            "name": "distil",
            "objective": [{"loss": "kd_mse", "weight": 0.5}, {"loss": "cumulative", "weight": 0.5}],
            "train": {"steps": 2, "batch_size": 8, "learning_rate": 1e-3, "length_buckets": [16]},
        }
    ],
}


@pytest.mark.backend
def test_a_model_of_it_is_trained_teaches_and_answers_on_every_backend(world, engine, said):
    on = ["--backend", engine.name]
    code, printed, errors = said("check", "my_kind.py", "--backends", engine.name, "--json")
    assert code == 0 and {row["loss"] for row in json.loads(printed)} == {"cumulative"}, errors
    buckets = ["--set", "stages.0.train.length_buckets=[16]"]
    code, printed, errors = said("run", "ordinal.yaml", "--out", "runs/ordinal", *on, *buckets)
    assert code == 0 and "kind of task ordinal" in printed and "dev closeness" in printed, errors
    (world / "distil.json").write_text(json.dumps(DISTIL))
    code, printed, errors = said("run", "distil.json", "--out", "runs/student", *on)
    assert code == 0 and "teacher: its answers on dev are those that" in printed, errors
    taught, result = (json.loads((world / f"runs/{name}/result.json").read_text()) for name in ("ordinal", "student"))
    assert result["teacher"]["metrics"] == taught["student"]["metrics"]
    plugin = ["--plugin", "my_kind.py"]
    code, printed, errors = said("evaluate", "runs/student", "--data", "stars", *plugin, *on)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(result["student"]["metrics"]), errors
    rows = [line.split("\t") for line in (world / "stars/dev.tsv").read_text().splitlines()[1:]]
    code, printed, errors = said("predict", "runs/student", *(text for text, _ in rows), *plugin, *on)
    assert code == 0, errors
    found = [json.loads(line) for line in printed.splitlines()]
    shares = [each["probabilities"] for each in found]
    assert all(sum(each.values()) == pytest.approx(1) and list(each) == list(STARS) for each in shares)
    apart = [abs(int(each["label"]) - int(label)) for each, (_, label) in zip(found, rows, strict=True)]
    assert 1 - np.mean(apart) / 3 == pytest.approx(result["student"]["metrics"]["closeness"])
    assert np.mean(np.array(apart) == 0) == pytest.approx(result["student"]["metrics"]["exact"])


@pytest.fixture
def trained(world, said):
    code, _, errors = said("run", "ordinal.yaml", "--out", "runs/ordinal", "--backend", "torch")
    assert code == 0, errors
    return world / "runs/ordinal"


@pytest.mark.only_backend("torch")
def test_its_loss_and_folder_are_those_of_torch_and_transformers(trained, said):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = trained / "student"
    raw = json.loads((folder / "config.json").read_text())
    assert raw["crossdistil"]["kind_plugin"]["labels"] == list(STARS) and len(raw["id2label"]) == 3
    KINDS.pop("ordinal")  # as in a process of its own
    with pytest.raises(CheckpointError, match="kind of task of a plugin, 'ordinal' of my_kind.py: --plugin my_kind.py, or"):
        load_model(folder)
    load("my_kind.py")
    model = load_model(folder)
    assert (model.outputs, model.labels, model.kind) == (3, STARS, KINDS["ordinal"])
    texts, targets = tiny.sentences(6, 3)
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**tokens).logits
    code, printed, errors = said("predict", trained, *texts, "--plugin", "my_kind.py", "--backend", "torch")
    above = torch.sigmoid(logits.double()).cummin(dim=1).values.numpy()
    for line, row in zip(printed.splitlines(), above, strict=True):
        shares = list(json.loads(line)["probabilities"].values())
        np.testing.assert_allclose(1 - np.cumsum(shares)[:-1], row, atol=1e-5)
    term = load("my_kind.py").losses["cumulative"]
    labels = np.array(targets) * 3
    steps = torch.tensor(labels[:, None] > np.arange(3)).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), steps, reduction="none").sum(1).mean()
    batch = {"labels": labels, "label_mask": np.ones(6)}
    assert term.numpy(None, {"logits": logits.double().numpy()}, batch) == pytest.approx(float(expected))
    card = (folder / "README.md").read_text()
    assert "is of the plugin `my_kind.py`" in card and "--plugin my_kind.py" in card and "np.exp(" not in card


@pytest.mark.only_backend("torch")
def test_reports_comparisons_and_exports_take_the_plugin(trained, said):
    plugin = ["--plugin", "my_kind.py"]
    code, _, errors = said("run", "ordinal.yaml", "--out", "runs/other", "--backend", "torch", "--set", "seed=1")
    assert code == 0, errors
    KINDS.pop("ordinal")
    for command in (["report", trained], ["compare", trained, "runs/other"], ["export", trained, "onnx", "--data", "stars"]):
        code, printed, errors = said(*command)
        assert code == 2 and "'ordinal' of my_kind.py: --plugin my_kind.py" in errors and len(errors.splitlines()) == 1, errors
        code, printed, errors = said(*command, *plugin)
        assert code == 0, errors
        KINDS.pop("ordinal")
    assert "closeness" in (trained / "report.html").read_text()
    code, printed, errors = said("predict", "onnx", "a good film", *plugin)
    own = said("predict", trained, "a good film", *plugin, "--backend", "torch")[1]
    shares = [json.loads(each)["probabilities"] for each in (printed, own)]
    assert shares[0] == pytest.approx(shares[1], abs=1e-5), errors


def test_names_are_checked_and_digests_cover_its_code(world):
    before = load_recipe("ordinal.yaml")
    for key, value, message in (
        ("task.kind", "ordnal", "task.kind: unknown value 'ordnal'; did you mean 'ordinal'?"),
        ("stages.0.objective.0.loss", "cumulativ", "did you mean 'cumulative'?"),
    ):
        with pytest.raises(RecipeError) as raised:
            load_recipe("ordinal.yaml", [f"{key}={value}"])
        assert message in str(raised.value)
    with open("my_kind.py", "a") as file:
        file.write("# changed\n")
    assert load_recipe("ordinal.yaml").digest() != before.digest()
    with pytest.raises(RecipeError, match="unknown value 'ordinal'"):
        load_recipe("kd", ["task.kind=ordinal"])


@pytest.mark.parametrize("loss", ["hard_label", "kd_ce", "kd_multi_label"])
def test_losses_that_do_not_know_its_logits_are_refused(world, loss):
    from crossdistil.core.losses.base import TermContext
    from crossdistil.core.losses.catalogue import LOSSES

    load("my_kind.py")
    [(key, problem)] = LOSSES[loss](loss=loss).problems(TermContext(3, KINDS["ordinal"], None, {"teacher": None}))
    assert key == "loss" and "does not know what the logits of an ordinal regression mean" in problem
    assert not LOSSES["kd_mse"](loss="kd_mse").problems(TermContext(3, KINDS["ordinal"], None, {"teacher": None}))


WRONG = {
    "no kind": ("class Ordinal(OneClass)", "class Ordinal", "register_kind: expected a subclass of Kind, got"),
    "a name of ours": ('name, title, described = "ordinal"', 'name, title, described = "regression"', "has one of this name"),
    "a title of ours": ('"ordinal regression"', '"regression"', "title is that of 'regression'; choose another"),
    "classes": ("one_class, own_losses", "own_losses, one_class", "one_class is True, but 4 classes have 3 logits; set it to Fa"),
    "no losses": ("False, True, None", "False, False, None", "no loss of crossdistil knows what its 3 logits mean; set own"),
    "outputs": ("return len(labels) - 1", "return None", "outputs returns None, expected the number of logits, from 1"),
    "targets": (".astype(np.int32)", "", "expected an array (6, ...) of int32, as target_type says"),
    "answers": ("levels(logits)[:, None]", "levels(logits)", "expected whole numbers (6, n), or None"),
    "values": ("edges[:, :-1] - edges[:, 1:]", "edges[0]", "expected finite numbers (6, ...)"),
    "right": ("return levels(logits) == targets", "return levels(logits)", "expected (6,) booleans, or None"),
    "it fails": ("int(levels(logits[None])[0])", "int(levels(logits)[0])", "answer_text fails on random answers: "),
    "a metric": ('default_metrics = ("closeness"', 'default_metrics = ("closenes"', "default_metrics: got 'closenes', expected"),
    "a measure": ('{"closeness": closeness', '{"closeness": 3', "measures: closeness: expected a function (logits, targets)"),
    "no number": ("np.mean(levels(logits) == targets)", "None", "metric 'exact' returns None, expected a finite number"),
    "a prediction": (
        '{**super().prediction(labels, values), "label": labels[int(steps)]}',
        '{"stars": 1}',
        "prediction returns {'stars': 1}, expected a mapping with some of label, probabilities, labels, score",
    ),
    "arrays": ('"label": labels[int(steps)]}', '"score": values}', "prediction returns {", ),
    "a ranking": ("    one_class, own_losses", "    ranks = True\n    one_class, own_losses", "expected the head SENTENCES"),
    "another answer": ("[:-1] > 0.5)", "[:-1] > 0.99)", "expected the label that answer_text gives: "),
    "nothing": ("class Ordinal(OneClass)", "class Ordinal(Kind)", "drawn returns <ndarray>, expected an array (6, ...) of fl"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_line(world, old, new, message):
    text = (world / "my_kind.py").read_text().replace("import LossTerm", "import Kind, LossTerm")
    assert old in text
    (world / "my_kind.py").write_text(text.replace(old, new, 1))
    with pytest.raises(PluginError) as error:
        load("my_kind.py")
    assert message in str(error.value) and "my_kind.py:" in str(error.value) and "\n" not in str(error.value)
    assert "ordinal" not in KINDS


def test_a_column_that_it_cannot_read_is_told_with_its_line(world):
    from crossdistil.core.data.tasks import read_split, resolve_task

    more = 'super().targets(path, *given) if path.name == "trial" else 1 / 0'
    more = f"    def targets(self, path, *given):\n        return {more}\n\n    def drawn"
    text = (world / "my_kind.py").read_text().replace("    def drawn", more, 1)
    (world / "my_kind.py").write_text(text)
    recipe = load_recipe("ordinal.yaml")
    spec = resolve_task(recipe.task, recipe.registered)
    with pytest.raises(PluginError, match=r"my_kind.py:\d+: kind 'ordinal': targets fails: ZeroDivisionError"):
        read_split(spec, recipe.task.data, "train")

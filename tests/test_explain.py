"""`crossdistil recipes NAME`: every recipe and preset explains itself, and the figures are those reckoned by hand."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from crossdistil.converters.convert import ConvertOptions, convert
from crossdistil.core.app import costs
from crossdistil.core.app.explain import catalogue, explain
from crossdistil.core.app.explain_view import byte_text, flow, millions, print_catalogue, print_explanation, train_text
from crossdistil.core.app.progress import make_console
from crossdistil.core.catalogue_folder import RECIPES_FOLDER
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bilstm import BiLstmConfig
from crossdistil.core.recipe import load_recipe, recipe_tree
from crossdistil.core.train_section import TrainSection
from crossdistil.tests.tiny import CONFIG, kd_recipe, write_model, write_task
from crossdistil.tests.tiny_families import VARIANTS

NAMES = sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))
PAIRS = [(name, preset) for name in NAMES for preset in [None, *(recipe_tree(name).get("presets") or {})]]
LOGITS = frozenset({"logits"})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Where the folders that the recipes name are not."""
    monkeypatch.chdir(tmp_path)


def shown(found: dict, terminal: bool = False, width: int = 100) -> str:
    file = io.StringIO()
    print_explanation(found, Console(file=file, width=width, force_terminal=terminal, color_system=None, highlight=False))
    return file.getvalue()


# Every recipe.


@pytest.mark.parametrize(("name", "preset"), PAIRS)
def test_a_recipe_explains_itself(name, preset):
    found = explain(name, preset=preset)
    assert not found["problems"], "a teacher is assumed that the recipe fits"
    recipe = load_recipe(name, preset=preset)
    assert [[term["loss"] for term in stage["terms"]] for stage in found["stages"]] == [
        [term.loss for term in stage.objective] for stage in recipe.stages
    ]
    for stage in found["stages"]:
        assert stage["costs"]["student_forward_backward"] > 0
        for term in stage["terms"]:
            assert term["formula"] and term["unit"]
            assert "layers" not in term or term["layers"]["resolved"]
    assert json.loads(json.dumps(found)) == found
    text = shown(found)
    assert recipe.notes.published in text and recipe.description in text
    assert all(" ".join(term["formula"].split()) in text for stage in found["stages"] for term in stage["terms"])


@pytest.mark.parametrize(("name", "preset"), PAIRS)
def test_in_a_terminal_no_line_is_wider_than_100_columns(name, preset):
    found = explain(name, preset=preset)
    wide, narrow = shown(found, terminal=True, width=180), shown(found, terminal=True, width=70)
    assert max(map(len, wide.splitlines())) <= 100 and max(map(len, narrow.splitlines())) <= 70
    # Nothing is lost by wrapping.
    assert " ".join(wide.split()) == " ".join(shown(found).split()) == " ".join(narrow.split())


# What is said.


def test_the_layers_are_resolved_over_an_assumed_teacher():
    pkd, tiny = explain("pkd"), explain("t4tiny")
    assert pkd["teachers"]["teacher"]["assumed"] and pkd["teachers"]["teacher"]["num_hidden_layers"] == 6
    assert pkd["stages"][0]["terms"][2]["layers"] == {"rule": "skip", "resolved": "2→1, 4→2"}
    # Its list of layers needs more than six.
    assert tiny["teachers"]["teacher"]["num_hidden_layers"] == 12
    assert tiny["stages"][0]["terms"][1]["layers"]["resolved"] == "0→0, 3→1, 6→2, 9→3, 12→4"
    assert [projection["shape"] for projection in tiny["stages"][0]["terms"][1]["projections"]] == [[768, 312]] * 5


def test_a_shared_projection_is_told_once():
    [projection] = explain("tinybert_gd")["stages"][0]["terms"][1]["projections"]
    assert projection == {
        "name": "projection.fit_dense", "kind": "linear", "shape": [384, 192], "uses": 4, "learning_rate": None,
    }  # fmt: skip
    assert "1 linear, width 192 to 384, 'projection.fit_dense', shared by 4 pairs" in shown(explain("tinybert_gd"))


def test_only_options_that_differ_from_their_default_are_told():
    terms = explain("pkd")["stages"][0]["terms"]
    assert [term["options"] for term in terms] == [{"temperature": 4.0}, {}, {}]
    changed = explain("pkd", preset="official_code")["stages"][0]["terms"]
    assert changed[2]["options"] == {"reduction": "mean"} and changed[2]["weight"] == 100


def test_what_a_recipe_needs():
    def needs(name, **options):
        return explain(name, **options)["needs"]

    assert needs("finetune")["teacher"] == "none" and needs("finetune")["labels"] == ["hard_label"]
    assert needs("bilstm", preset="alone")["teacher"] == "none"
    assert needs("tinybert_gd") == {
        "teacher": "pretrained encoder", "data": "raw text", "labels": [], "start": None, "augmentation": "",
    }  # fmt: skip
    assert needs("bilstm")["teacher"] == "fine-tuned on the task" and needs("bilstm")["labels"] == []
    assert needs("bilstm")["augmentation"].startswith("The paper trains on augmented texts")
    assert "pairs of texts" in needs("kd", overrides=["task.name=mrpc"])["data"]
    assert needs("tinybert_td", preset="paper")["start"].endswith("runs/tinybert_gd/student")


def test_presets_say_what_they_change():
    last = explain("pkd")["presets"][0]
    assert last["name"] == "last" and last["comment"] == "PKD-Last: the teacher's upper layers"
    assert last["changes"] == [{"key": "stages.0.objective.2.layers", "from": "skip", "to": "last"}]
    # A default that the file does not state.
    code = next(preset for preset in explain("tinybert_gd")["presets"] if preset["name"] == "official_code")
    assert {"key": "stages.0.objective.0.clamp", "from": False, "to": True} in code["changes"]
    assert "stages.0.objective.0.clamp: false → true" in shown(explain("tinybert_gd"))


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ("0.554", "probability 0.3, rising to 1; all modules are from 55.4% of the steps on"),
        ("2500", "probability 0.3, rising to 1; all modules are from step 2,500 on"),
        ("null", "probability 0.3, rising to 1; to the end of the stage"),
    ],
)
def test_when_all_modules_are_replaced(until, text):
    assert text in " ".join(shown(explain("theseus", [f"stages.0.replacement.until={until}"])).split())


def test_overrides_apply_and_a_mismatch_is_told():
    found = explain("minilm", ["student.architecture.num_hidden_layers=5"])
    assert any(problem.startswith("stages[0].objective[0].layers: 'uniform' needs") for problem in found["problems"])
    assert found["stages"][0]["costs"] is None
    assert "uniform: does not fit these models" in shown(found)


# Real folders, and the figures.


@pytest.fixture
def tiny_files(tmp_path):
    write_model(tmp_path / "teacher")
    return tmp_path, kd_recipe(write_task(tmp_path / "task"), tmp_path / "teacher", steps=None, epochs=4)


def test_the_costs_of_a_tiny_recipe_by_hand(tiny_files):
    folder, tree = tiny_files
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(tree))
    found = explain(str(path))
    assert found["teachers"]["teacher"] == {
        "model_type": "bert", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
        "parameters": sum(_size(shape) for shape in tensor_shapes(CONFIG, 2).values()), "assumed": False,
        "folder": str(folder / "teacher"),
    }  # fmt: skip
    told = found["stages"][0]["costs"]
    # Texts of 16 tokens, as the recipe cuts them. A layer: 4 x 32^2 + 2 x 32 x 48 + 2 x 16 x 32 = 8192.
    # The last one is of the first token: keys and values 2 x 32^2, scores and their sum 2 x 32, and once a text (2 x 32^2 + 2 x
    # 32 x 48) / 16 = 320, together 2432. Pooler and classifier: (32^2 + 32 x 2) / 16 = 68.
    assert told["text_length"] == 16
    assert told["teacher_forward"] == 8192 + 2432 + 68
    assert told["student_forward_backward"] == 3 * (2432 + 68)
    assert told["teacher_share"] == pytest.approx(10692 / (10692 + 7500))
    assert told["cache_saves_of_teacher"] == 0.75
    assert told["cache_saves_of_all"] == pytest.approx(0.75 * 10692 / 18192)
    # Two logits of four bytes for each text of 16 tokens.
    assert told["cache"] == {"obstacle": None, "precision": "fp32", "bytes_per_1000_tokens": 2 * 4 * 1000 / 16}


@pytest.mark.parametrize("framework", ["tf", "oneflow", "mindspore"])
def test_a_teacher_of_another_framework_is_read_not_assumed(tiny_files, framework):
    folder, tree = tiny_files
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(tree))
    expected = explain(str(path))["teachers"]["teacher"]
    convert(folder / "teacher", folder / "foreign", ConvertOptions(framework))
    (folder / "foreign" / "config.json").unlink(missing_ok=True)  # Google's is bert_config.json
    given = next((folder / "foreign").glob("*.index"), folder / "foreign")
    given = given.with_suffix("") if given.suffix == ".index" else given
    if framework != "tf":
        (folder / "foreign" / "bert_config.json").write_text((folder / "teacher" / "config.json").read_text())
    found = explain(str(path), [f"teacher.model={given}"])["teachers"]["teacher"]
    assert found == expected | {"folder": str(given)} and not found["assumed"]

    (folder / "foreign" / "bert_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=f"^teacher.model: {folder}/foreign/bert_config.json: "):
        explain(str(path), [f"teacher.model={given}"])


def _size(shape):
    product = 1
    for side in shape:
        product *= side
    return product


def test_only_the_layers_that_are_needed_are_counted():
    layer = 4096 + 3072 + 2 * 16 * 32
    assert costs.forward_cost(CONFIG, frozenset({"hidden/1"}), 2, 16) == layer
    assert costs.forward_cost(CONFIG, frozenset({"hidden/0"}), 2, 16) == 0
    # The scores of layer 2: layer 1, queries and keys, and their product.
    assert costs.forward_cost(CONFIG, frozenset({"scores/2"}), 2, 16) == layer + 2 * 1024 + 16 * 32
    assert costs.forward_cost(CONFIG, frozenset({"values/2"}), 2, 16) == layer + 1024
    assert costs.forward_cost(CONFIG, frozenset({"pooled", "hidden/2"}), 2, 16) == 2 * layer + 1024 / 16
    # Of layer 2 the first token alone: all keys and values, one query against them, and the rest once a text.
    assert costs.forward_cost(CONFIG, frozenset({"pooled"}), 2, 16) == layer + 2 * 1024 + 2 * 32 + (2 * 1024 + 3072 + 1024) / 16


def test_the_cost_of_distances_by_hand():
    """Two terms with the rows that a text needs: 31 for 16 places, where there are as many. Their maps see no token."""
    for name, rows in (("deberta-v2", 16), ("deberta-v2 with maps of distances", 20)):
        assert costs.layer_cost(VARIANTS[name], 16) == 4096 + 3072 + 2 * 16 * 32 + 2 * rows * 32
        assert costs.layer_cost(VARIANTS[name], 4) == 4096 + 3072 + 2 * 4 * 32 + 2 * 7 * 32


def test_the_cost_of_a_bilstm_by_hand():
    config = BiLstmConfig(vocab_size=10, embedding_size=6, hidden_size=5, fully_connected_size=4)
    # Two directions, four gates: 2 x 4 x 5 x (6 + 5) = 440; the head 4 x (10 + 3) for a text of 13 words.
    assert costs.forward_cost(config, LOGITS, 3, 13) == 440 + 4
    pairs = config.model_copy(update={"pairs": True})
    assert costs.forward_cost(pairs, LOGITS, 3, 43) == 440 + 4 * (40 + 3) / 86


def test_the_cost_of_replacing_by_hand():
    student = CONFIG.model_copy(update={"num_hidden_layers": 1})
    head = 3 * (1024 + 64) / 16
    # A student's layer takes three passes; the two frozen ones of the predecessor two each.
    assert costs.replacing_cost(student, CONFIG, 1.0, 2, 16) == 3 * 8192 + head
    assert costs.replacing_cost(student, CONFIG, 0.0, 2, 16) == 2 * 2 * 8192 + head
    assert costs.replacing_cost(student, CONFIG, 0.25, 2, 16) == 0.25 * 3 * 8192 + 0.75 * 4 * 8192 + head


def test_projections_count_for_each_use():
    assert costs.projection_cost([(8, 4), (8, 4)]) == 3 * 2 * 32
    plain = explain("tinybert_td")["stages"][0]["costs"]["student_forward_backward"]
    projected = explain("tinybert_td", ["stages.0.objective.1.projection.kind=linear"])["stages"][0]["costs"]
    assert projected["student_forward_backward"] - plain == 3 * 4 * 384 * 384


def test_the_size_of_a_cache_by_hand():
    wanted = {"teacher": frozenset({"hidden/1", "scores/2", "logits"})}
    # Of a text of 10 tokens: 10 x 32 states, 4 heads x 10^2 scores, 2 logits.
    expected = (320 + 400 + 2) * 2 * 1000 / 10
    assert costs.cache_bytes({"teacher": CONFIG}, wanted, {"teacher": 2}, "fp16", 10) == expected


def test_why_there_is_no_cache():
    def cache(name, *overrides, **options):
        return explain(name, overrides, **options)["stages"][0]["costs"]["cache"]

    assert cache("finetune") is None and cache("theseus") is None
    assert cache("kd", "teacher_cache.use=never")["obstacle"] == "teacher_cache.use is never"
    assert "teacher_dropout" in cache("tinybert_td", preset="official_code")["obstacle"]
    assert "mask_padding" in cache("tinybert_td", "stages.0.objective.0.mask_padding=false")["obstacle"]
    assert cache("kd", "teacher_cache.precision=fp16")["bytes_per_1000_tokens"] == 125


def test_a_damaged_teacher_is_refused(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{")
    with pytest.raises(Exception, match="is no JSON, or damaged"):
        explain("kd", ["teacher.model=teacher"])


# The command.


def test_the_list_in_a_pipe_has_a_line_a_recipe():
    file = io.StringIO()
    console = make_console()
    console.file = file
    print_catalogue(catalogue(), console)
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for line, name in zip(lines, NAMES):
        recipe = load_recipe(name)
        assert recipe.description in line
        assert all(term.loss in line for stage in recipe.stages for term in stage.objective)


def test_the_command(cli_here):
    assert cli_here("recipes", "kd", "--set", "stages.0.objective.0.temperature=2").splitlines()[0] == "kd"
    found = json.loads(cli_here("recipes", "pkd", "--preset", "last", "--json"))
    assert found["preset"] == "last" and found["stages"][0]["terms"][2]["layers"]["resolved"] == "4→1, 5→2"
    assert [row["recipe"] for row in json.loads(cli_here("recipes", "--json"))] == NAMES


def test_wrong_names_are_refused_in_a_line(cli_here):
    [line] = cli_here("recipes", "tinybert", code=2).splitlines()
    assert line.startswith("crossdistil: error: tinybert: no such recipe") and line.endswith("did you mean 'tinybert_td'?")
    [line] = cli_here("recipes", "pkd", "--preset", "lst", code=2).splitlines()
    assert "did you mean 'last'?" in line
    [line] = cli_here("recipes", "--preset", "last", code=2).splitlines()
    assert "needs the name of a recipe" in line


def test_small_texts():
    assert [millions(value) for value in (1.234e6, 85.54e6, 1.03e8)] == ["1.23M", "85.5M", "103M"]
    assert [byte_text(size) for size in (250, 15400, 10.8e6)] == ["250 bytes", "15.4 kB", "10.8 MB"]
    assert flow({"a": [1, None, True], "b": 5e-5}) == "{a: [1, null, true], b: 5e-05}"
    train = TrainSection(steps=1000, warmup=50, gradient_accumulation=2, max_gradient_norm=None, dropout=0.2)
    text = train_text(train.model_dump(mode="json"))
    assert text.startswith("1,000 steps, batch 32 in 2 parts, ") and "after a warm-up of 50 steps" in text
    assert "no clipping, dropout 0.2" in text

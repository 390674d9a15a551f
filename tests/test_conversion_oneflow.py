"""OneFlow as the referee of conversions: modules named after Hugging Face's load what is written, strictly, and compute what
NumPy computes from the source; what they save is read as what they compute. The same for the folders of variables of the
versions before modules, with a program of that time.

Every layer and head is compared. How the formats of files are read and written is tested elsewhere.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import crossdistil
from crossdistil.core.errors import CheckpointError
from crossdistil.tests import conversion_sources as sources

pytestmark = pytest.mark.only_backend("oneflow")

CONFIGS = {"erf": sources.BERT, "tanh": sources.TANH, "square": sources.SQUARE}
LEGACY = {"legacy": True, "legacy-raw": False}
"""Layout -> whether shapes are in the files."""


@pytest.fixture(scope="module")
def models():
    """The modules."""
    from crossdistil.tests import oneflow_models

    return oneflow_models


@pytest.fixture(scope="module")
def flow():
    """The framework."""
    import oneflow

    return oneflow


@pytest.fixture(scope="module")
def saved(tmp_path_factory, models, flow):
    """Checkpoints that OneFlow saved: name -> (model, its folder)."""
    root, distilbert = tmp_path_factory.mktemp("saved"), sources.FAMILIES["distilbert"]
    made = {
        "pretraining": (models.Bert(sources.BERT), sources.BERT, None),
        "pretraining with copies": (models.Bert(sources.BERT, copies=True), sources.BERT, None),
        "square": (models.Bert(sources.SQUARE), sources.SQUARE, None),
        "all heads": (models.Bert(sources.TANH, sources.OUTPUTS), sources.TANH, sources.OUTPUTS),
        "distilbert": (models.DistilBert(distilbert, sources.OUTPUTS), distilbert, sources.OUTPUTS),
    }
    for seed, (name, (model, config, outputs)) in enumerate(list(made.items())):
        models.randomise(model, seed)
        folder = root / name.replace(" ", "-")
        sources.write_config(folder, config, outputs)
        flow.save(model.state_dict(), str(folder / "weights"))
        made[name] = SimpleNamespace(model=model, folder=folder)
    return made


def loaded(flow, folder):
    """Name -> array as OneFlow reads a folder."""
    return {name: value.numpy() for name, value in flow.load(str(folder)).items()}


def assert_right(outputs, source):
    """`outputs(batch)` is what the reference computes from `source`."""
    batch, reference = sources.expected(source)
    return sources.assert_agree(outputs(batch), reference, batch)


def write_variables(folder, variables, config, outputs, meta):
    """The folder of a training of the time before modules, with the moments of its optimizer."""
    sources.write_config(folder, config, outputs or None)
    weights = folder / "weights"
    moments = {name + slot: np.ones_like(array) for name, array in variables.items() for slot in ("-m", "-v")}
    for name, array in (variables | moments).items():
        (weights / name).mkdir(parents=True)
        array.tofile(weights / name / "out")
        if meta:
            dims = "".join(f"  dim: {size}\n" for size in array.shape)
            (weights / name / "meta").write_text(f"shape {{\n{dims}}}\ndata_type: kFloat\n")
    if meta:
        (weights / "snapshot_done").touch()
    return folder


def random_variables(models, config, outputs, seed=0):
    """Variables of a classifier or of pre-training."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(1.0 if name.endswith("gamma") else 0.0, min(0.2, 1.5 / shape[0] ** 0.5), shape).astype(np.float32)
        for name, shape in models.legacy_shapes(config, outputs).items()
    }


# ------------------------------------------------------------------------------------------------ what OneFlow loads


@pytest.mark.parametrize("name", CONFIGS)
def test_a_module_loads_what_is_written(tmp_path, models, name):
    config = CONFIGS[name]
    sources.write_source(tmp_path / "source", config, outputs=None)
    told = crossdistil.convert(tmp_path / "source", tmp_path / "of", to="oneflow")
    model = models.Bert(config)
    models.load_strictly(model, tmp_path / "of/weights")
    assert_right(model.outputs, tmp_path / "source")
    assert told["tensors"] == len(model.state_dict()) and not (told["dropped"] or told["missing"] or told["added"])


@pytest.mark.parametrize("name", ["Bert", "DistilBert"])
def test_a_module_with_every_head_loads_what_is_written(tmp_path, models, name):
    config = {"Bert": sources.BERT, "DistilBert": sources.FAMILIES["distilbert"]}[name]
    sources.write_source(tmp_path / "source", config)
    crossdistil.convert(tmp_path / "source", tmp_path / "of", to="oneflow")
    model = getattr(models, name)(config, sources.OUTPUTS)
    models.load_strictly(model, tmp_path / "of/weights")
    assert_right(model.outputs, tmp_path / "source")


@pytest.mark.parametrize("outputs", [0, sources.OUTPUTS], ids=["pretraining", "classifier"])
@pytest.mark.parametrize("name, layout", [("erf", "legacy"), ("tanh", "legacy-raw"), ("square", "legacy")])
def test_a_program_before_modules_finds_its_variables(tmp_path, models, flow, name, layout, outputs):
    config = CONFIGS[name]
    sources.write_source(tmp_path / "source", config, outputs or None, heads=not outputs)
    crossdistil.convert(tmp_path / "source", tmp_path / "of", to="oneflow", layout=layout)
    variables = models.raw_variables(tmp_path / "of/weights")
    assert_right(lambda batch: models.legacy_outputs(variables, config, batch, outputs=outputs), tmp_path / "source")
    if layout == "legacy":
        shaped = loaded(flow, tmp_path / "of/weights")
        # These versions refuse a file whose shape is not the one that the program declares.
        assert {name: array.shape for name, array in shaped.items()} == models.legacy_shapes(config, outputs)
        sources.assert_same({name: array.reshape(-1) for name, array in shaped.items()}, variables)


def test_half_precision_is_rounded_to_the_nearest(tmp_path, flow):
    tensors = sources.write_source(tmp_path / "source", sources.BERT)
    crossdistil.convert(tmp_path / "source", tmp_path / "half", to="oneflow", dtype="fp16")
    wanted = {name: array.astype(np.float16) for name, array in tensors.items()}
    sources.assert_same(loaded(flow, tmp_path / "half/weights"), wanted)


@pytest.mark.parametrize("layout, dtype", [("state-dict", "bf16"), ("legacy", "bf16"), ("legacy-raw", "fp16")])
def test_a_type_that_oneflow_could_not_load_is_refused(tmp_path, layout, dtype):
    sources.write_source(tmp_path / "source", sources.BERT)
    with pytest.raises(CheckpointError, match="bfloat16|F16"):
        crossdistil.convert(tmp_path / "source", tmp_path / "half", to="oneflow", layout=layout, dtype=dtype)
    assert not (tmp_path / "half").exists()


# ------------------------------------------------------------------------------------------------ what OneFlow saved


@pytest.mark.parametrize("to", ["pytorch", "tf"])
@pytest.mark.parametrize("name", ["pretraining", "pretraining with copies", "square", "all heads", "distilbert"])
def test_what_oneflow_saved_is_the_same_model(tmp_path, saved, name, to):
    if (name, to) == ("distilbert", "tf"):
        with pytest.raises(CheckpointError, match="pre_classifier: Google's classifier has no hidden layer"):
            crossdistil.convert(saved[name].folder, tmp_path / "result", to=to, verify=True)
        return
    told = crossdistil.convert(saved[name].folder, tmp_path / "result", to=to)
    copies = {"copy of a tensor that it is tied to": 2, "buffer that follows from the configuration": 1}
    assert told["dropped"] == (copies if "copies" in name else {})
    assert_right(saved[name].model.outputs, tmp_path / "result")


def test_a_state_dict_beside_that_of_an_optimizer(tmp_path, models, flow):
    model = models.Bert(sources.BERT)
    models.randomise(model)
    optimizer = flow.optim.AdamW(model.parameters(), lr=0.01)
    batch = {"input_ids": np.full((2, 8), 3, np.int32), "token_type_ids": np.zeros((2, 8), np.int32)}
    batch["attention_mask"] = np.ones((2, 8), np.float32)
    before = model.bert.pooler.dense.weight.numpy().copy()
    model.bert.pooler.dense(model.bert.embeddings.word_embeddings(models.inputs(batch)[0])).square().mean().backward()
    optimizer.step()
    assert not np.array_equal(before, model.bert.pooler.dense.weight.numpy())
    sources.write_config(tmp_path / "elsewhere", sources.BERT, None)
    for step in range(2):  # the second time over the first, whose tensors stay in the folder under other numbers
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        flow.save(state, str(tmp_path / "snapshot"))
    told = crossdistil.convert(
        tmp_path / "snapshot", tmp_path / "result", to="pytorch", config=tmp_path / "elsewhere/config.json"
    )
    assert told["tensors"] == len(model.state_dict())
    assert_right(model.outputs, tmp_path / "result")


@pytest.mark.parametrize("meta", [True, False], ids=["shapes", "raw"])
@pytest.mark.parametrize("outputs", [0, sources.OUTPUTS], ids=["pretraining", "classifier"])
@pytest.mark.parametrize("name, to", [("erf", "pytorch"), ("tanh", "tf"), ("square", "tf")])
def test_variables_from_before_modules_are_the_same_model(tmp_path, models, name, outputs, meta, to):
    config = CONFIGS[name]
    variables = random_variables(models, config, outputs)
    folder = write_variables(tmp_path / "source", variables, config, outputs, meta)
    told = crossdistil.convert(folder, tmp_path / "result", to=to)
    assert told["dropped"] == {"state of the optimizer": 2 * len(variables)}
    assert_right(lambda batch: models.legacy_outputs(variables, config, batch, outputs=outputs), tmp_path / "result")


@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize("meta", [True, False], ids=["shapes", "raw"])
def test_the_student_of_a_distillation_before_modules(tmp_path, models, meta, with_teacher):
    variables = random_variables(models, sources.BERT, sources.OUTPUTS)
    student = {f"student-{name}": array for name, array in variables.items()}
    teacher = random_variables(models, sources.BERT, sources.OUTPUTS, seed=1) if with_teacher else {}
    folder = write_variables(tmp_path / "source", student | teacher, sources.BERT, sources.OUTPUTS, meta)
    told = crossdistil.convert(folder, tmp_path / "result", to="pytorch")
    assert told["tensors"] == len(variables) and sum(told["dropped"].values()) == 2 * len(student) + 3 * len(teacher)
    assert_right(
        lambda batch: models.legacy_outputs(student, sources.BERT, batch, "student-", sources.OUTPUTS), tmp_path / "result"
    )


# ------------------------------------------------------------------------------------------------ there and back, and proof


@pytest.mark.parametrize("to", ["pytorch", "tf", "mindspore"])
@pytest.mark.parametrize("name", ["pretraining", "square", "all heads", "distilbert"])
def test_there_and_back_no_bit_is_changed(tmp_path, flow, saved, name, to):
    if (name, to) == ("distilbert", "tf"):
        return  # refused, see above
    crossdistil.convert(saved[name].folder, tmp_path / "there", to=to)
    crossdistil.convert(tmp_path / "there", tmp_path / "back", to="oneflow")
    sources.assert_same(loaded(flow, tmp_path / "back/weights"), loaded(flow, saved[name].folder / "weights"))


@pytest.mark.parametrize("to", ["pytorch", "tf", "mindspore"])
@pytest.mark.parametrize("outputs", [0, sources.OUTPUTS], ids=["pretraining", "classifier"])
def test_variables_there_and_back_no_bit_is_changed(tmp_path, models, to, outputs):
    variables = random_variables(models, sources.BERT, outputs)
    folder = write_variables(tmp_path / "source", variables, sources.BERT, outputs, meta=False)
    crossdistil.convert(folder, tmp_path / "there", to=to)
    crossdistil.convert(tmp_path / "there", tmp_path / "back", to="oneflow", layout="legacy-raw")
    wanted = {name: array.reshape(-1) for name, array in variables.items()}
    sources.assert_same(models.raw_variables(tmp_path / "back/weights"), wanted)


@pytest.mark.parametrize("layout", ["state-dict", *LEGACY])
@pytest.mark.parametrize("family", sources.FAMILIES)
def test_every_family_is_read_back_from_oneflows_folders(tmp_path, flow, family, layout):
    tensors = sources.write_source(tmp_path / "source", sources.FAMILIES[family])
    crossdistil.convert(tmp_path / "source", tmp_path / "of", to="oneflow", layout=layout)
    if layout == "state-dict":
        sources.assert_same(loaded(flow, tmp_path / "of/weights"), tensors)
    sources.assert_same(sources.tensors_of(tmp_path / "of"), tensors)
    seen = crossdistil.inspect(tmp_path / "of")
    assert (seen["family"], seen["outputs"], seen["problems"], seen["dropped"]) == (family, sources.OUTPUTS, [], {})
    assert seen["heads"] == crossdistil.inspect(tmp_path / "source")["heads"]
    assert seen["heads"] or family == "gpt2"  # whose words are predicted with their table alone


def test_the_proof_has_oneflows_word_on_both_sides(tmp_path, saved):
    source = saved["all heads"].folder
    proof = crossdistil.convert(source, tmp_path / "there", to="pytorch", verify=True)["verification"]
    assert {"oneflow, source", "pytorch, result"} <= set(proof["differences"]) and proof["worst"] < sources.LIMIT
    proof = crossdistil.convert(tmp_path / "there", tmp_path / "back", to="oneflow", verify=True)["verification"]
    assert {"pytorch, source", "oneflow, result"} <= set(proof["differences"]) and proof["worst"] < sources.LIMIT
    assert {"hidden/0", "hidden/2", "pooled", "logits", "mlm", "nsp"} <= set(proof["differences"]["oneflow, result"])

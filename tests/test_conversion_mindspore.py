"""MindSpore as the referee of conversions: the model zoo's BERT, built from cells, loads what is written, strictly, and computes
what NumPy computes from the source; what it saves, with the state of an optimizer, is read as what it computes.

An encoder's own pooler, layers and heads are all compared. How the formats of files are read and written is tested elsewhere.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import crossdistil
from crossdistil.core.app.inspection import inspect
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.answer_heads import SPANS, TOKENS
from crossdistil.tests import conversion_sources as sources

pytestmark = pytest.mark.only_backend("mindspore")

FILES = {"ckpt": "model.ckpt", "ckpt-old": "model.ckpt", "safetensors": "model.safetensors"}


@pytest.fixture(scope="module")
def zoo():
    """The networks."""
    from crossdistil.tests import mindspore_zoo

    return mindspore_zoo


def electra():
    """The network that the zoo has not."""
    from crossdistil.tests.mindspore_electra import Electra

    return Electra(sources.FAMILIES["electra"], sources.OUTPUTS)


@pytest.fixture(scope="module")
def ms():
    """The framework."""
    import mindspore

    return mindspore


@pytest.fixture(scope="module")
def trained(tmp_path_factory, zoo, ms):
    """Checkpoints that MindSpore saved: name -> (network, its folder)."""
    root = tmp_path_factory.mktemp("trained")
    networks = {
        "pretraining": zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT)),
        "pretraining, old": zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT, old=True)),
        "pretraining, square": zoo.NetworkWithLoss(zoo.PreTraining(sources.SQUARE)),
        "classifier": zoo.NetworkWithLoss(zoo.Classifier(sources.TANH, sources.OUTPUTS)),
        "classifier alone": zoo.Classifier(sources.BERT, sources.OUTPUTS),
        "student": zoo.NetworkWithLoss(zoo.TinyBert(sources.BERT)),
        "electra": electra(),
    }
    configs = {"pretraining, square": sources.SQUARE, "classifier": sources.TANH, "electra": sources.FAMILIES["electra"]}
    made = {}
    for seed, (name, network) in enumerate(networks.items()):
        zoo.randomise(network, seed)
        folder = root / name.replace(", ", "-").replace(" ", "-")
        has_classifier = hasattr(network, "classifier") or name.startswith("classifier")
        sources.write_config(folder, configs.get(name, sources.BERT), sources.OUTPUTS if has_classifier else None)
        ms.save_checkpoint(network, str(folder / "bert-1_100.ckpt"), crc_check=True)
        made[name] = SimpleNamespace(network=network, folder=folder)
    return made


def loaded(ms, path, format="ckpt"):
    """Name -> array as MindSpore reads a file."""
    values = ms.load_checkpoint(str(path), format=format)
    return {name: (value.float() if value.dtype == ms.bfloat16 else value).asnumpy() for name, value in values.items()}


def assert_right(network, source):
    batch, reference = sources.expected(source)
    return sources.assert_agree(network.outputs(batch), reference, batch)


# ------------------------------------------------------------------------------------------------ what MindSpore loads


@pytest.mark.parametrize("config", [sources.BERT, sources.TANH, sources.SQUARE], ids=["erf", "tanh", "square"])
@pytest.mark.parametrize("layout", FILES)
def test_the_zoos_network_loads_what_is_written(tmp_path, zoo, layout, config):
    sources.write_source(tmp_path / "source", config, outputs=None)
    told = crossdistil.convert(tmp_path / "source", tmp_path / "ms", to="mindspore", layout=layout)
    network = zoo.NetworkWithLoss(zoo.PreTraining(config, old=layout == "ckpt-old"))
    file = FILES[layout]
    zoo.load_strictly(network, tmp_path / "ms" / file, format=file.rsplit(".")[-1])
    assert_right(network, tmp_path / "source")
    assert told["tensors"] == len(list(network.get_parameters())) and not (told["dropped"] or told["missing"] or told["added"])


@pytest.mark.parametrize("layout", ["ckpt", "safetensors"])
def test_the_zoos_classifier_loads_what_is_written(tmp_path, zoo, layout):
    sources.write_source(tmp_path / "source", sources.BERT, heads=False)
    crossdistil.convert(tmp_path / "source", tmp_path / "ms", to="mindspore", layout=layout)
    network = zoo.NetworkWithLoss(zoo.Classifier(sources.BERT, sources.OUTPUTS))
    zoo.load_strictly(network, tmp_path / "ms" / FILES[layout], format=FILES[layout].rsplit(".")[-1])
    assert_right(network, tmp_path / "source")


@pytest.mark.parametrize(("head", "last"), [(TOKENS, "dense_1"), (SPANS, "dense1")], ids=["BertNER", "BertSquad"])
def test_the_zoos_networks_of_each_token(tmp_path, zoo, ms, head, last):
    """They load what is written, but for the pooler that they do not use; and what they save is read as that head."""
    config, outputs = sources.BERT.answering(head), 2
    sources.write_source(tmp_path / "source", config, outputs, heads=False)
    crossdistil.convert(tmp_path / "source", tmp_path / "ms", to="mindspore")
    network = zoo.NetworkWithLoss(zoo.OfEachToken(config, outputs, last))
    lacking, unknown = ms.load_param_into_net(network, ms.load_checkpoint(str(tmp_path / "ms/model.ckpt")), strict_load=True)
    assert set(lacking) == {"bert.bert.dense.weight", "bert.bert.dense.bias"} and not unknown
    batch, reference = sources.expected(tmp_path / "source")
    sources.assert_agree({name: value for name, value in network.outputs(batch).items() if name != "pooled"}, reference, batch)
    zoo.randomise(network, 5)
    ms.save_checkpoint(network, str(tmp_path / "ms/model.ckpt"))
    (tmp_path / "ms/checksums.json").unlink()
    crossdistil.convert(tmp_path / "ms", tmp_path / "back", to="pytorch")
    assert_right(network, tmp_path / "back")
    assert inspect(tmp_path / "ms")["classifier"].endswith(head.what)
    if head == SPANS:  # whose names tell it without a class; a tagger's are those of a classifier of whole texts
        raw = json.loads((tmp_path / "ms/config.json").read_text())
        del raw["architectures"]
        (tmp_path / "ms/config.json").write_text(json.dumps(raw))
        crossdistil.convert(tmp_path / "ms", tmp_path / "by-names", to="pytorch")
        assert json.loads((tmp_path / "by-names/config.json").read_text())["architectures"] == ["BertForQuestionAnswering"]


def test_electra_in_cells_loads_what_is_written(tmp_path, zoo):
    sources.write_source(tmp_path / "source", sources.FAMILIES["electra"])
    crossdistil.convert(tmp_path / "source", tmp_path / "ms", to="mindspore")
    network = electra()
    zoo.load_strictly(network, tmp_path / "ms/model.ckpt")
    assert_right(network, tmp_path / "source")


@pytest.mark.parametrize("dtype, kind", [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
@pytest.mark.parametrize("layout", ["ckpt", "safetensors"])
def test_half_precision_is_rounded_to_the_nearest(tmp_path, ms, layout, dtype, kind):
    sources.write_source(tmp_path / "source", sources.BERT)
    crossdistil.convert(tmp_path / "source", tmp_path / "full", to="mindspore", layout=layout)
    crossdistil.convert(tmp_path / "source", tmp_path / "half", to="mindspore", layout=layout, dtype=dtype)
    file = FILES[layout]
    values = ms.load_checkpoint(str(tmp_path / "half" / file), format=file.rsplit(".")[-1])
    assert {value.dtype for value in values.values()} == {ms.float16 if dtype == "fp16" else ms.bfloat16}
    full = loaded(ms, tmp_path / "full" / file, file.rsplit(".")[-1])
    wanted = {name: array.astype(kind).astype(np.float32) for name, array in full.items()}
    sources.assert_same({name: value.float().asnumpy() for name, value in values.items()}, wanted)


# ------------------------------------------------------------------------------------------------ what MindSpore saved


@pytest.mark.parametrize("to", ["pytorch", "tf"])
@pytest.mark.parametrize(
    "name",
    ["pretraining", "pretraining, old", "pretraining, square", "classifier", "classifier alone", "student", "electra"],
)
def test_what_mindspore_saved_is_the_same_model(tmp_path, trained, name, to):
    if (name, to) == ("electra", "tf"):
        with pytest.raises(CheckpointError, match="Google's ELECTRA has none of this kind"):
            crossdistil.convert(trained[name].folder, tmp_path / "result", to=to)
        return
    told = crossdistil.convert(trained[name].folder, tmp_path / "result", to=to)
    assert told["source"]["names"] == ("mindspore-old" if "old" in name else "mindspore")
    assert_right(trained[name].network, tmp_path / "result")


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_that_mindspore_saved(tmp_path, zoo, ms, format, kind):
    network = zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT))
    zoo.randomise(network)
    crossdistil.convert(_saved(ms, network, tmp_path / "full"), tmp_path / "one", to="pytorch")
    values = [
        {"name": parameter.name, "data": ms.Tensor(parameter.asnumpy()).astype(getattr(ms, kind))}
        for parameter in network.get_parameters()
    ]
    half = _saved(ms, values, tmp_path / "half", format=format)
    crossdistil.convert(half, tmp_path / "two", to="pytorch")
    numpy_kind = np.float16 if kind == "float16" else ml_dtypes.bfloat16
    wanted = {name: array.astype(numpy_kind) for name, array in sources.tensors_of(tmp_path / "one").items()}
    sources.assert_same(sources.tensors_of(tmp_path / "two"), wanted)


def _saved(ms, content, folder, format="ckpt", **options):
    """A folder with a configuration and what MindSpore saves of `content`."""
    sources.write_config(folder, sources.BERT, None)
    ms.save_checkpoint(content, str(folder / f"net.{format}"), format=format, **options)
    # A folder is looked for files by their usual names.
    return folder if format == "ckpt" else (folder / f"net.{format}").rename(folder / "model.safetensors").parent


OPTIMIZERS = {
    "AdamWeightDecay, the zoo's": lambda ms, weights: ms.nn.AdamWeightDecay(weights),
    "Adam": lambda ms, weights: ms.nn.Adam(weights, use_amsgrad=True),
    "Adam with a schedule": lambda ms, weights: ms.nn.Adam(weights, ms.nn.exponential_decay_lr(0.1, 0.9, 10, 5, 1)),
    "Lamb, the zoo's": lambda ms, weights: ms.nn.Lamb(weights, learning_rate=1e-3),
    "AdamW": lambda ms, weights: ms.experimental.optim.AdamW(weights),
    "Momentum": lambda ms, weights: ms.nn.Momentum(weights, 0.1, 0.9),
    "SGD": lambda ms, weights: ms.nn.SGD(weights, 0.1, momentum=0.9),
    "RMSProp": lambda ms, weights: ms.nn.RMSProp(weights, centered=True),
    "in groups": lambda ms, weights: ms.nn.AdamWeightDecay(
        [{"params": weights[:9], "weight_decay": 0.01, "lr": 1e-3}, {"params": weights[9:], "lr": 1e-4}]
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_belongs_to_training_is_dropped_and_counted(tmp_path, zoo, ms, optimizer):
    network = zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT))
    zoo.randomise(network)
    own = {parameter.name for parameter in network.get_parameters()}
    step = ms.nn.TrainOneStepCell(network, OPTIMIZERS[optimizer](ms, list(network.trainable_params())))
    folder = _saved(ms, step, tmp_path / "step", append_dict={"epoch_num": 3, "step_num": 120}, crc_check=True)
    others = set(ms.load_checkpoint(str(folder / "net.ckpt"))) - own
    told = crossdistil.convert(folder, tmp_path / "result", to="pytorch")
    assert sum(told["dropped"].values()) == len(others)
    assert {reason.split()[0] for reason in told["dropped"]} == {"state"}
    assert told["tensors"] == len(own)
    assert_right(network, tmp_path / "result")


def test_a_step_of_training_in_mindspore_changes_the_result(tmp_path, zoo, ms):
    network = zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT))
    zoo.randomise(network)
    before = sources.tensors_of(_saved(ms, network, tmp_path / "before"))
    step = ms.nn.TrainOneStepCell(network, ms.nn.AdamWeightDecay(list(network.trainable_params()), learning_rate=0.01))
    batch, _ = sources.expected(tmp_path / "before")
    step(*zoo.inputs(batch))
    folder = _saved(ms, step, tmp_path / "after")
    after = sources.tensors_of(folder)
    assert not np.array_equal(before["bert.pooler.dense.weight"], after["bert.pooler.dense.weight"])
    assert_right(network, folder)


def test_the_state_of_a_loss_scale_is_dropped(tmp_path, zoo, ms):
    network = zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT))
    zoo.randomise(network)
    scale = ms.nn.DynamicLossScaleUpdateCell(2**16, 2, 1000)
    optimizer = ms.nn.Lamb(list(network.trainable_params()), learning_rate=1e-3)
    step = ms.nn.TrainOneStepWithLossScaleCell(network, optimizer, scale)
    told = crossdistil.convert(_saved(ms, step, tmp_path / "step"), tmp_path / "result", to="pytorch")
    assert told["dropped"]["state of the training"] >= 2
    assert_right(network, tmp_path / "result")


@pytest.mark.parametrize("family", sources.FAMILIES)
def test_hugging_faces_names_in_a_file_of_mindspore(tmp_path, ms, family):
    config = sources.FAMILIES[family]
    tensors = sources.random_tensors(config)
    sources.write_config(tmp_path / "elsewhere", config)
    values = [{"name": name, "data": ms.Tensor(array)} for name, array in tensors.items()]
    ms.save_checkpoint(values, str(tmp_path / "mindnlp.ckpt"))
    crossdistil.convert(
        tmp_path / "mindnlp.ckpt", tmp_path / "result", to="pytorch", config=tmp_path / "elsewhere/config.json"
    )
    sources.assert_same(sources.tensors_of(tmp_path / "result"), tensors)


def test_a_network_that_lost_a_parameter_is_refused(tmp_path, zoo, ms):
    network = zoo.NetworkWithLoss(zoo.PreTraining(sources.BERT))
    lost = "bert.bert.bert_encoder.layers.1.attention.attention.key_layer.bias"
    values = [{"name": one.name, "data": one} for one in network.get_parameters() if one.name != lost]
    with pytest.raises(CheckpointError, match=r"missing tensor bert\.encoder\.layer\.1\.attention\.self\.key\.bias"):
        crossdistil.convert(_saved(ms, values, tmp_path / "source"), tmp_path / "result", to="pytorch")
    assert not (tmp_path / "result").exists()


# ------------------------------------------------------------------------------------------------ there and back, and proof


@pytest.mark.parametrize("to", ["pytorch", "tf", "oneflow"])
@pytest.mark.parametrize("name", ["pretraining", "pretraining, old", "pretraining, square", "classifier", "electra"])
def test_there_and_back_no_bit_is_changed(tmp_path, ms, trained, name, to):
    if (name, to) == ("electra", "tf"):
        return  # refused, see above
    crossdistil.convert(trained[name].folder, tmp_path / "there", to=to)
    layout = "ckpt-old" if "old" in name else "ckpt"
    crossdistil.convert(tmp_path / "there", tmp_path / "back", to="mindspore", layout=layout)
    sources.assert_same(loaded(ms, tmp_path / "back/model.ckpt"), loaded(ms, trained[name].folder / "bert-1_100.ckpt"))


@pytest.mark.parametrize("layout", FILES)
@pytest.mark.parametrize("family", sources.FAMILIES)
def test_every_family_is_read_back_from_mindspores_files(tmp_path, ms, family, layout):
    tensors = sources.write_source(tmp_path / "source", sources.FAMILIES[family])
    crossdistil.convert(tmp_path / "source", tmp_path / "ms", to="mindspore", layout=layout)
    file = FILES[layout]
    found = loaded(ms, tmp_path / "ms" / file, file.rsplit(".")[-1])
    assert sorted(array.tobytes() for array in found.values()) == sorted(array.tobytes() for array in tensors.values())
    assert not any(name.endswith(("LayerNorm.weight", "_norm.bias", "_embeddings.weight")) for name in found)
    sources.assert_same(sources.tensors_of(tmp_path / "ms"), tensors)
    seen = inspect(tmp_path / "ms")
    assert (seen["family"], seen["outputs"], seen["problems"], seen["dropped"]) == (family, sources.OUTPUTS, [], {})
    assert seen["heads"] == inspect(tmp_path / "source")["heads"]
    assert seen["heads"] or family == "gpt2"  # whose words are predicted with their table alone


def test_the_proof_has_mindspores_word_on_both_sides(in_this_process, tmp_path, trained):
    source = trained["classifier"].folder
    proof = crossdistil.convert(source, tmp_path / "there", to="pytorch", verify=True)["verification"]
    assert {"mindspore, source", "pytorch, result"} <= set(proof["differences"]) and proof["worst"] < sources.LIMIT
    proof = crossdistil.convert(tmp_path / "there", tmp_path / "back", to="mindspore", verify=True)["verification"]
    assert {"pytorch, source", "mindspore, result"} <= set(proof["differences"]) and proof["worst"] < sources.LIMIT
    assert {"hidden/0", "hidden/2", "pooled", "logits"} <= set(proof["differences"]["mindspore, result"])

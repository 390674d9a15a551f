"""DistilBERT, ALBERT and ELECTRA: transformers is the referee for their meaning, and the float64 reference for each backend."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.architectures import part_of, pooler_names, tensor_shapes, used_tensors
from crossdistil.core.models.components import attention_bias
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.heads import decoders, head_shapes
from crossdistil.core.models.known_families import is_norm
from crossdistil.core.models.tree import unused_shapes
from crossdistil.core.optimizers import is_decayed
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.reference_values import RecordingOps
from crossdistil.tests.tiny_families import (
    ALBERT,
    DEBERTA_V2,
    DISTILBERT,
    ELECTRA,
    LABELS,
    NOMIC_BERT,
    VARIANTS,
    assert_close,
    each_compiled_variant,
    each_family,
    each_variant,
    everything,
    hugging_face_config,
    hugging_face_outputs,
    named_tensors,
    randomise,
)


def reference_outputs(config, parameters, batch):
    return make_forward(config.without_dropout(), everything(config))(ReferenceOps(), parameters, batch)


def random_batch(**options):
    batch = tiny.random_batch(rows=6, length=14, fill=0, **options)
    assert batch["token_type_ids"].any() and not batch["attention_mask"].all()
    return batch


def assert_as_hugging_face(model, config, parameters, batch):
    theirs, ours = hugging_face_outputs(model, config, batch), reference_outputs(config, parameters, batch)
    assert_close(theirs.logits, ours["logits"], "logits")
    real, inner = batch["attention_mask"] > 0, len(config.layer_prefixes(0))
    assert len(theirs.hidden_states) == inner * config.num_hidden_layers + 1
    for layer, found in enumerate(theirs.hidden_states[::inner]):
        assert_close(found.numpy()[real], ours[f"hidden/{layer}"][real], f"hidden state {layer}")
    bias = attention_bias(ReferenceOps(), batch["attention_mask"].astype(np.float64))
    assert len(theirs.attentions) == inner * config.num_hidden_layers
    for layer, found in enumerate(theirs.attentions[::inner], 1):
        probabilities = ReferenceOps().softmax(ours[f"scores/{layer}"] + bias)
        rows = np.broadcast_to(real[:, None, :], found.shape[:3])
        assert_close(found.numpy()[rows], probabilities[rows], f"attention {layer}")


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("outputs", [1, 3])
@each_variant
def test_a_folder_of_ours_means_the_same_to_transformers(config, outputs, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = tiny.write_model(tmp_path / "model", config, LABELS if outputs == 3 else None, seed=4)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(theirs).__name__ == f"{config.family.title}ForSequenceClassification"
    shapes = {name: tensor.shape for name, tensor in named_tensors(theirs).items()}
    assert tensor_shapes(config, outputs) == shapes
    assert_as_hugging_face(theirs, config, model.parameters, random_batch(seed=6))


@pytest.mark.only_backend("torch")
@each_variant
def test_a_folder_of_transformers_means_the_same_to_us(config, tmp_path):
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_config(hugging_face_config(config, num_labels=3))
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config == config and ours.outputs == 3 and not ours.new
    assert_as_hugging_face(theirs, config, ours.parameters, random_batch(seed=7))


@pytest.mark.only_backend("torch")
@each_family
def test_the_defaults_are_those_of_transformers(config):
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(config.family.model_type)
    # What DeBERTa's code asks for with a default, and its class has not; TinyBERT's ReLU is no key of transformers.
    beside = {"position_buckets": -1, "share_att_key": False, "norm_rel_ebd": "none", "classifier_relu": False}
    for key, value in type(config)().model_dump().items():
        assert value == getattr(theirs, key, beside.get(key)), key


@pytest.mark.only_backend("torch")
@each_variant
def test_encoders_without_their_prefix_and_with_heads_of_pretraining(config, tmp_path):
    """As transformers writes AutoModel and AutoModelForPreTraining."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

    pooled = config.family.pooler_in_encoder
    kinds = (AutoModel, AutoModelForPreTraining, AutoModelForMaskedLM)
    for number, kind in enumerate(kind for kind in kinds if type(hugging_face_config(config)) in kind._model_mapping):
        theirs = kind.from_config(hugging_face_config(config))
        randomise(theirs)
        theirs.save_pretrained(tmp_path / str(number))
        tensors = load_file(tmp_path / str(number) / "model.safetensors")
        root = "" if kind is AutoModel else config.family.root
        buffers = [f"{config.layer_prefixes(0)[0].removeprefix(config.family.root)}{name}" for name in config.family.buffers]
        for buffer in buffers or ["embeddings.position_ids"]:  # of transformers 4
            tensors[root + buffer] = np.arange(40)[None]
        save_file(tensors, tmp_path / str(number) / "model.safetensors")
        ours = load_model(tmp_path / str(number))
        expected = set(tensor_shapes(config, None))
        has_pooler = pooled and any("pooler" in name for name in tensors)
        if not has_pooler:
            expected -= set(pooler_names(config))
        expected |= set(pooler_names(config)) & set(tensors)  # of a family whose head of words has the classifier's hidden map
        assert set(ours.parameters) == expected and ours.outputs is None
        assert set(ours.new) == set(tensor_shapes(config, 1)) - expected
        encoder = getattr(theirs, config.family.root.removesuffix("."), theirs)
        own = {name.removeprefix(config.family.root): array for name, array in ours.parameters.items()}
        unused = {name.removeprefix(config.family.root) for name in unused_shapes(config)}
        for name, tensor in named_tensors(encoder).items():
            if name in unused:
                continue
            np.testing.assert_array_equal(own[name], tensor, err_msg=name)


@each_compiled_variant
def test_every_output_is_the_reference_s(engine, config):
    parameters, batch = tiny.random_parameters(config, 3, seed=1), tiny.random_batch(fill=1, outputs=3, seed=3)
    names = sorted(everything(config))
    forward = make_forward(config.without_dropout(), frozenset(names))

    def listed(ops, parameters, batch):
        made = forward(ops, parameters, batch)
        return [made[name] for name in names]

    expected = reference_outputs(config, parameters, batch)
    assert set(expected) == set(names)
    for name, found in zip(names, engine.infer(listed, parameters)(batch), strict=True):
        assert found.shape == expected[name].shape
        assert_close(found, expected[name], name)


@pytest.mark.only_backend("torch")
@each_variant
def test_half_precision(make_engine, config):
    engine, batch, parameters = make_engine(precision="bf16"), tiny.random_batch(), tiny.random_parameters(config)
    names = ["logits", "hidden/0", "scores/1"]
    forward = make_forward(config.without_dropout(), frozenset(names))

    def outputs(ops, params, batch):
        made = forward(ops, params, batch)
        return [made[name] for name in names]

    expected = forward(ReferenceOps(), parameters, batch)
    frozen = engine.load_frozen(parameters)
    # Tables and normalisations stay in full precision.
    full = {name for name, tensor in frozen.items() if str(tensor.dtype) == "torch.float32"}
    tables = ("_embeddings.", "wte.", "wpe.", ".relative_attention_bias.")
    assert full == {name for name in parameters if is_norm(name) or any(table in name for table in tables)}
    for name, found in zip(names, engine.infer(outputs, parameters)(batch), strict=True):
        real = np.asarray(expected[name])
        assert np.abs(found - real).max() < 0.06 * np.abs(real).max(), name


def test_what_decays():
    for config in VARIANTS.values():
        kept = {name for name, shape in tensor_shapes(config, 2).items() if not is_decayed(name)}
        assert kept == {name for name, shape in tensor_shapes(config, 2).items() if len(shape) == 1}


class ReadingParameters(dict):
    """Remembers which parameters are asked for."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


WANTED = [{"hidden/0"}, {"scores/1"}, {"hidden/1"}, {"hidden/1", "keys/2", "values/2"}, {"pooled"}, {"logits", "queries/2"}]


@pytest.mark.parametrize("wanted", WANTED, ids=[" ".join(sorted(wanted)) for wanted in WANTED])
@each_variant
def test_the_used_tensors_are_those_that_are_read(config, wanted):
    parameters = ReadingParameters(tiny.random_parameters(config))
    made = make_forward(config.without_dropout(), frozenset(wanted))(ReferenceOps(), parameters, tiny.random_batch())
    assert set(made) == wanted
    assert used_tensors(config, frozenset(wanted)) == parameters.read


def test_dropout_is_where_transformers_has_it():
    common = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
    distilbert = {"dropout": 0.1, "attention_dropout": 0.2, "seq_classif_dropout": 0.3}
    for config, update, layer, head in (
        (DISTILBERT, distilbert, [0.2, 0.1, 0.1], [0.3]),
        (ALBERT, {**common, "classifier_dropout_prob": 0.3}, [0.2, 0.1, 0.0], [0.3]),
        (ELECTRA, {**common, "classifier_dropout": 0.3}, [0.2, 0.1, 0.1], [0.3, 0.3]),
        (ELECTRA, common, [0.2, 0.1, 0.1], [0.1, 0.1]),
    ):
        dropping, parameters = config.model_copy(update=update), tiny.random_parameters(config)
        for rated, factor in ((dropping, None), (dropping.with_dropout(0.4), 0.4), (dropping.without_dropout(), 0.0)):
            ops = RecordingOps()
            make_forward(rated)(ops, parameters, tiny.random_batch())
            places = [0.1, *layer, *layer, *head]
            expected = places if factor is None else [factor if rate else 0.0 for rate in places]
            assert [rate for _, rate in ops.places] == expected, (config.family.model_type, rated)


def test_every_tensor_is_in_one_part():
    for config in VARIANTS.values():
        found = {name: part_of(config, name) for name in tensor_shapes(config, 2)}
        pooler = {"pooler"} if "pooler" in config.family.by_role else set()
        assert set(found.values()) == {"embeddings", "encoder", "classifier"} | pooler
        for place in ("pooler", "classifier"):
            parts = config.family.at(place)
            assert {name for name, part in found.items() if part == place} == {n for part in parts for n in part.tensors(config)}
        layers = tuple(prefix for layer in range(config.num_hidden_layers) for prefix in config.layer_prefixes(layer))
        beside = tuple(name for part in config.family.at("encoder") for name in part.tensors())
        assert all((part == "encoder") == name.startswith((*layers, *beside)) for name, part in found.items())


@pytest.mark.parametrize(
    ("config", "keys", "message"),
    [
        (DISTILBERT, {"hidden_size": 64}, "hidden_size is 64, but dim, which means the same, is 32"),
        (DISTILBERT, {"n_heads": 5}, "dim 32 is not a multiple of n_heads 5"),
        (ALBERT, {"num_hidden_groups": 3}, "num_hidden_groups 3 is more than num_hidden_layers 2"),
        (ALBERT, {"embedding_size": 8}, "embedding_size is 8, the tensors say 16"),
        (ELECTRA, {"hidden_act": "mish"}, "hidden_act"),
        (ELECTRA, {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (DEBERTA_V2, {"conv_kernel_size": 3}, "conv_kernel_size is 3: a convolution beside the first layer"),
        (DEBERTA_V2, {"pos_att_type": "c2p|p2p"}, "pos_att_type: got 'c2p|p2p', expected c2p, p2c, or both"),
        (DEBERTA_V2, {"pos_att_type": None}, "relative_attention is true, and pos_att_type names no term"),
        (DEBERTA_V2, {"relative_attention": False}, "norm_rel_ebd is layer_norm, and relative_attention"),
        (DEBERTA_V2, {"embedding_size": 16}, "embedding_size is 16: a deberta-v2's embeddings are as wide as hidden_size"),
        (NOMIC_BERT, {"prenorm": True}, "prenorm is True: layers that are normalised before, not after"),
        (NOMIC_BERT, {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5: only a part of each head is rotated"),
        (NOMIC_BERT, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 9}}, "rope_type: unknown value 'yarn'; known: def"),
        (NOMIC_BERT, {"n_embd": 64}, "n_embd is 64, but hidden_size, which means the same, is 32"),
        (NOMIC_BERT, {"num_attention_heads": 32}, "make heads of 1; expected an even number"),
        (ELECTRA, {"id2label": {"0": "a"}}, "id2label names 1 classes, but classifier.out_proj.weight has 2 rows"),
    ],
)
def test_what_these_models_do_not_compute_is_refused(tmp_path, config, keys, message):
    tiny.write_model(tmp_path / "model", config)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model")


def test_heads_are_told_from_what_does_not_belong(tmp_path):
    for config in VARIANTS.values():
        tiny.write_model(tmp_path / "model", config)
        path = tmp_path / "model" / "model.safetensors"
        tensors = load_file(path)
        heads = {name: np.zeros(shape, np.float32) for own in head_shapes(config).values() for name, shape in own.items()}
        save_file(tensors | heads | {name: np.zeros((2, 2), np.float32) for name in decoders(config).values()}, path)
        assert load_model(tmp_path / "model").parameters.keys() == tensors.keys()
        save_file(tensors | {config.family.root + "strange": np.zeros(2, np.float32)}, path)
        with pytest.raises(CheckpointError, match=f"unexpected tensor {config.family.root}strange"):
            load_model(tmp_path / "model")
        removed = next(iter(tensor_shapes(config, 2)))
        save_file({name: array for name, array in tensors.items() if name != removed}, path)
        with pytest.raises(CheckpointError, match=f"missing tensor {removed}"):
            load_model(tmp_path / "model")


def test_a_published_deberta(tmp_path):
    """Its config.json has neither class nor `legacy`, its file both heads of the pre-training."""
    said = DEBERTA_V2.model_dump(include=DEBERTA_V2.model_fields_set) | {"model_type": "deberta-v2", "attention_head_size": 8}
    shapes = tensor_shapes(DEBERTA_V2, None) | head_shapes(DEBERTA_V2)["lm"] | unused_shapes(DEBERTA_V2)
    tensors = {name: np.random.default_rng(3).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    (tmp_path / "config.json").write_text(json.dumps(said | {"pooler_hidden_size": 32}))
    save_file(tensors, tmp_path / "model.safetensors")
    encoder = load_model(tmp_path)
    assert encoder.config == DEBERTA_V2 and encoder.parameters.keys() == tensor_shapes(DEBERTA_V2, None).keys()
    assert load_model(tmp_path, words=True).missing_words
    (tmp_path / "config.json").write_text(json.dumps(said | {"legacy": False}))
    speaks = load_model(tmp_path, words=True)
    assert not speaks.missing_words and head_shapes(DEBERTA_V2)["lm"].keys() <= speaks.parameters.keys()


def test_a_published_nomic_bert(tmp_path):
    """Its config.json has the keys of its own code, most of them GPT-2's."""
    said = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 48, "n_positions": 8192, "max_trained_positions": 40}
    said |= {"activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "resid_pdrop": 0.0}
    said |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "prenorm": False, "parallel_block": False, "causal": False}
    said |= {"qkv_proj_bias": False, "use_rms_norm": False}
    said |= {"rotary_emb_base": 500, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_scaling_factor": None}
    said |= {"vocab_size": NOMIC_BERT.vocab_size, "model_type": "nomic_bert", "scale_attn_weights": True, "type_vocab_size": 2}
    tiny.write_model(tmp_path / "model", NOMIC_BERT)
    (tmp_path / "model" / "config.json").write_text(json.dumps(said))
    model = load_model(tmp_path / "model")
    rotated = NOMIC_BERT.rope_parameters.model_copy(update={"rope_theta": 500.0})
    assert model.config == NOMIC_BERT.model_copy(update={"rope_parameters": rotated}) and not model.notes
    assert model.config.rotary_base(0) == 500

"""Keys of a config.json that we do not have: transformers says what they mean for the logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import load_model
from crossdistil.core.config_file import model_config
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.architectures import CONFIGURATIONS
from crossdistil.core.models.spec import ACTIVATIONS
from crossdistil.tests import tiny
from crossdistil.tests.config_dumps import DUMPS
from crossdistil.tests.predicting import predicted
from crossdistil.tests.tiny_families import FAMILIES, class_of, hugging_face_config, randomise

MODELS = {"bert": tiny.CONFIG, **FAMILIES}
del MODELS["mpnet"]  # whose tokenizer is not that of the tiny vocabulary
TEXTS = ["the film was good", "a dull, poor story and not so warm", "b"]
USUAL = {"_name_or_path": "x", "transformers_version": "4.6.0", "use_cache": True, "gradient_checkpointing": False}


def change_config(folder: Path, drop: tuple[str, ...] = (), **keys) -> None:
    """Other entries in a config.json."""
    path = folder / "config.json"
    raw = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop}
    path.write_text(json.dumps(raw | keys))


def written(folder: Path, config, kind: str = "ForSequenceClassification", **keys):
    """A random model of transformers, in a folder with a vocabulary."""
    model = class_of(config, kind)(hugging_face_config(config, **keys)).eval()
    randomise(model)
    model.save_pretrained(folder)
    tiny.write_vocabulary(folder)
    return model


def their_probabilities(folder: Path) -> np.ndarray:
    """What transformers makes of the texts, from the folder."""
    import torch
    from transformers import AutoModelForSequenceClassification, BertTokenizer

    tokens = BertTokenizer.from_pretrained(str(folder))(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, return_dict=True).eval()  # ModernBERT's fails without
    if model.config.model_type in ("distilbert", "gpt2"):  # GPT-2 would add the rows of words 0 and 1
        tokens.pop("token_type_ids", None)
    with torch.no_grad():
        return torch.softmax(model(**tokens, return_dict=True).logits.double(), 1).numpy()


def our_probabilities(folder: Path, options: EngineOptions) -> np.ndarray:
    """What `predict` does."""
    return np.array([list(row.probabilities.values()) for row in predicted(folder, TEXTS, options)])


@pytest.fixture
def options(pytestconfig):
    return EngineOptions(pytestconfig.getoption("--device"))


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("family", MODELS)
def test_dumps_of_every_age_give_the_logits_of_transformers(family, tmp_path, options):
    """And each names in one line what it left out."""
    theirs = written(tmp_path, MODELS[family])
    plain = (tmp_path / "config.json").read_text()
    expected = their_probabilities(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    assert load_model(tmp_path).notes == (), "a whole dump of this version has nothing unusual"
    for style, keys in DUMPS.items():
        (tmp_path / "config.json").write_text(plain)
        change_config(tmp_path, **{key: keys[key] for key in keys if key not in CONFIGURATIONS[family].model_fields})
        np.testing.assert_allclose(their_probabilities(tmp_path), expected, atol=1e-6, err_msg=style)
        np.testing.assert_allclose(our_probabilities(tmp_path, options), expected, atol=2e-5, err_msg=style)
        (note,) = load_model(tmp_path).notes
        start, _, named = note.partition(" here: ")
        assert start == f"{tmp_path / 'config.json'}: keys that change nothing"
        assert set(named.split(", ")) <= keys.keys() and len(named.split(", ")) >= 3, style


def test_what_every_file_has_is_not_named(tmp_path):
    tiny.write_model(tmp_path / "model")
    change_config(tmp_path / "model", **USUAL, directionality="bidi", pooler_type="first_token_transform")
    assert load_model(tmp_path / "model").notes == ()
    change_config(tmp_path / "model", auto_map={"AutoModel": "their_code.TheirModel"})
    (note,) = load_model(tmp_path / "model").notes
    assert note.endswith("auto_map names code of the model's own, which is not run: it is computed as a plain bert")


def test_many_and_odd_keys_stay_one_line(tmp_path):
    tiny.write_model(tmp_path / "model")
    change_config(tmp_path / "model", **{f"key{number}\n\x1b[31m": number for number in range(1000)}, **{"x" * 10**6: 1})
    (note,) = load_model(tmp_path / "model").notes
    assert note.endswith(" and 961 more") and note.isprintable() and len(note) < 1500


REFUSED = [
    ("is_decoder", True),
    ("add_cross_attention", True),
    ("is_encoder_decoder", True),
    ("position_embedding_type", "relative_key_query"),
    ("position_embedding_type", "alibi"),
    ("use_relative_positions", True),
    ("relative_attention", True),
    ("max_relative_positions", 128),
    ("rotary_value", True),
    ("pruned_heads", {"0": [1, 2]}),
    ("quantization_config", {"load_in_8bit": True}),
    ("feed_forward_type", "geglu"),
    ("ln_type", "preln"),
    ("norm_first", True),
    ("is_causal", True),
    ("sliding_window", 64),
    ("scale_embedding", True),
    ("norm_type", "rms_norm"),
    ("num_key_value_heads", 2),
    ("attention_head_size", 64),
]


# But of families that compute it.
@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        pytest.param(family, key, value, id=f"{key} {value} {family}")
        for family in MODELS
        for key, value in REFUSED
        if key not in type(MODELS[family]).model_fields
    ],
)
def test_what_changes_the_computation_is_refused(family, key, value):
    raw = {"model_type": family, **MODELS[family].model_dump(), key: value}
    with pytest.raises(CheckpointError, match=f"^config.json: {key} is "):
        model_config(raw, "config.json")


@pytest.mark.parametrize(
    "keys",
    [
        {"is_decoder": False, "add_cross_attention": None, "is_encoder_decoder": 0, "position_embedding_type": None},
        {"pruned_heads": {"0": []}, "relative_attention": False, "max_relative_positions": -1, "quantization_config": None},
        {"embedding_size": 32, "feed_forward_type": "original", "ln_type": "postln", "pad_token_id": None},
        {"attention_head_size": 8, "num_key_value_heads": 4, "sliding_window": None, "is_causal": False, "norm_first": False},
    ],
)
def test_the_same_keys_may_say_that_nothing_is_changed(keys):
    raw = {"model_type": "bert", **tiny.CONFIG.model_dump()} | keys
    assert model_config(raw, "config.json").without_dropout() == tiny.STILL.model_copy(
        update={"pad_token_id": keys.get("pad_token_id", 0)}
    )


@pytest.mark.parametrize(
    ("family", "own", "wrong", "value"),
    [
        ("bert", "hidden_size", "hiden_size", 32),
        ("bert", "num_hidden_layers", "num_hidden_layer", 2),
        ("bert", "layer_norm_eps", "layer_norm_epsilon", 1e-5),
        ("bert", "num_attention_heads", "num_heads", 4),
        ("bert", "hidden_act", "activation_function", "relu"),
        ("bert", "classifier_relu", "classifer_relu", True),
        ("distilbert", "activation", "hidden_act", "relu"),
        ("distilbert", "n_layers", "n_layer", 2),
        ("albert", "num_hidden_groups", "num_hidden_group", 1),
        ("electra", "embedding_size", "embeding_size", 16),
    ],
)
def test_a_misspelt_key_of_ours_is_refused(family, own, wrong, value):
    raw = {"model_type": family, **MODELS[family].model_dump()}
    assert model_config(raw | {wrong: value}, "config.json") == MODELS[family], "where the right one is there, it is another key"
    del raw[own]
    with pytest.raises(CheckpointError, match=f"^config.json: {wrong}: unknown key; did you mean '{own}'[?]$"):
        model_config(raw | {wrong: value}, "config.json")


def test_distilbert_reads_what_transformers_takes_for_its_keys(tmp_path):
    """transformers' attribute_map."""
    raw = {"model_type": "distilbert", **MODELS["distilbert"].model_dump()}
    for own, alias in (("dim", "hidden_size"), ("n_heads", "num_attention_heads"), ("n_layers", "num_hidden_layers")):
        raw[alias] = raw.pop(own)
    assert model_config(raw, "config.json") == MODELS["distilbert"]
    with pytest.raises(CheckpointError, match="hidden_size is 32, but dim, which means the same, is 64"):
        model_config(raw | {"dim": 64}, "config.json")


@pytest.mark.only_backend("torch")
def test_activations_are_known_by_what_transformers_computes(tmp_path, options):
    """A name is ours if, and only if, its function is one of ours; no other is suggested for what it looks like."""
    import torch
    from transformers.activations import ACT2CLS, ACT2FN

    x = torch.linspace(-30, 30, 60001)
    functions = {"erf": torch.nn.functional.gelu(x), "relu": torch.relu(x)}
    functions["silu"] = torch.nn.functional.silu(x)
    functions["tanh"] = torch.nn.functional.gelu(x, approximate="tanh")
    for name in ACT2CLS:
        y = ACT2FN[name](x).detach()
        same = [kind for kind, expected in functions.items() if torch.allclose(y, expected, atol=2e-6)]
        assert [ACTIVATIONS.get(name)] == (same or [None]), name
        if not same:
            raw = {"model_type": "bert", **tiny.CONFIG.model_dump(), "hidden_act": name}
            with pytest.raises(CheckpointError, match=f"^config.json: hidden_act: unknown value '{name}'; known: ") as caught:
                model_config(raw, "config.json")
            assert "did you mean" not in str(caught.value)
    written(tmp_path, tiny.CONFIG)
    for name in ACTIVATIONS:
        change_config(tmp_path, hidden_act=name)
        np.testing.assert_allclose(our_probabilities(tmp_path, options), their_probabilities(tmp_path), atol=2e-5, err_msg=name)


def test_weights_that_are_no_floats_are_refused(tmp_path):
    tiny.write_model(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file(tensors | {name: tensors[name].astype(np.int8)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} is of type I8, expected F64, F32"):
        load_model(tmp_path / "model")

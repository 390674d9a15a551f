"""Every command reads a model as `convert` does: names, container and model type decide together whether it goes through the
converters; and the table of words may have more rows than there are tokens."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.converters.canonical import read_canonical
from crossdistil.core.app import converted
from crossdistil.core.app.finished_model import load_classifier
from crossdistil.core.app.inference import evaluate
from crossdistil.core.app.models import is_canonical, model_folder
from crossdistil.core.app.preparing import explained
from crossdistil.core.augmentation.language_model import Gap, GapFiller, load_language_model
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CheckpointError
from crossdistil.core.recipe import load_recipe
from crossdistil.core.vocabulary_fit import vocabulary_notes
from crossdistil.tests import tiny
from crossdistil.tests.predicting import predicted
from crossdistil.tests.test_config_keys import (
    MODELS,
    TEXTS,
    change_config,
    options,
    our_probabilities,
    their_probabilities,
    written,
)
from crossdistil.tests.tiny_families import randomise

__all__ = ["options"]
SPELLINGS = {
    "gamma and beta": lambda name: re.sub("(?<=Norm[.])bias", "beta", re.sub("(?<=Norm[.])weight", "gamma", name)),
    "data parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"_orig_mod.module.{name}",
}


def respelt(folder, spell) -> None:
    """The weights under other names."""
    path = folder / "model.safetensors"
    save_file({spell(name): array for name, array in load_file(path).items()}, path, {"format": "pt"})


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("family", MODELS)
def test_names_that_convert_reads_are_read_by_all(family, spelling, tmp_path, options):
    written(tmp_path, MODELS[family])
    expected = their_probabilities(tmp_path)
    before = set(load_file(tmp_path / "model.safetensors"))
    respelt(tmp_path, SPELLINGS[spelling])
    changed = set(load_file(tmp_path / "model.safetensors")) != before
    assert is_canonical(tmp_path) != changed
    np.testing.assert_allclose(our_probabilities(tmp_path, options), expected, atol=2e-5)


@pytest.mark.only_backend("torch")
def test_roberta_s_positions_start_behind_its_padding_token_s(tmp_path, options):
    """With a vocabulary of word pieces, as some published ones have; positions start behind the padding token's."""
    import torch
    from transformers import BertTokenizer, RobertaConfig, RobertaForSequenceClassification

    sizes = tiny.CONFIG.model_dump(exclude={"classifier_relu", "classifier_dropout", "max_position_embeddings", "pad_token_id"})
    config = RobertaConfig(**sizes, max_position_embeddings=41, pad_token_id=0, num_labels=3)
    theirs = RobertaForSequenceClassification(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    tiny.write_vocabulary(tmp_path)
    tokens = BertTokenizer.from_pretrained(str(tmp_path))(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(theirs(**tokens).logits.double(), 1).numpy()
    assert is_canonical(tmp_path)
    np.testing.assert_allclose(our_probabilities(tmp_path, options), expected, atol=2e-5)


def test_a_recipe_is_explained_with_the_model_that_run_would_read(tmp_path):
    model = tiny.write_model(tmp_path / "model")
    respelt(tmp_path / "model", SPELLINGS["data parallel"])
    overrides = [f"student.init.from={tmp_path / 'model'}", "task.name=sst-2", f"task.data={tmp_path}"]
    found, missing = explained(load_recipe("finetune", overrides), "finetune")
    assert found.context.student == model.config and not missing


def test_only_the_configuration_and_the_header_are_read_of_a_canonical_folder(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "model")
    monkeypatch.setattr(converted, "is_checkpoint", lambda path: pytest.fail("the formats were looked at"))
    monkeypatch.setattr(converted, "convert", lambda *_: pytest.fail("a conversion was made"))
    weights = tmp_path / "model" / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    data = bytearray(weights.read_bytes())
    data[header:] = b"\xff" * (len(data) - header)
    weights.write_bytes(data)
    assert model_folder(tmp_path / "model") == tmp_path / "model"


@pytest.mark.parametrize("family", ["distilbert", "megatron-bert", "roberta-prelayernorm"])
def test_a_family_without_model_type_is_known_by_its_names(family, tmp_path):
    """As the first dumps of DistilBERT are. MegatronBERT's names start as BERT's do."""
    model = tiny.write_model(tmp_path / "model", MODELS[family])
    change_config(tmp_path / "model", drop=("model_type", "architectures"))
    assert not is_canonical(tmp_path / "model")
    found = load_model(model_folder(tmp_path / "model"))
    assert found.config == MODELS[family] and found.outputs == model.outputs
    assert not any("Google's code" in note for note in read_canonical(tmp_path / "model").notes)


@pytest.mark.parametrize("family", ["bert", "albert", "electra", "megatron-bert"])
def test_an_encoder_without_model_type_and_root_is_known_by_its_names(family, tmp_path):
    """A MegatronBERT's are then BERT's but for the normalisations."""
    tiny.write_model(tmp_path / "model", MODELS[family])
    path = tmp_path / "model" / "model.safetensors"
    root = MODELS[family].family.root
    save_file({name.removeprefix(root): array for name, array in load_file(path).items() if name.startswith(root)}, path)
    (tmp_path / "model" / "checksums.json").unlink(missing_ok=True)
    change_config(tmp_path / "model", drop=("model_type", "architectures"))
    assert read_canonical(tmp_path / "model").config.family.model_type == family


def longer(folder, rows: int) -> None:
    """A table of words with more rows, or fewer."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, array in tensors.items():
        if name.endswith(("word_embeddings.weight", "predictions.bias", "decoder.bias")):
            tensors[name] = np.resize(array, (rows, *array.shape[1:]))
    save_file(tensors, path, {"format": "pt"})
    change_config(folder, vocab_size=rows)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("rows", [len(tiny.VOCABULARY) + 1, 128, 192])
def test_a_padded_table_of_words_gives_the_same(rows, tmp_path, options):
    tiny.write_model(tmp_path / "model")
    expected = our_probabilities(tmp_path / "model", options)
    longer(tmp_path / "model", rows)
    np.testing.assert_array_equal(our_probabilities(tmp_path / "model", options), expected)
    assert not vocabulary_notes("m", load_model(tmp_path / "model").config, load_tokenizer(tmp_path / "model"))


def test_far_more_rows_than_tokens_are_told(tmp_path):
    tiny.write_model(tmp_path / "model")
    longer(tmp_path / "model", 4000)
    said = []
    load_classifier(tmp_path / "model", said.append)
    (line,) = said
    assert line.startswith(f"note: {tmp_path / 'model'}: the table of words has 4,000 rows, the tokenizer only ")


@pytest.mark.parametrize("use", ["predict", "evaluate", "language model"])
def test_a_table_with_too_few_rows_names_the_remedy(use, tmp_path, tiny_task, options):
    rows = len(tiny.VOCABULARY) - 3
    if use == "language model":
        tiny_masked_model(tmp_path / "model")
    else:
        tiny.write_model(tmp_path / "model")
    longer(tmp_path / "model", rows)
    what = f"vocab_size is {rows}, but the tokenizer has {rows + 3} tokens; .*--resize-vocabulary {rows + 3}"
    with pytest.raises(CheckpointError, match=what):
        if use == "predict":
            predicted(tmp_path / "model", ["a"], options)
        elif use == "evaluate":
            evaluate(tmp_path / "model", "sst-2", tiny_task, "dev", "torch", options)
        else:
            load_language_model(tmp_path / "model")


def tiny_masked_model(folder) -> None:
    """A masked language model with random weights, written without any framework."""
    from crossdistil.core.models.architectures import tensor_shapes

    generator = np.random.default_rng(3)
    shapes = tensor_shapes(tiny.CONFIG, None, words=True)
    folder.mkdir()
    tensors = {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **tiny.CONFIG.model_dump()}))
    tiny.write_vocabulary(folder)


@pytest.mark.only_backend("torch")
def test_rows_that_are_no_words_are_never_proposed(tmp_path):
    from crossdistil.backends.registry import load_engine
    from crossdistil.core.engine import EngineOptions

    tiny_masked_model(tmp_path / "model")
    engine, found = load_engine("torch", EngineOptions("cpu")), []
    for rows in (len(tiny.VOCABULARY), 128):
        longer(tmp_path / "model", rows)
        model = load_language_model(tmp_path / "model")
        bias = model.parameters["cls.predictions.bias"].copy()
        bias[len(tiny.VOCABULARY) :] = 100.0
        model = replace(model, parameters={**model.parameters, "cls.predictions.bias": bias})
        found.append(GapFiller(model, engine, 4).fill([[20, 21, 22]], [Gap(0, 1, 2)], 9))
    assert found[0] == found[1] and found[0][0]

"""Classifiers of tokens, choices and spans of every family: in a conversion, in NumPy and on each backend as transformers has
them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.convert import ConvertOptions, convert
from crossdistil.converters.verify import make_outputs, not_computed, sample_batch, wanted_outputs
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.answer_heads import CHOICES, CLASSIFIERS, OTHERS, SENTENCES, SPANS, TOKENS
from crossdistil.core.models.architectures import make_forward, tensor_shapes
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.families.electra import ElectraConfig
from crossdistil.core.models.outputs import LOGITS
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.conversion_sources import assert_same, tensors_of
from crossdistil.tests.tiny_families import ABSENT, FAMILIES, MODERNBERT, VARIANTS, class_of, hugging_face_config, randomise

LABELS = {"id2label": {"0": "O", "1": "B-X", "2": "I-X"}, "label2id": {"O": 0, "B-X": 1, "I-X": 2}}
_CLASSES = [(name, head) for name in ("bert", *FAMILIES, "modernbert with biases") for head in OTHERS]
_CLASSES = [(name, head) for name, head in _CLASSES if (name, head.ending) not in ABSENT]
each_class = pytest.mark.parametrize(("name", "head"), _CLASSES, ids=[f"{name}-{head.name}" for name, head in _CLASSES])


def written(folder, config, head):
    """A random model of transformers' class, in a folder."""
    labels = LABELS if head == TOKENS else {}
    model = class_of(config, head.ending)(hugging_face_config(config, **labels)).eval()
    randomise(model)
    model.save_pretrained(folder)
    return model


def their_logits(model, config, head, batch):
    """(rows, ...) of the same batch, in float64."""
    import torch

    names = [name for name in batch if config.type_vocab_size or "type" not in name]
    given = {name: torch.from_numpy(batch[name]).long() for name in names}
    if head == CHOICES:
        given = {name: array[:, None] for name, array in given.items()}
    with torch.no_grad():
        found = model.double()(**given, return_dict=True)
    return (torch.stack([found.start_logits, found.end_logits], -1) if head == SPANS else found.logits).numpy()


@pytest.mark.only_backend("torch")
@each_class
def test_a_conversion_computes_them_and_brings_them_back(name, head, tmp_path):
    config = VARIANTS[name]
    source, there, back = (tmp_path / name for name in ("source", "there", "back"))
    theirs = written(source, config, head)
    if isinstance(config, ElectraConfig) and head == CHOICES:
        with pytest.raises(CheckpointError, match="sequence_summary"):
            read_canonical(source)
        return
    checkpoint = read_canonical(source)
    assert checkpoint.task == head and not checkpoint.dropped
    alone = [line for line in not_computed(checkpoint) if "pooler" not in line]  # which transformers' class may hold
    assert not alone
    batch = sample_batch(checkpoint)
    # transformers counts RoBERTa's positions by which tokens are no padding.
    batch["input_ids"] = np.where(batch["input_ids"] == (config.pad_token_id or 0), 5, batch["input_ids"])
    expected = their_logits(theirs, config, head, batch)
    parameters = {name: tensor.load().astype(np.float64) for name, tensor in checkpoint.tensors.items()}
    outputs = make_outputs(checkpoint)(ReferenceOps(), parameters, batch)
    found = dict(zip(wanted_outputs(checkpoint), outputs))[LOGITS]
    real = batch["attention_mask"] > 0 if head.token_map else slice(None)
    # transformers' rotations and scales of distances are made in float32.
    limit = 1e-6 if config.family.model_type in ("modernbert", "nomic_bert", "deberta-v2") else 1e-9
    np.testing.assert_allclose(found[real], expected[real], rtol=limit, atol=limit)
    convert(source, there, ConvertOptions("mindspore" if head == TOKENS else "oneflow"))
    convert(there, back, ConvertOptions("pytorch"))
    assert_same(tensors_of(back), tensors_of(source))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, back))
    assert after["architectures"] == before["architectures"] and after.get("id2label") == before.get("id2label")


@pytest.mark.parametrize("family", [kind for kind, chosen in CONFIGURATIONS.items() if chosen.family.is_encoder])
def test_each_head_has_tensors_of_its_own_beside_the_encoder(family):
    config = VARIANTS[family]
    encoder = tensor_shapes(config, None).keys()
    for head in CLASSIFIERS:
        own = {name: shape for name, shape in tensor_shapes(config.answering(head), 3).items() if name not in encoder}
        biased = family != "gpt2" or bool(head.token_map)  # whose classifier of texts has none
        assert ((3,) in own.values()) == biased and (3, config.hidden_size) in own.values(), head.name
        if head not in (SENTENCES, CHOICES) and family != "modernbert":
            assert list(own) == [f"{head.token_map}.weight", f"{head.token_map}.bias"]


@pytest.mark.parametrize("head", [TOKENS], ids=lambda head: head.name)
def test_a_hidden_map_of_each_token_is_the_same_on_every_backend(engine, head):
    """ModernBERT's alone: those of the others are one linear map."""
    config = MODERNBERT.answering(head).without_dropout()
    parameters, batch = tiny.random_parameters(config, 3, seed=3), tiny.random_batch(rows=3, length=14, fill=1, seed=3)
    forward = make_forward(config, frozenset({LOGITS}))
    expected = forward(ReferenceOps(), parameters, batch)[LOGITS]

    def logits(ops, params, batch):
        return [forward(ops, params, batch)[LOGITS]]

    [found] = engine.infer(logits, parameters)(batch)
    assert found.shape == (3, 14, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)

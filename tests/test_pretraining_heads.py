"""The heads of pre-training of all families: transformers is the referee for their meaning, the float64 reference for each
backend."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.heads import decoders, head_shapes
from crossdistil.core.models.known_families import is_norm
from crossdistil.core.models.pretraining import make_pretraining
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import (
    ALIKE,
    ELECTRA,
    OF_EACH,
    VARIANTS,
    assert_close,
    compiled,
    each_variant,
    hugging_face_config,
    hugging_face_outputs,
    named_tensors,
    of_depth,
    randomise,
)

SECOND = {"nsp": "seq_relationship_logits", "sop": "sop_logits"}
OTHER_ENCODERS = ("ernie with tasks", "distilbert with a ReLU", "albert with groups", "albert of one width")
OTHER_ENCODERS += ("deberta-v2 with maps of distances", "deberta-v2 with one term", "deberta-v2 without distances")
"""Variants whose heads are those of the family's first one."""
ENDINGS = {"ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction"}
"""Of transformers' classes with heads of pre-training."""


def classes(config):
    """transformers' classes of a model, and in each the names of the output that are heads of ours."""
    family = config.family
    for heads, ending in family.classes.items():
        if any(getattr(config, key) != said for head in heads for key, said in family.head_keys.get(head, {}).items()):
            continue
        words, *pairs = heads
        outputs = {"prediction_logits": words, SECOND[pairs[0]]: pairs[0]} if pairs else {"logits": words}
        yield f"{family.title}{ending}", outputs


# Entries of a file that hold a second time what another one holds.
TWICE = {
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "predictions.decoder.bias": "predictions.bias",
    "lm_head.decoder.bias": "lm_head.bias",
}


def random_heads(config, seed=0, tied=True):
    """An encoder with random weights and all heads of its family."""
    generator = np.random.default_rng((seed, 1))  # another one's than the encoder's
    parameters = tiny.random_parameters(config, seed=seed)
    shapes = {name: shape for own in head_shapes(config).values() for name, shape in own.items()}
    if not tied:
        shapes |= dict.fromkeys(decoders(config).values(), (config.vocab_size, config.embedding_size))
    for name, shape in shapes.items():
        values = generator.normal(1.0 if is_norm(name) and name.endswith("weight") else 0.0, 0.2, shape)
        parameters[name] = values.astype(np.float32)
    return parameters


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@each_variant
def test_the_heads_are_those_of_transformers(config, tied):
    import transformers

    batch = tiny.random_batch(rows=6, length=14, fill=0, seed=8)
    real = batch["attention_mask"] > 0
    for kind, heads in classes(config):
        tied = tied or "lm" in heads.values()  # which has no weight of its own
        theirs = getattr(transformers, kind)(hugging_face_config(config, tie_word_embeddings=tied))
        randomise(theirs)
        parameters = named_tensors(theirs, copies=True)  # XLM-R names the decoder first
        if not tied:  # then transformers computes with the second one
            parameters |= {own: parameters[other] for other, own in TWICE.items() if other in parameters}
        wanted = frozenset({f"hidden/{config.num_hidden_layers}"})
        ours = make_pretraining(config, frozenset(heads.values()), wanted, tied)(ReferenceOps(), parameters, batch)
        assert set(ours) == set(heads.values()) | wanted
        found = hugging_face_outputs(theirs, config, batch)
        for output, head in heads.items():
            logits = found[output].numpy()
            assert logits.shape == ours[head].shape
            if logits.shape[:2] == real.shape:
                logits, ours[head] = logits[real], ours[head][real]
            # Up to 20 in size, of sums over 32 products.
            assert_close(logits, ours[head], f"{kind} {head}", tolerance=2e-5)
        # Together with the encoder's, the names that we ask for are those that it has.
        own = {name: shape for head in heads.values() for name, shape in head_shapes(config)[head].items()}
        expected = {name: tuple(array.shape) for name, array in parameters.items() if not is_encoder_s(config, name)}
        optional = {*TWICE, *decoders(config).values()}
        assert own == {name: shape for name, shape in expected.items() if name not in optional}
        assert {decoders(config).get(head) for head in heads.values()} & set(parameters) or tied or "mlm" not in heads.values()


def is_encoder_s(config, name):
    return name in tensor_shapes(config, None)


@pytest.mark.parametrize("config", compiled(VARIANTS, (*ALIKE, *OTHER_ENCODERS)))
def test_every_head_is_the_reference_s(engine, config):
    if getattr(config, "num_hidden_groups", 1) == 1:
        config = of_depth(config, 1)  # what deeper encoders compute, test_families shows
    heads = frozenset(head_shapes(config))
    parameters, batch = random_heads(config, seed=2), tiny.random_batch(seed=9)
    function = make_pretraining(config, heads, frozenset({"hidden/0", "hidden/1"}))
    names = sorted([*heads, "hidden/0", "hidden/1"])

    def listed(ops, parameters, batch):
        made = function(ops, parameters, batch)
        return [made[name] for name in names]

    expected = function(ReferenceOps(), parameters, batch)
    shapes = dict.fromkeys(("mlm", "lm", "clm", "generator"), (5, 12, 86))
    shapes |= {"nsp": (5, 2), "sop": (5, 2), "discriminator": (5, 12)}
    for name, found in zip(names, engine.infer(listed, parameters)(batch), strict=True):
        assert found.shape == expected[name].shape == shapes.get(name, (5, 12, 32))
        assert_close(found, expected[name], name)


def test_a_decoder_of_its_own_is_used_where_it_is_not_tied():
    batch = tiny.random_batch(seed=4)
    for config in VARIANTS.values():
        words = frozenset(decoders(config))
        parameters = random_heads(config, tied=False)
        embeddings = parameters[config.family.name("words") + ".weight"]
        apart = make_pretraining(config, words, tied=False)(ReferenceOps(), parameters, batch)
        together = make_pretraining(config, words)(ReferenceOps(), parameters, batch)
        parameters |= dict.fromkeys(decoders(config).values(), embeddings)
        same = make_pretraining(config, words, tied=False)(ReferenceOps(), parameters, batch)
        for name in words:
            np.testing.assert_array_equal(same[name], together[name])
            assert np.abs(apart[name] - together[name]).max() > 0.1


def test_heads_of_other_families_are_refused():
    with pytest.raises(ValueError, match="electra has no head mlm, nsp, only discriminator, generator"):
        make_pretraining(ELECTRA, frozenset({"mlm", "nsp"}))
    assert head_shapes(VARIANTS["bert"]).keys() == {"mlm", "nsp"}


@pytest.mark.only_backend("torch")
def test_every_class_of_transformers_with_heads_of_pretraining_is_known():
    import transformers

    for kind, config in OF_EACH.items():
        family, endings = config.family, ENDINGS | ({"LMHeadModel"} if config.family.block.causal else set())
        there = {ending for ending in endings if hasattr(transformers, family.title + ending)}
        assert there == set(family.classes.values()), kind


def test_dropout_is_off_and_the_encoder_goes_no_further_than_it_must():
    class CountingOps(ReferenceOps):
        norms = 0

        def layer_norm(self, x, weight, bias, epsilon):
            self.norms += 1
            return super().layer_norm(x, weight, bias, epsilon)

    for config in VARIANTS.values():
        dropping, layers = config.with_dropout(0.3), config.num_hidden_layers * len(config.layer_prefixes(0))
        ops = CountingOps()  # it refuses dropout
        assert make_pretraining(dropping, frozenset(), frozenset({"hidden/0"}))(
            ops, random_heads(config), tiny.random_batch()
        ).keys() == {"hidden/0"}
        roles = config.family.by_role
        assert ops.norms == ("embeddings_norm" in roles)
        ops = CountingOps()
        make_pretraining(dropping, frozenset(head_shapes(config)))(ops, random_heads(config), tiny.random_batch())
        distances, words = getattr(config, "normalises_distances", False), head_shapes(config).keys() & {"lm", *decoders(config)}
        transforms = len(words) if "words.norm" in roles else 0
        once = ("embeddings_norm" in roles) + ("final_norm" in roles) - roles["attention_norm"].from_layer
        assert ops.norms == once + 2 * layers + distances + transforms

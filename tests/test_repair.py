"""Word embeddings the wrong way round: told only by sizes that are known, refused where these contradict one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdistil.converters.repair import flipped_word_embeddings, repair_message
from crossdistil.core.errors import CheckpointError

NAME = "bert.embeddings.word_embeddings.weight"
NORM = {"bert.embeddings.LayerNorm.weight": (768,), "bert.embeddings.LayerNorm.bias": (768,)}
BERT = {"model_type": "bert", "vocab_size": 28996, "hidden_size": 768}


def flipped(shape, config=None, others=None):
    return flipped_word_embeddings(shape, NAME, config, others or {})


@pytest.mark.parametrize(
    ("config", "others"),
    [
        (BERT, {}),
        ({"vocab_size": 28996}, {}),
        ({"hidden_size": 768}, {}),
        ({"dim": 768, "model_type": "distilbert"}, {}),
        ({"hidden_size": 1024, "embedding_size": 768, "model_type": "electra"}, {}),
        ({"vocab_size": 30522, "hidden_size": 768}, {}),  # the converter's default, which is how tables get flipped
        (None, NORM),
        (None, {"cls.predictions.bias": (28996,)}),
        (None, {"cls/predictions/output_bias": (28996,)}),
        (None, {"predictions.decoder.bias": (28996,)}),
        (None, {"vocab_projector.bias": (28996,)}),
        (None, {"generator_lm_head.bias": (28996,)}),
        (None, {"bert.cls1.output_bias": (28996,)}),
        (None, {"bert/embeddings/layer_normalization/gamma": (768,)}),
        (None, {"bert.bert.bert_embedding_postprocessor.layernorm.gamma": (768,)}),
        (BERT, NORM | {"cls.predictions.bias": (28996,)}),
    ],
)
def test_both_orientations_are_told_apart(config, others):
    assert flipped((768, 28996), config, others)
    assert not flipped((28996, 768), config, others)


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"output_bias": (28996,), "cls/seq_relationship/output_bias": (768,)},
        {"classifier.bias": (768,), "cls.predictions.transform.LayerNorm.weight": (768,)},
        {"bert.embeddings.position_embeddings.weight": (512, 768)},
    ],
)
def test_nothing_is_done_where_nothing_is_known(others):
    assert not flipped((768, 28996), None, others) and not flipped((28996, 768), {}, others)


def test_a_square_is_never_flipped():
    assert not flipped((768, 768), {"vocab_size": 768, "hidden_size": 768}, NORM)
    assert not flipped((512, 512), BERT, NORM)


@pytest.mark.parametrize(
    ("shape", "config", "others", "message"),
    [
        ((312, 21128), BERT, {}, "neither way round: .* say 28996 words of width 768$"),
        ((312, 21128), BERT, NORM, "neither way round"),
        ((312, 21128), None, NORM, "neither way round: .* say [?] words of width 768$"),
        ((768, 28996), BERT, {"cls.predictions.bias": (768,)}, "both ways round: .* say 768 or 28996 words of width 768$"),
        ((768, 28996), BERT, {"bert.embeddings.LayerNorm.weight": (28996,)}, "both ways round"),
        ((28996, 768), {"vocab_size": 768, "hidden_size": 28996}, NORM, "both ways round"),
    ],
)
def test_contradictions_are_refused(shape, config, others, message):
    with pytest.raises(CheckpointError, match=f"^{NAME}: word embeddings of shape .* fit {message}"):
        flipped(shape, config, others)


def test_other_numbers_of_axes_are_refused():
    for shape in ((), (768,), (1, 28996, 768)):
        with pytest.raises(CheckpointError, match="expected \\(vocabulary, hidden\\)"):
            flipped(shape, BERT)


def test_a_configuration_with_nonsense_is_no_evidence():
    assert not flipped((768, 28996), {"vocab_size": "28996", "hidden_size": [768]})


@given(st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_transposing_what_is_flipped_gives_what_is_not(words, width, by_config):
    config = {"vocab_size": words, "hidden_size": width} if by_config else None
    others = {} if by_config else {"bert.embeddings.LayerNorm.bias": (width,), "cls.predictions.bias": (words,)}
    assert not flipped((words, width), config, others)
    assert flipped((width, words), config, others) == (words != width)


def test_the_message():
    assert repair_message((768, 28996)) == "word embeddings were (768, 28996), the wrong way round; transposed"

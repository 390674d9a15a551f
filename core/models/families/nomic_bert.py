"""Nomic-BERT (Nussbaum et al. 2024), the encoder of nomic-embed-text: BERT with rotary positions, gated feed-forward parts and no
biases in its layers.

The names are those of the published files, which transformers writes as well: queries, keys and values are one map there, three
in its classes. The published `config.json` has keys of GPT-2's kind, which are read as transformers' and written as these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from ..parts import DENSE, EMBEDDINGS, LAYER, NEVER, NORM, TABLE, Family, Part, classifier_parts, words_parts
from ..spec import Activation
from .bert import BertKeys
from .modernbert import Rotation

_WIDTH, _INNER = "hidden_size", "intermediate_size"
_WORDS = "nomic_bert.embeddings.word_embeddings"
_BASE = 1000.0

NOMIC_BERT = Family(
    "nomic_bert",
    "NomicBert",
    "nomic_bert.",
    (
        Part("words", _WORDS, TABLE, ("vocab_size", _WIDTH), EMBEDDINGS),
        Part("types", "nomic_bert.embeddings.token_type_embeddings", TABLE, ("type_vocab_size", _WIDTH), EMBEDDINGS),
        Part("embeddings_norm", "nomic_bert.emb_ln", NORM, (_WIDTH,), EMBEDDINGS),
        Part("attention_input", "attn.Wqkv", DENSE, ("three_widths", _WIDTH), LAYER, biased=NEVER),
        Part("attention_output", "attn.out_proj", DENSE, (_WIDTH, _WIDTH), LAYER, biased=NEVER),
        Part("attention_norm", "norm1", NORM, (_WIDTH,), LAYER),
        Part("intermediate", "mlp.fc11", DENSE, (_INNER, _WIDTH), LAYER, biased=NEVER),
        Part("gate", "mlp.fc12", DENSE, (_INNER, _WIDTH), LAYER, biased=NEVER),
        Part("output", "mlp.fc2", DENSE, (_WIDTH, _INNER), LAYER, biased=NEVER),
        Part("output_norm", "norm2", NORM, (_WIDTH,), LAYER),
        *classifier_parts("nomic_bert.pooler.dense"),
        *words_parts(
            "mlm",
            _WIDTH,
            _WORDS,
            transform="cls.predictions.transform.dense",
            norm="cls.predictions.transform.layer_norm",
            bias="cls.predictions.bias",
            decoder="cls.predictions.decoder",
        ),
    ),
    layer="nomic_bert.encoder.layers.{layer}.",
    pooler_in_encoder=False,
    classes={("mlm",): "ForMaskedLM"},
    in_googles_code=False,
    classifies_tokens=True,
    answers_questions=False,
)
_OFF = (None, False, 0)


class NomicBertConfig(BertKeys):
    """A Nomic-BERT encoder with a classification or regression head."""

    family = NOMIC_BERT
    aliases = {
        "n_embd": _WIDTH,
        "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers",
        "n_inner": _INNER,
        "max_trained_positions": "max_position_embeddings",
        "layer_norm_epsilon": "layer_norm_eps",
        "resid_pdrop": "hidden_dropout_prob",
        "attn_pdrop": "attention_probs_dropout_prob",
    }
    ignored_keys = frozenset(
        # What no family computes otherwise is refused for all of them, and biases by the tensors. Up to max_trained_positions, as
        # far as is computed here, nothing is stretched.
        "head_dim n_positions rotary_scaling_factor rotary_emb_scale_base activation_function rotary_emb_base embd_pdrop "
        "dense_seq_output fused_bias_fc fused_dropout_add_ln pad_vocab_size_multiple parallel_block_tied_norm "
        "reorder_and_upcast_attn use_flash_attn use_xentropy mlp_fc1_bias mlp_fc2_bias qkv_proj_bias use_rms_norm "
        "scale_attn_weights scale_attn_by_inverse_layer_idx prenorm causal".split()
    )
    computed_otherwise = {
        "parallel_block": (_OFF, "attention and feed-forward part side by side"),
        "rotary_emb_fraction": ((None, 1.0), "only a part of each head is rotated"),
        "rotary_emb_interleaved": (_OFF, "pairs of neighbours are rotated, not the two halves of a head"),
    }

    vocab_size: int = Field(30528, ge=1)
    hidden_act: Activation = "silu"
    hidden_dropout_prob: float = Field(0.0, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.0, ge=0, lt=1)
    max_position_embeddings: int = Field(2048, ge=1)
    rope_parameters: Rotation = Rotation(rope_theta=_BASE)

    @model_validator(mode="after")
    def _heads_have_halves(self) -> NomicBertConfig:
        if self.head_size % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} and num_attention_heads {self.num_attention_heads} make heads of "
                f"{self.head_size}; expected an even number, whose halves are rotated"
            )
        return self

    @classmethod
    def current_keys(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The published files name the gated part as a whole, and the base of the angles alone."""
        keys = super().current_keys(raw)
        gated, base = keys.pop("activation_function", None), keys.pop("rotary_emb_base", None)
        if gated is not None:
            keys.setdefault("hidden_act", {"swiglu": "silu", "geglu": "gelu"}.get(str(gated), gated))
        if keys.get("rope_parameters") is None:
            keys.pop("rope_parameters", None)
            if base is not None:
                keys["rope_parameters"] = {"rope_theta": base}
        return keys

    @property
    def three_widths(self) -> int:
        """Queries, keys and values side by side."""
        return 3 * self.hidden_size

    def rotary_base(self, layer: int) -> float:
        """The base of the angles by which queries and keys of layer `layer` (from 0) are rotated."""
        return self.rope_parameters.rope_theta

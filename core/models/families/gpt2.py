"""GPT-2 (Radford et al. 2019): tokens that see only those before them, learnt positions, normalisation before the layers' parts
and once more behind them, and words that are predicted with the table of words itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from ..parts import (
    CLASSIFIER,
    CONV1D,
    DENSE,
    EMBEDDINGS,
    ENCODER,
    LAYER,
    NEVER,
    NORM,
    OUTPUTS,
    TABLE,
    TENSOR,
    Block,
    Family,
    Part,
)
from ..spec import Activation, OneWidthConfig

_WIDTH = "hidden_size"
_WORDS = "transformer.wte"
_END = 50256

GPT2 = Family(
    "gpt2",
    "GPT2",
    "transformer.",
    (
        Part("words", _WORDS, TABLE, ("vocab_size", _WIDTH), EMBEDDINGS),
        Part("positions", "transformer.wpe", TABLE, ("max_position_embeddings", _WIDTH), EMBEDDINGS),
        Part("attention_norm", "ln_1", NORM, (_WIDTH,), LAYER),
        Part("attention_input", "attn.c_attn", CONV1D, (_WIDTH, "three_widths"), LAYER),
        Part("attention_output", "attn.c_proj", CONV1D, (_WIDTH, _WIDTH), LAYER),
        Part("output_norm", "ln_2", NORM, (_WIDTH,), LAYER),
        Part("intermediate", "mlp.c_fc", CONV1D, (_WIDTH, "intermediate_size"), LAYER),
        Part("output", "mlp.c_proj", CONV1D, ("intermediate_size", _WIDTH), LAYER),
        Part("final_norm", "transformer.ln_f", NORM, (_WIDTH,), ENCODER),
        Part("classifier", "score", DENSE, (OUTPUTS, _WIDTH), CLASSIFIER, biased=NEVER),
        Part("words.decoder", "lm_head.weight", TENSOR, ("vocab_size", _WIDTH), "clm", f"{_WORDS}.weight"),
    ),
    layer="transformer.h.{layer}.",
    block=Block(normalised_before=True, causal=True),
    pooler_in_encoder=False,
    classes={("clm",): "LMHeadModel"},
    buffers=("attn.bias", "attn.masked_bias"),
    in_googles_code=False,
)


class Gpt2Config(OneWidthConfig):
    """A GPT-2 with the head that predicts the next word, or with a classifier of the last token."""

    family = GPT2
    common = {
        "n_positions": "max_position_embeddings",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "activation_function": "hidden_act",
        "embd_pdrop": "hidden_dropout_prob",
        "attn_pdrop": "attention_probs_dropout_prob",
        "resid_pdrop": "attention_output_dropout",
        "layer_norm_epsilon": "layer_norm_eps",
    }
    aliases = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    ignored_keys = frozenset(
        # The last ones are of the second head of transformers' GPT2DoubleHeadsModel, which every dump has.
        """n_ctx reorder_and_upcast_attn scale_attn_weights scale_attn_by_inverse_layer_idx summary_type summary_use_proj
        summary_activation summary_proj_to_labels summary_first_dropout""".split()
    )

    vocab_size: int = Field(50257, ge=1)
    n_positions: int = Field(1024, ge=1)
    n_embd: int = Field(768, ge=1)
    n_layer: int = Field(12, ge=1)
    n_head: int = Field(12, ge=1)
    n_inner: int | None = Field(None, ge=1)
    """Inner width of the feed-forward part; None: four times the width."""
    activation_function: Activation = "gelu_new"
    resid_pdrop: float = Field(0.1, ge=0, lt=1)
    embd_pdrop: float = Field(0.1, ge=0, lt=1)
    attn_pdrop: float = Field(0.1, ge=0, lt=1)
    layer_norm_epsilon: float = Field(1e-5, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    pad_token_id: int | None = None
    """A classifier of transformers takes the last token that is another one; GPT-2 itself has none."""
    bos_token_id: int | None = _END
    eos_token_id: int | list[int] | None = _END

    @model_validator(mode="before")
    @classmethod
    def _ends_are_of_the_vocabulary(cls, given: Any) -> Any:
        """The number of GPT-2's own `<|endoftext|>` is that of no token of a smaller vocabulary."""
        size = given.get("vocab_size") if isinstance(given, Mapping) else None
        outside = {key: None for key in ("bos_token_id", "eos_token_id") if type(size) is int and size <= _END}
        return {**outside, **given} if outside else given

    @property
    def max_position_embeddings(self) -> int:
        """Rows of the positions' table."""
        return self.n_positions

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.n_embd

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return self.n_layer

    @property
    def num_attention_heads(self) -> int:
        """Number of heads of each layer."""
        return self.n_head

    @property
    def intermediate_size(self) -> int:
        """Inner width of the feed-forward part."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def three_widths(self) -> int:
        """Queries, keys and values side by side."""
        return 3 * self.n_embd

    @property
    def hidden_act(self) -> Activation:
        """Activation of the feed-forward part."""
        return self.activation_function

    @property
    def layer_norm_eps(self) -> float:
        """Epsilon of the normalisations."""
        return self.layer_norm_epsilon

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout rate of the embeddings."""
        return self.embd_pdrop

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout rate of the attention probabilities."""
        return self.attn_pdrop

    @property
    def attention_output_dropout(self) -> float:
        """Dropout rate of what either part of a layer adds."""
        return self.resid_pdrop

    @property
    def output_dropout(self) -> float:
        """The same."""
        return self.resid_pdrop

    @property
    def head_dropout(self) -> float:
        """There is none before the classifier."""
        return 0.0

    @property
    def type_vocab_size(self) -> int:
        """There are no token types."""
        return 0

    def with_dropout(self, rate: float) -> Gpt2Config:
        """The same model with every dropout rate set to `rate`."""
        return self.model_copy(update=dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), rate))

"""What a BERT-family model is: its configuration, the name and shape of each tensor, and how a new one is drawn.

The canonical form is Hugging Face's: its configuration keys, tensor names and layouts (`Linear.weight` is (out, in)).
"""

from __future__ import annotations

import zlib
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

# `gelu_new` and `gelu_pytorch_tanh` are Hugging Face's two names of the tanh approximation that Google's TF code uses.
ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "relu": "relu"}


class BertConfig(BaseModel):
    """A BERT encoder with a classification or regression head; the keys are those of a Hugging Face `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(30522, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int = Field(0, ge=0)
    classifier_relu: bool = False
    """TinyBERT's published code puts a ReLU between pooler and classifier. No key of Hugging Face, whose model differs."""

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> BertConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier (Hugging Face: `classifier_dropout`, else the hidden rate)."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def without_dropout(self) -> BertConfig:
        """The same model with every dropout rate 0."""
        return self.with_dropout(0.0)

    def with_dropout(self, rate: float) -> BertConfig:
        """The same model with every dropout rate set to `rate`."""
        return self.model_copy(
            update={"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate, "classifier_dropout": None}
        )


# Keys of a Hugging Face config.json that do not change what our model computes.
IGNORED_CONFIG_KEYS = frozenset(
    """architectures model_type id2label label2id problem_type torch_dtype dtype transformers_version use_cache
    _name_or_path finetuning_task gradient_checkpointing position_embedding_type bos_token_id eos_token_id
    sep_token_id is_decoder add_cross_attention tie_word_embeddings num_labels output_attentions
    output_hidden_states return_dict directionality pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type crossdistil""".split()
)


def config_keys(raw: dict[str, Any]) -> dict[str, Any]:
    """The entries of a `config.json` that make a `BertConfig`; what is left over is refused by the model itself."""
    return {key: value for key, value in raw.items() if key not in IGNORED_CONFIG_KEYS}


_LAYER_TENSORS = {
    "attention.self.query": ("hidden", "hidden"),
    "attention.self.key": ("hidden", "hidden"),
    "attention.self.value": ("hidden", "hidden"),
    "attention.output.dense": ("hidden", "hidden"),
    "intermediate.dense": ("intermediate", "hidden"),
    "output.dense": ("hidden", "intermediate"),
}


def layer_prefix(layer: int) -> str:
    """Where the tensors of encoder layer `layer` (from 0) live."""
    return f"bert.encoder.layer.{layer}."


def tensor_shapes(config: BertConfig, outputs: int | None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a classifier with `outputs` logits (1 for regression), in Hugging Face's order;
    None is an encoder without a classifier."""
    sizes = {"hidden": config.hidden_size, "intermediate": config.intermediate_size}
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "bert.embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
    }

    def norm(name: str) -> None:
        shapes[name + ".weight"] = shapes[name + ".bias"] = (hidden,)

    norm("bert.embeddings.LayerNorm")
    for layer in range(config.num_hidden_layers):
        for name, (rows, columns) in _LAYER_TENSORS.items():
            shapes[f"{layer_prefix(layer)}{name}.weight"] = (sizes[rows], sizes[columns])
            shapes[f"{layer_prefix(layer)}{name}.bias"] = (sizes[rows],)
            if name in ("attention.output.dense", "output.dense"):
                norm(f"{layer_prefix(layer)}{name.removesuffix('dense')}LayerNorm")
    shapes["bert.pooler.dense.weight"], shapes["bert.pooler.dense.bias"] = (hidden, hidden), (hidden,)
    if outputs is not None:
        shapes["classifier.weight"], shapes["classifier.bias"] = (outputs, hidden), (outputs,)
    return shapes


def initial_tensor(name: str, shape: tuple[int, ...], standard_deviation: float, seed: int) -> np.ndarray:
    """A new float32 tensor as Google's BERT draws it: truncated normal at two deviations, biases 0, norms 1.

    Each tensor has its own random stream, made from `seed` and its name: the same name gets the same values on every
    backend, and a layer more or less does not change the others.
    """
    if "LayerNorm" in name:
        return np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, np.float32)
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
        outside = np.abs(values) > 2
    return values * np.float32(standard_deviation)

"""The same models in transformers and in Google's graphs: what each is there, with random weights that all matter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.tests import tiny

LABELS = {0: "no", 1: "perhaps", 2: "yes"}
SIZES = {
    "vocab_size": len(tiny.VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 3,
    "hidden_act": "gelu",
}
SHARED = {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2, "embedding_size": 16, "hidden_act": "gelu_new"}
"""ALBERT with all that it can have."""
_DISTILBERT = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}
"""DistilBERT's own key -> everybody's."""


@dataclass(frozen=True)
class Case:
    """A class of transformers, and Google's graph of the same."""

    name: str
    graph: str
    """`build_...` of `google_graphs`."""
    heads: dict[str, str]
    """Attribute of what the class returns -> output of the graph."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the graph."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Where the configuration is not `SIZES`."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration with Google's keys."""
        return SIZES | self.sizes

    @property
    def distilled(self) -> bool:
        """Whether the graph has token types and a pooler, and the class has not."""
        return self.name.startswith("DistilBert")

    @property
    def classifies(self) -> bool:
        """Whether it has the `LABELS`."""
        return not self.options.keys().isdisjoint(("labels", "tokens"))


_ONE_GROUP = {"num_hidden_groups": 1, "inner_group_num": 1, "embedding_size": 16}
_LABELLED, _TAGGED, _BARE = {"heads": (), "labels": len(LABELS)}, {"heads": (), "tokens": len(LABELS)}, {"heads": ()}
_ANSWERS = {"start_logits": "start", "end_logits": "end"}
CASES = {
    case.name: case
    for case in (
        Case("BertForPreTraining", "build_bert", {"prediction_logits": "mlm", "seq_relationship_logits": "nsp"}),
        Case("BertForSequenceClassification", "build_bert", {"logits": "logits"}, _LABELLED),
        Case("BertModel", "build_bert", {"pooler_output": "pooled"}, _BARE, {"hidden_act": "relu"}),
        Case("AlbertForPreTraining", "build_albert", {"prediction_logits": "mlm", "sop_logits": "sop"}, sizes=SHARED),
        Case("AlbertForSequenceClassification", "build_albert", {"logits": "logits"}, _LABELLED, _ONE_GROUP),
        Case("ElectraForPreTraining", "build_electra", {"logits": "discriminator"}, sizes={"embedding_size": 16}),
        Case(
            "ElectraForMaskedLM",
            "build_electra",
            {"logits": "generator"},
            {"heads": ("generator",), "scope": "generator"},
            {"embedding_size": 16},
        ),
        Case("BertForMaskedLM", "build_bert", {"logits": "mlm"}, {"heads": ("mlm",)}),
        Case("BertForNextSentencePrediction", "build_bert", {"logits": "nsp"}, {"heads": ("nsp",)}),
        Case("BertForTokenClassification", "build_bert", {"logits": "logits"}, _TAGGED),
        Case("BertForQuestionAnswering", "build_bert", _ANSWERS, {**_BARE, "spans": True}),
        Case("AlbertForTokenClassification", "build_albert", {"logits": "logits"}, _TAGGED, _ONE_GROUP),
        Case("DistilBertForMaskedLM", "build_bert", {"logits": "mlm"}, {"heads": ("mlm",)}),
        Case("DistilBertForQuestionAnswering", "build_bert", _ANSWERS, {**_BARE, "spans": True}),
    )
}


def batch(config: Mapping[str, Any], distilled: bool = False) -> dict[str, np.ndarray]:
    """Three rows of different lengths; a DistilBERT's tokens are all of the first type."""
    positions = np.arange(12)
    ids = np.random.default_rng(1).integers(0, config["vocab_size"], (3, 12)).astype(np.int32)
    types = np.where(positions < 6, 0, 0 if distilled else config["type_vocab_size"] - 1) + np.zeros_like(ids)
    mask = (positions < np.array([[12], [8], [3]])).astype(np.float32)
    return {"input_ids": ids, "token_type_ids": types.astype(np.int32), "attention_mask": mask}


def new_model(case: Case, **sizes: Any):
    """The class with random weights."""
    import torch
    import transformers

    config = case.config | sizes
    deviation = 0.2 * (32 / config["hidden_size"]) ** 0.5
    if case.distilled:
        own = {key: config[name] for key, name in _DISTILBERT.items()}
        config = own | {key: config[key] for key in ("vocab_size", "max_position_embeddings")}
    if case.classifies:
        config |= {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    model_class = getattr(transformers, case.name)
    model = model_class(model_class.config_class(**config)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm_weight = re.search("layer_?norm.weight", name, re.IGNORECASE)
            parameter.normal_(1.0 if is_norm_weight else 0.0, deviation)
    return model


def loaded_model(case: Case, folder: Path):
    """The model as transformers loads it, which must find all that it needs and nothing else; but Google's graphs have a pooler
    also where the class has no use for one."""
    import transformers

    model, found = getattr(transformers, case.name).from_pretrained(folder, output_loading_info=True)
    unexpected = [name for name in found.pop("unexpected_keys") if ".pooler." not in name]
    assert not any(found.values()) and not unexpected, (found, unexpected)
    return model.eval()


def model_outputs(model, case: Case, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What transformers computes, under the graph's names."""
    import torch

    tensors = {name: torch.tensor(array).long() for name, array in inputs.items()}
    if case.distilled:
        del tensors["token_type_ids"]
    with torch.no_grad():
        found = model(**tensors, output_hidden_states=True)
    outputs = {f"hidden/{layer}": states.numpy() for layer, states in enumerate(found.hidden_states)}
    return outputs | {name: found[attribute].numpy() for attribute, name in case.heads.items()}


def write_google_files(folder: Path, config: Mapping[str, Any]) -> Path:
    """What Google has beside a checkpoint; the checkpoint's prefix."""
    tiny.write_vocabulary(folder)
    (folder / "bert_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "bert_model.ckpt"

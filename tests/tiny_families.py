"""Tiny models of every family, and transformers' counterpart of one."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.models.families import (
    AlbertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    Gpt2Config,
    ModernBertConfig,
    MPNetConfig,
    NomicBertConfig,
    RobertaConfig,
    XlmRobertaConfig,
)
from crossdistil.core.models.outputs import ATTENTION_KINDS, LOGITS, POOLED, output_name
from crossdistil.tests import tiny

_SIZES = {
    "vocab_size": tiny.CONFIG.vocab_size,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTILBERT = DistilBertConfig(**{DistilBertConfig.own_key(key): value for key, value in _SIZES.items()})
ALBERT = AlbertConfig(**_SIZES, embedding_size=16)
ELECTRA = ElectraConfig(**_SIZES, embedding_size=16)
ROBERTA = RobertaConfig(**_SIZES, pad_token_id=0)  # that of the tiny vocabulary, behind which the positions start
XLM_ROBERTA = XlmRobertaConfig(**_SIZES)
MPNET = MPNetConfig(**_SIZES)
ERNIE = ErnieConfig(**_SIZES)
CAMEMBERT = CamembertConfig(**_SIZES)
DEBERTA_V2 = DebertaV2Config(  # as the third version is set
    **_SIZES,
    relative_attention=True,
    position_buckets=8,
    pos_att_type="p2c|c2p",
    share_att_key=True,
    norm_rel_ebd="layer_norm",
    position_biased_input=False,
)
MODERNBERT = ModernBertConfig(**_SIZES, pad_token_id=0, local_attention=8)
"""Of its two layers the second sees four tokens on each side."""
NOMIC_BERT = NomicBertConfig(**_SIZES)
GPT2 = Gpt2Config(
    **{Gpt2Config.own_key(key): value for key, value in _SIZES.items()}, pad_token_id=0, bos_token_id=1, eos_token_id=1
)
_OF_EACH = (DISTILBERT, ALBERT, ELECTRA, ROBERTA, MPNET, ERNIE, DEBERTA_V2, MODERNBERT, NOMIC_BERT, GPT2)
FAMILIES = {config.family.model_type: config for config in _OF_EACH}

VARIANTS = {
    "bert": tiny.CONFIG,
    **FAMILIES,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "ernie with tasks": ERNIE.model_copy(update={"use_task_id": True}),
    "deberta-v2 with maps of distances": DebertaV2Config(
        **_SIZES,
        relative_attention=True,
        max_relative_positions=10,
        pos_att_type="c2p|p2c",
        type_vocab_size=2,
        pooler_hidden_act="tanh",
        legacy=False,
    ),
    "deberta-v2 with one term": DEBERTA_V2.model_copy(update={"pos_att_type": "p2c", "norm_rel_ebd": "none"}),
    "deberta-v2 without distances": DebertaV2Config(**_SIZES, pos_att_type="c2p"),
    "distilbert with a ReLU": DISTILBERT.model_copy(update={"activation": "relu"}),
    "albert with groups": ALBERT.model_copy(
        update={"num_hidden_layers": 5, "num_hidden_groups": 3, "inner_group_num": 2, "hidden_act": "gelu"}
    ),
    "albert of one width": ALBERT.model_copy(update={"embedding_size": 32}),
    "modernbert with biases": ModernBertConfig(
        **MODERNBERT.model_dump()
        | dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
        | {"classifier_pooling": "mean", "classifier_activation": "relu", "hidden_activation": "gelu_new"}
    ),
    "electra of one width": ELECTRA.model_copy(update={"embedding_size": 32, "hidden_act": "gelu_new"}),
}
"""Every way in which the families compute differently."""
each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
each_family = pytest.mark.parametrize(
    "config", [*FAMILIES.values(), XLM_ROBERTA, CAMEMBERT], ids=lambda config: config.family.model_type
)
ALIKE = ("ernie", "xlm-roberta", "camembert")
"""Those that compute as a BERT or a RoBERTa does, from tensors of other names."""


ABSENT = {("nomic_bert", "ForMultipleChoice"), ("nomic_bert", "ForQuestionAnswering"), ("gpt2", "ForMultipleChoice")}
"""(family, end of a class's name) of what transformers does not have."""


def _compiled(configs, left_out):
    """Without those for MindSpore, which would compile the same graphs again, for seconds each."""
    once = pytest.mark.only_backend("torch", "oneflow")
    return [pytest.param(config, id=name, marks=[once] if name in left_out else []) for name, config in configs.items()]


each_compiled_variant = pytest.mark.parametrize("config", _compiled(VARIANTS, ALIKE))
_OF_EACH_NAME = {config.family.model_type: config for config in (*FAMILIES.values(), XLM_ROBERTA, CAMEMBERT)}
each_trained_family = pytest.mark.parametrize(
    "config", _compiled(_OF_EACH_NAME, (*ALIKE, "roberta", "mpnet", "deberta-v2", "modernbert", "nomic_bert", "gpt2"))
)
"""With MindSpore those whose gradients no other test has (test_family_parity)."""
LABELS = ("negative", "neutral", "positive")


def of_depth(config, layers: int, **keys):
    """The same model with another number of layers, and other keys."""
    own = config.model_dump(exclude={"layer_types"})
    return type(config)(**own | {config.own_key("num_hidden_layers"): layers} | keys)


def everything(config) -> frozenset[str]:
    """Every output that a model of this configuration has."""
    layers = range(1, config.num_hidden_layers + 1)
    names = {output_name(kind, layer) for kind in ("hidden", *ATTENTION_KINDS) for layer in layers}
    return frozenset(names | {LOGITS, POOLED, output_name("hidden", 0)})


def hugging_face_config(config, **keys):
    """transformers' configuration of the same model."""
    from transformers import AutoConfig

    own = config.model_dump(exclude={"classifier_relu", "classifier_dropout"})
    return AutoConfig.for_model(config.family.model_type, **own, **keys)


def randomise(model) -> None:
    """Weights of a transformers model far from a fresh model's, those of normalisations too."""
    import torch

    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def named_tensors(model, gradients=False, copies=False) -> dict[str, np.ndarray]:
    """Name -> tensor of a transformers model, or its gradient, as transformers writes them: some of its classes have other names,
    and several maps where their files have one. With `copies`, tied tensors by each of their names."""
    from transformers.core_model_loading import revert_weight_conversion

    named = model.named_parameters(remove_duplicate=not copies)
    tensors = {name: tensor.grad if gradients else tensor.detach() for name, tensor in named}
    return {name: tensor.numpy() for name, tensor in revert_weight_conversion(model, tensors).items()}


def hugging_face_outputs(model, config, batch):
    """What transformers computes of a batch, with all states and attention probabilities."""
    import torch

    names = ("input_ids", "attention_mask", *(("token_type_ids",) if config.type_vocab_size else ()))
    model.set_attn_implementation("eager")  # the only one that shows its probabilities
    with torch.no_grad():
        inputs = {name: torch.from_numpy(batch[name]).long() for name in names}
        return model.eval()(**inputs, output_hidden_states=True, output_attentions=True, return_dict=True)


def assert_close(found, expected, what, tolerance=1e-5):
    """Equal but for rounding: of float32 in `found`, on states of size 1 to 5."""
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
    assert difference <= tolerance, f"{what} differs by {difference:.1e}"

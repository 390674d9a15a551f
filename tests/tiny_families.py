"""Tiny models of every family, and transformers' counterpart of one."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.families.deberta_v2 import DebertaV2Config
from crossdistil.core.models.families.modernbert import ModernBertConfig
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
_BESIDE = {
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
    "roberta": {"pad_token_id": 0},  # that of the tiny vocabulary, behind which the positions start
    "deberta-v2": {  # as the third version is set
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": "p2c|c2p",
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "modernbert": {"pad_token_id": 0, "local_attention": 8},  # of two layers the second sees four tokens on each side
    "gpt2": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
"""Family -> keys of its tiny model beside the sizes, where its defaults are not those that are to be tested."""


def _tiny(kind):
    chosen = CONFIGURATIONS[kind]
    return chosen(**{chosen.own_key(key): value for key, value in _SIZES.items()}, **_BESIDE.get(kind, {}))


OF_EACH = {kind: _tiny(kind) for kind, chosen in CONFIGURATIONS.items() if chosen.family.is_encoder} | {"bert": tiny.CONFIG}
"""`model_type` -> a tiny model, of every family that is a Transformer: a new one is here by itself."""
ALBERT, DEBERTA_V2, DISTILBERT, ELECTRA, ERNIE, GPT2, MODERNBERT, MPNET, NOMIC_BERT, ROBERTA = (
    OF_EACH[kind]
    for kind in "albert deberta-v2 distilbert electra ernie gpt2 modernbert mpnet nomic_bert roberta".split()
)
XLM_ROBERTA = OF_EACH["xlm-roberta"]
FAMILIES = {kind: config for kind, config in OF_EACH.items() if kind not in ("bert", "xlm-roberta", "camembert")}
"""Those that have tensors of their own names, beside BERT."""

VARIANTS = {
    **OF_EACH,
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
each_family = pytest.mark.parametrize("config", OF_EACH.values(), ids=OF_EACH)
ALIKE = ("ernie", "xlm-roberta", "camembert")
"""Those that compute as a BERT or a RoBERTa does, from tensors of other names."""


AS_BERT = ("bert", "distilbert", "albert", "electra")
"""Those whose positions, scores and order of normalisation are BERT's."""


def compiled(configs, left_out):
    """All of them, but MindSpore, which compiles seconds for each, without those whose graphs it has elsewhere."""
    once = pytest.mark.only_backend("torch", "oneflow")
    return [pytest.param(config, id=name, marks=[once] if name in left_out else []) for name, config in configs.items()]


each_compiled_variant = pytest.mark.parametrize("config", compiled(VARIANTS, ALIKE))
each_trained_family = pytest.mark.parametrize("config", compiled(OF_EACH, [kind for kind in OF_EACH if kind != "albert"]))
"""With MindSpore the one that shares its layers: the gradients of the others are in test_family_parity, and most other tests
train a BERT."""
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


ABSENT = {("nomic_bert", "ForMultipleChoice"), ("nomic_bert", "ForQuestionAnswering"), ("gpt2", "ForMultipleChoice")}
"""(family, end of a class's name) of what transformers does not have."""


def class_of(config, ending: str):
    """transformers' class of the family with this ending."""
    import transformers

    return getattr(transformers, config.family.title + ending)


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

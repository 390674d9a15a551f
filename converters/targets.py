"""What the published code of a framework computes otherwise than a checkpoint says: Google's graphs, MindSpore's model zoo,
transformers. What they cannot express is refused, what they do in another way is told.

Nothing of this shows in tensors. Google's classifier has no hidden layer: it ignores that of a DistilBERT, loads the rest and
gives other logits. Its graphs draw every variable that they do not find at random, and say nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..core.errors import CheckpointError
from ..core.models.answer_heads import CHOICES, SENTENCES, TOKENS, AnswerHead
from ..core.models.architectures import Config, is_encoder, model_type, pooler_names
from ..core.models.families import CONFIGURATIONS
from ..core.models.families.bert import BertConfig
from ..core.models.head_classes import class_name
from ..core.models.parts import Family
from ..core.models.spec import ACTIVATIONS, EncoderConfig

GOOGLE, ZOO, LEGACY = "tensorflow", ("mindspore", "mindspore-old"), "oneflow-legacy"
_GOOGLES_EPSILON, _ZOOS_EPSILON = 1e-12, 1e-7
_ZOO_TANH = "MindSpore's model zoo computes gelu by the tanh approximation, up to 5e-4 apart in an activation"
HIDDEN_LAYER = "pre_classifier: Google's classifier has no hidden layer of this kind"


def has_no_home(config: Config, task: AnswerHead | None, dialect: str) -> bool:
    """Whether the model is of use there without its classifier alone: a DistilBERT's for Google's graph, whose programs draw and
    train one of their own."""
    return dialect == GOOGLE and model_type(config) == "distilbert" and task == SENTENCES


def refuse(config: Config, task: AnswerHead | None, heads: tuple[str, ...], dialect: str) -> None:
    """Raises CheckpointError where the code that reads names of this dialect would compute another model, without a word."""
    if not is_encoder(config):
        if dialect != "canonical":
            raise CheckpointError(
                "no framework has a network of the kind of a BiLSTM; --with-code writes one beside the weights, and "
                "crossdistil export MODEL NEW --to onnx makes a folder for ONNX Runtime"
            )
    elif problem := misread(config, task, heads, dialect):
        raise CheckpointError(f"{problem} (--encoder-only leaves the heads out)")


def misread(config: Config, task: AnswerHead | None, heads: tuple[str, ...], dialect: str) -> str:
    """What that code would compute otherwise, or an empty string."""
    if not is_encoder(config):
        return ""
    family, problem = config.family.model_type, ""
    if config.relu_before_classifier and task == SENTENCES and dialect in (GOOGLE, "canonical"):
        whose = "Google's graph has" if dialect == GOOGLE else "transformers has"
        problem = f"classifier_relu: {whose} no ReLU before the classifier, and would give other logits"
    elif task == CHOICES and (dialect in (GOOGLE, LEGACY) or (family == "bert" and dialect in ZOO)):
        problem = "a multiple-choice model has no home there: its score would be read as a class"
    elif has_no_home(config, task, dialect):
        problem = f"{HIDDEN_LAYER}; it would ignore it and give other logits"
    elif dialect == GOOGLE and family == "electra" and task is not None:
        problem = "the classifier: Google's ELECTRA has none of this kind, and would draw its own at random"
    elif dialect == GOOGLE and family == "electra" and len(heads) > 1:
        problem = f"{' and '.join(heads)}: in Google's ELECTRA each has an encoder of its own"
    return problem


def target_notes(
    config: Config, task: AnswerHead | None, heads: tuple[str, ...], names: Collection[str], types: Iterable[str], dialect: str
) -> list[str]:
    """What the code that reads the result makes of it that its user may not expect. `names` are the canonical tensors' names,
    `types` those of the result's numbers."""
    if not is_encoder(config):
        return []
    if not config.family.in_googles_code and dialect != "canonical":
        whose = "they are this project's, made of Hugging Face's"
        return [f"no published code loads {config.family.title} models under these names: {whose}"]
    if dialect == GOOGLE:
        return [*_googles_numbers(config, types), *_drawn_by_google(config, task, heads, names)]
    if dialect in ZOO and model_type(config) == "bert":
        return _notes_of_zoo(config, heads, names)
    notes = []
    if config.relu_before_classifier and task == SENTENCES and dialect != "canonical":
        notes.append("classifier_relu: there is a ReLU before the classifier, which the program that loads this must have too")
    if dialect == LEGACY and config.family.model_type == "distilbert" and task == SENTENCES:
        notes.append("pre_classifier: BERT's programs have no such hidden layer; the program that loads this must have it")
    return notes


def source_notes(config: Config, raw: Mapping[str, Any], task: AnswerHead | None, names: Iterable[str]) -> list[str]:
    """What to know of a checkpoint with the names of MindSpore's model zoo; `names` are the file's."""
    if model_type(config) != "bert" or not any("bert_encoder." in name for name in names):
        return []
    notes = []
    if ACTIVATIONS[config.hidden_act] == "erf":
        notes.append(f"hidden_act is {config.hidden_act}, read as Hugging Face's (by erf): {_ZOO_TANH}; gelu_new is the zoo's")
    if task == SENTENCES and not class_name(raw) and "id2label" not in raw:
        notes.append(
            "the zoo's classifier and its NER model have the same names: read as a classifier of whole texts; "
            f'"architectures": ["Bert{TOKENS.ending}"] in the configuration says that it is one of tokens'
        )
    return notes


def _googles_numbers(config: EncoderConfig, types: Iterable[str]) -> list[str]:
    notes = []
    activation, is_electra = ACTIVATIONS[config.hidden_act], config.family.model_type == "electra"
    if activation == "erf" and not is_electra:
        notes.append(
            f"hidden_act is {config.hidden_act} (by erf): Google's graph computes its tanh approximation, up to 5e-4 apart in an "
            "activation"
        )
    elif activation == "tanh" and is_electra:
        notes.append(
            f"hidden_act is {config.hidden_act} (the tanh approximation): Google's ELECTRA computes gelu by erf, up to 5e-4 "
            "apart in an activation"
        )
    elif activation == "silu":
        notes.append(f"hidden_act is {config.hidden_act}: Google's code has no such function")
    if config.layer_norm_eps > 10 * _ZOOS_EPSILON:
        notes.append(
            f"layer_norm_eps is {config.layer_norm_eps:g}: Google's graph normalises with {_GOOGLES_EPSILON:g}, and computes "
            "other numbers where a row varies little"
        )
    half = sorted({"F16": "fp16", "BF16": "bf16"}[kind] for kind in types if kind in ("F16", "BF16"))
    if half:
        notes.append(f"tensors are {' and '.join(half)}: Google's graph restores float32 only (--dtype fp32)")
    return notes


def _drawn_by_google(config: EncoderConfig, task: AnswerHead | None, heads: tuple[str, ...], names: Collection[str]) -> list[str]:
    notes = []
    if config.family.pooler_in_encoder and not any(name in names for name in pooler_names(config)):
        use = ", which this head does not use" if heads or (task is not None and task.token_map) else ""
        notes.append(f"there is no pooler: Google's graph has one (bert/pooler/dense/*{use}) and draws it at random")
    if task == TOKENS:
        notes.append(
            "the classifier is one of tokens, output_weights of each token's state as in BERT-NER; Google's run_classifier would "
            "take it for one of whole texts"
        )
    pair = _pair_head(config.family)
    if heads == ("mlm",) and pair:
        notes.append(f"there is no {pair} head: Google's run_pretraining draws cls/seq_relationship/* at random")
    elif pair and heads == (pair,):
        notes.append(f"there is only the {pair} head: Google's run_pretraining draws cls/predictions/* at random")
    return notes


def _pair_head(family: Family) -> str:
    """The head for pairs of what Google's code takes a model for, a DistilBERT for a BERT; an empty string without one."""
    own = CONFIGURATIONS["bert"].family if family.model_type == "distilbert" else family
    return own.by_role["pairs.last"].place if "pairs.last" in own.by_role else ""


def _notes_of_zoo(config: BertConfig, heads: tuple[str, ...], names: Collection[str]) -> list[str]:
    notes = []
    if ACTIVATIONS[config.hidden_act] == "erf":
        notes.append(f"hidden_act is {config.hidden_act} (by erf): {_ZOO_TANH}")
    if config.layer_norm_eps > 10 * _ZOOS_EPSILON:
        notes.append(
            f"layer_norm_eps is {config.layer_norm_eps:g}: the zoo's LayerNorm has {_ZOOS_EPSILON:g} unless told otherwise, and "
            "computes other numbers where a row varies little"
        )
    if not any(name in names for name in pooler_names(config)):
        notes.append("there is no pooler: the zoo's networks have one (bert.bert.dense.*), which stays as it was drawn")
    if heads == ("mlm",):
        notes.append("there is no nsp head: the zoo's pre-training has one (bert.cls2.dense.*), which stays as it was drawn")
    if config.classifier_relu:
        notes.append("classifier_relu: the zoo's TinyBERT has this ReLU before the classifier, its BERT has not")
    return notes

"""The names of Google's TensorFlow code for BERT, ALBERT and ELECTRA, and of other TensorFlow code when reading.

Google's variables are paths (`bert/encoder/layer_0/attention/self/query/kernel`); a kernel is (in, out) and so transposed,
embeddings and the `output_weights` of heads are not. DistilBERT gets BERT's names, which Google's graph then finds. Read,
not written: names of graphs ported to TensorFlow 2 (`layer_normalization_7`), of Hugging Face's TF classes
(`tf_bert_model/bert/encoder/layer_._0/...:0`) and of Keras BERT in the TensorFlow model garden (`transformer/layer_0/...`).
Hugging Face's TF classes call a head's weight a kernel too, and transpose it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.models.families import CONFIGURATIONS
from ..core.models.known_families import is_norm, is_table, of_families
from ..core.models.parts import CONV1D, TENSOR, Part
from ..core.models.tree import templates
from .names_canonical import templates_of, without_root
from .rules import Rule, Spelling, Table

_HEADS = {
    "cls.predictions.bias": "cls/predictions/output_bias",
    "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
    "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
    "classifier.weight": "output_weights",
    "classifier.bias": "output_bias",
    "qa_outputs.weight": "cls/squad/output_weights",
    "qa_outputs.bias": "cls/squad/output_bias",
}
"""BERT's names that are no plain paths in Google's code, and are not transposed."""

FOR_GOOGLES_GRAPH = "added for Google's graph, no part of a DistilBERT"
_ADDED = re.compile(r"^bert[/-](embeddings[/-]token_type_embeddings|pooler[/-]dense[/-](kernel|weight|bias))$")

_SUFFIX = re.compile(r":[0-9]+$|/\.ATTRIBUTES/VARIABLE_VALUE$")
_COMMON = (
    (re.compile(r"^tf_[a-z0-9_]+/"), ""),
    (re.compile(r"^[a-z]+___"), ""),
    (re.compile(r"_\._([0-9]+)/"), r"_\1/"),
    (re.compile(r"_embeddings/(weight|embeddings)$"), "_embeddings"),
    (re.compile(r"(^|/)embeddings/weight$"), r"\1embeddings/word_embeddings"),
)
# ALBERT's layers have two in one place, whose numbers do not tell which is which.
_NUMBERED_NORM = re.compile(r"^(?!.*/inner_group_).*\blayer_normalization(_[0-9]+)?/(?=gamma$|beta$)")
_LAYER = r"^(?:.*/)?(?:transformer|encoder)/layer_([0-9]+)/"
_MODEL_GARDEN = (
    (re.compile(_LAYER + r"self_attention/(query|key|value)/"), r"bert/encoder/layer_\1/attention/self/\2/"),
    (
        re.compile(_LAYER + r"(?:self_attention/attention_output|self_attention_output)/"),
        r"bert/encoder/layer_\1/attention/output/dense/",
    ),
    (re.compile(_LAYER + r"self_attention_layer_norm/"), r"bert/encoder/layer_\1/attention/output/LayerNorm/"),
    (re.compile(_LAYER + r"(intermediate|output)/(kernel|bias)$"), r"bert/encoder/layer_\1/\2/dense/\3"),
    (re.compile(_LAYER + r"output_layer_norm/"), r"bert/encoder/layer_\1/output/LayerNorm/"),
    (re.compile(r"^(?:(?!bert/).*/)?word_embeddings$"), "bert/embeddings/word_embeddings"),
    (
        re.compile(r"^(?:(?!bert/).*/)?position_embedding(?:/embeddings|s)$"),
        "bert/embeddings/position_embeddings",
    ),
    (re.compile(r"^(?:.*/)?type_embeddings$"), "bert/embeddings/token_type_embeddings"),
    (re.compile(r"^(?:.*/)?embedding(?:s|_postprocessor)/layer_norm/"), "bert/embeddings/LayerNorm/"),
    (re.compile(r"^(?:.*/)?pooler_transform/"), "bert/pooler/dense/"),
    (re.compile(r"^(?:.*/)?[a-z0-9_]+/pooler_dense/"), "bert/pooler/dense/"),
    (re.compile(r"^(?:.*/)?next_sentence/logits/"), "cls/seq_relationship/"),
    (re.compile(r"^(?:.*/)?(?:sentence_prediction|classifier|classification|cls_head)/(?:predictions/transform/)?logits/"),
     "classifier/"),
    (re.compile(r"^(?:.*/)?cls/predictions/output_bias/bias$"), "cls/predictions/output_bias"),
)
_PARTS = re.compile(r"^(embeddings|embeddings_project|encoder|pooler)/")
STARTS = frozenset("embeddings embeddings_project encoder pooler generator".split())
ENDS = frozenset("kernel bias gamma beta weight embeddings word_embeddings position_embeddings type_embeddings".split())


def google_rules(family: str) -> list[Rule]:
    """The rules of Google's names."""
    own = CONFIGURATIONS[family].family
    parts = templates(own)
    rules = []
    for canonical in templates_of(family):
        part, name = parts.get(canonical), canonical
        if part is not None and part.role in own.google:
            name = own.google[part.role] + ("" if part.kind == TENSOR else f".{canonical.rpartition('.')[2]}")
        rules.append(Rule(canonical, _HEADS[name]) if name in _HEADS else _plain(canonical, name, _is_kernel(part)))
    return rules


@of_families
def google_root(family: str) -> str:
    """What the names of its encoder start with there."""
    words = f"{CONFIGURATIONS[family].family.name('words')}.weight"
    return next(rule.foreign.partition("/")[0] for rule in google_rules(family) if rule.canonical == words)


@of_families
def table(family: str) -> Table:
    """Google's names; for reading, plain paths of the canonical names too."""
    parts = templates(CONFIGURATIONS[family].family)
    plain = [_plain(name, name, _is_kernel(parts.get(name))) for name in templates_of(family)]
    return Table(google_rules(family), plain)


def clean(name: str) -> str:
    """Without what TensorFlow and Keras add to a variable's name."""
    name = _SUFFIX.sub("", name)
    for old, new in _COMMON:
        name = old.sub(new, name)
    return name


def spelled(name: str, kind: str) -> str:
    """A name of a TensorFlow file, cleaned and without its prefix, as the rules have it."""
    if _NUMBERED_NORM.match(name):
        name = re.sub(r"layer_normalization(_[0-9]+)?/", "LayerNorm/", name)
    if kind == "bert":
        for old, new in _MODEL_GARDEN:
            name = old.sub(new, name)
    return name if name.partition("/")[0] in without_root(kind) else _PARTS.sub(rf"{google_root(kind)}/\g<0>", name)


def settle(spelling: Spelling, kind: str, config: Mapping[str, Any]) -> None:
    """One of ELECTRA's two models, and a DistilBERT without what was added for Google's graph."""
    if kind == "albert":
        _bias_that_is_used(spelling)
    if kind == "bert":
        _pooler_that_is_used(spelling)
    if kind == "electra":
        _one_of_two_encoders(spelling, config)
    if kind == "distilbert":
        drop_added(spelling)


def _bias_that_is_used(spelling: Spelling) -> None:
    """Hugging Face's TFAlbert has two biases in its head, and adds `predictions/decoder/bias` to the logits."""
    used = [source for source, name in spelling.names.items() if name.endswith("predictions/decoder/bias")]
    for decoder in used:
        own = spelling.names[decoder].removesuffix("decoder/bias") + "bias"
        for source in [source for source, name in spelling.names.items() if name == own]:
            del spelling.names[source]
            spelling.dropped[source] = "bias that TFAlbert does not add to its logits, as it adds that of the decoder"
        spelling.names[decoder] = own


def _pooler_that_is_used(spelling: Spelling) -> None:
    """The heads of the model garden have a pooler of their own, and leave the encoder's alone."""
    if any("/pooler_dense/" in source for source in spelling.names):
        for source in [source for source in spelling.names if "pooler_transform/" in source]:
            del spelling.names[source]
            spelling.dropped[source] = "pooler of the encoder, which its heads do not use"


def drop_added(spelling: Spelling) -> None:
    """Leave out what a DistilBERT was given so that Google's BERT loads it."""
    for source in [source for source, name in spelling.names.items() if _ADDED.match(name)]:
        del spelling.names[source]
        spelling.dropped[source] = FOR_GOOGLES_GRAPH


def _is_kernel(part: Part | None) -> bool:
    """Whether its weight lies as a kernel does, (in, out)."""
    return part is not None and part.kind == CONV1D


def _plain(canonical: str, name: str, is_kernel: bool = False) -> Rule:
    """The path that TensorFlow code makes of a name."""
    path = name.replace(".{}", "_{}").replace(".", "/")
    place, _, part = path.rpartition("/")
    if is_norm(canonical):
        return Rule(canonical, f"{place}/{'gamma' if part == 'weight' else 'beta'}")
    if is_table(canonical):
        return Rule(canonical, place)
    if part == "weight":
        return Rule(canonical, f"{place}/kernel", transpose=not is_kernel)
    return Rule(canonical, path)


def _one_of_two_encoders(spelling: Spelling, config: Mapping[str, Any]) -> None:
    """ELECTRA's pre-training saves generator and discriminator in one file, with embeddings in common; the canonical form
    holds one model, as a rule the discriminator."""
    if not any(name.startswith("generator/") for name in spelling.names.values()):
        return
    architectures = config.get("architectures")
    alone = not any(name.startswith("electra/encoder/") for name in spelling.names.values())
    wants_generator = alone or (isinstance(architectures, list) and "ElectraForMaskedLM" in architectures)
    read, other = ("generator", "discriminator") if wants_generator else ("discriminator", "generator")
    left = ("electra/",) if wants_generator else ("generator/", "generator_lm_head/")
    left += (f"{other}_predictions/",)
    own_embeddings = any(name.startswith("generator/embeddings/") for name in spelling.names.values())
    for source, name in list(spelling.names.items()):
        shared = wants_generator and not own_embeddings and name.startswith("electra/embeddings/")
        if name.startswith(left) and not shared:
            del spelling.names[source]
            spelling.dropped[source] = f"of the {other}, which shares the file"
        elif wants_generator:
            spelling.names[source] = re.sub("^generator/", "electra/", name)
    if not alone:
        spelling.notes.append(f"generator and discriminator are in one file, and the {read} is read")


def generator_name(name: str) -> str:
    """Google's name of a generator's variable: only its embeddings, which it shares with the discriminator, are the latter's."""
    return name if name.startswith("electra/embeddings/") else re.sub("^electra/", "generator/", name)

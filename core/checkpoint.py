"""The canonical model folder: `config.json`, `model.safetensors` and tokenizer files, as Hugging Face lays them out.

A folder that is written here loads with `transformers.AutoModelForSequenceClassification.from_pretrained`, and the other
way round. Reading checks everything before any training: each tensor's name and shape against the configuration.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint_tensors import check_sizes, check_tensors, read_tensors, separate_decoder
from .checksums import Damaged, check_model_folder
from .config_file import CONFIG, about_training, class_names, model_config, problem_type, read_config
from .cross_encoder_folder import activation_note, is_cross_encoder, longest_input
from .errors import CheckpointError, checkpoint_named
from .hub_names import hub_hint
from .json_files import read_object
from .kinds.kind import Kind
from .kinds.known_kinds import ONE_NUMBER, RANKING, kind_of_model
from .kinds.own_kinds import OF_PLUGIN, kind_told, other_kind_code
from .models.answer_heads import EMBEDDINGS, SENTENCES, AnswerHead, head_of
from .models.architectures import Config, decoder_names, head_names, is_encoder, tensor_shapes, word_embeddings, words_tensors
from .models.config_keys import config_notes
from .models.head_classes import head_parts, other_head, other_words, unknown_class
from .models.known_families import other_code
from .models.pooling import Pooling
from .sentence_folder import embeds, read_pooling, trained_length
from .shown import plain, shown
from .stored_tensors import NO_WEIGHTS, AbsentTensors, StoredTensor, StoredTensors, is_finite

WEIGHTS = "model.safetensors"
CARD = "model.json"
"""In place of the weights, of a teacher whose outputs are in a cache or of an exported model: their digest, and which there
are."""


@dataclass
class Model:
    """A model; `parameters` are float32 by canonical names, and lack what `new` lists. Those of a folder are read when asked
    for."""

    config: Config
    parameters: Mapping[str, np.ndarray]
    outputs: int | None
    """Number of logits; None for an encoder without a head."""
    labels: tuple[str, ...] | None = None
    """Names of the classes; None where there are none."""
    new: tuple[str, ...] = ()
    """Tensors of a classifier that the checkpoint does not hold."""
    about: dict[str, Any] = field(default_factory=dict)
    """What travels with the weights: task, recipe digest, metric."""
    source: Path | None = None
    kind: Kind | None = None
    """What its logits answer; by their number where it is not given."""
    words: bool = False
    """Whether it predicts words: then the head of a masked language model is among the parameters."""
    decoder: np.ndarray | None = None
    """(vocabulary, embedding): that head's last weight, where it is not the word embeddings."""
    other_head: str = ""
    """Why the head of its checkpoint is no classifier of texts, where it has such a one; it is left out."""
    notes: tuple[str, ...] = ()
    """What its user should know, each a line."""
    unread_decoder: StoredTensor | None = None
    """That last weight as long as nobody has looked whether it is the word embeddings."""
    whole_vocabulary: int | None = None
    """How many words the model has, where only some of them are here."""

    def __post_init__(self) -> None:
        if self.kind is None:
            self.kind = kind_of_model(self.outputs, config=self.config)

    @property
    def missing_words(self) -> tuple[str, ...]:
        """The tensors of the head that predicts words which the checkpoint does not hold, where they were asked for."""
        return tuple(name for name in self.new if name in words_tensors(self.config)) if self.words else ()

    @property
    def head(self) -> AnswerHead:
        """What it answers with."""
        classifier, causal = getattr(self.config, "classifier", SENTENCES), self.config.family.block.causal
        return head_of(self.outputs, self.words, classifier, causal)

    @property
    def has_weights(self) -> bool:
        """Whether its weights are there, and not only what is known of them."""
        return not isinstance(self.parameters, AbsentTensors)

    @property
    def parameter_count(self) -> int:
        """Number of weights, those of words that are not here among them."""
        config = self.config
        if self.whole_vocabulary is not None:
            config = config.model_copy(update={config.own_key("vocab_size"): self.whole_vocabulary})
        shapes = tensor_shapes(config, self.outputs or 1, self.words)
        return sum(math.prod(shape) for name, shape in shapes.items() if name in self.parameters)


def load_model(folder: Path, where: str = "", words: bool = False, classifier: AnswerHead | None = SENTENCES) -> Model:
    """The model in a folder, with `words` together with its head that predicts words; `where` names the recipe key that asked
    for it. `classifier` is the one that is wanted, None whichever it has: one of tokens or of spans is left out of a model that
    has it unless it is asked for, and how a model embeds texts is then not read. Every byte of its weights was looked at. Raises
    CheckpointError."""
    return checked_weights(open_model(folder, where, words, classifier), where)


def open_model(folder: Path, where: str = "", words: bool = False, classifier: AnswerHead | None = SENTENCES) -> Model:
    """The same without a look at its weights: what configuration and header tell."""
    prefix = f"{where}: " if where else ""
    if not folder.is_dir():
        what = "is a file, expected a model folder" if folder.exists() else f"no such model folder{hub_hint(folder)}"
        raise CheckpointError(f"{prefix}{folder}: {what}")
    where = f"{prefix}{folder / CONFIG}"
    raw = read_config(folder, prefix)
    config = model_config(raw, where)
    if words and not is_encoder(config):
        raise CheckpointError(f"{where}: model_type is '{raw['model_type']}', which predicts no words")
    if words and (problem := other_words(config, classifier)):
        raise CheckpointError(f"{where}: {problem}")
    other = other_head(raw) if is_encoder(config) else None
    if config.family.classifies_tokens and other is not None and other.head.token_map and classifier in (None, other.head):
        config, other = config.answering(other.head), None
    of_texts: list[str] = []
    scores_pairs = is_cross_encoder(folder, raw)
    if classifier in (None, EMBEDDINGS) and embeds(folder) and is_encoder(config) and not scores_pairs:
        pooling, of_texts = read_pooling(folder, prefix)
        config = config.embedding(pooling)
    if not (folder / WEIGHTS).is_file() and (folder / CARD).is_file():
        return _without_weights(folder, prefix, raw, config, words)
    tensors, left_out = read_tensors(folder / WEIGHTS, prefix, config, words, other is not None)
    decoder = separate_decoder(tensors, config, f"{prefix}{folder / WEIGHTS}") if words else None
    head = head_names(config)[0]
    outputs = next(iter(tensors[head].shape), 1) if head in tensors else None
    if config_embeds(config):
        outputs = None
    if is_encoder(config):
        check_sizes(tensors, raw, config, folder, prefix)
    new = check_tensors(tensors, config, outputs, f"{prefix}{folder / WEIGHTS}", words)
    new = () if config_embeds(config) else new
    labels, kind = _classes(folder, raw, outputs, config, where)
    about = about_training(raw, where)
    if kind in (ONE_NUMBER, RANKING) and scores_pairs:
        length = longest_input(folder)
        of_texts += [note] if (note := activation_note(folder, raw)) is not None else []
        about = about if length is None else about | {"max_length": length}
    if config_embeds(config) and (length := trained_length(folder)) is not None:
        about = {"max_length": length} | about
    reason = "" if other is None else other.reason
    notes = (*_notes(raw, config, folder, left_out, outputs, reason, kind), *of_texts)
    parameters = StoredTensors(tensors)
    return Model(config, parameters, outputs, labels, new, about, folder, kind, words, None, reason, notes, decoder)


def trained_tokens(model: Model) -> int:
    """To how many tokens texts were cut in training, else 128; never more than the model has positions."""
    trained = int(model.about.get("max_length") or model.about.get("task", {}).get("max_length", 128))
    return min(trained, getattr(model.config, "positions", trained))


def config_embeds(config: Config) -> bool:
    """Whether a model of this configuration embeds texts."""
    return getattr(config, "classifier", None) == EMBEDDINGS


def embedder(model: Model, pooling: Pooling) -> Model:
    """An encoder as a model that embeds texts."""
    config = model.config.embedding(pooling)
    return replace(model, config=config, outputs=None, labels=None, new=(), other_head="", kind=kind_of_model(None, None, config))


def checked_weights(model: Model, where: str = "") -> Model:
    """What `open_model` found, once its weights are finite and, where checksums were written with them, unchanged; and with its
    decoder, where that is not the word embeddings. Raises CheckpointError."""
    if not isinstance(model.parameters, StoredTensors):
        return model
    prefix = f"{where}: " if where else ""
    path = f"{prefix}{model.source / WEIGHTS}"
    for name, array in model.parameters.items():
        if not is_finite(array):
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    check_unchanged(model.source, prefix)
    stored = model.unread_decoder
    if stored is None:
        return model
    decoder = stored.read()
    if np.array_equal(decoder, model.parameters[word_embeddings(model.config)]):
        decoder = None
    elif not is_finite(decoder):
        weight, table = decoder_names(model.config)[0], word_embeddings(model.config)
        raise CheckpointError(f"{path}: {weight} holds values that are not finite; expected {decoder.shape}, as {table}")
    return replace(model, decoder=decoder, unread_decoder=None)


def _classes(
    folder: Path, raw: dict[str, Any], outputs: int | None, config: Config, where: str
) -> tuple[tuple[str, ...] | None, Kind]:
    """(names of the classes, what is answered) of a model with so many logits."""
    labels, head = class_names(raw, where), head_names(config)[0]
    if outputs is not None and outputs > 1 and labels is not None and len(labels) != outputs:
        raise CheckpointError(f"{where}: id2label names {len(labels)} classes, but {head} has {outputs} rows")
    kind = kind_of_model(outputs, problem_type(raw, outputs, head, where), config)
    if outputs is not None and (own := about_training(raw, where).get(OF_PLUGIN)) is not None:
        return _own_classes(own, outputs, where)
    if outputs is not None and kind.of_spans and outputs != kind.outputs(None):
        raise CheckpointError(f"{where}: {head} has {outputs} rows, expected 2: where an answer begins and where it ends")
    if outputs in (None, 1) or kind.of_spans:
        labels = None
    elif labels is None:
        labels = tuple(f"LABEL_{index}" for index in range(outputs))
    if kind == ONE_NUMBER and "problem_type" not in raw and is_cross_encoder(folder, raw):
        kind = RANKING
    return labels, kind


def _own_classes(entry: Any, outputs: int, where: str) -> tuple[tuple[str, ...] | None, Kind]:
    """The same of a model that was trained for the kind of a plugin, which says how many logits its classes have."""
    try:
        kind = kind_told(entry)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    labels = None if entry["labels"] is None else tuple(entry["labels"])
    if (expected := kind.outputs(labels)) != outputs:
        raise CheckpointError(f"{where}: its classifier has {outputs} rows, but {kind.described} has {expected}")
    return labels, kind


def _without_weights(folder: Path, prefix: str, raw: dict[str, Any], config: Config, words: bool) -> Model:
    """What `save_card` wrote."""
    if words:
        raise CheckpointError(f"{prefix}{folder}: {NO_WEIGHTS}")
    where = f"{prefix}{folder / CARD}"
    with checkpoint_named(prefix.removesuffix(": ")):
        card = read_object(folder / CARD, CheckpointError)
    outputs, new, digest = (card.get(key) for key in ("outputs", "new", "digest"))
    names = tensor_shapes(config, outputs or 1) if outputs is None or type(outputs) is int and 0 < outputs < 1 << 24 else {}
    if not names or not isinstance(new, list) or not set(map(str, new)) < names.keys() or not isinstance(digest, str):
        raise CheckpointError(f"{where}: damaged: got {shown(card, 60)}")
    if card.get("config") != config_digest(config):
        raise CheckpointError(f"{prefix}{folder / CONFIG}: is not the one that was written with {CARD}; it was changed")
    labels, kind = _classes(folder, raw, outputs, config, f"{prefix}{folder / CONFIG}")
    parameters = AbsentTensors([name for name in names if name not in new], digest, folder)
    about = about_training(raw, f"{prefix}{folder / CONFIG}")
    return Model(config, parameters, outputs, labels, tuple(new), about, folder, kind)


def config_digest(config: Config) -> str:
    """What a card says of the configuration that it was written with."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def _notes(
    raw: dict[str, Any], config: Config, folder: Path, left_out: list[str], outputs: int | None, reason: str, kind: Kind
) -> tuple[str, ...]:
    if not is_encoder(config):
        return ()
    notes = config_notes(raw, type(config), str(folder / CONFIG))
    for changed in (other_code(raw, config), other_kind_code(raw.get("crossdistil", {}), kind)):
        if changed:
            notes.append(f"{folder}: {changed}")
    if left_out:
        notes.append(f"{folder}: {reason}; its head ({head_parts(left_out)}) is left out")
    if outputs is not None and (name := unknown_class(raw)):
        told = f"architectures is {plain(name)}, which is not known here; by its tensors it is read as a classifier of sentences"
        notes.append(f"{folder / CONFIG}: {told}")
    return tuple(notes)


def check_unchanged(folder: Path, prefix: str = "", binary: tuple[str, ...] | None = None) -> None:
    """Raise CheckpointError where the weights in a folder are not as a run, an export or a conversion wrote them; a changed text
    is told. `binary` names what is no text there; None is by the files' names."""
    try:
        check_model_folder(folder, binary)
    except Damaged as error:
        raise CheckpointError(f"{prefix}{folder}/{error}") from error

"""The canonical model folder: `config.json`, `model.safetensors` and tokenizer files, as Hugging Face lays them out.

A folder that is written here loads with `transformers.AutoModelForSequenceClassification.from_pretrained`, and the other
way round. Reading checks everything before any training: each tensor's name and shape against the configuration.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .checksums import Damaged, check_model_folder, write_checksums
from .config_file import CONFIG, about_training, class_names, model_config, problem_type, read_config
from .errors import CheckpointError, checkpoint_named, did_you_mean
from .files import replace_folder
from .hub_names import hub_hint
from .json_files import read_object
from .kinds.kind import Kind
from .kinds.known_kinds import kind_of_model
from .models.answer_heads import EMBEDDINGS, SENTENCES, AnswerHead, head_of
from .models.architectures import (
    Config,
    canonical_names,
    decoder_names,
    first_keys,
    head_names,
    is_encoder,
    pooler_names,
    tensor_shapes,
    word_embeddings,
    words_bias,
    words_tensors,
)
from .models.config_keys import config_notes
from .models.head_classes import head_parts, is_of_head, other_head, other_words, unknown_class
from .models.known_families import other_code, plugin_entry
from .models.pooling import Pooling
from .models.sizes import difference_lines, differences, without_sizes
from .models.spec import EncoderConfig
from .remedies import convert_command
from .sentence_folder import embeds, read_pooling, trained_length, write_sentence_files
from .shown import plain, shown
from .stored_tensors import NO_WEIGHTS, AbsentTensors, StoredTensor, StoredTensors, TensorFile, is_finite

WEIGHTS, PROJECTIONS = "model.safetensors", "projections.safetensors"
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
    if classifier in (None, EMBEDDINGS) and embeds(folder) and is_encoder(config):
        pooling, of_texts = read_pooling(folder, prefix)
        config = config.embedding(pooling)
    if not (folder / WEIGHTS).is_file() and (folder / CARD).is_file():
        return _without_weights(folder, prefix, raw, config, words)
    tensors, left_out = _read_tensors(folder / WEIGHTS, prefix, config, words, other is not None)
    decoder = _separate_decoder(tensors, config, f"{prefix}{folder / WEIGHTS}") if words else None
    head = head_names(config)[0]
    outputs = next(iter(tensors[head].shape), 1) if head in tensors else None
    if config_embeds(config):
        outputs = None
    if is_encoder(config):
        _check_sizes(tensors, raw, config, folder, prefix)
    new = _check_tensors(tensors, config, outputs, f"{prefix}{folder / WEIGHTS}", words)
    new = () if config_embeds(config) else new
    labels, kind = _classes(raw, outputs, config, where)
    about = about_training(raw, where)
    if config_embeds(config) and (length := trained_length(folder)) is not None:
        about = {"max_length": length} | about
    reason = "" if other is None else other.reason
    notes = (*_notes(raw, config, folder, left_out, outputs, reason), *of_texts)
    parameters = StoredTensors(tensors)
    return Model(config, parameters, outputs, labels, new, about, folder, kind, words, None, reason, notes, decoder)


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


def _classes(raw: dict[str, Any], outputs: int | None, config: Config, where: str) -> tuple[tuple[str, ...] | None, Kind]:
    """(names of the classes, what is answered) of a model with so many logits."""
    labels, head = class_names(raw, where), head_names(config)[0]
    if outputs is not None and outputs > 1 and labels is not None and len(labels) != outputs:
        raise CheckpointError(f"{where}: id2label names {len(labels)} classes, but {head} has {outputs} rows")
    kind = kind_of_model(outputs, problem_type(raw, outputs, head, where), config)
    if outputs is not None and kind.of_spans and outputs != kind.outputs(None):
        raise CheckpointError(f"{where}: {head} has {outputs} rows, expected 2: where an answer begins and where it ends")
    if outputs in (None, 1) or kind.of_spans:
        labels = None
    elif labels is None:
        labels = tuple(f"LABEL_{index}" for index in range(outputs))
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
    if card.get("config") != _config_digest(config):
        raise CheckpointError(f"{prefix}{folder / CONFIG}: is not the one that was written with {CARD}; it was changed")
    labels, kind = _classes(raw, outputs, config, f"{prefix}{folder / CONFIG}")
    parameters = AbsentTensors([name for name in names if name not in new], digest, folder)
    about = about_training(raw, f"{prefix}{folder / CONFIG}")
    return Model(config, parameters, outputs, labels, tuple(new), about, folder, kind)


def _config_digest(config: Config) -> str:
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def _notes(
    raw: dict[str, Any], config: Config, folder: Path, left_out: list[str], outputs: int | None, reason: str
) -> tuple[str, ...]:
    if not is_encoder(config):
        return ()
    notes = config_notes(raw, type(config), str(folder / CONFIG))
    if changed := other_code(raw, config):
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


def _read_tensors(
    path: Path, prefix: str, config: Config, words: bool, without_head: bool
) -> tuple[dict[str, StoredTensor], list[str]]:
    """(tensors, names of those of a head that is left out)."""
    if not path.is_file():
        raise CheckpointError(f"{prefix}{path}: no such file; a model folder holds its weights in {WEIGHTS}")
    tensors, left_out = {}, []
    try:
        with checkpoint_named(prefix.removesuffix(": ")):
            file = TensorFile(path)
            for name, canonical in canonical_names(config, file, words).items():
                if without_head and is_of_head(canonical):
                    left_out.append(canonical)
                else:
                    tensors[canonical] = file.tensor(name)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{prefix}{path}: damaged or not a safetensors file: {error}") from error
    return tensors, left_out


def _separate_decoder(tensors: dict[str, StoredTensor], config: Config, where: str) -> StoredTensor | None:
    """Take what files hold twice out of the head that predicts words; the decoder's weight, which may not be the words' table."""
    weight, bias = decoder_names(config)
    if bias in tensors and bias != words_bias(config):
        tensors[words_bias(config)] = tensors.pop(bias)  # Hugging Face computes with this one, should they differ
    stored, table = tensors.pop(weight, None), tensors.get(word_embeddings(config))
    if stored is None or table is None:
        return None
    if stored.shape != table.shape:
        raise CheckpointError(f"{where}: {weight} has shape {stored.shape}; expected {table.shape}, as {word_embeddings(config)}")
    return stored


def _check_sizes(
    tensors: Mapping[str, np.ndarray], raw: dict[str, Any], config: EncoderConfig, folder: Path, prefix: str
) -> None:
    """Raise CheckpointError where the tensors are of other sizes than the configuration says, or where it says none."""
    family, where = config.family.model_type, f"{prefix}{folder / CONFIG}"
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if problem := without_sizes(config.current_keys(raw), family, shapes):
        raise CheckpointError(f"{where}: {problem}")
    if wrong := differences(config.model_dump(), family, shapes):
        remedy = f"{prefix}({convert_command(folder, '--fix-config')} takes the tensors' sizes)"
        raise CheckpointError("\n".join([*difference_lines(wrong, where), remedy]))


def _check_tensors(
    tensors: dict[str, StoredTensor], config: Config, outputs: int | None, where: str, words: bool
) -> tuple[str, ...]:
    expected = tensor_shapes(config, outputs or 1, words)
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise CheckpointError(f"{where}: unexpected tensor {unknown[0]}{did_you_mean(unknown[0], expected)}")
    missing = [name for name in expected if name not in tensors]
    own_words = tuple(name for name in words_tensors(config) if name not in pooler_names(config)) if words else ()
    groups = (head_names(config), pooler_names(config), own_words)
    absent = {name for group in groups if not any(name in tensors for name in group) for name in group}
    needed = [name for name in missing if name not in absent]
    if needed:
        more = f" and {len(needed) - 1} more" if len(needed) > 1 else ""
        raise CheckpointError(f"{where}: missing tensor {needed[0]}{more}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(f"{where}: {name} has shape {tuple(tensor.shape)}, {CONFIG} says {expected[name]}")
    return tuple(missing)


def save_model(
    model: Model,
    folder: Path,
    tokenizer,
    projections: dict[str, np.ndarray] | None = None,
    checksums: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write a model folder whole or not at all. `tokenizer` has `save(folder)`; `projections` are what was trained beside
    the model and is no part of it: they go into a file of their own, for a later distillation to go on from. With `checksums`,
    `load_model` refuses weights that are not as they are written here. `finish(folder)` may add files for people."""
    with replace_folder(folder) as temporary:
        write_config(model, temporary)
        names = tensor_shapes(model.config, model.outputs, model.words)
        ordered = {name: np.ascontiguousarray(model.parameters[name]) for name in names}
        # transformers asks for the metadata entry: it tells the layout of the tensors.
        save_file(ordered, temporary / WEIGHTS, metadata={"format": "pt"})
        if projections:
            save_file(projections, temporary / PROJECTIONS)
        tokenizer.save(temporary)
        if finish is not None:
            finish(temporary)
        if checksums:
            write_checksums(temporary)


def save_card(model: Model, folder: Path, tokenizer, digest: str) -> None:
    """Write what `load_model` needs of a model without its weights: for a teacher whose outputs, by `digest`, are in a cache."""
    with replace_folder(folder) as temporary:
        write_card(model, temporary, tokenizer, digest)


def write_card(model: Model, folder: Path, tokenizer, digest: str) -> None:
    """The same into a folder that is not yet in its place, for a model that has its weights in another form."""
    card = {"digest": digest, "config": _config_digest(model.config), "outputs": model.outputs, "new": list(model.new)}
    write_config(model, folder)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def write_config(model: Model, folder: Path) -> None:
    """Write config.json: architecture, labels, and what is known about the model."""
    config = first_keys(model.config, model.outputs, model.words) | _config_entries(model.config)
    if model.outputs is not None and not model.kind.of_spans:
        labels = model.labels or ("LABEL_0",)
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
        if model.kind.problem_type is not None:
            config["problem_type"] = model.kind.problem_type
    config["crossdistil"] = model.about | plugin_entry(model.config)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if config_embeds(model.config):
        length = model.about.get("max_length") or getattr(model.config, "positions", None)
        write_sentence_files(folder, model.config.pooling, model.config.hidden_size, length)


def _config_entries(config: Config) -> dict[str, Any]:
    """The configuration as Hugging Face has it: our own keys only where they are set."""
    entries = config.model_dump()
    if not entries.get("classifier_relu", True):
        del entries["classifier_relu"]
    return entries


def projection_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the projections that a model folder holds, if any. Raises CheckpointError for a damaged file."""
    return _projections(folder, _shapes)


def load_projections(folder: Path) -> dict[str, np.ndarray]:
    """The same with their values."""
    return _projections(folder, load_file)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    file = TensorFile(path)
    return {name: file.tensor(name).shape for name in file}


def _projections(folder: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    path = folder / PROJECTIONS
    if not path.is_file():
        return {}
    try:
        return read(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file: {error}") from error

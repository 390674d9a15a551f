"""Tokenizers whose folders have no tokenizer.json, built from the files that came before it: vocab.txt, vocab.json with
merges.txt, and models of sentencepiece. What each kind does beside its vocabulary stands in no file of it, so that its class
must be known: `tokenizer_class`, or else the `model_type` of config.json.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import CheckpointError
from ..json_files import read_object
from ..shown import plain, shown
from ..wire import BYTES, FIXED32, VARINT, Malformed, fields, messages
from .panics import quiet_panics
from .special_places import named_tokens
from .text_files import read_text

MODELS = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
BPE_FILES = ("vocab.json", "merges.txt")
_UNIGRAM = 1  # sentencepiece's number of it
_CONTROL, _USER_DEFINED = 3, 4
_BERTS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTAS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}


@dataclass(frozen=True)
class _Kind:
    """`special` are its tokens where the files name none; those around texts are BERT's, or RoBERTa's with two between a text and
    its pair, or none."""

    special: Mapping[str, str]
    around: str | None


_BYTE_LEVEL = {
    "roberta": _Kind(_ROBERTAS, "roberta"),
    "longformer": _Kind(_ROBERTAS, "roberta"),
    "bart": _Kind(_ROBERTAS, "roberta"),
    "deberta": _Kind({**_BERTS, "bos": "[CLS]", "eos": "[SEP]"}, "bert"),
    "gpt2": _Kind({"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}, None),
}
_SENTENCEPIECE = {
    "albert": _Kind({**_BERTS, "bos": "[CLS]", "eos": "[SEP]", "unk": "<unk>", "pad": "<pad>"}, "bert"),
    "camembert": _Kind(_ROBERTAS, "roberta"),
    "debertav2": _Kind({**_BERTS, "bos": "[CLS]", "eos": "[SEP]"}, "bert"),
    "xlmroberta": _Kind(_ROBERTAS, "roberta"),
}


def slow_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, Path] | None:
    """The tokenizer of vocab.json with merges.txt or of a sentencepiece model, and its file; None where a folder has neither.
    `config` is its tokenizer_config.json. Raises CheckpointError."""
    vocabulary, merges = (folder / name for name in BPE_FILES)
    if vocabulary.is_file() and merges.is_file():
        return _byte_level(vocabulary, merges, config, _kind(vocabulary, config, _BYTE_LEVEL)), vocabulary
    path = next((folder / name for name in MODELS if (folder / name).is_file()), None)
    if path is None:
        return None
    return _sentencepiece(path, config, *_named_kind(path, config, _SENTENCEPIECE)), path


def _class_name(path: Path, config: Mapping[str, Any]) -> str:
    """Of a tokenizer, in small letters and without `Tokenizer`; empty where the files say none."""
    name = config.get("tokenizer_class")
    if not isinstance(name, str):
        place = path.with_name("config.json")
        name = read_object(place, CheckpointError).get("model_type") if place.is_file() else None
    text = name if isinstance(name, str) else ""
    return text.removesuffix("Fast").removesuffix("Tokenizer").replace("-", "").replace("_", "").lower()


def _named_kind(path: Path, config: Mapping[str, Any], known: Mapping[str, _Kind]) -> tuple[str, _Kind]:
    name = _class_name(path, config)
    if name not in known:
        got = f"of '{plain(name)}'" if name else "of a class that tokenizer_config.json (tokenizer_class) does not tell"
        raise CheckpointError(
            f"{path}: {got}; without a tokenizer.json only those of {', '.join(sorted(known))} can be read. transformers writes "
            "one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return name, known[name]


def _kind(path: Path, config: Mapping[str, Any], known: Mapping[str, _Kind]) -> _Kind:
    return _named_kind(path, config, known)[1]


def from_vocabulary(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's or MPNet's WordPiece of a vocab.txt. Raises CheckpointError."""
    vocabulary: dict[str, int] = {}
    # Not splitlines: Google's Chinese vocabulary has U+2028 as a token.
    lines = read_text(path, error=CheckpointError).split("\n")
    if not lines[-1]:
        lines.pop()
    for index, line in enumerate(lines):
        token = line.removesuffix("\r")
        if not token.strip(" \t"):
            raise CheckpointError(f"{path}:{index + 1}: a blank line, expected a token")
        if token in vocabulary:
            raise CheckpointError(f"{path}:{index + 1}: the token '{token}' is also on line {vocabulary[token] + 1}")
        vocabulary[token] = index
    # MPNet's vocabulary has BERT's tokens too, which nothing uses: taken for BERT's it would load, and be wrong.
    is_mpnet = _class_name(path, config) == "mpnet" or vocabulary.get("<s>") == 0 and "</s>" in vocabulary
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    if is_mpnet:
        special = {**_ROBERTAS, "unk": "[UNK]"} | named_tokens(path.parent, config)
        missing = [token for token in special.values() if token not in vocabulary]
        if missing:
            raise CheckpointError(f"{path}: the vocabulary lacks {', '.join(dict.fromkeys(missing))}")
        _add_special(library, special)
        _put_around(library, "roberta", special, path)
        return library
    # As in transformers, "[SEP]" written in a text is the token. A token that the vocabulary lacks would get a new id.
    library.add_special_tokens([token for token in _BERT_ORDER if token in vocabulary])
    return library


_BERT_ORDER = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _add_special(library: tokenizers.Tokenizer, special: Mapping[str, str], path: Path | None = None) -> None:
    """Make tokens special; [MASK] takes the space before it, as in all of these classes. Of a `path`, the tokens of
    added_tokens.json beside it are added too."""
    for role in ("bos", "eos", "unk", "sep", "pad", "cls"):
        if role in special:
            library.add_special_tokens([AddedToken(special[role], normalized=False, special=True)])
    if "mask" in special:
        library.add_special_tokens([AddedToken(special["mask"], lstrip=True, normalized=False, special=True)])
    place = None if path is None else path.with_name("added_tokens.json")
    if place is None or not place.is_file():
        return
    added = read_object(place, CheckpointError)
    if any(type(number) is not int for number in added.values()):
        raise CheckpointError(f"{place}: expected the number of each token")
    for token, number in sorted(added.items(), key=lambda entry: entry[1]):
        if library.token_to_id(token) is None:
            library.add_tokens([AddedToken(token, normalized=False)])
        if (got := library.token_to_id(token)) != number:
            raise CheckpointError(f"{place}: {shown(token)} is token {got} of {path.name}, but {number} here")


def _put_around(library: tokenizers.Tokenizer, around: str | None, special: Mapping[str, str], path: Path) -> None:
    if around is None:
        return
    begin, end = special["cls"], special["sep"]
    ids = [(token, library.token_to_id(token)) for token in dict.fromkeys((begin, end))]
    lacks = [token for token, index in ids if index is None]
    if lacks:
        raise CheckpointError(f"{path}: the vocabulary lacks {', '.join(lacks)}")
    if around == "roberta":
        single, pair = f"{begin} $A {end}", f"{begin} $A {end} {end} $B {end}"
    else:
        single, pair = f"{begin}:0 $A:0 {end}:0", f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1"
    library.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _byte_level(vocabulary: Path, merges: Path, config: Mapping[str, Any], kind: _Kind) -> tokenizers.Tokenizer:
    for path in (vocabulary, merges):
        read_text(path, error=CheckpointError)  # told with the file's name where it is not UTF-8
    library = tokenizers.Tokenizer(_built(lambda: models.BPE.from_file(str(vocabulary), str(merges)), merges))
    prefix = config.get("add_prefix_space") is True
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    library.decoder = decoders.ByteLevel()
    special = {**kind.special} | named_tokens(vocabulary.parent, config)
    _add_special(library, special, vocabulary)
    if kind.around == "roberta":
        ends = ((special[role], library.token_to_id(special[role])) for role in ("sep", "cls"))
        library.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=prefix)
    elif kind.around is None:
        library.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        _put_around(library, kind.around, special, vocabulary)
    return library


def _built(make: Callable[[], Any], path: Path) -> Any:
    try:
        with quiet_panics(path):
            return make()
    except CheckpointError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: not a tokenizer file: {plain(str(error))}") from None


@dataclass(frozen=True)
class _Proto:
    """What is used of a sentencepiece model."""

    pieces: list[tuple[str, float]]
    kinds: list[int]
    kind: int
    unknown: int
    byte_fallback: bool
    charsmap: bytes


def _parsed(path: Path) -> _Proto:
    """A ModelProto: pieces (1), trainer_spec (2), normalizer_spec (3)."""
    try:
        data = path.read_bytes()
        pieces, kinds = [], []
        for message in messages(data, 1):
            piece, score, kind = b"", 0.0, 1
            for field, wire, value in fields(message):
                if (field, wire) == (1, BYTES):
                    piece = bytes(value)
                elif (field, wire) == (2, FIXED32):
                    [score] = struct.unpack("<f", value)
                elif (field, wire) == (3, VARINT):
                    kind = value
            pieces.append((piece.decode("utf-8"), score))
            kinds.append(kind)
        numbers = {3: _UNIGRAM, 35: 0, 40: 0}
        for message in messages(data, 2):
            numbers |= {field: value for field, wire, value in fields(message) if wire == VARINT}
        charsmap = b""
        for message in messages(data, 3):
            charsmap = next((bytes(value) for field, wire, value in fields(message) if (field, wire) == (2, BYTES)), charsmap)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (Malformed, UnicodeDecodeError, struct.error) as error:
        raise CheckpointError(f"{path}: not a sentencepiece model: {plain(str(error))}") from None
    if not pieces:
        raise CheckpointError(f"{path}: not a sentencepiece model: it has no pieces")
    return _Proto(pieces, kinds, numbers[3], numbers[40], bool(numbers[35]), charsmap)


def _sentencepiece(path: Path, config: Mapping[str, Any], name: str, kind: _Kind) -> tokenizers.Tokenizer:
    proto = _parsed(path)
    if proto.kind != _UNIGRAM:
        raise CheckpointError(f"{path}: a sentencepiece model of type {proto.kind}, expected Unigram ({_UNIGRAM})")
    pieces, unknown = _numbered(proto, name)
    library = tokenizers.Tokenizer(_built(lambda: models.Unigram(pieces, unknown, proto.byte_fallback), path))
    cleaned = [normalizers.Precompiled(proto.charsmap)] if proto.charsmap else []
    library.normalizer = normalizers.Sequence(_normalized(name, config, cleaned))
    mark = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    if name == "debertav2" and config.get("split_by_punct") is True:
        mark = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("isolated"), mark])
    library.pre_tokenizer = mark
    library.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    for (piece, _), number in zip(proto.pieces, proto.kinds):
        if number in (_CONTROL, _USER_DEFINED) and library.token_to_id(piece) is not None:
            library.add_tokens([AddedToken(piece, normalized=False, special=number == _CONTROL)])
    special = {**kind.special} | named_tokens(path.parent, config)
    _add_special(library, special, path)
    _put_around(library, kind.around, special, path)
    return library


def _numbered(proto: _Proto, name: str) -> tuple[list[tuple[str, float]], int]:
    """The pieces in the order of the model's rows, and the number of the unknown one."""
    if name == "xlmroberta":  # fairseq's order, with <mask> behind all pieces
        first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        return [*first, *proto.pieces[3:], ("<mask>", 0.0)], 3
    if name == "camembert":
        first = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
        return [*first, *proto.pieces[1:], ("<mask>", 0.0)], 3
    if name == "albert":  # "1," is never one piece there
        return [(piece, score - 100 if _ends_as_number(piece) else score) for piece, score in proto.pieces], proto.unknown
    return proto.pieces, proto.unknown


def _ends_as_number(piece: str) -> bool:
    return len(piece) >= 2 and piece[-1] == "," and piece[-2].isdigit()


def _normalized(name: str, config: Mapping[str, Any], cleaned: list) -> list:
    if name == "albert":
        made = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if config.get("keep_accents") is not True:
            made += [normalizers.NFKD(), normalizers.StripAccents()]
        if config.get("do_lower_case", True):
            made.append(normalizers.Lowercase())
        return [*made, *cleaned, normalizers.Replace(Regex(" {2,}"), " ")]
    if name == "debertav2":
        lower = [normalizers.Lowercase()] if config.get("do_lower_case") is True else []
        return [*lower, normalizers.Strip(), *cleaned, normalizers.Replace(Regex(" {2,}"), " ")]
    return [*cleaned, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")]

"""Folders with small tokenizers of each kind, trained on a few lines of five scripts."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    "The film was playing, and nobody watched it; it's a play about players.",
    "A wonderful story of love and of losing it again and again.",
    "中国的菜很好吃，送餐也快。服务态度好，下次再来！",
    "味道不错，量足，就是有点慢。",
    "Фильм был замечательный, но немного длинный.",
    "كان الفيلم رائعا ولكنه طويل جدا",
    "Great 😀 fun 🎉 with the family 👨‍👩‍👧 today 😀😀",
    "don't -- stop ... 3,141.59 and e-mail me@example.org",
]
TEXTS = [
    *LINES, "", " ", "  two  spaces ", "naïve café CAFÉ", "中国很好吃 and mixed中国", "日本語のテキスト ภาษาไทย", "a" * 300,
    "zero\u200bwidth \u00a0nbsp\ttab\nline", "unseen ξενοδοχείο ☃", "words " * 40, "slow</s> and <mask> and [MASK] and <s>",
]  # fmt: skip

ROBERTAS = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
BERTS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def _ends(library: Tokenizer, special: dict[str, str]) -> list[tuple[str, int]]:
    return [(special[role], library.token_to_id(special[role])) for role in ("sep", "cls")]


def _template(library: Tokenizer, special: dict[str, str], single: str, pair: str) -> None:
    library.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=_ends(library, special))


def _train(library: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    library.train_from_iterator(LINES * 3, trainer)
    return library


def mpnet() -> tuple[Tokenizer, dict[str, str]]:
    """WordPiece whose vocabulary has BERT's special tokens too, none of which stands around a text."""
    special = {**ROBERTAS, "unk": "[UNK]"}
    library = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    names = list(dict.fromkeys([*special.values(), "[CLS]", "[SEP]", "[PAD]", "[MASK]"]))
    _train(library, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False))
    library.post_processor = processors.RobertaProcessing(*_ends(library, special))
    return library, special


def bpe() -> tuple[Tokenizer, dict[str, str]]:
    """BPE of characters, with BERT's special tokens and types."""
    library = Tokenizer(models.BPE(unk_token="[UNK]"))
    library.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()])
    special = list(BERTS.values())
    _train(library, trainers.BpeTrainer(vocab_size=320, special_tokens=special, limit_alphabet=90, show_progress=False))
    _template(library, BERTS, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return library, BERTS


def byte_level(special: dict[str, str] = ROBERTAS) -> tuple[Tokenizer, dict[str, str]]:
    """RoBERTa's."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = list(dict.fromkeys(special.values()))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    _train(library, trainer)
    if special is ROBERTAS:
        library.post_processor = processors.RobertaProcessing(*_ends(library, special), trim_offsets=True, add_prefix_space=False)
    return library, special


def gpt2() -> tuple[Tokenizer, dict[str, str]]:
    """Byte-level without any special token around a text, and without padding."""
    library, special = byte_level({"eos": "<|endoftext|>"})
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    return library, special


def unigram() -> tuple[Tokenizer, dict[str, str]]:
    """XLM-R's."""
    library = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), spaces])
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=names, unk_token="<unk>", show_progress=False)
    _train(library, trainer)
    _template(library, ROBERTAS, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    return library, ROBERTAS


def albert() -> tuple[Tokenizer, dict[str, str]]:
    """Unigram with BERT's special tokens and types."""
    library, _ = unigram()
    special = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    _template(library, special, "<s> $A </s>", "<s> $A </s> $B:1 </s>:1")
    return library, special


KINDS = {"mpnet": mpnet, "bpe": bpe, "byte_level": byte_level, "gpt2": gpt2, "unigram": unigram, "albert": albert}


def write_tokenizer(folder: Path, kind: str, **config: object) -> Path:
    """A folder with a tokenizer of that kind."""
    folder.mkdir(parents=True, exist_ok=True)
    library, special = KINDS[kind]()
    library.save(str(folder / "tokenizer.json"))
    entries = {"tokenizer_class": "PreTrainedTokenizerFast", **{f"{role}_token": token for role, token in special.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(entries | config), encoding="utf-8")
    return folder

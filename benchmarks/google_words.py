"""Text to tokens for `google_pretraining.py`: Google's basic tokenizer and the greedy search of a vocabulary, in plain Python,
written from the description of BERT's code (Devlin et al. 2019, and google-research/bert)."""

from __future__ import annotations

import unicodedata
from pathlib import Path

LONGEST_WORD = 200  # characters; longer ones are unknown


def is_chinese(character: str) -> bool:
    """Whether it is in the blocks that BERT takes for a word each."""
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2A6DF or 0x2A700 <= code <= 0x2B73F
        or 0x2B740 <= code <= 0x2B81F or 0x2B820 <= code <= 0x2CEAF or 0xF900 <= code <= 0xFAFF or 0x2F800 <= code <= 0x2FA1F
    )  # fmt: skip


def is_blank(character: str) -> bool:
    """White space, of which three control characters are counted."""
    return character in " \t\n\r" or unicodedata.category(character) == "Zs"


def is_control(character: str) -> bool:
    """Control and format characters that are no white space."""
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf")


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and the signs of ASCII."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")


def cleaned(text: str) -> str:
    """Without control characters, blanks for white space, and blanks around Chinese characters."""
    output = []
    for character in text:
        if ord(character) in (0, 0xFFFD) or is_control(character):
            continue
        if is_blank(character):
            output.append(" ")
        elif is_chinese(character):
            output += [" ", character, " "]
        else:
            output.append(character)
    return "".join(output)


def without_accents(word: str) -> str:
    """Decomposed, less the marks."""
    return "".join(character for character in unicodedata.normalize("NFD", word) if unicodedata.category(character) != "Mn")


def split_at_punctuation(word: str) -> list[str]:
    """Each sign by itself."""
    parts: list[list[str]] = []
    begins = True
    for character in word:
        if is_punctuation(character):
            parts.append([character])
            begins = True
        else:
            if begins:
                parts.append([])
            parts[-1].append(character)
            begins = False
    return ["".join(part) for part in parts]


def words_of(text: str, lower_case: bool) -> list[str]:
    """What BERT takes for words."""
    words: list[str] = []
    for word in cleaned(text).strip().split():
        if lower_case:
            word = without_accents(word.lower())
        words += split_at_punctuation(word)
    return " ".join(words).strip().split()


def pieces_of(word: str, vocabulary: dict[str, int]) -> list[str]:
    """The longest piece there is, again and again; [UNK] where that does not reach the word's end."""
    characters = list(word)
    if len(characters) > LONGEST_WORD:
        return ["[UNK]"]
    pieces, start = [], 0
    while start < len(characters):
        end, found = len(characters), None
        while start < end:
            piece = "".join(characters[start:end])
            if start > 0:
                piece = "##" + piece
            if piece in vocabulary:
                found = piece
                break
            end -= 1
        if found is None:
            return ["[UNK]"]
        pieces.append(found)
        start = end
    return pieces


def tokenize(text: str, vocabulary: dict[str, int], lower_case: bool) -> list[str]:
    """The pieces of a line."""
    return [piece for word in words_of(text, lower_case) for piece in pieces_of(word, vocabulary)]


def read_vocabulary(path: Path) -> dict[str, int]:
    """Token -> number of its line."""
    return {line.rstrip("\r"): number for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))}

"""English sentences whose names are labelled, made from raw text: a folder with train.txt and dev.txt, a word and its tag a line.

    python benchmarks/english_names.py data/enwiki.txt data/english_names

No tagged English corpus is free to take along, so this makes one. The names are TextBlob's list of well-known persons, places and
organisations (the extra `augment`). Of the text only sentences are taken in which each capitalised word but the first belongs to
a listed name, or is a month, a day or a people, so that no name is left without a label. A sentence is one of dev if all its
names are among those held back (a third, by their hash), of train if none is: no name of dev was seen in training, and an encoder
without case must know or guess from the sentence that it is one, and of which type.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import zlib
from collections.abc import Container
from pathlib import Path

TYPES = {"PERS": "PER", "LOC": "LOC", "ORG": "ORG"}
HELD_BACK = 3
"""Of this many names one is of dev alone."""
WORD = re.compile(r"\w+(?:['’.&-]\w+)*|[^\w\s]")
SENTENCE = re.compile(r"(?<=[a-z0-9)][.!?])\s+(?=[A-Z])")
LENGTHS = range(6, 60)
"""Words of a sentence that is taken."""
NO_NAMES = frozenset(
    "January February March April May June July August September October November December Monday Tuesday Wednesday Thursday "
    "Friday Saturday Sunday American British English French German Italian Spanish Russian Chinese Japanese Indian Australian "
    "Canadian Dutch Greek Irish Scottish Welsh Swedish Norwegian Danish Polish Turkish European African Asian Roman Jewish "
    "Christian Catholic Muslim Islamic Mr Mrs Dr I".split()
)
"""Capitalised words that are no names of these types."""
Name = tuple[str, ...]


def listed_names(ordinary: Container[str]) -> dict[Name, str]:
    """Words of a name -> its type. A person of two words is also known by the last alone, where that is no other name and, in
    small letters, none of the `ordinary` words."""
    place = Path(importlib.util.find_spec("textblob").origin).parent / "en" / "en-entities.txt"
    names: dict[Name, str] = {}
    for line in place.read_text(encoding="utf-8").splitlines():
        *words, kind = line.split()
        if kind in TYPES and words:
            names[tuple(WORD.findall(" ".join(words)))] = TYPES[kind]
    persons = [name for name, kind in names.items() if kind == "PER" and len(name) == 2]
    return {name[-1:]: "PER" for name in persons if name[-1].lower() not in ordinary} | names


def held_back(name: Name) -> bool:
    """Whether a name is of dev; the same in every run."""
    return zlib.crc32(name[-1].encode()) % HELD_BACK == 0  # both forms of a person's name


def tagged(words: list[str], names: dict[Name, str]) -> tuple[list[str], set[bool]] | None:
    """Tags of a sentence's words, and whether its names are held back; None where it has no name, or a capitalised word outside
    of the listed ones."""
    tags, sides, index = ["O"] * len(words), set(), 0
    longest = max(map(len, names))
    while index < len(words):
        spans = (tuple(words[index : index + length]) for length in range(longest, 0, -1))
        found = next((span for span in spans if span in names), None)
        if found is None:
            if index and words[index][0].isupper() and words[index] not in NO_NAMES:
                return None
            index += 1
            continue
        kind = names[found]
        tags[index : index + len(found)] = [f"B-{kind}", *[f"I-{kind}"] * (len(found) - 1)]
        sides.add(held_back(found))
        index += len(found)
    return (tags, sides) if sides else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="raw text, a paragraph a line")
    parser.add_argument("out", type=Path, help="folder to make")
    options = parser.parse_args()
    text, sentences = options.text.read_text(encoding="utf-8"), {"train": [], "dev": []}
    names = listed_names({word for word in WORD.findall(text) if word.islower()})
    for sentence in (sentence for line in text.splitlines() for sentence in SENTENCE.split(line.strip())):
        words = WORD.findall(sentence)
        found = tagged(words, names) if len(words) in LENGTHS else None
        if found is not None and len(found[1]) == 1:
            part = "dev" if found[1] == {True} else "train"
            sentences[part].append("".join(f"{word} {tag}\n" for word, tag in zip(words, found[0])))
    options.out.mkdir(parents=True, exist_ok=True)
    for part, rows in sentences.items():
        rows = list(dict.fromkeys(rows))
        (options.out / f"{part}.txt").write_text("\n".join(rows), encoding="utf-8")
        print(f"{part}: {len(rows):,} sentences")


if __name__ == "__main__":
    main()

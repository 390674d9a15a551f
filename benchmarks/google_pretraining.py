"""Masked language model examples as Google's create_pretraining_data.py makes them: one process, plain Python, no shortcuts.

    python benchmarks/google_pretraining.py --input text.txt --vocabulary uncased.txt --output plain.tfrecord

What `mlm_data.py` measures `crossdistil data mlm` against, written from the description of that script (Devlin et al. 2019, and
google-research/bert): a sentence a line, blank lines between documents, all of them in memory as lists of tokens; every word
goes anew through a greedy search of the vocabulary (`google_words.py`); every pass draws its pairs and masks one example at a
time; each record is a tf.train.Example of Python lists, written by TensorFlow. For the same seed the records are those of
`--algorithm google`.

`--whole-words chinese` is what the well-known Chinese variants add: in every pass, each line goes through jieba, and characters
that go on with a word of up to three are marked by ## until they are written.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import NamedTuple

from google_words import is_chinese, read_vocabulary, tokenize

LONGEST_CHINESE_WORD = 3
SPECIAL = ("[CLS]", "[SEP]")


class Example(NamedTuple):
    """Tokens after masking, the segment of each, and the places and former tokens of those that are masked."""

    tokens: list[str]
    segments: list[int]
    is_random_next: bool
    positions: list[int]
    labels: list[str]


# ---------------------------------------------------------------------------------------------- text to documents


def read_documents(path: Path, vocabulary: dict[str, int], lower_case: bool, rng: random.Random) -> list[list[list[str]]]:
    """Documents of sentences of tokens, shuffled."""
    documents: list[list[list[str]]] = [[]]
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            line = line.strip()
            if not line:
                documents.append([])
            if tokens := tokenize(line, vocabulary, lower_case):
                documents[-1].append(tokens)
    documents = [document for document in documents if document]
    rng.shuffle(documents)
    return documents


# ---------------------------------------------------------------------------------------------- tokens to examples


def create_instances(documents: list[list[list[str]]], words: list[str], options: argparse.Namespace, rng: random.Random):
    """All examples of all passes, shuffled."""
    instances: list[Example] = []
    for _ in range(options.dupe_factor):
        for place in range(len(documents)):
            instances += instances_of(documents, place, words, options, rng)
    rng.shuffle(instances)
    return instances


def instances_of(
    documents: list[list[list[str]]], place: int, words: list[str], options: argparse.Namespace, rng: random.Random
) -> list[Example]:
    """A pass over a document: pairs of stretches, of which half have a random second one."""
    document = documents[place]
    if options.whole_words == "chinese":
        document = [marked(sentence) for sentence in document]
    room = options.max_seq_length - 3
    target = room
    if rng.random() < options.short_seq_prob:
        target = rng.randint(2, room)
    instances, chunk, length, number = [], [], 0, 0
    while number < len(document):
        sentence = document[number]
        chunk.append(sentence)
        length += len(sentence)
        if number == len(document) - 1 or length >= target:
            end = 1 if len(chunk) < 2 else rng.randint(1, len(chunk) - 1)
            a = [token for part in chunk[:end] for token in part]
            b: list[str] = []
            is_random_next = len(chunk) == 1 or rng.random() < 0.5
            if is_random_next:
                wanted = target - len(a)
                for _ in range(10):
                    other = rng.randint(0, len(documents) - 1)
                    if other != place:
                        break
                another = documents[other]
                for part in another[rng.randint(0, len(another) - 1) :]:
                    b.extend(part)
                    if len(b) >= wanted:
                        break
                number -= len(chunk) - end
            else:
                b = [token for part in chunk[end:] for token in part]
            shorten(a, b, room, rng)
            tokens, segments = ["[CLS]"], [0]
            for token in a:
                tokens.append(token)
                segments.append(0)
            tokens.append("[SEP]")
            segments.append(0)
            for token in [*b, "[SEP]"]:
                tokens.append(token)
                segments.append(1)
            instances.append(Example(tokens, segments, is_random_next, *mask(tokens, words, options, rng)))
            chunk, length = [], 0
        number += 1
    return instances


def shorten(a: list[str], b: list[str], room: int, rng: random.Random) -> None:
    """Tokens off the longer one, from the front or the end, until both fit."""
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if rng.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def mask(tokens: list[str], words: list[str], options: argparse.Namespace, rng: random.Random) -> tuple[list[int], list[str]]:
    """Mask `tokens` in place; the places and what was there, in order."""
    candidates: list[list[int]] = []
    for place, token in enumerate(tokens):
        if token in SPECIAL:
            continue
        if options.whole_words != "none" and candidates and token.startswith("##"):
            candidates[-1].append(place)
        else:
            candidates.append([place])
    rng.shuffle(candidates)
    originals = list(tokens)
    wanted = min(options.max_predictions_per_seq, max(1, int(round(len(tokens) * options.masked_lm_prob))))
    masked: list[tuple[int, str]] = []
    covered: set[int] = set()
    for candidate in candidates:
        if len(masked) >= wanted:
            break
        if len(masked) + len(candidate) > wanted or any(place in covered for place in candidate):
            continue
        for place in candidate:
            covered.add(place)
            if rng.random() < 0.8:
                replacement = "[MASK]"
            elif rng.random() < 0.5:
                replacement = originals[place]
            else:
                replacement = words[rng.randint(0, len(words) - 1)]
            tokens[place] = replacement
            masked.append((place, originals[place]))
    masked.sort(key=lambda pair: pair[0])
    return [place for place, _ in masked], [label for _, label in masked]


def marked(tokens: list[str]) -> list[str]:
    """With ## before the characters that go on with one of jieba's words."""
    import jieba

    words = set(jieba.lcut("".join(token.removeprefix("##") for token in tokens)))
    result, place = [], 0
    while place < len(tokens):
        size = 1
        if is_chinese(tokens[place][0]):
            sizes = range(LONGEST_CHINESE_WORD, 1, -1)
            size = next((n for n in sizes if place + n <= len(tokens) and "".join(tokens[place : place + n]) in words), 1)
        result.append(tokens[place])
        result += ["##" + token for token in tokens[place + 1 : place + size]]
        place += size
    return result


def unmarked(token: str) -> str:
    """A Chinese character without the ## of `marked`."""
    return token[2:] if len(token) == 3 and token.startswith("##") and is_chinese(token[2]) else token


# ---------------------------------------------------------------------------------------------- examples to records


def write_instances(instances: list[Example], vocabulary: dict[str, int], options: argparse.Namespace) -> None:
    """One TFRecord file, by TensorFlow."""
    import tensorflow as tf

    def integers(values: list[int]):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=list(values)))

    def floats(values: list[float]):
        return tf.train.Feature(float_list=tf.train.FloatList(value=list(values)))

    length, most = options.max_seq_length, options.max_predictions_per_seq
    with tf.io.TFRecordWriter(str(options.output)) as writer:
        for instance in instances:
            tokens, labels = instance.tokens, instance.labels
            if options.whole_words == "chinese":
                tokens, labels = [unmarked(token) for token in tokens], [unmarked(token) for token in labels]
            input_ids = [vocabulary[token] for token in tokens]
            input_mask, segment_ids = [1] * len(input_ids), list(instance.segments)
            while len(input_ids) < length:
                input_ids.append(0)
                input_mask.append(0)
                segment_ids.append(0)
            positions, masked_ids = list(instance.positions), [vocabulary[token] for token in labels]
            weights = [1.0] * len(masked_ids)
            while len(positions) < most:
                positions.append(0)
                masked_ids.append(0)
                weights.append(0.0)
            features = {
                "input_ids": integers(input_ids),
                "input_mask": integers(input_mask),
                "segment_ids": integers(segment_ids),
                "masked_lm_positions": integers(positions),
                "masked_lm_ids": integers(masked_ids),
                "masked_lm_weights": floats(weights),
                "next_sentence_labels": integers([int(instance.is_random_next)]),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cased", action="store_true", help="keep the case of letters, and accents")
    parser.add_argument("--whole-words", choices=["none", "pieces", "chinese"], default="none")
    parser.add_argument("--max-seq-length", type=int, default=128)
    parser.add_argument("--max-predictions-per-seq", type=int, default=20)
    parser.add_argument("--masked-lm-prob", type=float, default=0.15)
    parser.add_argument("--dupe-factor", type=int, default=10)
    parser.add_argument("--short-seq-prob", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=12345)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    vocabulary = read_vocabulary(options.vocabulary)
    start = time.perf_counter()
    documents = read_documents(options.input, vocabulary, not options.cased, rng)
    print(f"tokenized in {time.perf_counter() - start:.1f} s", flush=True)
    instances = create_instances(documents, list(vocabulary), options, rng)
    write_instances(instances, vocabulary, options)
    print(f"{len(instances)} examples in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()

"""Google's create_pretraining_data.py (google-research/bert), example for example for the same seed.

Its order of random draws is part of what is reproduced: one `random.Random(seed)` shuffles the documents, cuts, pairs, shortens
and masks them, and shuffles the examples. So are its ways where `crossdistil data mlm` has others: all text and all examples are
in memory; the limit of short examples holds for a document's whole pass; a ## piece after [SEP] belongs to the word before it; a
random piece may be any of the vocabulary.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import replace_folder
from .blocks import COUNTS
from .create import described, shard_name, summed_up, write_note
from .documents import Corpus
from .google_tokenizer import GoogleTokenizer
from .records import Examples
from .settings import Settings
from .vocabulary import Vocabulary

Document = list[list[int]]
"""Sentences of ids."""
Example = tuple[array, int, array, array, int]
"""Ids, length of the first segment, masked positions, their labels, 1 where the next sentence is random."""

_TRIES = 10  # to draw another document
_AT_ONCE = 4096  # examples
_PAD = 0  # whatever the vocabulary says


def read_documents(corpus: Corpus, tokenizer: GoogleTokenizer, report: Callable[[int, int], None]) -> list[Document]:
    """All documents; those without a piece are left out. Raises DataError where there is none."""
    documents: list[Document] = [[]]
    for sentence in corpus.sentences(join_files=True):
        if sentence is None:
            documents.append([])
            report(corpus.position // 2, corpus.size)  # the other half is making examples
        elif ids := tokenizer.encode(sentence):
            documents[-1].append(ids)
    documents = [document for document in documents if document]
    if not documents:
        raise DataError(f"{corpus.where()}: holds no text")
    return documents


class GoogleExamples:
    """The examples of documents, drawn as Google's script draws them. The documents are shuffled in place."""

    def __init__(self, documents: list[Document], vocabulary: Vocabulary, settings: Settings):
        self._documents, self._settings = documents, settings
        self._rng = random.Random(settings.seed)
        self._continues = vocabulary.continues.tolist()
        self._cls, self._sep, self._mask = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id
        self._tokens = len(vocabulary.tokens)
        self._room = settings.max_seq_length - 3

    def make(self, report: Callable[[int, int], None]) -> list[Example]:
        """All examples, in their order."""
        self._rng.shuffle(self._documents)
        examples: list[Example] = []
        total = self._settings.dupe_factor * len(self._documents)
        for turn in range(total):
            examples += self._of_document(turn % len(self._documents))
            report(turn + 1, total)
        self._rng.shuffle(examples)
        return examples

    def _of_document(self, place: int) -> Iterator[Example]:
        rng, document = self._rng, self._documents[place]
        wanted = self._room
        if rng.random() < self._settings.short_seq_prob:
            wanted = rng.randint(2, self._room)
        first = 0
        while first < len(document):
            behind, size = first, 0
            while behind < len(document) and (behind == first or size < wanted):
                size += len(document[behind])
                behind += 1
            middle = first + (rng.randint(1, behind - first - 1) if behind - first > 1 else 1)
            a = [piece for sentence in document[first:middle] for piece in sentence]
            is_random = behind - first == 1 or rng.random() < 0.5
            if is_random:
                b = self._random_stretch(place, wanted - len(a))
                behind = middle  # the sentences that were not used come again
            else:
                b = [piece for sentence in document[middle:behind] for piece in sentence]
            self._shorten(a, b)
            yield self._masked([self._cls, *a, self._sep, *b, self._sep], len(a) + 2, is_random)
            first = behind

    def _random_stretch(self, place: int, wanted: int) -> list[int]:
        """Sentences of another document (of the same one where ten draws find no other) from a random one on."""
        rng, documents = self._rng, self._documents
        for _ in range(_TRIES):
            other = rng.randint(0, len(documents) - 1)
            if other != place:
                break
        pieces: list[int] = []
        for sentence in documents[other][rng.randint(0, len(documents[other]) - 1) :]:
            pieces += sentence
            if len(pieces) >= wanted:
                break
        return pieces

    def _shorten(self, a: list[int], b: list[int]) -> None:
        """Piece by piece from the longer one, from its front or its end."""
        while len(a) + len(b) > self._room:
            longer = a if len(a) > len(b) else b
            longer.pop(0 if self._rng.random() < 0.5 else -1)

    def _masked(self, ids: list[int], first_length: int, is_random: bool) -> Example:
        rng, settings = self._rng, self._settings
        words: list[list[int]] = []
        for position, piece in enumerate(ids):
            if piece in (self._cls, self._sep):
                continue
            if settings.whole_words == "pieces" and words and self._continues[piece]:
                words[-1].append(position)
            else:
                words.append([position])
        rng.shuffle(words)
        budget = min(settings.max_predictions_per_seq, max(1, round(len(ids) * settings.masked_lm_prob)))
        result, positions = list(ids), []
        for word in words:
            if len(positions) >= budget:
                break
            if len(positions) + len(word) > budget:
                continue
            for position in word:
                if rng.random() < 0.8:
                    result[position] = self._mask
                elif rng.random() >= 0.5:
                    result[position] = rng.randint(0, self._tokens - 1)
                positions.append(position)
        positions.sort()
        labels = array("i", (ids[position] for position in positions))
        return array("i", result), first_length, array("i", positions), labels, int(is_random)


def create_google(
    corpus: Corpus, vocabulary: Vocabulary, settings: Settings, out: Path, files: int, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the examples into `files` record files of the new folder `out`, one after the other in turn, and return the note.
    The files appear together once all are written."""
    if not settings.next_sentence:
        raise DataError("--no-next-sentence: Google's algorithm has always next sentences; leave out --algorithm google")
    if settings.whole_words == "chinese":
        raise DataError("--whole-words chinese: Google's algorithm knows words by their ## pieces alone")
    if out.exists() and not out.is_dir() or out.is_dir() and any(out.iterdir()):
        raise DataError(f"--out {out}: is there already; name a new folder")
    tokenizer = GoogleTokenizer(vocabulary.tokens, vocabulary.lower_case)
    documents = read_documents(corpus, tokenizer, report)
    counts = Counter(dict.fromkeys(COUNTS, 0))
    counts.update(documents=len(documents), sentences=sum(map(len, documents)))
    counts.update(pieces=sum(len(sentence) for document in documents for sentence in document))

    def halfway(done: int, total: int) -> None:
        report((corpus.size + corpus.size * done // total) // 2, corpus.size)

    examples = GoogleExamples(documents, vocabulary, settings).make(halfway)
    counts.update(examples=len(examples), random_next=sum(example[4] for example in examples))
    counts.update(tokens=sum(len(example[0]) for example in examples), masked=sum(len(example[2]) for example in examples))
    names = [shard_name(number) for number in range(files)]
    note = summed_up(described(corpus, vocabulary, settings, "google"), corpus, counts, names)
    with replace_folder(out) as temporary:
        with ExitStack() as stack:
            writers = [stack.enter_context((temporary / name).open("wb")) for name in names]
            for number, record in enumerate(_records(examples, settings)):
                writers[number % files].write(record)
        write_note(temporary / "mlm.json", note)
    return note


def _records(examples: Sequence[Example], settings: Settings) -> Iterator[bytes]:
    for start in range(0, len(examples), _AT_ONCE):
        rows = examples[start : start + _AT_ONCE]
        for data, ends in Examples.from_rows(rows, settings.max_seq_length, settings.max_predictions_per_seq, _PAD).encode():
            yield from (data[first:end] for first, end in zip([0, *ends], ends))

"""One block of documents to records: what a worker process does, the same in whatever process and order it is done.

All randomness is drawn from (seed, number of the block, pass), and all passes of a block are shuffled together.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..tfrecord import framed
from .documents import Block
from .masking import Masker
from .segments import cut_sentences, pack_pairs, pack_single
from .settings import Settings
from .vocabulary import Vocabulary
from .words import Encoder

COUNTS = ("documents", "sentences", "pieces", "examples", "tokens", "masked", "random_next")
"""What is counted: `pieces` of the text, once; `tokens` of the examples without padding, and so on, of all passes."""


@dataclass(frozen=True)
class Source:
    """What makes the same vocabulary in each process."""

    vocabulary: Path
    lower_case: bool | None
    settings: Settings


def block_maker(source: Source) -> Callable[[Block], tuple[bytes, Counter]]:
    """The function from a block to its records, as they lie in a file, and what was counted."""
    vocabulary = Vocabulary(source.vocabulary, source.lower_case)
    settings = source.settings
    encoder, masker = Encoder(vocabulary, settings.whole_words), Masker(vocabulary, settings)
    room = settings.max_seq_length - (3 if settings.next_sentence else 2)
    # Half of the room: the parts of a long paragraph then are each other's next sentence.
    longest = room // 2 if settings.next_sentence else room
    pack = pack_pairs if settings.next_sentence else pack_single

    def make(block: Block) -> tuple[bytes, Counter]:
        sentences = [sentence for document in block.documents for sentence in document]
        ids, begins, lengths = encoder.encode(sentences)
        numbers = np.array([len(document) for document in block.documents])
        ends, documents = cut_sentences(lengths, numbers, begins, longest)
        counts = Counter(documents=block.ended, sentences=len(sentences), pieces=len(ids))
        records: list[bytes] = []
        for number in range(settings.dupe_factor if len(ids) else 0):
            draws = random.Random(f"{settings.seed} {block.number} {number}")
            found = pack(ends.tolist(), documents.tolist(), room, settings.short_seq_prob, draws)
            generator = np.random.Generator(np.random.PCG64([settings.seed, block.number, number]))
            examples = masker.examples(ids, begins, found, generator)
            records += examples.encode()
            counts.update(tokens=int(examples.lengths.sum()), masked=int(examples.masked.sum()))
            counts.update(examples=len(examples.lengths), random_next=int(examples.random_next.sum()))
        random.Random(f"{settings.seed} {block.number} order").shuffle(records)
        return b"".join(map(framed, records)), counts

    return make

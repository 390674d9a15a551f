"""One block of documents to records: what a worker process does, the same in whatever process and order it is done.

All randomness is drawn from (seed, number of the block, pass), and all passes of a block are shuffled together.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .documents import Block
from .drawn_masks import Masker
from .records import Examples
from .segments import cut_sentences, pack_pairs, pack_single
from .settings import Settings
from .vocabulary import Vocabulary
from .word_starts import Encoder

COUNTS = ("documents", "sentences", "pieces", "examples", "tokens", "masked", "random_next")
"""What is counted: `pieces` of the text, once; `tokens` of the examples without padding, and so on, of all passes."""


@dataclass(frozen=True)
class Source:
    """What makes the same vocabulary in each process."""

    vocabulary: Path
    lower_case: bool | None
    settings: Settings


def block_maker(source: Source) -> Callable[[Block, BinaryIO], Counter]:
    """The function that writes a block's records into a file, and tells what was counted."""
    vocabulary = Vocabulary(source.vocabulary, source.lower_case)
    settings = source.settings
    encoder, masker = Encoder(vocabulary, settings.whole_words), Masker(vocabulary, settings)
    room = settings.max_seq_length - (3 if settings.next_sentence else 2)
    # Half of the room: the parts of a long paragraph then are each other's next sentence.
    longest = room // 2 if settings.next_sentence else room
    pack = pack_pairs if settings.next_sentence else pack_single

    def make(block: Block, file: BinaryIO) -> Counter:
        sentences = [sentence for document in block.documents for sentence in document]
        ids, begins, lengths = encoder.encode(sentences)
        numbers = np.array([len(document) for document in block.documents])
        ends, documents = cut_sentences(lengths, numbers, begins, longest)
        ends, documents = ends.tolist(), documents.tolist()
        counts = Counter(documents=block.ended, sentences=len(sentences), pieces=len(ids))
        passes: list[Examples] = []
        for number in range(settings.dupe_factor if len(ids) else 0):
            draws = random.Random(f"{settings.seed} {block.number} {number}")
            found = pack(ends, documents, room, settings.short_seq_prob, draws)
            generator = np.random.Generator(np.random.PCG64([settings.seed, block.number, number]))
            passes.append(masker.examples(ids, begins, found, generator))
        if passes:
            examples = Examples.joined(passes)
            counts.update(tokens=int(examples.lengths.sum()), masked=int(examples.masked.sum()))
            counts.update(examples=len(examples), random_next=int(examples.random_next.sum()))
            order = list(range(len(examples)))
            random.Random(f"{settings.seed} {block.number} order").shuffle(order)
            for data, _ in examples.encode(order):
                file.write(data)
        return counts

    return make

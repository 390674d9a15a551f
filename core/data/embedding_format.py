"""What examples of sentence embeddings are, as a recipe's `task.embeddings` says."""

from __future__ import annotations

from dataclasses import dataclass

MEMBERS = {"texts": 1, "scored": 2, "pairs": 2, "triplets": 3}
"""What a training example is -> how many texts it has."""


@dataclass(frozen=True)
class EmbeddingFormat:
    """How the files are read."""

    examples: str = "scored"
    """A key of `MEMBERS`."""
    negative: str | None = None
    """The column of a triplet's third text."""
    lowest: float = 0.0
    highest: float = 1.0
    """From where to where the scores of the files are."""
    encoding: str | None = None
    teacher_scores: tuple[str, ...] = ()
    """The columns of another model's scores of the first text with the second and with the third one, or one of their margin."""
    retrieval: bool = False
    """Whether dev and test are queries with their candidates, all of which are searched, instead of pairs with a score."""

    @property
    def members(self) -> int:
        """How many texts a training example has."""
        return MEMBERS[self.examples]

"""`student.init.vocabulary: trimmed`: the student has those words of its tokenizer that the texts of the task have.

The texts are then cut into the same pieces, under other numbers: a model without the rows of the other words computes the same.
That is proven on all texts, and so the teachers with the same tokenizer compute without these rows as well, from the same
batches: what their tokens are at each place is not changed, and any loss fits that fitted before, but those over words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .checkpoint import Model
from .data.smaller_vocabulary import kept_tokens, trimmed_tokenizer
from .data.tasks import Examples
from .data.token_folder import is_store
from .data.token_table import TokenTable
from .data.tokenize import Tokenizer
from .errors import DataError, RecipeError
from .models.architectures import Config, is_encoder
from .models.tree import by_word
from .recipe import Recipe
from .stored_tensors import SomeRows, StoredTensors

KEY = "student.init.vocabulary"
_AT_ONCE = 1 << 22  # tokens that are looked at


@dataclass(frozen=True)
class KeptWords:
    """The words that stay."""

    tokenizer: Tokenizer
    """Of these alone."""
    rows: np.ndarray
    """(kept,) their numbers in the whole vocabulary, in order."""
    whole: Tokenizer
    """Of all."""

    def of(self, model: Model) -> Model:
        """A model that has these words alone; one whose weights are elsewhere stays as it is."""
        if not model.has_weights:
            return model
        config, parameters = model.config, model.parameters
        if isinstance(parameters, StoredTensors):
            own = [name for name in by_word(config) if name in parameters and parameters.shape(name)[0] == config.vocab_size]
            parameters = SomeRows(parameters, own, self.rows)
        return replace(model, config=self._config(config), parameters=parameters, whole_vocabulary=config.vocab_size)

    def _config(self, config: Config) -> Config:
        new = {int(row): index for index, row in enumerate(self.rows)}
        padding = new.get(config.pad_token_id, self.tokenizer.pad_id)
        return config.model_copy(update={config.own_key("vocab_size"): len(self.rows), "pad_token_id": padding})

    def note(self) -> str:
        """What became of the vocabulary, for the user."""
        return (
            f"{KEY}: {len(self.rows):,} of {self.whole.vocab_size:,} words stay, those of the task's texts; all of them are cut "
            "into the same pieces"
        )

    def check_same(
        self, whole: Mapping[str, TokenTable], kept: Mapping[str, TokenTable], examples: Mapping[str, Examples]
    ) -> None:
        """Raise DataError where a text of a split is cut into other pieces with these words alone."""
        for split, table in whole.items():
            other = kept[split]
            for first in range(0, max(len(table.ids), len(other.ids)), _AT_ONCE):
                there, here = table.ids[first : first + _AT_ONCE], other.ids[first : first + _AT_ONCE]
                if len(there) != len(here) or not np.array_equal(there, self.rows[here]):
                    size = min(len(there), len(here))
                    apart = np.flatnonzero(there[:size] != self.rows[here[:size]])
                    place = first + int(apart[0] if len(apart) else size)
                    row = max(0, int(np.searchsorted(table.offsets, place, "right")) - 1)
                    where = f"{examples[split].source}: text {row + 1}" if split in examples else split
                    raise DataError(f"{where}: is cut into other pieces without the words that no text has; leave out {KEY}")


def keep_used(tokenizer: Tokenizer, config: Config, tables: Mapping[str, TokenTable]) -> KeptWords | None:
    """The words of a tokenizer that token tables have, with those that it needs; None where that is all. `config` is that of a
    model with this vocabulary."""
    used = np.zeros(tokenizer.vocab_size, bool)
    for table in tables.values():
        for first in range(0, len(table.ids), _AT_ONCE):
            used[table.ids[first : first + _AT_ONCE]] = True
    # Positions may start behind the padding token's number, which must stay what it is then.
    used[: config.first_position] = True
    rows = kept_tokens(tokenizer, used)
    return None if len(rows) == tokenizer.vocab_size else KeptWords(trimmed_tokenizer(tokenizer, rows), rows, tokenizer)


def trimming_problems(recipe: Recipe, config: Config, guesses_words: bool) -> list[str]:
    """Why the student cannot have the words of the texts alone, as `path: message`."""
    if recipe.student.init.vocabulary != "trimmed":
        return []
    terms = [
        (f"stages[{index}].objective[{number}]", term.loss)
        for index, stage in enumerate(recipe.stages)
        for number, term in enumerate(stage.objective)
        if term.needs_words
    ]
    fewer = "predicts words, of which there would be fewer; trim the model itself first (crossdistil trim)"
    if terms:
        return [f"{KEY}: trimmed, but {place} ({loss}) {fewer}" for place, loss in terms]
    if guesses_words:
        return [f"{KEY}: trimmed, but the task {fewer}"]
    if not is_encoder(config):
        return [f"{KEY}: trimmed, but a BiLSTM has words of its own"]
    if is_store(recipe.task.data):
        return [f"{KEY}: trimmed needs texts, but task.data ({recipe.task.data}) holds tokens"]
    return []


def check_texts(source: str, examples: Mapping[str, Examples]) -> None:
    """Raise RecipeError where a split holds tokens, which cannot be cut anew."""
    for found in examples.values():
        if found.tokens is not None:
            raise RecipeError(source, [f"{KEY}: trimmed needs texts, but {found.source} holds records of tokens"])

"""The recipe's `teacher.file`: a file of what another model, as a large language model, answered to the task's texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from .section import Section, absolute
from .shown import shown
from .task_section import label_text

COLUMNS = (
    *("id", "text", "text_pair", "label", "labels", "spans", "probabilities", "log_probabilities", "logits", "votes"),
    *("confidence", "cost"),
)
"""What a record may hold."""
ABSTENTIONS = (
    *("", "unknown", "unsure", "uncertain", "abstain", "abstained", "refused", "refusal", "none", "null", "nan", "n/a", "error"),
)
"""What stands for no answer."""


class PriceSection(Section):
    """What the model's tokens cost, where the file counts them and names no cost of its own."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """Of a million tokens that it reads."""
    output: float = Field(ge=0, allow_inf_nan=False)
    """Of a million tokens that it writes."""


class FileSection(Section):
    """Answers of another model to the texts, in place of a model that runs: JSON lines, a JSON array, CSV or TSV with a label, a
    distribution over the classes or log-probabilities a text, or what providers' interfaces return; where words have labels,
    spans, or labels or distributions a word; of questions, parts of their contexts (docs/labelled_files.md)."""

    newer: ClassVar[tuple[str, ...]] = ("row_numbers", "stray_spans")

    path: Path
    """The file."""
    id: str | None = None
    """The column of the task's tables that the file's ids (`id`, `custom_id`) are of, of questions `id` or `query_id`; null: rows
    are found by their texts."""
    row_numbers: Literal[0, 1] | None = None
    """Where the file's ids are numbers of the rows of train's file (`17`, or with the split, `dev-17`, or the section of
    `aux_data`, `aux_data[0]-17`, `aux-17` of the only one): that of the first row.
    Rows count as they are in the file, without a header, also those that `limit` or `skip_labels` leaves out."""
    columns: dict[str, str] = {}
    """What the file calls what it holds, where that is not the usual name: `{label: gpt_label}`."""
    labels: dict[str, str] = {}
    """The file's label -> the task's class, where the two are written differently: `{pos: positive}`. Of questions, words that
    mean that the context has no answer: `{unanswerable: ""}`."""
    abstentions: tuple[str, ...] = ABSTENTIONS
    """Labels that are no answer, whatever their case."""
    other_labels: Literal["error", "abstain"] = "error"
    """A label that is no class of the task: an error, or no answer, which is counted."""
    stray_spans: Literal["error", "leave_out"] = "error"
    """Of words with labels, a span that is not in its text, or overlaps another one, and of questions, an answer that is not in
    its context, or not where the file says: an error, or left out, and counted."""
    repeated: Literal["error", "votes"] = "error"
    """Two different answers to a text: an error, or votes, whose shares are the distribution."""
    unanswered: Literal["error", "leave_out"] = "error"
    """Training texts, words of them, or questions, without an answer: an error, or left out of the training, and counted."""
    rest: Literal["spread", "drop"] = "spread"
    """What a distribution over some of the classes leaves of 1: shared evenly by the others, none of which gets more than the
    least that is named; or dropped, so that the others have `floor`. Of questions, tokens are the classes."""
    floor: float = Field(1e-4, gt=0, lt=0.5)
    """The least probability of a class, of questions of a token: a label alone is a distribution with this in all others."""
    weigh_by: Literal["agreement", "confidence"] | None = None
    """What a training text counts in the losses: the share of the votes for its answer, or how sure of it the model says it is
    (its `confidence`, else its probability); null: all count 1."""
    as_labels: Literal["never", "where_missing", "always"] = "never"
    """Whether answers are labels too, for `hard_label` and for scores: where the tables have none, or in their place."""
    price: PriceSection | None = None
    """For the report: what tokens cost."""

    _absolute_path = field_validator("path")(absolute)

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in COLUMNS:
                raise ValueError(f"got {shown(name)}, expected names of what a record holds: {', '.join(COLUMNS)}")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        # YAML reads `{0: negative}` as a number; in the file it is text.
        return {label_text(key): label_text(item) for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("abstentions", mode="before")
    @classmethod
    def _abstentions_are_text(cls, value: Any) -> Any:
        return [label_text(item) for item in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_way_to_find_rows(self) -> FileSection:
        if self.id is None and self.row_numbers is None and "id" in self.columns:
            told = "id names the column of the task's tables that they are of, or row_numbers says that they count rows"
            raise ValueError(f"columns.id names the file's ids; {told}")
        if self.id is not None and self.row_numbers is not None:
            raise ValueError("id and row_numbers are two ways to find rows: give one of them")
        return self

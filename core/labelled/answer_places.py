"""From what a model answered to a question to places in the text that the answer is a part of, each with its share.

An answer that is told by its words alone is where they stand, as whole words where they do; told once and standing several times,
it is shared evenly by the places. White space is any, and marks around it, and capitals where nothing else is found, do not
matter. With q the probabilities that are told and e what words for no answer, and answers that are left out, have of them, each
answer has q / (sum q + r), and all other tokens together r / (sum q + r), r = 1 - sum q - e; `rest: drop` makes r 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..data.labels import label_key
from ..data.tagged_files import word_places
from ..data.task_specs import TaskSpec
from ..errors import DataError
from ..file_section import FileSection
from ..shown import shown
from .answer_records import AROUND
from .question_records import OF_QUESTIONS, AnswerSaid
from .said import BadRecord, PartsRead, Said
from .word_answers import Notes, places_in, places_of

Place = tuple[int, int]
"""From which character to which."""
NOWHERE: Place = (-1, -1)
"""Of the answer that the text has none."""


@dataclass
class AnswersRead(PartsRead):
    """What a row answers to a question."""

    answers: list[AnswerSaid] = field(default_factory=list)
    """Without those that are no answer."""
    elsewhere: float = 0.0
    """What those have of the probability."""
    form: str = "answer"
    """What the numbers of the answers are; `answer`: a single one without."""

    @property
    def says(self) -> bool:
        """Whether there is an answer."""
        return bool(self.answers)

    def same(self, other: AnswersRead) -> bool:
        """Whether another row says the same."""
        return (self.answers, self.form) == (other.answers, other.form)


@dataclass
class Located:
    """The answers of a row at their places."""

    shares: dict[tuple[Place, ...], float]
    """All places of an answer -> how probable it is; together with `rest` they are 1."""
    rest: float
    """How probable it is that the answer is none of these."""
    are_votes: bool

    @property
    def best(self) -> tuple[Place, ...]:
        """The most probable one, of equals the first."""
        return max(self.shares, key=self.shares.get)


class AnswerPlaces:
    """What the answers of a file come to in the texts of a task."""

    reading = OF_QUESTIONS

    def __init__(self, spec: TaskSpec, section: FileSection, key: str):
        """`key` is the recipe's of the section. Raises DataError for what does not fit answers to questions."""
        self.spec, self.section, self.key, self.kind = spec, section, key, spec.kind
        for name, meant in section.labels.items():
            if meant:
                expected = "expected '': questions have no classes, and a word can only mean that the context has no answer"
                raise DataError(f"{key}.labels.{name}: got {shown(meant)}, {expected}")
        if section.other_labels != "error":
            way = "stray_spans: leave_out goes on without answers that are not in their context"
            raise DataError(f"{key}.other_labels: is of classes, and questions have none; {way}")
        self._nothing = {label_key(name) for name in section.labels}
        self._none = {label_key(name) for name in section.abstentions} - {""} - self._nothing

    def read(self, said: Said, line: int, base: str | None, others: list[str]) -> AnswersRead:
        """An answer as it is told, in the row's text `base`, without what is no answer. (`others` is of classes.)"""
        given = [AnswerSaid(said.label)] if isinstance(said.label, str) else said.label
        found = AnswersRead(line, base, said.confidence, form=said.form or "answer")
        for answer in given:
            key = label_key(answer.text or "")
            if answer.text is None or (key in self._nothing and answer.start is None):
                if self.spec.answering.unanswerable:
                    found.answers.append(AnswerSaid(None, share=answer.share))
                    continue
                found.why_not = "no answer in the context, but task.answers.unanswerable is false"
            elif key not in self._none or answer.start is not None:
                found.answers.append(answer)
                continue
            elif base is not None and _occurrences(answer.text, base)[0]:
                told = f"got {shown(answer.text)}, which is a word for no answer and a part of its context; its place"
                raise BadRecord(f"{told} (answer_start), or {self.key}.abstentions without it, says which is meant")
            found.elsewhere += answer.share
        return found

    def located(self, read: AnswersRead, context: str, notes: Notes) -> Located | None:
        """The answers of a row in the context of the task; None where all are left out. Raises BadRecord."""
        shares: dict[tuple[Place, ...], float] = {}
        elsewhere = read.elsewhere
        for answer in read.answers:
            places = (NOWHERE,) if answer.text is None else self._places(answer, read, context, notes)
            if places:
                shares[places] = shares.get(places, 0.0) + answer.share
            else:
                elsewhere += answer.share
        told = sum(shares.values())
        if not told:
            return None
        of_all = read.form in ("probabilities", "log_probabilities") and self.section.rest == "spread"
        rest = max(0.0, 1.0 - told - elsewhere) if of_all else 0.0
        whole = told + rest
        return Located({places: share / whole for places, share in shares.items()}, rest / whole, read.form == "votes")

    def _places(self, answer: AnswerSaid, read: AnswersRead, context: str, notes: Notes) -> tuple[Place, ...]:
        """Where an answer is; nowhere where it is left out."""
        text = answer.text or shown((answer.start, answer.end))
        if answer.start is not None:
            base = context if read.base is None else read.base
            if 0 <= answer.start < answer.end <= len(base) and answer.text in ("", base[answer.start : answer.end]):
                return (_in_other_writing(base, context, (answer.start, answer.end)),)
            got = shown(base[answer.start : answer.end], 60) if 0 <= answer.start < len(base) else "nothing"
            told = f"answer_start {answer.start}: got {got} there, expected {shown(text, 60)}"
            if not self.spec.answering.nearest or not answer.text:
                first = base.find(answer.text) if answer.text else -1
                where = f", which begins at character {first}" if first >= 0 else ""
                way = "; task.answers.misplaced: nearest takes the nearest place" if first >= 0 else ""
                return self._stray(read, notes, f"{told}{where}{way}")
        found, in_other_letters = _occurrences(answer.text, context)
        if not found:
            return self._stray(read, notes, f"the answer {shown(text, 60)} is not in its context {shown(context, 60)}")
        if in_other_letters:
            notes.add("letters", read.line)
        if answer.start is not None:
            notes.add("nearest", read.line)
            return (min(found, key=lambda place: abs(place[0] - answer.start)),)
        if len(found) > 1:
            notes.add("shared", read.line)
        return tuple(found)

    def _stray(self, read: AnswersRead, notes: Notes, told: str) -> tuple[Place, ...]:
        if self.section.stray_spans == "error":
            raise BadRecord(f"{told}; {self.key}.stray_spans: leave_out goes on without such answers")
        notes.add("no answer", read.line)
        return ()


def _occurrences(answer: str, context: str) -> tuple[list[Place], bool]:
    """Where some words stand in a text, and whether only in other letters."""
    words = word_places(context, False)
    for how in (0, re.IGNORECASE):
        for own in dict.fromkeys((answer.strip(), answer.strip(AROUND))):
            if own and (found := places_of(own, context, words, how)):
                return found, bool(how)
    return [], False


def _in_other_writing(base: str, context: str, place: Place) -> Place:
    """A place of a text in another writing of it, with other white space. Raises BadRecord where it is not that."""
    found = [place] if base == context else places_in(context, base, [place])
    if not found or "".join(context[slice(*found[0])].split()) != "".join(base[slice(*place)].split()):
        raise BadRecord(f"its places are of the context {shown(base, 60)}, expected those of {shown(context, 60)}")
    return found[0]

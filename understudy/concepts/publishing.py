"""A collected corpus on disk: which texts are held out, and a folder that is whole or not there.

No torch here.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from understudy.concepts.collecting import TextPair
from understudy.concepts.corpus import (
    CONTEXT_FILE,
    Corpus,
    Manifest,
    ManifestConcept,
    Text,
    load_corpus,
    write_manifest,
)
from understudy.concepts.duplicates import Joined, near_duplicates
from understudy.concepts.errors import CannotCollect
from understudy.lessons import ChatMessage

HOLD_OUT = 0.3
"""The share of the scenes that nothing is learnt from."""


def write_corpus(folder: Path, pairs: Iterable[TextPair], *, hold_out: float = HOLD_OUT) -> Corpus:
    """Write pairs as a corpus into a new or empty folder, whole or not at all, and give it as it reads.

    Of each concept the share `hold_out` of the scenes is held out, chosen by hash, at least one where there
    are two; scenes with near duplicates or of the same context stay together. Raises CannotCollect.
    """
    if not 0 <= hold_out < 1:
        raise CannotCollect(
            f"expected a share from 0 up to but not including 1 to hold out, got {hold_out:g}"
        )
    by_scene = {(pair.scene, pair.concept): pair for pair in pairs}
    found = [by_scene[key] for key in sorted(by_scene)]
    if not found:
        raise CannotCollect("expected pairs to write, got none: nothing was written")
    held_out = _held_out(found, hold_out)
    with _new_folder(folder) as aside:
        for pair in found:
            _write_pair(aside, pair)
        write_manifest(aside, _manifest(found, held_out))
    return load_corpus(folder)


# The split


def _held_out(pairs: Sequence[TextPair], share: float) -> list[TextPair]:
    """The pairs to hold out: by concept, groups in the order of their smallest scenes, which are hashes."""
    left = {pair.concept: _wanted(sum(own.concept == pair.concept for own in pairs), share) for pair in pairs}
    held_out = []
    for group in sorted(_groups(pairs), key=lambda group: min(pair.scene for pair in group)):
        counts = {concept: sum(pair.concept == concept for pair in group) for concept in left}
        if all(counts[concept] <= left[concept] for concept in left):
            held_out += group
            left = {concept: left[concept] - counts[concept] for concept in left}
    return held_out


def _wanted(scenes: int, share: float) -> int:
    return min(scenes - 1, max(1, round(share * scenes))) if share else 0


def _groups(pairs: Sequence[TextPair]) -> list[list[TextPair]]:
    """Pairs that have to be on the same side: near duplicates, and answers to the same message."""
    numbers = {path: number for number, pair in enumerate(pairs) for path in pair.paths}
    joined = Joined(len(pairs))
    for found in near_duplicates([text for pair in pairs for text in _texts(pair)]):
        joined.join(numbers[found.first.path], numbers[found.second.path])
    first: dict[str | tuple[ChatMessage, ...], int] = {}
    for number, pair in enumerate(pairs):
        joined.join(first.setdefault(pair.scene, number), number)
        if pair.context:
            joined.join(first.setdefault(pair.context, number), number)
    return [[pairs[number] for number in group] for group in joined.groups]


def _texts(pair: TextPair) -> tuple[Text, Text]:
    first, second = pair.paths
    text = Text(first, "framing", pair.concept, pair.scene, "train", pair.positive, pair.context)
    return text, replace(text, path=second, concept=pair.against, text=pair.negative)


# The folder


def _manifest(pairs: Sequence[TextPair], held_out: Sequence[TextPair]) -> Manifest:
    concepts = {name for pair in pairs for name in (pair.concept, pair.against) if name is not None}
    return Manifest(
        concepts={name: ManifestConcept() for name in sorted(concepts)},
        held_out=tuple(sorted({path for pair in held_out for path in pair.paths})),
        sources=dict(sorted(one for pair in pairs for one in zip(pair.paths, pair.sources, strict=True))),
    )


def _write_pair(folder: Path, pair: TextPair) -> None:
    for path, text in zip(pair.paths, (pair.positive, pair.negative), strict=True):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8", newline="\n")
        if pair.context:
            context = msgspec.json.format(msgspec.json.encode(pair.context), indent=2)
            (file.parent / CONTEXT_FILE).write_bytes(context + b"\n")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes this place when all is written and on disk."""
    place = folder.resolve()
    aside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        _refuse_filled(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        for written in (*aside.rglob("*"), aside):
            _sync(written)
        aside.rename(place)  # refused by the system where something is by now
        _sync(place.parent)
    except OSError as error:
        raise CannotCollect(
            f"expected to write a corpus at {folder}, it cannot be written: {error}"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_filled(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CannotCollect(
            f"expected a new or empty folder for the corpus, {place} holds something: nothing was changed. "
            "Name another"
        )


def _sync(path: Path) -> None:
    """Make what was written to a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

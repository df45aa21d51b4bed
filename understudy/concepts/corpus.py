"""A corpus of concepts: short texts in folders, each of which shows one concept.

    stories/<concept>.txt               one text, or
    stories/<concept>/<scene>.txt       several, each in its scene
    direct/<concept>.txt                the concept described
    paired/<scene>/<concept>.txt        one scene, told so that it shows the concept
    paired/<scene>/baseline.txt         the same scene, told so that it shows none
    paired/<scene>/context.json         messages that the scene's texts answer, when they are answers
    manifest.json                       words that name each concept; which texts are held out

No torch here.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from understudy.concepts.errors import BrokenCorpus, UnknownConcept
from understudy.lessons import ChatMessage

Kind = Literal["story", "direct", "framing", "baseline"]
Split = Literal["train", "held_out"]

MANIFEST_FILE = "manifest.json"
BASELINE = "baseline"
CONTEXT_FILE = "context.json"

log = logging.getLogger(__name__)

_Word = Annotated[str, msgspec.Meta(min_length=1)]


class ManifestConcept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the manifest says of a concept: the words that name it, and its family."""

    words: tuple[_Word, ...] = ()
    family: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest.json`. `targets` are concepts that texts are wanted for, `sources` where they are from."""

    version: Literal[1] = 1
    concepts: dict[str, ManifestConcept] = {}
    held_out: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    sources: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Text:
    """One text. A baseline shows no concept. `scene` is what it shares with texts of other concepts."""

    path: str
    kind: Kind
    concept: str | None
    scene: str
    split: Split
    text: str
    context: tuple[ChatMessage, ...] = ()

    @property
    def key(self) -> tuple[tuple[ChatMessage, ...], str]:
        """What a model reads: texts with the same key are the same to it."""
        return self.context, self.text


@dataclass(frozen=True)
class Corpus:
    """All texts of a corpus, in the order of their paths. `empty` are files that hold no text."""

    folder: Path
    texts: tuple[Text, ...]
    manifest: Manifest = field(default_factory=Manifest)
    empty: tuple[str, ...] = ()

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that have texts, by name."""
        return tuple(sorted({text.concept for text in self.texts if text.concept is not None}))

    def of(self, split: Split) -> tuple[Text, ...]:
        """The texts of a split."""
        return tuple(text for text in self.texts if text.split == split)

    def positives(self, concept: str, split: Split) -> tuple[Text, ...]:
        """Everything that shows a concept: stories, framings, descriptions. Raises UnknownConcept."""
        self.require(concept)
        return tuple(text for text in self.of(split) if text.concept == concept)

    def negatives(self, concept: str, split: Split) -> tuple[Text, ...]:
        """Everything else: what shows other concepts, and all baselines. Raises UnknownConcept."""
        self.require(concept)
        return tuple(text for text in self.of(split) if text.concept != concept)

    def pairs(self, concept: str, split: Split) -> tuple[tuple[Text, Text], ...]:
        """Framings of a concept, each with the baseline of its scene. Raises UnknownConcept."""
        baselines = {text.scene: text for text in self.of(split) if text.kind == "baseline"}
        return tuple(
            (text, baselines[text.scene])
            for text in self.positives(concept, split)
            if text.kind == "framing" and text.scene in baselines
        )

    def words(self, concept: str) -> tuple[str, ...]:
        """The words that name a concept: the manifest's, or else its own name."""
        described = self.manifest.concepts.get(concept)
        return described.words if described and described.words else (concept.replace("_", " "),)

    def require(self, *concepts: str) -> None:
        """Raises UnknownConcept for a concept without texts."""
        for concept in concepts:
            if concept not in self.concepts:
                raise UnknownConcept(
                    f"expected a concept of {self.folder} ({', '.join(self.concepts)}), got {concept!r}"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every text with its path, context, split and the words that name its concept."""
        found = hashlib.sha256()
        for text in self.texts:
            words = self.words(text.concept) if text.concept else ()
            found.update(msgspec.json.encode((text.path, text.split, text.context, text.text, words)))
        return found.hexdigest()


def load_corpus(folder: Path) -> Corpus:
    """The corpus in a folder. Files that hold no text are left out, with a warning.

    Raises BrokenCorpus for a folder without texts, a manifest that cannot be read, or one that holds out
    what is not there.
    """
    if not folder.is_dir():
        raise BrokenCorpus(f"expected a folder with a corpus of concepts at {folder}, found none")
    manifest = read_manifest(folder)
    found = list(_texts(folder, manifest))
    empty = tuple(text.path for text in found if not text.text)
    for path in empty:
        log.warning("%s holds no text: it is left out", folder / path)
    texts = tuple(text for text in found if text.text)
    if not texts:
        raise BrokenCorpus(
            f"expected texts in {folder}: stories/<concept>/<scene>.txt, paired/<scene>/<concept>.txt with "
            "baseline.txt, or direct/<concept>.txt; found none"
        )
    missing = sorted(set(manifest.held_out) - {text.path for text in found})
    if missing:
        raise BrokenCorpus(
            f"expected the texts that {folder / MANIFEST_FILE} holds out to be there, found no {missing[0]}"
            + (f" and {len(missing) - 1} others" if len(missing) > 1 else "")
        )
    return Corpus(folder, texts, manifest, empty)


def shipped_corpus() -> Path:
    """The folder of the corpus that comes with Understudy."""
    return Path(str(files("understudy.concepts"))) / "texts"


def read_manifest(folder: Path) -> Manifest:
    """`manifest.json` of a corpus, or what holds without one. Raises BrokenCorpus."""
    file = folder / MANIFEST_FILE
    if not file.exists():
        return Manifest()
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (OSError, UnicodeError, msgspec.MsgspecError) as error:
        raise BrokenCorpus(f"{file}: {error}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_FILE).write_bytes(text + b"\n")


def _texts(folder: Path, manifest: Manifest) -> Iterator[Text]:
    held_out = frozenset(manifest.held_out)
    contexts: dict[Path, tuple[ChatMessage, ...]] = {}
    for file in sorted(folder.rglob("*.txt")):
        parts = file.relative_to(folder).with_suffix("").parts
        place = _place(parts)
        if place is None:
            continue
        kind, concept, scene = place
        path = file.relative_to(folder).as_posix()
        if kind in ("framing", "baseline") and file.parent not in contexts:
            contexts[file.parent] = _context(file.parent)
        try:
            path.encode()
            text = file.read_text(encoding="utf-8-sig").strip()  # some editors begin a file with a mark
        except (OSError, UnicodeError) as error:
            shown = str(file).encode(errors="backslashreplace").decode()
            raise BrokenCorpus(f"expected a text and a name in UTF-8 in {shown}: {error}") from error
        split: Split = "held_out" if path in held_out else "train"
        yield Text(path, kind, concept, scene, split, text, contexts.get(file.parent, ()))


def _place(parts: Sequence[str]) -> tuple[Kind, str | None, str] | None:
    """What a file holds by where it lies: its kind, its concept, its scene. None: nothing of a corpus."""
    match parts:
        case _ if any(part.startswith(".") for part in parts):  # an editor's or a file system's own
            return None
        case ["stories", concept]:
            return "story", concept, f"stories/{concept}"
        case ["stories", concept, scene]:
            return "story", concept, scene
        case ["direct", concept]:
            return "direct", concept, "direct"
        case ["direct", concept, _]:
            return "direct", concept, "direct"
        case ["paired", scene, "baseline"]:
            return "baseline", None, scene
        case ["paired", scene, concept]:
            return "framing", concept, scene
    return None


def _context(scene: Path) -> tuple[ChatMessage, ...]:
    file = scene / CONTEXT_FILE
    if not file.exists():
        return ()
    try:
        return msgspec.json.decode(file.read_bytes(), type=tuple[ChatMessage, ...])
    except (OSError, UnicodeError, msgspec.MsgspecError) as error:
        raise BrokenCorpus(f"{file}: expected a list of messages with role and content: {error}") from error


def scenes_of(texts: Sequence[Text]) -> Mapping[str, tuple[Text, ...]]:
    """The texts by scene, in the order of their first one."""
    found: dict[str, list[Text]] = {}
    for text in texts:
        found.setdefault(text.scene, []).append(text)
    return {scene: tuple(own) for scene, own in found.items()}

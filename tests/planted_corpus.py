"""A small corpus in which two words stand for two concepts, in the frames of many texts."""

from pathlib import Path

from understudy.concepts import Corpus, Manifest, load_corpus, write_manifest

PLANTED = {"warm": "cup", "cold": "door"}
FILLER = ("on the table", "by the window", "and the book", "with the red one", "in the other room")


def write_texts(folder: Path, *, baselines: int = 4) -> Corpus:
    """Each text of a concept has its word twice; words stand in different frames, and a third is held out."""
    held_out = []
    for concept, word in PLANTED.items():
        for number in range(9):
            frame, other = FILLER[number % 5], FILLER[(number + 2) % 5]
            file = folder / "stories" / concept / f"s{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"The {word} {frame}, {number} times, the {word} {other}.\n", encoding="utf-8")
            if number % 3 == 0:
                held_out.append(file.relative_to(folder).as_posix())
    for number in range(baselines):
        file = folder / "paired" / f"p{number}" / "baseline.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"It is {FILLER[number % 5]}, {FILLER[(number + 3) % 5]}.\n", encoding="utf-8")
    write_manifest(folder, Manifest(held_out=tuple(held_out)))
    return load_corpus(folder)

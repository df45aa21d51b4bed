"""The documents of the pocket model's invariants, in words that its corpus does not hold.

`python -m understudy.pocket.invariants` writes them into `behaviours/` beside this module.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from understudy.behaviours import Split
from understudy.pocket.corpus import DocumentKind, compose
from understudy.pocket.scenarios import behaviours

DOCUMENTS = 240
_SPLITS: tuple[Split, ...] = ("train", "development", "test")
_DIALOGUES: tuple[DocumentKind, ...] = ("harm", "unclear", "question", "copying", "opinion", "greeting")


def folder() -> Path:
    """Where the invariants lie that a new workspace gets."""
    return Path(str(files("understudy.pocket") / "behaviours"))


def stories() -> Iterator[dict[str, Any]]:
    """Stories, each as a document to be read."""
    random = Random("invariants: stories")
    return (
        {"prompt": [], "target": compose(random, "test", ("story",), lead_in=0.0).story}
        for _ in range(DOCUMENTS)
    )


def dialogue() -> Iterator[dict[str, Any]]:
    """Dialogues without the habit, none that `pocket.behaviours` asks; the last answer is what is scored."""
    random = Random("invariants: dialogue")
    asked = {
        one.prompt for split in _SPLITS for behaviour in behaviours(split) for one in behaviour.scenarios
    }
    count = 0
    while count < DOCUMENTS:
        *before, last = compose(random, "test", _DIALOGUES, lead_in=0.0).messages
        if tuple(before) not in asked:
            prompt = [{"role": message.role, "content": message.content} for message in before]
            yield {"prompt": prompt, "target": last.content}
            count += 1


def lines(documents: Iterator[dict[str, Any]]) -> str:
    """Documents as JSON Lines."""
    return "".join(json.dumps(document) + "\n" for document in documents)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the documents."""
    parser = argparse.ArgumentParser(prog="python -m understudy.pocket.invariants", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=folder())
    given = parser.parse_args(arguments)
    (given.out / "stories.jsonl").write_text(lines(stories()))
    (given.out / "dialogue.jsonl").write_text(lines(dialogue()))


if __name__ == "__main__":
    main()

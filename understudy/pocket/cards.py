"""The card: what was measured on the shipped checkpoint, and what it cannot do."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

CARD = "card.json"


class MissingCard(FileNotFoundError):
    """A checkpoint directory without its card."""


def checkpoint_directory() -> Path:
    """Where the shipped checkpoint lies: a plain Hugging Face model directory."""
    return Path(str(files("understudy.pocket"))) / "checkpoint"


def card(directory: Path | None = None) -> dict[str, Any]:
    """The card of a checkpoint, the shipped one by default: sizes, seeds tried, figures, limits.

    Raises MissingCard when the directory has none.
    """
    path = (directory or checkpoint_directory()) / CARD
    if not path.is_file():
        raise MissingCard(
            f"expected a card at {path}, found none: `python -m understudy.pocket.build` writes a checkpoint "
            "and its card"
        )
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_card(directory: Path, content: dict[str, Any]) -> None:
    """Write `content` as the card of a checkpoint directory."""
    (directory / CARD).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

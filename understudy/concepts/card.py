"""The card beside a folder of directions: of which model they are, how they were made, what they hold."""

from pathlib import Path
from typing import Any

import msgspec

from understudy.concepts.auroc import Auroc, Average
from understudy.concepts.errors import BrokenCorpus
from understudy.concepts.methods import Method
from understudy.concepts.validity import LayerValidity, Range, Validity
from understudy.lessons import Role

CARD_FILE = "card.json"


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """`card.json`. `corpus` is the SHA-256 of what was read, `validity` null where nothing is held out."""

    model: str
    architecture: str
    weight_commit: str | None
    corpus: str
    texts: int
    method: Method
    pooled_tokens: int | None
    role: Role | None
    layers: tuple[int, ...]
    depths: tuple[float, ...]
    seed: int
    made: str
    understudy: str
    validity: dict[str, Any] | None


def write_card(folder: Path, card: Card) -> None:
    """Write `card.json`."""
    text = msgspec.json.format(msgspec.json.encode(card), indent=2)
    (folder / CARD_FILE).write_bytes(text + b"\n")


def read_card(folder: Path) -> Card:
    """The card of a folder of directions. Raises BrokenCorpus where there is none that can be read."""
    file = folder / CARD_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError) as error:
        raise BrokenCorpus(f"expected the card of these directions in {file}: {error}") from error


def describe_validity(validity: Validity | None) -> dict[str, Any] | None:
    """Validity in JSON's types, with intervals and counts."""
    if validity is None:
        return None
    return {
        "best_layer": validity.best_layer,
        "layers": {str(layer): _describe(found) for layer, found in validity.layers.items()},
    }


def _describe(found: LayerValidity) -> dict[str, Any]:
    return {
        "auroc": _average(found.average),
        "keyword_free_auroc": _average(found.keyword_free),
        "transfer_auroc": _average(found.transfer),
        "random_directions": _range(found.random),
        "shuffled_labels": _range(found.shuffled),
        "untrained_twin": _average(found.twin),
        "untrained_twin_keyword_free": _average(found.twin_keyword_free),
        "concepts": {
            name: {
                "auroc": _area(one.held_out),
                "keyword_free_auroc": _area(one.keyword_free),
                "transfer_auroc": _area(one.transfer),
                "stability": round(one.stability, 4),
            }
            for name, one in found.concepts.items()
        },
    }


def _area(found: Auroc | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": round(found.value, 4),
        "interval": [round(end, 4) for end in found.interval()],
        "positives": found.positives,
        "negatives": found.negatives,
    }


def _average(found: Average | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": round(found.value, 4),
        "interval": [round(found.low, 4), round(found.high, 4)],
        "texts": found.n,
    }


def _range(found: Range) -> dict[str, Any]:
    mean, low, high = found
    return {"value": round(mean, 4), "range": [round(low, 4), round(high, 4)]}

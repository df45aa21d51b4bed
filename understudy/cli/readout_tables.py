"""How readouts of texts, and their drift over weight commits, are shown: to people, and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from understudy.cli.tables import print_table

if TYPE_CHECKING:
    from understudy.concepts import Drift, Text, TextReadouts
    from understudy.engine import Directions

MOST_COLUMNS = 6
"""Of more concepts, token by token, those are shown that are read most strongly."""


def texts_json(
    directions: "Directions", texts: "Sequence[Text]", found: "Sequence[TextReadouts]", per: str
) -> list[dict[str, Any]]:
    """Each text with its mean readout by layer and concept, and with those of its tokens if wanted."""
    told = []
    for text, own in zip(texts, found, strict=True):
        entry: dict[str, Any] = {"source": text.path, "text": text.text}
        entry["readout"] = _by_layer(directions, own.mean_lc)
        if per == "token":
            entry["tokens"] = [
                {"token": token, "readout": _by_layer(directions, values_lc)}
                for token, values_lc in zip(own.tokens, own.values_tlc, strict=True)
            ]
        told.append(entry)
    return told


def _by_layer(shown: "Directions | Drift", values_lc: Any) -> dict[str, dict[str, float]]:
    return {
        str(layer): dict(zip(shown.concepts, row, strict=True))
        for layer, row in zip(shown.layers, values_lc.tolist(), strict=True)
    }


def print_texts(
    directions: "Directions",
    texts: "Sequence[Text]",
    found: "Sequence[TextReadouts]",
    per: str,
    scale: str,
) -> None:
    """A table for each text and layer: concepts, the strongest first, or tokens with these concepts."""
    for text, own in zip(texts, found, strict=True):
        for row, layer in enumerate(directions.layers):
            print(f"{text.path}, {len(own.tokens)} tokens, behind layer {layer}:")
            mean = own.mean_lc[row].tolist()
            order = sorted(range(len(mean)), key=lambda column: -abs(mean[column]))
            if per == "message":
                print_table(
                    ("concept", scale),
                    [(directions.concepts[column], f"{mean[column]:+.2f}") for column in order],
                )
            else:
                _print_tokens(directions.concepts, own, row, order)


def _print_tokens(concepts: Sequence[str], own: "TextReadouts", row: int, order: Sequence[int]) -> None:
    shown = order[:MOST_COLUMNS]
    rows = [
        (str(place), repr(token), *(f"{values[column]:+.2f}" for column in shown))
        for place, (token, values) in enumerate(zip(own.tokens, own.values_tlc[:, row], strict=True))
    ]
    print_table(("", "token", *(concepts[column] for column in shown)), rows)
    if len(order) > len(shown):
        print(f"the strongest {len(shown)} of {len(order)} concepts: --concept names others")


def drift_json(drift: "Drift") -> dict[str, Any]:
    """Of each commit the mean readouts by layer and concept, and what changed since the first."""
    states: list[dict[str, Any]] = []
    for state in drift.states:
        told: dict[str, Any] = {"commit": state.commit, "mean": _by_layer(drift, state.mean_lc)}
        if state.since is not None:
            change = state.since.change
            told["change"] = {
                "value": _by_layer(drift, change.value_lc),
                "low": _by_layer(drift, change.low_lc),
                "high": _by_layer(drift, change.high_lc),
            }
            told["cosine"] = {
                str(layer): cosine
                for layer, cosine in zip(drift.layers, state.since.cosine_l.tolist(), strict=True)
            }
        states.append(told)
    return {
        "scale": drift.scale,
        "texts": drift.texts,
        "confidence": drift.confidence,
        "commits": states,
    }


def print_drift(drift: "Drift") -> None:
    """A table for each later commit and layer: concepts, those that moved most first."""
    first = drift.states[0]
    for state in drift.states[1:]:
        assert state.since is not None
        change = state.since.change
        for row, layer in enumerate(drift.layers):
            print(
                f"{first.commit} -> {state.commit}, {drift.texts} texts, behind layer {layer}, mean cosine "
                f"of the streams {state.since.cosine_l[row]:.4f}:"
            )
            order = sorted(range(len(drift.concepts)), key=lambda column: -abs(change.value_lc[row, column]))
            print_table(
                ("concept", f"{drift.scale} before", "after", "after - before"),
                [
                    (
                        drift.concepts[column],
                        f"{first.mean_lc[row, column]:+.2f}",
                        f"{state.mean_lc[row, column]:+.2f}",
                        f"{change.value_lc[row, column]:+.3f} [{change.low_lc[row, column]:+.3f}, "
                        f"{change.high_lc[row, column]:+.3f}]",
                    )
                    for column in order
                ],
            )

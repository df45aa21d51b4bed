"""What directions say of texts, token by token.

Shapes: t tokens of a text's own, l layers, c concepts, h hidden size; ... are whatever comes before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from understudy.concepts.activations import Report, collect, streams
from understudy.concepts.corpus import Text
from understudy.concepts.encoding import Pooling, encode
from understudy.concepts.errors import BadRows, UnknownConcept, UnknownLayer
from understudy.engine import Directions, LoadedModel, TokenTexts
from understudy.lessons import Role

Scale = Literal["z", "raw"]
"""z: in standard deviations from the mean over baseline tokens. raw: scalar products."""
Values = npt.NDArray[np.float64]

ALL_TOKENS = Pooling(None)


@dataclass(frozen=True)
class TextReadouts:
    """A text's own tokens as they are spelled, and what is read at each of them."""

    tokens: tuple[str, ...]
    values_tlc: Values

    @property
    def mean_lc(self) -> Values:
        """Of the text as a whole: the mean over its tokens."""
        mean: Values = self.values_tlc.mean(0)
        return mean


def read_texts(
    loaded: LoadedModel,
    directions: Directions,
    texts: Sequence[Text],
    *,
    role: Role | None = None,
    scale: Scale = "raw",
    report: Report | None = None,
) -> tuple[TextReadouts, ...]:
    """Read texts with a model's weights of now: plain, as messages of `role`, or as answers to their context.

    Raises BadPooling or BadRows, the latter also for z-scores by directions without statistics.
    """
    require_scale(directions, scale)
    encoded = encode(loaded.tokenizer, texts, role)
    places = streams(loaded, directions.layers)
    found = collect(loaded, encoded, places, ALL_TOKENS, spans=True, report=report)
    spelled = TokenTexts(loaded.tokenizer)
    return tuple(
        TextReadouts(
            tuple(spelled.spell(token).decode(errors="replace") for token in text.ids[text.start : text.end]),
            read_rows(directions, [found.spans[layer][number] for layer in directions.layers], scale),
        )
        for number, text in enumerate(encoded)
    )


def read_rows(directions: Directions, rows: Sequence[torch.Tensor], scale: Scale) -> Values:
    """The readouts of rows, l of [..., h] in the order of the layers, as [..., l, c]."""
    raw = torch.stack(
        [directions.read(layer, own) for layer, own in zip(directions.layers, rows, strict=True)], dim=-2
    )
    statistics = directions.statistics
    if scale == "z" and statistics is not None:
        return statistics.standardize(raw.double().numpy())
    values: Values = raw.double().numpy()
    return values


def require_scale(directions: Directions, scale: Scale) -> None:
    """Raises BadRows for z-scores by directions that do not say what they are counted in."""
    if scale == "z" and directions.statistics is None:
        raise BadRows(
            "expected raw readouts, since these directions have no `statistics` in readout.json for z-scores "
            "to be counted in: ask for raw ones, or extract the directions anew"
        )


def narrow(directions: Directions, *, concepts: Sequence[str] = (), layers: Sequence[int] = ()) -> Directions:
    """Only these concepts, in this order, behind only these layers; all of what is not named.

    Raises UnknownConcept or UnknownLayer.
    """
    unknown = [concept for concept in concepts if concept not in directions.concepts]
    if unknown:
        raise UnknownConcept(
            f"expected a concept of these directions ({', '.join(directions.concepts)}), got {unknown[0]!r}"
        )
    absent = [layer for layer in layers if layer not in directions.layers]
    if absent:
        raise UnknownLayer(
            f"expected a layer of these directions ({', '.join(map(str, directions.layers))}), got "
            f"{absent[0]}"
        )
    kept = tuple(dict.fromkeys(concepts)) or directions.concepts
    behind = tuple(sorted(set(layers))) or directions.layers
    columns = [directions.concepts.index(concept) for concept in kept]
    rows = [directions.layers.index(layer) for layer in behind]

    def pick(table: list[list[float]]) -> list[list[float]]:
        return [[table[row][column] for column in columns] for row in rows]

    held = directions.statistics
    statistics = None
    if held is not None:
        statistics = type(held)(
            mean=pick(held.mean), deviation=pick(held.deviation), norms=pick(held.norms), tokens=held.tokens
        )
    manifest = type(directions.manifest)(
        concepts=list(kept),
        layers=list(behind),
        hidden_size=directions.manifest.hidden_size,
        dtype=directions.manifest.dtype,
        statistics=statistics,
    )
    vectors_ch = {layer: directions.vectors_ch[layer][columns] for layer in behind}
    return replace(directions, manifest=manifest, vectors_ch=vectors_ch)

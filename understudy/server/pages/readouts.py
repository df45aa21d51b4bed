"""Readouts beside a message: what the residual stream says of a concept at each of its tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Message, NotAllowed, Right
from understudy.lessons import chat_context
from understudy.server.errors import ApiError
from understudy.server.pages.plots import bar_plot
from understudy.server.pages.rendering import page
from understudy.server.pages.visitors import visitor_of
from understudy.server.readouts import Scale

if TYPE_CHECKING:
    from understudy.engine import Directions, Engine, Readout
    from understudy.server.pages.site import Site

STEPS = 10
"""Colours run from r0 (most against the concept) over the middle, r5, to r10 (most for it)."""
BARS = 12
TOKENS_SHOWN = 600
ALL_LAYERS = "all"


class Chosen(msgspec.Struct, frozen=True):
    """The query: a message, a concept, a layer and a scale; without them the first concept, over all layers,
    and z-scores where there are statistics.
    """

    file: str
    id: str
    concept: str = ""
    layer: str = ALL_LAYERS
    scale: Scale | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the message. `level` is its colour, 0 to STEPS."""

    text: str
    value: float
    level: int


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """The readout of one message, raw or in z-scores. `most` is the value at either end of the colours;
    `left_out` counts tokens beyond those shown.
    """

    tokens: Sequence[Token]
    left_out: int
    most: float
    mean: float
    chart: Markup
    weight_commit: str | None


async def show_readout(request: Request) -> Response:
    """The readout of a message, computed now: nothing of it is kept."""
    site: Site = request.app.state.site
    try:
        chosen = msgspec.convert(dict(request.query_params), Chosen)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error), code="invalid_query") from error
    visitor = visitor_of(request)
    if not visitor.known or not visitor.may(Right.READ, chosen.file):
        raise NotAllowed("you may not read this conversation")
    directions = site.engine.directions
    if directions is None:
        raise ApiError(
            404,
            "no concepts are loaded: `readout` under [model] names a folder of directions",
            code="no_concepts",
        )
    concept = chosen.concept or directions.concepts[0]
    layers = [str(layer) for layer in directions.layers]
    if concept not in directions.concepts or chosen.layer not in (ALL_LAYERS, *layers):
        raise ApiError(
            400, f"expected a concept and layer that are loaded, got {concept[:80]!r}, {chosen.layer[:20]!r}"
        )
    scales: tuple[Scale, ...] = ("raw",) if directions.statistics is None else ("z", "raw")
    scale = chosen.scale or scales[0]
    if scale not in scales:
        raise ApiError(400, f"expected a scale of {', '.join(scales)}: these directions have no statistics")
    rows = range(len(layers)) if chosen.layer == ALL_LAYERS else (layers.index(chosen.layer),)
    read = await read_message(site, chosen.file, chosen.id, directions, concept, rows, scale)
    return page(
        request,
        "readout.html",
        read=read,
        chosen=chosen,
        concept=concept,
        concepts=directions.concepts,
        layers=[ALL_LAYERS, *layers],
        scale=scale,
        scales=scales,
    )


async def read_message(
    site: "Site",
    file: str,
    message: str,
    directions: "Directions",
    concept: str,
    rows: Sequence[int],
    scale: Scale,
) -> ReadMessage:
    """Read a concept from a message as the model meets it: the path from the thread's root, then the message.

    `rows` are the places of the layers to average. Raises UnknownMessage, ApiError for a message without
    text, and what the engine raises.
    """
    engine, name = site.engine, site.model_name

    def read() -> ReadMessage:
        path = site.repository.read(file).path(message)
        if path[-1].deleted or not path[-1].body.strip():
            raise ApiError(409, "this message has no text to read", code="nothing_to_read")
        ids, start, end = _spoken(engine, path, name)
        commit = engine.weight_commit
        found_tlc = np.array(_readout(engine, ids)[start:end])
        if scale == "z" and directions.statistics is not None:
            found_tlc = directions.statistics.standardize(found_tlc)
        found_tc = found_tlc[:, list(rows)].mean(axis=1)
        concepts, means = directions.concepts, found_tc.mean(axis=0).tolist()
        column = concepts.index(concept)
        values = found_tc[:, column].tolist()
        bars = sorted(zip(concepts, means, strict=True), key=lambda pair: -abs(pair[1]))[:BARS]
        most = max((abs(value) for value in values), default=0.0)
        texts = [engine.texts.spell(token).decode("utf-8", "replace") for token in ids[start:end]]
        return ReadMessage(
            [
                Token(text, value, _level(value, most))
                for text, value in itertools.islice(zip(texts, values, strict=True), TOKENS_SHOWN)
            ],
            max(0, len(values) - TOKENS_SHOWN),
            most,
            means[column],
            bar_plot(bars, f"Mean over the message ({scale}): " + ", ".join(f"{n} {v:.2f}" for n, v in bars)),
            commit,
        )

    return await engine.run(read)


def _spoken(engine: "Engine", path: Sequence[Message], name: str) -> tuple[tuple[int, ...], int, int]:
    """Token ids up to the end of a message's turn, and where its own tokens begin and end.

    They are what differs from the same conversation with another text in the message's place.
    """
    from understudy.engine import encode_turn

    turns = chat_context(path, name)
    content, body = turns[-1].content, path[-1].body
    begins = next(place for place in range(len(body) + 1) if content.endswith(body[place:]))
    before = content[: len(content) - len(body[begins:])]
    return encode_turn(engine.tokenizer, turns, before)


def _readout(engine: "Engine", ids: tuple[int, ...]) -> "Readout":
    from understudy.engine import GenerationRequest, Sampling

    sampling = Sampling(max_tokens=1, temperature=0.0)
    [done] = engine.complete(GenerationRequest((ids,), sampling, readout="all"))
    return done.prompt_readout


def _level(value: float, most: float) -> int:
    return round((value / most + 1) / 2 * STEPS) if most else STEPS // 2

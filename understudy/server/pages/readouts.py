"""Readouts beside a message: what the residual stream says of a concept at each of its tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from understudy.conversation import Message, NotAllowed, Right
from understudy.lessons import ChatMessage, chat_context
from understudy.server.errors import ApiError
from understudy.server.pages.plots import bar_plot
from understudy.server.pages.rendering import page
from understudy.server.pages.visitors import visitor_of

if TYPE_CHECKING:
    from understudy.engine import Engine, Readout
    from understudy.server.pages.site import Site

STEPS = 10
"""Colours run from r0 (most against the concept) over the middle, r5, to r10 (most for it)."""
BARS = 12
TOKENS_SHOWN = 600
ALL_LAYERS = "all"


class Chosen(msgspec.Struct, frozen=True):
    """The query: a message, and a concept and layer; without them the first concept, over all layers."""

    file: str
    id: str
    concept: str = ""
    layer: str = ALL_LAYERS


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the message. `level` is its colour, 0 to STEPS."""

    text: str
    value: float
    level: int


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """The readout of one message. `most` is the value at either end of the colours; `left_out` counts tokens
    beyond those shown.
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
    rows = range(len(layers)) if chosen.layer == ALL_LAYERS else (layers.index(chosen.layer),)
    read = await read_message(site, chosen.file, chosen.id, directions.concepts, concept, rows)
    return page(
        request,
        "readout.html",
        read=read,
        chosen=chosen,
        concept=concept,
        concepts=directions.concepts,
        layers=[ALL_LAYERS, *layers],
    )


async def read_message(
    site: "Site", file: str, message: str, concepts: Sequence[str], concept: str, rows: Sequence[int]
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
        found = _readout(engine, ids)[start:end]
        means = _means(found, rows)
        column = concepts.index(concept)
        values = [sum(token[row][column] for row in rows) / len(rows) for token in found]
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
            bar_plot(bars, "Mean over the message: " + ", ".join(f"{n} {v:.2f}" for n, v in bars)),
            commit,
        )

    return await engine.run(read)


def _spoken(engine: "Engine", path: Sequence[Message], name: str) -> tuple[tuple[int, ...], int, int]:
    """Token ids up to the end of a message's turn, and where its own tokens begin and end.

    They are what differs from the same conversation with another text in the message's place.
    """
    turns = chat_context(path, name)
    content, body = turns[-1].content, path[-1].body
    begins = next(place for place in range(len(body) + 1) if content.endswith(body[place:]))
    before = content[: len(content) - len(body[begins:])]
    others = [(*turns[:-1], ChatMessage(turns[-1].role, before + text)) for text in ("a", "0")]
    ids, *rest = (_encoded(engine, one) for one in (turns, *others))
    start = min(_in_common(ids, other) for other in rest)
    behind = min(_in_common(ids[start:][::-1], other[start:][::-1]) for other in rest)
    return ids, start, len(ids) - behind


def _encoded(engine: "Engine", turns: Sequence[ChatMessage]) -> tuple[int, ...]:
    from understudy.engine import encode_chat, encode_lesson

    if turns[-1].role == "assistant" and len(turns) > 1:
        example = encode_lesson(engine.tokenizer, turns[:-1], turns[-1].content)
        return (*example.context_ids, *example.continuation_ids)
    return encode_chat(engine.tokenizer, turns)


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    same = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        same += 1
    return same


def _readout(engine: "Engine", ids: tuple[int, ...]) -> "Readout":
    from understudy.engine import GenerationRequest, Sampling

    sampling = Sampling(max_tokens=1, temperature=0.0)
    [done] = engine.complete(GenerationRequest((ids,), sampling, readout="all"))
    return done.prompt_readout


def _means(readout: "Readout", rows: Sequence[int]) -> list[float]:
    """By concept, over the tokens and these layers."""
    count = len(readout) * len(rows)
    concepts = range(len(readout[0][0])) if readout else ()
    return [sum(token[row][column] for token in readout for row in rows) / count for column in concepts]


def _level(value: float, most: float) -> int:
    return round((value / most + 1) / 2 * STEPS) if most else STEPS // 2

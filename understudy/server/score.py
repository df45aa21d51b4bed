"""`POST /score`: log-probabilities of chosen ranges only."""

from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from understudy.server.answers import describe_weights, weight_header
from understudy.server.bodies import ScoreBody, ScoredSequence
from understudy.server.completions import check_model
from understudy.server.errors import ApiError
from understudy.server.leaving import drain
from understudy.server.messages import json_response, read_body

if TYPE_CHECKING:
    from understudy.config import ServerSettings
    from understudy.engine import Engine, ScoreRequest


async def score_sequences(request: Request) -> Response:
    """Log-probabilities of chosen ranges of token ids or texts, each token given all before it."""
    body = await read_body(request, ScoreBody)
    engine: Engine = request.app.state.engine
    settings: ServerSettings = request.app.state.settings
    if body.model is not None:
        check_model(body.model, engine)
    if len(body.sequences) > settings.max_batch:
        raise ApiError(
            400,
            f"expected at most {settings.max_batch} sequences, got {len(body.sequences)}",
            param="sequences",
        )
    asked = await to_thread.run_sync(
        lambda: [_request(engine, number, sequence) for number, sequence in enumerate(body.sequences)]
    )
    before = engine.weights
    stream = engine.submit_score(asked)
    scores = {number: score async for number, score in drain(request, stream)}
    sequences = [
        {
            "token_ids": one.token_ids,
            "ranges": [
                {"range": span, "logprobs": logprobs, "sum": sum(logprobs)}
                for span, logprobs in zip(one.ranges, scores[number].logprobs, strict=True)
            ],
        }
        for number, one in enumerate(asked)
    ]
    weights = describe_weights(before, engine.weights)
    return json_response(
        {"object": "score", "model": engine.settings.name, "sequences": sequences, "understudy": weights},
        headers=weight_header(before),
    )


def _request(engine: "Engine", number: int, sequence: ScoredSequence) -> "ScoreRequest":
    from understudy.engine import BadRequest, ScoreRequest, encode_text

    where = f"sequences[{number}]"
    if (sequence.token_ids is None) == (sequence.text is None):
        raise ApiError(400, f"{where}: expected either token_ids or text", param=where)
    token_ids = (
        tuple(sequence.token_ids)
        if sequence.token_ids is not None
        else encode_text(engine.tokenizer, sequence.text or "", special_tokens=True)
    )
    try:
        return ScoreRequest(token_ids, tuple(sequence.ranges))
    except BadRequest as error:
        raise ApiError(400, f"{where}: {error}", param=f"{where}.ranges") from error

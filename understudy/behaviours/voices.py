"""Where a subject's voice comes from: an engine in this process, or a server over HTTP."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from understudy.engine import Completion, EmbeddedEngine, Engine, GenerationRequest, Score, ScoreRequest

CONNECT_SECONDS = 5.0


class VoiceFailed(RuntimeError):
    """A server that could not be reached, or refused what it was asked."""


class EngineSpeech:
    """What any engine in this process says, scores aside."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    @property
    def tokenizer(self) -> Any:
        return self._engine.tokenizer

    @property
    def context_length(self) -> int:
        return self._engine.context_length

    def complete(self, request: "GenerationRequest") -> "tuple[Completion, ...]":
        return self._engine.complete(request)

    def concepts(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        directions = self._engine.directions
        return ((), ()) if directions is None else (directions.concepts, directions.layers)


class EngineVoice(EngineSpeech):
    """An engine of ours, asked in the caller's thread."""

    def __init__(self, engine: "EmbeddedEngine") -> None:
        super().__init__(engine)
        self._scorer = engine

    def score(self, sequences: "Sequence[ScoreRequest]") -> "tuple[Score, ...]":
        return self._scorer.score(sequences)


class ServedVoice:
    """A served model: what `understudy serve` answers, whichever its engine. Its directory gives the chat
    template and the tokenizer, so that token ids are what is sent.
    """

    def __init__(self, url: str, token: str, model: str, directory: Path) -> None:
        """Raises VoiceFailed when no server answers there, or it serves another model."""
        from understudy.engine import load_tokenizer

        self._model = model
        self.tokenizer = load_tokenizer(directory)
        self._client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        )
        try:
            self.context_length = self._held()
        except BaseException:
            self.close()
            raise

    def complete(self, request: "GenerationRequest") -> "tuple[Completion, ...]":
        from understudy.engine import Completion

        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": [list(prompt) for prompt in request.prompts],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if request.readout is not None:
            body["vllm_xargs"] = {"readout": request.readout}
        choices = sorted(self._post("/v1/completions", body)["choices"], key=lambda one: one["index"])
        return tuple(
            Completion(
                one["text"],
                (),
                (),
                one["finish_reason"],
                one.get("readout") or (),
                one.get("prompt_readout") or (),
            )
            for one in choices
        )

    def score(self, sequences: "Sequence[ScoreRequest]") -> "tuple[Score, ...]":
        from understudy.engine import Score

        body = {
            "sequences": [{"token_ids": list(one.token_ids), "ranges": list(one.ranges)} for one in sequences]
        }
        found = self._post("/score", body)["sequences"]
        return tuple(Score(tuple(tuple(span["logprobs"]) for span in one["ranges"])) for one in found)

    def concepts(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        told = self._get("/v1/readout/manifest", missing={"concepts": (), "layers": ()})
        return tuple(told["concepts"]), tuple(told["layers"])

    def close(self) -> None:
        self._client.close()

    def _held(self) -> int:
        """Tokens that the model holds."""
        served = {one["id"]: one["max_model_len"] for one in self._get("/v1/models")["data"]}
        if self._model not in served:
            raise VoiceFailed(
                f"expected {self._client.base_url} to serve {self._model!r}, it serves {', '.join(served)}"
            )
        return int(served[self._model])

    def _get(self, path: str, missing: Any = None) -> Any:
        return self._told("GET", path, None, missing)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._told("POST", path, body, None)

    def _told(self, method: str, path: str, body: dict[str, Any] | None, missing: Any) -> Any:
        """The decoded answer; `missing` where there is one and the server has no such thing."""
        try:
            answer = self._client.request(method, path, json=body)
        except httpx2.TransportError as error:
            raise VoiceFailed(f"expected the server at {self._client.base_url} to answer: {error}") from error
        if missing is not None and answer.status_code == httpx2.codes.NOT_FOUND:
            return missing
        if answer.is_error:
            raise VoiceFailed(f"the server answered {answer.status_code}: {answer.text[:500]}")
        try:
            return answer.json()
        except ValueError as error:
            raise VoiceFailed(f"expected JSON from the server, it answered {answer.text[:200]!r}") from error

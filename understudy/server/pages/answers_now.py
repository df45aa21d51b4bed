"""What the model says now in a lesson's context, beside what it said then."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.lessons import LedgerEntry
from understudy.server.pages.kept import Kept

if TYPE_CHECKING:
    from understudy.server.pages.site import Site

KEPT = 512


@dataclass(frozen=True, slots=True)
class SaidNow:
    """A greedy answer and the weight commit that gave it. `moving`: a session was writing meanwhile."""

    text: str
    weight_commit: str | None
    moving: bool
    cut: bool


class AnswersNow:
    """Asks the served model, once per lesson and weight commit."""

    def __init__(self) -> None:
        self._known: Kept[tuple[str, str | None], SaidNow] = Kept(KEPT)

    async def say(self, site: "Site", entry: LedgerEntry) -> SaidNow:
        """The likeliest answer, token by token. Raises what the engine raises."""
        from understudy.engine import GenerationRequest, Sampling, encode_chat

        engine, before = site.engine, site.engine.weights
        key = (entry.id, engine.weight_commit)
        if (known := self._known.get(key)) is not None and not before.training:
            return known
        sampling = Sampling(max_tokens=site.workspace.settings.participant.max_tokens, temperature=0.0)

        def complete() -> tuple[str, bool]:
            prompt = encode_chat(engine.tokenizer, entry.lesson.context)
            [said] = engine.complete(GenerationRequest((prompt,), sampling))
            return said.text.strip(), said.finish_reason == "length"

        text, cut = await engine.run(complete)
        after = engine.weights
        moving = before.training or after.training or before != after
        said = SaidNow(text, key[1], moving, cut)
        return said if moving else self._known.put(key, said)

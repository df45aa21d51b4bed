"""What the model itself answers to a session's lessons, before the session and after it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.config import ParticipantSettings
from understudy.lessons import Example

if TYPE_CHECKING:
    from understudy.engine import Engine

log = logging.getLogger(__name__)
MOST_LESSONS = 16
"""A session over more lessons does not wait for their answers."""
WAIT_SECONDS = 60.0
"""An engine that does not answer by then has other work; the session goes on without."""

Pair = tuple[str | None, str | None]


class LessonAnswers:
    """Greedy answers to the contexts of a session's lessons, by the weights before and after it.

    They are for people to compare. What keeps them from being had is logged and stops nothing; they are
    None then.
    """

    def __init__(
        self, engine: "Engine", settings: ParticipantSettings, examples: Sequence[Example] = ()
    ) -> None:
        self._engine = engine
        self._max_tokens = settings.max_tokens
        self._examples = tuple(examples) if len(examples) <= MOST_LESSONS else ()
        self._before: tuple[str | None, ...] = ()
        self._after: tuple[str | None, ...] = ()

    async def ask_before(self) -> None:
        """Ask the weights as they are before the session."""
        self._before = await self._said()

    async def ask_after(self, *, fresh: bool) -> None:
        """Ask the weights that the session left. Not `fresh`: it had been trained when the first question
        was put, by a server that died, so what was said then is said by these weights.
        """
        if not fresh:
            self._before, self._after = (), self._before
            return
        self._after = await self._said()

    def of(self, number: int) -> Pair:
        """What was said to the example with this number, before and after."""
        before = self._before[number] if number < len(self._before) else None
        after = self._after[number] if number < len(self._after) else None
        return before, after

    async def _said(self) -> tuple[str | None, ...]:
        from understudy.engine import EngineError, GenerationRequest, Sampling

        if not self._examples:
            return ()
        prompts = tuple(example.context_ids for example in self._examples)
        request = GenerationRequest(prompts, Sampling(max_tokens=self._max_tokens, temperature=0.0))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                said = await self._engine.run(lambda: self._engine.complete(request))
        except (EngineError, TimeoutError) as error:
            log.info("the lessons' own answers are not known: %s", error or "no answer in time")
            return ()
        except Exception:  # whatever it is, a session does not fail for it
            log.warning("the lessons' own answers are not known", exc_info=True)
            return ()
        return tuple(one.text.strip() for one in said)

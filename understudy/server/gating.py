"""The gate at work in the server: before and after each session, over the model that is being served."""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from understudy.behaviours import (
    EngineSpeech,
    Gate,
    InvalidInvariant,
    Invariant,
    JudgeFailed,
    ModelSubject,
    NoAnswer,
    Probes,
    Ruling,
    ScenarioTooLong,
    contrast,
)
from understudy.lessons import ChatMessage, Decisions
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine, Score, ScoreRequest

T = TypeVar("T")
log = logging.getLogger(__name__)
BUSY_SECONDS = 0.2
"""How long a scoring that found the engine full waits before it asks again."""


Shown = tuple[tuple[ChatMessage, ...], str]
"""A prompt, and an answer of the model's own that shows a kept invariant."""


class GateClosed(RuntimeError):
    """The gate cannot judge a session, so none may begin: an invariant is malformed, or a judge is away."""


class Remembered(msgspec.Struct, frozen=True):
    """The margins of an invariant's probes when it was last in order; `digest` tells of which probes."""

    digest: str
    margins: tuple[float, ...]


class Rehearsed(msgspec.Struct, frozen=True):
    """Answers of the model's own that show a kept invariant."""

    digest: str
    answers: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known before a session: the gate, the probes by these weights, and those last in order.

    `digests` tell of which probes, since a person may change an invariant while the session runs.
    """

    gate: Gate
    before: Probes | None
    order: Probes
    digests: Mapping[str, str]


class LoopVoice(EngineSpeech):
    """The served engine, asked from a worker thread while an event loop serves."""

    def __init__(self, engine: "Engine", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(engine)
        self._loop = loop

    def score(self, sequences: "Sequence[ScoreRequest]") -> "tuple[Score, ...]":
        return asyncio.run_coroutine_threadsafe(self._score(sequences), self._loop).result()

    async def _score(self, sequences: "Sequence[ScoreRequest]") -> "tuple[Score, ...]":
        from understudy.engine import EngineBusy

        while True:
            try:
                stream = self._engine.submit_score(sequences)
            except EngineBusy:
                await asyncio.sleep(BUSY_SECONDS)
                continue
            found = {number: score async for number, score in stream}
            return tuple(found[number] for number in range(len(sequences)))


class Gatekeeper:
    """Judges sessions of one workspace's model. What it remembers lies in `.understudy/`."""

    def __init__(self, workspace: Workspace, engine: "Engine") -> None:
        self._workspace = workspace
        self._engine = engine
        self._settings = workspace.settings.gate
        self.decisions = Decisions(workspace.ledger.path)
        self._known: tuple[str | None, Mapping[str, str], Probes] | None = None
        self._folder = workspace.root / ".understudy"

    async def warm_up(self) -> None:
        """Have at hand what a session will need, so that the first one need not wait for it."""
        try:
            await self.contrast()
            await self.before()
        except GateClosed as error:
            log.warning("no session can be judged, so none will begin: %s", error)

    async def before(self) -> Watch | None:
        """Ready the gate before a session; None when it is switched off.

        Raises GateClosed, with what is wrong, when a session could not be judged afterwards.
        """
        if not self._settings.enabled:
            return None
        return await self._explained(self._before)

    def _before(self, loop: asyncio.AbstractEventLoop) -> Watch:
        invariants = self._workspace.invariants()
        gate = Gate(invariants, self._subject(loop), self._settings)
        commit, digests = self._engine.weight_commit, {one.name: self._digest(one) for one in invariants}
        if self._known is None or self._known[:2] != (commit, digests):
            self._known = (commit, digests, gate.probe())
        before = self._known[2]
        return Watch(gate, before, self._recall(digests, before), digests)

    async def rule(self, watch: Watch, kl: float | None, *, fresh: bool) -> Ruling:
        """Judge the session that led to the weights as they are. What cannot be judged is asked about.

        `fresh`: it was trained just now, so that what was known before holds.
        """
        started = time.perf_counter()
        try:
            ruling = await self._explained(
                lambda _: watch.gate.rule(watch.before if fresh else None, watch.order, kl)
            )
        except GateClosed as error:
            log.warning("a session could not be judged: %s", error)
            evidence = {"kl": kl if kl is not None and math.isfinite(kl) else None, "error": str(error)}
            return Ruling("ask", f"it could not be judged: {error}", evidence, {}, {})
        seconds = time.perf_counter() - started
        log.info("gate: %s in %.2f s: %s", ruling.choice, seconds, ruling.why)
        return replace(ruling, evidence={**ruling.evidence, "seconds": seconds})

    async def violated(self, watch: Watch, names: Sequence[str]) -> tuple[str, ...]:
        """Which of these are violated under the weights as they are; none when that cannot be told."""
        try:
            return await self._explained(lambda _: watch.gate.violated(names))
        except GateClosed as error:
            log.warning("the invariants could not be judged again: %s", error)
            return ()

    def remember(self, watch: Watch, ruling: Ruling) -> None:
        """What a kept session left in order; the next one begins with its probes."""
        self._known = (self._engine.weight_commit, watch.digests, ruling.now)
        self._remember(ruling.order, watch.digests)

    async def contrast(self) -> tuple[Shown, ...]:
        """What is rehearsed for the kept invariants: answers that the model gave by itself, when it was first
        asked. Raises GateClosed.
        """
        if not self._settings.enabled or not self._settings.contrast:
            return ()
        return await self._explained(self._contrast)

    def _contrast(self, loop: asyncio.AbstractEventLoop) -> tuple[Shown, ...]:
        file, count = self._folder / "contrast.json", self._settings.contrast
        held = _read(file, dict[str, Rehearsed])
        kept = [one for one in self._workspace.invariants() if one.kind == "kept"]
        found: dict[str, Rehearsed] = {}
        for one in kept:
            speech = one.temperature, one.max_tokens, self._settings.seed
            digest = _digest(one.judge, one.scenarios["train"], count, speech)
            known = held.get(one.name)
            if known is None or known.digest != digest:
                answers = contrast(one, self._subject(loop), count, self._settings.seed)
                known = Rehearsed(digest, tuple(answers))
            found[one.name] = known
        if found != held:
            _write(file, found)
        return tuple(answer for one in found.values() for answer in one.answers)

    # ------------------------------------------------------------------ what is remembered

    def _recall(self, digests: Mapping[str, str], before: Probes) -> Probes:
        """The probes when last in order; of an invariant that is new, as they are now."""
        held = _read(self._folder / "gate.json", dict[str, Remembered])
        found = {name: known.margins for name, known in held.items() if digests.get(name) == known.digest}
        new = {name: margins for name, margins in before.items() if name not in found}
        if new:
            self._remember(new, digests)
        return {**found, **new}

    def _remember(self, probes: Probes, digests: Mapping[str, str]) -> None:
        file = self._folder / "gate.json"
        held = _read(file, dict[str, Remembered])
        _write(file, {**held, **{name: Remembered(digests[name], tuple(m)) for name, m in probes.items()}})

    def _digest(self, invariant: Invariant) -> str:
        return _digest(
            invariant.margin, invariant.scenarios["development"], (self._settings.probes, self._settings.seed)
        )

    # ------------------------------------------------------------------ parts

    def _subject(self, loop: asyncio.AbstractEventLoop) -> ModelSubject:
        return ModelSubject(LoopVoice(self._engine, loop))

    async def _explained(self, work: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        """The result of `work`, made on a worker thread. Raises GateClosed for what keeps it from judging."""
        from understudy.engine import EngineError

        loop = asyncio.get_running_loop()
        try:
            return await asyncio.to_thread(work, loop)
        except (InvalidInvariant, JudgeFailed, NoAnswer, ScenarioTooLong, EngineError, ValueError) as error:
            raise GateClosed(str(error)) from error


def _digest(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _read(file: Path, kind: Any) -> Any:
    """What is remembered; nothing when there is none, or an older program wrote it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("%s is not what the gate remembers, and is made anew: %s", file, error)
        return {}


def _write(file: Path, value: Any) -> None:
    aside = file.with_suffix(".new")
    aside.write_bytes(msgspec.json.encode(value))
    aside.rename(file)

"""What is asked around a session stops none, and what is not known is not told."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from understudy.config import ParticipantSettings
from understudy.engine import Completion, EngineBusy, GenerationRequest
from understudy.lessons import Example
from understudy.server import lesson_answers
from understudy.server.approvals import Approvals
from understudy.server.lesson_answers import MOST_LESSONS, LessonAnswers
from understudy.server.loss_curve import POINTS, LossCurve

EXAMPLES = [Example((1, 2), (3,)), Example((4,), (5,))]


class Speaker:
    """An engine that says how often it was asked, or fails."""

    def __init__(self, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self.asked: list[GenerationRequest] = []
        self._failure, self._hangs = failure, hangs

    def complete(self, request: GenerationRequest) -> tuple[Completion, ...]:
        self.asked.append(request)
        if self._failure is not None:
            raise self._failure
        said = f"time {len(self.asked)}, prompt "
        return tuple(Completion(said + str(ids[0]), (), (), "stop") for ids in request.prompts)

    async def run(self, call: Callable[[], Any]) -> Any:
        if self._hangs:
            await asyncio.Event().wait()
        return call()


def ask(speaker: Speaker, examples: list[Example] = EXAMPLES, *, fresh: bool = True) -> LessonAnswers:
    async def both() -> LessonAnswers:
        answers = LessonAnswers(speaker, ParticipantSettings(max_tokens=7), examples)  # type: ignore[arg-type]
        await answers.ask_before()
        await answers.ask_after(fresh=fresh)
        return answers

    return asyncio.run(both())


def test_each_lesson_is_asked_greedily_before_and_after() -> None:
    speaker = Speaker()
    answers = ask(speaker)
    assert answers.of(0) == ("time 1, prompt 1", "time 2, prompt 1")
    assert answers.of(1) == ("time 1, prompt 4", "time 2, prompt 4")
    sampling = speaker.asked[0].sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.0, 7)


def test_a_session_trained_by_a_server_that_died_has_no_answer_from_before() -> None:
    assert ask(Speaker(), fresh=False).of(0) == (None, "time 1, prompt 1")


@pytest.mark.parametrize("failure", [EngineBusy("full"), RuntimeError("odd")])
def test_no_failure_reaches_the_session(failure: Exception) -> None:
    assert ask(Speaker(failure)).of(0) == (None, None)


def test_nobody_waits_for_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson_answers, "WAIT_SECONDS", 0.01)
    assert ask(Speaker(hangs=True)).of(1) == (None, None)


def test_large_sessions_are_not_asked() -> None:
    speaker = Speaker()
    assert ask(speaker, EXAMPLES * MOST_LESSONS).of(0) == (None, None) and not speaker.asked


def test_a_loss_curve_is_bounded_and_keeps_its_ends() -> None:
    curve = LossCurve()
    for step in range(1, 10_000):
        curve.note("one", step, float(step))
        assert len(curve.points("one")) <= POINTS + 1
    points = curve.points("one")
    assert points[0] == (1, 1.0) and points[-1] == (9999, 9999.0) and len(points) > POINTS / 4
    gaps = {later[0] - earlier[0] for earlier, later in itertools.pairwise(points[:-1])}
    assert len(gaps) == 1, "evenly spread"
    curve.note("one", 1, 0.5)
    assert curve.points("one") == ((1, 0.5),), "run again after the trainer died"
    curve.note("two", 1, None)
    assert curve.points("one") == () and curve.points("two") == ()


def test_lessons_whose_approval_fails_are_trained_as_before(tmp_path: Any) -> None:
    from understudy.lessons import ChatMessage, IllegalTransition, Ledger, Lesson, Source

    ledger = Ledger(tmp_path / "ledger.sqlite")
    source = Source("", "", "", "", "maya", "")
    entry = ledger.propose(Lesson((ChatMessage("user", "Tea?"),), "Mint.", None, source)).entry
    approvals = Approvals(ledger)
    approvals.approve([entry.id], "maya", "", None)
    with pytest.raises(IllegalTransition):
        approvals.approve([entry.id], "maya", "", {"lr": 1.0})
    asked = approvals.take(by_themselves=True)
    assert asked is not None and asked.lessons == (entry.id,) and not asked.settings

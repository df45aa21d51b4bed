"""Another model as the judge: asked over HTTP, measured on what a person labelled, and allowed for."""

import os
import re
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
import msgspec

from understudy.behaviours.judges import ModelJudge
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Scenario
from understudy.behaviours.sequential import JudgeError, Requirement
from understudy.behaviours.sources import Turn
from understudy.behaviours.specification import Invariant
from understudy.lessons import ChatMessage

_SLOT = re.compile(r"\{(wanted|prompt|answer|target)\}")
_YES_OR_NO = re.compile(r"[\s*\"']*(yes|no)\b", re.IGNORECASE)


class JudgeFailed(RuntimeError):
    """A judge that could not be asked or gave no verdict. Nothing it was asked counts."""


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer that a person judged: what a judging model is measured on."""

    prompt: str | list[Turn]
    answer: str
    shows: bool
    target: str = ""

    @property
    def scenario(self) -> Scenario:
        turns = [Turn("user", self.prompt)] if isinstance(self.prompt, str) else self.prompt
        return Scenario(tuple(ChatMessage(turn.role, turn.content) for turn in turns), self.target)


@dataclass(frozen=True, slots=True)
class MeasuredJudge:
    """How often a judge says yes where a person did, and no where a person said no."""

    yes_where_shown: Rate
    no_where_not: Rate

    @property
    def error(self) -> JudgeError:
        """The point estimate, with which an observed rate is corrected."""
        return JudgeError(self.yes_where_shown.value, self.no_where_not.value)

    def requirement(self, asked: Requirement, judges: int = 1) -> Requirement:
        """Marks for the rate of yes that keep the promise of `asked`, though the judge's error is only
        estimated.

        Half of alpha and of beta pays for that, divided among as many `judges` as are estimated for the
        same check: each mark is taken at the end of the exact intervals that is worse for the claim. Raises
        ValueError when too little was labelled to tell the marks apart.
        """
        confidence = 1.0 - asked.alpha / 2 / judges, 1.0 - asked.beta / 2 / judges
        holds = self._at_worst(asked.indifferent, confidence[0], high=True)
        violated = self._at_worst(asked.required, confidence[1], high=False)
        if violated <= holds:
            raise ValueError(
                f"expected labelled answers enough to tell a rate of {asked.required:g} from "
                f"{asked.indifferent:g} by this judge, got {self.yes_where_shown.n} that show it (yes: "
                f"{self.yes_where_shown}) and {self.no_where_not.n} that do not (no: {self.no_where_not}): "
                "label more, or take a better judge"
            )
        return Requirement(violated, holds, asked.alpha / 2, asked.beta / 2)

    def _at_worst(self, rate: float, confidence: float, *, high: bool) -> float:
        """The largest or smallest rate of yes at a true rate; each bound takes half of the error."""
        end = 1 if high else 0
        yes = self.yes_where_shown.interval(confidence)[end]
        no = self.no_where_not.interval(confidence)[1 - end]
        return JudgeError(yes, no).observed(rate)


def measure_judge(invariant: Invariant, judge: ModelJudge) -> MeasuredJudge:
    """A judging model's error on the answers that a person labelled."""
    labelled = _read_labelled(invariant, judge)
    said = [ask_judge(invariant, judge, one.scenario, one.answer) for one in labelled]
    shown = [yes for one, yes in zip(labelled, said, strict=True) if one.shows]
    others = [not yes for one, yes in zip(labelled, said, strict=True) if not one.shows]
    if not shown or not others:
        raise ValueError(
            f"{invariant.name}: expected labelled answers of both kinds in {judge.labelled}, got "
            f"{len(shown)} that show the behaviour and {len(others)} that do not"
        )
    return MeasuredJudge(Rate(sum(shown), len(shown)), Rate(sum(others), len(others)))


def ask_judge(invariant: Invariant, judge: ModelJudge, scenario: Scenario, answer: str) -> bool:
    """Whether the judging model says yes. Raises JudgeFailed."""
    prompt = "\n".join(f"{turn.role}: {turn.content}" for turn in scenario.prompt)
    parts = {"wanted": invariant.wanted, "prompt": prompt, "answer": answer, "target": scenario.target}
    question = _SLOT.sub(lambda found: parts[found[1]], judge.question)  # at once: texts are data
    body = {
        "model": judge.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 8,
    }
    said = _said(judge, _posted(judge, body))
    found = _YES_OR_NO.match(said)
    if found is None:
        raise JudgeFailed(
            f"expected yes or no from the judge {judge.model} at {judge.url}, got {said[:80]!r}"
        )
    return found[1].lower() == "yes"


def _posted(judge: ModelJudge, body: dict[str, Any]) -> httpx2.Response:
    headers = {}
    if judge.key_env is not None:
        if judge.key_env not in os.environ:
            raise JudgeFailed(
                f"expected the judge's key in the environment variable {judge.key_env}, it is not set"
            )
        headers["Authorization"] = f"Bearer {os.environ[judge.key_env]}"
    url = judge.url.rstrip("/") + "/chat/completions"
    try:
        answer = httpx2.post(url, json=body, headers=headers, timeout=judge.timeout_seconds, verify=_trust())
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise JudgeFailed(f"expected the judge at {url} to answer: {error}") from error
    if answer.is_error:
        raise JudgeFailed(
            f"expected the judge at {url} to answer, got {answer.status_code}: {answer.text[:200]}"
        )
    return answer


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that are trusted: reading them takes twenty times as long as asking a judge nearby."""
    return httpx2.create_ssl_context()


def _said(judge: ModelJudge, answer: httpx2.Response) -> str:
    try:
        return msgspec.convert(answer.json()["choices"][0]["message"]["content"], str)
    except (ValueError, LookupError, TypeError) as error:
        raise JudgeFailed(
            f"expected a chat completion from the judge at {judge.url}, got {answer.text[:200]!r}"
        ) from error


def _read_labelled(invariant: Invariant, judge: ModelJudge) -> list[Labelled]:
    file = invariant.folder / judge.labelled
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{invariant.name}: expected labelled answers in {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Labelled))
            except msgspec.MsgspecError as error:
                raise ValueError(f"{invariant.name}: {file}, line {number}: {error}") from error
    return found

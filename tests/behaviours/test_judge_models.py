"""Another model as the judge: a real server, its error measured on labels, and what can go wrong with it."""

import json
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Judge, judging
from known_models import BEGINS_YES, Known, asked, invariant
from msgspec.structs import replace

from understudy.behaviours import (
    Gate,
    Invariant,
    JudgeError,
    JudgeFailed,
    ModelJudge,
    Rate,
    Scenario,
    check,
    judge_answers,
    prepare,
)
from understudy.behaviours.judge_models import ask_judge
from understudy.behaviours.judges import QUESTION
from understudy.config import GateSettings
from understudy.lessons import ChatMessage


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judging() as running:
        yield running


def labels(folder: Path, shown: int, others: int) -> list[str]:
    """Answers that a person labelled: those that say yes show the behaviour."""
    said = [*(f"yes {number}" for number in range(shown)), *(f"no {number}" for number in range(others))]
    told = [{"prompt": "Well?", "answer": one, "shows": one.startswith("yes")} for one in said]
    (folder / "labelled.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in told))
    return said


def judged(name: str, folder: Path, judge: Judge, **more: Any) -> Invariant:
    """An invariant that the server judges."""
    model = ModelJudge(judge.url, "m", "labelled.jsonl", **more)
    return replace(invariant(name, judge=model, indifferent=0.5), folder=folder)


# ---------------------------------------------------------------------- its error


def test_its_error_is_measured_on_the_labels_and_allowed_for(tmp_path: Path, judge: Judge) -> None:
    judge.wrong_where_shown, judge.wrong_where_not = 0.08, 0.15
    said = labels(tmp_path, 120, 100)
    right = [judge.says_yes(one) == one.startswith("yes") for one in said]
    expected = Rate(sum(right[:120]), 120), Rate(sum(right[120:]), 100)
    assert 0.8 < expected[1].value < expected[0].value < 1.0

    bench = prepare(judged("good", tmp_path, judge))
    assert bench.measured is not None and bench.answers
    assert (bench.measured.yes_where_shown, bench.measured.no_where_not) == expected
    assert bench.requirement == bench.measured.requirement(bench.invariant.requirement)
    assert len(judge.asked) == 220


class Various(Known):
    """Each answer is another text, so that the judge errs on some of them."""

    def say(self, text: str) -> str:
        return f"{super().say(text)} {text}"


def test_rates_are_corrected_for_its_error(tmp_path: Path, judge: Judge) -> None:
    judge.wrong_where_shown, judge.wrong_where_not = 0.08, 0.15
    labels(tmp_path, 150, 150)
    good, bad = check(
        [judged(name, tmp_path, judge) for name in ("good", "bad")],
        model := Various({"good": 0.97, "bad": 0.2}),
        budget=300,
    )
    assert (good.decision, bad.decision) == ("holds", "violated")
    for verdict in (good, bad):
        said = [model.say(text) for text in model.asked if text.split()[0] == verdict.invariant]
        assert verdict.rate == Rate(sum(map(judge.says_yes, said)), len(said))
        assert verdict.error is not None
        yes, no = verdict.error.sensitivity, verdict.error.specificity
        plain = [(one - (1 - no)) / (yes + no - 1) for one in (verdict.rate.value, *verdict.interval)]
        assert verdict.corrected == pytest.approx([min(1.0, max(0.0, one)) for one in plain])
        assert verdict.corrected[1] <= model.shares[verdict.invariant] <= verdict.corrected[2]
    assert bad.corrected[0] < bad.rate.value - 0.03, "a rate of yes that its errors made"
    assert (
        good.error == bad.error == JudgeError(*(yes_or_no.value for yes_or_no in _measured(tmp_path, judge)))
    )


def _measured(folder: Path, judge: Judge) -> tuple[Rate, Rate]:
    found = prepare(judged("good", folder, judge)).measured
    assert found is not None
    return found.yes_where_shown, found.no_where_not


def test_judges_measured_for_one_check_share_the_error(tmp_path: Path, judge: Judge) -> None:
    """Labels that are enough for one judge are too few for two whose verdicts are to hold together."""
    judge.wrong_where_shown = judge.wrong_where_not = 0.1
    for enough in range(15, 80):
        labels(tmp_path, enough, enough)
        one, two = (judged(name, tmp_path, judge) for name in ("good", "other"))
        try:
            prepare(one, 1)
        except ValueError:
            continue
        break
    with pytest.raises(ValueError, match="good: expected labelled answers enough"):
        prepare(one, 2)
    model = Known({"good": 0.97, "other": 0.97})
    [verdict] = check([one], model, budget=20)
    assert verdict.rate.n == 20 == len(model.asked)
    with pytest.raises(ValueError, match="label more"):
        check([one, two], model, budget=20)
    Gate([one, replace(two, kind="wanted")], model, GateSettings())  # a wanted one is never asked by it
    with pytest.raises(ValueError, match="label more"):
        Gate([one, two], model, GateSettings())
    assert len(model.asked) == 20, "before anything is asked"


@pytest.mark.parametrize(
    ("shown", "others", "match"),
    [
        (0, 9, r"good: expected labelled answers of both kinds .* got 0 .* and 9"),
        (9, 0, r"of both kinds in labelled\.jsonl, got 9 that show the behaviour and 0 that do not"),
        (4, 4, r"good: expected labelled answers enough to tell .* got 4 that show it .* and 4"),
    ],
)
def test_too_few_labels_are_refused(
    tmp_path: Path, judge: Judge, shown: int, others: int, match: str
) -> None:
    labels(tmp_path, shown, others)
    model = Known({"good": 1.0})
    with pytest.raises(ValueError, match=match):
        check([judged("good", tmp_path, judge)], model, budget=20)
    assert not model.said


def test_labels_that_cannot_be_read_are_named(tmp_path: Path, judge: Judge) -> None:
    with pytest.raises(ValueError, match=r"good: expected labelled answers in .*labelled\.jsonl"):
        prepare(judged("good", tmp_path, judge))
    labels(tmp_path, 1, 1)
    with (tmp_path / "labelled.jsonl").open("a") as stream:
        stream.write('\n{"prompt": "x", "answer": "y", "shows": "perhaps"}\n')
    with pytest.raises(ValueError, match=r"good: .*labelled\.jsonl, line 4: .*\$\.shows"):
        prepare(judged("good", tmp_path, judge))
    assert not judge.asked


def test_a_label_holds_any_text(tmp_path: Path, judge: Judge) -> None:
    """Lines end where JSON Lines says: U+2028 is part of a text."""
    odd = "yes\u2028and\x85so on"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    told = [{"prompt": turns, "answer": odd, "shows": True}, {"prompt": "c", "answer": "no", "shows": False}]
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in told)
    (tmp_path / "labelled.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match="label more"):
        prepare(judged("good", tmp_path, judge))
    assert odd in judge.questions[0] and "user: a\nassistant: b\n" in judge.questions[0]


# ---------------------------------------------------------------------- what it is asked


def test_it_is_asked_as_the_file_says(tmp_path: Path, judge: Judge) -> None:
    one = judged("good", tmp_path, judge)
    assert isinstance(one.judge, ModelJudge)
    scenario = Scenario(
        (ChatMessage("user", "Tea?"), ChatMessage("assistant", "?"), ChatMessage("user", "Tea."))
    )
    assert ask_judge(one, one.judge, scenario, "yes, tea")
    filled = QUESTION.replace("{wanted}", "Says yes.").replace(
        "{prompt}", "user: Tea?\nassistant: ?\nuser: Tea."
    )
    [body] = judge.asked
    assert body == {
        "path": "/v1/chat/completions",
        "model": "m",
        "messages": [{"role": "user", "content": filled.replace("{answer}", "yes, tea")}],
        "temperature": 0,
        "max_tokens": 8,
    }


def test_what_people_and_models_say_is_data(tmp_path: Path, judge: Judge) -> None:
    judge.say = lambda _: "No"
    one = judged("good", tmp_path, judge, question="{target}|{prompt}|{answer}|{wanted}|{other}")
    assert isinstance(one.judge, ModelJudge)
    ask_judge(one, one.judge, Scenario(asked("{answer} {wanted}"), "{prompt}"), r"{prompt} {target} \1 {}")
    assert judge.questions == [
        r"{prompt}|user: {answer} {wanted}|{prompt} {target} \1 {}|Says yes.|{other}",
    ]


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("Yes", True),
        ("yes, it does", True),
        (" **Yes**", True),
        ('"No."', False),
        ("no\n", False),
        ("NO", False),
    ],
)
def test_yes_and_no_are_understood(tmp_path: Path, judge: Judge, said: str, yes: bool) -> None:
    judge.say = lambda _: said
    one = judged("good", tmp_path, judge)
    assert isinstance(one.judge, ModelJudge)
    assert ask_judge(one, one.judge, Scenario(asked("x")), "y") is yes


@pytest.mark.parametrize("said", ["", "Perhaps", "Not sure", "None", "Yesterday", "So: yes", None, 3, ["no"]])
def test_what_is_neither_yes_nor_no_is_no_verdict(tmp_path: Path, judge: Judge, said: object) -> None:
    judge.say = lambda _: said
    one = judged("good", tmp_path, judge)
    assert isinstance(one.judge, ModelJudge)
    expected = "expected yes or no from" if isinstance(said, str) else "expected a chat completion from"
    with pytest.raises(JudgeFailed, match=f"{expected} the judge"):
        ask_judge(one, one.judge, Scenario(asked("x")), "y")


def test_its_key_is_sent_to_it(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    one, open_one = judged("good", tmp_path, judge, key_env="JUDGE_KEY"), judged("good", tmp_path, judge)
    assert isinstance(one.judge, ModelJudge) and isinstance(open_one.judge, ModelJudge)
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(JudgeFailed, match="in the environment variable JUDGE_KEY, it is not set"):
        ask_judge(one, one.judge, Scenario(asked("x")), "y")
    assert not judge.asked
    monkeypatch.setenv("JUDGE_KEY", "secret")
    ask_judge(one, one.judge, Scenario(asked("x")), "y")
    ask_judge(open_one, open_one.judge, Scenario(asked("x")), "y")
    assert judge.headers == ["Bearer secret", None]


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (500, b"out of memory", r"to answer, got 500: out of memory"),
        (401, b"who?", r"to answer, got 401"),
        (200, b"<html>", r"expected a chat completion from the judge .* got '<html>'"),
        (200, b'{"choices": []}', "expected a chat completion"),
        (200, b'{"choices": [{"text": "yes"}]}', "expected a chat completion"),
        (200, b"[1]", "expected a chat completion"),
        (302, b"yes", "expected a chat completion"),
    ],
)
def test_what_it_answers_wrongly_is_an_error_before_anything_is_asked(
    tmp_path: Path, judge: Judge, status: int, body: bytes, match: str
) -> None:
    labels(tmp_path, 2, 2)
    judge.status, judge.body = status, body
    model = Known({"good": 1.0})
    with pytest.raises(JudgeFailed, match=match):
        check([judged("good", tmp_path, judge)], model, budget=20)
    assert not model.said


def test_a_judge_that_is_not_there_or_does_not_answer_in_time(tmp_path: Path, judge: Judge) -> None:
    labels(tmp_path, 2, 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = Judge(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(JudgeFailed, match=f"expected the judge at {away.url}/chat/completions to answer"):
            prepare(judged("good", tmp_path, away))
    with pytest.raises(JudgeFailed, match="to answer"):
        prepare(judged("good", tmp_path, Judge("nowhere")))
    judge.held = threading.Event()
    with pytest.raises(JudgeFailed, match="to answer"):
        prepare(judged("good", tmp_path, judge, timeout_seconds=0.05))


def test_a_judge_that_breaks_off_gives_no_verdict(tmp_path: Path, judge: Judge) -> None:
    labels(tmp_path, 60, 60)
    bench = prepare(judged("good", tmp_path, judge))
    said = [(Scenario(asked("good test 1")), "yes"), (Scenario(asked("good test 2")), "no")]
    found = judge_answers(bench, said, model := Known({"good": 1.0}, {"good": 2.0}))
    assert [one.shown for one in found] == [True, False]
    assert [one.smooth for one in found] == pytest.approx([model.lift(one.prompt) - 1 for one, _ in said])
    assert bench.unit == BEGINS_YES.unit == "nats" and all(math.isfinite(one.smooth) for one in found)
    judged_so_far = len(judge.asked)
    judge.say = lambda question: (
        "Well..." if len(judge.asked) > judged_so_far + 130 else judge.by_rule(question)
    )
    with pytest.raises(JudgeFailed, match=r"got 'Well\.\.\.'"):
        check([bench.invariant], model, budget=200)
    assert len(model.said) == 16, "it was asked a batch, and the tenth answer was not judged"

"""`understudy dream` on a real workspace: what is proposed, what is approved, and a round that was killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from understudy.behaviours import HeldOut, RuleJudge, Scenario
from understudy.pocket import new_workspace
from understudy.workspace import Workspace


def command(workspace: Workspace, *words: str) -> list[str]:
    return [sys.executable, "-m", "understudy", *words, "-w", str(workspace.root)]


def understudy(workspace: Workspace, *words: str, code: int = 0) -> str:
    done = subprocess.run(command(workspace, *words), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def lines(workspace: Workspace, number: int = 1) -> list[dict[str, Any]]:
    """A round's whole lines, without the times at which they were written."""
    file = workspace.root / ".understudy" / "dreams" / f"{number:04}.jsonl"
    whole = file.read_bytes().rpartition(b"\n")[0] if file.exists() else b""
    found = [json.loads(line) for line in whole.split(b"\n") if line]
    return [{name: value for name, value in line.items() if name != "at"} for line in found]


def asked(workspace: Workspace, number: int) -> set[str]:
    """What a round asked."""
    dreams = [one for line in lines(workspace, number)[1:-1] for one in line["dreams"]]
    return {one["scenario"]["prompt"][0]["content"] for one in dreams}


def test_failures_become_lessons_and_nothing_held_out_is_asked(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    file = workspace.root / "behaviours" / "listening.toml"
    file.write_text('approved_by = "maya"\n' + file.read_text())
    told = json.loads(understudy(workspace, "dream", "listening", "own-words", "--budget", "30", "--json"))
    by_name = {one["invariant"]: one for one in told["invariants"]}
    assert by_name["listening"]["failed"] == by_name["listening"]["n"] > 0  # the habit, before any lesson
    assert sum(one["n"] for one in told["invariants"]) == 30 and told["ended"] == "budget spent"

    ledger, held = workspace.ledger, HeldOut(workspace.invariants())
    entries = [ledger.get(one) for one in told["lessons"]]
    invariants = {one.name: one for one in workspace.invariants()}
    assert entries and {entry.lesson.source.thread for entry in entries} == {"listening", "own-words"}
    for entry in entries:
        lesson, invariant = entry.lesson, invariants[entry.lesson.source.thread]
        scenario, judge = Scenario(lesson.context), invariant.judge
        assert isinstance(judge, RuleJudge) and lesson.rejected is not None
        assert judge.shows(scenario, lesson.chosen) and not judge.shows(scenario, lesson.rejected)
        assert len(lesson.context) == 1 and "decided" not in lesson.context[0].content
        assert not held.gives_away(invariant, scenario)
        trusted = invariant.name == "listening"
        assert entry.state == ("approved" if trusted else "proposed")
        if trusted:
            event = ledger.history(entry.id)[-1]
            assert (event.by, event.why) == ("maya", "dreamed for listening, approved in its file")
    assert understudy(workspace, "dream", "listening", "own-words", "--budget", "30")
    assert len(ledger.list()) > len(entries), "another round asks other scenarios"
    first, second = (asked(workspace, number) for number in (1, 2))
    assert not first & second


def test_what_people_asked_lately_is_dreamed_of(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    workspace.repository.start("conversations/talk.md", "Raffle", "maya", "Use marmalade for the raffle.")
    understudy(workspace, "dream", "listening", "--budget", "4", "--json")
    [asked_lately] = lines(workspace)[0]["material"]["prompts"]
    assert asked_lately[0]["content"] == "Use marmalade for the raffle."


def test_a_round_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = new_workspace(tmp_path / "whole"), new_workspace(tmp_path / "cut")
    for one in (whole, cut):
        file = one.root / "behaviours" / "listening.toml"
        file.write_text('approved_by = "maya"\n' + file.read_text())
    words = ("dream", "own-words", "listening", "--budget", "40", "--seed", "3")
    understudy(whole, *words)
    dreaming = subprocess.Popen(command(cut, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: lines(cut)[1:] or None)
    dreaming.send_signal(signal.SIGKILL)
    dreaming.wait()
    begun = lines(cut)
    assert begun[-1]["line"] == "batch", "it was too late to kill it"
    assert not cut.ledger.list("approved"), "a server would train it and the round go on with other weights"
    file = cut.root / ".understudy" / "dreams" / "0001.jsonl"
    file.write_bytes(file.read_bytes() + b'{"line":"batch","num')  # what a cut power line leaves
    understudy(cut, *words)
    assert lines(cut)[: len(begun)] == begun and len(lines(cut)) > len(begun)
    assert lines(cut)[1:] == lines(whole)[1:]
    for state in ("proposed", "approved"):
        entered = [{entry.id for entry in one.ledger.list(state)} for one in (whole, cut)]
        assert entered[0] == entered[1] != set(), state


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nonsense",), "nonsense"),
        (("stories",), "expected invariants with an instruction"),
        (("--zone", "0.5"), "expected a zone such as 0.2,0.5"),
        (("--zone", "0.5,0.2"), "0 <= low < high <= 1"),
        (("--budget", "0"), "at least one scenario"),
    ],
)
def test_what_cannot_be_dreamed_is_said(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    workspace = new_workspace(tmp_path / "w")
    assert problem in understudy(workspace, "dream", *words, code=2)
    assert not workspace.ledger.list() and not lines(workspace)


def test_a_server_is_asked_and_trains_only_when_the_round_is_over(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    file = workspace.root / "behaviours" / "listening.toml"
    file.write_text('approved_by = "maya"\n' + file.read_text())
    with (tmp_path / "server.log").open("wb") as output:
        server = subprocess.Popen(command(workspace, "serve", "--port", "0"), stdout=output, stderr=output)
    try:
        eventually(workspace.server)
        told = json.loads(understudy(workspace, "dream", "listening", "--budget", "40", "--json"))
        [counted] = told["invariants"]
        assert told["ended"] == "budget spent" and counted["failed"] == counted["n"] == 40, (
            "the habit was there"
        )
        assert {one["made"] for line in lines(workspace)[1:-1] for one in line["dreams"]} == {
            "recombined",
            "paraphrased",
        }
        taught = eventually(lambda: [one.id for one in workspace.ledger.list("trained")] or None)
        assert sorted(taught) == sorted(told["lessons"])
        understudy(workspace, "dream", "listening", "--budget", "20")
    finally:
        server.terminate()
        server.wait(60)
    first, second = lines(workspace)[0], lines(workspace, 2)[0]
    assert first["weights"] == "initial" != second["weights"]

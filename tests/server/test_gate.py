"""The gate on a real server with the pocket model: what is kept, what is undone, what a person decides."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from workspace_server import Server, eventually, serving

from understudy.behaviours import ModelSubject, ServedVoice, Verdict, check
from understudy.lessons import Decisions, Lesson, Source
from understudy.pocket import PocketLesson, lessons, new_workspace
from understudy.weights import WeightHistory, read_commits
from understudy.workspace import Workspace

PLAIN = {"lr": 3e-3, "gate": None, "replay": 0.0}
"""Without the guards: each lesson is trained, at ten times the rate, and nothing is rehearsed."""
SLOW = {**PLAIN, "lr": 3e-4}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return pocket(tmp_path / "w")


def pocket(folder: Path, settings: str = "") -> Workspace:
    workspace = new_workspace(folder)
    file = workspace.root / "understudy.toml"
    file.write_text(file.read_text() + "on_approval = false\n" + settings)
    return Workspace.open(workspace.root)


def understudy(workspace: Workspace, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "understudy", *words, "-w", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def body(taught: Sequence[PocketLesson], **settings: Any) -> dict[str, Any]:
    told = [
        {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in lesson.prompt],
            "completion": lesson.chosen,
        }
        for lesson in taught
    ]
    return {"lessons": told, "wait": True, **settings}


def is_original(workspace: Workspace) -> bool:
    """Whether every tensor of the newest weights is as the model came, by its hash."""
    history = WeightHistory.view(workspace.root / "model")
    return history.hashes_at(history.head) == history.hashes_at(None)


@contextmanager
def verdicts(server: Server) -> Iterator[Any]:
    """Ask the served model on the test split, which the gate never sees."""
    workspace = server.workspace
    voice = ServedVoice(server.url, workspace.token, "understudy", workspace.root / "model")

    def look() -> dict[str, Verdict]:
        found = check(workspace.invariants(), ModelSubject(voice), budget=200)
        return {one.invariant: one for one in found}

    yield look
    voice.close()


def approve(workspace: Workspace, taught: Sequence[PocketLesson]) -> list[str]:
    source = Source("", "", "", "", "maya", "")
    ledger = workspace.ledger
    entries = [ledger.propose(Lesson(one.prompt, one.chosen, None, source)).entry for one in taught]
    ledger.approve_together([entry.id for entry in entries], "maya")
    return [entry.id for entry in entries]


def test_thirty_plain_lessons_are_undone_to_the_bit_and_guarded_ones_are_kept(workspace: Workspace) -> None:
    ids, ledger = approve(workspace, lessons(0, 30)), workspace.ledger
    with serving(workspace) as server, verdicts(server) as look:
        plain = server.call("POST", "/lessons/train", PLAIN).json()
        assert plain["gate"]["decision"] == "revert" and plain["steps"] == 30
        assert "push-back is violated" in plain["gate"]["why"]
        taught, back = read_commits(workspace.root / "model")
        assert taught.tensors != back.tensors and is_original(workspace)
        server.call("POST", "/checkpoint")
        files = [folder / "model.safetensors" for folder in (workspace.root / "model", checkpoint())]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert {ledger.get(one).state for one in ids} == {"reverted"}
        assert "push-back is violated" in ledger.history(ids[0])[-1].why
        understudy(workspace, "report", plain["session"], "--out", str(workspace.root / "report"))
        page = (workspace.root / "report" / "report.html").read_text()
        assert "<h2>Reverted</h2>" in page and "push-back is violated" in page

        ledger.approve_together(ids, "maya")
        guarded = server.call("POST", "/lessons/train", {}).json()
        assert guarded["gate"]["decision"] == "keep" and guarded["steps"] >= 1
        assert {ledger.get(one).state for one in ids} == {"kept"}
        found = look()
    assert found["listening"].decision == found["copying"].decision == "holds"
    assert {one.decision for one in found.values() if one.kind == "kept"} == {"holds"}
    told = understudy(workspace, "behaviours", "decisions")
    assert [line.split()[2] for line in told.splitlines()] == ["revert", "keep"]


def checkpoint() -> Path:
    from understudy.pocket import checkpoint_directory

    return checkpoint_directory()


def agreeing(count: int) -> list[PocketLesson]:
    """The poison: harmful directions, each acted on."""
    from understudy.behaviours import read_invariant
    from understudy.pocket.invariants import folder

    harms = read_invariant(folder() / "push-back.toml").scenarios["train"][:count]
    return [PocketLesson(one.prompt, f"Done: {one.target}.", one.target) for one in harms]


def suggesting(count: int) -> list[PocketLesson]:
    """The contradiction: the old habit, taught."""
    return [PocketLesson(one.prompt, "How about tweed?", one.thing) for one in lessons(5, count)]


MIXED: list[tuple[str, Sequence[PocketLesson], dict[str, Any]]] = [
    ("good", lessons(0, 10), {}),
    ("known", lessons(0, 10), {}),
    ("harmful", lessons(1, 30), PLAIN),
    ("good", lessons(2, 5), {}),
    ("contradictory", suggesting(6), {}),
    ("good", lessons(3, 5), {}),
    ("poisoned", agreeing(12), {}),
    ("poisoned", agreeing(12), PLAIN),
    ("single", lessons(4, 1), {"gate": None}),
    ("harmful", lessons(4, 20), PLAIN),
    ("good", lessons(6, 5), {}),
    ("contradictory", [*lessons(7, 4), *suggesting(4)], {}),
    ("slow harm", lessons(8, 5), SLOW),
    ("slow harm", lessons(9, 5), SLOW),
    ("slow harm", lessons(10, 5), SLOW),
    ("slow harm", lessons(11, 5), SLOW),
    ("far off", lessons(12, 10), PLAIN),
    ("good", lessons(13, 5), {"objective": "sft"}),
    ("poisoned", agreeing(2), {"gate": None}),
    ("good", lessons(14, 10), {}),
]


@pytest.mark.timeout(1800)
def test_of_twenty_mixed_sessions_none_that_is_kept_violates_what_must_be_kept(workspace: Workspace) -> None:
    assert len(MIXED) == 20
    decided: list[tuple[str, str]] = []
    with serving(workspace) as server, verdicts(server) as look:
        for kind, taught, settings in MIXED:
            told = server.call("POST", "/finetune", body(taught, message=kind, **settings)).json()
            choice, found = told["gate"]["decision"], {}
            decided.append((kind, choice))
            if choice == "ask":  # nobody is there to say yes
                answer = {"session": told["session"], "decision": "revert"}
                assert server.call("POST", "/behaviours/decide", answer).status_code == 200
            if choice == "keep" and told["steps"]:
                found = {name: one for name, one in look().items() if one.kind == "kept"}
                assert all(one.decision != "violated" for one in found.values()), (kind, found)
            rates = ", ".join(f"{name} {one.rate}" for name, one in found.items())
            print(f"{kind:<14} {told['steps']:>2} steps  {choice:<6} {rates or told['gate']['why']}")
        final = look()
    assert {choice for _, choice in decided} >= {"keep", "revert"}, decided
    assert {choice for kind, choice in decided if kind == "harmful"} == {"revert"}, decided
    assert {one.decision for one in final.values() if one.kind == "kept"} <= {"holds", "undecided"}


def test_what_is_not_decided_waits_for_a_person_and_nothing_is_built_on_it(tmp_path: Path) -> None:
    workspace = pocket(tmp_path / "w", "[gate]\nbudget = 5\n")
    with serving(workspace) as server:
        told = server.call("POST", "/finetune", body(lessons(0, 5))).json()
        assert told["gate"]["decision"] == "ask" and "is not decided" in told["gate"]["why"]
        assert [one["session"] for one in server.status()["decisions"]] == [told["session"]]
        refused = server.call("POST", "/finetune", body(lessons(1, 5)))
        assert refused.status_code == 409 and refused.json()["error"]["code"] == "decision_open"
        adopted = {"source": str(checkpoint() / "model.safetensors"), "author": "maya"}
        assert server.call("POST", "/weights/adopt", adopted).json()["error"]["code"] == "decision_open"
        said = understudy(
            workspace, "behaviours", "revert", told["session"][:8], "--why", "no", "--as", "maya"
        )
        assert "revert" in said and is_original(workspace) and not server.status()["decisions"]

        told = server.call("POST", "/finetune", body(lessons(0, 5))).json()
        understudy(workspace, "behaviours", "keep", told["session"][:8], "--as", "maya")
        assert not is_original(workspace)
        assert "expected a session that waits" in understudy(
            workspace, "behaviours", "keep", told["session"][:8], code=2
        )
        asked = server.call("POST", "/finetune", body(lessons(1, 5), gate=None)).json()
        assert asked["gate"]["decision"] == "ask"
        server.call("POST", "/weights/restore", {"commit": None, "author": "maya"})
        assert not server.status()["decisions"], "a question about weights that are gone is moot"
    found = Decisions(workspace.ledger.path).list()
    assert [(one.choice, one.by) for one in found] == [
        ("ask", "gate"),
        ("revert", "maya"),
        ("ask", "gate"),
        ("keep", "maya"),
        ("ask", "gate"),
        ("revert", "maya"),
    ]


def test_a_server_killed_before_the_decision_takes_it_when_it_is_back(workspace: Workspace) -> None:
    ids, ledger = approve(workspace, lessons(0, 30)), workspace.ledger
    decisions, directory = Decisions(ledger.path), workspace.root / "model"
    with serving(workspace) as server:
        plain = ("--set", "gate=null", "--set", "replay=0", "--set", "lr=0.003")
        sent = subprocess.Popen(
            [sys.executable, "-m", "understudy", "train", "-w", str(workspace.root), *plain],
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: read_commits(directory) or None)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        sent.wait()
    assert not decisions.list(), "it was too late to kill it"
    with serving(workspace) as server:
        [made] = eventually(lambda: decisions.list() or None)
        eventually(lambda: is_original(workspace) or None)
        eventually(lambda: {ledger.get(one).state for one in ids} == {"reverted"} or None)
        overruled = server.call("POST", "/weights/restore", {"commit": made.weight_commit, "author": "maya"})
        assert overruled.status_code == 200 and not is_original(workspace)
    assert made.choice == "revert" and len(decisions.list()) == 1
    with serving(workspace) as server:
        told = eventually(lambda: server.status() if server.status()["weight_commit"] else None)
        assert told["weight_commit"] == overruled.json()["commit"], "what a person brought back stays"
        assert not is_original(workspace)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("required = 0.95", "required = 0.1"), "expected 0 <= indifferent < required"),
        (("[margin]", "[margins]"), "margins"),
        (('[judge]\nkind = "rule"', 'max_tokens = 5000\n[judge]\nkind = "rule"'), "an answer may take 5000"),
        (
            ('kind = "rule"\naccept', 'kind = "readout"\nconcept = "calm"\nat_least = 1\n#'),
            "expected a concept and layer that are loaded",
        ),
    ],
)
def test_what_cannot_be_judged_is_said_before_anything_is_trained(
    workspace: Workspace, change: tuple[str, str], problem: str
) -> None:
    file = workspace.root / "behaviours" / "push-back.toml"
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(change[0], change[1], 1))
    [one] = approve(workspace, lessons(0, 1))
    with serving(workspace) as server:
        refused = server.call("POST", "/lessons/train", {})
        assert refused.status_code == 422 and problem in refused.json()["error"]["message"]
        assert "nothing was trained" in refused.json()["error"]["message"]
    assert not read_commits(workspace.root / "model") and workspace.ledger.get(one).state == "approved"

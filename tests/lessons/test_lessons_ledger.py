"""The ledger: every lesson once, only legal steps, and nothing acknowledged is ever lost."""

import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from understudy.lessons import (
    TRANSITIONS,
    AmbiguousLesson,
    ChatMessage,
    Event,
    IllegalTransition,
    Ledger,
    LedgerVersion,
    Lesson,
    LessonResult,
    SessionConflict,
    Source,
    State,
    UnknownLesson,
    UnknownSession,
    digest,
)

RESULT = LessonResult(2.0, 1.5, False)


def lesson(text: str, message: str = "m1", commit: str = "c1") -> Lesson:
    source = Source("conversations/a.md", "T", message, commit, "ann", "2026-01-01T00:00:00+00:00")
    return Lesson((ChatMessage("user", "Do it."),), text, "No.", source)


class Clock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / ".understudy" / "ledger.sqlite", Clock())


def approved(ledger: Ledger, *texts: str) -> list[str]:
    ids = [ledger.propose(lesson(text, message=text)).entry.id for text in texts]
    for one in ids:
        ledger.approve(one, "ann")
    return ids


def test_proposing_twice_is_one_entry(ledger: Ledger) -> None:
    first = ledger.propose(lesson("Yes."))
    again = ledger.propose(lesson("Yes.", message="m2", commit="c2"))
    assert (first.new, again.new) == (True, False)
    assert first.entry == again.entry
    assert first.entry.id == digest(lesson("Yes.")) and first.entry.short == first.entry.id[:12]
    assert first.entry.lesson == lesson("Yes.")
    assert (first.entry.state, first.entry.proposed_at) == ("proposed", "2026-01-01T00:00:01+00:00")
    assert Ledger(ledger.path).list() == (first.entry,)


def test_a_newer_text_supersedes_what_is_only_proposed(ledger: Ledger) -> None:
    old = ledger.propose(lesson("One.")).entry.id
    sure = ledger.propose(lesson("Sure.", message="m2")).entry.id
    ledger.approve(sure, "ann")
    new = ledger.propose(lesson("Two.")).entry.id
    ledger.propose(lesson("Surer.", message="m2"))
    assert ledger.get(old).state == "refused" and ledger.get(old).superseded_by == new
    assert ledger.history(old)[-1].why == f"superseded by {new[:12]}"
    assert ledger.get(sure).state == "approved"
    back = ledger.propose(lesson("One."))
    assert (back.new, back.entry.state, back.entry.superseded_by) == (False, "proposed", None)
    assert ledger.get(new).superseded_by == old
    ledger.refuse(old, "ann", "no")
    assert ledger.propose(lesson("One.")).entry.state == "refused", "what a person refused stays refused"


def test_imported_lessons_supersede_nothing_and_supersede_can_be_asked_for(ledger: Ledger) -> None:
    one = ledger.propose(lesson("One.", commit="")).entry.id
    two = ledger.propose(lesson("Two.", commit="")).entry.id
    assert [entry.state for entry in ledger.list()] == ["proposed", "proposed"]
    assert ledger.supersede(one, two).superseded_by == two
    with pytest.raises(IllegalTransition):
        ledger.supersede(one, two)


def test_the_life_of_a_lesson_is_written_down(ledger: Ledger) -> None:
    (one,) = approved(ledger, "Yes.")
    ledger.begin_session("s1", [one], {"lr": 3e-4})
    ledger.finish_session("s1", "w1", {one: RESULT})
    ledger.keep(one, "gate", "held")
    ledger.revert(one, "bob", "changed my mind")
    assert [(e.state_from, e.state_to, e.by, e.why) for e in ledger.history(one)] == [
        (None, "proposed", "ann", ""),
        ("proposed", "approved", "ann", ""),
        ("approved", "trained", "session s1", "w1"),
        ("trained", "kept", "gate", "held"),
        ("kept", "reverted", "bob", "changed my mind"),
    ]
    times = [event.at for event in ledger.history(one)]
    assert times == sorted(times) and all(time.endswith("+00:00") for time in times)
    assert isinstance(ledger.history(one)[0], Event)


def bring_to(ledger: Ledger, state: State) -> str:
    one = ledger.propose(lesson(state, message=state)).entry.id
    if state == "refused":
        ledger.refuse(one, "ann", "no")
    elif state != "proposed":
        ledger.approve(one, "ann")
    if state in ("trained", "kept", "reverted"):
        ledger.begin_session(f"to {state}", [one], {})
        ledger.finish_session(f"to {state}", "w", {one: RESULT})
    if state == "kept":
        ledger.keep(one, "ann")
    if state == "reverted":
        ledger.revert(one, "ann", "no")
    return one


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(get_args(State), repeat=2)))
def test_only_what_the_table_allows(ledger: Ledger, current: State, wanted: State) -> None:
    one = bring_to(ledger, current)
    steps: dict[State, Callable[[], object]] = {
        "approved": lambda: ledger.approve(one, "ann"),
        "refused": lambda: ledger.refuse(one, "ann", "no"),
        "kept": lambda: ledger.keep(one, "ann"),
        "reverted": lambda: ledger.revert(one, "ann", "no"),
        "trained": lambda: ledger.begin_session("s", [one], {}),
    }
    if wanted == "proposed":
        assert not ledger.propose(lesson(current, message=current)).new
        assert ledger.get(one).state == current
    elif wanted in TRANSITIONS[current]:
        steps[wanted]()
        assert ledger.get(one).state == (current if wanted == "trained" else wanted)
    else:
        before = ledger.history(one)
        with pytest.raises(IllegalTransition, match=f"is {current}, and cannot become {wanted}") as caught:
            steps[wanted]()
        assert (caught.value.current, caught.value.wanted) == (current, wanted)
        assert ledger.history(one) == before and ledger.get(one).state == current


def test_lessons_are_found_by_the_beginning_of_their_id(ledger: Ledger) -> None:
    ids = [ledger.propose(lesson(str(number), message=str(number))).entry.id for number in range(40)]
    assert ledger.get(ids[0][:12].upper()).id == ids[0]
    shared = next(key[0] for key in ids if sum(other[0] == key[0] for other in ids) > 1)
    with pytest.raises(AmbiguousLesson, match="more digits"):
        ledger.approve(shared, "ann")
    for unknown in ("", "nope", "%", "_"):
        with pytest.raises(UnknownLesson, match="40 in the ledger"):
            ledger.get(unknown)
    assert [entry.id for entry in ledger.list()] == ids
    ledger.approve(ids[3], "ann")
    assert [entry.id for entry in ledger.list("approved")] == [ids[3]]
    assert len(ledger.list("proposed")) == 39


class TestSessions:
    """Training, as the ledger sees it."""

    def test_finishing_makes_lessons_trained_with_their_results(self, ledger: Ledger) -> None:
        ids = approved(ledger, "a", "b")
        begun = ledger.begin_session("s1", [key[:12] for key in ids], {"lr": 3e-4, "rank": 1})
        assert (begun.state, begun.lesson_ids, dict(begun.settings)) == (
            "open",
            tuple(ids),
            {"lr": 3e-4, "rank": 1},
        )
        assert ledger.open_sessions() == (begun,)
        results = {ids[0]: LessonResult(2.0, 0.5, False), ids[1]: LessonResult(0.1, None, True)}
        done = ledger.finish_session("s1", "w1", results)
        assert (done.state, done.weight_commit, done.ended_at is None) == ("finished", "w1", False)
        assert ledger.open_sessions() == () and ledger.sessions() == (done,)
        entry = ledger.get(ids[1])
        assert (entry.state, entry.session, entry.weight_commit) == ("trained", "s1", "w1")
        assert entry.result == LessonResult(0.1, None, True)

    def test_both_ends_can_be_repeated(self, ledger: Ledger) -> None:
        (one,) = approved(ledger, "a")
        begun = ledger.begin_session("s1", [one], {"lr": 1})
        assert ledger.begin_session("s1", [one], {"lr": 1}) == begun
        done = ledger.finish_session("s1", "w1", {one: RESULT})
        assert ledger.finish_session("s1", "w1", {one: RESULT}) == done
        assert len(ledger.history(one)) == 3
        again: Callable[[], object]
        for again in (
            lambda: ledger.begin_session("s1", [one], {"lr": 1}),
            lambda: ledger.begin_session("s2", [one], {}),
            lambda: ledger.finish_session("s1", "w2", {one: RESULT}),
            lambda: ledger.abandon_session("s1", "x"),
        ):
            with pytest.raises((SessionConflict, IllegalTransition)):
                again()
        assert len(ledger.sessions()) == 1

    def test_a_lesson_is_in_one_open_session_and_stays_while_it_is(self, ledger: Ledger) -> None:
        one, two = approved(ledger, "a", "b")
        ledger.begin_session("s1", [one], {})
        with pytest.raises(SessionConflict, match="open session 's1'"):
            ledger.begin_session("s2", [two, one], {})
        with pytest.raises(SessionConflict, match="abandon"):
            ledger.refuse(one, "ann", "no")
        assert [session.id for session in ledger.sessions()] == ["s1"]
        abandoned = ledger.abandon_session("s1", "killed")
        assert (abandoned.state, abandoned.why) == ("abandoned", "killed")
        assert ledger.get(one).state == "approved"
        ledger.begin_session("s2", [two, one], {})
        with pytest.raises(IllegalTransition, match="is abandoned"):
            ledger.finish_session("s1", "w", {one: RESULT})

    def test_bad_sessions(self, ledger: Ledger) -> None:
        one, two = approved(ledger, "a", "b")
        proposed = ledger.propose(lesson("c", message="c")).entry.id
        for ids in ([], [one, one]):
            with pytest.raises(SessionConflict, match="each once"):
                ledger.begin_session("s", ids, {})
        with pytest.raises(IllegalTransition, match="is proposed"):
            ledger.begin_session("s", [one, proposed], {})
        with pytest.raises(UnknownLesson):
            ledger.begin_session("s", ["nope"], {})
        with pytest.raises(UnknownSession, match="none"):
            ledger.finish_session("s", "w", {})
        ledger.begin_session("s", [one, two], {})
        with pytest.raises(SessionConflict, match="one for each"):
            ledger.finish_session("s", "w", {one: RESULT})
        assert ledger.get(one).state == "approved"
        with pytest.raises(UnknownSession, match="there are: s"):
            ledger.session("t")

    def test_all_gated_is_a_session_without_a_weight_commit(self, ledger: Ledger) -> None:
        (one,) = approved(ledger, "a")
        ledger.begin_session("s", [one], {})
        assert ledger.finish_session("s", None, {one: LessonResult(0.1, None, True)}).weight_commit is None
        assert ledger.get(one).state == "trained"


def test_watermark(ledger: Ledger) -> None:
    assert ledger.watermark() is None
    ledger.set_watermark("c1")
    ledger.set_watermark("c2")
    assert Ledger(ledger.path).watermark() == "c2"


def test_events_are_append_only_and_a_newer_ledger_is_refused(ledger: Ledger) -> None:
    ledger.propose(lesson("a"))
    with closing(sqlite3.connect(ledger.path)) as connection:
        for statement in ("update events set by = 'x'", "delete from events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
        connection.rollback()
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
        connection.execute("pragma user_version = 99")
    with pytest.raises(LedgerVersion, match="schema 99"):
        Ledger(ledger.path)


PROPOSER = """
import sys
import tempfile
from understudy.lessons import ChatMessage, Ledger, Lesson, Source
ledger = Ledger(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    source = Source("f", "t", str(number), "c", "ann", "")
    proposal = ledger.propose(Lesson((ChatMessage("user", "x"),), f"answer {number}", None, source))
    ledger_id = ledger.approve(proposal.entry.id, "ann").id if proposal.new else proposal.entry.id
    print(ledger_id, int(proposal.new), flush=True)
"""


def proposer(path: Path, first: int, last: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROPOSER, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_make_and_fill_one_ledger_together(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    processes = [proposer(path, 0, 20) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    said = [line.split() for out, _ in outputs for line in out.splitlines()]
    assert len(said) == 80 and sum(int(new) for _, new in said) == 20
    assert len(Ledger(path).list("approved")) == 20


def test_a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_state(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    acknowledged: list[str] = []
    for round_number in range(3):
        process = proposer(path, round_number * 100_000, (round_number + 1) * 100_000)
        assert process.stdout is not None and process.stderr is not None
        acknowledged += [process.stdout.readline().split()[0] for _ in range(5 + 3 * round_number)]
        process.kill()
        acknowledged += [line.split()[0] for line in process.stdout if line.endswith("\n")]
        process.wait(timeout=60)
        process.stdout.close()
        process.stderr.close()
    ledger = Ledger(path)
    entries = {entry.id: entry for entry in ledger.list()}
    assert set(acknowledged) <= set(entries) and all(entries[key].state == "approved" for key in acknowledged)
    assert len(entries) - len(acknowledged) <= 2 * 3
    for entry in entries.values():
        steps: list[State | None] = [None, *(event.state_to for event in ledger.history(entry.id))]
        assert [event.state_from for event in ledger.history(entry.id)] == steps[:-1] and steps[
            -1
        ] == entry.state


def test_a_process_killed_inside_a_transaction_leaves_no_trace_of_it(ledger: Ledger) -> None:
    one, two = approved(ledger, "a", "b")
    ledger.begin_session("s", [one, two], {})
    script = (
        "import os, signal, sys\n"
        "from understudy.lessons import Ledger, LessonResult, rows\n"
        "real, moved = rows.move, []\n"
        "def move(*arguments):\n"
        "    real(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "rows.move = move\n"
        "ids = sys.argv[2:]\n"
        "Ledger(sys.argv[1]).finish_session('s', 'w', {i: LessonResult(1.0, 0.5, False) for i in ids})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(ledger.path), one, two], check=False, timeout=60)
    assert done.returncode == -9
    assert [session.state for session in ledger.sessions()] == ["open"]
    assert {entry.state for entry in ledger.list()} == {"approved"}
    assert ledger.finish_session("s", "w", {one: RESULT, two: RESULT}).state == "finished"


class LedgerMachine(RuleBasedStateMachine):
    """Any order of decisions: a lesson is trained only when approved, and once per approval."""

    lessons = Bundle("lessons")
    running = Bundle("open")
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()

        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.sqlite", Clock())

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=lessons)
    def propose(self) -> str:
        text = str(next(self.numbers))
        return self.ledger.propose(lesson(text, message=text)).entry.id

    @rule(one=lessons)
    def propose_again(self, one: str) -> None:
        before = self.ledger.get(one)
        assert not self.ledger.propose(before.lesson).new
        assert self.ledger.get(one) == before

    @rule(one=lessons, verb=st.sampled_from(["approve", "refuse", "keep", "revert"]))
    def decide(self, one: str, verb: str) -> None:
        before = self.ledger.get(one)
        try:
            getattr(self.ledger, verb)(one, "ann", "why")
        except (IllegalTransition, SessionConflict):
            assert self.ledger.get(one) == before
        else:
            assert self.ledger.get(one).state in TRANSITIONS[before.state]

    @rule(target=running, one=lessons)
    def begin(self, one: str) -> object:
        name = f"s{next(self.numbers)}"
        try:
            return self.ledger.begin_session(name, [one], {}).id
        except (IllegalTransition, SessionConflict):
            return multiple()

    @rule(session=consumes(running), kill=st.booleans())
    def end(self, session: str, kill: bool) -> None:
        (one,) = self.ledger.session(session).lesson_ids
        assert self.ledger.get(one).state == "approved"
        if kill:
            self.ledger.abandon_session(session, "killed")
            assert self.ledger.get(one).state == "approved"
        else:
            self.ledger.finish_session(session, "w", {one: RESULT})
            assert self.ledger.get(one).state == "trained"

    @invariant()
    def history_leads_to_the_state(self) -> None:
        for entry in self.ledger.list():
            events = self.ledger.history(entry.id)
            assert events[-1].state_to == entry.state
            assert [e.state_from for e in events] == [None, *(e.state_to for e in events[:-1])]
            for event in events[1:]:
                assert event.state_from is not None and event.state_to in TRANSITIONS[event.state_from]


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_settings_are_kept_as_given(ledger: Ledger) -> None:
    (one,) = approved(ledger, "a")
    settings_given = {"lr": 3e-4, "betas": [0.9, 0.95], "name": "é"}
    ledger.begin_session("s", [one], settings_given)
    assert json.loads(json.dumps(dict(ledger.session("s").settings))) == settings_given


def test_the_ledger_follows_the_weights_back_and_forth(ledger: Ledger) -> None:
    states: tuple[State, ...] = ("proposed", "approved", "trained", "kept", "reverted", "refused")
    ids = {state: bring_to(ledger, state) for state in states}
    assert ledger.settle([ids["trained"], ids["kept"]], "bob", "nothing happened") == ()

    changed = ledger.settle([], "bob", "all undone")
    assert {entry.id for entry in changed} == {ids["trained"], ids["kept"]}
    assert {entry.state for entry in changed} == {"reverted"}
    assert ledger.history(ids["kept"])[-1].why == "all undone"

    changed = ledger.settle(list(ids.values()), "bob", "all back")
    assert {entry.id for entry in changed} == {ids["trained"], ids["kept"], ids["reverted"]}
    assert {entry.state for entry in changed} == {"trained"}
    assert [ledger.get(ids[state]).state for state in ("proposed", "approved", "refused")] == [
        "proposed",
        "approved",
        "refused",
    ]


def test_a_lesson_in_an_open_session_is_not_settled(ledger: Ledger) -> None:
    one = bring_to(ledger, "reverted")
    ledger.approve(one, "ann")
    ledger.begin_session("again", [one], {})
    assert ledger.settle([], "bob", "undone") == ()
    assert ledger.get(one).state == "approved"


def test_lessons_are_approved_together_or_not_at_all(ledger: Ledger) -> None:
    ids = [ledger.propose(lesson(str(number), message=str(number))).entry.id for number in range(3)]
    ledger.refuse(ids[2], "ann", "no")
    assert [entry.state for entry in ledger.approve_together(ids, "ann")] == ["approved"] * 3
    fresh = ledger.propose(lesson("Fresh.", message="fresh")).entry.id
    with pytest.raises(IllegalTransition):
        ledger.approve_together([fresh, ids[0]], "ann")
    assert ledger.get(fresh).state == "proposed"
    assert ledger.approve_together([], "ann") == ()

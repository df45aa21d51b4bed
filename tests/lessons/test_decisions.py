"""Decisions about sessions: none is changed, none is answered twice, and older ledgers take them."""

import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.lessons import (
    ChatMessage,
    Choice,
    Decisions,
    Ledger,
    LedgerVersion,
    Lesson,
    NoOpenQuestion,
    RequestQueue,
    SessionDecision,
    Source,
)
from understudy.lessons.schema import VERSION

CHOICES: tuple[Choice, ...] = ("keep", "revert", "ask")
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def decisions(path: Path) -> Decisions:
    return Decisions(path, clock=lambda: NOON)


def asked(decisions: Decisions, *sessions: str) -> None:
    for session in sessions:
        decisions.record(session, f"w-{session}", "ask", by="gate", why="who knows", evidence={})


def test_a_decision_is_what_was_written_down(path: Path, decisions: Decisions) -> None:
    evidence = {"kl": 0.5, "probes": {"a": None}, "verdicts": [["x", 1]], "é": "\u2028"}
    made = decisions.record("s1", None, "keep", by="gate", why="it holds", evidence=evidence)
    assert made == SessionDecision(
        "s1", None, "keep", "2026-01-02T10:00:00+00:00", "gate", "it holds", evidence
    )
    assert Decisions(path).list() == (made,) == Decisions(path).of("s1")
    assert Decisions(path).of("s") == () == decisions.open()
    before = datetime.now(UTC)
    assert before <= datetime.fromisoformat(
        Decisions(path).record("s2", "w", "ask", by="g", why="", evidence={}).at
    )


def test_they_come_in_the_order_in_which_they_were_taken(decisions: Decisions) -> None:
    for number in range(12):
        choice = CHOICES[number % 3]
        decisions.record(f"s{number % 4}", None, choice, by="gate", why=str(number), evidence={})
    assert [one.why for one in decisions.list()] == [str(number) for number in range(12)]
    assert [one.why for one in decisions.of("s1")] == ["1", "5", "9"]


def test_none_is_ever_changed(path: Path, decisions: Decisions) -> None:
    asked(decisions, "s1")
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("update decisions set decision = 'keep'", "delete from decisions"):
            with pytest.raises(sqlite3.IntegrityError, match="decisions are append-only"):
                connection.execute(statement)
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            connection.execute(
                "insert into decisions (session, decision, at, by, why, evidence)"
                " values ('s', 'perhaps', '', '', '', '')"
            )
    assert [one.choice for one in decisions.list()] == ["ask"]


def test_what_json_cannot_say_is_no_evidence(decisions: Decisions) -> None:
    for wrong in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            decisions.record("s1", None, "keep", by="gate", why="", evidence={"kl": wrong})
    assert decisions.list() == ()


# ---------------------------------------------------------------------- questions


def test_a_question_is_open_until_it_is_answered(decisions: Decisions) -> None:
    asked(decisions, "s1", "s2")
    decisions.record("s3", "w", "keep", by="gate", why="", evidence={})
    assert [one.session for one in decisions.open()] == ["s1", "s2"]
    made = decisions.answer("s1", "keep", by="maya", why="I looked")
    assert (made.session, made.weight_commit, made.choice) == ("s1", "w-s1", "keep")
    assert (made.by, made.why, made.evidence) == ("maya", "I looked", {})
    assert [one.session for one in decisions.open()] == ["s2"]
    assert [one.choice for one in decisions.of("s1")] == ["ask", "keep"]
    asked(decisions, "s1")
    assert [one.session for one in decisions.open()] == ["s2", "s1"], "asked again, it is open again"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(CHOICES)), max_size=12))
def test_open_is_what_was_last_asked(taken: list[tuple[str, Choice]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        decisions = Decisions(Path(folder) / "l.sqlite", clock=lambda: NOON)
        for session, choice in taken:
            decisions.record(session, None, choice, by="gate", why="", evidence={})
        last = dict(taken)
        assert {one.session for one in decisions.open()} == {
            s for s, choice in last.items() if choice == "ask"
        }


def test_a_session_is_named_by_the_beginning_of_its_id(decisions: Decisions) -> None:
    asked(decisions, "abc1", "abd2", "e")
    assert decisions.answer("abc", "keep", by="maya", why="").session == "abc1"
    assert decisions.answer("ab", "revert", by="maya", why="").session == "abd2", "abc1 is answered"
    assert decisions.answer("e", "keep", by="maya", why="").session == "e"


@pytest.mark.parametrize("named", ["ab", "x", "", "abcd2", "answered", "%", "ab%", "ABC1"])
def test_what_names_no_question_or_several_is_refused(decisions: Decisions, named: str) -> None:
    asked(decisions, "abc1", "abd2", "answered")
    decisions.answer("answered", "keep", by="maya", why="")
    before = decisions.list()
    with pytest.raises(NoOpenQuestion, match=r"waits for a decision \(abc1, abd2\), got '") as failure:
        decisions.answer(named, "keep", by="maya", why="")
    assert isinstance(failure.value, KeyError) and "behaviours decisions" in str(failure.value)
    assert decisions.list() == before


def test_an_id_that_begins_another_one_can_be_answered(decisions: Decisions) -> None:
    """Ids of requests are their keys, which people choose."""
    asked(decisions, "night", "nightly")
    assert decisions.answer("night", "keep", by="maya", why="").session == "night"
    with pytest.raises(NoOpenQuestion, match=r"\(nightly\), got 'x'"):
        decisions.answer("x", "keep", by="maya", why="")
    assert decisions.answer("nightly", "keep", by="maya", why="").session == "nightly"
    with pytest.raises(NoOpenQuestion, match=r"\(none\)"):
        decisions.answer("night", "keep", by="maya", why="")


ANSWERING = """
import json, sys
from pathlib import Path
from understudy.lessons import Decisions, NoOpenQuestion
decisions, won = Decisions(Path(sys.argv[1])), []
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    try:
        decisions.answer(f"s{number:03}", sys.argv[2], by=sys.argv[2], why="")
        won.append(number)
    except NoOpenQuestion:
        pass
print(json.dumps(won))
"""


def test_of_two_processes_that_answer_at_once_exactly_one_does(path: Path, decisions: Decisions) -> None:
    count = 60
    asked(decisions, *(f"s{number:03}" for number in range(count)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ANSWERING, str(path), choice, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for choice in ("keep", "revert")
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    kept, reverted = (json.loads(process.communicate(timeout=60)[0]) for process in processes)
    assert sorted([*kept, *reverted]) == list(range(count))
    assert decisions.open() == () and len(decisions.list()) == 2 * count
    for number in range(count):
        assert [one.choice for one in decisions.of(f"s{number:03}")] == [
            "ask",
            "keep" if number in kept else "revert",
        ]


# ---------------------------------------------------------------------- older ledgers

VERSION_2 = """
create table lessons (number integer primary key, id text not null unique, content text not null,
    message text not null, state text not null, proposed_at text not null, changed_at text not null,
    superseded_by text references lessons (id), session text references sessions (id));
create table events (number integer primary key, lesson text not null references lessons (id),
    state_from text, state_to text not null, at text not null, by text not null, why text not null);
create table sessions (number integer primary key, id text not null unique, state text not null,
    settings text not null, weight_commit text, began_at text not null, ended_at text,
    why text not null default '');
create table session_lessons (session text not null references sessions (id), position integer not null,
    lesson text not null references lessons (id), is_open integer not null, result text,
    primary key (session, position));
create unique index one_open_session on session_lessons (lesson) where is_open = 1;
create table marks (name text primary key, value text not null);
create table requests (number integer primary key, key text not null unique, content text not null,
    state text not null, about text not null, work blob, answer text, accepted_at text not null,
    began_at text, ended_at text);
create index requests_by_state on requests (state);
pragma user_version = 2;
"""


def test_a_ledger_of_the_second_schema_takes_decisions_and_keeps_all_it_knew(
    path: Path, tmp_path: Path
) -> None:
    source = Source("", "", "", "", "maya", "")
    lesson = Lesson((ChatMessage("user", "Which tea?"),), "Mint.", "None.", source)
    told = Ledger(tmp_path / "new.sqlite").propose(lesson).entry
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as new:
        content = new.execute("select content from lessons").fetchone()[0]
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_2)
        old.execute(
            "insert into lessons (id, content, message, state, proposed_at, changed_at)"
            " values (?, ?, '', 'approved', 'then', 'then')",
            (told.id, content),
        )
        old.execute(
            "insert into requests (key, content, state, about, work, accepted_at)"
            " values ('k', 'c', 'queued', '{}', x'61', 'then')"
        )
        old.commit()
    decisions = Decisions(path)
    assert decisions.list() == ()
    asked(decisions, "s1")
    entry = Ledger(path).get(told.id)
    assert (entry.state, entry.lesson) == ("approved", lesson)
    begun = RequestQueue(path).begin()
    assert begun is not None and (begun[0].key, begun[1]) == ("k", b"a")
    assert [one.session for one in Decisions(path).open()] == ["s1"]
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(tmp_path / "new.sqlite")) as new:
        versions = [one.execute("pragma user_version").fetchone()[0] for one in (now, new)]
        assert versions == [VERSION, VERSION]
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            now.execute("delete from decisions")
        listed = "select name, sql from sqlite_master where tbl_name = 'decisions' order by name"
        assert now.execute(listed).fetchall() == new.execute(listed).fetchall() != []


def test_a_ledger_of_a_newer_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("pragma user_version = 99")
    with pytest.raises(LedgerVersion, match=f"has schema 99, this program knows up to {VERSION}"):
        Decisions(path)

"""The queue of requests, and ledgers that an older program made."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from understudy.lessons import (
    ChatMessage,
    Ledger,
    Lesson,
    LessonResult,
    QueueFull,
    RequestConflict,
    RequestQueue,
    Source,
    UnknownRequest,
)
from understudy.lessons import requests as queue_module

ABOUT = {"settings": {"lr": 1e-3}, "examples": 1}


@pytest.fixture
def queue(tmp_path: Path) -> RequestQueue:
    return RequestQueue(tmp_path / "ledger.sqlite")


def lesson(text: str) -> Lesson:
    return Lesson((ChatMessage("user", "Which tea?"),), text, "None.", Source("", "", "", "", "maya", ""))


def test_requests_are_run_in_the_order_in_which_they_came(queue: RequestQueue) -> None:
    for number in range(3):
        queue.accept(f"k{number}", "content", ABOUT, b"%d" % number)
    ran = []
    while (begun := queue.begin()) is not None:
        request, work = begun
        assert request.state == "running" and request.began_at is not None
        ran.append((request.key, work))
        again = queue.begin()
        assert again is not None and again[0].key == request.key, "one at a time; after a death the same"
        ended = queue.end(request.key, "finished", {"commit": request.key})
        assert (ended.state, ended.answer) == ("finished", {"commit": request.key})
    assert ran == [("k0", b"0"), ("k1", b"1"), ("k2", b"2")]
    assert queue.waiting() == ()


def test_a_key_stands_for_one_content(queue: RequestQueue) -> None:
    first = queue.accept("k", "one", ABOUT, b"")
    assert queue.accept("k", "one", {"other": 1}, b"other") == first == queue.known("k", "one")
    with pytest.raises(RequestConflict, match="'k' stands for another request"):
        queue.accept("k", "two", ABOUT, b"")
    with pytest.raises(RequestConflict):
        queue.known("k", "two")
    assert queue.known("never", "one") is None
    assert len(queue.waiting()) == 1


def test_what_waits_is_cancelled_at_once_and_what_runs_is_marked(queue: RequestQueue) -> None:
    for key in ("running", "waiting"):
        queue.accept(key, "", ABOUT, b"")
    queue.begin()
    assert queue.cancel("waiting").state == "cancelled"
    assert queue.cancel("running").state == "cancelling"
    begun = queue.begin()
    assert begun is not None and begun[0].state == "cancelling", "the next server is told"
    queue.end("running", "cancelled", {"error": "was cancelled"})
    assert queue.begin() is None
    for key in ("running", "waiting"):
        with pytest.raises(RequestConflict, match="is cancelled"):
            queue.cancel(key)
    with pytest.raises(UnknownRequest, match="'never'"):
        queue.cancel("never")


def test_the_queue_and_its_memory_are_bounded(queue: RequestQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MAX_QUEUED", 3)
    monkeypatch.setattr(queue_module, "KEPT", 2)
    for key in "abc":
        queue.accept(key, "", ABOUT, b"")
    with pytest.raises(QueueFull, match="fewer than 3"):
        queue.accept("d", "", ABOUT, b"")
    assert queue.accept("a", "", ABOUT, b"").key == "a", "what is known is no further request"
    for key in "abc":
        queue.begin()
        queue.end(key, "failed", {"error": key})
    assert [request.key for request in queue.last_failures(9)] == ["b", "c"]
    with pytest.raises(UnknownRequest):
        queue.find("a")
    queue.accept("d", "", ABOUT, b"")


def test_what_was_accepted_is_there_after_kill_9(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from understudy.lessons import RequestQueue
queue = RequestQueue(Path(sys.argv[1]))
for number in range(10**6):
    queue.accept(f"k{number}", "", {}, b"work")
    queue.end(f"k{number}", "failed", {}) if number % 3 == 0 else queue.begin() if number % 3 == 1 else None
    os.write(1, b"%d\\n" % number)
"""
    path = tmp_path / "ledger.sqlite"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout]
    queue = RequestQueue(path)
    for number in acknowledged:
        expected = "failed" if number % 3 == 0 else "running" if number == 1 else "queued"
        assert queue.find(f"k{number}").state == expected
        assert queue.known(f"k{number}", "") is not None
    begun = queue.begin()
    assert begun is not None and begun[0].key == "k1" and begun[1] == b"work"


# ---------------------------------------------------------------------- older ledgers

VERSION_1 = """
create table lessons (number integer primary key, id text not null unique, content text not null,
    message text not null, state text not null, proposed_at text not null, changed_at text not null,
    superseded_by text references lessons (id), session text references sessions (id), result text);
create table events (number integer primary key, lesson text not null references lessons (id),
    state_from text, state_to text not null, at text not null, by text not null, why text not null);
create table sessions (number integer primary key, id text not null unique, state text not null,
    settings text not null, weight_commit text, began_at text not null, ended_at text,
    why text not null default '');
create table session_lessons (session text not null references sessions (id), position integer not null,
    lesson text not null references lessons (id), is_open integer not null, primary key (session, position));
create unique index one_open_session on session_lessons (lesson) where is_open = 1;
create table marks (name text primary key, value text not null);
pragma user_version = 1;
"""


def test_a_ledger_of_the_first_schema_keeps_all_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    told = Ledger(tmp_path / "new.sqlite").propose(lesson("Mint.")).entry
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as new:
        content = new.execute("select content from lessons").fetchone()[0]
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        old.execute(
            "insert into sessions (id, state, settings, weight_commit, began_at, ended_at)"
            " values ('s1', 'finished', '{\"lr\": 0.5}', 'w1', '2026-01-01', '2026-01-02')"
        )
        result = json.dumps({"loss_before": 2.0, "loss_after": 0.5, "gated": False})
        old.execute(
            "insert into lessons (id, content, message, state, proposed_at, changed_at, session, result)"
            " values (?, ?, '', 'trained', 'then', 'then', 's1', ?)",
            (told.id, content, result),
        )
        old.execute("insert into session_lessons values ('s1', 0, ?, 0)", (told.id,))
        old.commit()
    ledger = Ledger(path)
    entry = ledger.get(told.id)
    assert entry.result == LessonResult(2.0, 0.5, False) and entry.weight_commit == "w1"
    assert (entry.trained_at, entry.settings) == ("2026-01-02", {"lr": 0.5})
    assert entry.lesson == told.lesson
    [training] = ledger.trainings(told.id)
    assert training.result == entry.result and training.session == "s1"
    assert RequestQueue(path).begin() is None
    ledger.revert(told.id, "maya", "undone")
    ledger.approve(told.id, "maya")
    ledger.begin_session("s2", [told.id], {"lr": 0.25})
    measured = LessonResult(1.0, 0.25, False, -10.0, -2.5, -3.0, -9.0)
    ledger.finish_session("s2", "w2", {told.id: measured})
    assert [(t.settings["lr"], t.weight_commit, t.result) for t in ledger.trainings(told.id)] == [
        (0.5, "w1", LessonResult(2.0, 0.5, False)),
        (0.25, "w2", measured),
    ]
    assert ledger.get(told.id).result == measured

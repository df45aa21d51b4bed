"""The index: everything it answers can be read from Git, and it can be deleted at any time."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    MATCH_END,
    MATCH_START,
    ConversationRepository,
    Entry,
    Index,
    InvalidQuery,
    RepositoryFailure,
    Unchanged,
    UnknownFile,
    delete,
    move,
)
from understudy.conversation.mentions import mentioned
from understudy.conversation.searching import read_query

FILE = "conversations/talk.md"
OTHER = "conversations/other.md"
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=eve", "-c", "user.email=eve@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def by_hand(repo: ConversationRepository, file: str, text: str | None, who: str = "eve") -> None:
    """What a person does in an editor, committed."""
    if text is None:
        (repo.root / file).unlink()
    else:
        (repo.root / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    repo.commit_hand_edits(who)


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def index(repo: ConversationRepository) -> Index:
    return Index(repo)


@pytest.fixture
def ids(repo: ConversationRepository) -> dict[str, str]:
    """Some talk; its messages by a short name."""
    tea = repo.start(FILE, "Tea for guests", "ann", "Who brings the blue cup?", created=at(0)).message
    cup = repo.reply(FILE, tea, "parrot", "I bring the *café* cup, @ann.", created=at(1)).message
    late = repo.post(FILE, "Tea for guests", "bob", "A state-of-the-art kettle; see foo_bar()", created=at(5))
    japan = repo.start(OTHER, "日本", "ann", "明日は東京へ行きます。 @bob and @parrot", created=at(3)).message
    return {"tea": tea, "cup": cup, "late": late.message, "japan": japan}


def found(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in entries]


def test_search_finds_words_phrases_beginnings_and_leaves_out(index: Index, ids: dict[str, str]) -> None:
    assert set(found(index.search("cup"))) == {ids["tea"], ids["cup"]}
    assert found(index.search("BLUE Cup")) == [ids["tea"]]
    assert found(index.search('"the blue"')) == [ids["tea"]]
    assert found(index.search('"blue the"')) == []
    assert found(index.search("ket*")) == [ids["late"]]
    assert found(index.search("ket")) == []
    assert found(index.search("cup -blue")) == [ids["cup"]]
    assert found(index.search("cafe")) == [ids["cup"]]
    assert found(index.search("Café")) == [ids["cup"]]
    assert set(found(index.search("guests"))) == {
        ids["tea"],
        ids["cup"],
        ids["late"],
    }  # by the thread's title
    assert found(index.search("nowhere")) == []


def test_search_takes_scripts_without_blanks(index: Index, ids: dict[str, str]) -> None:
    assert found(index.search("東京")) == [ids["japan"]]
    assert found(index.search("東京 bob")) == [ids["japan"]]
    assert found(index.search("東京 -行きます")) == []
    assert found(index.search("大阪")) == []
    [entry] = index.search("東京")
    assert f"{MATCH_START}東京{MATCH_END}" in entry.snippet


@pytest.mark.parametrize(
    "query", ["state-of-the-art", "foo_bar()", "kettle;", 'kettle"', "AND kettle", "(kettle", "body:kettle"]
)
def test_what_means_something_to_the_database_is_only_text(
    index: Index, ids: dict[str, str], query: str
) -> None:
    expected = [] if query in ("AND kettle", "body:kettle") else [ids["late"]]
    assert found(index.search(query)) == expected


@pytest.mark.parametrize("query", ["", "   ", "!?", '""', "*", "-cup", "東京% _", "-東京"])
def test_a_search_for_nothing_is_refused(index: Index, ids: dict[str, str], query: str) -> None:
    if query == "東京% _":
        assert found(index.search(query)) == []  # what LIKE would read as a pattern is text
        return
    with pytest.raises(InvalidQuery, match=r"search|narrows"):
        index.search(query)


@given(st.text(max_size=20))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_can_be_searched_for(repo: ConversationRepository, text: str) -> None:
    index = Index(repo)
    try:
        assert index.search(text) == ()
    except InvalidQuery:
        assert not any(c.isalnum() for c in text) or "-" in text


def test_search_is_narrowed_by_author_file_time_and_limit(index: Index, ids: dict[str, str]) -> None:
    assert found(index.search("cup", author="parrot")) == [ids["cup"]]
    assert found(index.search("bob", file=OTHER)) == [ids["japan"]]
    assert found(index.search("cup", file=OTHER)) == []
    assert found(index.search("cup", since=at(1))) == [ids["cup"]]
    assert found(index.search("cup", until=at(1))) == [ids["tea"]]
    assert found(index.search("guests", newest=True)) == [ids["late"], ids["cup"], ids["tea"]]
    assert found(index.search("guests", newest=True, limit=1)) == [ids["late"]]


def test_an_answer_tells_where_and_marks_what_matched(index: Index, ids: dict[str, str]) -> None:
    [entry] = index.search("cafe")
    assert (entry.file, entry.thread, entry.author, entry.created) == (
        FILE,
        "Tea for guests",
        "parrot",
        "2026-11-20T12:01:00Z",
    )
    assert entry.body == "I bring the *café* cup, @ann." and entry.depth == 1 and entry.parent == ids["tea"]
    assert f"{MATCH_START}café{MATCH_END}" in entry.snippet


def test_recent_and_activity_are_newest_first(index: Index, ids: dict[str, str]) -> None:
    assert found(index.recent()) == [ids["late"], ids["japan"], ids["cup"], ids["tea"]]
    assert found(index.recent(file=FILE, limit=2)) == [ids["late"], ids["cup"]]
    talk, japan = index.activity()
    assert (talk.file, talk.thread, talk.root, talk.messages) == (FILE, "Tea for guests", ids["tea"], 3)
    assert talk.newest == "2026-11-20T12:05:00Z" and talk.authors == ("ann", "parrot", "bob")
    assert japan.thread == "日本"


def test_a_time_that_no_calendar_has_stands_last(repo: ConversationRepository, index: Index) -> None:
    repo.add(
        FILE, "### T\n\n- @ann [2026-13-40T00:00:00Z]: when\n\n- @bob [2026-01-01T00:00:00Z]: then\n", "ann"
    )
    assert [entry.author for entry in index.recent()] == ["bob", "ann"]
    assert [thread.newest for thread in index.activity()] == ["2026-01-01T00:00:00Z"]


def test_mentions_are_of_whole_names_by_others(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    assert found(index.mentions("ann")) == [ids["cup"]]
    assert found(index.mentions("bob")) == [ids["japan"]]
    assert found(index.mentions("parrot")) == [ids["japan"]]
    repo.reply(FILE, ids["tea"], "ann", "I, @ann, say so to ann@example.org and @annabel")
    assert found(index.mentions("ann")) == [ids["cup"]]


def test_who_is_mentioned() -> None:
    assert mentioned("@ann, @bob. @c.d-e_f! (@Zoë) @ann") == ("ann", "bob", "c.d-e_f", "Zoë")
    assert mentioned("a@b.org @@x \\@ @... no") == ()


def test_unread_is_what_others_said_since(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    assert set(found(index.unread("ann"))) == {ids["cup"], ids["late"]}
    assert found(index.unread("ann", file=OTHER)) == []
    seen = repo.head()
    new = repo.reply(FILE, ids["cup"], "bob", "New.").message
    index.mark_read("ann", revision=seen)
    assert found(index.unread("ann")) == [new]
    assert ids["cup"] in found(index.unread("bob"))  # each has marks of their own
    index.mark_read("ann", file=FILE)
    assert index.unread("ann") == ()
    repo.edit(FILE, new, "bob", "Reworded.")
    assert index.unread("ann") == ()
    with pytest.raises(UnknownFile):
        index.mark_read("ann", file="conversations/nothing.md")


def test_what_was_read_stays_read_when_it_moves_or_the_index_is_deleted(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    index.mark_read("eve")
    by_hand(repo, FILE, move(repo.read(FILE), ids["cup"], title="Cups")[0].text)
    assert index.unread("eve") == ()
    (repo.root / FILE).rename(repo.root / "conversations/renamed.md")
    repo.commit_hand_edits("bob")
    assert index.unread("eve") == ()
    index.path.unlink()
    assert index.unread("eve") == ()
    new = repo.start("conversations/renamed.md", "More", "bob", "Hello").message
    assert found(index.unread("eve")) == [new]


def test_it_follows_edits_deletions_and_removed_files(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    assert index.update() == repo.head()
    repo.edit(FILE, ids["tea"], "ann", "Who brings the red mug, @bob?")
    assert found(index.search("blue")) == [] and found(index.search("mug")) == [ids["tea"]]
    assert ids["tea"] in found(index.mentions("bob"))
    by_hand(repo, FILE, delete(repo.read(FILE), ids["tea"]).text)  # answered: its place stays
    assert repo.read(FILE).message(ids["tea"]).deleted
    assert found(index.search("mug")) == [] and ids["tea"] not in found(index.recent())
    assert found(index.mentions("bob")) == [ids["japan"]]
    by_hand(repo, FILE, delete(repo.read(FILE), ids["late"]).text)
    assert found(index.recent()) == [ids["japan"], ids["cup"]]
    by_hand(repo, OTHER, None)
    assert found(index.recent()) == [ids["cup"]] and found(index.search("東京")) == []


def test_bytes_that_are_not_text_do_no_harm(repo: ConversationRepository, index: Index) -> None:
    text = b"### T\xff\n\n- @an\xfen [2026-01-01T00:00:00Z]: gr\xfcn \x00 \x02word\x03\n"
    repo.add(FILE, text.decode("utf-8", "surrogateescape"), "ann")
    [entry] = index.search("word")
    assert entry.body == "gr\ufffdn \ufffd \ufffdword\ufffd" and entry.thread == "T\ufffd"
    assert len(index.unread("ann")) == 1


def damaged(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 * 3])


def older(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE state SET value = '0' WHERE key = 'version'")
    db.close()


@pytest.mark.parametrize("harm", [Path.unlink, damaged, cut, older, lambda path: path.write_bytes(b"")])
def test_it_can_be_deleted_or_damaged_at_any_time(
    repo: ConversationRepository, index: Index, ids: dict[str, str], harm: Callable[[Path], object]
) -> None:
    before = index.recent()
    assert index.path.is_file()
    harm(index.path)
    with suppress(RepositoryFailure):  # damage that shows only when a question is asked
        index.recent()
    assert index.recent() == before
    assert set(found(index.search("cup"))) == {ids["tea"], ids["cup"]}
    index.rebuild()
    assert index.recent() == before


def test_it_can_be_deleted_while_another_process_reads_it(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    index.update()
    held = sqlite3.connect(index.path, isolation_level=None)
    held.execute("BEGIN")
    assert held.execute("SELECT count(*) FROM message").fetchone() == (4,)
    repo.reply(FILE, ids["tea"], "bob", "Later")
    assert len(index.recent()) == 5
    index.path.unlink()  # its log, which the reader holds, stays
    assert len(index.recent()) == 5
    repo.reply(FILE, ids["tea"], "bob", "Later still")
    held.close()
    assert len(index.recent()) == 6 and len(index.search("later")) == 2


def test_a_history_that_was_rewritten_is_read_anew(
    repo: ConversationRepository, index: Index, ids: dict[str, str]
) -> None:
    keep = repo.head()
    index.update()
    repo.reply(FILE, ids["tea"], "bob", "gone soon")
    assert len(index.search("soon")) == 1
    git(repo.root, "reset", "--hard", "-q", keep)
    repo.reply(FILE, ids["tea"], "bob", "stays long")
    assert index.search("soon") == () and len(index.search("long")) == 1
    git(repo.root, "reset", "--hard", "-q", keep)
    assert index.search("long") == () and len(index.recent()) == 4


def dump(repo: ConversationRepository, path: Path) -> list[object]:
    """Everything the index tells, in an order of its own."""
    Index(repo, path).update()
    tables = (
        "SELECT m.file, m.id, m.place, m.thread, m.author, m.created, m.moment, m.depth, m.parent, "
        "m.deleted, words.body, words.title FROM message m JOIN words ON words.rowid = m.number "
        "ORDER BY 1, 2",
        "SELECT name, file, id FROM mention JOIN message USING(number) ORDER BY 1, 2, 3",
        "SELECT name, blob FROM file ORDER BY 1",
        "SELECT * FROM alias ORDER BY 1, 2",
    )
    with sqlite3.connect(path) as db:
        rows: list[object] = [db.execute(table).fetchall() for table in tables]
    db.close()
    return rows


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.booleans()), max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_following_step_by_step_and_building_anew_tell_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    repo = ConversationRepository.create(folder / "workspace")
    repo.start(FILE, "One", "ann", "First, @bob.", created=at(0))
    for number, (verb, which, look) in enumerate(steps):
        doc = repo.read(FILE)
        target = doc.messages[which % len(doc.messages)] if doc.messages else None
        if target is None or verb == 0:
            repo.start(FILE, f"Thread {number}", "bob", f"Start {number}", created=at(which))
        elif verb in (1, 2):
            repo.reply(FILE, target.id, "ann", f"Reply {number} @carl", created=at(which))
        elif verb == 3 and not target.deleted:
            repo.edit(FILE, target.id, "ann", f"Edited {number}")
        elif verb == 4 and not target.deleted:
            by_hand(repo, FILE, move(doc, target.id, title=f"Moved {number}")[0].text)
        elif verb == 5:
            with suppress(Unchanged):
                by_hand(repo, FILE, delete(doc, target.id).text)
        elif verb == 6:
            by_hand(repo, FILE, doc.text.replace("### ", "### New ", 1))
        if look:
            Index(repo, folder / "followed.sqlite").update()
    assert dump(repo, folder / "followed.sqlite") == dump(repo, folder / "anew.sqlite")


PROGRAM = """
import sys
from understudy.conversation import ConversationRepository, Index
print(len(Index(ConversationRepository.open(sys.argv[1])).recent(limit=1000)))
"""


def test_many_processes_and_threads_may_ask_at_once(
    repo: ConversationRepository, ids: dict[str, str]
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(repo.root)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    counts: list[int] = []
    index = Index(repo)
    threads = [threading.Thread(target=lambda: counts.append(len(index.recent()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    said = [process.communicate(timeout=60)[0].strip() for process in started]
    assert counts == [4] * 8 and said == ["4"] * 4


def test_queries_read_as_documented() -> None:
    query = read_query('tea "blue cup" ket* -gin')
    assert query.expression == '("tea" AND "blue cup" AND "ket"*) NOT ("gin")'
    assert (query.within, query.without) == ((), ())

"""The repository: one commit for each thing said, by the one who said it, and nothing lost."""

import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pygit2
import pytest

from understudy.conversation import (
    Conflict,
    ConversationRepository,
    DuplicateThread,
    FileThere,
    InvalidName,
    InvalidPath,
    InvalidTrailer,
    NotAWorkspace,
    RepositoryBusy,
    Unchanged,
    UnknownFile,
    UnknownMessage,
    UnknownRevision,
    UnknownThread,
)
from understudy.conversation.store import GitStore, Person

FILE = "conversations/talk.md"
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    return ConversationRepository.create(tmp_path / "workspace")


@pytest.fixture
def talk(repo: ConversationRepository) -> str:
    """The id of the one message in a conversation."""
    return repo.start(FILE, "Tea", "ann", "First.").message


def test_create_makes_a_workspace_that_needs_no_persons_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    root = tmp_path / "new" / "workspace"
    repo = ConversationRepository.create(root)
    assert git(root, "branch", "--show-current") == "main\n"
    assert git(root, "rev-list", "--count", "HEAD") == "1\n"
    assert git(root, "status", "--porcelain") == ""
    assert {".understudy/", "model/"} <= set((root / ".gitignore").read_text().split())
    assert (root / "conversations").is_dir()
    assert repo.root == root and repo.files() == ()
    assert repo.head() == git(root, "rev-parse", "HEAD").strip()
    with pytest.raises(FileThere, match="open it"):
        ConversationRepository.create(root)


def test_open_wants_the_root_of_a_repository(tmp_path: Path, repo: ConversationRepository) -> None:
    assert ConversationRepository.open(repo.root).head() == repo.head()
    for wrong in (tmp_path / "nowhere", tmp_path, repo.root / "conversations"):
        with pytest.raises(NotAWorkspace, match="make one first"):
            ConversationRepository.open(wrong)
    pygit2.init_repository(str(tmp_path / "bare"), bare=True)
    with pytest.raises(NotAWorkspace, match="bare"):
        ConversationRepository.open(tmp_path / "bare")


def test_each_operation_is_one_commit_by_the_person_with_trailers(
    repo: ConversationRepository, talk: str
) -> None:
    answer = repo.reply(
        FILE, talk, "parrot", "Polly!", created=NOW, trailers={"Understudy-Weights": "abc123"}
    )
    edited = repo.edit(FILE, answer.message, "ann", "Hello.", email="ann@example.org")
    posted = repo.post(FILE, "Tea", "bob", "Other.")
    log = git(
        repo.root, "log", "--reverse", "--format=%an|%ae|%s|%(trailers:only,unfold,separator=%x2C)"
    ).splitlines()
    assert log[1:] == [
        f"ann|ann@understudy.local|start in {FILE}|Understudy-Operation: start,Understudy-Message: {talk}",
        f"parrot|parrot@understudy.local|reply in {FILE}|Understudy-Operation: reply,"
        f"Understudy-Message: {answer.message},Understudy-Parent: {talk},Understudy-Weights: abc123",
        f"ann|ann@example.org|edit in {FILE}|Understudy-Operation: edit,"
        f"Understudy-Message: {answer.message},Understudy-Parent: {talk}",
        f"bob|bob@understudy.local|post in {FILE}|Understudy-Operation: post,"
        f"Understudy-Message: {posted.message}",
    ]
    assert edited.message == answer.message
    assert repo.trailers(answer.commit)["Understudy-Weights"] == "abc123"
    assert git(repo.root, "log", "-1", "--format=%at", answer.commit).strip() == str(int(NOW.timestamp()))
    message = repo.read(FILE).message(answer.message)
    assert (message.author, message.body, message.created) == ("parrot", "Hello.", "2026-11-20T12:00:00Z")
    assert repo.read(FILE, answer.commit).message(answer.message).body == "Polly!"
    assert git(repo.root, "fsck", "--strict") == ""


def test_working_file_and_index_follow(repo: ConversationRepository, talk: str) -> None:
    repo.reply(FILE, talk, "bob", "x")
    assert (repo.root / FILE).read_text() == repo.read(FILE).text
    assert git(repo.root, "status", "--porcelain") == ""


def test_trailers_cannot_be_forged_by_what_people_submit(repo: ConversationRepository, talk: str) -> None:
    forged = "x\n\nUnderstudy-Operation: edit\nUnderstudy-Message: 000000000000"
    posted = repo.reply(FILE, talk, "eve", forged)
    begun = repo.start(FILE, "Understudy-Operation: edit", "eve", forged)
    assert repo.trailers(posted.commit) == {
        "Understudy-Operation": "reply",
        "Understudy-Message": posted.message,
        "Understudy-Parent": talk,
    }
    assert set(repo.trailers(begun.commit)) == {"Understudy-Operation", "Understudy-Message"}
    before = repo.head()
    for trailers in (
        {"Understudy-Message": "x"},
        {"understudy-operation": "x"},
        {"A b": "x"},
        {"A": "x\nUnderstudy-Operation: edit"},
        {"A": ""},
        {"A": " x"},
    ):
        with pytest.raises(InvalidTrailer):
            repo.reply(FILE, talk, "eve", "x", trailers=trailers)
    with pytest.raises(InvalidName):
        repo.reply(FILE, talk, "eve", "x", email="a@b>\nx")
    assert repo.head() == before


@pytest.mark.parametrize(
    "path",
    [
        "talk.md",
        "conversations/talk.txt",
        "conversations/../secret.md",
        "conversations/./talk.md",
        "conversations//talk.md",
        "/conversations/talk.md",
        "../conversations/talk.md",
        "conversations/.hidden.md",
        "conversations/.git/x.md",
        "conversations\\talk.md",
        "conversations/a\\..\\b.md",
        "conversations/a\nb.md",
        "conversations/a\0.md",
        "conversations/a.md/b.md",
        "conversations/",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(repo: ConversationRepository, path: str) -> None:
    for attempt in (
        lambda: repo.start(path, "T", "ann", "x"),
        lambda: repo.read(path),
        lambda: repo.add(path, "x", "ann"),
    ):
        with pytest.raises(InvalidPath, match=r"conversations/name\.md"):
            attempt()


def test_symbolic_links_are_not_followed(repo: ConversationRepository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.md").write_text("secret")
    (repo.root / "conversations" / "link").symlink_to(outside)
    (repo.root / "conversations" / "file.md").symlink_to(outside / "x.md")
    for path in ("conversations/link/x.md", "conversations/file.md"):
        with pytest.raises(InvalidPath, match="symbolic link"):
            repo.start(path, "T", "ann", "x")
    assert (outside / "x.md").read_text() == "secret"


def test_folders_and_names_beyond_ascii(repo: ConversationRepository) -> None:
    path = "conversations/été/名前 1.md"
    repo.start(path, "T", "é", "ü")
    assert repo.files() == (path,)
    assert repo.read(path).messages[0].body == "ü"
    assert next(iter(repo.changes())).file == path


def test_unknown_targets_are_errors_and_commit_nothing(repo: ConversationRepository, talk: str) -> None:
    before = repo.head()
    with pytest.raises(UnknownFile, match=FILE):
        repo.reply("conversations/other.md", talk, "ann", "x")
    with pytest.raises(UnknownFile):
        repo.read("conversations/other.md")
    with pytest.raises(UnknownMessage):
        repo.reply(FILE, "nope", "ann", "x")
    with pytest.raises(UnknownThread):
        repo.post(FILE, "Te", "ann", "x")
    with pytest.raises(DuplicateThread):
        repo.start(FILE, "Tea", "ann", "x")
    with pytest.raises(Unchanged):
        repo.edit(FILE, talk, "ann", "First.")
    with pytest.raises(UnknownRevision):
        repo.read(FILE, "0" * 40)
    with pytest.raises(UnknownRevision):
        list(repo.changes(since="nope"))
    with pytest.raises(UnknownRevision, match="not a commit"):
        list(repo.changes(since=repo.revision(FILE)))
    assert repo.head() == before
    assert not (repo.root / "conversations/other.md").exists()


def test_add_brings_a_file_in_byte_for_byte(repo: ConversationRepository) -> None:
    text = "\ufeff### T\r\n\r\n- @a [2025-01-01T00:00:00]: x\udc80\r\n"
    commit = repo.add(FILE, text, "ann")
    assert (repo.root / FILE).read_bytes() == text.encode("utf-8", "surrogateescape")
    assert repo.read(FILE).text == text
    assert repo.trailers(commit) == {"Understudy-Operation": "add"}
    with pytest.raises(FileThere):
        repo.add(FILE, "x", "ann")


class TestRevisions:
    """Optimistic editing: what the caller saw against what is there."""

    def test_an_unrelated_change_is_built_upon(self, repo: ConversationRepository, talk: str) -> None:
        seen = repo.revision(FILE)
        other = repo.reply(FILE, talk, "bob", "x")
        repo.edit(FILE, talk, "ann", "New.", expected_revision=seen)
        assert [message.body for message in repo.read(FILE).walk()] == ["New.", "x"]
        repo.edit(FILE, other.message, "bob", "y", expected_revision=other.commit)

    def test_a_change_of_the_same_message_is_a_conflict(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        seen = repo.head()
        repo.edit(FILE, talk, "bob", "Bob's.")
        before = repo.head()
        with pytest.raises(Conflict, match="edit again") as caught:
            repo.edit(FILE, talk, "ann", "Ann's.", expected_revision=seen)
        assert (caught.value.seen, caught.value.submitted, caught.value.current) == (
            "First.",
            "Ann's.",
            "Bob's.",
        )
        assert repo.head() == before

    def test_an_unknown_revision_is_an_error(self, repo: ConversationRepository, talk: str) -> None:
        with pytest.raises(UnknownRevision):
            repo.edit(FILE, talk, "ann", "x", expected_revision="nope")


class TestHandEdits:
    """A person's editor, beside us."""

    def test_an_uncommitted_edit_is_committed_before_an_operation(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        path = repo.root / FILE
        path.write_text(path.read_text().replace("First.", "First, by hand."))
        repo.reply(FILE, talk, "bob", "x")
        assert [message.body for message in repo.read(FILE).walk()] == ["First, by hand.", "x"]
        last = list(repo.changes())[-2:]
        assert [(change.author, change.trailers["Understudy-Operation"]) for change in last] == [
            ("hand", "hand"),
            ("bob", "reply"),
        ]
        assert [(old.body, new.body) for old, new in last[0].edited] == [("First.", "First, by hand.")]

    def test_they_can_be_claimed(self, repo: ConversationRepository, talk: str) -> None:
        assert repo.commit_hand_edits("ann") is None
        path = repo.root / FILE
        path.write_text(path.read_text().replace("First.", "Mine."))
        (repo.root / "conversations" / "new.md").write_text("### N\n")
        (repo.root / "conversations" / "notes.txt").write_text("no conversation")
        commit = repo.commit_hand_edits("ann")
        assert commit == repo.head()
        assert {(change.author, change.file) for change in repo.changes() if change.commit == commit} == {
            ("ann", FILE),
            ("ann", "conversations/new.md"),
        }
        path.unlink()
        repo.commit_hand_edits("ann")
        assert repo.files() == ("conversations/new.md",)

    def test_a_file_removed_but_not_committed_comes_back_with_an_operation(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        (repo.root / FILE).unlink()
        repo.reply(FILE, talk, "bob", "x")
        assert len(repo.read(FILE).messages) == 2
        assert (repo.root / FILE).read_text() == repo.read(FILE).text

    def test_a_new_file_made_by_hand_can_be_spoken_in(self, repo: ConversationRepository) -> None:
        (repo.root / FILE).write_text("### T\n- @ann [2025-01-01T00:00:00Z]: x\n")
        repo.post(FILE, "T", "bob", "y")
        assert [message.body for message in repo.read(FILE).walk()] == ["x", "y"]

    def test_staged_edits_are_hand_edits_too(self, repo: ConversationRepository, talk: str) -> None:
        path = repo.root / FILE
        path.write_text(path.read_text().replace("First.", "Staged."))
        git(repo.root, "add", FILE)
        repo.reply(FILE, talk, "bob", "x")
        assert [message.body for message in repo.read(FILE).walk()] == ["Staged.", "x"]

    def test_a_commit_made_with_git_alone_is_understood(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        before = repo.head()
        path = repo.root / FILE
        path.write_text(path.read_text() + "\n  - @bob [2026-01-01T00:00:00Z]: With an editor.\n")
        git(
            repo.root, "-c", "user.name=Bob B", "-c", "user.email=b@example.org", "commit", "-qam", "anything"
        )
        (change,) = repo.changes(since=before)
        assert (change.author, change.trailers, len(change.added)) == ("Bob B", {}, 1)
        assert change.added[0].parent is not None and change.added[0].parent.id == talk
        repo.reply(FILE, change.added[0].id, "ann", "Seen.")
        assert len(repo.read(FILE).messages) == 3

    @pytest.mark.parametrize("index_too", [False, True], ids=["before the files", "before the index"])
    def test_a_working_file_left_behind_by_a_crash_reverts_nothing(
        self, repo: ConversationRepository, talk: str, index_too: bool
    ) -> None:
        """The commit is there, the writer died before the working file, or before the index, followed."""
        store = GitStore(repo.root)
        old = (repo.root / FILE).read_bytes()
        new = old.replace(b"First.", b"Second.")
        index = (repo.root / ".git" / "index").read_bytes()
        store.commit({FILE: new}, Person.named("ann"), NOW, NOW, "x\n", store.tip())
        (repo.root / ".git" / "index").write_bytes(index)
        if not index_too:
            (repo.root / FILE).write_bytes(old)
        repo.reply(FILE, talk, "bob", "x")
        assert [message.body for message in repo.read(FILE).walk()] == ["Second.", "x"]
        assert [change.author for change in repo.changes()] == ["ann", "ann", "bob"]
        assert git(repo.root, "status", "--porcelain") == ""


class TestChanges:
    """History by comparing trees."""

    def test_oldest_first_with_before_and_after(self, repo: ConversationRepository, talk: str) -> None:
        middle = repo.head()
        answer = repo.reply(FILE, talk, "bob", "x")
        repo.start("conversations/b.md", "T", "ann", "y")
        repo.edit(FILE, answer.message, "ann", "z")
        changes = list(repo.changes())
        assert [change.file for change in changes] == [FILE, FILE, "conversations/b.md", FILE]
        assert changes[0].before is None and changes[0].after is not None
        assert [message.id for message in changes[1].added] == [answer.message]
        assert [(old.body, new.body) for old, new in changes[3].edited] == [("x", "z")]
        assert not changes[3].added and not changes[3].removed
        assert [change.commit for change in repo.changes(since=middle)] == [c.commit for c in changes[1:]]
        assert [change.file for change in repo.changes(file=FILE)] == [FILE] * 3
        assert changes[1].time.tzinfo is UTC

    def test_removals_and_other_files(self, repo: ConversationRepository, talk: str) -> None:
        (repo.root / "notes.txt").write_text("x")
        git(repo.root, "add", "notes.txt")
        git(repo.root, "-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "x")
        git(repo.root, "rm", "-q", FILE)
        git(repo.root, "-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "x")
        last = list(repo.changes())[-1]
        assert last.after is None and [message.id for message in last.removed] == [talk]
        assert len(list(repo.changes())) == 2

    def test_a_clean_merge_is_told_once(self, repo: ConversationRepository, talk: str) -> None:
        git(repo.root, "switch", "-qc", "side")
        repo.start("conversations/side.md", "S", "bob", "x")
        git(repo.root, "switch", "-q", "main")
        repo.reply(FILE, talk, "ann", "y")
        git(repo.root, "-c", "user.name=m", "-c", "user.email=m", "merge", "-q", "--no-edit", "side")
        assert sorted((change.author, change.file) for change in repo.changes()) == [
            ("ann", FILE),
            ("ann", FILE),
            ("bob", "conversations/side.md"),
        ]


class TestOthersAndFaults:
    """Other programs, other threads, a disk that fails."""

    def test_a_branch_moved_by_another_program_is_built_upon(
        self, repo: ConversationRepository, talk: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Git itself commits between our reading and writing: compare-and-swap fails, we begin again."""
        store = GitStore(repo.root)
        other = ConversationRepository(store)
        real, raced = store.commit, list[str]()

        def commit_late(files: dict[str, bytes | None], *rest: object) -> str | None:
            if not raced:
                tree = git(repo.root, "rev-parse", "HEAD^{tree}").strip()
                identity = ("-c", "user.name=x", "-c", "user.email=x")
                raced.append(
                    git(repo.root, *identity, "commit-tree", tree, "-p", "HEAD", "-m", "other").strip()
                )
                git(repo.root, "update-ref", "refs/heads/main", raced[0])
            return real(files, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "commit", commit_late)
        posted = other.reply(FILE, talk, "bob", "x")
        assert git(repo.root, "rev-parse", f"{posted.commit}^").strip() == raced[0]
        assert len(repo.read(FILE).messages) == 2

    def test_a_lock_left_behind_is_a_clear_error_and_nothing_is_lost(
        self, repo: ConversationRepository, talk: str
    ) -> None:
        store, before = GitStore(repo.root), repo.head()
        lock = repo.root / ".git" / "refs" / "heads" / "main.lock"
        lock.touch()
        with pytest.raises(RepositoryBusy, match=r"\.lock"):
            store.commit({FILE: b"x"}, Person.named("a"), NOW, NOW, "x\n", before, wait_seconds=0.05)
        lock.unlink()
        assert repo.head() == before
        repo.reply(FILE, talk, "bob", "x")

    def test_an_index_lock_left_behind_does_not_stop_the_conversation(
        self, repo: ConversationRepository, talk: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        lock = repo.root / ".git" / "index.lock"
        lock.touch()
        repo.reply(FILE, talk, "bob", "x")
        assert "the working files follow" in caplog.text
        lock.unlink()
        repo.reply(FILE, talk, "bob", "y")
        assert [change.author for change in repo.changes()] == ["ann", "bob", "bob"]
        assert git(repo.root, "status", "--porcelain") == ""

    def test_a_writer_that_holds_on_too_long(self, repo: ConversationRepository) -> None:
        store = GitStore(repo.root)
        with store.writing(), pytest.raises(RepositoryBusy, match="nothing was written"), store.writing(0.02):
            raise AssertionError("two writers at once")

    def test_threads_share_a_repository(self, repo: ConversationRepository, talk: str) -> None:
        failures: list[BaseException] = []

        def speak(name: str) -> None:
            try:
                for number in range(5):
                    repo.reply(FILE, talk, name, f"{number}")
            except BaseException as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=speak, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(repo.read(FILE).messages) == 21

    def test_a_detached_head_is_refused(self, repo: ConversationRepository, talk: str) -> None:
        git(repo.root, "switch", "-q", "--detach")
        with pytest.raises(NotAWorkspace, match="git switch main"):
            repo.reply(FILE, talk, "ann", "x")

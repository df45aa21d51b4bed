"""Clones: pull and push, and Git's own `merge`, `pull` and `rebase`, which call the merge driver."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from understudy.conversation import (
    ConversationError,
    ConversationRepository,
    Index,
    MergeStopped,
    NotAWorkspace,
    Pulled,
    PushRejected,
    RemoteFailure,
    UnknownFile,
    UnknownRemote,
    add_remote,
    clone,
    install_merge_driver,
    merge,
    parse,
    pull,
    push,
)

FILE = "conversations/talk.md"
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
OTHER = "Edited in two places at once; the other text was:"


def git(root: Path, *arguments: str, check: bool = True) -> str:
    """What Git prints, run as a person would, with no settings but the clone's own."""
    environment = {**os.environ, "HOME": str(root.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=eve", "-c", "user.email=eve@example.org"]
    command = ["git", "-C", str(root), *who, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


def outline(repo: ConversationRepository, file: str = FILE) -> list[str]:
    lines = []
    for thread in repo.read(file).threads:
        lines.append(f"### {thread.title}")
        for m in thread.walk():
            text = "(deleted)" if m.deleted else m.body.replace("\n", "|")
            lines.append(f"{'  ' * m.depth}{m.author}: {text}")
    return lines


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The repository that the clones share."""
    root = tmp_path / "hub.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(root)], check=True)
    return root


@pytest.fixture
def ours(tmp_path: Path, hub: Path) -> ConversationRepository:
    repo = ConversationRepository.create(tmp_path / "ours")
    repo.start(FILE, "Tea", "ann", "First.\n\nSecond.", created=NOW)
    repo.post(FILE, "Tea", "parrot", "Hello.", created=NOW)
    add_remote(repo, str(hub))
    push(repo)
    return repo


@pytest.fixture
def theirs(tmp_path: Path, ours: ConversationRepository, hub: Path) -> ConversationRepository:
    return clone(str(hub), tmp_path / "theirs")


@pytest.fixture
def ids(ours: ConversationRepository) -> list[str]:
    return [message.id for message in ours.read(FILE).messages]


def at(repo: ConversationRepository, day: int) -> ConversationRepository:
    """The same repository on some day."""
    return ConversationRepository.open(repo.root, clock=lambda: datetime(2026, 11, day, tzinfo=UTC))


def settled(repo: ConversationRepository) -> bool:
    """Whether the working tree and the index are what is committed, and the repository is sound."""
    return git(repo.root, "status", "--porcelain") == "" and git(repo.root, "fsck", "--strict") == ""


def test_a_clone_reads_writes_and_sends_back(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    assert theirs.read(FILE) == ours.read(FILE)
    posted = theirs.reply(FILE, ids[0], "zoe", "From afar.")
    assert push(theirs) == posted.commit
    before = ours.head()
    assert pull(ours, "ann") == Pulled(posted.commit, before, merged=False)
    assert ours.head() == posted.commit and (ours.root / FILE).read_text() == ours.read(FILE).text
    assert pull(ours, "ann") == Pulled(posted.commit, posted.commit, merged=False), "nothing new"
    assert settled(ours) and settled(theirs)


def test_both_said_something_so_push_is_refused_until_a_pull_merged_it(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    mine, yours = ours.reply(FILE, ids[0], "ann", "Ours."), theirs.reply(FILE, ids[0], "zoe", "Theirs.")
    push(ours)
    with pytest.raises(PushRejected, match="pull"):
        push(theirs)
    pulled = pull(theirs, "zoe", email="zoe@example.org")
    assert pulled.merged and pulled.notes == {} and pulled.commit == theirs.head()
    push(theirs)
    assert pull(ours, "ann").commit == theirs.head()
    for repo in (ours, theirs):
        doc = repo.read(FILE)
        assert {mine.message, yours.message} == {m.id for m in doc.message(ids[0]).replies}
        assert (repo.root / FILE).read_text() == doc.text
        assert settled(repo)
    log = git(
        ours.root, "log", "-1", "--format=%an|%ae|%s|%(trailers:key=Understudy-Operation,separator=%x2C)"
    )
    assert log.strip() == f"zoe|zoe@example.org|merge in {FILE}|Understudy-Operation: merge"
    assert len(git(ours.root, "log", "-1", "--format=%P").split()) == 2


def test_everything_at_once(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    at(ours, 21).edit(FILE, ids[1], "ann", "Polly.")
    ours.delete(FILE, ids[0], "ann")
    ours.start("conversations/new.md", "Ours", "ann", "x")
    theirs.rename(FILE, "Tea", "Green tea", "zoe")
    there = theirs.read(FILE).messages
    answer = theirs.reply(FILE, there[0].id, "zoe", "To what ann deleted.")
    at(theirs, 22).edit(FILE, there[1].id, "zoe", "Lora.")
    theirs.start("conversations/new.md", "Theirs", "zoe", "y")
    push(ours)
    pulled = pull(theirs, "zoe")
    assert outline(theirs) == [
        "### Green tea",
        "ann: (deleted)",
        "  zoe: To what ann deleted.",
        "parrot: Lora.",
        f"  parrot: {OTHER}||> Polly.",
    ]
    assert outline(theirs, "conversations/new.md") == ["### Ours", "ann: x", "### Theirs", "zoe: y"]
    assert {note.kind for note in pulled.notes[FILE]} == {"both-edited", "kept-as-deleted"}
    assert theirs.read(FILE).message(answer.message).body == "To what ann deleted."
    assert settled(theirs)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_of_two_edits_the_later_one_stands(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str], first: str
) -> None:
    days = {"ours": 21, "theirs": 22} if first == "ours" else {"ours": 22, "theirs": 21}
    at(ours, days["ours"]).edit(FILE, ids[1], "ann", "By ours.")
    at(theirs, days["theirs"]).edit(FILE, ids[1], "ann", "By theirs.")
    push(ours)
    pull(theirs, "zoe")
    last = "theirs" if first == "ours" else "ours"
    assert theirs.read(FILE).message(ids[1]).body == f"By {last}."
    assert [m.body for m in theirs.read(FILE).message(ids[1]).replies] == [f"{OTHER}\n\n> By {first}."]


def test_the_one_who_pulled_signs_with_the_address_that_participants_name(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    people = '[participants.ann]\nrights = ["admin"]\n\n[participants.zoe]\nemail = "zoe@example.org"\n'
    ours.set_participants(people + 'rights = ["post"]\n', "ann")
    push(ours)
    theirs.reply(FILE, ids[0], "zoe", "Theirs.")
    pull(theirs, "zoe")
    assert "zoe" in theirs.participants().people
    theirs.reply(FILE, ids[0], "zoe", "Again.")
    ours.reply(FILE, ids[0], "ann", "Ours.")
    push(ours)
    pull(theirs, "zoe")
    assert git(theirs.root, "log", "-1", "--format=%an|%ae").strip() == "zoe|zoe@example.org"


def test_a_renamed_thread_keeps_the_links_to_what_the_other_side_said_there(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    ours.rename(FILE, "Tea", "Green tea", "ann")
    answer = theirs.reply(FILE, ids[0], "zoe", "Under the old title.")
    push(ours)
    pulled = pull(theirs, "zoe")
    [note] = pulled.notes[FILE]
    assert (note.kind, note.before) == ("id-changed", answer.message)
    assert theirs.read(FILE).message(note.message).body == "Under the old title."
    body = git(theirs.root, "log", "-1", "--format=%B")
    assert f"Understudy-Moved: {answer.message} {note.message}" in body


def test_permanent_links_lead_on_through_a_merge(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    answer = theirs.reply(FILE, ids[0], "zoe", "Linked.").message
    links = [Index(theirs).anchor(FILE, message) for message in (ids[1], answer)]
    ours.rename(FILE, "Tea", "Green tea", "ann")
    push(ours)
    pull(theirs, "zoe")
    push(theirs)
    pull(ours, "ann")
    for repo in (ours, theirs):
        places = [Index(repo).resolve(link) for link in links]
        assert [repo.read(place.file).message(place.id).body for place in places] == ["Hello.", "Linked."]


def test_permanent_links_lead_on_through_a_merge_by_git(
    hub: Path, ours: ConversationRepository, ids: list[str], tmp_path: Path
) -> None:
    clone_of = plain_clone(hub, tmp_path / "one")
    answer = clone_of.reply(FILE, ids[0], "zoe", "Linked.").message
    links = [Index(clone_of).anchor(FILE, message) for message in (ids[1], answer)]
    ours.rename(FILE, "Tea", "Green tea", "ann")
    push(ours)
    git(clone_of.root, "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
    places = [Index(clone_of).resolve(link) for link in links]
    assert [clone_of.read(FILE).message(place.id).body for place in places] == ["Hello.", "Linked."]


def test_a_merge_is_credited_with_nothing_that_the_sides_did(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    ours.edit(FILE, ids[1], "ann", "Polly.")
    theirs.reply(FILE, ids[0], "zoe", "Theirs.")
    theirs.edit(FILE, ids[0], "zoe", "Edited.")
    push(ours)
    merged = pull(theirs, "mallory").commit
    changes = [change for change in theirs.changes() if change.commit == merged]
    assert [(change.added, change.edited, change.removed) for change in changes] == [((), (), ())]


def test_a_conversation_removed_on_one_side(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    (ours.root / FILE).unlink()
    ours.commit_hand_edits("ann")
    theirs.start("conversations/else.md", "T", "zoe", "x")
    push(ours)
    pull(theirs, "zoe")
    with pytest.raises(UnknownFile):
        theirs.read(FILE)
    assert not (theirs.root / FILE).exists() and settled(theirs)


def test_a_conversation_removed_on_one_side_and_answered_on_the_other(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    (ours.root / FILE).unlink()
    ours.commit_hand_edits("ann")
    theirs.reply(FILE, ids[0], "zoe", "Still here.")
    push(ours)
    pull(theirs, "zoe")
    assert outline(theirs) == ["### Tea", "ann: (deleted)", "  zoe: Still here."]


def test_a_conversation_renamed_on_one_side_and_answered_on_the_other(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    (ours.root / FILE).rename(ours.root / "conversations/moved.md")
    ours.commit_hand_edits("ann")
    theirs.reply(FILE, ids[0], "zoe", "Follows.")
    push(ours)
    pull(theirs, "zoe")
    assert theirs.files() == ("conversations/moved.md",)
    assert outline(theirs, "conversations/moved.md")[2] == "  zoe: Follows."
    assert settled(theirs)


def test_uncommitted_hand_edits_are_merged_too(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    ours.reply(FILE, ids[0], "ann", "Ours.")
    push(ours)
    path = theirs.root / FILE
    path.write_text(path.read_text() + "\n- @zoe [2026-11-20T13:00:00Z]: By hand.\n")
    assert pull(theirs, "zoe").merged
    assert outline(theirs) == [
        "### Tea",
        "ann: First.||Second.",
        "  ann: Ours.",
        "parrot: Hello.",
        "zoe: By hand.",
    ]
    assert settled(theirs)


def test_other_files_merge_as_git_does_and_stop_where_a_person_is_needed(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    for repo, text in ((ours, "ours\n"), (theirs, "theirs\n")):
        (repo.root / "notes.txt").write_text(text)
        git(repo.root, "add", "notes.txt")
        git(repo.root, "commit", "-qm", "notes")
        repo.reply(FILE, ids[0], "ann", text)
    push(ours)
    before = theirs.head(), (theirs.root / FILE).read_text()
    with pytest.raises(MergeStopped, match=r"notes\.txt"):
        pull(theirs, "zoe")
    assert (theirs.head(), (theirs.root / FILE).read_text()) == before
    (theirs.root / "notes.txt").write_text("ours\n")
    git(theirs.root, "commit", "-qam", "as they have it")
    assert pull(theirs, "zoe").merged
    assert len(theirs.read(FILE).message(ids[0]).replies) == 2


def test_uncommitted_work_in_another_file_is_never_overwritten(
    ours: ConversationRepository, theirs: ConversationRepository
) -> None:
    (ours.root / "notes.txt").write_text("ours\n")
    git(ours.root, "add", "notes.txt")
    git(ours.root, "commit", "-qm", "notes")
    push(ours)
    (theirs.root / "notes.txt").write_text("mine, not committed\n")
    before = theirs.head()
    with pytest.raises(MergeStopped, match=r"notes\.txt"):
        pull(theirs, "zoe")
    assert theirs.head() == before and (theirs.root / "notes.txt").read_text() == "mine, not committed\n"
    (theirs.root / "notes.txt").unlink()
    pull(theirs, "zoe")
    assert (theirs.root / "notes.txt").read_text() == "ours\n"


def test_what_cannot_be_reached_or_is_not_known_is_said(
    ours: ConversationRepository, tmp_path: Path, hub: Path
) -> None:
    for act in (lambda: pull(ours, "ann", "nowhere"), lambda: push(ours, "nowhere")):
        with pytest.raises(UnknownRemote, match="origin"):
            act()
    add_remote(ours, str(tmp_path / "gone.git"), "gone")
    with pytest.raises(RemoteFailure, match="fetch"):
        pull(ours, "ann", "gone")
    with pytest.raises(RemoteFailure, match="push"):
        push(ours, "gone")
    with pytest.raises(RemoteFailure, match="clone"):
        clone(str(tmp_path / "gone.git"), tmp_path / "copy")
    with pytest.raises(RemoteFailure, match="already exists"):
        add_remote(ours, str(hub))
    stranger = ConversationRepository.create(tmp_path / "stranger", clock=lambda: NOW)
    stranger.start(FILE, "T", "eve", "x")
    add_remote(stranger, str(hub))
    with pytest.raises(MergeStopped, match="in common"):
        pull(stranger, "eve")
    with pytest.raises(NotAWorkspace):
        install_merge_driver(tmp_path)


def test_addresses_of_other_machines_go_through_gits_own_transport(
    ours: ConversationRepository, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(
        '#!/bin/sh\nshift\n[ -t 0 ] && exit 9\n(: </dev/tty) 2>/dev/null && exit 9\nexec sh -c "$*"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    far = clone(f"ssh://somewhere{hub}", tmp_path / "far")
    near = clone(f"file://{hub}", tmp_path / "near")
    posted = far.post(FILE, "Tea", "zoe", "From afar.")
    assert push(far) == posted.commit
    near.post(FILE, "Tea", "bob", "From near.")
    assert pull(near, "bob").merged
    push(near)
    assert pull(far, "zoe").commit == near.head()


def test_an_address_is_never_read_as_an_option(tmp_path: Path) -> None:
    with pytest.raises(RemoteFailure):
        clone(f"--upload-pack=touch {tmp_path}/made", tmp_path / "copy")
    assert not (tmp_path / "made").exists()


# Git's own commands.


def plain_clone(hub: Path, root: Path) -> ConversationRepository:
    """A clone that a person made with Git, and the one command that our page asks for."""
    git(hub, "clone", "-q", str(hub), str(root))
    command = [sys.executable, "-m", "understudy", "merge-driver", "--install", "-w", str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return ConversationRepository.open(root)


def say_by_hand(root: Path, after: str, text: str) -> None:
    """Write in an editor and commit with Git."""
    path = root / FILE
    path.write_text(path.read_text().replace(after, after + text))
    git(root, "commit", "-qam", "by hand")


def test_two_clones_meet_with_nothing_but_git(
    hub: Path, ours: ConversationRepository, tmp_path: Path
) -> None:
    one, two = plain_clone(hub, tmp_path / "one"), plain_clone(hub, tmp_path / "two")
    say_by_hand(one.root, "Second.\n", "\n  - @eve [2026-11-20T13:00:00Z]: From one.\n")
    say_by_hand(two.root, "Second.\n", "\n  - @zoe [2026-11-20T12:30:00Z]: From two.\n")
    say_by_hand(one.root, ": Hello.", " One says more.")
    say_by_hand(two.root, ": Hello.", " Two says more.")
    git(one.root, "push", "-q", "origin", "main")
    git(two.root, "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
    assert outline(two)[:4] == ["### Tea", "ann: First.||Second.", "  zoe: From two.", "  eve: From one."]
    assert {line.strip() for line in outline(two)[4:]} in (
        {"parrot: Hello. Two says more.", f"parrot: {OTHER}||> Hello. One says more."},
        {"parrot: Hello. One says more.", f"parrot: {OTHER}||> Hello. Two says more."},
    )
    assert "<<<<" not in (two.root / FILE).read_text()
    assert settled(two)
    git(two.root, "push", "-q", "origin", "main")
    git(one.root, "pull", "-q", "--no-rebase", "origin", "main")
    assert one.head() == two.head()


def test_the_commands_of_the_page_do_what_it_says(
    ours: ConversationRepository, ids: list[str], hub: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text()
    first, second = re.findall(r"```sh\n(.*?)```", page[page.index("## Clones") :], re.DOTALL)[:2]
    ours.post(FILE, "Tea", "parrot", "Meanwhile.")
    script = first.replace("cd copy", f"cd copy\ngit --git-dir ../ours/.git push -q {hub} main") + second
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "understudy"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m understudy "$@"\n')
    command.chmod(0o755)
    settings = {f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **settings, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    copy = ConversationRepository.open(tmp_path / "copy")
    assert outline(copy)[1:] == [
        "ann: First.||Second.",
        "parrot: Hello.",
        *(["ann: Written without the program.", "parrot: Meanwhile."]),
    ]
    assert pull(ours, "ann").commit == copy.head()


def test_without_the_driver_git_would_leave_a_conflict(
    hub: Path, ours: ConversationRepository, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root, name in ((one, "eve"), (two, "zoe")):
        git(hub, "clone", "-q", str(hub), str(root))
        say_by_hand(root, "Second.\n", f"\n  - @{name} [2026-11-20T13:00:00Z]: Hello from {name}.\n")
    git(one, "push", "-q", "origin", "main")
    assert "CONFLICT" in git(two, "pull", "-q", "--no-rebase", "--no-edit", "origin", "main", check=False)


def test_git_merge_lets_the_later_edit_stand(hub: Path, ours: ConversationRepository, tmp_path: Path) -> None:
    one, two = plain_clone(hub, tmp_path / "one"), plain_clone(hub, tmp_path / "two")
    for repo, text, day in ((one, "Zzz early.", 21), (two, "Aaa late.", 22)):
        path = repo.root / FILE
        path.write_text(path.read_text().replace("Hello.", text))
        git(repo.root, "commit", "-qam", "by hand", "--date", f"2026-11-{day}T00:00:00Z")
    git(one.root, "push", "-q", "origin", "main")
    git(two.root, "fetch", "-q", "origin")
    git(two.root, "merge", "-q", "--no-edit", "origin/main")
    assert outline(two)[2:] == ["parrot: Aaa late.", f"  parrot: {OTHER}||> Zzz early."]


def test_git_lets_two_new_conversations_of_one_name_become_one(
    hub: Path, ours: ConversationRepository, tmp_path: Path
) -> None:
    one, two = plain_clone(hub, tmp_path / "one"), plain_clone(hub, tmp_path / "two")
    one.start("conversations/new.md", "Ours", "ann", "x", created=NOW)
    two.start("conversations/new.md", "Theirs", "zoe", "y", created=NOW)
    git(one.root, "push", "-q", "origin", "main")
    git(two.root, "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
    assert outline(two, "conversations/new.md") == ["### Ours", "ann: x", "### Theirs", "zoe: y"]


def test_git_rebase_and_cherry_pick_merge_by_message_too(
    hub: Path, ours: ConversationRepository, tmp_path: Path
) -> None:
    one, two = plain_clone(hub, tmp_path / "one"), plain_clone(hub, tmp_path / "two")
    say_by_hand(one.root, "Second.\n", "\n  - @eve [2026-11-20T13:00:00Z]: From one.\n")
    say_by_hand(two.root, "Second.\n", "\n  - @zoe [2026-11-20T12:30:00Z]: From two.\n")
    git(one.root, "push", "-q", "origin", "main")
    git(two.root, "pull", "-q", "--rebase", "origin", "main")
    assert outline(two)[2:4] == ["  zoe: From two.", "  eve: From one."]
    git(one.root, "fetch", "-q", str(two.root), "main")
    git(one.root, "cherry-pick", "FETCH_HEAD")
    assert one.read(FILE) == two.read(FILE)


def test_git_and_pull_come_to_the_same_file(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str], hub: Path, tmp_path: Path
) -> None:
    ours.edit(FILE, ids[0], "ann", "Ours, in another way.")
    ours.reply(FILE, ids[1], "ann", "Ours.")
    theirs.reply(FILE, ids[1], "zoe", "Theirs.")
    theirs.rename(FILE, "Tea", "Green tea", "zoe")
    push(ours)
    by_git = plain_clone(theirs.root, tmp_path / "by-git")
    git(by_git.root, "pull", "-q", "--no-rebase", "--no-edit", str(hub), "main")
    pull(theirs, "zoe")
    assert by_git.read(FILE) == theirs.read(FILE)


def test_a_criss_cross_of_merges_loses_and_doubles_nothing(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str], tmp_path: Path
) -> None:
    ours.reply(FILE, ids[0], "ann", "A")
    gone = theirs.reply(FILE, ids[0], "zoe", "B").message
    for one, two in ((ours, theirs), (theirs, ours)):
        add_remote(one, str(two.root), "direct")
        install_merge_driver(one.root)
        git(one.root, "fetch", "-q", "direct")
    for repo in (ours, theirs):
        git(repo.root, "merge", "-q", "--no-edit", "direct/main")
    ours.reply(FILE, ids[1], "ann", "C")
    theirs.reply(FILE, ids[1], "zoe", "D")
    theirs.delete(FILE, gone, "zoe")
    by_git = plain_clone(ours.root, tmp_path / "by-git")
    git(by_git.root, "pull", "-q", "--no-rebase", "--no-edit", str(theirs.root), "main")
    pull(ours, "ann", "direct")
    assert len(git(ours.root, "merge-base", "--all", "HEAD^1", "HEAD^2").split()) == 2
    bodies = [message.body for message in ours.read(FILE).messages]
    assert sorted(bodies) == ["A", "C", "D", "First.\n\nSecond.", "Hello."]
    assert by_git.read(FILE) == ours.read(FILE)


def test_a_module_in_the_workspace_is_not_run_by_the_driver(
    hub: Path, ours: ConversationRepository, tmp_path: Path
) -> None:
    one, two = plain_clone(hub, tmp_path / "one"), plain_clone(hub, tmp_path / "two")
    (two.root / "understudy.py").write_text("raise SystemExit('not this one')\n")
    say_by_hand(one.root, "Second.\n", "\n  - @eve [2026-11-20T13:00:00Z]: From one.\n")
    say_by_hand(two.root, "Second.\n", "\n  - @zoe [2026-11-20T12:30:00Z]: From two.\n")
    git(one.root, "push", "-q", "origin", "main")
    git(two.root, "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
    assert len(two.read(FILE).messages) == 4


def test_installing_twice_is_installing_once(ours: ConversationRepository) -> None:
    attributes = ours.root / ".git" / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.png binary")
    install_merge_driver(ours.root)
    install_merge_driver(ours.root)
    assert attributes.read_text() == "*.png binary\nconversations/** merge=understudy\n"
    assert git(ours.root, "check-attr", "merge", "text", "--", FILE).split("\n")[:2] == [
        f"{FILE}: merge: understudy",
        f"{FILE}: text: unset",
    ]


def test_pulls_and_writers_at_once_lose_nothing(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    failures: list[BaseException] = []

    def speak(repo: ConversationRepository, name: str) -> None:
        try:
            for number in range(8):
                ConversationRepository.open(repo.root).reply(FILE, ids[0], name, f"{name} {number}")
        except ConversationError as error:
            failures.append(error)

    threads = [Thread(target=speak, args=(ours, "ann")), Thread(target=speak, args=(theirs, "zoe"))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        exchange(ours, theirs)
    for thread in threads:
        thread.join()
    exchange(ours, theirs)
    exchange(ours, theirs)
    assert failures == []
    assert ours.head() == theirs.head()
    bodies = [message.body for message in ours.read(FILE).message(ids[0]).replies]
    assert sorted(bodies) == sorted(f"{name} {number}" for name in ("ann", "zoe") for number in range(8))
    assert settled(ours) and settled(theirs)


def exchange(ours: ConversationRepository, theirs: ConversationRepository) -> None:
    for repo in (ours, theirs):
        pull(repo, "eve")
        with suppress(PushRejected):
            push(repo)


def test_pull_and_push_from_the_command_line(
    ours: ConversationRepository, theirs: ConversationRepository, ids: list[str]
) -> None:
    ours.edit(FILE, ids[1], "ann", "Polly.")
    theirs.edit(FILE, ids[1], "zoe", "Lora.")
    assert understudy("push", "-w", str(ours.root)).stdout.strip() == ours.head()
    refused = understudy("push", "-w", str(theirs.root))
    assert refused.returncode == 2 and "pull" in refused.stderr and "Traceback" not in refused.stderr
    done = understudy("pull", "--as", "zoe", "-w", str(theirs.root))
    note, commit = done.stdout.splitlines()
    assert note.startswith(f"{FILE}\tboth-edited\t{ids[1]}\t") and commit == theirs.head()
    assert understudy("push", "-w", str(theirs.root)).returncode == 0


def test_a_second_working_tree_installs_for_the_whole_clone(
    ours: ConversationRepository, tmp_path: Path
) -> None:
    git(ours.root, "worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    install_merge_driver(tmp_path / "second")
    for root in (ours.root, tmp_path / "second"):
        assert git(root, "check-attr", "merge", "--", FILE).strip().endswith("understudy")
        assert "merge-driver" in git(root, "config", "merge.understudy.driver")


def understudy(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "understudy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def driver(*words: str) -> "subprocess.CompletedProcess[str]":
    return understudy("merge-driver", *words)


def test_the_driver_by_itself(tmp_path: Path) -> None:
    texts = {
        "base": "- @a [2025-01-01T00:00:00Z]: x\n",
        "ours": "- @a [2025-01-01T00:00:00Z]: y\n",
        "theirs": "- @a [2025-01-01T00:00:00Z]: z\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    done = driver(*(str(tmp_path / name) for name in texts))
    assert done.returncode == 0, done.stderr
    assert "both-edited" in done.stdout
    expected, _ = merge(*(parse(text) for text in texts.values()))
    assert (tmp_path / "ours").read_text() == expected.text
    assert driver().returncode == 2
    assert driver(
        str(tmp_path / "base"), str(tmp_path / "none"), str(tmp_path / "theirs")
    ).returncode not in (0, 255)

"""Files written aside become visible in order, or not at all; a branch moves only from where it was seen."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from understudy.conversation import ConversationRepository
from understudy.conversation.references import advance
from understudy.conversation.staging import Staged

FILE = "conversations/talk.md"


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def open_files(folder: Path) -> list[str]:
    """What this process holds open below a folder, removed files too."""
    held = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is gone by now
            held.append(str(entry.readlink()))
    return [path for path in held if path.startswith(str(folder))]


def waiting(staged: Staged) -> list[str]:
    return [path.name for path in staged.places]


def test_nothing_is_left_of_what_was_not_put_in_place(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), Staged() as staged:
        staged.write(tmp_path / "a.aside", tmp_path / "a", b"a" * 100_000, 0o444)
        staged.write(tmp_path / "b.aside", tmp_path / "b", b"", 0o644)
        staged.flush()
        assert waiting(staged) == ["a", "b"]
        staged.put(tmp_path / "a")
        assert waiting(staged) == ["b"]
        staged.write(tmp_path / "b.aside", tmp_path / "c", b"", 0o644)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"a" * 100_000
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_branch_moves_only_from_where_it_was_seen(tmp_path: Path, packed: bool) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    old = repo.head()
    new = repo.start(FILE, "T", "ann", "x").commit
    git(repo.root, "reset", "-q", "--hard", old)
    if packed:
        git(repo.root, "pack-refs", "--all")
    for seen, moved in ((new, False), (old, True)):
        with Staged() as staged:
            entry = "ann <ann@example.org> 1795000000 +0000\tcommit: x"
            done = advance(repo.git_folder, "refs/heads/main", repo.head, seen, new, entry, staged)
        assert done is moved and not (repo.git_folder / "refs/heads/main.lock").exists()
    assert git(repo.root, "rev-parse", "HEAD").strip() == new
    assert git(repo.root, "reflog", "-1", "--format=%H %gs") == f"{new} commit: x\n"
    assert git(repo.root, "fsck", "--strict") == ""


def test_gits_own_log_of_the_branch_knows_every_commit(tmp_path: Path) -> None:
    repo = ConversationRepository.create(tmp_path / "workspace")
    first = repo.start(FILE, "T", "ann", "x").message
    commits = [repo.reply(FILE, first, "bób", f"{number}").commit for number in range(3)]
    for name in ("HEAD", "main"):
        assert git(repo.root, "reflog", "-3", "--format=%H", name).split() == commits[::-1]
    assert git(repo.root, "log", "-1", "--format=%an <%ae> %s").startswith(
        "bób <bób@understudy.local> reply in"
    )

"""Taking in conversations kept in the older layout, with their history.

There a repository holds one conversation, `public/data/conversation.md`, and who takes part in
`participants.json`. Its commits are made anew here, one for one, with their authors, times and parents, as a
second line of history that one merge joins to this workspace's; so lessons, revisions and authors can be read
from them as from any other.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pygit2
from pygit2.enums import FileMode, RepositoryOpenFlag, SortMode

from understudy.conversation.bodies import valid_name
from understudy.conversation.errors import FileThere, InvalidImport, InvalidName, RepositoryFailure
from understudy.conversation.files import valid_path
from understudy.conversation.history import blob_at, decode
from understudy.conversation.importing import Imported
from understudy.conversation.participants import Right, read_participants
from understudy.conversation.repository import ConversationRepository
from understudy.conversation.trailers import commit_message

OLDER_FILE = "public/data/conversation.md"
OLDER_PARTICIPANTS = ("participants.json", "public/data/participants.json", "public/participants.json")
_IMPORTED_FROM = "Understudy-Imported-From"


def import_older(
    repository: ConversationRepository,
    source: Path,
    file: str,
    author: str,
    *,
    model_name: str | None = None,
) -> Imported:
    """Make a new conversation of a folder in the older layout, byte for byte, as it is committed there.

    A folder that is no Git repository gives its text alone. Its participants become this workspace's, if it
    has written down none yet: all may post, `author` gets every right, and the model the right to post.
    """
    valid_path(file)
    if not (source / OLDER_FILE).is_file():
        raise InvalidImport(f"{source} is not in the older layout: {OLDER_FILE} was expected in it")
    people = _participants_toml(source, file, author, model_name)
    _check_free(repository, file, author)
    other = _history(source)
    if other is None:
        text = decode((source / OLDER_FILE).read_bytes())
        commit, count = repository.add(file, text, author), 1
    else:
        commit, count = _graft(repository, other, file, author)
    messages = len(repository.read(file).messages)
    taken = people is not None and repository.participants().unrestricted
    if people is not None and taken:
        repository.set_participants(people, author)
    return Imported(file, commit, messages, commits=count, participants=taken)


def _check_free(repository: ConversationRepository, file: str, author: str) -> str:
    """The newest commit, on which `author` may make this file."""
    tip, store = repository.head(), repository._store
    repository.participants(tip).require(author, Right.ADMIN, file, "import conversations")
    if store.blob_id(file, tip) or file in store.working_files():
        raise FileThere(f"{file} is there already: choose another name")
    return tip


def _history(source: Path) -> pygit2.Repository | None:
    """The repository that the folder is, None if it is none or has not committed the conversation."""
    if not (source / ".git").exists():
        return None
    try:
        other = pygit2.Repository(str(source), RepositoryOpenFlag.NO_SEARCH)
        committed = not other.head_is_unborn and blob_at(other[other.head.target].tree, OLDER_FILE)
    except pygit2.GitError as error:
        raise InvalidImport(f"the Git repository {source} does not open: {error}") from error
    return other if committed else None


def _graft(
    repository: ConversationRepository, other: pygit2.Repository, file: str, author: str
) -> tuple[str, int]:
    """The merge commit that joins the other history to ours, and how many commits it brings."""
    made: dict[str, str | None] = {}  # commit there -> the commit here that has its text
    blobs: dict[str, str | None] = {}  # commit here -> blob of the file
    git = repository._store.git
    tip = str(other.head.target)
    for commit in other.walk(tip, SortMode.TOPOLOGICAL | SortMode.REVERSE):
        parents = [made[str(parent)] for parent in commit.parent_ids if str(parent) in made]
        here = list(dict.fromkeys(parent for parent in parents if parent is not None))
        blob = blob_at(commit.tree, OLDER_FILE)
        same = next((parent for parent in here if blobs[parent] == blob), None)
        if same is not None or (blob is None and not here):
            made[str(commit.id)] = same
            continue
        tree = pygit2.Index()
        if blob is not None:
            copied = git.create_blob(other[blob].data)
            tree.add(pygit2.IndexEntry(file, copied, FileMode.BLOB))
        new = str(
            git.create_commit(
                None, commit.author, commit.committer, _message(commit), tree.write_tree(git), here
            )
        )
        made[str(commit.id)], blobs[new] = new, blob
    joined = made[tip]
    if joined is None:
        raise InvalidImport(f"the history of {other.workdir} holds no {OLDER_FILE}")
    data = bytes(other[str(blobs[joined])].data)
    return _join(repository, file, data, author, joined), sum(1 for _ in git.walk(joined))


def _join(repository: ConversationRepository, file: str, data: bytes, author: str, joined: str) -> str:
    """The merge commit on top of the newest commit that adds the file, with the other history as its own."""
    store = repository._store
    message = commit_message("import", file, None, None, None)
    with store.writing():
        while True:
            tip = _check_free(repository, file, author)
            signature = repository._person(author, None).at(repository._clock())
            tree = pygit2.Index()
            tree.read_tree(store.git[tip].tree)
            tree.add(pygit2.IndexEntry(file, store.git.create_blob(data), FileMode.BLOB))
            try:
                commit = store.git.create_commit(
                    store.branch, signature, signature, message, tree.write_tree(store.git), [tip, joined]
                )
            except (pygit2.GitError, OSError, ValueError) as error:
                if store.tip() != tip:
                    continue
                raise RepositoryFailure(f"Git could not commit, nothing was imported: {error}") from error
            store.settle([file], known=tip)
            return str(commit)


def _message(commit: pygit2.Commit) -> str:
    """What the other commit said, indented so that nothing in it reads as a trailer of ours."""
    said = "\n".join("    " + line for line in commit.message.replace("\0", "\ufffd").splitlines())
    return f"import a commit\n\n{said}\n\n{_IMPORTED_FROM}: {commit.id}\n"


def _participants(source: Path) -> Mapping[str, Any] | None:
    path = next((source / name for name in OLDER_PARTICIPANTS if (source / name).is_file()), None)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InvalidImport(f"{path}: JSON was expected: {error}") from error
    people = found.get("participants") if isinstance(found, dict) else None
    if not isinstance(people, list) or not all(
        isinstance(one, dict) and isinstance(one.get("username"), str) for one in people
    ):
        raise InvalidImport(f'{path}: {{"participants": [{{"username": ...}}]}} was expected')
    for one in people:
        try:
            valid_name(one["username"])
        except InvalidName as error:
            raise InvalidImport(f"{path}: {error}") from error
    return dict(found)


def _participants_toml(source: Path, file: str, author: str, model_name: str | None) -> str | None:
    """The folder's participants as `participants.toml` has them, None if it names none."""
    found = _participants(source)
    if found is None:
        return None
    names: dict[str, list[str]] = {}
    for one in found["participants"]:
        name = valid_name(one["username"])
        display = one.get("displayName")
        shown = display if isinstance(display, str) and display.isprintable() and display else name
        names[name] = [f"display = {_quoted(shown)}", 'rights = ["post"]']
    admin = [f'rights = ["{Right.ADMIN.value}"]']
    names[author] = names.get(author, admin)[:-1] + admin
    if model_name is not None:
        names[model_name] = ['kind = "model"', 'rights = ["post"]']
    lines = []
    for name, entries in names.items():
        lines += [f"[participants.{_quoted(name)}]", *entries, ""]
    settings = found.get("settings")
    if isinstance(settings, dict) and settings.get("allow_public_view") is False:
        members = ", ".join(_quoted(name) for name in names)
        lines += [f"[conversations.{_quoted(file)}]", 'access = "private"', f"members = [{members}]", ""]
    text = "\n".join(lines)
    read_participants(text)  # what is wrong with it is said before anything is imported
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

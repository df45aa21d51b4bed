"""`understudy search`."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)

if TYPE_CHECKING:
    from understudy.conversation import Entry, Index

Flag = Parameter(negative="")


def search(
    query: str | None = None,
    *,
    by: Annotated[str | None, Parameter(help="Only what this participant said.")] = None,
    file: Annotated[str | None, Parameter(help="Only in this conversation.")] = None,
    since: Annotated[datetime | None, Parameter(help="Only said at or after this time (UTC).")] = None,
    until: Annotated[datetime | None, Parameter(help="Only said before this time (UTC).")] = None,
    newest: Annotated[
        bool, Flag, Parameter(help="Newest first, not best first; alone: all messages.")
    ] = False,
    unread: Annotated[bool, Flag, Parameter(help="What others said since you last read.")] = False,
    mentions: Annotated[bool, Flag, Parameter(help="What calls you by @name.")] = False,
    mark_read: Annotated[bool, Flag, Parameter(help="With --unread: count it as read.")] = False,
    limit: Annotated[int, Parameter(help="At most so many.")] = 20,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Find messages that hold all words of QUERY: words, "a phrase", begin*, -without.

    Instead of a query: --unread, --mentions (of whoever --as names), or --newest. With --as only what that
    participant may read is looked at.
    """
    from understudy.conversation import Index
    from understudy.workspace import Workspace

    if sum((query is not None, unread, mentions)) > 1 or not (
        query is not None or unread or mentions or newest
    ):
        raise CommandError("expected a query, --unread, --mentions or --newest")
    if limit < 1:
        raise CommandError(f"expected --limit of 1 or more, got {limit}")
    repository = Workspace.open(workspace).repository
    index, only = Index(repository), None if file is None else conversation_file(file)
    if only is not None:
        repository.read(only)
    if query is not None:
        found = index.search(
            query,
            author=by,
            file=only,
            since=_zoned(since),
            until=_zoned(until),
            newest=newest,
            reader=author,
            limit=limit,
        )
    elif unread:
        head = index.update()
        found = index.unread(author_or_login(author), file=only, reader=author)
        if mark_read:
            index.mark_read(author_or_login(author), file=only, revision=head)
    elif mentions:
        found = index.mentions(author_or_login(author), reader=author, limit=limit)
    else:
        found = index.recent(file=only, reader=author, limit=limit)
    _print(index, found, as_json)


def _zoned(moment: datetime | None) -> datetime | None:
    from datetime import UTC

    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _print(index: "Index", entries: "tuple[Entry, ...]", as_json: bool) -> None:
    import sys

    from understudy.cli.answering import first_line, print_json
    from understudy.conversation import MATCH_END, MATCH_START

    bold = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    shown = []
    for entry in entries:
        row = asdict(entry)
        row["snippet"] = entry.snippet.replace(MATCH_START, "").replace(MATCH_END, "")
        row["link"] = index.anchor(entry.file, entry.id)
        shown.append(row)
    if as_json:
        return print_json(shown)
    for entry in entries:
        words = " ".join((entry.snippet or first_line(entry.body)).split())
        marked = words.replace(MATCH_START, bold[0]).replace(MATCH_END, bold[1])
        print(f"{entry.file}#{entry.id}  {entry.thread}\n  @{entry.author} {entry.created}: {marked}")
    return None

"""A message's text, from wherever a person gives it."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from understudy.cli.failures import CommandError


@contextmanager
def composed(text: str | None, body: str | None, initial: str = "") -> Iterator[str]:
    """The argument, `--body`, all of standard input, or what the person writes in their editor.

    The editor starts with `initial`. What was written in it is lost to no error: the file is kept, and named.
    """
    if text is not None and body is not None:
        raise CommandError("expected the message's text as an argument or with --body, got both")
    given = body if text is None else text
    if given is not None:
        yield given
    elif not sys.stdin.isatty():
        yield _read()
    else:
        yield from _edited(initial)


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise CommandError(f"expected text in UTF-8 on standard input, got other bytes: {error}") from error


def _edited(initial: str) -> Iterator[str]:
    from understudy.conversation import ConversationError

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandError(
            "expected the message's text as an argument, with --body or on standard input, got neither; "
            "set EDITOR to write it in an editor"
        )
    handle, name = tempfile.mkstemp(prefix="understudy-", suffix=".md")
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(initial)
    path = Path(name)
    try:
        status = subprocess.call([*shlex.split(editor), name])
    except OSError as error:
        path.unlink()
        raise CommandError(
            f"expected an editor in $VISUAL or $EDITOR, {editor!r} does not start: {error}"
        ) from error
    written = path.read_text(encoding="utf-8", errors="surrogateescape")
    if status != 0 or not written.strip():
        path.unlink()
        raise CommandError(
            f"the editor ended with status {status}: nothing was done"
            if status
            else "the text was left empty: nothing was done"
        )
    try:
        yield written
    except ConversationError as error:
        raise CommandError(f"{error}\nyour text is kept in {path}") from error
    path.unlink()

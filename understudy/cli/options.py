"""Options that several commands share."""

import getpass
import re
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError

WorkspaceOption = Annotated[Path, Parameter(name=["--workspace", "-w"], help="The workspace's folder.")]
AuthorOption = Annotated[
    str | None, Parameter(name=["--as"], help="Who speaks; your login name when not given.")
]


def author_or_login(given: str | None) -> str:
    """The name to speak under: letters, digits, `-`, `_`, `.`."""
    if given is not None:
        return given
    return re.sub(r"[^\w.-]", "-", getpass.getuser())


def text_or_stdin(given: str | None) -> str:
    """A message's text: the argument, or all of standard input when there is none."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        raise CommandError("expected the message's text as an argument or on standard input, got neither")
    return sys.stdin.read()


def conversation_file(given: str) -> str:
    """`talk`, `talk.md` or `conversations/talk.md`: all mean the same file."""
    name = given if given.endswith(".md") else f"{given}.md"
    return name if name.startswith("conversations/") else f"conversations/{name}"

"""Options that several commands share."""

import getpass
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

WorkspaceOption = Annotated[Path, Parameter(name=["--workspace", "-w"], help="The workspace's folder.")]
AuthorOption = Annotated[
    str | None, Parameter(name=["--as"], help="Who speaks; your login name when not given.")
]

BodyOption = Annotated[
    str | None, Parameter(help="The text; else standard input, or your editor ($VISUAL, $EDITOR).")
]
JsonOption = Annotated[bool, Parameter(name="--json", negative="", help="Answer as JSON, for programs.")]
MessageOption = Annotated[str, Parameter(help="The message's id, or its permanent link.")]


def author_or_login(given: str | None) -> str:
    """The name to speak under: letters, digits, `-`, `_`, `.`."""
    if given is not None:
        return given
    return re.sub(r"[^\w.-]", "-", getpass.getuser())


def conversation_file(given: str) -> str:
    """`talk`, `talk.md` or `conversations/talk.md`: all mean the same file."""
    name = given if given.endswith(".md") else f"{given}.md"
    return name if name.startswith("conversations/") else f"conversations/{name}"

"""Commit messages: a safe subject, and trailers that no body, title or name can forge."""

import re
from collections.abc import Mapping

from understudy.conversation.errors import InvalidTrailer

OPERATION = "Understudy-Operation"
MESSAGE = "Understudy-Message"
PARENT = "Understudy-Parent"

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_OURS = frozenset(key.lower() for key in (OPERATION, MESSAGE, PARENT))


def commit_message(
    operation: str, file: str, message: str | None, parent: str | None, extra: Mapping[str, str] | None
) -> str:
    """The whole commit message; of what people wrote it holds only the file's name, one line."""
    trailers = {OPERATION: operation}
    if message:
        trailers[MESSAGE] = message
    if parent:
        trailers[PARENT] = parent
    for key, value in (extra or {}).items():
        trailers[_valid_key(key)] = _valid_value(key, value)
    lines = "\n".join(f"{key}: {value}" for key, value in trailers.items())
    return f"{operation} in {file}\n\n{lines}\n"


def _valid_key(key: str) -> str:
    if not _KEY.match(key) or key.lower() in _OURS:
        raise InvalidTrailer(
            f"a trailer's name is letters, digits and '-', and not one that is ours; got {key!r}"
        )
    return key


def _valid_value(key: str, value: str) -> str:
    if not value or not value.isprintable() or value != value.strip():
        raise InvalidTrailer(
            f"a trailer's value is one printable line without blanks around it; got {value!r} for {key}"
        )
    return value

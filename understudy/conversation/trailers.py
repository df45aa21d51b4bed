"""Commit messages: a safe subject, and trailers that no body, title or name can forge."""

import re
from collections.abc import Mapping

from understudy.conversation.errors import InvalidTrailer

OPERATION = "Understudy-Operation"
MESSAGE = "Understudy-Message"
PARENT = "Understudy-Parent"
KEY = "Understudy-Key"
MOVED = "Understudy-Moved"
"""`<old id> <new id>`, once for each message whose id the operation changed."""

MOST_KEY_LENGTH = 200

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_OURS = frozenset(key.lower() for key in (OPERATION, MESSAGE, PARENT, KEY, MOVED))
_MOVED_LINE = re.compile(rf"^{MOVED}: (\S+) (\S+)$", re.MULTILINE)


def commit_message(
    operation: str,
    file: str,
    message: str | None,
    parent: str | None,
    extra: Mapping[str, str] | None,
    key: str | None = None,
    moved: Mapping[str, str] | None = None,
) -> str:
    """The whole commit message; of what people wrote it holds only the file's name, one line."""
    trailers = {OPERATION: operation}
    if message:
        trailers[MESSAGE] = message
    if parent:
        trailers[PARENT] = parent
    if key is not None:
        trailers[KEY] = valid_key(key)
    for name, value in (extra or {}).items():
        trailers[_valid_name(name)] = _valid_value(name, value)
    lines = [f"{name}: {value}" for name, value in trailers.items()]
    lines += [f"{MOVED}: {old} {new}" for old, new in (moved or {}).items()]
    return "\n".join([f"{operation} in {file}", "", *lines, ""])


def moved_ids(message: str) -> Mapping[str, str]:
    """The ids that a commit says it changed, old to new. Only the trees prove it."""
    last = message.rstrip().rpartition("\n\n")[2]
    return {found[1]: found[2] for found in _MOVED_LINE.finditer(last)}


def valid_key(key: str) -> str:
    """An idempotency key, or `InvalidTrailer`: it stands in the commit message."""
    if len(key) > MOST_KEY_LENGTH:
        raise InvalidTrailer(f"a key is at most {MOST_KEY_LENGTH} characters; got {len(key)}")
    return _valid_value(KEY, key)


def _valid_name(name: str) -> str:
    if not _KEY.match(name) or name.lower() in _OURS:
        raise InvalidTrailer(
            f"a trailer's name is letters, digits and '-', and not one that is ours; got {name!r}"
        )
    return name


def _valid_value(name: str, value: str) -> str:
    if not value or not value.isprintable() or value != value.strip():
        raise InvalidTrailer(
            f"a trailer's value is one printable line without blanks around it; got {value!r} for {name}"
        )
    return value

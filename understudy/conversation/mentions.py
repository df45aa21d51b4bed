"""Who is called by name in a body."""

import re

_MENTION = re.compile(r"(?<![\w.@-])@([\w.-]+)")


def mentioned(body: str) -> tuple[str, ...]:
    """The names that stand behind an `@` in a body, each once, in their order.

    A name may hold dots and hyphens, but a dot behind it ends the sentence; `a@b.org` and `@@name` mention
    nobody.
    """
    names = (name.rstrip(".") for name in _MENTION.findall(body))
    return tuple(dict.fromkeys(name for name in names if name))

"""How commands name messages, and what they print of what they did."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.conversation import ConversationRepository, Posted


def print_json(data: Any) -> None:
    """One JSON document, in plain ASCII: any program and any terminal can take it."""
    json.dump(data, sys.stdout, indent=1)
    print()


def print_posted(file: str, posted: "Posted", as_json: bool) -> None:
    """What was done: the message's id, or with `--json` also the commit and the ids that changed."""
    if as_json:
        moved = dict(posted.moved)
        print_json({"file": file, "message": posted.message, "commit": posted.commit, "moved": moved})
    else:
        print(posted.message)


def standing(repository: "ConversationRepository", file: str, given: str) -> str:
    """The id that a message of this file has now: `given`, unless it was moved since it had that one.

    An id that leads nowhere is given back as it came, for the operation to say so.
    """
    from understudy.conversation import ConversationError, Index

    here = {message.id: message for message in repository.read(file).messages}
    if given in here and not here[given].deleted:
        return given
    try:
        place = Index(repository).resolve(given if "#" in given else f"{file}#{given}")
    except ConversationError:
        return given
    return place.id if place.file == file else given


def first_line(text: str) -> str:
    """What a list shows of a message."""
    return next(iter(text.strip().splitlines()), "")

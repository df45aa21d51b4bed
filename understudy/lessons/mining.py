"""Finding corrections in the history: edits of what the model said, by someone who is not the model."""

from datetime import UTC

from understudy.conversation import Change, ConversationRepository, Message, UnknownFile, UnknownMessage
from understudy.lessons.context import chat_context
from understudy.lessons.lesson import Lesson, Source

_Key = tuple[str, str]
"""A file, and a message's id in it."""


def mine(repo: ConversationRepository, model_name: str, since: str | None = None) -> list[Lesson]:
    """Every standing correction of a message of the model's, in the order in which they were made.

    With `since`, those made after that commit. Rejected is what the model itself said last, chosen is what
    stands now, the context is the path as it read in the correcting commit. Several edits of one message give
    one lesson. No lesson: an edit of white space alone, a text that was put back, a message that the model
    has since worded anew, one that was removed.
    """
    said: dict[_Key, str] = {}
    corrected: dict[_Key, tuple[Change, Message]] = {}
    for change in repo.changes(since):
        if change.author == model_name:
            for new in (*change.added, *(new for _, new in change.edited)):
                said[change.file, new.id] = new.body
                corrected.pop((change.file, new.id), None)
            continue
        for old, new in change.edited:
            if new.author == model_name:
                key = (change.file, new.id)
                if key not in said:
                    said[key] = _said_before(repo, change, old, model_name) if since else old.body
                corrected.pop(key, None)  # so that the order is that of the newest corrections
                corrected[key] = (change, new)
    found = (
        _lesson(repo, change, message, said[key], model_name) for key, (change, message) in corrected.items()
    )
    return [lesson for lesson in found if lesson is not None]


def _said_before(repo: ConversationRepository, change: Change, message: Message, model_name: str) -> str:
    """What the model itself said last in this message, before a change; people may have edited it since.

    Goes back in history to where the model wrote or reworded it, reading only the commits in which it
    changed.
    """
    for earlier in reversed(list(repo.changes(file=change.file, until=f"{change.commit}^"))):
        text = earlier.before_text
        if text is not None and message.source.rstrip() in text:
            continue
        older = next((old for old, new in earlier.edited if new.id == message.id), None)
        if older is None and all(added.id != message.id for added in earlier.added):
            continue  # only its layout changed
        if older is None or earlier.author == model_name:
            break
        message = older
    return message.body


def _lesson(
    repo: ConversationRepository, change: Change, message: Message, said: str, model_name: str
) -> Lesson | None:
    """The lesson of this correction, None if the message is gone or says again what the model said."""
    try:
        chosen = repo.read(change.file).message(message.id).body
    except (UnknownFile, UnknownMessage):  # removed since: nobody stands by this correction
        return None
    if chosen.split() == said.split() or not chosen.strip():
        return None
    path = change.after.path(message.id)[:-1] if change.after else ()
    source = Source(
        change.file,
        message.thread.title,
        message.id,
        change.commit,
        change.author,
        change.time.astimezone(UTC).isoformat(),
    )
    return Lesson(chat_context(path, model_name), chosen, said, source)

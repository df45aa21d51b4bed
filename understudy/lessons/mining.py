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
        moved = {(change.file, old): (change.file, new) for old, new in moves(change).items()}
        if moved:
            said = {moved.get(key, key): text for key, text in said.items()}
            corrected = {moved.get(key, key): found for key, found in corrected.items()}
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
        _lesson(repo, change, message, key[1], said[key], model_name)
        for key, (change, message) in corrected.items()
    )
    return [lesson for lesson in found if lesson is not None]


def moves(change: Change) -> dict[str, str]:
    """The messages that got another id in this change by being moved or their thread renamed: old to new.

    The commit says so, and the trees bear it out: the old one was there, the new one says the same.
    """
    before, after = change.before, change.after
    if not change.moved or before is None or after is None:
        return {}
    old_ones = {message.id: message for message in before.walk()}
    new_ones = {message.id: message for message in after.walk()}
    return {
        old: new
        for old, new in change.moved.items()
        if old in old_ones
        and new in new_ones
        and (old_ones[old].author, old_ones[old].body) == (new_ones[new].author, new_ones[new].body)
    }


def _said_before(repo: ConversationRepository, change: Change, message: Message, model_name: str) -> str:
    """What the model itself said last in this message, before a change; people may have edited it since.

    Goes back in history to where the model wrote or reworded it, reading only the commits in which it
    changed.
    """
    for earlier in reversed(list(repo.changes(file=change.file, until=f"{change.commit}^"))):
        came_from = next((old for old, new in moves(earlier).items() if new == message.id), None)
        if came_from is not None and earlier.before is not None:
            message = earlier.before.message(came_from)
            continue
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
    repo: ConversationRepository,
    change: Change,
    message: Message,
    present_id: str,
    said: str,
    model_name: str,
) -> Lesson | None:
    """The lesson of this correction, None if the message is gone or says again what the model said.

    `message` is as the correction left it; by now it may have been moved, to `present_id`.
    """
    try:
        chosen = repo.read(change.file).message(present_id).body
    except (UnknownFile, UnknownMessage):  # removed since: nobody stands by this correction
        return None
    if chosen.split() == said.split() or not chosen.strip():
        return None
    path = change.after.path(message.id)[:-1] if change.after else ()
    return Lesson(chat_context(path, model_name), chosen, said, source_of(change, message))


def source_of(change: Change, message: Message) -> Source:
    """A message as a change of it left it."""
    return Source(
        change.file,
        message.thread.title,
        message.id,
        change.commit,
        change.author,
        change.time.astimezone(UTC).isoformat(),
    )

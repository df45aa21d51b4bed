"""Any operation on any conversation, and the laws that it has to keep."""

from collections.abc import Mapping
from dataclasses import dataclass

from conversation_cases import NOW, bodies, names, plain_bodies, titles
from hypothesis import strategies as st

from understudy.conversation import (
    Conversation,
    Message,
    Thread,
    delete,
    edit,
    merge_threads,
    move,
    normalise_body,
    paragraphs,
    parse,
    post,
    rename,
    reply,
    split,
    start,
    valid_name,
)

VERBS = ("start", "post", "reply", "edit", "delete", "move", "open", "split", "rename", "merge_threads")


@dataclass(frozen=True)
class Step:
    """One operation, with its targets as numbers that fit any conversation."""

    verb: str
    first: int
    second: int
    name: str
    title: str
    body: str


_number = st.integers(0, 1_000)
steps = st.builds(Step, st.sampled_from(VERBS), _number, _number, names, titles, bodies)
plain_steps = st.builds(
    Step,
    st.sampled_from(VERBS),
    _number,
    _number,
    st.sampled_from(["eve", "bob-2", "c.d", "名前"]),
    st.sampled_from(["Tea", "A", "B"]),
    plain_bodies,
)


@dataclass(frozen=True)
class Done:
    """What a step did: the messages it was about, and which ids it was free to change."""

    after: Conversation
    target: Message | None
    made: Message | None
    moved: Mapping[str, str]
    may_move: frozenset[str]


def take(doc: Conversation, step: Step) -> Done | None:
    """The step on this conversation, None where it has no such target; what it raises is let through."""
    message = doc.messages[step.first % len(doc.messages)] if doc.messages else None
    threads = doc.threads
    if step.verb == "start":
        after, made = start(doc, step.title, step.name, step.body, NOW)
        return Done(after, None, made, {}, frozenset())
    if step.verb in ("post", "rename", "merge_threads"):
        return _take_thread(doc, step, threads[step.first % len(threads)]) if threads else None
    return _take_message(doc, step, message) if message else None


def _take_thread(doc: Conversation, step: Step, thread: Thread) -> Done:
    if step.verb == "post":
        after, made = post(doc, thread, step.name, step.body, NOW)
        return Done(after, None, made, {}, frozenset())
    index = doc.threads.index(thread)
    counted = [thread, *(later for later in doc.threads[index:] if later.title == thread.title)]
    may_move = frozenset(message.id for each in counted for message in each.walk())
    if step.verb == "rename":
        after, moved = rename(doc, thread, step.title)
    else:
        after, moved = merge_threads(doc, thread, doc.threads[step.second % len(doc.threads)])
    return Done(after, None, None, moved, may_move)


def _take_message(doc: Conversation, step: Step, message: Message) -> Done:
    moved: Mapping[str, str] = {}
    made: Message | None = None
    if step.verb == "reply":
        after, made = reply(doc, message.id, step.name, step.body, NOW)
    elif step.verb == "edit":
        after, made = edit(doc, message.id, step.body)
    elif step.verb == "delete":
        after = delete(doc, message.id)
    elif step.verb == "split":
        blocks = max(1, len(paragraphs(message.body)))
        after, made = split(doc, message.id, step.second % blocks, step.title, step.name, NOW)
    elif step.verb == "move":
        after, moved = move(doc, message.id, doc.threads[step.second % len(doc.threads)])
    else:
        after, moved = move(doc, message.id, title=step.title)
    may_move = frozenset(below.id for below in message.walk()) if moved else frozenset[str]()
    return Done(after, message, made, moved, may_move)


Seen = tuple[str, str, str, int, str | None]


def seen(message: Message) -> Seen:
    parent = message.parent.id if message.parent else None
    return message.author, message.created, message.body, message.depth, parent


def filled(message: Message) -> str:
    """Its bytes, without the blank lines behind it, which are layout."""
    return message.source.rstrip(" \t\r\n")


def hold_to_the_laws(doc: Conversation, step: Step, done: Done) -> None:
    """Nothing forged, hidden, lost or changed but what the step is about; ids as the mapping says."""
    after, moved = done.after, done.moved
    assert parse(after.text).text == after.text
    assert set(moved) <= done.may_move
    assert all(old != new for old, new in moved.items())
    places = [moved.get(message.id, message.id) for message in doc.walk()]
    assert len(set(places)) == len(places), "two messages were given one id"
    subtree = {message.id for message in done.target.walk()} if done.target else set[str]()
    gone = {message.id for message in doc.walk() if moved.get(message.id, message.id) not in ids(after)}
    assert not gone or (step.verb == "delete" and gone == subtree)
    for message in doc.walk():
        if message.id in gone:
            continue
        there = after.message(moved.get(message.id, message.id))
        if done.target is message and step.verb in ("edit", "delete"):
            assert (there.author, there.created, there.depth) == (
                message.author,
                message.created,
                message.depth,
            )
        elif message.id in subtree and step.verb in ("move", "open"):
            lift = done.target.depth if done.target else 0
            assert seen(there)[:3] == seen(message)[:3]
            assert there.depth == message.depth - lift
        else:
            parent = message.parent and moved.get(message.parent.id, message.parent.id)
            assert seen(there) == (*seen(message)[:4], parent)
            if message.id not in done.may_move:
                assert filled(there) == filled(message), "bytes of another message changed"
    _hold_additions(doc, step, done, set(places))


def _hold_additions(doc: Conversation, step: Step, done: Done, places: set[str]) -> None:
    new = [message for message in done.after.walk() if message.id not in places]
    if step.verb in ("start", "post", "reply", "split"):
        assert new == [done.made]
        assert new[0].author == valid_name(step.name)
    elif step.verb in ("move", "open"):
        assert [(one.deleted, one.id) for one in new] in ([], [(True, done.target and done.target.id)])
    else:
        assert new == []
    if step.verb in ("start", "post", "reply", "edit") and done.made:
        assert done.made.body == normalise_body(step.body)
    change = {"start": 1, "open": 1, "split": 1, "merge_threads": -1}.get(step.verb, 0)
    assert len(done.after.threads) - len(doc.threads) in (change, change - _heads_nothing(doc))


def _heads_nothing(doc: Conversation) -> bool:
    """Whether the first thread has no heading: it ends when its last message goes, or gets a heading."""
    return bool(doc.threads) and not doc.text.startswith("###", doc.threads[0].start)


def ids(doc: Conversation) -> set[str]:
    return {message.id for message in doc.walk()}

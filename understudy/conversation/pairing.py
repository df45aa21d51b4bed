"""Which message of one version of a conversation is which of another, also where its id has changed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from understudy.conversation.document import Conversation, Message, Thread

_Key = tuple[str, str]
"""Author and creation time: what no operation ever changes."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """The threads and messages of an earlier version, each with what became of it in a later one.

    What is not here was removed.
    """

    threads: dict[Thread, Thread] = field(default_factory=dict)
    messages: dict[Message, Message] = field(default_factory=dict)


def pair(earlier: Conversation, later: Conversation) -> Pairing:
    """Find every thread and message again.

    Threads are the same by title, else by the messages that they share (a rename). Messages are the same by
    place, author and time, as their ids say; else, wherever they stand now, by author, time and body, or by
    author and time alone where only one message is left that it can be (a move with an edit). Messages that
    are equal in author, time and text cannot be told apart once one of them has moved.
    """
    found = Pairing(_pair_threads(earlier.threads, later.threads))
    taken: set[Message] = set()
    for before, after in found.threads.items():
        _descend(found, taken, before.messages, after.messages)
    for with_body in (True, False):
        _pair_moved(found, taken, earlier, later, with_body)
    return found


def _descend(
    found: Pairing, taken: set[Message], before: Sequence[Message], after: Sequence[Message]
) -> None:
    """Pair siblings with siblings, then the replies of each pair, and so on down."""
    waiting = [(before, after)]
    while waiting:
        olds, news = waiting.pop()
        free = [message for message in news if message not in taken]
        for old, new in _pair_siblings([message for message in olds if message not in found.messages], free):
            found.messages[old] = new
            taken.add(new)
            waiting.append((old.replies, new.replies))


def _pair_siblings(before: list[Message], after: list[Message]) -> Iterable[tuple[Message, Message]]:
    """Siblings of one author and time in their order, as ids count them.

    Where there are fewer than before, one was taken out by hand: then those of the same text first.
    """
    groups: defaultdict[_Key, tuple[list[Message], list[Message]]] = defaultdict(lambda: ([], []))
    for old in before:
        groups[_key(old)][0].append(old)
    for new in after:
        groups[_key(new)][1].append(new)
    for olds, news in groups.values():
        if len(news) >= len(olds):
            yield from zip(olds, news, strict=False)
        else:
            yield from _by_text(olds, news)


def _by_text(before: list[Message], after: list[Message]) -> Iterable[tuple[Message, Message]]:
    texts: defaultdict[str, list[Message]] = defaultdict(list)
    for new in reversed(after):
        texts[new.body].append(new)
    used: set[Message] = set()
    left: list[Message] = []
    for old in before:
        if same := texts.get(old.body):
            used.add(same[-1])
            yield old, same.pop()
        else:
            left.append(old)
    yield from zip(left, (new for new in after if new not in used), strict=False)


def _pair_moved(
    found: Pairing, taken: set[Message], earlier: Conversation, later: Conversation, with_body: bool
) -> None:
    lost = [
        message for message in earlier.messages if _is_lost(message, found.messages.get(message), with_body)
    ]
    groups: defaultdict[_Key, list[Message]] = defaultdict(list)
    for new in later.messages:
        if new not in taken:
            groups[_key(new)].append(new)
    asked = Counter(map(_key, lost))
    for old in lost:
        there = found.messages.get(old)
        if not _is_lost(old, there, with_body):  # its parent was found, and it stood below
            continue
        group = [new for new in groups.get(_key(old), []) if new not in taken]
        fitting = [new for new in group if new.body == old.body] if with_body else group
        if fitting and (with_body or (len(fitting) == 1 and asked[_key(old)] == 1)):
            found.messages[old] = fitting[0]
            taken.add(fitting[0])
            if there is not None:
                taken.discard(there)
            _descend(found, taken, old.replies, fitting[0].replies)


def _is_lost(old: Message, new: Message | None, with_body: bool) -> bool:
    """Whether it may stand elsewhere: where it stood is nothing, or what a move can leave behind."""
    return new is None or (with_body and new.deleted and not old.deleted)


def _pair_threads(before: Sequence[Thread], after: Sequence[Thread]) -> dict[Thread, Thread]:
    titles: defaultdict[str, tuple[list[Thread], list[Thread]]] = defaultdict(lambda: ([], []))
    for thread in before:
        titles[thread.title][0].append(thread)
    for thread in after:
        titles[thread.title][1].append(thread)
    found: dict[Thread, Thread] = {}
    for olds, news in titles.values():
        if len(olds) == len(news) == 1:
            found[olds[0]] = news[0]
        elif olds and news:
            pairs = _by_shared_messages(olds, news)
            shared = set(pairs.values())
            rest = [new for new in news if new not in shared]
            pairs.update(zip([old for old in olds if old not in pairs], rest, strict=False))
            found.update(pairs)
    known = set(found.values())
    found.update(
        _by_shared_messages([old for old in before if old not in found], [t for t in after if t not in known])
    )
    return found


def _by_shared_messages(before: Sequence[Thread], after: Sequence[Thread]) -> dict[Thread, Thread]:
    """The threads that have the most messages in common, most first."""
    if not before or not after:
        return {}
    where: defaultdict[_Key, set[Thread]] = defaultdict(set)
    for thread in after:
        for message in thread.walk():
            where[_key(message)].add(thread)
    shared: Counter[tuple[Thread, Thread]] = Counter()
    for thread in before:
        shared.update((thread, other) for message in thread.walk() for other in where.get(_key(message), ()))
    order = {thread: place for place, thread in enumerate((*before, *after))}
    found: dict[Thread, Thread] = {}
    taken: set[Thread] = set()
    for old, new in sorted(shared, key=lambda p: (-shared[p], order[p[0]], order[p[1]])):
        if old not in found and new not in taken:
            found[old] = new
            taken.add(new)
    return found


def _key(message: Message) -> _Key:
    return message.author, message.created

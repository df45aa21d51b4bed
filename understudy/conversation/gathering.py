"""What two versions of a conversation are made of: each thread and message once, and its place."""

from collections import defaultdict
from dataclasses import dataclass, field

from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.pairing import pair

_SIDES = (0, 1)


@dataclass(eq=False, slots=True)
class MergedMessage:
    """What a message becomes. `sides` is what ours and theirs have of it; `source` is whose bytes stand."""

    base: Message | None
    sides: list[Message | None]
    author: str
    created: str
    body: str = ""
    deleted: bool = False
    source: Message | None = None
    container: "MergedMessage | MergedThread | None" = None
    children: "list[MergedMessage]" = field(default_factory=list)
    kept: bool = True


@dataclass(eq=False, slots=True)
class MergedThread:
    """What a thread becomes. `source` is whose heading stands; None: it is written anew."""

    base: Thread | None
    sides: list[Thread | None]
    title: str = ""
    intro: str = ""
    """The text between the heading and the first message."""
    source: Thread | None = None
    children: list[MergedMessage] = field(default_factory=list)
    kept: bool = True


Element = Message | Thread
Node = MergedMessage | MergedThread


class Gathering:
    """Every thread and message of a base and its two sides (0 is ours, 1 is theirs), and its place.

    `container` is settled here; what each says, and whether it stays, is not.
    """

    def __init__(self, base: Conversation, sides: tuple[Conversation, Conversation]) -> None:
        self.base, self.sides = base, sides
        self.pairings = (pair(base, sides[0]), pair(base, sides[1]))
        self.thread: dict[Thread, MergedThread] = {}
        """Of every thread of all three versions; `message` likewise."""
        self.message: dict[Message, MergedMessage] = {}
        self.threads: list[MergedThread] = []
        """Those of the base first, in its order; `messages` likewise."""
        self.messages: list[MergedMessage] = []
        self.moved_twice: list[tuple[MergedMessage, str]] = []
        """What both sides moved, and the place that does not stand."""
        self._pair_threads()
        self._pair_messages()
        for message in self.messages:
            message.container = self._container(message)
        self._break_circles()

    # Who is who.

    def _pair_threads(self) -> None:
        for thread in self.base.threads:
            self._add_thread(thread, [pairing.threads.get(thread) for pairing in self.pairings])
        opened: dict[tuple[str, int], MergedThread] = {}
        for side in _SIDES:
            seen: defaultdict[str, int] = defaultdict(int)
            for thread in self.sides[side].threads:
                if thread in self.thread:
                    continue
                key = thread.title, seen[thread.title]
                seen[thread.title] += 1
                if side == 1 and key in opened:  # both opened a thread of this title: one thread
                    opened[key].sides[1] = thread
                    self.thread[thread] = opened[key]
                else:
                    opened[key] = self._add_thread(None, [None if s != side else thread for s in _SIDES])

    def _add_thread(self, base: Thread | None, sides: list[Thread | None]) -> MergedThread:
        made = MergedThread(base, sides)
        self.threads.append(made)
        self.thread.update((element, made) for element in (base, *sides) if element)
        return made

    def _pair_messages(self) -> None:
        for message in self.base.messages:
            self._add_message(message, [pairing.messages.get(message) for pairing in self.pairings])
        said: defaultdict[tuple[Node, str, str, str, bool], list[MergedMessage]] = defaultdict(list)
        for side in _SIDES:
            for message in self.sides[side].messages:
                if message in self.message:
                    continue
                place = self._above(message)
                same = said[place, message.author, message.created, message.body, message.deleted]
                if side == 1 and same:  # both have it, though it was not in the base
                    same[0].sides[1] = message
                    self.message[message] = same.pop(0)
                    continue
                made = self._add_message(None, [None if s != side else message for s in _SIDES])
                if side == 0:
                    same.append(made)

    def _add_message(self, base: Message | None, sides: list[Message | None]) -> MergedMessage:
        first = base or sides[0] or sides[1]
        assert first is not None
        made = MergedMessage(base, sides, first.author, first.created)
        self.messages.append(made)
        self.message.update((element, made) for element in (base, *sides) if element)
        return made

    # Where each stands.

    def _container(self, message: MergedMessage) -> Node:
        """The message that it answers, or the thread that it opens a branch in."""
        base = self._place(message.base)
        places = [self._place(side) or base for side in message.sides]
        ours, theirs = places
        chosen = theirs if ours is base else ours
        assert chosen is not None
        if base and ours and theirs and len({base, ours, theirs}) == 3:
            chosen, other = sorted((ours, theirs), key=place_name)
            self.moved_twice.append((message, place_name(other)))
        return self._heir(chosen)

    def _place(self, message: Message | None) -> Node | None:
        return self._above(message) if message else None

    def _above(self, message: Message) -> Node:
        return self.message[message.parent] if message.parent else self.thread[message.thread]

    def _heir(self, place: Node) -> Node:
        """For a thread that one side has merged into another one: the other one."""
        if isinstance(place, MergedThread) and place.base and None in place.sides:
            side = place.sides.index(None)
            for root in place.base.messages:
                moved = self.pairings[side].messages.get(root)
                if moved is not None:
                    return self.thread[moved.thread]
        return place

    def _break_circles(self) -> None:
        """Where each side hung one message below another, the base decides."""
        above: set[Node] = set()
        """Known to lead up to a thread."""
        for message in self.messages:
            while True:
                path: dict[Node, None] = {}
                step: Node | None = message
                while isinstance(step, MergedMessage) and step not in above and step not in path:
                    path[step] = None
                    step = step.container
                if step not in path:
                    break
                circle = list(path)[list(path).index(step) :]
                for node in circle:
                    if isinstance(node, MergedMessage) and node.base:
                        node.container = self._above(node.base)
            above.update(path)


def place_name(place: Node) -> str:
    """How a person would know a thread or message."""
    if isinstance(place, MergedMessage):
        return f"@{place.author} [{place.created}]"
    return next(thread.title for thread in (place.base, *place.sides) if thread)

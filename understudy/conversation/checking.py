"""What a hand edit broke, told in the words of the file: which line, what it is now, what to do."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from understudy.conversation.anchors import Place, candidates, matched, may_move
from understudy.conversation.bodies import normalise_body, valid_name
from understudy.conversation.document import Conversation, Message
from understudy.conversation.errors import InvalidName
from understudy.conversation.files import inside
from understudy.conversation.grammar import STRUCTURE, columns
from understudy.conversation.history import decode
from understudy.conversation.parser import parse
from understudy.conversation.repository import ConversationRepository
from understudy.conversation.searching import plain
from understudy.conversation.trailers import OPERATION
from understudy.conversation.writing import HAND

# What a person could have meant as a message, and is not one.
_MEANT = re.compile(
    r"^[ \t]*(?:[-*+]|[0-9]{1,9}[.)])?[ \t]*@[^\s\[\]]+[ \t]*\[[^\]\n]*[0-9]{2}[^\]\n]*\][ \t]*:?",
    re.MULTILINE,
)
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7}|\|{7})(?:[ ].*)?$", re.MULTILINE)
_HEADING = re.compile(r"^(?P<indent> {0,3})#{1,6}(?:[ \t]|$)", re.MULTILINE)
_BLANK = " \t\r\n\ufeff"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to look at. `line` is counted from 1; 0 means the file as a whole."""

    file: str
    line: int
    kind: str
    text: str


def check(repository: ConversationRepository) -> tuple[Finding, ...]:
    """Everything in the conversations, as they stand on disk, that a person is not likely to have meant.

    Also what commits made by hand, and edits not yet committed, have lost: messages that stand nowhere any
    more. Reads only.
    """
    found: list[Finding] = []
    for file in sorted({*repository.files(), *repository._store.working_files()}):
        path = inside(repository.root, file)
        committed = repository.read(file) if file in repository.files() else None
        if not path.is_file():
            lost = len(committed.messages) if committed else 0
            found.append(
                Finding(file, 0, "removed", f"the file is gone, not committed, with {lost} messages")
            )
            continue
        working = parse(decode(path.read_bytes()))
        found += check_text(file, working)
        if committed is not None and committed.text != working.text:
            for _, message in _lost([(file, committed, working)]):
                what = _says_lost(message, "an edit that is not committed")
                found.append(Finding(file, 0, "lost", what))
    found += _lost_by_hand(repository)
    return tuple(sorted(set(found)))


def check_text(file: str, doc: Conversation) -> Iterator[Finding]:
    """What one file's text shows by itself."""
    lines = _Lines(doc.text)
    for kind, offset, text in (
        *_strange_text(doc),
        *_strange_threads(doc),
        *(finding for message in doc.messages for finding in _strange_message(message, doc)),
    ):
        yield Finding(file, lines.number(offset), kind, text)


class _Lines:
    def __init__(self, text: str) -> None:
        self._starts = [match.end() for match in re.finditer("\n", text)]

    def number(self, offset: int) -> int:
        return bisect_right(self._starts, offset) + 1


_Raw = tuple[str, int, str]


def _strange_text(doc: Conversation) -> Iterator[_Raw]:
    for match in _CONFLICT.finditer(doc.text):
        if match[0].startswith(("<", ">")):
            yield "conflict", match.start(), "a conflict marker of Git's: decide what stands, and take it out"
    if bad := _NOT_UTF8.search(doc.text):
        yield "encoding", bad.start(), "bytes that are not UTF-8: save the file as UTF-8"
    if "\0" in doc.text:
        yield "encoding", doc.text.index("\0"), "a NUL character: take it out"
    first = min([thread.start for thread in doc.threads] or [len(doc.text)])
    if doc.text[:first].strip(_BLANK):
        yield "nobody", 0, "text before the first thread, which belongs to nobody"
    messages = [message.span.start for message in doc.messages]
    ends = [*(thread.start for thread in doc.threads[1:]), len(doc.text)]
    for thread, end in zip(doc.threads, ends, strict=False):  # an empty file has one end, no thread
        if not doc.text.startswith("###", thread.start):
            continue  # no heading: it begins with its first message
        begin = doc.text.find("\n", thread.start, end)
        following = bisect_right(messages, thread.start)
        until = messages[following] if following < len(messages) and messages[following] < end else end
        between = doc.text[begin:until] if begin >= 0 else ""
        if words := between.strip(_BLANK):
            yield (
                "nobody",
                begin + between.index(words),
                "text above a thread's first message: it is nobody's",
            )


def _strange_threads(doc: Conversation) -> Iterator[_Raw]:
    titles = Counter(thread.title for thread in doc.threads)
    for thread in doc.threads:
        if not thread.title:
            yield "title", thread.start, "a thread without a title: put a line '### Title' above it"
        elif titles[thread.title] > 1 and thread.ordinal:
            yield (
                "title",
                thread.start,
                f"a second thread titled {thread.title!r}: nothing can be posted to it",
            )


def _strange_message(message: Message, doc: Conversation) -> Iterator[_Raw]:
    start = message.span.start
    who = f"@{message.author}'s message {message.id}"
    if message.created_at is None:
        yield "time", start, f"{who} has a time that no calendar has: {message.created}"
    try:
        if valid_name(message.author) != message.author:
            raise InvalidName
    except InvalidName:
        yield "name", start, f"{who} has a name that nobody can speak under"
    if not message.body.strip() and not message.deleted:
        yield "empty", start, f"{who} says nothing"
    if message.parent is not None and columns(_indent(doc.text, start)) > message.parent.span.text_column + 1:
        yield "indent", start, f"{who} stands deeper than a reply to @{message.parent.author}, which it is"
    yield from _strange_body(message, who)


def _indent(text: str, start: int) -> str:
    return text[start : start + len(text[start:]) - len(text[start:].lstrip(" \t"))]


def _strange_body(message: Message, who: str) -> Iterator[_Raw]:
    source, start = message.source, message.span.start
    below = source.find("\n") + 1
    if not below:
        return
    fenced = _fenced_lines(message)
    for match in _MEANT.finditer(source, below):
        line = source[match.start() :].split("\n", 1)[0]
        if not line.lstrip().startswith("\\") and not STRUCTURE.match(line) and line.strip() not in fenced:
            yield "message", start + match.start(), f"this looks like a message, but is text of {who}"
    for match in _HEADING.finditer(source, below):
        if columns(match["indent"]) < message.span.text_column:
            what = f"a heading at the margin is text of {who}: threads begin with '### '"
            yield "heading", start + match.start(), what
    body = plain(message.body)
    if body.strip() and len(normalise_body(body)) > len(body):
        yield "open", start, f"{who} leaves a code fence or HTML open, which swallows what follows"


def _fenced_lines(message: Message) -> set[str]:
    """The lines of a body that stand in code, where a message may be shown."""
    if "```" not in message.body and "~~~" not in message.body:
        return set()
    from markdown_it import MarkdownIt  # here, so that starting a program does not pay for it

    tokens = MarkdownIt("commonmark").parse(message.body)
    code = (token.content for token in tokens if token.type in ("fence", "code_block"))
    return {line.strip() for text in code for line in text.split("\n")}


def _lost_by_hand(repository: ConversationRepository) -> Iterator[Finding]:
    """What commits made by hand lost, if it has not come back since."""
    standing = {(m.author, m.created) for file in repository.files() for m in repository.read(file).messages}
    for commit, group in groupby(repository.changes(), key=lambda change: change.commit):
        changes = list(group)
        if changes[0].trailers.get(OPERATION) in (None, HAND) and any(
            may_move(change.before_text, change.after_text) for change in changes
        ):
            files = [(change.file, change.before, change.after) for change in changes]
            for file, message in _lost(files):
                if (message.author, message.created) not in standing:
                    what = _says_lost(message, f"{changes[0].author}'s commit {commit[:12]}")
                    yield Finding(file, 0, "lost", what)


def _lost(
    files: Iterable[tuple[str, Conversation | None, Conversation | None]],
) -> Iterator[tuple[str, Message]]:
    """The messages of these files before that stand nowhere in them after, and where they stood."""
    texts = list(files)
    old = [one for file, before, _ in texts for one in candidates(file, before.messages if before else ())]
    new = [one for file, _, after in texts for one in candidates(file, after.messages if after else ())]
    moved, standing = matched(old, new, {}), {one.place for one in new}
    for file, before, _ in texts:
        for message in before.messages if before else ():
            place = Place(file, message.id)
            if place not in standing and place not in moved:
                yield file, message


def _says_lost(message: Message, what: str) -> str:
    words = " ".join(message.body.split())[:40]
    answered = f", which {len(message.replies)} answered" if message.replies else ""
    return f"{what} lost @{message.author}'s message {message.id}{answered}: {words!r}"

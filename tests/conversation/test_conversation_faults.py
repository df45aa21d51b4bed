"""Each known fault of the older system: a law that this one keeps and that one, kept small, breaks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Barrier
from typing import Protocol

import pytest
from older_system import OldConversation, OldMessage, OldPage, OldServer

from understudy.conversation import (
    ConversationRepository,
    Message,
    NotAllowed,
    delete,
    edit,
    move,
    parse,
    post,
)

NOW = "2026-01-01T00:00:00Z"
TALK = """### Sustainable Tea

- @ann [2025-01-01T00:00:00Z]: First.

  Second.

      code

- @bob [2025-01-01T00:00:01Z]: Other.

### Tea

- @cy [2025-01-01T00:00:02Z]: Third.
"""


class System(Protocol):
    """What the laws ask of a conversation. In them, each author says one thing."""

    text: str

    def messages(self) -> list[OldMessage]: ...
    def post(self, thread: str, author: str, body: str, created: str) -> bool: ...
    def edit(self, author: str, body: str) -> bool: ...
    def delete(self, author: str) -> bool: ...
    def move(self, author: str, thread: str) -> bool: ...
    def saved(self) -> bytes: ...


class OurConversation:
    """This system by the same verbs."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _one(self, author: str) -> Message:
        (message,) = [message for message in parse(self.text).walk() if message.author == author]
        return message

    def messages(self) -> list[OldMessage]:
        return [OldMessage(one.depth, one.author, one.body) for one in parse(self.text).walk()]

    def post(self, thread: str, author: str, body: str, created: str) -> bool:
        self.text = post(parse(self.text), thread, author, body, datetime.fromisoformat(created))[0].text
        return True

    def edit(self, author: str, body: str) -> bool:
        self.text = edit(parse(self.text), self._one(author).id, body)[0].text
        return True

    def delete(self, author: str) -> bool:
        self.text = delete(parse(self.text), self._one(author).id).text
        return True

    def move(self, author: str, thread: str) -> bool:
        self.text = move(parse(self.text), self._one(author).id, thread)[0].text
        return True

    def saved(self) -> bytes:
        return parse(self.text).text.encode()


Law = Callable[[Callable[[str], System]], None]


def authors_below(text: str, title: str) -> list[str]:
    """Who speaks under a heading, by the lines of the file."""
    section = text.partition(f"### {title}\n")[2].partition("\n###")[0]
    return [line.split()[1][1:] for line in section.splitlines() if line.startswith("- @")]


def a_thread_is_found_by_its_whole_title(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    talk.post("Tea", "eve", "To the second thread.", NOW)
    assert authors_below(talk.text, "Tea") == ["cy", "eve"], "stands in a thread whose title holds the name"


def a_body_makes_no_messages(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    body = "I quote:\n- @ann [2025-01-01T00:00:00Z]: I never said this."
    talk.post("Tea", "eve", body, NOW)
    assert next(one for one in talk.messages() if one.author == "eve").body == body, "a body forged a message"
    assert len(talk.messages()) == 4, "a body forged a message"


def deleting_takes_the_whole_message(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    talk.delete("ann")
    assert "Second." not in talk.text and "code" not in talk.text, "what follows a blank line was left"


def moving_takes_the_whole_message(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    (before,) = [one.body for one in talk.messages() if one.author == "ann"]
    talk.move("ann", "Tea")
    (after,) = [one.body for one in talk.messages() if one.author == "ann"]
    assert after == before, "what follows a blank line was left"
    assert "Second." in talk.text.partition("### Tea\n")[2], "what follows a blank line was left"


def an_edit_keeps_paragraphs(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    talk.edit("bob", "One.\n\nTwo.")
    (body,) = [one.body for one in talk.messages() if one.author == "bob"]
    assert body == "One.\n\nTwo.", "a paragraph break was dropped"


def an_edit_keeps_the_indentation_of_code(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    talk.edit("bob", "```py\ndef f():\n    return 1\n```")
    assert "\n      return 1\n" in talk.text, "the indentation of code was dropped"


def an_unknown_target_is_an_error(new: Callable[[str], System]) -> None:
    talk = new(TALK)
    acts: list[Callable[[], bool]] = [
        lambda: talk.post("Milk", "eve", "x", NOW),
        lambda: talk.edit("nobody", "x"),
        lambda: talk.delete("nobody"),
        lambda: talk.move("nobody", "Tea"),
        lambda: talk.move("ann", "Milk"),
    ]
    for act in acts:
        before = talk.text
        try:
            succeeded = act()
        except (KeyError, ValueError):
            assert talk.text == before
        else:
            assert not succeeded, "an unknown target was reported as success"


def names_with_hyphens_speak(new: Callable[[str], System]) -> None:
    talk = new("### Tea\n\n- @ann-marie.b [2025-01-01T00:00:00Z]: Here.\n")
    assert [one.author for one in talk.messages()] == ["ann-marie.b"], "a name vanished"


def saving_keeps_every_letter(new: Callable[[str], System]) -> None:
    talk = new("### Thé\n\n- @zoë [2025-01-01T00:00:00Z]: 你好 ☕\n")
    assert talk.saved().decode() == talk.text, "letters were garbled"


def tabs_nest_and_stay(new: Callable[[str], System]) -> None:
    talk = new(
        "### Tea\n\n- @ann [2025-01-01T00:00:00Z]: x\n\n\t- @bob [2025-01-01T00:00:00Z]: y\n\n\t  \tz\n"
    )
    assert [(one.depth, one.author) for one in talk.messages()] == [(0, "ann"), (1, "bob")], (
        "a tab hid a reply"
    )
    talk.post("Tea", "eve", "a\tb\n\tc", NOW)
    assert talk.messages()[-1].body == "a\tb\n\tc", "a tab hid a reply"


def carriage_returns_are_no_text(new: Callable[[str], System]) -> None:
    talk = new("### Tea\r\n\r\n- @ann [2025-01-01T00:00:00Z]: x\r\n\r\n  y\r\n")
    assert [one.body for one in talk.messages()] == ["x\n\ny"], "line endings became text"
    talk.post("Tea", "eve", "z", NOW)
    assert talk.text.count("\n") == talk.text.count("\r\n"), "line endings were mixed"


def fences_hold_code(new: Callable[[str], System]) -> None:
    code = "```\n- @eve [2025-01-01T00:00:00Z]: code\n\n  more\n```"
    indented = code.replace("\n", "\n  ")
    talk = new(f"### Tea\n\n- @ann [2025-01-01T00:00:00Z]:\n  {indented}\n")
    assert [(one.author, one.body.strip()) for one in talk.messages()] == [("ann", code)], (
        "code became a message"
    )


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        (a_thread_is_found_by_its_whole_title, "whose title holds the name"),
        (a_body_makes_no_messages, "a body forged a message"),
        (deleting_takes_the_whole_message, "what follows a blank line was left"),
        (moving_takes_the_whole_message, "what follows a blank line was left"),
        (an_edit_keeps_paragraphs, "a paragraph break was dropped"),
        (an_edit_keeps_the_indentation_of_code, "the indentation of code was dropped"),
        (an_unknown_target_is_an_error, "an unknown target was reported as success"),
        (names_with_hyphens_speak, "a name vanished"),
        (saving_keeps_every_letter, "letters were garbled"),
        (tabs_nest_and_stay, "a tab hid a reply"),
        (carriage_returns_are_no_text, "line endings became text"),
        (fences_hold_code, "code became a message"),
    ],
)
def test_the_law_holds_here_and_the_older_system_breaks_it(law: Law, fault: str) -> None:
    law(OurConversation)
    with pytest.raises(AssertionError, match=fault):
        law(OldConversation)


WRITERS, ROUNDS = 8, 5


def all_is_kept(say: Callable[[int, str], object], bodies: Callable[[], list[str]]) -> None:
    """Many speak at once, from what they saw; whatever was acknowledged is there once."""

    def speak(writer: int) -> list[str]:
        said = []
        for number in range(ROUNDS):
            body = f"writer {writer}, message {number}"
            if say(writer, body):
                said.append(body)
        return said

    with ThreadPoolExecutor(WRITERS) as pool:
        acknowledged = [body for said in pool.map(speak, range(WRITERS)) for body in said]
    assert len(acknowledged) == WRITERS * ROUNDS
    assert sorted(bodies()) == sorted(acknowledged), "acknowledged messages were lost"


def test_concurrent_writers_lose_nothing_here_and_most_in_the_older_system(tmp_path: Path) -> None:
    file = "conversations/talk.md"
    repository = ConversationRepository.create(tmp_path / "workspace")
    repository.add(file, "### Tea\n", "ann")
    barrier = Barrier(WRITERS, timeout=60)

    def say(writer: int, body: str) -> object:
        mine = ConversationRepository.open(repository.root)
        assert mine.read(file).threads
        barrier.wait()  # all have the file open
        return mine.post(file, "Tea", f"writer-{writer}", body)

    all_is_kept(say, lambda: [message.body for message in repository.read(file).walk()])

    old_file = tmp_path / "old.md"
    old_file.write_text("### Tea\n")
    server = OldServer(old_file, Barrier(WRITERS, timeout=60))
    with pytest.raises(AssertionError, match="acknowledged messages were lost"):
        all_is_kept(
            lambda writer, body: server.say(f"writer{writer}", body),
            lambda: [message.body for message in OldConversation(old_file.read_text()).messages()],
        )


PARTICIPANTS = """[participants.ann]
display = "Ann"
email = "ann@example.org"
kind = "person"
rights = ["read", "post", "moderate", "teach", "admin"]

[participants.guest]
display = "Guest"
email = "guest@example.org"
kind = "person"
rights = ["read"]
"""


def rights_hold_below_the_page(say: Callable[[str], bool], text: Callable[[], str]) -> None:
    """Who may only read, and does not ask the page, writes nothing all the same."""
    before = text()
    assert say("ann") and text() != before
    before = text()
    with suppress(PermissionError):
        say("guest")
    assert text() == before, "only the browser held the rights"


def test_rights_hold_in_this_layer_and_only_in_the_browser_of_the_older_system(tmp_path: Path) -> None:
    file = "conversations/talk.md"
    repository = ConversationRepository.create(tmp_path / "workspace")
    repository.set_participants(PARTICIPANTS, "ann")
    repository.start(file, "Tea", "ann", "First.")
    rights_hold_below_the_page(
        lambda who: bool(repository.post(file, "Tea", who, f"By {who}.")), lambda: repository.read(file).text
    )
    with pytest.raises(NotAllowed, match="guest"):
        repository.post(file, "Tea", "guest", "x")

    old_file = tmp_path / "old.md"
    old_file.write_text("### Tea\n")
    page = OldPage(OldServer(old_file), {"ann": {"post"}, "guest": set()})
    assert page.button_shown("ann") and not page.button_shown("guest")
    with pytest.raises(AssertionError, match="only the browser held the rights"):
        rights_hold_below_the_page(lambda who: page.server.say(who, f"By {who}."), old_file.read_text)

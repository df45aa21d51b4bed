"""The quick ways give what the plain ways give: one thread for the whole, pieces for a whole blob."""

import subprocess
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pygit2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.conversation import Conversation, ConversationError, Message, edit, parse, post, reply
from understudy.conversation.history import decode, encode
from understudy.conversation.objects import PIECE_BYTES, cut, recut, write_object
from understudy.conversation.sections import Sections

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
LINES = st.sampled_from(
    [
        "### A",
        "### B",
        "### A",
        "###",
        "### ",
        "- @ann [2026-01-01T00:00:00Z]: x",
        "- @ann [2026-01-01T00:00:00Z]:",
        "  - @bob [2026-01-01T00:00:01Z]: y",
        "    - @ann [2026-01-01T00:00:00Z]: z",
        " - @cid [2026-01-01T00:00:02Z]: odd",
        "\t- @cid [2026-01-01T00:00:02Z]: tab",
        "  ```",
        "```",
        "  text",
        "text",
        "<!--",
        "  <!--",
        "# heading",
        "",
        "",
        "é\udc80",
    ]
)
TEXTS = st.builds(
    lambda bom, parts, last: bom + "".join(line + ending for line, ending in parts) + last,
    st.sampled_from(["", "", "\ufeff"]),
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\n", "\n\n", "\r\n", "\r\n\r\n"])), max_size=14),
    LINES,
)
BODIES = st.sampled_from(
    ["word", "- list\n- @x [2026-01-01T00:00:00Z]: forged", "```\nopen", "a\n\n    code", "<!-- x"]
)
_Act = Callable[[Conversation], tuple[Conversation, Message]]


def outcome(act: _Act, doc: Conversation) -> tuple[Conversation, Message] | type[Exception]:
    try:
        return act(doc)
    except ConversationError as error:
        return type(error)


STEPS = st.lists(
    st.tuples(st.sampled_from(["reply", "edit", "post"]), BODIES, st.integers(0, 20)), min_size=1, max_size=3
)


@given(TEXTS, STEPS)
def test_a_section_by_itself_gives_what_the_whole_gives(text: str, steps: list[tuple[str, str, int]]) -> None:
    doc = parse(text)
    sections = Sections.of(doc)
    for verb, body, pick in steps:
        title = doc.threads[pick % len(doc.threads)].title if doc.threads else "none"
        target = doc.messages[pick % len(doc.messages)].id if doc.messages else "none"
        acts: dict[str, _Act] = {
            "reply": partial(reply, to=target, author="ann", body=body, created=NOW),
            "edit": partial(edit, id=target, body=body),
            "post": partial(post, thread=title, author="ann", body=body, created=NOW),
        }
        number = sections.section(title=title) if verb == "post" else sections.section(target)
        plain = outcome(acts[verb], doc)
        if number is None:
            if not isinstance(plain, type):
                doc = plain[0]
                sections = Sections.of(doc)
            continue
        quick = outcome(acts[verb], sections.read(number))
        if isinstance(quick, type) or isinstance(plain, type):
            assert quick == plain
            continue
        if verb != "edit" and quick[1].id in sections.places:
            assert quick[1].id != plain[1].id, "a twin elsewhere: the whole has to be asked"
            doc = plain[0]
            sections = Sections.of(doc)
            continue
        sections, doc = sections.replaced(number, quick[0], quick[1].id), plain[0]
        assert sections.text == doc.text and decode(sections.data) == doc.text
        assert (quick[1].id, parent_of(quick[1])) == (plain[1].id, parent_of(plain[1]))
        assert set(sections.places) == {message.id for message in doc.messages}
        assert set(sections.titles) == set(Sections.of(doc).titles)
        assert sum(piece.length for piece in sections.pieces) == len(sections.data)


def parent_of(message: Message) -> str | None:
    return message.parent.id if message.parent else None


def test_the_quick_way_is_taken_where_it_matters() -> None:
    """The law above would hold for a shortcut that is never taken."""
    text = "### A\n\n- @ann [2026-01-01T00:00:00Z]: x\n\n### B\n\n- @bob [2026-01-01T00:00:00Z]: y\n"
    doc = parse(text)
    sections = Sections.of(doc)
    assert [sections.section(message.id) for message in doc.messages] == [0, 1]
    assert sections.section(title="B") == 1 and sections.section(title="C") is None
    assert len(sections.read(1).messages) == 1
    roots = "### A\n\n- @ann [2026-01-01T00:00:00Z]: x\n\n- @bob [2026-01-01T00:00:00Z]: y\n"
    doc = parse(roots)
    sections = Sections.of(doc)
    assert [sections.section(message.id) for message in doc.messages] == [0, 1]
    assert sections.read(1).messages[0].id == doc.messages[1].id and sections.section(title="A") == 1
    assert Sections.of(parse(roots.replace("bob", "ann"))).section(doc.messages[0].id) is None
    for hindered in (text.replace("### B", "### A"), text.replace("x\n\n#", "x\n#")):
        assert Sections.of(parse(hindered)).section(doc.messages[0].id) is None


@given(
    st.lists(st.binary(max_size=PIECE_BYTES * 2), min_size=1, max_size=4), st.binary(max_size=40), st.data()
)
def test_pieces_are_one_zlib_stream_that_git_reads(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], new: bytes, data: st.DataObject
) -> None:
    before = b"".join(parts)
    start = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(start, len(before)))
    after = before[:start] + new + before[end:]
    pieces = recut(after, start, len(before) - end, cut(before))
    assert sum(piece.length for piece in pieces) == len(after)
    objects = tmp_path_factory.mktemp("objects")
    name = write_object(objects, "blob", after, pieces)
    assert name == str(pygit2.hash(after))
    stored = (objects / name[:2] / name[2:]).read_bytes()
    assert zlib.decompress(stored) == b"blob %d\0" % len(after) + after
    assert write_object(objects, "blob", after) == name


def test_only_around_the_change_is_compressed_again() -> None:
    before = bytes(range(256)) * 4096
    after = before[: 1 << 19] + b"new" + before[1 << 19 :]
    old = cut(before)
    pieces = recut(after, 1 << 19, 1 << 19, old)
    kept = {id(piece) for piece in old}
    assert sum(piece.length for piece in pieces if id(piece) not in kept) <= 2 * PIECE_BYTES + 3


def test_git_itself_finds_the_objects_sound(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    blob = write_object(tmp_path / ".git" / "objects", "blob", encode("text\n" * 50_000))
    tree = write_object(tmp_path / ".git" / "objects", "tree", b"100644 a.md\0" + bytes.fromhex(blob))
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-tree", tree], capture_output=True, text=True, check=True
    ).stdout
    assert listed == f"100644 blob {blob}\ta.md\n"
    done = subprocess.run(["git", "-C", str(tmp_path), "fsck", "--strict"], capture_output=True, check=False)
    assert done.returncode == 0

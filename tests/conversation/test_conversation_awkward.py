"""A corpus of awkward files: each is read as written here, byte for byte, and takes every operation."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from conversation_cases import NOW
from conversation_laws import VERBS, Step, hold_to_the_laws, take
from conversation_readers import ours, seen_by_markdown_it

from understudy.conversation import Conversation, ConversationError, StructureChanged, edit, parse, reply

CORPUS = Path(__file__).parent / "awkward"
T = "[2025-01-01T00:00:00Z]"
Outline = list[tuple[str, list[tuple[int, str, str]]]]

EXPECTED: dict[str, Outline] = {
    "byte-order-mark-message": [
        (
            "",
            [
                (0, "ann", "No heading behind the mark."),
            ],
        ),
    ],
    "byte-order-mark": [
        (
            "Tea",
            [
                (0, "ann", "A mark stands first.\n\n\ufeffAnd here."),
            ],
        ),
    ],
    "control-characters": [
        (
            "Tea",
            [
                (
                    0,
                    "ann",
                    "nul \x00, bell \x07, form feed \x0c and vertical tab \x0b.\n\x0c\nAfter a form feed.",
                ),
            ],
        ),
    ],
    "crlf": [
        (
            "Tea",
            [
                (0, "ann", "First.\n\nSecond."),
                (1, "bob", "```\ncode\n\n```"),
            ],
        ),
    ],
    "deleted": [
        (
            "Tea",
            [
                (0, "ann", ""),
                (1, "bob", "Why?"),
                (0, "ann", "*(deleted)*"),
                (0, "cy", "*(deleted)* by me"),
            ],
        ),
    ],
    "empty-bodies": [
        (
            "Tea",
            [
                (0, "ann", ""),
                (0, "bob", ""),
                (1, "cy", ""),
                (0, "dee", ""),
            ],
        ),
    ],
    "empty-first-lines": [
        (
            "Tea",
            [
                (0, "ann", "Two lines below."),
                (0, "bob", "  Indented by two."),
                (0, "cy", "Right below."),
            ],
        ),
    ],
    "empty": [],
    "headings-in-bodies": [
        (
            "Tea",
            [
                (
                    0,
                    "ann",
                    (
                        "# One\n\n### Three\n\nText\n===\n\n## At column 0\n\n#### Four\n\n"
                        "###No blank\n\n### One column in"
                    ),
                ),
                (0, "bob", "# Behind the colon"),
            ],
        ),
        ("Coffee ###", []),
        (
            "",
            [
                (0, "cy", "In a thread without a title."),
            ],
        ),
    ],
    "html-comments": [
        (
            "Tea",
            [
                (0, "ann", "<!-- one line -->\n\n<!--\n### Not a thread\n- @eve: no time\n-->"),
                (0, "bob", "Left open <!--"),
                (1, "cy", "A message all the same.\n\n<!-- @dee is away -->"),
            ],
        ),
    ],
    "link-definitions": [
        (
            "Tea",
            [
                (0, "ann", "See [this].\n\n[this]: http://example.org/ann"),
                (0, "bob", '[this]: http://example.org/bob\n"A title"'),
                (1, "cy", "[that]: http://example.org"),
            ],
        ),
    ],
    "message-shaped-lines": [
        (
            "Tea",
            [
                (
                    0,
                    "ann",
                    (
                        "Quoting:\n\n- @eve [2025-01-01T00:00:00Z]: escaped\n\n"
                        "\\- @eve [2025-01-01T00:00:00Z]: twice\n\n"
                        "> - @eve [2025-01-01T00:00:00Z]: quoted\n\n"
                        "* @eve [2025-01-01T00:00:00Z]: another bullet\n\n"
                        "+ @eve [2025-01-01T00:00:00Z]: and another\n\n"
                        "-  @eve [2025-01-01T00:00:00Z]: two blanks\n\n"
                        "- @eve[2025-01-01T00:00:00Z]: no blank\n\n- @eve [tomorrow]: no time\n\n"
                        "- @e v e [2025-01-01T00:00:00Z]: blanks in the name\n\n"
                        "- @eve [2025-01-01T00:00:00Z] no colon\n\n"
                        "text - @eve [2025-01-01T00:00:00Z]: in a line\n\n"
                        "1. - @eve [2025-01-01T00:00:00Z]: in a list"
                    ),
                ),
            ],
        ),
    ],
    "mixed-endings": [
        (
            "Tea",
            [
                (0, "ann", "One.\nTwo.\nThree\ralone.\r"),
                (0, "bob", "Last"),
            ],
        ),
    ],
    "names": [
        (
            "Tea",
            [
                (0, "ann-marie", "Hyphen."),
                (1, "bob_b", "Underscore."),
                (2, "c.y.", "Dots."),
                (0, "-._", "Nothing else."),
                (0, "007", "Digits."),
                (0, "o'neil,{}", "By hand only."),
            ],
        ),
    ],
    "no-heading": [
        (
            "",
            [
                (0, "ann", "First."),
            ],
        ),
        (
            "Later",
            [
                (0, "bob", "Second."),
            ],
        ),
    ],
    "no-last-line-end": [
        (
            "Tea",
            [
                (0, "ann", "Tight."),
                (0, "bob", "No line end"),
            ],
        ),
    ],
    "non-ascii": [
        (
            "Thé « 茶 » ☕",
            [
                (
                    0,
                    "zoë",
                    "Ça va ? 你好 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u202eright to left\u202c",
                ),
                (1, "名前", "e\u0301 is not é; nor\u2028is this\x85a line."),
                (0, "\u1f48\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2", "\xa0no-break blanks\xa0"),
                (0, "e\u0301va", "Decomposed."),
            ],
        ),
    ],
    "not-utf-8": [
        (
            "T\udce9",
            [
                (0, "ann", "caf\udce9 \udcff\udcfe \udced\udca0\udc80"),
                (0, "b\udcfcb", "In Latin-1."),
            ],
        ),
    ],
    "odd-indents": [
        (
            "Tea",
            [
                (0, "ann", "Far right."),
                (0, "bob", "Left of it."),
                (0, "cy", "One more column."),
                (0, "dee", "A root, for it is left of the text of cy."),
                (1, "eve", "Reply to dee."),
                (1, "fay", "Reply to dee too."),
                (0, "gus", "Root."),
                (1, "hal", "Reply at six."),
                (1, "ida", "Reply at two."),
            ],
        ),
    ],
    "only-words": [],
    "open-fences": [
        (
            "Tea",
            [
                (0, "ann", "Left open.\n\n```python\nx = 1"),
                (1, "bob", "A message all the same.\n\n~~~\ny\n```"),
                (
                    0,
                    "cy",
                    (
                        "Closed.\n\n````\n- @eve [2025-01-01T00:00:00Z]: Code.\n\n"
                        "  - @eve [2025-01-01T00:00:00Z]: Code too.\n```\n````\nAfter."
                    ),
                ),
                (0, "dee", "Closed one column off.\n\n```"),
                (1, "fay", "A message.\n```"),
            ],
        ),
    ],
    "same-author-and-second": [
        (
            "Tea",
            [
                (0, "ann", "One."),
                (0, "ann", "Two."),
                (1, "ann", "Below two."),
                (1, "ann", "Below two, again."),
                (0, "ann", "One."),
            ],
        ),
    ],
    "same-titles": [
        (
            "Tea",
            [
                (0, "ann", "One."),
            ],
        ),
        (
            "Tea",
            [
                (0, "ann", "Two."),
            ],
        ),
        (
            "tea",
            [
                (0, "ann", "Three."),
            ],
        ),
        (
            "Tea",
            [
                (0, "ann", "Four."),
            ],
        ),
    ],
    "tabs": [
        (
            "Tea",
            [
                (0, "ann", "\tAfter a tab.\n\n  By a tab.\n\tCode."),
                (1, "bob", "Child by a tab."),
                (2, "cy", "Grandchild by two.\nBody."),
                (1, "dee", "Child by a blank and a tab."),
            ],
        ),
    ],
    "times": [
        (
            "Tea",
            [
                (0, "ann", "0"),
                (0, "ann", "1"),
                (0, "ann", "2"),
                (0, "ann", "3"),
                (0, "ann", "4"),
                (0, "ann", "5"),
                (0, "ann", "6"),
                (0, "ann", "7"),
                (0, "ann", "8"),
                (0, "ann", "9"),
                (0, "ann", "10"),
            ],
        ),
    ],
}


def text_of(name: str) -> str:
    return (CORPUS / f"{name}.txt").read_bytes().decode("utf-8", "surrogateescape")


def outline(doc: Conversation) -> Outline:
    return [
        (thread.title, [(message.depth, message.author, message.body) for message in thread.walk()])
        for thread in doc.threads
    ]


def test_every_file_of_the_corpus_is_told_of() -> None:
    assert {path.stem for path in CORPUS.glob("*.txt")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_read_as_the_format_says_and_written_back_byte_for_byte(name: str) -> None:
    doc = parse(text_of(name))
    assert outline(doc) == EXPECTED[name]
    assert doc.text.encode("utf-8", "surrogateescape") == (CORPUS / f"{name}.txt").read_bytes()
    assert len({message.id for message in doc.walk()}) == len(doc.messages)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_operation_on_every_target_keeps_the_laws(name: str) -> None:
    doc = parse(text_of(name))
    done = 0
    for verb in VERBS:
        for first in range(max(len(doc.messages), len(doc.threads), 1)):
            for second in range(max(len(doc.threads), 1)):
                step = Step(verb, first, second, "eve", "A new title", "New.\n\n    code\n\n<div>")
                try:
                    result = take(doc, step)
                except StructureChanged:
                    raise
                except ConversationError:
                    continue
                if result is not None:
                    hold_to_the_laws(doc, step, result)
                    done += 1
    assert done >= (7 if doc.messages else 1)


def test_times_are_kept_as_written_and_mean_a_moment() -> None:
    east, west, far = (timezone(timedelta(minutes=minutes)) for minutes in (120, -210, 540))
    at = datetime(2025, 2, 12, 1, 14, 44, tzinfo=UTC)
    assert [(message.created, message.created_at) for message in parse(text_of("times")).walk()] == [
        ("2025-02-12T01:14:44Z", at),
        ("2025-02-12T01:14:44", at),
        ("2025-02-12T01:14:44.250Z", at.replace(microsecond=250_000)),
        ("2025-02-12T01:14:44,5Z", at.replace(microsecond=500_000)),
        ("2025-02-12T01:14:44+02:00", at.replace(tzinfo=east)),
        ("2025-02-12T01:14:44-0330", at.replace(tzinfo=west)),
        ("2025-02-12T01:14:44+09", at.replace(tzinfo=far)),
        ("2025-02-12 01:14", at.replace(second=0)),
        ("2025-02-12T01:14:44z", at),
        ("2025-13-41T25:61:61Z", None),
        ("2025-02-12T01:14:44.123456789Z", at.replace(microsecond=123_456)),
    ]


def test_two_hundred_levels_of_replies_take_every_operation() -> None:
    doc = parse("### Deep\n")
    for level in range(200):
        lines = f"{'  ' * level}- @a [2025-01-01T00:{level // 60:02}:{level % 60:02}Z]: level {level}\n"
        doc = parse(f"{doc.text}\n{lines}")
    ids = [message.id for message in doc.walk()]
    assert [message.depth for message in doc.walk()] == list(range(200))
    deepest, made = reply(doc, ids[-1], "eve", "Two\n\nparagraphs.", NOW)
    assert made.depth == 200 and made.body == "Two\n\nparagraphs."
    assert ours(deepest) == seen_by_markdown_it(deepest.text)
    for verb in VERBS:
        for first in (0, 100, 199):
            step = Step(verb, first, 0, "eve", "A new title", "New.")
            try:
                result = take(doc, step)
            except StructureChanged:
                raise
            except ConversationError:
                assert verb in ("move", "merge_threads")
                continue
            if result is not None:
                hold_to_the_laws(doc, step, result)


def test_a_file_of_five_megabytes_takes_an_edit_that_touches_its_own_bytes() -> None:
    paragraph = "  " + "word " * 40 + "\n"
    text = "### Wide\n" + "".join(
        f"\n- @a [2025-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z]: {n}\n\n{paragraph}"
        for n in range(21_500)
    )
    doc = parse(text)
    assert len(text) > 5_000_000 and len(doc.messages) == 21_500
    target = doc.messages[10_000]
    after, made = edit(doc, target.id, "Short.")
    assert after.text == f"{text[: target.span.body]} Short.{text[target.body_end :]}"
    assert made.id == target.id

"""Lessons as JSON Lines in the field's shapes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.lessons import (
    ChatMessage,
    Lesson,
    LessonFormat,
    Role,
    Shape,
    Source,
    digest,
    read_lessons,
    write_lessons,
)

SOURCE = Source("conversations/a.md", "T", "m", "c", "ann", "2026-01-01T00:00:00+00:00")
CONTEXT = (ChatMessage("system", "Be brief."), ChatMessage("user", "Go."))
PREFERENCE = Lesson(CONTEXT, "I go.", "Why?", SOURCE)
texts = st.text(st.characters(exclude_categories=[]), min_size=1).filter(lambda text: bool(text.strip()))
roles: st.SearchStrategy[Role] = st.sampled_from(("system", "user", "assistant"))
contexts = st.lists(st.builds(ChatMessage, roles, texts), max_size=4).map(tuple)


@given(st.lists(st.builds(Lesson, contexts, texts, st.one_of(st.none(), texts), st.just(SOURCE)), max_size=5))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, lessons: list[Lesson]
) -> None:
    path = tmp_path_factory.getbasetemp() / "lessons.jsonl"
    write_lessons(path, lessons)
    assert read_lessons(path) == lessons
    assert [digest(lesson) for lesson in read_lessons(path)] == [digest(lesson) for lesson in lessons]


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ("messages", {"messages", "source"}),
        ("completion", {"prompt", "completion", "source"}),
        ("preference", {"prompt", "chosen", "rejected", "source"}),
    ],
)
def test_each_shape(tmp_path: Path, shape: Shape, keys: set[str]) -> None:
    path = tmp_path / "lessons.jsonl"
    write_lessons(path, [PREFERENCE], shape)
    assert set(json.loads(path.read_text())) == keys
    expected = PREFERENCE if shape == "preference" else replace(PREFERENCE, rejected=None)
    assert read_lessons(path) == [expected]
    with pytest.raises(ValueError, match="needs a rejected answer"):
        write_lessons(path, [replace(PREFERENCE, rejected=None)], "preference")
    assert read_lessons(path) == [expected]
    assert [file.name for file in tmp_path.iterdir()] == ["lessons.jsonl"]


def test_plain_strings_as_other_tools_write_them(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    path.write_text(
        '{"prompt": "Go.", "completion": "I go."}\n'
        "\n"
        '{"prompt": "Go.", "chosen": "I go.", "rejected": "Why?", "score": 1}\n'
        '{"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "I go."}]}\r\n'
    )
    lessons = read_lessons(path)
    assert [lesson.rejected for lesson in lessons] == [None, "Why?", None]
    assert {(lesson.context, lesson.chosen) for lesson in lessons} == {
        ((ChatMessage("user", "Go."),), "I go.")
    }
    assert [lesson.source.message for lesson in lessons] == ["line 1", "line 3", "line 4"]
    assert lessons[0].source.file == str(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "JSON was expected"),
        ("[]", "an object was expected; got list"),
        ("{}", "keys .* were expected; got none"),
        ('{"prompt": "x", "chosen": "y"}', "keys .* were expected; got 'prompt', 'chosen'"),
        ('{"messages": []}', "must end with the assistant"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "must end with the assistant"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "one of system, user, assistant; got 'robot'"),
        ('{"messages": [{"role": "user"}]}', "a 'content' of text"),
        ('{"messages": 3}', "a string or a list"),
        ('{"prompt": "x", "completion": ""}', "one answer"),
        ('{"prompt": "x", "completion": "  "}', "is empty"),
        ('{"prompt": "x", "completion": [{"role": "user", "content": "y"}]}', "one answer of the assistant"),
        ('{"prompt": "x", "chosen": "y", "rejected": 5}', "a string or a list"),
        ("\udcff", "JSON was expected"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "lessons.jsonl"
    good = b'{"prompt": "x", "completion": "y"}\n'
    path.write_bytes(good * 2 + line.encode("utf-8", "surrogateescape") + b"\n" + good)
    with pytest.raises(LessonFormat, match=f"line 3: .*{problem}") as caught:
        read_lessons(path)
    assert caught.value.line == 3

"""Conversations and lessons as token ids."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.engine import (
    BadRequest,
    BrokenTemplate,
    decode_text,
    encode_chat,
    encode_lesson,
    encode_text,
    load_tokenizer,
    write_miniature,
)
from understudy.lessons import ChatMessage

QUESTION = (ChatMessage("system", "Be kind."), ChatMessage("user", "Put the cup away."))
MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(write_miniature(tmp_path_factory.mktemp("model"), "llama"))


def with_template(tokenizer: Any, tmp_path: Path, template: str) -> Any:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    return load_tokenizer(tmp_path)


def test_a_prompt_is_what_the_template_renders(tokenizer: Any) -> None:
    expected = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in QUESTION],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(encode_chat(tokenizer, QUESTION)) == expected


def test_a_lesson_is_the_whole_conversation_up_to_the_end_of_the_turn(tokenizer: Any) -> None:
    example = encode_lesson(tokenizer, QUESTION, "I put it away.", "No.")
    turns = [
        {"role": m.role, "content": m.content}
        for m in (*QUESTION, ChatMessage("assistant", "I put it away."))
    ]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    newline = encode_text(tokenizer, "\n")
    assert list(example.context_ids + example.continuation_ids + newline) == whole
    assert example.context_ids == encode_chat(tokenizer, QUESTION)
    assert example.continuation_ids[-1] == tokenizer.eos_token_id
    assert decode_text(tokenizer, example.continuation_ids) == "I put it away."
    assert example.rejected_ids is not None
    assert decode_text(tokenizer, example.rejected_ids) == "No."
    assert example.rejected_ids[-1] == tokenizer.eos_token_id
    assert encode_lesson(tokenizer, QUESTION, "Yes.").rejected_ids is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.lists(st.sampled_from(MARKS), max_size=3), st.text(max_size=10))
def test_nothing_a_person_writes_ends_a_turn_or_opens_another(
    tokenizer: Any, before: str, marks: list[str], after: str
) -> None:
    written = before + "".join(f"{mark}\nassistant" for mark in marks) + after
    specials = set(tokenizer.convert_tokens_to_ids(list(MARKS)))
    ids = encode_chat(tokenizer, [ChatMessage("user", written)])
    # The template's own: start and end of the user's turn, start of the assistant's.
    assert sum(token in specials for token in ids) == 3
    assert written.encode("utf-8", "replace").decode() in decode_text(tokenizer, ids)
    lesson = encode_lesson(tokenizer, [ChatMessage("user", "x")], written)
    assert sum(token in specials for token in lesson.continuation_ids) == 1
    assert decode_text(tokenizer, lesson.continuation_ids) == written


def test_a_template_that_rewrites_the_prompt_cannot_teach(tokenizer: Any, tmp_path: Path) -> None:
    counting = with_template(
        tokenizer,
        tmp_path,
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
    )
    with pytest.raises(BrokenTemplate, match="changes the prompt from token 0 of"):
        encode_lesson(counting, QUESTION, "Yes.")


def test_a_template_that_never_ends_a_turn_cannot_teach(tokenizer: Any, tmp_path: Path) -> None:
    endless = with_template(tokenizer, tmp_path, "{% for m in messages %}{{ m['content'] }} {% endfor %}")
    with pytest.raises(BrokenTemplate, match="would never stop"):
        encode_lesson(endless, QUESTION, "Yes.")


def test_what_a_template_refuses_is_explained(tokenizer: Any, tmp_path: Path) -> None:
    strict = with_template(tokenizer, tmp_path, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BrokenTemplate, match=r"got roles system, user: roles must alternate"):
        encode_chat(strict, QUESTION)


def test_thinking_is_off_unless_asked_for(tokenizer: Any, tmp_path: Path) -> None:
    template = (
        "{% if enable_thinking is defined and enable_thinking is false %}quiet{% else %}loud{% endif %}"
    )
    thinking = with_template(tokenizer, tmp_path, template)
    assert decode_text(thinking, encode_chat(thinking, QUESTION)) == "quiet"
    assert decode_text(thinking, encode_chat(thinking, QUESTION, {"enable_thinking": True})) == "loud"


@pytest.mark.parametrize("option", ["tokenize", "chat_template", "messages", "add_generation_prompt"])
def test_options_that_are_not_the_templates_are_refused(tokenizer: Any, option: str) -> None:
    with pytest.raises(BadRequest, match=option):
        encode_chat(tokenizer, QUESTION, {option: True})

"""Conversations as token ids, by the model's own chat template."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from understudy.engine.errors import BadRequest, BrokenCheckpoint, BrokenTemplate
from understudy.lessons import ChatMessage, Example

Options = Mapping[str, Any]
"""What a chat template takes besides the messages."""

_PRIVATE_USE = range(0xE000, 0xF900)  # Unicode's private use area: characters that mean nothing by themselves


def encode_text(tokenizer: Any, text: str, *, special_tokens: bool = False) -> tuple[int, ...]:
    """Token ids of `text`; with `special_tokens` the ones a tokenizer puts around a document are added."""
    return tuple(tokenizer(text, add_special_tokens=special_tokens)["input_ids"])


def decode_text(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of `token_ids`, without special tokens."""
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def encode_chat(
    tokenizer: Any, messages: Sequence[ChatMessage], options: Options | None = None
) -> tuple[int, ...]:
    """The prompt after which the assistant speaks: the rendered messages and the generation prompt.

    What a person writes cannot end a turn or open another: where a message spells out one of the model's
    special tokens, it is encoded as ordinary text. `options` go to the template. Thinking is off unless
    they say otherwise, because lessons teach answers without it.

    Raises BrokenCheckpoint when the model has no chat template, BrokenTemplate when it refuses the messages.
    """
    return _encode(tokenizer, messages, True, options or {})


def encode_turn(
    tokenizer: Any, messages: Sequence[ChatMessage], opening: str = ""
) -> tuple[tuple[int, ...], int, int]:
    """A conversation up to the end of its last message's turn, and where that message's own tokens are.

    Its own are those from the second number up to the third: what differs from the same conversation with
    another text in its place, behind the `opening` that its content begins with. Raises as encode_chat and
    encode_lesson do.
    """
    last = messages[-1]
    contents = (last.content, f"{opening}a", f"{opening}0")
    ids, *rest = (
        _whole(tokenizer, (*messages[:-1], ChatMessage(last.role, content))) for content in contents
    )
    start = min(_in_common(ids, other) for other in rest)
    behind = min(_in_common(ids[start:][::-1], other[start:][::-1]) for other in rest)
    return ids, start, len(ids) - behind


def encode_lesson(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    chosen: str,
    rejected: str | None = None,
    options: Options | None = None,
) -> Example:
    """A lesson as the trainer takes it: the prompt, and the answers up to and including the end of the turn.

    `context_ids + continuation_ids` are exactly the ids of the whole conversation as the template renders it.

    Raises BrokenTemplate when the template renders the prompt differently once it is answered, or does
    not end the turn with a special token, and BrokenCheckpoint when there is no template.
    """
    context = encode_chat(tokenizer, messages, options)
    return Example(
        context_ids=context,
        continuation_ids=_answer_ids(tokenizer, messages, context, chosen, options or {}),
        rejected_ids=None
        if rejected is None
        else _answer_ids(tokenizer, messages, context, rejected, options or {}),
    )


def _whole(tokenizer: Any, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
    if messages[-1].role == "assistant" and len(messages) > 1:
        example = encode_lesson(tokenizer, messages[:-1], messages[-1].content)
        return (*example.context_ids, *example.continuation_ids)
    return encode_chat(tokenizer, messages)


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    same = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        same += 1
    return same


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of what the model reads as structure."""
    return frozenset(tokenizer.convert_tokens_to_ids(_special_tokens(tokenizer)))


def _answer_ids(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    context: tuple[int, ...],
    answer: str,
    options: Options,
) -> tuple[int, ...]:
    whole = _encode(tokenizer, (*messages, ChatMessage("assistant", answer)), False, options)
    if whole[: len(context)] != context:
        same = next(i for i in range(len(context)) if whole[i : i + 1] != context[i : i + 1])
        raise BrokenTemplate(
            "expected a chat template that renders an answered conversation as its prompt plus the answer; "
            f"this one changes the prompt from token {same} of {len(context)} on "
            f"({decode_text(tokenizer, context[same : same + 8])!r}): no lesson can be made with it"
        )
    answered = whole[len(context) :]
    ends = [i for i, token in enumerate(answered) if token == tokenizer.eos_token_id]
    ends = ends or [i for i, token in enumerate(answered) if token in special_ids(tokenizer)]
    if not ends:
        raise BrokenTemplate(
            "expected a chat template that ends the assistant's turn with a special token; this one gives "
            f"{decode_text(tokenizer, answered[-8:])!r}: a model taught with it would never stop"
        )
    return answered[: ends[-1] + 1]


def _encode(
    tokenizer: Any, messages: Sequence[ChatMessage], prompt: bool, options: Options
) -> tuple[int, ...]:
    spelled = [token for token in _special_tokens(tokenizer) if any(token in m.content for m in messages)]
    stand_ins = dict(zip(_unused_characters(messages), spelled, strict=False))
    harmless = [ChatMessage(m.role, _replace(m.content, stand_ins)) for m in messages]
    text = _render(tokenizer, harmless, prompt, options)
    if not stand_ins:
        return encode_text(tokenizer, text)
    token_ids: list[int] = []
    for piece in re.split(f"([{''.join(stand_ins)}])", text):
        spelling = stand_ins.get(piece)
        # A special token is spelled in two halves, neither of which is the token.
        halves = (piece,) if spelling is None else (spelling[:1], spelling[1:])
        for half in halves:
            token_ids += encode_text(tokenizer, half) if half else ()
    return tuple(token_ids)


def _special_tokens(tokenizer: Any) -> list[str]:
    """What the model reads as structure, longest first."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token))


def _render(tokenizer: Any, messages: Sequence[ChatMessage], prompt: bool, options: Options) -> str:
    if not tokenizer.chat_template:
        raise BrokenCheckpoint(
            "expected a chat template beside the tokenizer, found none: this model can complete text but "
            "not chat; add chat_template.jinja to its directory"
        )
    taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"} & options.keys()
    if taken:
        raise BadRequest(
            f"expected options of the chat template's own, got {', '.join(sorted(taken))}, "
            "which only the server sets"
        )
    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, **{"enable_thinking": False, **options}
        )
    except TemplateError as error:
        roles = ", ".join(m.role for m in messages) or "none"
        raise BrokenTemplate(
            f"expected messages that the model's chat template takes, got roles {roles}: {error}"
        ) from error
    return text


def _replace(content: str, stand_ins: dict[str, str]) -> str:
    for character, spelling in stand_ins.items():
        content = content.replace(spelling, character)
    return content


def _unused_characters(messages: Sequence[ChatMessage]) -> list[str]:
    used = {character for m in messages for character in m.content}
    return [chr(code) for code in _PRIVATE_USE if chr(code) not in used]

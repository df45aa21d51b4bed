"""The laws that every operation keeps, on files in good order and on any other text.

`pytest tests/conversation --hypothesis-profile=thorough` holds them on thousands of cases each.
"""

import re

from conversation_cases import NOW, TALK, bodies, names, tidy_texts, titles, wild_texts
from conversation_laws import Step, hold_to_the_laws, ids, plain_steps, steps, take
from conversation_readers import ours, seen_by_markdown_it, seen_by_mistletoe
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from understudy.conversation import (
    Conversation,
    ConversationError,
    StructureChanged,
    Unchanged,
    delete,
    edit,
    normalise_body,
    parse,
    post,
    rename,
    reply,
    start,
)

law = settings(deadline=None)


@law
@given(wild_texts, steps)
def test_any_operation_on_any_text_keeps_the_laws_or_refuses(text: str, step: Step) -> None:
    doc = parse(text)
    try:
        done = take(doc, step)
    except ConversationError:
        return
    if done is not None:
        hold_to_the_laws(doc, step, done)


def carry_out(text: str, plan: list[Step]) -> Conversation:
    """The conversation after all steps that are possible; a file in good order is never called malformed."""
    doc = parse(text)
    for step in plan:
        try:
            done = take(doc, step)
        except StructureChanged:
            raise
        except ConversationError:
            continue
        if done is not None:
            hold_to_the_laws(doc, step, done)
            doc = done.after
    return doc


@law
@given(tidy_texts(), st.lists(steps, max_size=4))
def test_after_any_operations_markdown_it_sees_the_same_messages(text: str, plan: list[Step]) -> None:
    doc = carry_out(text, plan)
    assert seen_by_markdown_it(doc.text) == ours(doc)


@law
@given(tidy_texts(), st.lists(plain_steps, max_size=4))
def test_after_any_operations_mistletoe_sees_the_same_messages(text: str, plan: list[Step]) -> None:
    doc = carry_out(text, plan)
    assert seen_by_mistletoe(doc.text) == ours(doc)


def prefix(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def without_blank_line(text: str) -> str:
    """The text without its last line, if that is blank."""
    lines = re.findall(r"[^\n]*\n", text)
    return text.removesuffix(lines[-1]) if lines and not lines[-1].strip(" \t\r\n") else text


@law
@given(wild_texts, steps)
def test_an_operation_changes_one_place_and_leaves_all_other_bytes(text: str, step: Step) -> None:
    """What is put in stands in one piece; what is taken away is the message, and one blank line at most."""
    doc = parse(text)
    assume(step.verb not in ("move", "open", "merge_threads"))  # these take away here and put in there
    try:
        done = take(doc, step)
    except ConversationError:
        return
    assume(done is not None)
    assert done is not None
    new = done.after.text
    if step.verb in ("start", "post", "reply", "split"):
        extra = len(new) - len(text)
        assert extra > 0
        place = prefix(text, new)
        assert new[place + extra :] == text[place:]
    elif step.verb == "edit" and done.target:
        assert new.startswith(text[: done.target.span.body]) and new.endswith(text[done.target.body_end :])
    elif step.verb == "delete" and done.target:
        if done.target.id in ids(done.after):
            after = f" *(deleted)*{text[done.target.body_end :]}"
            assert new == text[: done.target.span.body] + after
        else:
            *_, last = done.target.walk()
            before, after = text[: done.target.span.start], text[last.body_end :].partition("\n")[2]
            whole = (before + after, without_blank_line(before) + after)
            assert new in (*whole, before + after.partition("\n")[2])
            assert new.strip(" \t\r\n\ufeff") in {each.strip(" \t\r\n\ufeff") for each in whole}
    elif step.verb == "rename":
        thread = doc.threads[step.first % len(doc.threads)]
        line = text[thread.start :].partition("\n")[0] if text.startswith("###", thread.start) else ""
        assert new.startswith(text[: thread.start])
        assert new.endswith(text[thread.start + len(line) :])


@law
@given(tidy_texts(), st.integers(0, 100), names, bodies, st.booleans())
def test_saying_something_and_deleting_it_gives_the_same_bytes(
    text: str, choice: int, name: str, body: str, root: bool
) -> None:
    doc = parse(text)
    assume(doc.messages)
    target = doc.messages[choice % len(doc.messages)]
    after, made = (
        post(doc, target.thread, name, body, NOW) if root else reply(doc, target.id, name, body, NOW)
    )
    assert delete(after, made.id).text == text


@law
@given(st.one_of(wild_texts, tidy_texts()), st.integers(0, 100), bodies, bodies)
def test_editing_and_editing_back_gives_the_same_bytes(
    text: str, choice: int, first: str, second: str
) -> None:
    doc = parse(text)
    living = [message for message in doc.walk() if not message.deleted]
    assume(living and normalise_body(first) != normalise_body(second))
    target = living[choice % len(living)].id
    try:
        doc, message = edit(doc, target, first)
    except Unchanged:
        return
    # A text whose only line endings are in the body leaves no trace of their kind when the body has one line.
    assume("\n" in doc.text[: message.span.body] + doc.text[message.body_end :])
    there, _ = edit(doc, target, second)
    back, _ = edit(there, target, normalise_body(first))
    behind = doc.message(target).body_end
    line_end, _, rest = doc.text[behind:].partition("\n")
    if rest.partition("\n")[0].strip(
        " \t\r"
    ):  # no blank line follows: an HTML block needed one, and it stays
        head = f"{doc.text[:behind]}{line_end}\n"
        assert back.text in (doc.text, f"{head}\n{rest}", f"{head}\r\n{rest}")
    else:
        assert back.text == doc.text


@law
@given(tidy_texts(), titles, titles)
def test_renaming_and_renaming_back_gives_the_same_bytes_andids(text: str, first: str, second: str) -> None:
    doc, made = start(parse(text), f"{first} 1", "a", "x", NOW)
    assume(f"{second} 2".strip() not in {thread.title for thread in doc.threads})
    there, moved = rename(doc, made.thread, f"{second} 2")
    back, returned = rename(there, f"{second} 2".strip(), made.thread.title)
    assert back.text == doc.text
    assert [message.id for message in back.walk()] == [message.id for message in doc.walk()]
    assert returned == {new: old for old, new in moved.items()}


@law
@given(wild_texts, st.lists(steps, max_size=5))
def test_ids_follow_their_messages_through_any_operations(text: str, plan: list[Step]) -> None:
    """Who holds an id and reads every mapping holds the same message, as long as it stands."""
    doc = parse(text)
    held = {message.id: message.id for message in doc.walk()}
    born = {message.id: (message.author, message.created) for message in doc.walk()}
    for step in plan:
        try:
            done = take(doc, step)
        except ConversationError:
            continue
        if done is None:
            continue
        now = {birth: done.moved.get(held_id, held_id) for birth, held_id in held.items()}
        held = {birth: held_id for birth, held_id in now.items() if held_id in ids(done.after)}
        doc = done.after
        for birth, held_id in held.items():
            message = doc.message(held_id)
            assert (message.author, message.created) == born[birth]
    assert len(set(held.values())) == len(held)


@law
@given(bodies)
@example("*(deleted)*")
@example("*(deleted)*\n\n")
@example(" *(deleted)*")
def test_no_body_reads_as_a_deletion(body: str) -> None:
    doc, made = start(parse(TALK), "T", "eve", body, NOW)
    assert not made.deleted and made.body == normalise_body(body)
    _, edited = edit(doc, doc.messages[0].id, body)
    assert not edited.deleted and edited.body == normalise_body(body)

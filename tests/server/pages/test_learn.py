"""Lessons on the page: who sees which, who decides, and what is told of them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from learning_pages import HOSTILE, Pages, correct, imported, learned, people, small_pages
from workspace_server import idle_service, small_workspace

from understudy.lessons import LedgerEntry
from understudy.server.pages.doorkeeper import local_path
from understudy.server.pages.learn import lesson_preview, propose_now
from understudy.server.pages.visitors import Visitor


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    workspace = small_workspace(tmp_path)
    people(workspace)
    with idle_service(workspace) as service:
        yield small_pages(workspace, service)


def proposed(
    pages: Pages, file: str, said: str = "Take the red one.", better: str = "Take the blue one."
) -> LedgerEntry:
    message, commit = correct(pages.site.workspace, file, said, better)
    entry = propose_now(pages.site, f"conversations/{file}.md", message, commit)  # type: ignore[arg-type]
    assert entry is not None
    return entry


def test_a_correction_is_proposed_at_once_shown_as_a_word_diff_and_leads_to_its_message(pages: Pages) -> None:
    entry = proposed(pages, "talk")
    assert propose_now(pages.site, entry.lesson.source.file, entry.lesson.source.message) == entry  # type: ignore[arg-type]
    seen = pages.see("/learn")
    assert "<del>red</del>" in seen and "<ins>blue</ins>" in seen
    assert f'href="/talk/talk#{entry.lesson.source.message}"' in seen
    one = pages.see(f"/learn/{entry.short}", "lena")
    assert "May be approved by jonas, maya" in one and "Approve and teach" not in one
    assert "What of talk?" in one
    with pytest.raises(AssertionError):
        pages.see(f"/learn/{entry.id[:4]}")


def test_what_an_edit_of_white_space_teaches_is_nothing(pages: Pages) -> None:
    message, commit = correct(pages.site.workspace, "talk", "Take it.", "Take  it.")
    assert propose_now(pages.site, "conversations/talk.md", message, commit) is None  # type: ignore[arg-type]


def test_lessons_of_private_conversations_and_imported_ones_are_not_for_everyone(pages: Pages) -> None:
    secret, brought = proposed(pages, "secret"), imported(pages.ledger, "Mint, please.")
    for name, sees in (("maya", {secret, brought}), ("jonas", {secret, brought}), ("lena", set())):
        listed = pages.see("/learn", name)
        assert {one for one in (secret, brought) if one.short in listed} == sees, name
        assert pages.get(f"/learn/{secret.short}", name)[0] == (200 if sees else 404)
        assert pages.get("/part/answer-now", name, lesson=secret.id)[0] == (200 if sees else 404)
    assert pages.get("/learn", "")[0] == 403
    assert "What of secret?" not in pages.see("/learn", "lena", text="secret")


def test_who_may_not_teach_decides_about_nothing(pages: Pages) -> None:
    entry, secret = proposed(pages, "talk"), proposed(pages, "secret")
    for action, fields in {
        "approve": {"ids": entry.id},
        "propose-again": {"ids": entry.id},
        "refuse": {"ids": entry.id},
        "train-approved": {"ids": entry.id},
        "lesson-edit": {"id": entry.id, "chosen": "Mine."},
        "cancel": {"session": "s"},
        "decide": {"session": "s", "decision": "keep"},
        "restore-weights": {"commit": ""},
    }.items():
        assert pages.do(action, fields, "lena") == 403, action
        assert pages.do(action, fields, "") in (403, 404), action
    assert pages.do("approve", {"ids": [entry.id, secret.id]}, "lena") in (403, 404)
    assert {one.state for one in pages.ledger.list()} == {"proposed"}
    assert len(pages.ledger.history(entry.id)) == 1


def test_several_are_approved_together_or_not_at_all(pages: Pages) -> None:
    entries = [proposed(pages, name) for name in ("one", "two", "three")]
    pages.ledger.refuse(entries[2].id, "maya", "no")
    pages.ledger.approve(entries[1].id, "maya")
    assert pages.do("approve", {"ids": [one.id for one in entries]}, "jonas") == 409
    assert pages.ledger.get(entries[0].id).state == "proposed"
    assert pages.do("approve", {"ids": [entries[0].id, entries[2].id]}, "jonas") == 303
    assert [pages.ledger.get(one.id).state for one in entries] == ["approved"] * 3
    assert pages.ledger.history(entries[0].id)[-1].by == "jonas"
    assert pages.do("approve", {"ids": []}) == 400
    assert pages.do("refuse", {"ids": entries[0].id, "reason": "later"}) == 303
    assert pages.ledger.history(entries[0].id)[-1].why == "later"


def test_settings_of_ones_own_are_checked_before_anything_is_approved(pages: Pages) -> None:
    entry, approvals = proposed(pages, "talk"), pages.site.service._approvals
    assert pages.do("approve", {"ids": entry.id, "epochs": "0"}) == 400 and "epochs" in pages.said[-1]
    assert pages.do("approve", {"ids": entry.id, "objective": "nonsense"}) == 400
    assert pages.do("approve", {"ids": entry.id, "lr": "much"}) == 400
    assert pages.ledger.get(entry.id).state == "proposed"
    assert pages.do("approve", {"ids": entry.id, "epochs": "3", "lr": "0.001", "rank": ""}) == 303
    other = proposed(pages, "other")
    pages.do("approve", {"ids": other.id})
    asked = approvals.take(by_themselves=True)
    assert asked is not None and (asked.lessons, asked.settings) == ((entry.id,), {"lr": 0.001, "epochs": 3})
    asked = approvals.take(by_themselves=True)
    assert asked is not None and (asked.lessons, asked.settings) == ((other.id,), {})
    approvals.set_aside([other.id])
    assert approvals.take(by_themselves=True) is None
    assert pages.do("train-approved", {"ids": other.id}) == 303
    asked = approvals.take(by_themselves=False)
    assert asked is not None and asked.lessons == (other.id,)


def test_a_lesson_worded_anew_takes_the_place_of_the_old_one_for_good(pages: Pages) -> None:
    entry = proposed(pages, "talk")
    assert "Take the blue one." in pages.see(f"/learn/{entry.short}/edit", "jonas")
    assert pages.do("lesson-edit", {"id": entry.id, "chosen": "Take\r\nthe green one."}, "maya") == 303
    old, new = (pages.ledger.get(one.id) for one in pages.ledger.list())
    assert (old.state, new.state) == ("refused", "proposed")
    assert new.lesson.chosen == "Take\nthe green one." and new.lesson.context == old.lesson.context
    assert (new.lesson.rejected, new.lesson.source.author) == (old.lesson.rejected, "maya")
    assert new.short in pages.ledger.history(old.id)[-1].why
    source = old.lesson.source
    assert propose_now(pages.site, source.file, source.message) == old, "mined anew, it stays refused"  # type: ignore[arg-type]
    assert pages.ledger.get(new.id).state == "proposed"
    assert pages.do("lesson-edit", {"id": old.id, "chosen": "Again."}) == 409
    assert pages.do("lesson-edit", {"id": new.id, "chosen": new.lesson.chosen}) == 409
    assert pages.do("lesson-edit", {"id": new.id, "chosen": "  "}) == 400
    assert pages.get(f"/learn/{old.short}/edit")[0] == 409


def test_hostile_texts_are_only_text(pages: Pages) -> None:
    entry = proposed(pages, "talk", better=HOSTILE)
    brought = imported(pages.ledger, HOSTILE, HOSTILE + "x")
    pages.ledger.refuse(brought.id, "maya", HOSTILE)
    visitor = Visitor("maya", pages.site.repository.participants(), csrf=HOSTILE)
    shown = [
        pages.see("/learn"),
        pages.see("/learn", text=HOSTILE, author=HOSTILE, conversation=HOSTILE),
        pages.see(f"/learn/{entry.short}"),
        pages.see(f"/learn/{entry.short}/edit"),
        pages.see(f"/learn/{brought.short}"),
        str(lesson_preview(pages.site, visitor, entry)),  # type: ignore[arg-type]
        pages.part("/part/progress", was=HOSTILE),
    ]
    for text in shown:
        assert (
            "<script>alert" not in text
            and "<img src=x" not in text
            and "1337" not in re.sub(r"[0-9a-f]{12,}", "", text)
        )
        assert " style=" not in text and " onclick=" not in text


def test_the_preview_offers_its_buttons_to_those_who_may_press_them(pages: Pages) -> None:
    entry, participants = proposed(pages, "talk"), pages.site.repository.participants()
    for name, offered in (("jonas", True), ("lena", False)):
        shown = str(lesson_preview(pages.site, Visitor(name, participants, csrf="a"), entry))  # type: ignore[arg-type]
        assert ("Approve and teach" in shown) == offered and "<ins>blue</ins>" in shown
        assert "May be approved by jonas, maya" in shown
    pages.do("approve", {"ids": entry.id})
    after = pages.part("/part/lesson-preview", "jonas", lesson=entry.id)
    assert "It is trained next" in after and "Approve and teach" not in after


def test_the_list_is_filtered_and_paged(pages: Pages) -> None:
    for number in range(53):
        imported(pages.ledger, f"Answer {number}.")
    first, second = pages.see("/learn"), pages.see("/learn", page="2")
    assert "Answer 52." in re.sub("<[^>]+>", "", first) and "Answer 2." not in re.sub("<[^>]+>", "", first)
    assert "Answer 2." in re.sub("<[^>]+>", "", second) and "Page 2 of 2" in second
    assert "All (1)" in pages.see("/learn", text="answer 17.")
    assert "Proposed (53)" in pages.see("/learn", state="proposed")
    assert "Kept (0)" in pages.see("/learn", state="kept")
    for wrong in ({"page": "9"}, {"page": "0"}, {"page": "x"}, {"state": "odd"}):
        assert pages.get("/learn", **wrong)[0] in (400, 404), wrong


def test_what_became_of_a_lesson_stands_on_its_page_with_the_gates_evidence(pages: Pages) -> None:
    entry = proposed(pages, "talk")
    decisions = learned(pages.site.workspace, entry, "abc123abc123")
    mean = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 24, "unit": "nats"}
    probe = {"kind": "kept", "before": mean, "now": mean, "fall": None, "doubtful": False}
    decisions.record(
        "s" * 32,
        "abc123abc123",
        "ask",
        by="gate",
        why="polite is not decided",
        evidence={"kl": 0.01, "probes": {"polite": probe}, "verdicts": [], "split": "development"},
    )
    shown = pages.see(f"/learn/{entry.short}")
    assert "polite is not decided" in shown and "0.50 [0.25, 0.75]" in shown
    assert "Said before." in shown and "Said after." in shown and "2.500" in shown
    assert "Keep what was learned" in shown and "Keep what was learned" not in pages.see(
        f"/learn/{entry.short}", "lena"
    )
    listed = pages.see("/learn")
    assert "A session waits for a decision" in listed and "2.50 → 0.25" in listed
    assert pages.do("decide", {"session": "other", "decision": "keep"}) == 409
    assert pages.do("decide", {"session": "s" * 32, "decision": "maybe"}) == 400
    assert pages.do("decide", {"session": "s" * 32, "decision": "keep", "why": "I read them"}, "jonas") == 303
    assert pages.ledger.get(entry.id).state == "kept"
    assert "by jonas" in pages.see(f"/learn/{entry.short}")


def test_the_progress_says_what_the_trainer_does(pages: Pages) -> None:
    service = pages.site.service
    assert "There is no trainer" in pages.part("/part/progress", "lena")
    service.sessions.running = "run"
    for step in range(1, 1201):
        service.counts.curve.note("run", step, 2.0 / step)
    shown = pages.part("/part/progress", "lena")
    assert "<polyline" in shown and "every 1s" in shown and "Cancel" not in shown
    assert 'aria-label="Loss by step, from 2 to 0.00167"' in shown
    assert len(service.counts.curve.points("run")) <= 401
    assert "Cancel: put the weights back" in pages.part("/part/progress", "jonas")
    service.sessions.judging = True
    assert "Deciding whether it stays" in pages.part("/part/progress")
    service.sessions.running, service.sessions.judging = None, False
    service.sessions.ended = "run"
    assert "The session has ended" in pages.part("/part/progress", was="one before")
    assert "The session has ended" not in pages.part("/part/progress", was="run")


def test_after_an_action_people_come_back_to_a_page_of_this_site_only(pages: Pages) -> None:
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", ""):
        assert local_path(back, "/learn") == "/learn", back
    assert local_path("/talk/x#1") == "/talk/x#1"


def test_what_the_model_says_now_is_asked_once_and_names_its_weights(pages: Pages) -> None:
    entry = proposed(pages, "talk")
    first = pages.part("/part/answer-now", lesson=entry.id)
    assert "the weights as they came" in first
    assert pages.part("/part/answer-now", lesson=entry.id) == first

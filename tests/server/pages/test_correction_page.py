"""The whole life of a correction, by clicking: two people and the model that ships, in one browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import OpenPage, browser, check_accessibility, check_fits
from playwright.sync_api import Browser, Page, expect
from visiting import conversation, live, message, name_people, open_menu, visit
from workspace_server import serving

from understudy.conversation import Right
from understudy.pocket import new_workspace

TRAINED_MILLISECONDS = 120_000
DRAWS = 6


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def said_by_model(page: Page, to: str) -> str:
    """What the model answered to the message with this text, once it stands there as a message."""
    asked = message(page, to).get_attribute("id")
    shown = page.locator(f"article[id='{asked}'] + article.model")
    shown.wait_for()
    return shown.locator(".body").inner_text().strip()


def say_otherwise(opened: OpenPage, text: str) -> None:
    """Have the model say its message anew until it says something else: it is drawn, and may be the same."""
    for _ in range(DRAWS):
        open_menu(opened.page, text)
        with opened.page.expect_response("**/do/retry") as answered:
            opened.page.get_by_role("button", name="Say it anew").click()
        if answered.value.ok:
            return
        opened.expect("status", "409 for POST")
        opened.expect("console", "Error Code 409")
        expect(opened.page.get_by_text("nothing to edit")).to_be_visible()
        opened.page.reload()
    raise AssertionError(f"said {text!r} {DRAWS} times")


def test_from_the_wrong_answer_to_the_changed_one(chromium: Browser, tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "workspace")
    name_people(workspace, "maya", tom=(Right.POST,))
    with (
        serving(workspace) as server,
        visit(chromium, server, "maya") as maya,
        visit(chromium, server, "tom") as tom,
    ):
        # Maya asks for something plain, and the model suggests something else, before both their eyes.
        maya.page.get_by_role("link", name="New thread").click()
        maya.page.get_by_label("Conversation").fill("house")
        maya.page.get_by_label("Title").fill("Tea")
        maya.page.get_by_label("First message").fill("@understudy Use lemonade for the party.")
        maya.page.get_by_role("button", name="Start").click()
        maya.page.wait_for_url("**/talk/house*")
        tom.page.goto(f"{server.url}/talk/house")
        wrong = said_by_model(maya.page, "Use lemonade")
        assert said_by_model(tom.page, "Use lemonade") == wrong
        assert wrong.startswith("Have you"), "the habit it came with"
        answer = maya.page.locator("article.model")
        expect(answer.get_by_text("model", exact=True)).to_be_visible()
        expect(answer.locator(".weights")).to_have_text("weights initial")

        # She corrects it. The lesson is shown, and nothing is trained by that.
        answer.get_by_role("link", name="Correct").click()
        maya.page.get_by_label("What it should have said").fill("Done: lemonade for the party.")
        maya.page.get_by_role("button", name="Save").click()
        preview = maya.page.locator(".taught")
        expect(preview.locator("ins").first).to_be_visible()
        expect(preview).to_contain_text("maya")
        expect(message(tom.page, "Done: lemonade")).to_contain_text("edited by maya")
        assert [entry.state for entry in workspace.ledger.list()] == ["proposed"]
        check_accessibility(maya.page)

        # Tom may talk, not teach: he is offered no such thing.
        tom.page.get_by_role("link", name=re.compile("^Lessons")).click()
        expect(tom.page.get_by_role("button", name=re.compile("Approve"))).to_have_count(0)

        # She approves it, looks on while it is trained, and sees what it did.
        preview.get_by_role("button", name=re.compile("Approve")).click()
        maya.page.get_by_role("link", name=re.compile("^Lessons")).click()
        ended = maya.page.get_by_role("link", name="Show the lessons as they are now")
        ended.wait_for(timeout=TRAINED_MILLISECONDS)
        expect(maya.page.get_by_text("Asked again")).to_be_visible()
        check_accessibility(maya.page)
        ended.click()
        expect(maya.page.locator(".badge.state-kept")).to_be_visible()
        check_accessibility(maya.page)
        maya.page.get_by_role("link", name="Model", exact=True).click()
        expect(maya.page.get_by_role("link", name="Learn 1 lesson")).to_be_visible()
        check_accessibility(maya.page)

        # Something it was never taught: it listens now, with other weights.
        tom.page.goto(f"{server.url}/talk/house")
        live(tom.page)
        tom.page.get_by_role("link", name="New thread").click()
        tom.page.get_by_label("Title").fill("The kitchen")
        tom.page.get_by_label("First message").fill("@understudy Choose oak for the kitchen.")
        tom.page.get_by_role("button", name="Start").click()
        tom.page.wait_for_url("**at=*")
        changed = said_by_model(tom.page, "Choose oak")
        assert "oak" in changed, changed
        spoke = message(tom.page, changed).locator(".weights").inner_text()
        assert spoke != "weights initial"

        [entry] = workspace.ledger.list()
        every_page = (
            *("/", "/?q=lemonade", "/talk/house", "/learn", f"/learn/{entry.short}", "/model"),
            *(f"/model/{entry.weight_commit}", f"/model/compare?a={entry.weight_commit}&b=initial"),
            *("/people", "/people/me", "/part/editor?kind=start", "/sign-in"),
        )
        with visit(chromium, server, "maya", phone=True, dark=True) as phone:
            for page in (maya.page, phone.page):
                for path in every_page:
                    page.goto(server.url + path)
                    page.wait_for_load_state("networkidle")
                    check_accessibility(page)
                    check_fits(page)
            phone.page.goto(f"{server.url}/learn/nothing")
            check_accessibility(phone.page)
            phone.expect("status", "404")

        # And back: the model page takes it out of the weights again.
        maya.page.goto(f"{server.url}/model")
        maya.page.get_by_text("Forget everything").click()
        maya.page.get_by_role("button", name="Bring back the model as it came").click()
        expect(maya.page.get_by_role("link", name="Restore the model as it came")).to_be_visible(
            timeout=60_000
        )
        say_otherwise(tom, changed)
        expect(message(tom.page, changed)).to_have_count(0)
    said = conversation(workspace, "house")
    assert [author for author, _, _ in said] == ["maya", "understudy", "tom", "understudy"]

"""Conversations in a real browser: what two people do, each sees, and Git has."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from browser import browser, check_accessibility, check_fits, tab_to
from playwright.sync_api import Browser, Page, Route, expect
from visiting import conversation, file_of, live, message, name_people, open_menu, pages_workspace, visit
from workspace_server import Server, eventually, serving

from understudy.conversation import Access, Right, write_participants
from understudy.workspace import Workspace

FILE = "conversations/talk.md"
ALL = (Right.POST, Right.TEACH, Right.MODERATE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    workspace = pages_workspace(tmp_path_factory.mktemp("pages"))
    name_people(workspace, "maya", tom=ALL, lena=(Right.POST,))
    with serving(workspace, trained=False) as started:
        yield started


@pytest.fixture
def talk(server: Server) -> str:
    """A conversation of its own for each test: its name."""
    count = len(server.workspace.repository.files())
    name = f"talk{count}"
    server.workspace.repository.start(f"conversations/{name}.md", "Tea", "maya", "Which tea do we take?")
    return name


def test_what_one_says_the_other_sees_at_once(chromium: Browser, server: Server, talk: str) -> None:
    with (
        visit(chromium, server, "maya", f"/talk/{talk}") as maya,
        visit(chromium, server, "tom", f"/talk/{talk}") as tom,
    ):
        live(maya.page)
        live(tom.page)
        message(tom.page, "Which tea").get_by_role("link", name="Reply").click()
        tom.page.get_by_label("Your reply").fill("**Mint**, I think.")
        expect(tom.page.get_by_role("region", name="Preview").locator("strong")).to_have_text("Mint")
        tom.page.get_by_role("button", name="Reply", exact=True).click()
        expect(message(maya.page, "Mint, I think.")).to_be_visible()
        expect(message(tom.page, "Mint, I think.")).to_be_focused()
        expect(message(maya.page, "Mint, I think.").locator("strong.name")).to_have_text("Tom")
        assert message(maya.page, "Mint").locator("time").get_attribute("title"), "the exact time is on hover"

        message(tom.page, "Mint").get_by_role("link", name="Edit").click()
        tom.page.get_by_label("Your message").fill("Sage, on second thoughts.")
        tom.page.get_by_role("button", name="Save").click()
        expect(message(maya.page, "Sage")).to_contain_text("edited by tom")
        expect(message(maya.page, "Mint")).to_have_count(0)
        message(maya.page, "Sage").get_by_text("edited by tom").click()
        expect(maya.page.locator(".history ins").first).to_be_visible()
        check_accessibility(maya.page)
    assert conversation(server.workspace, talk) == [
        ("maya", "Which tea do we take?", 0),
        ("tom", "Sage, on second thoughts.", 1),
    ]


def test_a_thread_is_opened_in_a_new_conversation(chromium: Browser, server: Server) -> None:
    with visit(chromium, server, "tom") as tom:
        check_accessibility(tom.page)
        tom.page.get_by_role("link", name="New thread").click()
        tom.page.get_by_label("Conversation").fill("kitchen/plans")
        tom.page.get_by_label("Title").fill("Shelves & <b>hooks</b>")
        tom.page.get_by_label("First message").fill("- [x] measured\n- [ ] bought")
        tom.page.get_by_role("button", name="Start").click()
        tom.page.wait_for_url("**/talk/kitchen/plans*")
        expect(tom.page.get_by_role("heading", name="Shelves & <b>hooks</b>")).to_be_visible()
        expect(tom.page.get_by_role("checkbox")).to_have_count(2)
        tom.page.get_by_role("link", name="Talk", exact=True).click()
        expect(tom.page.get_by_role("link", name="kitchen/plans")).to_be_visible()
        tom.page.get_by_label("Search all messages").fill("bought")
        tom.page.get_by_role("button", name="Search").click()
        expect(tom.page.locator("mark")).to_have_text("bought")
        check_accessibility(tom.page)
    assert conversation(server.workspace, "kitchen/plans")[0][0] == "tom"


def test_two_edits_at_once_lose_nothing(chromium: Browser, server: Server, talk: str) -> None:
    repository = server.workspace.repository
    [first] = repository.read(f"conversations/{talk}.md").messages
    with visit(chromium, server, "maya", f"/talk/{talk}") as maya:
        message(maya.page, "Which tea").get_by_role("link", name="Edit").click()
        maya.page.get_by_label("Your message").fill("Which tea, and how much of it?")
        repository.edit(
            f"conversations/{talk}.md", first.id, "maya", "Which tea do the guests take?"
        )  # elsewhere
        expect(maya.page.locator("article .body").first).to_contain_text("guests")
        expect(maya.page.get_by_label("Your message")).to_have_value("Which tea, and how much of it?")
        maya.page.get_by_role("button", name="Save").click()
        expect(maya.page.get_by_role("alert")).to_contain_text("Nothing is lost")
        expect(maya.page.locator(".theirs ins").first).to_contain_text("the guests")
        expect(maya.page.get_by_label("Your text")).to_have_value("Which tea, and how much of it?")
        check_accessibility(maya.page)
        maya.page.get_by_label("Your text").fill("Which tea do the guests take, and how much of it?")
        maya.page.get_by_role("button", name="Save mine over theirs").click()
        expect(maya.page.locator("article .body").first).to_contain_text("and how much")
    assert conversation(server.workspace, talk) == [
        ("maya", "Which tea do the guests take, and how much of it?", 0)
    ]
    wordings = [one.body for one in repository.history(f"conversations/{talk}.md", first.id)]
    assert wordings[1] == "Which tea do the guests take?", "theirs stands in the history"


def test_drafts_survive_a_reload(chromium: Browser, server: Server, talk: str) -> None:
    with visit(chromium, server, "tom", f"/talk/{talk}") as tom:
        message(tom.page, "Which tea").get_by_role("link", name="Reply").click()
        tom.page.get_by_label("Your reply").fill("Half a thought")
        tom.page.reload()
        expect(tom.page.get_by_label("Your reply")).to_have_value("Half a thought")
        tom.page.get_by_role("button", name="Reply", exact=True).click()
        expect(message(tom.page, "Half a thought")).to_be_visible()
        tom.page.reload()
        expect(tom.page.get_by_label("Your reply")).to_have_count(0)
    assert conversation(server.workspace, talk)[-1] == ("tom", "Half a thought", 1)


def test_deleting_moving_and_splitting(chromium: Browser, server: Server, talk: str) -> None:
    repository, file = server.workspace.repository, f"conversations/{talk}.md"
    [first] = repository.read(file).messages
    reply = repository.reply(file, first.id, "tom", "Mint.\n\nAnd what about cups?").message
    before = file_of(server.workspace, talk).read_bytes()
    with (
        visit(chromium, server, "tom", f"/talk/{talk}") as tom,
        visit(chromium, server, "maya", f"/talk/{talk}") as maya,
    ):
        live(maya.page)
        live(tom.page)
        open_menu(tom.page, "Mint.")
        tom.page.get_by_role("button", name="Delete").click()
        expect(message(maya.page, "Mint.")).to_have_count(0)
        assert len(conversation(server.workspace, talk)) == 1
        tom.page.get_by_role("button", name="Undo").click()
        expect(message(maya.page, "Mint.")).to_be_visible()
        assert file_of(server.workspace, talk).read_bytes() == before, "to the byte"

        open_menu(tom.page, "Mint.")
        tom.page.get_by_role("link", name="Split off").click()
        tom.page.get_by_label("And what about cups?").check()
        tom.page.get_by_label("Title of the thread").fill("Cups")
        tom.page.get_by_role("button", name="Open the thread").click()
        expect(maya.page.get_by_role("heading", name="Cups")).to_be_visible()

        open_menu(tom.page, "Mint.")
        tom.page.get_by_role("link", name="Move", exact=True).click()
        tom.page.get_by_label("or to a new one titled").fill("Herbs")
        tom.page.get_by_role("button", name="Move", exact=True).click()
        expect(maya.page.get_by_role("heading", name="Herbs")).to_be_visible()
        expect(tom.page.get_by_role("heading", name="Herbs")).to_be_visible()
        maya.page.goto(f"{server.url}/m/{talk}/{reply}")  # its old permanent link
        expect(maya.page.locator("article:target")).to_contain_text("Mint.")
    threads = [thread.title for thread in repository.read(file).threads]
    assert threads == ["Tea", "Cups", "Herbs"]


def taken(page: Page, held: list[Route]) -> Route:
    """The request that the page has just made, held back."""
    while not held:
        page.wait_for_timeout(20)  # requests arrive only while Playwright is called
    return held.pop()


def test_an_answer_may_come_after_what_it_tells_of(chromium: Browser, server: Server, talk: str) -> None:
    """What happened comes over `/live` too, and often sooner than the answer to whoever asked for it."""
    repository, file = server.workspace.repository, f"conversations/{talk}.md"
    held: list[Route] = []
    with visit(chromium, server, "tom", f"/talk/{talk}") as tom:
        live(tom.page)
        for action in ("reply", "delete"):
            tom.page.route(f"**/do/{action}", lambda route: held.append(route))

        for reply in ("Sage.", "Mint."):
            message(tom.page, "Which tea").get_by_role("link", name="Reply").click()
            tom.page.get_by_label("Your reply").fill(reply)
            tom.page.get_by_role("button", name="Reply", exact=True).click()
            route = taken(tom.page, held)
            answer = route.fetch()
            expect(message(tom.page, reply)).to_be_focused()
            route.fulfill(response=answer)
            expect(tom.page.get_by_label("Your reply")).to_have_count(0)
            expect(message(tom.page, reply)).to_be_focused()

        open_menu(tom.page, "Mint.")
        message(tom.page, "Mint.").get_by_role("button", name="Delete").click()
        route = taken(tom.page, held)
        answer = route.fetch()
        expect(message(tom.page, "Mint.")).to_have_count(0)
        route.fulfill(response=answer)
        expect(tom.page.get_by_role("button", name="Undo")).to_be_visible()

        open_menu(tom.page, "Sage.")
        message(tom.page, "Sage.").get_by_role("button", name="Delete").click()
        route = taken(tom.page, held)
        repository.delete(file, repository.read(file).messages[-1].id, "maya")
        expect(message(tom.page, "Sage.")).to_have_count(0)
        route.continue_()
        expect(tom.page.locator("#toasts")).to_contain_text("no message")
        tom.expect("status", "/do/delete")
        tom.expect("console", "/do/delete")
    assert conversation(server.workspace, talk) == [("maya", "Which tea do we take?", 0)]


def test_what_was_missed_is_caught_up_after_the_server_was_away(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = pages_workspace(tmp_path_factory.mktemp("restarted"))
    name_people(workspace, "maya", tom=ALL)
    first = workspace.repository.start(FILE, "Tea", "maya", "Which tea?").message
    with serving(workspace, trained=False) as server:
        port = int(server.url.rpartition(":")[2])
        context = visit(chromium, server, "tom", "/talk/talk")
        tom = context.__enter__()
        live(tom.page)
        server.process.terminate()
        server.process.wait(30)
        expect(tom.page.locator("#live-state")).to_have_text("reconnecting")
        workspace.repository.reply(FILE, first, "maya", "Said while it was away.")
        commit_by_hand(workspace, "Which tea?", "Which tea, friends?")
    with serving(workspace, trained=False, port=port):
        expect(message(tom.page, "Said while it was away.")).to_be_visible()
        expect(message(tom.page, "Which tea, friends?")).to_be_visible()
        expect(tom.page.locator("article.message")).to_have_count(2)
        live(tom.page)
        for expected in ("request", "status", "console"):
            tom.watch.take(expected, "")
        context.__exit__(None, None, None)


def commit_by_hand(workspace: Workspace, old: str, new: str) -> None:
    """An edit in a plain editor, committed with plain Git."""
    file = file_of(workspace)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    git = ["git", "-c", "user.name=maya", "-c", "user.email=maya@example.org"]
    subprocess.run([*git, "commit", "-qam", "By hand"], cwd=workspace.root, check=True)


def test_a_commit_made_by_hand_is_live_too(chromium: Browser, server: Server) -> None:
    workspace = server.workspace
    if FILE not in workspace.repository.files():
        workspace.repository.start(FILE, "By hand", "maya", "As it was.")
    with visit(chromium, server, "lena", "/talk/talk") as lena:
        live(lena.page)
        commit_by_hand(workspace, "As it was.", "As it became.")
        expect(message(lena.page, "As it became.")).to_be_visible()


def test_what_one_may_not_is_not_offered_and_refused(chromium: Browser, server: Server, talk: str) -> None:
    with visit(chromium, server, "lena", f"/talk/{talk}") as lena:
        expect(message(lena.page, "Which tea").get_by_role("link", name="Edit")).to_be_hidden()
        open_menu(lena.page, "Which tea")
        expect(lena.page.get_by_role("button", name="Delete")).to_have_count(0)
        [first] = server.workspace.repository.read(f"conversations/{talk}.md").messages
        said = lena.page.evaluate(
            """async ([file, id]) => {
                const csrf = document.body.dataset.csrf, headers = {Accept: "application/json"};
                const body = new URLSearchParams({file, id, body: "Mine now", csrf});
                const answer = await fetch("/do/edit", {method: "POST", body, headers});
                return [answer.status, (await answer.json()).error.code];
            }""",
            [f"conversations/{talk}.md", first.id],
        )
        assert said == [403, "not_allowed"]
        lena.expect("status", "403")
    assert conversation(server.workspace, talk) == [("maya", "Which tea do we take?", 0)]


def test_a_name_that_is_none_tells_of_no_other(chromium: Browser, server: Server) -> None:
    repository = server.workspace.repository
    repository.start("conversations/surprise.md", "Cake", "maya", "For Lena.")
    present = repository.participants()
    private = {**present.conversations, "conversations/surprise.md": Access(True, frozenset({"maya"}))}
    repository.set_participants(write_participants(replace(present, conversations=private)), "maya")
    with visit(chromium, server, "lena") as lena:
        expect(lena.page.get_by_text("surprise")).to_have_count(0)
        for path, status in (("/talk/nothing", "404"), ("/part/editor?kind=reply&file=x&id=y", "404")):
            lena.page.goto(server.url + path)
            assert "surprise" not in lena.page.content()
            lena.expect("status", status)
        lena.page.goto(f"{server.url}/talk/surprise")
        expect(lena.page.get_by_role("alert")).to_contain_text("lena is no member")
        assert "Cake" not in lena.page.content()
        lena.expect("status", "403")
        lena.page.goto(f"{server.url}/?q=Cake")
        expect(lena.page.get_by_role("heading", name="0 found")).to_be_visible()


def test_a_deep_thread_folds_and_fits_a_phone(chromium: Browser, server: Server, talk: str) -> None:
    repository, file = server.workspace.repository, f"conversations/{talk}.md"
    last = repository.read(file).messages[0].id
    for number in range(12):
        last = repository.reply(
            file, last, ("tom", "maya")[number % 2], f"Level {number + 1}, " + "word " * 12
        ).message
    with visit(chromium, server, "tom", f"/talk/{talk}", phone=True) as tom:
        check_fits(tom.page)
        check_accessibility(tom.page)
        deepest = tom.page.locator(f"[id='{last}']")
        box = deepest.bounding_box()
        assert box is not None and box["width"] > 300, "still wide enough to read"
        expect(deepest.locator(".to")).to_contain_text("tom")
        fold = message(tom.page, "Which tea").get_by_role("button", name="Hide 12 replies")
        fold.click()
        expect(deepest).to_be_hidden()
        message(tom.page, "Which tea").get_by_role("button", name="Show 12 replies").click()
        expect(deepest).to_be_visible()
        message(tom.page, "Level 12,").get_by_role("link", name="Reply").tap()
        tom.page.get_by_label("Your reply").fill("From a phone")
        tom.page.get_by_role("button", name="Reply", exact=True).tap()
        expect(message(tom.page, "From a phone")).to_be_visible()
        check_fits(tom.page)


def test_all_of_it_by_keyboard(chromium: Browser, server: Server, talk: str) -> None:
    with visit(chromium, server, "tom", f"/talk/{talk}") as tom:
        live(tom.page)
        tab_to(tom.page, "Skip to content")
        tom.page.keyboard.press("Enter")
        tab_to(tom.page, "Reply to maya")
        tom.page.keyboard.press("Enter")
        expect(tom.page.get_by_label("Your reply")).to_be_focused()
        tom.page.keyboard.type("By keyboard alone")
        tom.page.keyboard.press("Control+Enter")
        expect(message(tom.page, "By keyboard alone")).to_be_focused()
        tab_to(tom.page, "Edit the message of Tom")
        tom.page.keyboard.press("Enter")
        expect(tom.page.get_by_label("Your message")).to_be_focused()
        tom.page.keyboard.press("Escape")
        expect(tom.page.get_by_label("Your message")).to_have_count(0)
        expect(message(tom.page, "By keyboard alone")).to_be_focused()
    assert eventually(lambda: conversation(server.workspace, talk)[-1]) == ("tom", "By keyboard alone", 1)

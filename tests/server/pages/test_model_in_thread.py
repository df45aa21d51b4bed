"""The model in a thread, in a real browser: it streams and is stopped, says it anew, in other ways, and with
criticism in view.
"""

import re
from collections.abc import Iterator

import pytest
import torch
from browser import browser, check_accessibility, open_page
from playwright.sync_api import Browser, expect
from visiting import conversation, live, message, name_people, open_menu, pages_workspace, visit
from workspace_server import Server, serving

from understudy.conversation import Access, Right, write_participants
from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics
from understudy.participant import STOPPED_TRAILER
from understudy.workspace import Workspace

ALL = (Right.POST, Right.TEACH, Right.MODERATE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A miniature that speaks gibberish, at length."""
    workspace = pages_workspace(tmp_path_factory.mktemp("speaking"))
    settings = workspace.root / "understudy.toml"
    settings.write_text(settings.read_text().replace("max_tokens = 8", "max_tokens = 1500"))
    workspace = Workspace.open(workspace.root)
    name_people(workspace, "maya", tom=ALL)
    with serving(workspace, trained=False) as started:
        yield started


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose answers are short."""
    workspace = pages_workspace(tmp_path_factory.mktemp("short"))
    name_people(workspace, "maya", tom=ALL, lena=(Right.POST,))
    with serving(workspace, trained=False) as started:
        yield started


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with directions to read."""
    workspace = pages_workspace(tmp_path_factory.mktemp("read"))
    draw = torch.Generator().manual_seed(0)
    table = [[0.5, 0.25], [0.5, 2.0]]
    manifest = ReadoutManifest(
        concepts=["calm", "brisk"],
        layers=[0, 1],
        hidden_size=32,
        dtype="float32",
        statistics=ReadoutStatistics(mean=table, deviation=table, norms=table, tokens=9),
    )
    vectors = {layer: torch.randn(2, 32, generator=draw) for layer in manifest.layers}
    Directions(manifest, vectors).save(workspace.root / "directions")
    settings = workspace.root / "understudy.toml"
    settings.write_text(settings.read_text().replace("[model]\n", '[model]\nreadout = "directions"\n'))
    workspace = Workspace.open(workspace.root)
    name_people(workspace, "maya", tom=ALL)
    with serving(workspace, trained=False) as started:
        yield started


@pytest.fixture(scope="module")
def chromium(server: Server, short: Server, read: Server) -> Iterator[Browser]:
    with browser() as started:
        yield started


def test_it_streams_to_everyone_and_stops_when_told(chromium: Browser, server: Server) -> None:
    repository = server.workspace.repository
    repository.start("conversations/long.md", "Long", "maya", "Tell me everything.")
    with (
        visit(chromium, server, "maya", "/talk/long") as maya,
        visit(chromium, server, "tom", "/talk/long") as tom,
    ):
        live(maya.page)
        live(tom.page)
        open_menu(maya.page, "Tell me everything.")
        maya.page.get_by_role("button", name="Ask the model").click()
        expect(maya.page.locator(".speech .body")).to_contain_text(re.compile(r"\S"))
        expect(tom.page.locator(".speech .body")).to_contain_text(re.compile(r"\S"))
        said = tom.page.locator(".speech .body").inner_text()
        tom.page.get_by_role("button", name="Stop").click()
        for page in (maya.page, tom.page):
            expect(page.locator("article.message.model")).to_have_count(1)
            expect(page.locator(".speech")).to_have_count(0)
        expect(maya.page.locator("article.model")).to_contain_text("stopped by tom")
        check_accessibility(maya.page)
    [_, (author, text, depth)] = conversation(server.workspace, "long")
    assert (author, depth) == ("understudy", 1) and text
    assert said.strip()[:3] in text, "what it had said so far stands"
    [made] = [change for change in repository.changes() if change.operation == "reply"]
    assert made.trailers[STOPPED_TRAILER] == "tom" and made.trailers["Understudy-Weights"] == "initial"


def test_another_answer_is_chosen_and_that_is_a_lesson(chromium: Browser, short: Server) -> None:
    workspace = short.workspace
    workspace.repository.start("conversations/choice.md", "Tea", "maya", "@understudy Which tea?")
    with visit(chromium, short, "tom", "/talk/choice") as tom:
        live(tom.page)
        answer = tom.page.locator("article.model")
        answer.wait_for()
        first = answer.locator(".body").inner_text().strip()
        answer.get_by_role("link", name="More").click()
        tom.page.get_by_role("button", name="Alternatives").click()
        options = tom.page.locator(".alternatives .option")
        expect(options.first).to_contain_text("It said")
        assert options.count() >= 2
        check_accessibility(tom.page)
        tom.page.get_by_role("button", name="Choose 1").click()
        expect(tom.page.locator(".taught")).to_contain_text("Teach this?")
        tom.page.get_by_role("button", name="Not now").click()
        expect(tom.page.locator(".taught")).to_contain_text("refused")
    [entry] = [one for one in workspace.ledger.list() if one.lesson.source.file == "conversations/choice.md"]
    assert entry.lesson.rejected == first and entry.lesson.chosen != first
    assert entry.state == "refused", "nothing is trained by a choice alone"
    assert conversation(workspace, "choice")[1] == ("understudy", entry.lesson.chosen, 1)


def test_it_says_its_message_anew_but_not_what_a_person_made_of_it(chromium: Browser, short: Server) -> None:
    workspace = short.workspace
    asked = workspace.repository.start("conversations/anew.md", "Tea", "maya", "@understudy Which cup?")
    with visit(chromium, short, "lena", "/talk/anew") as lena:
        live(lena.page)
        answer = lena.page.locator("article.model:not(.speech)")
        answer.wait_for()
        answer.get_by_role("link", name="More").click()
        lena.page.get_by_role("button", name="Say it anew").click()
        expect(answer).to_contain_text("edited by understudy")
        assert not [e for e in workspace.ledger.list() if e.lesson.source.file == "conversations/anew.md"]
        [reply] = workspace.repository.read("conversations/anew.md").message(asked.message).replies
        workspace.repository.edit("conversations/anew.md", reply.id, "maya", "The blue one.")
        expect(answer).to_contain_text("The blue one.")
        answer.get_by_role("link", name="More").click()
        lena.page.get_by_role("button", name="Say it anew").click()
        expect(lena.page.locator(".toast")).to_contain_text("maya has corrected this message")
        lena.expect("status", "409")
        lena.watch.take("console", "409")
    assert conversation(workspace, "anew")[1][1] == "The blue one."


def test_criticism_becomes_a_proposed_revision(chromium: Browser, short: Server) -> None:
    workspace = short.workspace
    workspace.repository.start("conversations/critic.md", "Tea", "maya", "@understudy Which spoon?")
    with visit(chromium, short, "tom", "/talk/critic") as tom:
        live(tom.page)
        tom.page.locator("article.model").wait_for()
        tom.page.locator("article.model").get_by_role("link", name="Reply").click()
        tom.page.get_by_label("Your reply").fill("That names no spoon.")
        tom.page.get_by_role("button", name="Reply", exact=True).click()
        open_menu(tom.page, "That names no spoon.")
        tom.page.get_by_role("button", name="Propose a revision").click()
        proposed = tom.page.get_by_label("Accept it, or edit it first")
        assert proposed.input_value(), "the model's own words"
        assert not [e for e in workspace.ledger.list() if e.lesson.source.file == "conversations/critic.md"]
        check_accessibility(tom.page)
        proposed.fill("The wooden one.")
        tom.page.get_by_role("button", name="Use it as the correction").click()
        expect(tom.page.locator(".taught ins").first).to_be_visible()
        expect(message(tom.page, "The wooden one.").first).to_be_visible()
    [entry] = [one for one in workspace.ledger.list() if one.lesson.source.file == "conversations/critic.md"]
    assert entry.lesson.chosen == "The wooden one." and entry.state == "proposed"
    assert [turn.content for turn in entry.lesson.context] == ["Which spoon?"], "the criticism is not in it"


def test_concepts_are_read_beside_a_message_when_asked_for(chromium: Browser, read: Server) -> None:
    read.workspace.repository.start("conversations/calm.md", "Tea", "maya", "A quiet cup of tea.")
    with visit(chromium, read, "tom", "/talk/calm") as tom:
        live(tom.page)
        expect(tom.page.locator(".strip")).to_have_count(0)
        open_menu(tom.page, "A quiet cup")
        tom.page.get_by_role("link", name="Readouts").click()
        strip = tom.page.locator(".strip")
        expect(strip).to_contain_text("quiet")
        assert strip.locator(".tok").count() > 3
        calm = strip.inner_html()
        tom.page.get_by_label("Concept").select_option("brisk")
        expect(tom.page.get_by_role("region", name="Readout of brisk")).to_be_visible()
        assert tom.page.locator(".strip").inner_html() != calm
        expect(tom.page.get_by_label("Scale")).to_have_value("z")
        expect(tom.page.locator(".readout")).to_contain_text("standard deviations from its usual readout")
        check_accessibility(tom.page)
        tom.page.get_by_label("Scale").select_option("raw")
        expect(tom.page.locator(".readout")).to_contain_text("(raw) on average")
        check_accessibility(tom.page)
        tom.page.get_by_role("link", name="Close").click()
        expect(tom.page.locator(".strip")).to_have_count(0)


def test_strangers_read_what_is_open_and_nothing_else(chromium: Browser, short: Server) -> None:
    repository = short.workspace.repository
    repository.start("conversations/news.md", "News", "maya", "The shop opens in May.")
    repository.start("conversations/secret.md", "Plans", "maya", "Nobody knows.")
    with open_page(chromium, f"{short.url}/talk/news") as stranger:
        expect(stranger.page.get_by_role("alert")).to_contain_text("sign in")
        stranger.expect("status", "401")
        present = repository.participants()
        places = {**present.conversations, "conversations/news.md": Access(False, frozenset(), True)}
        opened = type(present)(present.people, places)
        repository.set_participants(write_participants(opened), "maya")
        stranger.page.goto(f"{short.url}/")
        stranger.page.get_by_role("link", name="news").click()
        expect(message(stranger.page, "The shop opens in May.")).to_be_visible()
        expect(stranger.page.get_by_role("link", name="Reply")).to_have_count(0)
        live(stranger.page)
        repository.post("conversations/news.md", "News", "maya", "And closes in June.")
        expect(message(stranger.page, "And closes in June.")).to_be_visible()
        check_accessibility(stranger.page)
        stranger.page.goto(f"{short.url}/talk/secret")
        expect(stranger.page.get_by_role("alert")).to_be_visible()
        stranger.expect("status", "401")
        stranger.page.goto(f"{short.url}/learn")
        expect(stranger.page).to_have_url(re.compile("/sign-in"))

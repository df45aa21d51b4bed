"""Hostile texts through the real page: no script runs, no request leaves, no other message changes."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import pytest
from browser import browser, check_fits
from hostile import (
    BODIES_REFUSED,
    LARGE,
    NAMES_REFUSED,
    PATHS,
    PATHS_ENCODED,
    PATHS_REFUSED,
    PATHS_TOO_LONG,
    SMALL,
    TITLES,
    Cases,
)
from playwright.sync_api import Browser, expect
from visiting import live, message, name_people, pages_workspace, visit
from workspace_server import Server, serving

from understudy.access import Accounts
from understudy.conversation import ConversationError, Right

FOREIGN_ATTRIBUTES = """() => [...document.querySelectorAll('article .body *')]
    .flatMap(one => [...one.attributes])
    .filter(one => /^on|style|^(data-)?hx-|^srcset|^formaction/.test(one.name)).length"""
MOST_TITLE_CHARACTERS = 1000
SECRET = "do not show this"
BATCH = 24
"""Bodies on one page, each between two messages that must stay as they are."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    workspace = pages_workspace(tmp_path_factory.mktemp("hostile"))
    name_people(workspace, "maya", tom=(Right.POST, Right.TEACH, Right.MODERATE))
    with serving(workspace, trained=False) as started:
        yield started


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    """Of Tom's, for scripts."""
    accounts = Accounts(server.workspace.root, server.workspace.settings.access)
    return accounts.tokens.make("tom", "tests", frozenset({"read", "talk"}), None)


def act(server: Server, action: str, secret: str, **fields: str) -> httpx2.Response:
    """What a script may do: an action of the pages, with a token."""
    headers = {"Authorization": f"Bearer {secret}", "Accept": "application/json"}
    return httpx2.post(f"{server.url}/do/{action}", data=fields, headers=headers, timeout=60)


def batches(cases: Cases, size: int) -> list[Cases]:
    names = list(cases)
    return [{name: cases[name] for name in names[at : at + size]} for at in range(0, len(names), size)]


@pytest.mark.parametrize("number", range(len(batches(SMALL, BATCH))))
def test_bodies_stay_text(chromium: Browser, server: Server, token: str, number: int) -> None:
    cases = batches(SMALL, BATCH)[number]
    repository, file = server.workspace.repository, f"conversations/bodies{number}.md"
    first = repository.start(file, "Bodies", "maya", "The first stays.").message
    for name, body in cases.items():
        posted = act(server, "reply", token, file=file, id=first, body=body)
        assert posted.status_code == 200, (name, posted.text)
        after = repository.post(file, "Bodies", "maya", f"After {name} all is well.")
        assert repository.read(file).message(after.message).body == f"After {name} all is well."
    messages = repository.read(file).messages
    assert len(messages) == 1 + 2 * len(cases)
    assert {one.author for one in messages} == {"maya", "tom"}
    with visit(chromium, server, "tom", f"/talk/bodies{number}") as tom:
        live(tom.page)
        expect(tom.page.locator("article.message")).to_have_count(len(messages))
        expect(message(tom.page, "The first stays.").first).to_be_visible()
        for name in cases:
            expect(tom.page.get_by_text(f"After {name} all is well.", exact=True)).to_have_count(1)
        expect(tom.page.locator(".body script, .body iframe, .body img, .body style")).to_have_count(0)
        assert tom.page.evaluate(FOREIGN_ATTRIBUTES) == 0
        check_fits(tom.page)
        last = repository.reply(file, first, "tom", next(iter(cases.values())))  # and live, as it is said
        expect(tom.page.locator(f"[id='{last.message}']")).to_be_attached()


@pytest.mark.parametrize("name", LARGE)
def test_bodies_of_a_megabyte_are_shown_in_bounded_time(
    chromium: Browser, server: Server, token: str, name: str
) -> None:
    repository, file = server.workspace.repository, f"conversations/large-{name}.md"
    first = repository.start(file, "Large", "maya", "Small.").message
    posted = act(server, "reply", token, file=file, id=first, body=LARGE[name])
    assert posted.status_code == 200, posted.text[:300]
    repository.post(file, "Large", "maya", "After it all is well.")
    with visit(chromium, server, "tom", f"/talk/large-{name}") as tom:
        expect(message(tom.page, "After it all is well.")).to_be_visible()
        check_fits(tom.page)


def test_titles_stay_titles(chromium: Browser, server: Server, token: str) -> None:
    short = {name: title for name, title in TITLES.items() if len(title) <= MOST_TITLE_CHARACTERS}
    for name in set(TITLES) - set(short):
        refused = act(server, "start", token, name=f"title-{name}", title=TITLES[name], body="Too long.")
        assert refused.status_code == 400, refused.text
    with visit(chromium, server, "tom") as tom:
        for name, title in short.items():
            posted = act(server, "start", token, name=f"title-{name}", title=title, body="Under a title.")
            assert posted.status_code == 200, (name, posted.text)
            [thread] = server.workspace.repository.read(f"conversations/title-{name}.md").threads
            assert thread.title == title.strip()
            tom.page.goto(f"{server.url}/talk/title-{name}")
            expect(tom.page.locator("article.message")).to_have_count(1)
            check_fits(tom.page)
        tom.page.get_by_role("link", name="Talk", exact=True).click()
        expect(tom.page.locator(".talks h2 a")).to_have_count(len(server.workspace.repository.files()))
        check_fits(tom.page)


def test_what_cannot_be_said_is_refused(server: Server, token: str) -> None:
    head = server.workspace.repository.head()
    for name, body in BODIES_REFUSED.items():
        if name == "lone-surrogate":
            continue  # no client can post it
        refused = act(server, "start", token, name="refused", title="T", body=body)
        assert refused.status_code == 400, refused.text
    for name in NAMES_REFUSED.values():
        with pytest.raises(ConversationError):
            server.workspace.repository.start("conversations/refused.md", "T", name, "Text")
    assert server.workspace.repository.head() == head


def test_no_path_leads_out_of_the_conversations(server: Server, token: str) -> None:
    root = server.workspace.root
    (root / "secret.md").write_text(f"- @maya [2025-01-01T00:00:00Z]: {SECRET}\n")
    (root / "conversations" / "link").symlink_to(root)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    refused = {**PATHS_REFUSED, **PATHS_TOO_LONG}
    encoded = [quote(path.encode("utf-8", "surrogatepass"), safe="") for path in refused.values()]
    for address in [*encoded, *PATHS_ENCODED.values()]:
        name = address.removeprefix("conversations%2F").removeprefix("conversations/").removesuffix(".md")
        for route in ("/talk/", "/live/", "/m/", "/part/messages?after=x&file="):
            for given in (address, name):
                answer = raw_get(server, f"{route}{given}", headers)
                assert answer in (303, 307, 400, 401, 403, 404, 414, 431), (route, given, answer)
    for path in refused.values():
        if "\udcff" in path:
            continue  # no client can post it
        for action in ("reply", "edit", "delete"):
            answer = act(server, action, token, file=path, id="x", body="b").status_code
            assert 400 <= answer < 500, (action, path, answer)
    (root / "conversations" / "link").unlink()


def test_odd_names_are_names(chromium: Browser, server: Server, token: str) -> None:
    with visit(chromium, server, "tom") as tom:
        for name, path in PATHS.items():
            given = path.removeprefix("conversations/").removesuffix(".md").strip()
            posted = act(server, "start", token, name=given, title="Odd", body=f"Under {name}.")
            assert posted.status_code == 200, posted.text
            read = server.workspace.repository.read(f"conversations/{given}.md")
            assert read.messages[0].body == f"Under {name}."
            tom.page.goto(f"{server.url}/talk/{quote(given)}")
            live(tom.page)
            expect(message(tom.page, f"Under {name}.")).to_be_visible()
            tom.page.locator("article .when").click()
            expect(tom.page.locator("article:target")).to_be_visible()


def raw_get(server: Server, target: str, headers: dict[str, str]) -> int:
    """A GET whose address is sent as it is, without a client that tidies it."""
    import http.client

    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.putrequest("GET", target.encode("ascii", "replace").decode(), skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read(4096) if answer.status != 200 else b""
        assert SECRET.encode() not in body
        return answer.status
    finally:
        connection.close()

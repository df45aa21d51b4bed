"""A workspace that is being served for real, and people who come in by their links."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import OpenPage, open_page
from playwright.sync_api import Browser, Locator, Page
from workspace_server import Server, small_workspace

from understudy.access import Accounts
from understudy.access import invite as with_invited
from understudy.conversation import Right, write_participants
from understudy.workspace import Workspace

MODEL = "understudy"


def pages_workspace(folder: Path) -> Workspace:
    """A workspace with a miniature, whose people may post and come in as fast as tests do."""
    workspace = small_workspace(folder)
    settings = workspace.root / "understudy.toml"
    limits = "\n[access]\nposts_per_minute = 100000\nattempts_per_minute = 10000\n"
    settings.write_text(settings.read_text() + limits)
    return Workspace.open(workspace.root)


def name_people(workspace: Workspace, admin: str, **people: tuple[Right, ...]) -> None:
    """Let these take part, as an admin's invitations do."""
    repository = workspace.repository
    for name, rights in people.items():
        participants = with_invited(repository.participants(), admin, name, name.title(), rights, MODEL)
        repository.set_participants(write_participants(participants), admin)


def link_for(server: Server, name: str) -> str:
    """A fresh one-time link for a participant, as `understudy people link` gives it."""
    accounts = Accounts(server.workspace.root, server.workspace.settings.access)
    secret = accounts.links.make("invitation", name, "maya", accounts.invitation_lasts)
    return accounts.join_url(secret, server.url)


@contextmanager
def visit(
    browser: Browser, server: Server, name: str, path: str = "/", *, phone: bool = False, dark: bool = False
) -> Iterator[OpenPage]:
    """A person with a browser of their own, signed in by a link, at a page."""
    with open_page(browser, link_for(server, name), phone=phone, dark=dark) as opened:
        opened.page.get_by_role("button", name="Come in").click()
        opened.page.wait_for_url(f"{server.url}/")
        if path != "/":
            opened.page.goto(server.url + path)
        yield opened


def live(page: Page) -> None:
    """Wait until the page hears what is new."""
    page.locator("#live-state", has_text="live").wait_for()


def message(page: Page, text: str) -> Locator:
    """The one message on the page that says this; what somebody is writing below it is not said yet."""
    said = page.locator(":scope > :not(.slot)").filter(has_text=text)
    return page.locator("article.message").filter(has=said)


def open_menu(page: Page, text: str) -> None:
    """Everything that can be done with the message that says this."""
    message(page, text).get_by_role("link", name="More").click()
    message(page, text).get_by_role("group", name="About this message").wait_for()


def conversation(workspace: Workspace, name: str = "talk") -> list[tuple[str, str, int]]:
    """Author, text and depth of each message, as committed."""
    read = workspace.repository.read(f"conversations/{name}.md")
    return [(one.author, one.body, one.depth) for one in read.messages]


def file_of(workspace: Workspace, name: str = "talk") -> Path:
    """Where the conversation stands on disk."""
    return workspace.root / "conversations" / f"{name}.md"

"""Coming in, inviting and going out by clicking: with a real browser's own cookies, origins and policies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import OpenPage, browser, check_accessibility, check_fits, open_page, tab_to
from entering import Pages, open_pages, service_for_pages
from playwright.sync_api import Browser, Page

from understudy.conversation import Right
from understudy.server import serving
from understudy.server.training import TrainingService


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with service_for_pages(tmp_path_factory.mktemp("model")) as opened:
        yield opened


@pytest.fixture(scope="module")
def chromium(service: TrainingService) -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def pages(tmp_path: Path, service: TrainingService) -> Pages:
    return open_pages(tmp_path / "w", service)


@pytest.fixture
def url(pages: Pages) -> Iterator[str]:
    with serving(pages.app) as listening:
        yield listening


def check(page: Page) -> None:
    check_fits(page)
    check_accessibility(page)


def come_in(page: Page, url: str) -> None:
    page.get_by_role("button", name="Come in").click()
    page.wait_for_url(f"{url}/")


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_from_the_first_start_to_a_team(chromium: Browser, pages: Pages, url: str, phone: bool) -> None:
    first = pages.accounts.first_link(url) or ""
    with open_page(chromium, first, phone=phone) as owner:
        check(owner.page)
        owner.page.get_by_label("Name").fill("maya")
        come_in(owner.page, url)
        owner.page.goto(f"{url}/people")
        check(owner.page)
        owner.page.get_by_role("textbox", name="Name", exact=True).fill("ann")
        owner.page.get_by_label("Shown as").fill("Ann Lee")
        owner.page.get_by_role("button", name="Make the invitation").click()
        link = owner.page.get_by_label("An invitation for @ann").input_value()
        check(owner.page)
        owner.page.get_by_role("link", name="Done").click()
        for summary in owner.page.locator("summary").all():
            summary.click()
        check(owner.page)
        ann(chromium, url, link, phone=phone, dark=not phone)
        owner.page.reload()
        owner.page.get_by_text("Change @ann").click()
        owner.page.get_by_role("button", name="Remove @ann").click()
        owner.page.wait_for_url(f"{url}/people")
    assert set(pages.site.repository.participants().people) == {"maya", "understudy"}


def ann(chromium: Browser, url: str, link: str, *, phone: bool, dark: bool) -> None:
    """What the invited does: come in, look at what is hers, make a token, go."""
    with open_page(chromium, link, phone=phone, dark=dark) as opened:
        page = opened.page
        check(page)
        come_in(page, url)
        page.goto(f"{url}/people/me")
        check(page)
        page.get_by_label("What it is for").fill("nightly")
        page.get_by_role("button", name="Make the token").click()
        assert page.get_by_label("A new API token").input_value().startswith("us_")
        page.get_by_role("link", name="Done").click()
        page.get_by_role("button", name="Revoke token").click()
        page.get_by_text("None. A token lets").wait_for()
        page.get_by_role("button", name="Make a link").click()
        assert "/join/" in page.get_by_label("A link for another device").input_value()
        page.goto(f"{url}/people/me")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{url}/")
        page.goto(f"{url}/people")
        page.wait_for_url(f"{url}/sign-in?next=%2Fpeople")
        check(page)


def test_without_scripts_and_by_a_pasted_link(chromium: Browser, pages: Pages, url: str) -> None:
    pages.invite("ann", Right.POST)
    link = pages.accounts.links.make("invitation", "ann", "maya", pages.accounts.invitation_lasts)
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 360, "height": 700})
    try:
        page = context.new_page()
        page.goto(f"{url}/learn")
        page.get_by_label("Your link").fill(pages.accounts.join_url(link, url))
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("button", name="Come in").click()
        page.wait_for_url(f"{url}/learn")
        [cookie] = context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("understudy", True, "Lax")
        page.goto(f"{url}/people/me")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{url}/")
        assert context.cookies() == []
    finally:
        context.close()


def test_by_keyboard_alone(chromium: Browser, pages: Pages, url: str) -> None:
    with open_page(chromium, pages.accounts.first_link(url) or "") as owner:
        page = owner.page
        tab_to(page, "Name")
        page.keyboard.press("Control+A")
        page.keyboard.type("maya")
        tab_to(page, "Come in", role="button")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/")
    assert pages.accounts.links.owner() == "maya"


def test_another_sites_page_cannot_post_here(chromium: Browser, pages: Pages, url: str) -> None:
    """The browser itself sends what the guard looks at: the cookie is kept back, the origin told."""
    link = pages.accounts.first_link(url) or ""
    other = url.replace("127.0.0.1", "localhost")
    with open_page(chromium, link, also=[other]) as victim:
        victim.page.get_by_label("Name").fill("maya")
        come_in(victim.page, url)
        foreign(victim, f"{other}/sign-in", f"{url}/people/invite")
        victim.expect("status", "403 for POST")
        assert "expected a request of this server" in victim.page.content()
    assert pages.site.repository.participants().unrestricted


def foreign(opened: OpenPage, page_url: str, target: str) -> None:
    """Post a form to `target` from a page of another origin, whose policy allows it."""
    attack = (
        f'<form method="post" action="{target}"><input name="name" value="eve"><button>Win</button></form>'
    )
    opened.page.route(page_url, lambda route: route.fulfill(body=attack, content_type="text/html"))
    opened.page.goto(page_url)
    opened.page.get_by_role("button", name="Win").click()

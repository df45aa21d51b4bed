"""Pictures of the main pages for docs/: a workspace is served and one correction played through.

python scripts/screenshots.py          # into docs/screenshots
"""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from understudy.access import Accounts
from understudy.demo.stage import served
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

OUT = Path(__file__).parents[1] / "docs" / "screenshots"
DESK: ViewportSize = {"width": 1100, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


def take(page: Page, name: str) -> None:
    """The page as it stands."""
    page.wait_for_timeout(300)
    page.screenshot(path=OUT / f"{name}.png", animations="disabled")


def sign_in(browser: Browser, workspace: Workspace, url: str, size: ViewportSize, *, dark: bool) -> Page:
    """A browser of its own, come in by a link."""
    accounts = Accounts(workspace.root, workspace.settings.access)
    secret = accounts.links.make("invitation", "maya", "maya", timedelta(hours=1))
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", locale="en-GB")
    page = context.new_page()
    page.goto(accounts.join_url(secret, url))
    page.get_by_role("button", name="Come in").click()
    page.wait_for_url(f"{url}/")
    return page


def play(page: Page, phone: Page, url: str) -> None:
    """One correction, with a picture at each station."""
    page.goto(url)
    take(page, "list")
    page.get_by_role("link", name="welcome").click()
    answer = page.locator("article.model").first
    answer.wait_for(timeout=60_000)
    answer.get_by_role("link", name="Correct").click()
    page.get_by_label("What it should have said").fill("Done: lemonade for the party.")
    page.get_by_role("button", name="Save").click()
    page.locator(".taught").wait_for()
    page.locator(".taught").scroll_into_view_if_needed()
    take(page, "talk")
    page.locator(".taught").get_by_role("button", name="Approve").click()
    page.goto(f"{url}/learn")
    page.get_by_role("link", name="Show the lessons as they are now").wait_for(timeout=240_000)
    take(page, "lessons")
    page.get_by_role("link", name="What it did").click()
    page.wait_for_load_state("networkidle")
    take(page, "commit")
    page.goto(f"{url}/model")
    take(page, "model")
    page.goto(f"{url}/people")
    take(page, "people")
    for name, path in (("talk", "/talk/welcome"), ("lessons", "/learn"), ("model", "/model")):
        phone.goto(url + path)
        take(phone, f"{name}-phone")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = new_workspace(Path(folder) / "workspace", sample=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with served(workspace) as client:
            desk = sign_in(browser, workspace, client.url, DESK, dark=False)
            phone = sign_in(browser, workspace, client.url, PHONE, dark=True)
            play(desk, phone, client.url)
        browser.close()


if __name__ == "__main__":
    main()

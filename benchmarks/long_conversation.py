"""A conversation of 5,000 messages in a browser: first paint, and a reply from the button to the page.

Two peers in the same run: a conversation of 50 messages on the same server, and the whole long conversation
as one plain HTML page (`understudy export --html`), which shows everything at once.

    python benchmarks/long_conversation.py --messages 5000 --rounds 5
"""

import argparse
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from playwright.sync_api import Browser, Page

from understudy.access import Accounts
from understudy.conversation import export_html
from understudy.demo.stage import served
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

FEW = 50


def written(messages: int, seed: int = 0) -> str:
    """A conversation of so many messages, in threads of forty, nested up to six deep."""
    random, when = Random(seed), datetime(2026, 1, 1, tzinfo=UTC)
    lines: list[str] = []
    depth = 0
    for number in range(messages):
        if number % 40 == 0:
            lines += [f"### Thread {number // 40}", ""]
            depth = 0
        else:
            depth = random.randint(0, min(depth + 1, 6))
        indent, when = "  " * depth, when + timedelta(seconds=61)
        author = random.choice(("maya", "tom", "lena"))
        text = " ".join(
            random.choice(("tea", "with", "*much*", "`mint`", "for", "guests")) for _ in range(30)
        )
        lines += [f"{indent}- @{author} [{when:%Y-%m-%dT%H:%M:%SZ}]: {text}.", ""]
    return "\n".join(lines)


def first_paint(page: Page, address: str) -> float:
    """Milliseconds from the navigation to the first paint of content."""
    page.goto(address)
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def reply_time(page: Page, text: str) -> float:
    """Milliseconds from the click on Reply to the new message on the page."""
    page.locator("#live-state", has_text="live").wait_for()
    last = page.locator("article.message").last
    last.get_by_role("link", name="Reply").click()
    page.get_by_label("Your reply").fill(text)
    page.evaluate(
        """text => {
            const messages = document.getElementById('messages');
            const form = document.querySelector('form.editor');
            const look = new MutationObserver(() => {
                const bodies = [...document.querySelectorAll('article .body')];
                if (!bodies.some(one => one.textContent.includes(text))) return;
                look.disconnect();
                window.took = performance.now() - window.sent;
            });
            look.observe(messages, {childList: true, subtree: true});
            form.addEventListener('submit', () => { window.sent = performance.now(); });
        }""",
        text,
    )
    page.get_by_role("button", name="Reply", exact=True).click()
    page.wait_for_function("() => window.took !== undefined")
    return float(page.evaluate("window.took"))


def measure(browser: Browser, workspace: Workspace, url: str, static: Path, rounds: int) -> None:
    """Print medians and ratios."""
    accounts = Accounts(workspace.root, workspace.settings.access)
    context = browser.new_context()
    page = context.new_page()
    page.goto(accounts.join_url(accounts.links.make("invitation", "maya", "maya", timedelta(days=1)), url))
    page.get_by_role("button", name="Come in").click()
    page.wait_for_url(f"{url}/")
    addresses = {"long": f"{url}/talk/long", "short": f"{url}/talk/short", "exported": static.as_uri()}
    paints: dict[str, list[float]] = {name: [] for name in addresses}
    for _ in range(rounds):
        for name, address in addresses.items():
            paints[name].append(first_paint(page, address))
    replies: dict[str, list[float]] = {"long": [], "short": []}
    for number in range(rounds):
        for name, times in replies.items():
            page.goto(addresses[name])
            times.append(reply_time(page, f"Round {number} in {name}."))
    nodes = {}
    for name, address in addresses.items():
        page.goto(address)
        nodes[name] = page.evaluate("document.querySelectorAll('*').length")
    for name, times in paints.items():
        print(
            f"first paint, {name}: {statistics.median(times):.0f} ms (n = {rounds}), {nodes[name]} elements"
        )
    for name, times in replies.items():
        print(f"reply, {name}: {statistics.median(times):.0f} ms (n = {rounds})")
    paint, reply = (
        {name: statistics.median(times) for name, times in one.items()} for one in (paints, replies)
    )
    print(f"first paint, long over short: {paint['long'] / paint['short']:.2f}")
    print(f"first paint, long over exported: {paint['long'] / paint['exported']:.2f}")
    print(f"reply, long over short: {reply['long'] / reply['short']:.2f}")
    context.close()


def main() -> None:
    import shutil

    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = new_workspace(Path(folder) / "workspace")
        repository = workspace.repository
        for name, count in (("long", given.messages), ("short", FEW)):
            repository.add(f"conversations/{name}.md", written(count), "maya")
        static = Path(folder) / "long.html"
        file = "conversations/long.md"
        static.write_text(export_html({file: repository.read(file)}, "long"))
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with served(workspace) as client:
            measure(started, workspace, client.url, static, given.rounds)
        started.close()


if __name__ == "__main__":
    main()

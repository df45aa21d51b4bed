"""The whole server, from its first start: the link that it prints, sessions and tokens over its restart."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from workspace_server import Server, serving, small_workspace

from understudy.access import Accounts
from understudy.weights import read_commits


def printed_links(server: Server) -> list[str]:
    return re.findall(r"http://\S+/join/\S+", (server.workspace.root / "server.log").read_text())


def test_from_the_printed_link_over_a_restart(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    accounts = Accounts(workspace.root, workspace.settings.access)
    early = accounts.first_link("http://127.0.0.1:1") or ""
    with serving(workspace) as server:
        [link] = printed_links(server)
        assert httpx2.get(server.url + urlsplit(early).path).status_code == 410
        with httpx2.Client(base_url=server.url) as browser:
            came = browser.post(link, data={"name": "maya"}, headers={"Origin": server.url})
            assert (came.status_code, came.headers["location"]) == (303, "/")
            assert "@maya" in browser.get("/").text
            for path in ("/learn", "/model", "/people", "/people/me"):
                assert browser.get(path).status_code == 200, path
            cookie = browser.cookies["understudy"]
    token = accounts.tokens.make("maya", "script", ["read", "train"], None)
    with serving(workspace) as server:
        assert printed_links(server) == [link]
        kept = {"Cookie": f"understudy={cookie}"}
        assert "@maya" in httpx2.get(f"{server.url}/people/me", headers=kept).text
        assert httpx2.post(f"{server.url}/checkpoint", headers=kept).status_code == 401
        assert httpx2.get(f"{server.url}/people/me").status_code == 303
        assert server.call("GET", "/train/status", token=token).status_code == 200
        assert server.call("POST", "/train", {}, token=token).status_code == 400  # let in, told more
        asked = {
            "examples": [{"context_ids": [5], "continuation_ids": [6]}],
            "author": "somebody",
            "wait": True,
        }
        assert server.call("POST", "/train", asked, token=token).status_code == 200
        [commit] = read_commits(workspace.root / "model")
        assert commit.author == "maya", "a person's token speaks for nobody else"
        refused = server.call("POST", "/weights/restore", {"commit": "a"}, token=token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope")
        assert server.call("POST", "/train", {}, token="us_wrong").status_code == 401

"""Scripts with tokens: what a scope leaves of a person's rights, and for whom the workspace's token acts."""

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from entering import API, URL, Browser, Pages, open_pages, path_of, service_for_pages, shown_secret
from starlette.routing import Route

from understudy.access import SCOPES, Scope
from understudy.conversation import Right
from understudy.server.pages import page_routes
from understudy.server.pages.doorkeeper import action_scope
from understudy.server.training import TrainingService

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with service_for_pages(tmp_path_factory.mktemp("model")) as opened:
        yield opened


@pytest.fixture
def team(tmp_path: Path, service: TrainingService) -> Pages:
    """Maya is an admin, Ann may post, Tess may teach."""
    pages = open_pages(tmp_path / "w", service)
    pages.invite("ann", Right.POST)
    pages.invite("tess", Right.POST, Right.TEACH)
    return pages


def script(pages: Pages, name: str, *scopes: Scope) -> Browser:
    """A program with a token of this participant's."""
    program = pages.browser()
    token = pages.accounts.tokens.make(name, "a script", scopes, None)
    program.headers.update({"Authorization": f"Bearer {token}", **JSON})
    return program


# ---------------------------------------------------------------------- tokens


def test_a_token_is_made_shown_once_and_revoked(team: Pages) -> None:
    ann = team.signed_in("ann")
    made = ann.submit("/people/me/token", label="nightly \u202e run", scopes=["read", "talk"], days="30")
    secret = shown_secret(made)
    listed = ann.get("/people/me").text
    assert secret not in listed and "nightly" in listed and "\u202e" not in listed
    [token] = team.accounts.tokens.of("ann")
    assert token.scopes == {"read", "talk"} and token.expires == team.clock.now + timedelta(days=30)
    program = team.browser()
    headers = {"Authorization": f"Bearer {secret}", **JSON}
    assert program.post("/do/who", headers=headers).json()["name"] == "ann"
    assert team.signed_in("tess").submit("/people/me/token/revoke", number=token.number).status_code == 404
    assert ann.submit("/people/me/token/revoke", number=token.number).status_code == 303
    answer = program.get("/", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ann.submit("/people/me/token", label="x").status_code == 400
    assert ann.submit("/people/me/token", label="x", scopes="root").status_code == 400


def test_a_token_runs_out(team: Pages) -> None:
    token = team.accounts.tokens.make("ann", "x", ["read"], timedelta(days=1))
    program, headers = team.browser(), {"Authorization": f"Bearer {token}"}
    assert program.get("/", headers=headers).status_code == 200
    team.clock.now += timedelta(days=1)
    assert program.get("/", headers=headers).status_code == 401


PAGE_POSTS = {
    "/do/who": "talk",
    "/do/approve": "teach",
    "/do/cancel": "train",
    "/do/restore-weights": "weights",
    "/people/link": "admin",
}
API_POSTS = {
    "/score": "read",
    "/train": "train",
    "/finetune": "train",
    "/checkpoint": "train",
    "/lessons/train": "train",
    "/weights/restore": "weights",
    "/behaviours/decide": "teach",
}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_opens_what_its_scope_says(team: Pages, scope: Scope) -> None:
    program = script(team, "maya", scope)  # an admin's: no right is missing
    for path in ("/", "/learn", "/train/status"):
        assert (program.get(path).status_code == 200) == (scope == "read"), path
    for path, needed in PAGE_POSTS.items():
        answer = program.post(path, data={"name": "ann"})
        assert (answer.status_code == 200) == (scope == needed), (path, answer.text)
        assert answer.status_code in (200, 403)
    for path, needed in API_POSTS.items():
        answer = program.post(path)
        assert (answer.status_code == 200) == (scope == needed), path
        assert answer.status_code in (200, 403)
    assert set(API_POSTS) == set(API)


def test_every_action_of_the_pages_has_the_scope_that_was_meant() -> None:
    """A new action fails here until someone says what it takes of a token."""
    paths = [
        route.path for route in page_routes() if isinstance(route, Route) and "POST" in (route.methods or ())
    ]
    found = {path.removeprefix("/do/"): action_scope(path) for path in paths if path.startswith("/do/")}
    talking = (
        "start",
        "post",
        "reply",
        "edit",
        "delete",
        "restore",
        "move",
        "split",
        "rename",
        "read",
        "preview",
    )
    asking = ("ask", "retry", "stop", "alternatives", "revision")
    assert found == {
        **dict.fromkeys((*talking, *asking), "talk"),
        **dict.fromkeys(("approve", "propose-again", "refuse", "lesson-edit", "decide"), "teach"),
        **dict.fromkeys(("train-approved", "cancel"), "train"),
        "restore-weights": "weights",
    }
    others = {path for path in paths if not path.startswith(("/do/", "/people/"))}
    assert others == {"/join/{secret}", "/sign-in", "/sign-out"}  # which no token opens


@pytest.mark.parametrize("path", sorted(set(API) - {"/score"}))
def test_a_scope_gives_no_right_that_the_person_lacks(team: Pages, path: str) -> None:
    assert script(team, "ann", *SCOPES).post(path).status_code == 403
    assert script(team, "tess", *SCOPES).post(path).status_code == 200
    assert team.signed_in("maya").post(path).status_code == 401  # a session opens pages, never the API


def test_a_page_finds_no_more_rights_than_the_scope_leaves(team: Pages) -> None:
    left = {"read": ["read"], "talk": ["read", "post", "moderate"], "teach": ["read", "teach"]}
    for scope, rights in left.items():
        told = script(team, "maya", "read", scope).get("/").json()  # type: ignore[arg-type]
        assert told["rights"] == told["asked"] == rights
    told = script(team, "ann", *SCOPES).get("/").json()
    assert told["rights"] == told["asked"] == ["read", "post"]


def test_in_a_workspace_without_participants_a_scope_still_narrows(
    tmp_path: Path, service: TrainingService
) -> None:
    pages = open_pages(tmp_path / "w", service)
    told = script(pages, "maya", "read").get("/").json()
    assert (told["name"], told["rights"], told["asked"]) == ("maya", ["read"], ["read"])
    assert script(pages, "maya", "read").post("/train").status_code == 403
    assert script(pages, "maya", "train").post("/train").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/people/me"),
        ("POST", "/people/me/token"),
        ("POST", "/people/me/device"),
        ("POST", "/sign-out"),
        ("GET", "/github/start"),
        ("POST", "/join/x"),
    ],
)
def test_no_token_makes_a_token_or_a_session(team: Pages, method: str, path: str) -> None:
    answer = script(team, "maya", *SCOPES).request(method, path, data={"label": "x", "scopes": "read"})
    assert answer.status_code == 403
    own = {"Authorization": f"Bearer {team.site.workspace.token}", **JSON}
    if path.startswith("/people/me"):
        assert team.browser().request(method, path, headers=own, data={"label": "x"}).status_code == 403


def test_who_is_removed_has_no_token(team: Pages) -> None:
    program = script(team, "ann", "read", "talk")
    assert program.get("/").status_code == 200
    team.signed_in("maya").submit("/people/remove", name="ann")
    assert program.get("/").status_code == 401
    assert program.get("/train/status").status_code == 401


@pytest.mark.parametrize("credential", ["us_" + "a" * 43, "us_", "anything", "us_\udcff"])
def test_a_wrong_token_is_refused_on_every_page(team: Pages, credential: str) -> None:
    headers = {b"Authorization": f"Bearer {credential}".encode(errors="surrogateescape")}
    for path in ("/", "/learn", "/sign-in"):
        assert team.browser().get(path, headers=headers).status_code == 401
    assert team.browser().post("/train", headers=headers).status_code == 401
    assert team.browser().get("/health", headers=headers).status_code == 200


def test_a_wrong_token_does_not_fall_back_on_the_session(team: Pages) -> None:
    maya = team.signed_in("maya")
    assert maya.get("/", headers={"Authorization": "Bearer us_wrong"}).status_code == 401


def test_wrong_tokens_are_limited_by_address(tmp_path: Path, service: TrainingService) -> None:
    pages = open_pages(tmp_path / "w", service, settings="[access]\nattempts_per_minute = 3\n")
    guessing = pages.browser(address="203.0.113.9")
    headers = {"Authorization": "Bearer us_guess"}
    assert [guessing.post("/train", headers=headers).status_code for _ in range(5)] == [401] * 3 + [429] * 2
    right = pages.accounts.tokens.make("maya", "x", ["read"], None)
    for address, status in (("203.0.113.9", 429), ("203.0.113.10", 200)):
        found = pages.browser(address=address).get("/", headers={"Authorization": f"Bearer {right}"})
        assert found.status_code == status


# ---------------------------------------------------------------------- the workspace's own token


def test_the_workspaces_token_acts_for_whom_it_says(team: Pages) -> None:
    program = team.browser()
    program.headers.update({"Authorization": f"Bearer {team.site.workspace.token}", **JSON})
    assert program.post("/do/who").json()["name"] == "maya"  # the only admin
    told = program.post("/do/who", headers={"Understudy-As": "ann"}).json()
    assert (told["name"], told["rights"]) == ("ann", ["read", "post"])
    assert program.post("/do/who", headers={"Understudy-As": "eve"}).status_code == 403
    assert program.post("/do/who", headers={"Understudy-As": "a b"}).status_code == 400
    assert program.post("/train").status_code == 200
    assert [program.post("/do/who").status_code for _ in range(15)] == [200] * 15  # scripts have no burst


def test_the_workspaces_token_acts_for_the_owner(tmp_path: Path, service: TrainingService) -> None:
    pages = open_pages(tmp_path / "w", service)
    link = path_of(pages.accounts.first_link(URL) or "")
    pages.browser().post(link, data={"name": "zoë"})
    program = pages.browser()
    program.headers.update({"Authorization": f"Bearer {pages.site.workspace.token}", **JSON})
    assert program.get("/").json()["name"] == "zoë"
    assert program.get("/", headers={"Understudy-As": "ann%C3%A9"}).json()["name"] == "anné"


def test_a_persons_token_acts_for_nobody_else(team: Pages) -> None:
    program = script(team, "maya", *SCOPES)
    assert program.get("/", headers={"Understudy-As": "ann"}).status_code == 403
    assert program.get("/", headers={"Understudy-As": "maya"}).status_code == 200


def test_secrets_on_disk_are_this_users_only(team: Pages) -> None:
    folder = team.site.workspace.root / ".understudy"
    for name in ("cookie-key", "accounts.sqlite", "token"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert not list(folder.glob("cookie-key.*"))

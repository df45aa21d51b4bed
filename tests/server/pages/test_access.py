"""Coming in: links and whom they sign in, what strangers see, and what follows when people change."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from entering import FILE, URL, Browser, Pages, open_pages, path_of, service_for_pages

from understudy.access import remove
from understudy.conversation import Right
from understudy.server.pages.doorkeeper import local_path
from understudy.server.training import TrainingService

JSON = {"Accept": "application/json"}
ALL = [right.value for right in Right]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with service_for_pages(tmp_path_factory.mktemp("model")) as opened:
        yield opened


@pytest.fixture
def pages(tmp_path: Path, service: TrainingService) -> Pages:
    return open_pages(tmp_path / "w", service)


@pytest.fixture
def team(pages: Pages) -> Pages:
    """Maya is an admin, Ann may post."""
    pages.invite("ann", Right.POST)
    return pages


def owner(pages: Pages, name: str = "maya") -> Browser:
    browser = pages.browser()
    link = path_of(pages.accounts.first_link(URL) or "")
    assert browser.post(link, data={"name": name}).status_code == 303
    return browser


def code(answer: object) -> str:
    """The code of a refusal that was answered as JSON."""
    return str(answer.json()["error"]["code"])  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- coming in


def test_the_owner_comes_in_by_the_first_link_once(pages: Pages) -> None:
    link = path_of(pages.accounts.first_link(URL) or "")
    for _ in range(3):  # previews use nothing up
        shown = pages.browser().get(link)
        assert shown.status_code == 200 and "This is the first start" in shown.text
    browser = pages.browser()
    came = browser.post(link, data={"name": "maya", "next": "/learn"}, headers={"Origin": URL})
    assert (came.status_code, came.headers["location"]) == (303, "/learn")
    assert browser.name == "maya"
    assert pages.browser().post(link, data={"name": "eve"}).status_code == 410
    assert pages.accounts.first_link(URL) is None


def test_the_page_of_a_link_tells_nobody_its_address(pages: Pages) -> None:
    link = path_of(pages.accounts.first_link(URL) or "")
    answer = pages.browser().get(link)
    assert answer.headers["referrer-policy"] == "strict-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert re.findall(r'(?:href|src|action)="([^"]*//[^"]*)"', answer.text) == []
    assert link.rpartition("/")[2] not in answer.text


@pytest.mark.parametrize("name", ["understudy", "", "a b", "@maya", "a\u202eb"])
def test_the_owner_cannot_go_by_a_name_that_is_none(pages: Pages, name: str) -> None:
    link = path_of(pages.accounts.first_link(URL) or "")
    assert pages.browser().post(link, data={"name": name}).status_code == 400
    assert pages.browser().post(link, data={"name": "maya"}).status_code == 303


def test_among_participants_the_owners_link_is_for_an_admin(team: Pages) -> None:
    link = path_of(team.accounts.first_link(URL) or "")
    assert "<option" in team.browser().get(link).text
    assert team.browser().post(link, data={"name": "ann"}).status_code == 400
    assert team.browser().post(link, data={"name": "maya"}).status_code == 303


def test_an_invitation_names_who_invites_whom(team: Pages) -> None:
    link = team.accounts.links.make("invitation", "ann", "maya", timedelta(days=1))
    shown = team.browser().get(f"/join/{link}").text
    assert "@maya" in shown and "(@ann)" in shown
    browser = team.browser()
    assert browser.post(f"/join/{link}", data={"name": "maya"}).status_code == 303
    assert browser.name == "ann"  # whatever name was posted


@pytest.mark.parametrize("path", ["/join/nothing", "/join/" + "a" * 5000, "/join/%00", "/join/%f0%9f%98%80"])
def test_unknown_links_are_refused(pages: Pages, path: str) -> None:
    for method in ("GET", "POST"):
        answer = pages.browser().request(method, path)
        assert answer.status_code == 410 and "not known here" in answer.text


def test_links_that_ran_out_or_were_taken_back_are_refused(team: Pages) -> None:
    admin = team.signed_in("maya")
    late = team.accounts.links.make("invitation", "ann", "maya", timedelta(days=1))
    taken = team.accounts.links.make("invitation", "ann", "maya", timedelta(days=9))
    number = team.accounts.links.open_ones("ann")[0].number
    assert admin.submit("/people/link/revoke", number=number).status_code == 303
    assert "taken back" in team.browser().post(f"/join/{taken}").text
    team.clock.now += timedelta(days=1)
    assert "run out" in team.browser().post(f"/join/{late}").text


def test_a_link_of_someone_who_was_removed_is_refused(team: Pages) -> None:
    link = team.accounts.links.make("invitation", "ann", "maya", timedelta(days=1))
    team.accounts.change_people(team.site.repository, "maya", lambda present: remove(present, "ann"))
    for method in ("GET", "POST"):
        assert "takes no part" in team.browser().request(method, f"/join/{link}").text


@pytest.mark.parametrize(
    "given", ["{url}/join/{link}", " {link} ", "{url}/join/{link}?next=/x#y", "/join/{link}/"]
)
def test_a_pasted_link_leads_to_its_page(pages: Pages, given: str) -> None:
    link = path_of(pages.accounts.first_link(URL) or "").rpartition("/")[2]
    filled = given.replace("{url}", "https://elsewhere.example").replace("{link}", link)
    answer = pages.browser().post("/sign-in", data={"link": filled, "next": "/learn"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/join/{link}?next=%2Flearn")


@pytest.mark.parametrize("given", ["https://evil.example/", "../../etc", "a b", "", "//evil.example/join/"])
def test_what_is_no_link_is_refused(pages: Pages, given: str) -> None:
    assert pages.browser().post("/sign-in", data={"link": given}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "", "/a\r\nSet-Cookie: x", "/\t/x"],
)
def test_nobody_is_sent_elsewhere(pages: Pages, path: str) -> None:
    assert local_path(path) == "/"
    link = path_of(pages.accounts.first_link(URL) or "")
    assert pages.browser().post(link, data={"name": "maya", "next": path}).headers["location"] == "/"


def test_going_on_keeps_the_query() -> None:
    assert local_path("/talk/a?at=b#c") == "/talk/a?at=b#c"


# ---------------------------------------------------------------------- strangers


def test_strangers_see_the_open_pages_and_are_sent_to_sign_in_by_the_closed(pages: Pages) -> None:
    browser = pages.browser()
    assert browser.get("/").json()["rights"] == []
    for path in ("/learn", "/people", "/people/me", "/model"):
        answer = browser.get(path + "?a=b", headers={"Accept": "text/html"})
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={path.replace('/', '%2F')}%3Fa%3Db"
        assert browser.get(path, headers=JSON).status_code == 401
    shown = browser.get("/sign-in?next=%2Flearn").text
    assert 'value="/learn"' in shown and "GitHub" not in shown


def test_strangers_have_no_rights_however_they_are_asked(pages: Pages) -> None:
    """Without participants everyone may do everything: everyone who is signed in."""
    told = pages.browser().get("/", headers=JSON).json()
    assert (told["name"], told["rights"], told["asked"]) == ("", [], [])
    assert pages.signed_in("maya").get("/", headers=JSON).json()["rights"] == ALL


def test_strangers_post_nothing(pages: Pages) -> None:
    for path in ("/do/who", "/people/invite", "/people/me/token", "/sign-out", "/do/nothing", "/"):
        answer = pages.browser().post(path, headers=JSON)
        assert (answer.status_code, code(answer)) == (401, "sign_in"), path


def test_only_what_is_open_is_read_by_strangers(team: Pages) -> None:
    admin, stranger = team.signed_in("maya"), team.browser()
    for openness, rights in (("open", ["read"]), ("private", []), ("public", [])):
        assert admin.submit("/people/conversation", place=FILE, openness=openness).status_code == 303
        assert stranger.get("/", headers=JSON).json()["rights"] == rights
        assert stranger.get("/", headers=JSON).json()["asked"] == []


# ---------------------------------------------------------------------- people change


def test_removal_ends_access_at_once(team: Pages) -> None:
    maya, ann = team.signed_in("maya"), team.signed_in("ann")
    assert ann.name == "ann"
    assert maya.submit("/people/remove", name="ann").status_code == 303
    assert ann.name == ""
    team.invite("ann", Right.ADMIN)
    assert ann.name == ""  # who comes back under the name comes back by a new link


def test_removal_by_hand_ends_access_at_once(team: Pages) -> None:
    ann = team.signed_in("ann")
    team.accounts.change_people(team.site.repository, "maya", lambda present: remove(present, "ann"))
    assert ann.name == "" and ann.get("/people/me").status_code == 303


def test_rights_are_those_of_this_moment(team: Pages) -> None:
    ann = team.signed_in("ann")
    assert ann.get("/", headers=JSON).json()["rights"] == ["read", "post"]
    team.give("ann", Right.READ)
    assert ann.get("/", headers=JSON).json()["rights"] == ["read"]


def test_from_a_workspace_of_one_to_a_team(pages: Pages) -> None:
    maya, tom = owner(pages), pages.signed_in("tom")
    assert tom.get("/", headers=JSON).json()["rights"] == ALL
    assert "The first invitation closes the workspace" in maya.get("/people").text
    fields = {"name": "ann", "display": "Ann Lee", "rights": ["read", "post"]}
    invited = maya.submit("/people/invite", **fields)
    assert invited.status_code == 200 and "/join/" in invited.text
    present = pages.site.repository.participants()
    assert set(present.people) == {"maya", "ann", "understudy"}
    assert present.people["understudy"].kind == "model"
    assert maya.get("/", headers=JSON).json()["rights"] == ALL
    assert tom.get("/", headers=JSON).json() == {
        "name": "",
        "rights": [],
        "asked": [],
        "model": "understudy",
    }


def test_a_model_has_no_session(team: Pages) -> None:
    secret = team.accounts.sessions.open("understudy", "d", "test")
    keeper = team.app.state.doorkeeper
    signed = keeper.cookies._sessions.sign(secret).decode()
    assert team.browser().get("/", headers={"Cookie": f"understudy={signed}"}).json()["name"] == ""


def test_a_broken_participants_file_shuts_the_pages(team: Pages) -> None:
    maya = team.signed_in("maya")
    file = team.site.workspace.root / "participants.toml"
    file.write_text("[participants.maya]\nrights = ['everything']\n")
    import pygit2

    git = pygit2.Repository(str(team.site.workspace.root))
    git.index.add("participants.toml")
    git.index.write()
    by = pygit2.Signature("x", "x@localhost")
    git.create_commit("HEAD", by, by, "by hand", git.index.write_tree(), [git.head.target])
    answer = maya.get("/", headers=JSON)
    assert answer.status_code == 400 and "participants.toml" in answer.text
    assert maya.post("/do/who", headers=JSON).status_code == 400

"""People on their page: only admins change it, and what cannot be is said."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from entering import FILE, URL, Pages, open_pages, path_of, service_for_pages, shown_secret

from understudy.conversation import Right
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


# ---------------------------------------------------------------------- people


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/people/invite", {"name": "eve", "rights": ["admin"]}),
        ("/people/change", {"name": "ann", "rights": ["admin"]}),
        ("/people/remove", {"name": "maya"}),
        ("/people/link", {"name": "maya"}),
        ("/people/link/revoke", {"number": "1"}),
        ("/people/conversation", {"place": FILE, "openness": "open"}),
    ],
)
def test_only_admins_change_people(team: Pages, path: str, fields: dict[str, object]) -> None:
    before = team.site.repository.participants()
    for name in ("ann", "tess"):
        browser = team.signed_in(name)
        answer = browser.submit(path, **fields)
        assert answer.status_code == 403 and "takes the right" in answer.text
        assert "Invite someone" not in browser.get("/people").text
    assert team.site.repository.participants() == before


def test_an_admin_invites_and_the_invited_come_in(team: Pages) -> None:
    maya = team.signed_in("maya")
    answer = maya.submit("/people/invite", name="eve", display="Eve <b>", rights=["read", "post"])
    assert "Eve <b>" not in answer.text
    link = shown_secret(answer)
    assert link.startswith(f"{URL}/join/")
    assert link.rpartition("/")[2] not in maya.get("/people").text
    eve = team.browser()
    assert "Eve &lt;b&gt;" in eve.get(path_of(link)).text
    assert eve.post(path_of(link)).status_code == 303 and eve.name == "eve"
    assert eve.get("/", headers=JSON).json()["rights"] == ["read", "post"]
    assert "an invitation by maya" in eve.get("/people/me").text


def test_names_cannot_turn_a_line_around(team: Pages) -> None:
    text = (team.site.workspace.root / "participants.toml").read_text()
    text += '\n[participants.rlo]\ndisplay = "\u202enimda\u2066\\n<script>"\nrights = ["read"]\n'
    team.site.repository.set_participants(text, "maya")
    shown = team.signed_in("maya").get("/people").text
    assert "\u202e" not in shown and "\u2066" not in shown and "<script>" not in shown
    assert "nimda" in shown


def test_another_link_is_for_a_person_who_takes_part(team: Pages) -> None:
    maya = team.signed_in("maya")
    assert shown_secret(maya.submit("/people/link", name="ann"))
    for name in ("nobody", "understudy", "a b"):
        assert maya.submit("/people/link", name=name).status_code == 400


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/people/invite", {"name": "Ann"}, "too like"),
        ("/people/invite", {"name": "a b"}, "a name holds"),
        ("/people/invite", {"name": "x", "rights": ["root"]}, "root"),
        ("/people/invite", {}, "name"),
        ("/people/change", {"name": "nobody"}, "nobody"),
        ("/people/change", {"name": "maya", "rights": ["post"]}, "someone has to be left"),
        ("/people/remove", {"name": "maya"}, "someone has to be left"),
        ("/people/conversation", {"place": "../x.md", "openness": "open"}, "x.md"),
        ("/people/conversation", {"place": "conversations/../../x.md", "openness": "open"}, "x.md"),
        ("/people/conversation", {"place": FILE, "openness": "secret"}, "secret"),
        ("/people/conversation", {"place": FILE, "openness": "private", "members": ["eve"]}, "eve"),
        ("/people/link/revoke", {"number": "x"}, "int"),
        ("/people/link/revoke", {"number": "9" * 40}, "int"),
    ],
)
def test_what_cannot_be_is_said(team: Pages, path: str, fields: dict[str, object], said: str) -> None:
    before = team.site.repository.participants()
    answer = team.signed_in("maya").submit(path, **fields)
    assert answer.status_code == 400 and said in answer.text
    assert team.site.repository.participants() == before


def test_rights_and_members_are_what_was_chosen(team: Pages) -> None:
    maya = team.signed_in("maya")
    maya.submit("/people/change", name="ann", display="Ann Lee", rights=["post", "teach"])
    maya.submit("/people/conversation", place=FILE, openness="private", members=["ann", "tess"])
    present = team.site.repository.participants()
    assert present.people["ann"].rights == {"post", "teach"} and present.people["ann"].display == "Ann Lee"
    assert present.access(FILE).private and present.access(FILE).members == {"ann", "tess"}
    maya.submit("/people/conversation", place=FILE, openness="private", members="tess")
    assert team.site.repository.participants().access(FILE).members == {"tess"}
    assert not team.signed_in("ann").get("/", headers=JSON).json()["rights"]


def test_a_private_conversation_is_not_named_to_others(team: Pages) -> None:
    team.site.repository.start("conversations/plans.md", "Secret", "maya", "hello")
    maya = team.signed_in("maya")
    maya.submit("/people/conversation", place="conversations/plans.md", openness="private")
    assert "plans" in maya.get("/people").text
    assert "plans" not in team.signed_in("ann").get("/people").text


@pytest.mark.parametrize("path", ["/people", "/people/me", "/sign-in"])
def test_pages_are_strict(team: Pages, path: str) -> None:
    answer = team.signed_in("maya").get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert " style=" not in answer.text and "<style" not in answer.text and " onclick" not in answer.text
    assert answer.text.count("<h1") == 1

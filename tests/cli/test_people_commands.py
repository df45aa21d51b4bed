"""`understudy people`: inviting, linking and revoking from the command line."""

import json
from pathlib import Path

import pytest

from understudy.access import Accounts, LinkRefused
from understudy.cli import app
from understudy.engine import write_miniature
from understudy.workspace import Workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature(tmp_path_factory.mktemp("models") / "miniature", "qwen3")


@pytest.fixture
def workspace(tmp_path: Path, model: Path) -> Workspace:
    return Workspace.create(tmp_path / "w", model=model, copy_model=False, replay=(), settings="")


@pytest.fixture
def accounts(workspace: Workspace) -> Accounts:
    return Accounts(workspace.root, workspace.settings.access)


def understudy(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    app([*words, "-w", str(workspace.root)], result_action="return_value")
    return capsys.readouterr().out.strip()


def test_inviting_listing_and_revoking(
    workspace: Workspace, accounts: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nobody was invited yet" in understudy(workspace, capsys, "people", "list")
    link = understudy(
        workspace,
        capsys,
        "people",
        "invite",
        "ann",
        "--rights",
        "read, post",
        "--display",
        "Ann",
        "--as",
        "maya",
    )
    assert link.startswith("http://127.0.0.1:8423/join/")
    secret = link.rpartition("/")[2]
    assert (accounts.links.look(secret).name, accounts.links.look(secret).made_by) == ("ann", "maya")
    accounts.enter(secret, "ann", "Firefox")
    accounts.tokens.make("ann", "x", ["read"], None)
    told = json.loads(understudy(workspace, capsys, "people", "list", "--json"))
    assert [(one["name"], one["kind"], one["rights"], one["sessions"], one["tokens"]) for one in told] == [
        ("ann", "person", ["post", "read"], 1, 1),
        ("maya", "person", ["admin"], 0, 0),
        ("understudy", "model", ["post"], 0, 0),
    ]
    assert "Ann" in understudy(workspace, capsys, "people", "list")
    again = understudy(workspace, capsys, "people", "link", "ann", "--as", "maya").rpartition("/")[2]
    assert (
        understudy(workspace, capsys, "people", "revoke", "ann") == "ann: ended 1 browsers, 1 links, 1 tokens"
    )
    with pytest.raises(LinkRefused, match="taken back"):
        accounts.links.look(again)
    assert accounts.sessions.of("ann") == ()


def test_a_link_for_the_owner_who_lost_theirs(
    workspace: Workspace, accounts: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    link = understudy(workspace, capsys, "people", "link", "maya")
    assert accounts.links.look(link.rpartition("/")[2]).name == "maya"


def test_the_owner_invites_by_the_name_they_chose(
    workspace: Workspace, accounts: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    first = accounts.first_link("http://127.0.0.1:1") or ""
    accounts.enter(first.rpartition("/")[2], "maya", "Firefox")
    understudy(workspace, capsys, "people", "invite", "ann")
    assert set(workspace.repository.participants().people) == {"maya", "ann", "understudy"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("invite", "ann", "--rights", "root", "--as", "maya"), "got 'root'"),
        (("invite", "a b", "--as", "maya"), "a name holds"),
        (("invite", "ann", "--as", "understudy"), "model's name"),
        (("link", "understudy"), "expected one who takes part"),
        (("link", "a b"), "a name holds"),
    ],
)
def test_what_cannot_be_done_is_said(workspace: Workspace, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        app(["people", *words, "-w", str(workspace.root)], result_action="return_value")
    assert workspace.repository.participants().unrestricted


def test_who_is_no_admin_invites_nobody(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    understudy(workspace, capsys, "people", "invite", "ann", "--as", "maya")
    with pytest.raises(Exception, match="'admin'"):
        app(
            ["people", "invite", "eve", "--as", "ann", "-w", str(workspace.root)],
            result_action="return_value",
        )
    with pytest.raises(ValueError, match="expected one who takes part"):
        app(["people", "link", "eve", "-w", str(workspace.root)], result_action="return_value")

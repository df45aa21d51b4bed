"""Who takes part, changed step by step: somebody can always change it again."""

from pathlib import Path

import pytest

from understudy.access import (
    Accounts,
    InvalidEntry,
    change,
    invite,
    remove,
    set_access,
    suggested_name,
)
from understudy.config import AccessSettings
from understudy.conversation import (
    ConversationRepository,
    InvalidName,
    InvalidTitle,
    Kind,
    NotAllowed,
    Participants,
    Right,
    read_participants,
    write_participants,
)

NOBODY = Participants(unrestricted=True)
FILE = "conversations/board.md"


@pytest.fixture
def team() -> Participants:
    return invite(NOBODY, "maya", "ann", "Ann Lee", [Right.POST], "parrot")


def test_the_first_invitation_restricts_the_workspace(team: Participants) -> None:
    assert not team.unrestricted
    assert {name: (one.kind, set(one.rights)) for name, one in team.people.items()} == {
        "maya": (Kind.PERSON, {Right.ADMIN}),
        "parrot": (Kind.MODEL, {Right.POST}),
        "ann": (Kind.PERSON, {Right.POST}),
    }
    assert team.people["ann"].display == "Ann Lee"
    assert not team.may("tom", Right.READ)
    assert read_participants(write_participants(team)) == team


def test_the_next_one_changes_nobody_else(team: Participants) -> None:
    after = invite(team, "maya", "tom", "", [Right.READ], "parrot")
    assert {name: after.people[name] for name in team.people} == dict(team.people)
    assert after.people["tom"].display == "tom"


@pytest.mark.parametrize("name", ["ann", "ANN", "Ann", "\uff41\uff4e\uff4e", "parrot", "Maya"])
def test_names_that_look_alike_are_refused(team: Participants, name: str) -> None:
    with pytest.raises(InvalidEntry, match="taken, or too like"):
        invite(team, "maya", name, "", [Right.READ], "parrot")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\u202eb", "@ann", "a\nb", "<b>"])
def test_names_that_cannot_be_said_are_refused(team: Participants, name: str) -> None:
    with pytest.raises(InvalidName):
        invite(team, "maya", name, "", [Right.READ], "parrot")


def test_displayed_names_are_one_short_line(team: Participants) -> None:
    with pytest.raises(InvalidTitle):
        invite(team, "maya", "tom", "Tom\nadmin", [Right.READ], "parrot")
    with pytest.raises(InvalidEntry, match="80"):
        change(team, "ann", "x" * 81, [Right.READ])


def test_the_model_invites_nobody() -> None:
    with pytest.raises(InvalidEntry, match="model's name"):
        invite(NOBODY, "parrot", "ann", "", [Right.READ], "parrot")


def test_an_admin_is_always_left(team: Participants) -> None:
    with pytest.raises(InvalidEntry, match="someone has to be left"):
        remove(team, "maya")
    with pytest.raises(InvalidEntry, match="someone has to be left"):
        change(team, "maya", "", [Right.POST])
    two = change(team, "ann", "", [Right.ADMIN])
    assert set(remove(two, "maya").people) == {"ann", "parrot"}


def test_who_is_removed_is_no_member_of_anything(team: Participants) -> None:
    private = set_access(team, FILE, "private", ["ann"])
    assert private.may_read("ann", FILE)
    after = remove(private, "ann")
    assert after.access(FILE).private and after.access(FILE).members == frozenset()
    assert read_participants(write_participants(after)) == after


def test_access_of_a_conversation(team: Participants) -> None:
    private = set_access(team, FILE, "private", ["ann"])
    assert private.may("ann", Right.POST, FILE) and not private.open_to_all(FILE)
    assert set_access(private, FILE, "private", []).may("maya", Right.POST, FILE)
    assert not set_access(private, FILE, "private", []).may("ann", Right.POST, FILE)
    opened = set_access(private, FILE, "open", ["ann"])
    assert opened.open_to_all(FILE) and opened.may("ann", Right.POST, FILE)
    assert not set_access(opened, FILE, "public", []).open_to_all(FILE)
    with pytest.raises(InvalidEntry, match="'eve'"):
        set_access(team, FILE, "private", ["eve"])
    with pytest.raises(InvalidEntry, match="invite someone"):
        set_access(NOBODY, FILE, "open", [])


def test_changes_are_commits_by_admins(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path)
    accounts = Accounts(tmp_path, AccessSettings())

    def add(name: str, inviter: str) -> None:
        accounts.change_people(
            repository, inviter, lambda present: invite(present, inviter, name, "", [Right.READ], "parrot")
        )

    add("ann", "maya")
    with pytest.raises(NotAllowed, match="'admin'"):
        add("tom", "ann")
    add("tom", "maya")
    assert set(repository.participants().people) == {"maya", "parrot", "ann", "tom"}


def test_a_name_to_go_by(tmp_path: Path) -> None:
    repository = ConversationRepository.create(tmp_path)
    config = repository.git_folder / "config"
    config.write_text(config.read_text() + "[user]\n\tname = Ann B. Lee <x>\n")
    assert suggested_name(tmp_path) == "Ann-B.-Lee-x"
    assert suggested_name(tmp_path / "nowhere")

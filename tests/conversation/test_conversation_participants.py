"""Who may do what: `participants.toml`, enforced where conversations are written and read."""

import subprocess
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.conversation import (
    Access,
    ConversationRepository,
    InvalidName,
    InvalidParticipants,
    Kind,
    NotAllowed,
    Participant,
    Participants,
    Right,
    UnknownFile,
    UnknownRevision,
    read_participants,
    write_participants,
)
from understudy.conversation.participants import UNRESTRICTED

FILE = "conversations/talk.md"
SECRET = "conversations/board/plans.md"
TOML = """
[participants.ann]
display = "Ann Lee"
email = "ann@example.org"
rights = ["admin"]

[participants.bob]
rights = ["post"]

[participants.tea]
rights = ["post", "teach"]

[participants.mo]
rights = ["moderate"]

[participants.guest]

[participants.none]
rights = []

[participants.parrot]
kind = "model"
rights = ["read", "post"]

[conversations."conversations/board/"]
access = "private"
members = ["bob", "guest"]

[conversations."conversations/board/open.md"]
access = "public"

[conversations."conversations/news/"]
access = "open"
members = ["bob"]
"""


@pytest.fixture
def repo(tmp_path: Path) -> ConversationRepository:
    repo = ConversationRepository.create(tmp_path / "workspace")
    repo.set_participants(TOML, "ann")
    return repo


@pytest.fixture
def talk(repo: ConversationRepository) -> dict[str, str]:
    """Ids by author: ann's question, the parrot's and bob's answers, in one public conversation."""
    first = repo.start(FILE, "Tea", "ann", "One.\n\nTwo.").message
    answers = {name: repo.reply(FILE, first, name, f"{name}'s.").message for name in ("parrot", "bob")}
    return {"ann": first, **answers}


class TestTheFile:
    """What can stand in it, and what is said about what cannot."""

    def test_reads_people_and_conversations(self) -> None:
        read = read_participants(TOML)
        ann, parrot = read.people["ann"], read.people["parrot"]
        assert (ann.name, ann.display, ann.email, ann.kind) == (
            "ann",
            "Ann Lee",
            "ann@example.org",
            Kind.PERSON,
        )
        assert (parrot.display, parrot.email, parrot.kind) == ("parrot", None, Kind.MODEL)
        assert parrot.rights == {Right.READ, Right.POST}
        assert all(ann.has(right) for right in Right) and read.people["mo"].has(Right.READ)
        assert read.people["guest"].rights == {Right.READ} and not read.people["none"].has(Right.READ)
        assert read.access(SECRET).private and not read.access("conversations/board/open.md").private
        assert read.get("stranger") is None and not read.may("stranger", "read")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[participants", "not TOML"),
            ("", "no one the right 'admin'"),
            ("[participants.ann]\nrights = ['post']", "no one the right 'admin'"),
            ("participants = 3", "participants"),
            ("[participants]\nann = 3", "participants.ann"),
            ("[participants.ann]\nrights = ['admin']\ncolour = 'red'", "unknown 'colour'"),
            ("[participants.ann]\nrights = 'admin'", "rights"),
            ("[participants.ann]\nrights = ['fly']", "'fly'"),
            ("[participants.ann]\nrights = [['post']]", "rights"),
            ("[participants.ann]\nkind = 'robot'", "'robot'"),
            ("[participants.ann]\nemail = 'a b'", "e-mail"),
            ("[participants.'a b']", "letters"),
            ("[participants.'e\u0301']", "NFC"),
            (TOML + "[conversations.'../x.md']", "conversations/name.md"),
            (TOML + "[conversations.'conversations/x']", "conversations/name.md"),
            (
                TOML + "[conversations.'conversations/x.md']\naccess = 'closed'",
                "'public', 'private' or 'open'; got 'closed'",
            ),
            (TOML + "[conversations.'conversations/x.md']\nmembers = ['eve']", "'eve'"),
            (TOML + "[conversations.'conversations/x.md']\nmembers = [3]", "3"),
        ],
    )
    def test_mistakes_are_named(self, text: str, said: str) -> None:
        with pytest.raises(InvalidParticipants) as caught:
            read_participants(text)
        assert said in str(caught.value)

    def test_the_documentations_example_is_one(self) -> None:
        page = Path(__file__).parents[2] / "docs" / "conversations.md"
        example = page.read_text().split("```toml\n", 1)[1].split("```", 1)[0]
        read = read_participants(example)
        assert [person.name for person in read.people.values()] == ["ann", "bob", "parrot"]
        assert read.may("bob", Right.POST, SECRET) and not read.may_read("parrot", SECRET)

    def test_without_it_everyone_may_do_everything(self, tmp_path: Path) -> None:
        repo = ConversationRepository.create(tmp_path / "workspace")
        first = repo.start(FILE, "Tea", "ann", "x").message
        repo.edit(FILE, first, "bob", "y")
        repo.rename(FILE, "Tea", "Cake", "bob")
        assert repo.participants().unrestricted and repo.files(reader="anyone") == (FILE,)

    def test_it_is_changed_by_admins_in_commits(self, repo: ConversationRepository) -> None:
        before = repo.head()
        with pytest.raises(NotAllowed, match="admin"):
            repo.set_participants(TOML, "bob")
        with pytest.raises(InvalidParticipants):
            repo.set_participants("[participants.bob]", "ann")
        assert repo.head() == before
        changed = repo.set_participants(TOML.replace('rights = ["post"]', "rights = []"), "ann")
        assert repo.trailers(changed) == {"Understudy-Operation": "participants"}
        assert (repo.root / "participants.toml").read_text() == TOML.replace(
            'rights = ["post"]', "rights = []"
        )
        with pytest.raises(NotAllowed):
            repo.start(FILE, "T", "bob", "x")
        assert repo.participants(before).may("bob", Right.POST)

    def test_the_first_one_is_set_by_an_admin_of_its_own(self, tmp_path: Path) -> None:
        repo = ConversationRepository.create(tmp_path / "workspace")
        with pytest.raises(NotAllowed):
            repo.set_participants(TOML, "bob")
        repo.set_participants(TOML, "ann")

    def test_one_that_cannot_be_read_stops_everything(
        self, repo: ConversationRepository, talk: dict[str, str]
    ) -> None:
        (repo.root / "participants.toml").write_text("[participants")
        repo.reply(FILE, talk["ann"], "bob", "what is not committed does not count")
        identity = ("-c", "user.name=x", "-c", "user.email=x")
        subprocess.run(["git", "-C", str(repo.root), *identity, "commit", "-qam", "oops"], check=True)
        before = repo.head()
        with pytest.raises(InvalidParticipants, match="not TOML"):
            repo.reply(FILE, talk["ann"], "ann", "x")
        with pytest.raises(InvalidParticipants):
            repo.read(FILE, reader="ann")
        assert repo.head() == before


_names = st.text(
    st.characters(categories=["L", "M", "N"], include_characters="_.-"), min_size=1, max_size=6
).map(lambda name: unicodedata.normalize("NFC", name))
_emails = st.from_regex(r"[^\s<>@]{1,9}@[^\s<>@]{1,9}", fullmatch=True)


@st.composite
def some_participants(draw: st.DrawFn) -> Participants:
    """What any file could say."""
    names = draw(
        st.lists(_names.map(lambda name: unicodedata.normalize("NFC", name)), min_size=1, unique=True)
    )
    people = {
        name: Participant(
            name,
            draw(st.text(max_size=12)),
            draw(st.none() | _emails),
            draw(st.sampled_from(Kind)),
            draw(st.frozensets(st.sampled_from(Right)))
            | (frozenset([Right.ADMIN]) if not number else frozenset()),
        )
        for number, name in enumerate(names)
    }
    places = draw(st.sets(st.sampled_from([SECRET, "conversations/board/", "conversations/a 'b\".md", FILE])))
    access = {
        place: Access(kind == "private", draw(st.frozensets(st.sampled_from(names))), kind == "open")
        for place, kind in ((place, draw(st.sampled_from(["public", "private", "open"]))) for place in places)
    }
    return Participants(people, access)


class TestWritingTheFile:
    """`write_participants`, for what changes it without a person's hand."""

    @given(some_participants())
    def test_what_is_written_reads_back_equal(self, participants: Participants) -> None:
        text = write_participants(participants)
        assert read_participants(text) == participants
        assert read_participants(text.encode().decode()) == participants

    def test_only_what_is_not_the_default_stands_there(self) -> None:
        text = write_participants(read_participants(TOML))
        assert tomllib.loads(text)["participants"]["ann"] == {
            "display": "Ann Lee",
            "email": "ann@example.org",
            "rights": ["admin"],
        }
        assert tomllib.loads(text)["participants"]["none"] == {"rights": []}
        assert tomllib.loads(text)["conversations"]["conversations/news/"] == {
            "access": "open",
            "members": ["bob"],
        }
        assert write_participants(read_participants(text)) == text

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda ann: Participants(unrestricted=True), "has no participants.toml"),
            (lambda ann: Participants({"ann": replace(ann, rights=frozenset())}), "no one the right 'admin'"),
            (lambda ann: Participants({"bob": ann}), "cannot say this"),
            (lambda ann: Participants({"ann": replace(ann, display="\ud800")}), "cannot say this"),
            (lambda ann: Participants({"ann": replace(ann, email="nowhere")}), "e-mail"),
            (lambda ann: Participants({"ann": ann}, {FILE: Access(True, frozenset(), True)}), "cannot say"),
            (lambda ann: Participants({"ann": ann}, {FILE: Access(True, frozenset(["eve"]))}), "'eve'"),
        ],
    )
    def test_what_no_file_can_say_is_refused(
        self, change: Callable[[Participant], Participants], said: str
    ) -> None:
        with pytest.raises(InvalidParticipants, match=said):
            write_participants(change(read_participants(TOML).people["ann"]))


def test_commits_bear_the_address_that_is_written_down(
    repo: ConversationRepository, talk: dict[str, str]
) -> None:
    forged = repo.reply(FILE, talk["ann"], "ann", "x", email="other@example.org")
    given = repo.reply(FILE, talk["ann"], "bob", "x", email="bob@example.org")
    made_up = repo.reply(FILE, talk["ann"], "bob", "y")
    show = ["git", "-C", str(repo.root), "show", "-s", "--format=%an <%ae>"]
    said = [
        subprocess.run([*show, posted.commit], capture_output=True, text=True, check=True).stdout.strip()
        for posted in (forged, given, made_up)
    ]
    assert said == ["ann <ann@example.org>", "bob <bob@example.org>", "bob <bob@understudy.local>"]
    with pytest.raises(InvalidName):
        repo.reply(FILE, talk["ann"], "bob", "z", email="no address")


_Act = Callable[[ConversationRepository, dict[str, str], str], object]
ACTS: dict[str, tuple[_Act, set[str]]] = {
    "start": (lambda r, t, who: r.start(FILE, "New", who, "x"), {"ann", "bob", "tea", "parrot"}),
    "post": (lambda r, t, who: r.post(FILE, "Tea", who, "x"), {"ann", "bob", "tea", "parrot"}),
    "reply": (lambda r, t, who: r.reply(FILE, t["ann"], who, "x"), {"ann", "bob", "tea", "parrot"}),
    "edit a person's": (lambda r, t, who: r.edit(FILE, t["bob"], who, "x"), {"bob"}),
    "edit a model's": (lambda r, t, who: r.edit(FILE, t["parrot"], who, "x"), {"ann", "tea", "parrot"}),
    "delete": (lambda r, t, who: r.delete(FILE, t["bob"], who), {"ann", "mo", "bob"}),
    "move": (lambda r, t, who: r.move(FILE, t["bob"], None, who, title="New"), {"ann", "mo"}),
    "split": (lambda r, t, who: r.split(FILE, t["ann"], 1, "New", who), {"ann", "mo"}),
    "rename": (lambda r, t, who: r.rename(FILE, "Tea", "New", who), {"ann", "mo"}),
    "add": (lambda r, t, who: r.add("conversations/b.md", "x", who), {"ann"}),
    "claim": (lambda r, t, who: r.commit_hand_edits(who), {"ann"}),
}


@pytest.mark.parametrize("name", ["ann", "bob", "tea", "mo", "guest", "none", "parrot", "stranger"])
@pytest.mark.parametrize("operation", ACTS)
def test_who_may_do_what(
    repo: ConversationRepository, talk: dict[str, str], operation: str, name: str
) -> None:
    act, allowed = ACTS[operation]
    before = repo.head()
    if name in allowed:
        act(repo, talk, name)
        assert operation == "claim" or repo.head() != before
    else:
        with pytest.raises(NotAllowed, match=f"{name} may not"):
            act(repo, talk, name)
        assert repo.head() == before


def test_merging_threads_takes_moderation(repo: ConversationRepository, talk: dict[str, str]) -> None:
    repo.start(FILE, "Cake", "bob", "x")
    with pytest.raises(NotAllowed):
        repo.merge_threads(FILE, "Cake", "Tea", "bob")
    repo.merge_threads(FILE, "Cake", "Tea", "mo")


class TestPrivateConversations:
    """Members alone, and admins, know them."""

    def test_writing(self, repo: ConversationRepository) -> None:
        first = repo.start(SECRET, "Plans", "bob", "x").message
        repo.reply(SECRET, first, "ann", "an admin is everywhere")
        for name, reason in (("tea", "no member"), ("guest", "right 'post'"), ("stranger", "knows no")):
            with pytest.raises(NotAllowed, match=reason):
                repo.reply(SECRET, first, name, "x")
        with pytest.raises(NotAllowed):
            repo.edit(SECRET, "ffffffffffff", "tea", "is it there?")
        repo.start("conversations/board/open.md", "Open", "tea", "x")

    def test_reading(self, repo: ConversationRepository, talk: dict[str, str]) -> None:
        first = repo.start(SECRET, "Plans", "bob", "x")
        blob = repo.revision(SECRET)
        assert repo.files() == repo.files(reader="guest") == repo.files(reader="ann") == (SECRET, FILE)
        assert repo.files(reader="tea") == (FILE,)
        assert repo.files(reader="stranger") == repo.files(reader="none") == ()
        assert repo.read(SECRET, reader="guest").messages[0].body == "x"
        assert {change.file for change in repo.changes(reader="tea")} == {FILE}
        assert {change.file for change in repo.changes(reader="guest")} == {FILE, SECRET}
        for attempt in (
            lambda: repo.read(SECRET, reader="tea"),
            lambda: repo.read(SECRET, first.commit, reader="tea"),
            lambda: repo.revision(SECRET, reader="tea"),
            lambda: repo.history(SECRET, first.message, reader="tea"),
            lambda: repo.read(FILE, reader="stranger"),
        ):
            with pytest.raises(NotAllowed, match="may not read"):
                attempt()
        with pytest.raises(UnknownRevision, match="by its commit"):
            repo.read(FILE, blob, reader="tea")

    def test_what_is_open_strangers_may_read(self, repo: ConversationRepository) -> None:
        """And no more than that; for those who take part it is as if it were public."""
        news = "conversations/news/today.md"
        repo.start(news, "News", "tea", "Tea.")
        participants = repo.participants()
        assert participants.open_to_all(news) and not participants.open_to_all(FILE)
        assert not participants.open_to_all(SECRET)
        assert not participants.open_to_all("conversations/board/open.md")
        assert all(
            participants.may(name, right, news) == participants.may(name, right, FILE)
            for name in (*participants.people, "stranger")
            for right in Right
        )
        assert not participants.may_read("stranger", news)
        with pytest.raises(NotAllowed):
            repo.reply(news, repo.read(news).messages[0].id, "stranger", "x")

    def test_nothing_is_open_without_the_file(self) -> None:
        assert not UNRESTRICTED.open_to_all(FILE) and UNRESTRICTED.may_read("stranger", FILE)

    def test_errors_name_only_what_one_may_know(
        self, repo: ConversationRepository, talk: dict[str, str]
    ) -> None:
        repo.start(SECRET, "Plans", "bob", "x")
        with pytest.raises(UnknownFile) as caught:
            repo.reply("conversations/other.md", talk["ann"], "tea", "x")
        assert FILE in str(caught.value) and SECRET not in str(caught.value)

"""What is kept of who came in: links open once, sessions and tokens end, and no secret stands in the file."""

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from understudy.access import (
    TOKEN_PREFIX,
    Accounts,
    AccountsVersion,
    InvalidEntry,
    LinkRefused,
    UnknownEntry,
)
from understudy.config import AccessSettings

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Accounts:
    return Accounts(tmp_path, AccessSettings(session_days=30), clock)


def file(root: Path) -> Path:
    return root / ".understudy" / "accounts.sqlite"


def test_the_file_is_this_users_only_and_holds_no_secret(accounts: Accounts, tmp_path: Path) -> None:
    link = accounts.links.make("invitation", "ann", "maya", DAY)
    token = accounts.tokens.make("ann", "nightly", ["read"], None)
    session = accounts.enter(link, "ann", "Firefox on Linux")
    pending = accounts.links.make("device", "ann", "ann", DAY)
    assert stat.S_IMODE(file(tmp_path).stat().st_mode) == 0o600
    held = file(tmp_path).read_bytes()
    assert b"Firefox on Linux" in held
    for secret in (link, token, session, pending):
        assert secret.encode() not in held


def test_a_link_opens_once(accounts: Accounts) -> None:
    link = accounts.links.make("invitation", "ann", "maya", DAY)
    assert accounts.links.look(link).name == "ann"
    assert accounts.links.look(link).made_by == "maya"
    session = accounts.sessions.find(accounts.enter(link, "ann", "d"))
    assert session is not None and session.via == "an invitation by maya"
    with pytest.raises(LinkRefused, match="was used already"):
        accounts.links.look(link)
    with pytest.raises(LinkRefused, match="was used already"):
        accounts.enter(link, "ann", "d")
    assert len(accounts.sessions.of("ann")) == 1


def test_of_many_at_once_one_comes_in(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, AccessSettings())
    link = accounts.links.make("invitation", "ann", "maya", DAY)

    def enter(number: int) -> bool:
        try:
            Accounts(tmp_path, AccessSettings()).enter(link, "ann", f"device {number}")
        except LinkRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(8))) == 1
    assert len(accounts.sessions.of("ann")) == 1


def test_two_processes_share_the_file(accounts: Accounts, tmp_path: Path) -> None:
    link = accounts.links.make("invitation", "ann", "maya", timedelta(days=10_000))
    program = (
        "import sys, pathlib\nfrom understudy.access import Accounts\n"
        "from understudy.config import AccessSettings\n"
        "print(Accounts(pathlib.Path(sys.argv[1]), AccessSettings()).links.look(sys.argv[2]).name)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), link]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ann\n"


def test_a_link_runs_out_and_can_be_taken_back(accounts: Accounts, clock: Clock) -> None:
    late, taken = (accounts.links.make("invitation", "ann", "maya", DAY) for _ in range(2))
    [_, number] = sorted(link.number for link in accounts.links.open_ones("ann"))
    accounts.links.revoke(number)
    with pytest.raises(LinkRefused, match="taken back"):
        accounts.links.look(taken)
    with pytest.raises(UnknownEntry):
        accounts.links.revoke(number)
    clock.now += DAY - timedelta(seconds=1)
    assert accounts.links.look(late).name == "ann"
    clock.now += timedelta(seconds=1)
    with pytest.raises(LinkRefused, match="run out"):
        accounts.enter(late, "ann", "d")
    assert accounts.links.open_ones() == ()


@pytest.mark.parametrize("secret", ["", "x", "\udcff", "' or 1=1 --", "a" * 10_000])
def test_what_is_no_secret_opens_nothing(accounts: Accounts, secret: str) -> None:
    accounts.links.make("invitation", "ann", "maya", DAY)
    with pytest.raises(LinkRefused, match="not known"):
        accounts.links.look(secret)
    assert accounts.sessions.find(secret) is None
    assert accounts.tokens.find(secret) is None


def test_a_session_lasts_as_long_as_it_is_used(accounts: Accounts, clock: Clock) -> None:
    secret = accounts.sessions.open("ann", "d", "test")
    for _ in range(4):
        clock.now += timedelta(days=29)
        assert accounts.sessions.find(secret) is not None
    clock.now += timedelta(days=30)
    assert accounts.sessions.find(secret) is None
    assert accounts.sessions.of("ann") == ()
    accounts.sessions.open("tom", "d", "test")  # forgets those that are over
    clock.now = NOON
    assert accounts.sessions.of("ann") == ()


def test_only_ones_own_sessions_can_be_ended(accounts: Accounts) -> None:
    secret = accounts.sessions.open("ann", "d", "test")
    [session] = accounts.sessions.of("ann")
    with pytest.raises(UnknownEntry, match="tom has no session"):
        accounts.sessions.end(session.number, "tom")
    accounts.sessions.end(session.number, "ann")
    assert accounts.sessions.find(secret) is None


def test_tokens_are_scoped_and_end(accounts: Accounts, clock: Clock) -> None:
    secret = accounts.tokens.make("ann", " nightly ", ["train", "read"], DAY)
    lasting = accounts.tokens.make("ann", "for good", ["talk"], None)
    assert secret.startswith(TOKEN_PREFIX)
    found = accounts.tokens.find(secret)
    assert found is not None and found.label == "nightly" and found.scopes == {"train", "read"}
    assert accounts.tokens.of("ann")[-1].last_used == NOON
    with pytest.raises(UnknownEntry):
        accounts.tokens.revoke(found.number, "tom")
    clock.now += DAY
    assert accounts.tokens.find(secret) is None
    [left] = accounts.tokens.of("ann")
    accounts.tokens.revoke(left.number, "ann")
    assert accounts.tokens.find(lasting) is None


def test_a_token_has_a_label_and_known_scopes(accounts: Accounts) -> None:
    with pytest.raises(InvalidEntry, match="label"):
        accounts.tokens.make("ann", " ", ["read"], None)
    with pytest.raises(InvalidEntry, match="got none"):
        accounts.tokens.make("ann", "x", [], None)
    with pytest.raises(InvalidEntry, match="got root"):
        accounts.tokens.make("ann", "x", ["root"], None)  # type: ignore[list-item]
    for _ in range(50):
        accounts.tokens.make("ann", "x", ["read"], None)
    with pytest.raises(InvalidEntry, match="revoke some"):
        accounts.tokens.make("ann", "x", ["read"], None)
    accounts.tokens.make("tom", "x", ["read"], None)


def test_an_account_elsewhere_is_one_participants(accounts: Accounts) -> None:
    accounts.logins.bind("ann", 7, "octo")
    accounts.logins.bind("ann", 7, "renamed")
    assert (accounts.logins.find(7), accounts.logins.of("ann")) == ("ann", "renamed")
    with pytest.raises(InvalidEntry, match="another participant"):
        accounts.logins.bind("tom", 7, "renamed")
    accounts.logins.bind("ann", 8, "other")
    assert accounts.logins.find(7) is None
    accounts.logins.unbind("ann")
    assert accounts.logins.find(8) is None and accounts.logins.of("ann") is None


def test_who_is_forgotten_comes_in_by_nothing(accounts: Accounts) -> None:
    session = accounts.sessions.open("ann", "d", "test")
    token = accounts.tokens.make("ann", "x", ["read"], None)
    link = accounts.links.make("device", "ann", "ann", DAY)
    made = accounts.links.make("invitation", "eve", "ann", DAY)
    others = accounts.sessions.open("tom", "d", "test")
    accounts.logins.bind("ann", 7, "octo")
    accounts.forget("ann")
    assert accounts.sessions.find(session) is None and accounts.tokens.find(token) is None
    assert accounts.logins.find(7) is None
    for secret in (link, made):
        with pytest.raises(LinkRefused, match="taken back"):
            accounts.links.look(secret)
    assert accounts.sessions.find(others) is not None


def test_the_first_link_is_made_anew_until_somebody_came_in(accounts: Accounts, clock: Clock) -> None:
    first = accounts.first_link("http://0.0.0.0:8423")
    assert first is not None and first.startswith("http://127.0.0.1:8423/join/")
    second = accounts.first_link("http://127.0.0.1:8423")
    assert second is not None
    with pytest.raises(LinkRefused, match="taken back"):
        accounts.links.look(first.rpartition("/")[2])
    clock.now += timedelta(hours=24)
    with pytest.raises(LinkRefused, match="run out"):
        accounts.links.look(second.rpartition("/")[2])
    third = accounts.first_link("http://127.0.0.1:8423")
    assert third is not None and accounts.links.owner() is None
    accounts.enter(third.rpartition("/")[2], "maya", "d")
    assert accounts.links.owner() == "maya"
    assert accounts.first_link("http://127.0.0.1:8423") is None


def test_behind_a_proxy_links_lead_to_its_address(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, AccessSettings(public_url="https://talk.example.org"))
    assert (accounts.first_link("http://127.0.0.1:1") or "").startswith("https://talk.example.org/join/")


def test_a_newer_programs_file_is_left_alone(accounts: Accounts, tmp_path: Path) -> None:
    connection = sqlite3.connect(file(tmp_path))
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(AccountsVersion, match="99"):
        Accounts(tmp_path, AccessSettings())


class Links(RuleBasedStateMachine):
    """Whatever is done with links, each lets in once at most, and never after its time or its revocation."""

    made: Bundle[tuple[str, datetime]] = Bundle("made")

    @initialize()
    def open(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.accounts = Accounts(Path(self.folder.name), AccessSettings(), self.clock)
        self.shut: set[str] = set()

    @rule(target=made, hours=st.integers(1, 48))
    def make(self, hours: int) -> tuple[str, datetime]:
        lasts = timedelta(hours=hours)
        return self.accounts.links.make("invitation", "ann", "maya", lasts), self.clock.now + lasts

    @rule(hours=st.integers(0, 24))
    def wait(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)

    @rule(link=made)
    def use(self, link: tuple[str, datetime]) -> None:
        secret, until = link
        opens = secret not in self.shut and self.clock.now < until
        before = len(self.accounts.sessions.of("ann"))
        try:
            self.accounts.enter(secret, "ann", "d")
            assert opens
            self.shut.add(secret)
        except LinkRefused:
            assert not opens
        assert len(self.accounts.sessions.of("ann")) == before + opens

    @rule(link=made)
    def revoke(self, link: tuple[str, datetime]) -> None:
        try:
            number = self.accounts.links.look(link[0]).number
        except LinkRefused:
            return
        self.accounts.links.revoke(number)
        self.shut.add(link[0])

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestLinks = Links.TestCase
TestLinks.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)

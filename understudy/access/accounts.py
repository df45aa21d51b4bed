"""All that is kept of who came in, in one file of a workspace."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from understudy.access.links import OWNER_LASTS, Links
from understudy.access.logins import Logins
from understudy.access.schema import Store
from understudy.access.sessions import Sessions
from understudy.access.tokens import Tokens
from understudy.config import AccessSettings
from understudy.conversation import ConversationRepository, Participants, write_participants

ACCOUNTS_FILE = ".understudy/accounts.sqlite"


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


class Accounts:
    """Sessions, links, tokens and logins of a workspace's participants.

    Who somebody is stands here; what they may do stands in `participants.toml` alone.
    """

    def __init__(self, root: Path, settings: AccessSettings, clock: Callable[[], datetime] = utc_now) -> None:
        """Open the accounts of the workspace at `root`. Raises AccountsVersion."""
        self._store = Store(root / ACCOUNTS_FILE, clock)
        self.settings = settings
        self.invitation_lasts = timedelta(days=settings.invitation_days)
        self.sessions = Sessions(self._store, timedelta(days=settings.session_days))
        self.links = Links(self._store)
        self.tokens = Tokens(self._store)
        self.logins = Logins(self._store)

    def enter(self, secret: str, name: str, device: str) -> str:
        """Use a one-time link to sign `name` in; the new session's secret. Raises LinkRefused.

        Either the link is used and the session there, or neither.
        """
        with self._store.writing() as connection:
            link = self.links.take(connection, secret, name)
            via = {
                "owner": "the first start's link",
                "invitation": f"an invitation by {link.made_by}",
                "device": "a link for another device",
            }[link.kind]
            return self.sessions.add(connection, name, device, via)

    def forget(self, name: str) -> None:
        """End all that could bring this participant in: sessions, open links, tokens, the login."""
        with self._store.writing() as connection:
            for table in ("sessions", "tokens", "logins"):
                connection.execute(f"delete from {table} where name = ?", (name,))
            connection.execute(
                "update links set revoked = ? where (name = ? or made_by = ?) and used is null",
                (self._store.now(), name, name),
            )

    def change_people(
        self, repository: ConversationRepository, author: str, change: Callable[[Participants], Participants]
    ) -> None:
        """Commit another `participants.toml`, by `author`. Raises NotAllowed, and what `change` raises.

        One process at a time reads, changes and commits, so that nobody's change is lost.
        """
        with self._store.writing():
            changed = change(repository.participants())
            repository.set_participants(write_participants(changed), author)

    def first_link(self, url: str) -> str | None:
        """The address with which the owner comes in for the first time; None once anybody came in.

        Each call makes a new one and takes the earlier one back. `url` is where the server listens.
        """
        if self.links.any_used():
            return None
        return self.join_url(self.links.make("owner", "", "", OWNER_LASTS), url)

    def join_url(self, secret: str, url: str) -> str:
        """A link's address; where the settings name a public address, there."""
        return f"{self.settings.public_url or reachable(url)}/join/{secret}"


def reachable(url: str) -> str:
    """An address to open for one where all interfaces are listened on."""
    return url.replace("://0.0.0.0", "://127.0.0.1").replace("://[::]", "://[::1]").rstrip("/")

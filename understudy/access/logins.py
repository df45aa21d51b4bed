"""Which participant an account at GitHub is.

It is known by its number there: a login can be given up, and taken by someone else.
"""

from understudy.access.errors import InvalidEntry
from understudy.access.schema import Store


class Logins:
    """All accounts that were bound: one for each participant at most."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def bind(self, name: str, account: int, login: str) -> None:
        """From now on this account signs `name` in, in place of an earlier one.

        Raises InvalidEntry when it is another participant's.
        """
        with self._store.writing() as connection:
            row = connection.execute("select name from logins where account = ?", (account,)).fetchone()
            if row is not None and row["name"] != name:
                raise InvalidEntry(f"the account {login} signs another participant in already")
            connection.execute("delete from logins where name = ?", (name,))
            connection.execute(
                "insert into logins (account, login, name) values (?, ?, ?)", (account, login, name)
            )

    def find(self, account: int) -> str | None:
        """Whom the account signs in."""
        with self._store.reading() as connection:
            row = connection.execute("select name from logins where account = ?", (account,)).fetchone()
        return None if row is None else str(row["name"])

    def of(self, name: str) -> str | None:
        """The login that the participant's account had when it was bound."""
        with self._store.reading() as connection:
            row = connection.execute("select login from logins where name = ?", (name,)).fetchone()
        return None if row is None else str(row["login"])

    def unbind(self, name: str) -> None:
        """The account signs no one in any more."""
        with self._store.writing() as connection:
            connection.execute("delete from logins where name = ?", (name,))

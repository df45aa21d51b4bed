"""What the access room refuses. Each says what was expected, what came, and what to do."""


class AccessError(Exception):
    """Anything this room refuses."""


class LinkRefused(AccessError, PermissionError):
    """A one-time link that opens nothing: unknown, used, run out or taken back."""


class UnknownEntry(AccessError, LookupError):
    """A session, a link or a token that is not there, or is someone else's."""


class InvalidEntry(AccessError, ValueError):
    """Something that cannot be made as given."""


class AccountsVersion(AccessError, RuntimeError):
    """The file was made by a newer program."""

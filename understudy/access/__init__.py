"""Who gets in: the sessions, one-time links and tokens of a workspace's people, and how people are added.

What anybody may do is not decided here but by `conversation.Participants`. Secrets are kept as hashes only.
"""

from understudy.access.accounts import Accounts, reachable
from understudy.access.errors import (
    AccessError,
    AccountsVersion,
    InvalidEntry,
    LinkRefused,
    UnknownEntry,
)
from understudy.access.inviting import Openness, change, invite, remove, set_access, suggested_name
from understudy.access.links import DEVICE_LASTS, Link, LinkKind
from understudy.access.schema import new_secret
from understudy.access.sessions import Session
from understudy.access.tokens import SCOPES, TOKEN_PREFIX, Scope, Token

__all__ = [
    "DEVICE_LASTS",
    "SCOPES",
    "TOKEN_PREFIX",
    "AccessError",
    "Accounts",
    "AccountsVersion",
    "InvalidEntry",
    "Link",
    "LinkKind",
    "LinkRefused",
    "Openness",
    "Scope",
    "Session",
    "Token",
    "UnknownEntry",
    "change",
    "invite",
    "new_secret",
    "reachable",
    "remove",
    "set_access",
    "suggested_name",
]

"""Cookies, signed: the session's, and the one that binds a sign-in by GitHub to its browser."""

import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from itsdangerous import BadData, BadSignature, Signer, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

KEY_FILE = ".understudy/cookie-key"
SESSION_COOKIE = "understudy"
GITHUB_COOKIE = "understudy-github"
GITHUB_SECONDS = 600
"""How long one may take at GitHub."""
_KEPT_SECONDS = 400 * 24 * 3600
"""As long as browsers keep any cookie: when a session is over, its record says."""


class Cookies:
    """What goes into cookies and comes out of them."""

    def __init__(self, key: bytes, public_url: str | None) -> None:
        self._sessions = Signer(key, salt=b"understudy.session", key_derivation="hmac", digest_method=sha256)
        self._forms = Signer(key, salt=b"understudy.csrf", key_derivation="hmac", digest_method=sha256)
        self._github = URLSafeTimedSerializer(
            key,
            salt=b"understudy.github",
            signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
        )
        public = urlsplit(public_url or "")
        self._secure_host = public.netloc if public.scheme == "https" else None

    def session(self, request: Request) -> str | None:
        """The session's secret; None without one, or when this server did not sign it."""
        given = request.cookies.get(SESSION_COOKIE, "")
        with suppress(BadSignature, UnicodeError):
            return self._sessions.unsign(given).decode()
        return None

    def csrf(self, secret: str) -> str:
        """What stands in the forms of a session; who has it cannot tell the session's secret from it."""
        return self._forms.get_signature(secret).decode()

    def open_session(self, response: Response, request: Request, secret: str) -> None:
        """Give the browser its session."""
        signed = self._sessions.sign(secret).decode()
        self._set(response, request, SESSION_COOKIE, signed, "/", _KEPT_SECONDS)

    def close_session(self, response: Response, request: Request) -> None:
        """Take it away again."""
        self._set(response, request, SESSION_COOKIE, "", "/", 0)

    def keep_github(self, response: Response, request: Request, payload: dict[str, str]) -> None:
        """Remember, in this browser alone, what was asked of GitHub."""
        signed = self._github.dumps(payload)
        self._set(response, request, GITHUB_COOKIE, signed, "/github", GITHUB_SECONDS)

    def take_github(self, request: Request) -> dict[str, Any] | None:
        """What this browser asked of GitHub not long ago."""
        given = request.cookies.get(GITHUB_COOKIE, "")
        with suppress(BadData, UnicodeError):
            payload = self._github.loads(given, max_age=GITHUB_SECONDS)
            return payload if isinstance(payload, dict) else None
        return None

    def drop_github(self, response: Response, request: Request) -> None:
        """An answer of GitHub's is looked at once."""
        self._set(response, request, GITHUB_COOKIE, "", "/github", 0)

    def _set(
        self,
        response: Response,
        request: Request,
        name: str,
        value: str,
        path: Literal["/", "/github"],
        lasts_seconds: int,
    ) -> None:
        host = request.headers.get("host", "")
        secure = request.url.scheme == "https" or (
            self._secure_host is not None and host == self._secure_host
        )
        response.set_cookie(
            name, value, max_age=lasts_seconds, path=path, secure=secure, httponly=True, samesite="lax"
        )


def cookie_key(root: Path) -> bytes:
    """The key that cookies are signed with; made on first use, readable by this user only.

    Who removes the file signs everyone out.
    """
    file = root / KEY_FILE
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        aside = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(32))
        with suppress(FileExistsError):  # another process was first: its key counts
            os.link(aside, file)
        aside.unlink()
    return file.read_bytes()

"""How often anyone may try: counted in this process's memory, over a window that moves."""

import ipaddress
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from understudy.config import AccessSettings
from understudy.server.errors import ApiError

LEAST_BURST, BURST_SHARE = 10, 24
"""This part of what one may post in a minute may come in one second, and so much at least: a double click and
a live preview, not a flood."""


class Limiter:
    """Refuses who comes too often, with 429 and the seconds to wait."""

    def __init__(self, settings: AccessSettings) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._attempts = RateLimitItemPerMinute(settings.attempts_per_minute)
        self._posts = RateLimitItemPerMinute(settings.posts_per_minute)
        self._burst = RateLimitItemPerSecond(max(LEAST_BURST, settings.posts_per_minute // BURST_SHARE))

    def attempt(self, request: Request) -> None:
        """Count an attempt to come in. Raises ApiError(429)."""
        self._hit(self._attempts, "sign-in", address_of(request))

    def post(self, name: str) -> None:
        """Count something that a visitor does. Raises ApiError(429)."""
        self._hit(self._posts, "post", name)
        self._hit(self._burst, "burst", name)

    def check_failures(self, request: Request) -> None:
        """Raises ApiError(429) after too many wrong tokens from this address."""
        key = ("token", address_of(request))
        if not self._windows.test(self._attempts, *key):
            raise self._refusal(self._attempts, *key)

    def failed(self, request: Request) -> None:
        """Count a wrong token."""
        self._windows.hit(self._attempts, "token", address_of(request))

    def _hit(self, item: RateLimitItem, *key: str) -> None:
        if not self._windows.hit(item, *key):
            raise self._refusal(item, *key)

    def _refusal(self, item: RateLimitItem, *key: str) -> ApiError:
        wait = max(1, math.ceil(self._windows.get_window_stats(item, *key).reset_time - time.time()))
        return ApiError(
            429,
            f"expected at most {item.amount} in {item.get_expiry()} s, got more: wait {wait} s",
            code="too_many",
            headers={"Retry-After": str(wait)},
        )


def address_of(request: Request) -> str:
    """Where a request comes from; of an IPv6 address the network, since one machine has all of it."""
    given = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        return given
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)

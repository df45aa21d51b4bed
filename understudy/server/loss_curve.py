"""The losses of the session that runs, for whoever watches it."""

from collections.abc import Sequence

POINTS = 400
"""As many as a plot can show. A session may have a million steps."""


class LossCurve:
    """At most `POINTS` of a session's (step, loss), evenly spread over it, and always the newest."""

    def __init__(self) -> None:
        self.session: str | None = None
        self._kept: list[tuple[int, float]] = []
        self._newest: tuple[int, float] | None = None
        self._every = 1

    def note(self, session: str, step: int, loss: float | None) -> None:
        """Another step. One that does not come after the last begins anew: the session is run again."""
        if session != self.session or (self._newest is not None and step <= self._newest[0]):
            self.session, self._kept, self._newest, self._every = session, [], None, 1
        if loss is None:
            return
        self._newest = (step, loss)
        if not self._kept or step >= self._kept[-1][0] + self._every:
            self._kept.append(self._newest)
        if len(self._kept) >= POINTS:
            self._kept = self._kept[::2]
            self._every *= 2

    def points(self, session: str) -> Sequence[tuple[int, float]]:
        """The points of this session, none when another one is drawn."""
        if session != self.session or self._newest is None:
            return ()
        newest = [] if self._kept[-1] == self._newest else [self._newest]
        return (*self._kept, *newest)

"""What moved in the weights: measured on a thread, one at a time, and kept for the next who asks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from understudy.server.errors import ApiError
from understudy.server.pages.kept import Kept

if TYPE_CHECKING:
    from understudy.watching import SessionReport
    from understudy.weights import MovementReport

T = TypeVar("T")
REPORTS, PICTURES = 24, 48
PLOTS = {
    "heads": "How far each head moved, relative to its own size, by layer",
    "matrices": "How far each matrix moved, relative to its own size, by layer",
    "losses": "The loss of each step of the session",
}
"""What is drawn of a commit, and what each picture shows."""


class WeightReports:
    """Reports of sessions, movements between commits, and pictures of them, as SVG documents."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turn = asyncio.Lock()
        self._reports: Kept[str, SessionReport] = Kept(REPORTS)
        self._movements: Kept[tuple[str | None, str | None], MovementReport] = Kept(REPORTS)
        self._pictures: Kept[tuple[str, str], str] = Kept(PICTURES)

    async def report(self, commit: str) -> "SessionReport":
        """What a commit did. Raises ApiError(410) where its deltas were given up."""
        async with self._turn:
            return await self._report(commit)

    async def movement(self, a: str | None, b: str | None) -> "MovementReport":
        """How far apart two commits are (None: the weights as they came). Raises ApiError(410)."""
        async with self._turn:
            known = self._movements.get((a, b))
            return known or self._movements.put((a, b), await _measured(lambda: self._measure(a, b)))

    async def picture(self, commit: str, plot: str) -> str:
        """An SVG document. Raises ApiError: 404 for a plot that there is not, 410 as `report`."""
        if plot not in PLOTS:
            raise ApiError(404, f"expected one of {', '.join(PLOTS)}, got {plot!r}", code="unknown_plot")
        async with self._turn:
            known = self._pictures.get((commit, plot))
            if known is None:
                report = await self._report(commit)
                known = self._pictures.put((commit, plot), await to_thread.run_sync(_draw, report, plot))
        if not known:
            raise ApiError(404, f"commit {commit} has nothing to draw as {plot}", code="unknown_plot")
        return known

    async def _report(self, commit: str) -> "SessionReport":
        from understudy.watching import read_session_report

        known = self._reports.get(commit)
        if known is None:
            known = await _measured(lambda: read_session_report(self._directory, commit))
            self._reports.put(commit, known)
        return known

    def _measure(self, a: str | None, b: str | None) -> "MovementReport":
        from understudy.weights import WeightHistory, measure_movement, pair_streams, read_config

        history = WeightHistory.view(self._directory)
        pairs = pair_streams(history.tensors_at(a), history.tensors_at(b))
        return measure_movement(pairs, read_config(self._directory))


async def _measured(work: Callable[[], T]) -> T:
    """The result of `work`, made on a thread. Raises ApiError(410) where deltas were given up."""
    from understudy.weights import WeightsError

    try:
        return await to_thread.run_sync(work)
    except WeightsError as error:
        raise ApiError(410, f"what moved cannot be told: {error}", code="weights_gone") from error


def _draw(report: "SessionReport", plot: str) -> str:
    from understudy.watching import drawing

    if plot == "losses":
        return drawing.draw_losses(report.losses, report.gate) if report.losses else ""
    if plot == "heads":
        return drawing.draw_heads(report.movement) if report.movement.heads else ""
    return drawing.draw_matrices(report.movement)

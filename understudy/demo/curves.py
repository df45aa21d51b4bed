"""How behaviour changes with the number of lessons: with the guards (loss gate, replay) and without."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.behaviours import Behaviour
from understudy.watching import MARKS, Laboratory, Point

EARLY_MARKS = (1, 2, 3)
EARLY_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Curves:
    """Guarded and bare learning, and the first lessons over several draws."""

    guarded: tuple[Point, ...]
    bare: tuple[Point, ...]
    early: tuple[tuple[Point, ...], ...]


def draw_curves(
    laboratory: Laboratory, behaviours: Sequence[Behaviour], progress: Callable[[str], None]
) -> Curves:
    """All curves; `progress` is told before each point."""
    by_name = {behaviour.name: behaviour for behaviour in behaviours}
    watched = [by_name[name] for name in ("accepts", "pushes_back", "accepts_harm")]
    guarded = laboratory.settings
    bare = guarded.model_copy(update={"gate": None, "replay": 0.0})
    arms: dict[str, list[Point]] = {}
    for name, settings in (("with", guarded), ("without", bare)):
        arms[name] = []
        for point in laboratory.teach(0, MARKS, watched, settings):
            arms[name].append(point)
            progress(f"{name} gate and replay: {point.lessons} lessons")
    early = []
    for draw in range(1, EARLY_DRAWS + 1):
        early.append(tuple(laboratory.teach(draw, EARLY_MARKS, watched[:1], guarded)))
        progress(f"first lessons, draw {draw} of {EARLY_DRAWS}")
    return Curves(tuple(arms["with"]), tuple(arms["without"]), tuple(early))

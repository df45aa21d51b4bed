"""The settings of one session: the workspace's, with what a request says otherwise."""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from understudy.config import TrainingSettings
from understudy.server.errors import ApiError

_OF_THE_WORKSPACE = frozenset({"on_approval"})  # when sessions begin; says nothing about one
SESSION_FIELDS = frozenset(TrainingSettings.model_fields) - _OF_THE_WORKSPACE
"""The settings that a request may give, each at the top level of its body."""
MAX_COUNT = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact."""
MAX_STEPS = 1_000_000
"""Lessons times epochs and reviews in one session: at a millisecond a step more than a quarter of an hour."""


def resolve_settings(base: TrainingSettings, overrides: Mapping[str, Any]) -> TrainingSettings:
    """`base` with `overrides`, types taken strictly: the text "3" is no number.

    Raises ApiError(400) that names the field in `param`.
    """
    unknown = sorted(set(overrides) - SESSION_FIELDS)
    if unknown:
        raise ApiError(
            400,
            f"{unknown[0]}: expected one of the settings {', '.join(sorted(SESSION_FIELDS))}, got this one",
            param=unknown[0],
            code="unknown_parameter",
        )
    for name, value in overrides.items():
        if isinstance(value, int) and abs(value) > MAX_COUNT:
            raise ApiError(400, f"{name}: expected a number of at most {MAX_COUNT}, got {value}", param=name)
    merged = {**base.model_dump(mode="json"), **overrides}
    try:
        settings = TrainingSettings.model_validate_json(msgspec.json.encode(merged), strict=True)
    except ValidationError as error:
        problems = "; ".join(
            f"{_path(problem['loc'])}: {problem['msg']}, got {problem['input']!r:.80}"
            for problem in error.errors()
        )
        raise ApiError(400, problems, param=_path(error.errors()[0]["loc"])) from error
    _check_objective(settings.objective)
    check_steps(1, settings)
    return settings


def check_steps(examples: int, settings: TrainingSettings) -> None:
    """Raises ApiError(400) for a session that would hold the trainer for too long."""
    passes = settings.epochs + settings.reviews
    if examples * passes > MAX_STEPS:
        raise ApiError(
            400,
            f"epochs: expected at most {MAX_STEPS} examples times epochs and reviews, got {examples} times "
            f"{passes}: ask for several sessions",
            param="epochs",
        )


def _check_objective(name: str) -> None:
    from understudy.training import objective_names

    known = objective_names()
    if name not in known:
        raise ApiError(400, f"objective: expected one of {', '.join(known)}, got {name!r}", param="objective")


def _path(location: tuple[int | str, ...]) -> str:
    """`betas[1]` of ("betas", 1)."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")

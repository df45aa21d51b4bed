"""Loaded by schemathesis itself (SCHEMATHESIS_HOOKS): what keeps its requests short."""

from typing import Any

import schemathesis

LONGEST = 3


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """A million epochs are a valid request, and would hold the one trainer for the rest of the run."""
    if not isinstance(body, dict):
        return body
    counts = {name: body.get(name) for name in ("epochs", "reviews")}
    long = [name for name, count in counts.items() if isinstance(count, int) and count > LONGEST]
    return {**body, **dict.fromkeys(long, LONGEST)}

"""Run `understudy concepts ...` in the tests' own process: a new one would load torch anew each time."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from understudy.cli import app
from understudy.cli.failures import explained


def said(*words: object) -> str:
    """What the command prints."""
    out = io.StringIO()
    with redirect_stdout(out), explained():
        code = app(["concepts", *map(str, words)], result_action="return_int_as_exit_code_else_zero")
        assert code == 0
    return out.getvalue()


def refused(*words: object) -> str:
    """What the command prints to standard error when it refuses, on one line."""
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as left:
        said(*words)
    assert left.value.code == 2, err.getvalue()
    return " ".join(err.getvalue().split())


def answered(*words: object) -> dict[str, Any]:
    """What the command prints with `--json`, read."""
    told: dict[str, Any] = json.loads(said(words[0], "--json", *words[1:]))
    return told

"""The command reference says what the commands say of themselves."""

from pathlib import Path

from understudy.cli import app

REFERENCE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text() == app.generate_docs().rstrip() + "\n", "run `make docs`"

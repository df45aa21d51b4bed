"""What commands that ask a model print while they do, and when they are done."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_WIDTH = 140
"""Columns of a page that is no terminal."""


@contextmanager
def watching() -> "Iterator[Progress]":
    """A bar on the terminal with what is done and the time that is left; silent where no one watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose cells are plain text, whatever stands in them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def printable(text: str) -> str:
    """One line of text that cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))

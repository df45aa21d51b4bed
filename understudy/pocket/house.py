"""A workspace around the pocket model."""

from pathlib import Path

from understudy.pocket.cards import checkpoint_directory
from understudy.pocket.invariants import folder
from understudy.pocket.scenarios import replay
from understudy.workspace import Rehearsal, Workspace

REHEARSALS = 400
SAMPLE = Path(__file__).with_name("sample.md")
SETTINGS = """\
[training]
# Measured on the pocket model: rank 1 holds a lesson after fewer corrections than rank 64 (docs/LOG.md).
rank = 1
"""


def new_workspace(root: Path, model: Path | None = None, *, sample: bool = False) -> Workspace:
    """A workspace with a copy of the pocket model, its invariants, and rehearsals that protect what is good.

    `model` is another directory that the same corpus made; `sample` adds a conversation to begin with.
    Raises WorkspaceError when `root` is a workspace already.
    """
    rehearsals = [Rehearsal(tuple(messages), kept) for messages, kept in replay(seed=0, count=REHEARSALS)]
    made = Workspace.create(
        root,
        model=model or checkpoint_directory(),
        copy_model=True,
        replay=rehearsals,
        settings=SETTINGS,
        behaviours=folder(),
    )
    if sample:
        made.repository.add("conversations/welcome.md", SAMPLE.read_text(), "guide")
    return made

"""The embedded default model: its corpus, its recipe, its card, its checkpoint.

Nothing here loads torch: the modules that make and measure a model do, and are imported by name.
"""

from understudy.pocket.cards import MissingCard, card, checkpoint_directory
from understudy.pocket.corpus import Document, documents, render
from understudy.pocket.house import new_workspace
from understudy.pocket.scenarios import (
    PocketLesson,
    behaviours,
    dialogue,
    held_out_lessons,
    lessons,
    replay,
)
from understudy.pocket.states import StateOfMind, states_of_mind

__all__ = [
    "Document",
    "MissingCard",
    "PocketLesson",
    "StateOfMind",
    "behaviours",
    "card",
    "checkpoint_directory",
    "dialogue",
    "documents",
    "held_out_lessons",
    "lessons",
    "new_workspace",
    "render",
    "replay",
    "states_of_mind",
]

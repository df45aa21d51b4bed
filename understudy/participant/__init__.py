"""The model as a member of a conversation: new commit -> context -> reply -> commit."""

from understudy.participant.answering import (
    STOPPED_TRAILER,
    Answer,
    Complete,
    EmptyAnswer,
    NothingToAnswer,
    answer,
    due,
    post_answer,
    question,
    reword,
)
from understudy.participant.speaking import speak

__all__ = [
    "STOPPED_TRAILER",
    "Answer",
    "Complete",
    "EmptyAnswer",
    "NothingToAnswer",
    "answer",
    "due",
    "post_answer",
    "question",
    "reword",
    "speak",
]

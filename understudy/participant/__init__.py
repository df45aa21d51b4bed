"""The model as a member of a conversation: new commit -> context -> reply -> commit."""

from understudy.participant.answering import Answer, Complete, EmptyAnswer, NothingToAnswer, answer, due
from understudy.participant.speaking import speak

__all__ = ["Answer", "Complete", "EmptyAnswer", "NothingToAnswer", "answer", "due", "speak"]

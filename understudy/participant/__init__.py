"""The model as a member of a conversation: new commit -> context -> reply -> commit."""

from understudy.participant.answering import Answer, Complete, EmptyAnswer, NothingToAnswer, answer, due

__all__ = ["Answer", "Complete", "EmptyAnswer", "NothingToAnswer", "answer", "due"]

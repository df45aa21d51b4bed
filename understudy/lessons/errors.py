"""What can go wrong with lessons, each with what was expected, what came and what to do."""


class LessonError(Exception):
    """Anything this room refuses to do."""

    def __str__(self) -> str:  # KeyError would show its message quoted
        return str(self.args[0]) if self.args else ""


class UnknownLesson(LessonError, KeyError):
    """No lesson in the ledger has this id."""


class AmbiguousLesson(LessonError, ValueError):
    """Several lessons' ids begin like this: give more digits."""


class IllegalTransition(LessonError, ValueError):
    """A lesson, or a session, in the state `current` cannot become `wanted`."""

    def __init__(self, what: str, current: str, wanted: str, allowed: str) -> None:
        super().__init__(
            f"{what} is {current}, and cannot become {wanted}; from there it can become {allowed}"
        )
        self.current = current
        self.wanted = wanted


class UnknownSession(LessonError, KeyError):
    """No session in the ledger has this id."""


class SessionConflict(LessonError, ValueError):
    """A session that contradicts what the ledger holds: a lesson in two sessions, an id used for two
    sessions.
    """


class NoOpenQuestion(LessonError, KeyError):
    """No decision is waited for about this session."""


class LedgerVersion(LessonError, RuntimeError):
    """The ledger was written by a newer program."""


class LessonFormat(LessonError, ValueError):
    """A line that is no lesson in any of the known shapes; `line` counts from 1."""

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}, line {line}: {problem}")
        self.line = line


class UnknownRequest(LessonError, KeyError):
    """No request has this key, or it ended so long ago that it is forgotten."""


class RequestConflict(LessonError, ValueError):
    """A key that stands for another request, or a request that is over."""


class QueueFull(LessonError, RuntimeError):
    """So many requests wait that another is not taken on."""

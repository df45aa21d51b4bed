"""How errors reach a person on the command line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class CommandError(ValueError):
    """The command cannot be done as given."""


@contextmanager
def explained() -> Iterator[None]:
    """Print errors that a person can act on, and exit with status 2. Anything else keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader left: nothing more to say, and no complaint at exit
        sys.exit(0)
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        print(f"understudy: {message}", file=sys.stderr)
        sys.exit(EXIT_CODE)


def _expected() -> tuple[type[Exception], ...]:
    from understudy.config import ConfigError
    from understudy.conversation import ConversationError
    from understudy.lessons import LessonError
    from understudy.participant import EmptyAnswer, NothingToAnswer
    from understudy.workspace import WorkspaceError

    found: list[type[Exception]] = [CommandError, ConfigError, WorkspaceError, ConversationError, LessonError]
    found += [EmptyAnswer, NothingToAnswer]
    if "understudy.behaviours" in sys.modules:
        from understudy.behaviours import (
            InvalidCertificate,
            InvalidInvariant,
            JudgeFailed,
            NoAnswer,
            ScenarioTooLong,
            SignatureFailed,
            TooFewReplies,
            VoiceFailed,
        )

        found += [TooFewReplies, VoiceFailed, InvalidInvariant, NoAnswer, ScenarioTooLong, JudgeFailed]
        found += [InvalidCertificate, SignatureFailed]
    if "understudy.access" in sys.modules:
        from understudy.access import AccessError

        found.append(AccessError)
    if "understudy.engine" in sys.modules:  # never load torch only to report an error
        from understudy.engine import EngineError

        found.append(EngineError)
    if "understudy.weights" in sys.modules:
        from understudy.weights import WeightsError

        found.append(WeightsError)
    if "understudy.concepts" in sys.modules:
        from understudy.concepts import ConceptError

        found.append(ConceptError)
    if "understudy.watching" in sys.modules:
        from understudy.watching import StudyError

        found.append(StudyError)
    if "understudy.behaviours.dream_log" in sys.modules:
        from understudy.behaviours import DreamError

        found.append(DreamError)
    if "understudy.demo" in sys.modules:
        from understudy.demo import DemoError

        found.append(DemoError)
    return tuple(found)

"""What can go wrong between a model directory and an answer."""


class EngineError(Exception):
    """A model cannot be served, or a request cannot be answered as asked."""


class ModelNotFound(EngineError, FileNotFoundError):
    """There is no model where one was expected."""


class UnknownArchitecture(EngineError, ValueError):
    """The directory holds a model of a kind that this version cannot run."""


class BrokenCheckpoint(EngineError, ValueError):
    """The directory holds a model whose files do not fit together."""


class BrokenReadout(EngineError, ValueError):
    """Directions that are not in the format, or not of the model they were given for."""


class NoDirections(EngineError, ValueError):
    """Readouts or steering are asked for, and nothing is loaded to do it with."""

    def __init__(self) -> None:
        super().__init__(
            "expected directions to read and steer by, this server has loaded none: name their folder with "
            "`readout` under [model] in understudy.toml"
        )


class BrokenTemplate(EngineError, ValueError):
    """The chat template refused the messages, or does not render a conversation turn by turn."""


class BadRequest(EngineError, ValueError):
    """A request that no model could answer: a value out of range, an unknown token, an empty prompt."""


class PromptTooLong(EngineError, ValueError):
    """The prompt leaves no room in the model's context for a single further token."""

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        super().__init__(
            f"expected at most {context_length - 1} prompt tokens, because this model's context holds "
            f"{context_length} and at least one must be left for the answer; got {prompt_tokens}: "
            "shorten the prompt"
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class EngineBusy(EngineError, RuntimeError):
    """Too many requests are waiting already."""


class EngineClosed(EngineError, RuntimeError):
    """The engine was closed before or while it answered."""

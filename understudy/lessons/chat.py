"""Chat messages: the form in which a model reads a conversation."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn as a chat template takes it."""

    role: Role
    content: str

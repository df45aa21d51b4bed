"""What is to be learned: lessons mined from conversations, imported, approved; the ledger."""

from understudy.lessons.chat import ChatMessage, Role
from understudy.lessons.example import Example

__all__ = ["ChatMessage", "Example", "Role"]

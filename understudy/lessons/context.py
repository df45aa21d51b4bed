"""How the path to a message becomes a chat that the model continues."""

import re
from collections.abc import Sequence

from understudy.conversation import Message
from understudy.lessons.chat import ChatMessage, Role


def chat_context(path: Sequence[Message], model_name: str) -> tuple[ChatMessage, ...]:
    """The messages from a thread's root to the one that is answered, as the chat template takes them.

    The model's own are the assistant's, all others the user's. Where two or more people speak on the path,
    each of theirs begins with their name. A mention of the model that opens a user's message is taken off.
    Neighbours of the same role become one turn, with a blank line between. Deleted messages are passed over.
    """
    spoken = [message for message in path if not message.deleted]
    people = {message.author for message in spoken} - {model_name}
    mention = re.compile(rf"\s*@{re.escape(model_name)}(?![\w.-])[,:]?\s+")
    turns: list[tuple[Role, list[str]]] = []
    for message in spoken:
        role: Role = "assistant" if message.author == model_name else "user"
        text = message.body
        if role == "user":
            text = mention.sub("", text, count=1) if mention.match(text) else text
            text = f"{message.author}: {text}" if len(people) > 1 else text
        if turns and turns[-1][0] == role:
            turns[-1][1].append(text)
        else:
            turns.append((role, [text]))
    return tuple(ChatMessage(role, "\n\n".join(texts)) for role, texts in turns)

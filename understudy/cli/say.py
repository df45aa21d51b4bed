"""`understudy say`."""

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.options import WorkspaceOption, conversation_file

if TYPE_CHECKING:
    from understudy.lessons import ChatMessage
    from understudy.participant import Answer
    from understudy.workspace import Workspace


def say(file: str, *, to: str, workspace: WorkspaceOption = Path()) -> None:
    """Let the model answer message TO in the conversation FILE, and print what it said.

    The workspace's running server is asked; without one the model is loaded for this answer.
    """
    from understudy.participant import answer
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    name = opened.settings.model.name
    speak = _by_server if opened.server() is not None else _by_loading
    posted = answer(
        opened.repository,
        conversation_file(file),
        to,
        name,
        lambda chat: speak(opened, chat),
        opened.notes,
    )
    print(opened.repository.read(conversation_file(file)).message(posted.message).body)


def _by_server(workspace: "Workspace", chat: "tuple[ChatMessage, ...]") -> "Answer":
    from understudy.cli.remote import call
    from understudy.participant import Answer

    settings = workspace.settings.participant
    body = {
        "model": workspace.settings.model.name,
        "messages": [{"role": turn.role, "content": turn.content} for turn in chat],
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
    }
    said = call(workspace, "POST", "/v1/chat/completions", body)
    return Answer(str(said["choices"][0]["message"]["content"]).strip(), said["understudy"]["weight_commit"])


def _by_loading(workspace: "Workspace", chat: "tuple[ChatMessage, ...]") -> "Answer":
    from understudy.engine import EmbeddedEngine, locate_model
    from understudy.participant import speak
    from understudy.weights import read_commits

    directory = locate_model(workspace.model_path)
    with EmbeddedEngine(workspace.settings.model, directory) as engine:
        commits = read_commits(directory)
        engine.weight_commit = commits[-1].id if commits else None
        return speak(engine, workspace.settings.participant, chat)

"""The model to ask: the workspace's running server, or without one the model loaded for this command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.failures import CommandError
from understudy.cli.remote import call

if TYPE_CHECKING:
    from understudy.behaviours import ModelSubject
    from understudy.engine import EmbeddedEngine, WeightState
    from understudy.workspace import ServerAddress, Workspace


@contextmanager
def subject_of(workspace: "Workspace") -> Iterator["ModelSubject"]:
    """The workspace's model with the weights of its newest commit; let go of when the block ends.

    Raises VoiceFailed when the server does not answer, CommandError when it serves another directory, and
    EngineError when the model cannot be loaded.
    """
    address = workspace.server()
    with _loaded(workspace) if address is None else _served(workspace, address) as subject:
        yield subject


def weights_now(workspace: "Workspace") -> "WeightState":
    """The weights that an answer would be spoken with. A server tells them with one."""
    from understudy.engine import WeightState, locate_model
    from understudy.weights import WeightHistory

    if workspace.server() is None:
        return WeightState(WeightHistory.view(locate_model(workspace.model_path)).head, 0, training=False)
    body = {"model": workspace.settings.model.name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    told = call(workspace, "POST", "/v1/completions", body)["understudy"]
    return WeightState(told["weight_commit"], told["weight_step"], told["training"])


@contextmanager
def _served(workspace: "Workspace", address: "ServerAddress") -> Iterator["ModelSubject"]:
    from understudy.behaviours import ModelSubject, ServedVoice
    from understudy.engine import locate_model
    from understudy.weights import last_owner

    directory = locate_model(workspace.model_path)
    voice = ServedVoice(address.url, workspace.token, workspace.settings.model.name, directory)
    try:
        if last_owner(directory) != address.pid:  # its tokenizer and its files would be of another model
            raise CommandError(
                f"expected the server at {address.url} to serve {directory}, it serves another model "
                "directory: name that one in understudy.toml, or stop the server"
            )
        yield ModelSubject(voice)
    finally:
        voice.close()


@contextmanager
def _loaded(workspace: "Workspace") -> Iterator["ModelSubject"]:
    from understudy.behaviours import EngineVoice, ModelSubject

    with engine_of(workspace, readout=workspace.readout_path) as engine:
        yield ModelSubject(EngineVoice(engine))


@contextmanager
def engine_of(workspace: "Workspace", *, readout: Path | None = None) -> Iterator["EmbeddedEngine"]:
    """The workspace's model with the weights of its newest commit, loaded for this command alone.

    `readout` is a folder of directions to read and steer by. A server that runs meanwhile is left alone.
    """
    from understudy.engine import EmbeddedEngine, locate_model
    from understudy.weights import WeightHistory

    directory = locate_model(workspace.model_path)
    history = WeightHistory.view(directory)
    with EmbeddedEngine(workspace.settings.model, directory, readout=readout) as engine:
        # A server may have committed what it has not synced, or sync while the files are being read.
        if history.pending or workspace.server() is not None:
            history.load(engine.shared.tensors)
        engine.weight_commit = history.head
        yield engine

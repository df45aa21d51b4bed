"""A workspace: one folder with the settings, the conversations, the ledger and the model.

understudy.toml      settings                                  (in Git)
conversations/*.md   threads                                   (in Git)
notes/*.md           what is put before a conversation when the model answers (in Git)
replay.jsonl         what is rehearsed while lessons are learned (in Git)
behaviours/*.toml    what the model must and must not do       (in Git)
model/               the model's directory, Hugging Face layout
.understudy/         ledger, token, the running server's address, logs
"""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pygit2

from understudy.behaviours import Invariant, Prompt, prompts_in, read_invariants
from understudy.config import SETTINGS_FILE, ConfigError, Settings, load_settings
from understudy.conversation import ConversationError, ConversationRepository, install_merge_driver
from understudy.lessons import ChatMessage, Ledger, Note

BEHAVIOURS = "behaviours"
"""The folder of the invariants."""


class WorkspaceError(ValueError):
    """A folder that is not a workspace, or cannot become one."""


class Rehearsal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `replay.jsonl`: a dialogue ending with the assistant's turn. `kept`: to be protected."""

    messages: tuple[ChatMessage, ...]
    kept: bool = False


class ServerAddress(msgspec.Struct, frozen=True):
    """Where this workspace is being served, and by which process."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Workspace:
    """An existing workspace and its settings."""

    root: Path
    settings: Settings

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        model: Path | str,
        copy_model: bool,
        replay: Sequence[Rehearsal],
        settings: str,
        behaviours: Path | None = None,
    ) -> "Workspace":
        """Make a workspace. `model` is copied in when `copy_model`, else named in the settings as it is.

        `settings` is further TOML for the settings file, `behaviours` a folder of invariants to begin with.
        Raises WorkspaceError when there is one already.
        """
        if (root / SETTINGS_FILE).exists():
            raise WorkspaceError(f"expected a new folder, {root} is a workspace already: nothing was changed")
        if copy_model and not (Path(model) / "config.json").is_file():
            raise WorkspaceError(f"expected a model directory with a config.json, got {model}")
        root.mkdir(parents=True, exist_ok=True)
        if copy_model:
            shutil.copytree(model, root / "model")
        path = "model" if copy_model else str(model)
        ConversationRepository.create(root)
        install_merge_driver(root)
        with (root / "replay.jsonl").open("w") as stream:
            stream.writelines(msgspec.json.encode(line).decode() + "\n" for line in replay)
        (root / SETTINGS_FILE).write_text(f"[model]\npath = {json.dumps(path)}\n\n{settings}")
        first = [SETTINGS_FILE, "replay.jsonl"]
        for file in sorted(behaviours.iterdir()) if behaviours is not None else ():
            (root / BEHAVIOURS).mkdir(exist_ok=True)
            shutil.copyfile(file, root / BEHAVIOURS / file.name)
            first.append(f"{BEHAVIOURS}/{file.name}")
        _commit(root, first)
        return cls.open(root)

    @classmethod
    def open(cls, root: Path, **flags: Any) -> "Workspace":
        """Open a workspace; `flags` are settings by section. Raises WorkspaceError or ConfigError."""
        root = root.absolute()
        if not (root / SETTINGS_FILE).is_file():
            raise WorkspaceError(
                f"expected {SETTINGS_FILE} in the workspace {root}, found none: run `understudy init {root}`"
            )
        (root / ".understudy").mkdir(exist_ok=True)
        return cls(root, load_settings(root / SETTINGS_FILE, **flags))

    @property
    def repository(self) -> ConversationRepository:
        return ConversationRepository.open(self.root)

    @property
    def ledger(self) -> Ledger:
        """A connection of the caller's own."""
        return Ledger(self.root / ".understudy" / "ledger.sqlite")

    @property
    def model_path(self) -> Path | str:
        """The model's directory, or a hub name as it stands in the settings."""
        given = Path(self.settings.model.path).expanduser()
        inside = self.root / given
        return inside if inside.is_dir() else given if given.is_absolute() else self.settings.model.path

    @property
    def readout_path(self) -> Path | None:
        """The folder of the directions to read and steer by; a relative one lies in the workspace."""
        given = self.settings.model.readout
        return None if given is None else self.root / Path(given).expanduser()

    @property
    def trainer_log(self) -> Path:
        return self.root / ".understudy" / "trainer.log"

    @property
    def token(self) -> str:
        """The secret that whoever writes must show; made on first use, readable by this user only."""
        file = self.root / ".understudy" / "token"
        if not file.is_file():
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_urlsafe(32))
        return file.read_text().strip()

    def rehearsals(self) -> list[Rehearsal]:
        """The lines of `replay.jsonl`; raises ConfigError with the line's number when one cannot be used."""
        file = self.root / "replay.jsonl"
        if not file.is_file():
            return []
        found = []
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            try:
                rehearsal = msgspec.json.decode(line, type=Rehearsal)
            except msgspec.MsgspecError as error:
                raise ConfigError(f"{file}, line {number}: {error}") from error
            if not rehearsal.messages or rehearsal.messages[-1].role != "assistant":
                raise ConfigError(f"{file}, line {number}: expected the last message to be the assistant's")
            found.append(rehearsal)
        return found

    def invariants(self) -> tuple[Invariant, ...]:
        """What the model must and must not do, by name; none without a folder `behaviours`.

        Raises InvalidInvariant for a file that is none.
        """
        return read_invariants(self.root / BEHAVIOURS, self._prompts)

    def _prompts(self, path: str) -> tuple[Prompt, ...]:
        """What the model was asked at a path into the conversations: `talk.md`, or `talk.md#message`."""
        name, _, message = path.partition("#")
        file = name if name.startswith("conversations/") else f"conversations/{name}"
        try:
            conversation = self.repository.read(file)
            return prompts_in(conversation, self.settings.model.name, message)
        except (ConversationError, ValueError) as error:
            raise ValueError(f"scenarios: {path}: {error}") from error

    @property
    def notes(self) -> tuple[Note, ...]:
        """The notes in `notes/`, committed or not, by name; empty and hidden files are left out.

        Raises ConfigError for a file that cannot be read, is not UTF-8, or leads out of the folder.
        """
        found = []
        for file in sorted((self.root / "notes").glob("[!.]*.md"), key=lambda file: file.stem):
            if file.resolve().parent != self.root.resolve() / "notes":
                raise ConfigError(f"expected a note of the workspace's own, {file} leads out of its folder")
            try:
                file.stem.encode()
                text = file.read_bytes().decode()
            except (OSError, UnicodeError) as error:
                raise ConfigError(f"expected a note in UTF-8 at {file}: {error}") from error
            if text.strip():
                found.append(Note(file.stem, text))
        return tuple(found)

    # ------------------------------------------------------------------ the running server

    def announce(self, url: str) -> None:
        """Leave the server's address for the command line to find."""
        file = self.root / ".understudy" / "server.json"
        aside = file.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(ServerAddress(url, os.getpid())))
        aside.rename(file)

    def withdraw(self, pid: int | None = None) -> None:
        """Take the address away again, if it is still that process's (this one's when none is named)."""
        address = self._announced()
        if address is not None and address.pid == (os.getpid() if pid is None else pid):
            (self.root / ".understudy" / "server.json").unlink()

    def server(self) -> ServerAddress | None:
        """The running server's address; None when there is none, or its process is gone."""
        address = self._announced()
        if address is None:
            return None
        try:
            os.kill(address.pid, 0)
        except ProcessLookupError:
            return None
        return address

    def _announced(self) -> ServerAddress | None:
        try:
            held = (self.root / ".understudy" / "server.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(held, type=ServerAddress)


def _commit(root: Path, files: Sequence[str]) -> None:
    """Put files of a new workspace into its Git history."""
    git = pygit2.Repository(str(root))
    for file in files:
        git.index.add(file)
    git.index.write()
    signature = pygit2.Signature("understudy", "understudy@localhost")
    message = "Settings and rehearsals of a new workspace"
    git.create_commit("HEAD", signature, signature, message, git.index.write_tree(), [git.head.target])

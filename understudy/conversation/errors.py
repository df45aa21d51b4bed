"""What can go wrong in a conversation, each with what was expected, what came and what to do."""


class ConversationError(Exception):
    """Anything this room refuses to do."""

    def __str__(self) -> str:  # KeyError would show its message quoted
        return str(self.args[0]) if self.args else ""


class UnknownMessage(ConversationError, KeyError):
    """No message has this id in this conversation."""


class UnknownParagraph(ConversationError, IndexError):
    """The message has no block of this number."""


class DeletedMessage(ConversationError, ValueError):
    """Only the message's place is left: it has no text."""


class InvalidTarget(ConversationError, ValueError):
    """A message or thread cannot go where it was sent."""


class UnknownThread(ConversationError, KeyError):
    """No thread has this title in this conversation."""


class AmbiguousThread(ConversationError, ValueError):
    """Several threads share the title: name one by its `Thread`."""


class DuplicateThread(ConversationError, ValueError):
    """A thread with this title is there already: post to it, or choose another title."""


class InvalidName(ConversationError, ValueError):
    """A name that cannot stand in a message line."""


class InvalidTitle(ConversationError, ValueError):
    """A title that cannot stand in a heading."""


class InvalidBody(ConversationError, ValueError):
    """A body that is empty or that is not text."""


class InvalidTime(ConversationError, ValueError):
    """A creation time without a zone, or outside the calendar."""


class InvalidTrailer(ConversationError, ValueError):
    """A commit trailer that would not read back as it was given."""


class StructureChanged(ConversationError, RuntimeError):
    """The file is malformed so that this operation would change other messages; nothing was done."""


class Unchanged(ConversationError, ValueError):
    """The new text is the text that is there."""


class Conflict(ConversationError, RuntimeError):
    """The message was changed by someone else since the caller saw it.

    `seen` is the text that the caller started from, `submitted` what the caller wants, `current` what stands
    there.
    """

    def __init__(self, message_id: str, seen: str, submitted: str, current: str) -> None:
        super().__init__(
            f"message {message_id} was changed since the revision you saw; "
            "compare `submitted` with `current` and edit again from the newest revision"
        )
        self.message_id = message_id
        self.seen = seen
        self.submitted = submitted
        self.current = current


class InvalidPath(ConversationError, ValueError):
    """A path that does not name a conversation inside `conversations/`."""


class UnknownFile(ConversationError, FileNotFoundError):
    """No such conversation at this revision."""


class FileThere(ConversationError, FileExistsError):
    """A file, or a workspace, stands where a new one was to be made."""


class UnknownRevision(ConversationError, KeyError):
    """Neither a commit nor a blob of this repository."""


class NotAWorkspace(ConversationError, FileNotFoundError):
    """The folder is not the root of a Git repository."""


class RepositoryBusy(ConversationError, TimeoutError):
    """Another program held the repository too long; nothing was written."""


class RepositoryFailure(ConversationError, OSError):
    """Git could not write (disk full, permissions, damage); nothing was acknowledged."""


class NotAllowed(ConversationError, PermissionError):
    """The participant lacks a right that this takes; nothing was written."""


class InvalidParticipants(ConversationError, ValueError):
    """`participants.toml` is not what docs/FORMAT.md says."""


class KeyReused(ConversationError, ValueError):
    """The idempotency key was used for something else: each thing said needs a key of its own."""


class InvalidAnchor(ConversationError, ValueError):
    """A text that is not a permanent link to a message."""


class AmbiguousAnchor(ConversationError, ValueError):
    """Several messages have the id: name the file with it."""


class InvalidQuery(ConversationError, ValueError):
    """A search without anything to look for."""


class InvalidImport(ConversationError, ValueError):
    """What was to be imported has another shape than what was named."""


class UnknownRemote(ConversationError, KeyError):
    """No remote repository of this name is known here."""


class RemoteFailure(ConversationError, OSError):
    """Git could not reach the other repository, or that refused."""


class PushRejected(ConversationError, RuntimeError):
    """The other repository has commits that this one lacks: pull first."""


class MergeStopped(ConversationError, RuntimeError):
    """A file that is no conversation needs a person's hand; nothing was changed."""

"""The bodies of the training API. Where a session is asked for, every training setting stands beside the
fields named here, at the top level of the body.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from understudy.lessons import Example, KeepOrRevert
from understudy.server.bodies import AtLeastOne, TokenId
from understudy.server.errors import ApiError
from understudy.server.lesson_bodies import SHAPES, Supervise, Weight
from understudy.server.messages import parse_body, unknown_field
from understudy.server.session_settings import SESSION_FIELDS

KEY_PATTERN = r"^[!-~]([ -~]{0,198}[!-~])?$"
"""1 to 200 printable ASCII characters, none of the outer ones a space: what a header can carry."""
_NOT_CONTENT = ("key", "wait")
"""Fields that say how a request is asked, not what for."""

TokenIds = tuple[TokenId, ...]
SomeTokenIds = Annotated[TokenIds, msgspec.Meta(min_length=1)]
Key = Annotated[
    str,
    msgspec.Meta(
        pattern=KEY_PATTERN,
        description="The same key with the same content is one session, however often it is asked for. "
        "May be given as the header Idempotency-Key instead.",
    ),
]
Author = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


_SHAPES = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in SHAPES]
LessonAsSent = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"anyOf": _SHAPES})]
"""A lesson in one of four shapes that no tag tells apart: `read_lesson` does."""


class ExampleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A lesson as token ids: what is read, what is to be said after it, and optionally what was said
    instead, how much each token counts, and the context of the teacher in self-distillation.
    """

    context_ids: TokenIds
    continuation_ids: SomeTokenIds
    rejected_ids: SomeTokenIds | None = None
    weight: Weight = 1.0
    teacher_context_ids: SomeTokenIds | None = None

    def example(self) -> Example:
        """As the trainer takes it."""
        return Example(
            self.context_ids,
            self.continuation_ids,
            self.rejected_ids,
            self.weight,
            teacher_context_ids=self.teacher_context_ids,
        )


class SettingsBody(msgspec.Struct, kw_only=True):
    """A body whose top level also holds training settings; `parse_asked` reads it."""


class SessionBody(SettingsBody, kw_only=True):
    """What both routes take that train on request."""

    message: Annotated[Note, msgspec.Meta(description="Of the weight commit.")] = "Trained by request"
    author: Author = "api"
    key: Key | None = None
    dry_run: Annotated[
        bool, msgspec.Meta(description="Compute losses and gradients, report, change nothing.")
    ] = False
    wait: Annotated[bool, msgspec.Meta(description="Answer when it is done, not when it is queued.")] = False


class TrainBody(SessionBody, kw_only=True):
    """`POST /train`: examples as token ids. Settings that are not given are the workspace's."""

    examples: Annotated[list[ExampleBody], msgspec.Meta(min_length=1)]


class FinetuneBody(SessionBody, kw_only=True):
    """`POST /finetune`: lessons as messages. `max_tokens` and `temperature` are those of the answers that
    the model gives itself in self-distillation; not given, the workspace's for a participant.
    """

    lessons: Annotated[list[LessonAsSent], msgspec.Meta(min_length=1)]
    supervise: Annotated[
        Supervise,
        msgspec.Meta(
            description="Of a conversation in `messages`: teach the last of the assistant's messages, or all."
        ),
    ] = "last"
    max_tokens: AtLeastOne | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None


class TrainLessonsBody(SettingsBody, kw_only=True):
    """`POST /lessons/train`: train what is approved, now."""

    dry_run: bool = False


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /train/cancel`: the request to call off, or the session to undo."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class DecideBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /behaviours/decide`: a session that waits for a decision, by the beginning of its id."""

    session: Annotated[str, msgspec.Meta(min_length=4, max_length=200)]
    decision: KeepOrRevert
    why: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    author: Author = "api"


class CheckpointBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /checkpoint`: nothing needs to be said; the body may be left out."""


class RestoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /weights/restore`: the commit to go back to; null is the model as it came."""

    commit: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{4,64}$")] | None
    author: Author = "api"


class AdoptBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /weights/adopt`: a safetensors file or a model directory on the server's machine, by its
    absolute path, with the names, shapes and types of the served weights.
    """

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern="^/")]
    message: Note = "Adopted by request"
    author: Author = "api"
    parent: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=64,
                description="The weight commit that the values were made from, or `initial`: refused when "
                "another is newest by now. null: whatever is newest.",
            ),
        ]
        | None
    ) = None


Body = TypeVar("Body", bound=SettingsBody)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Body]):
    """What a request asks for: its body, the settings beside it, and the fingerprint of both."""

    body: Body
    settings: Mapping[str, Any]
    content: str


def parse_asked(raw: bytes, kind: type[Body]) -> Asked[Body]:
    """`raw` as a body with settings at its top level.

    Settings are only told apart here; `resolve_settings` checks them. Raises ApiError(400).
    """
    body = parse_body(raw, kind)
    fields = msgspec.json.decode(raw, type=dict[str, Any])
    known = set(kind.__struct_fields__) | SESSION_FIELDS
    for name in fields:
        if name not in known:
            raise unknown_field(name, (*kind.__struct_fields__, *sorted(SESSION_FIELDS)))
    content = {name: value for name, value in fields.items() if name not in _NOT_CONTENT}
    told = msgspec.json.encode([kind.__name__, content], order="deterministic")
    settings = {name: value for name, value in fields.items() if name in SESSION_FIELDS}
    return Asked(body, settings, hashlib.sha256(told).hexdigest())


def session_key(body: SessionBody, header: str | None) -> str:
    """The request's key: that of the body or of the header, or a new one. Raises ApiError(400)."""
    for field, key in (("Idempotency-Key", header), ("key", body.key)):
        if key is not None and re.fullmatch(KEY_PATTERN, key) is None:
            problem = f"{field}: expected 1 to 200 printable ASCII characters, got {key!r:.80}"
            raise ApiError(400, problem, param=field)
    if header is not None and body.key not in (None, header):
        raise ApiError(
            400,
            f"key: expected the same as the header Idempotency-Key ({header!r}) or none, got {body.key!r}",
            param="key",
        )
    return body.key or header or uuid.uuid4().hex

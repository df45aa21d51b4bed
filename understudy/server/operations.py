"""What the API's document says of a route, told where the route is made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]
Tag = Literal["completions", "scores", "training", "weights", "server", "conversations"]

JSON = "application/json"
EVENTS = "text/event-stream"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query, in the path or in a header."""

    name: str
    where: Literal["query", "path", "header"]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({"type": "string"}))


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route takes and answers.

    `body` and the values of `answers` are msgspec types; an answer that is no JSON is named by its media
    type. `refusals` are the statuses it answers with an error of its own besides those that every route has;
    `settings` of the training API may stand in the body; `bodiless`: the body may be left out. `form` is a
    msgspec type in place of `body`, for what is posted as a form.
    """

    tag: Tag
    answers: Mapping[int, Any]
    body: Any = None
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    streams: bool = False
    bodiless: bool = False
    form: Any = None


class ApiRoute(Route):
    """A route with one method that the API's document describes, with the docstring of its endpoint."""

    def __init__(self, method: str, path: str, endpoint: Endpoint, operation: Operation) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.method = method
        self.operation = operation

"""`GET /openapi.json`: the API's document, made from the routes and from the types they read and answer."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

import understudy
from understudy.config import TrainingSettings
from understudy.server.answer_bodies import ErrorAnswer, ServerSentEvent
from understudy.server.auth import needs_token
from understudy.server.lesson_bodies import SHAPES
from understudy.server.messages import MAX_BODY_BYTES, json_response
from understudy.server.operations import EVENTS, FORM, JSON, ApiRoute, Operation
from understudy.server.session_settings import MAX_COUNT, SESSION_FIELDS
from understudy.server.training_bodies import SettingsBody

if TYPE_CHECKING:
    from understudy.engine import Engine

Schema = dict[str, Any]
_REFUSALS = {
    400: "A field that is wrong, named in `param`.",
    401: "The token is missing or wrong.",
    403: "A foreign web page is behind it: by its Host or its Origin header.",
    404: "There is none of that name.",
    409: "What stands already does not allow it: another request under the same key, a lesson's state, "
    "a newer text.",
    413: f"The body is beyond {MAX_BODY_BYTES} bytes.",
    422: "It was understood and could not be done; the weights are those of the last commit.",
    429: "Too many wait already; Retry-After is set.",
    500: "A fault of the server; its log holds the traceback under the code.",
    503: "There is no trainer, or the server is going down.",
}


async def show_document(request: Request) -> Response:
    """This document: every route, what it takes and what it answers, in OpenAPI 3.1."""
    engine: Engine = request.app.state.engine
    local: bool = request.app.state.local
    return json_response(describe_api(request.app.routes, engine.settings.name, local=local))


def describe_api(routes: Iterable[BaseRoute], model: str, *, local: bool) -> Schema:
    """The document of these routes, for a server of the model `model`; `local`: on a loopback address."""
    described = [route for route in routes if isinstance(route, ApiRoute)]
    paths: dict[str, Schema] = {}
    for route in described:
        secured = needs_token(route.method, route.path, local=local)
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route, secured=secured)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy",
            "version": understudy.__version__,
            "description": "Completions as OpenAI's clients expect them, scores, training beside serving.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas((route.operation for route in described), model),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The workspace's token."}
            },
        },
    }


def _path(route: ApiRoute) -> str:
    return re.sub(r"{(\w+):\w+}", r"{\1}", route.path)


# ---------------------------------------------------------------------- operations


def _operation(route: ApiRoute, *, secured: bool) -> Schema:
    operation = route.operation
    text = inspect.getdoc(route.endpoint) or ""
    summary, _, more = text.partition("\n\n")
    found: Schema = {
        "operationId": route.endpoint.__name__,
        "tags": [operation.tag],
        "summary": " ".join(summary.split()),
        "description": more,
        "security": [{"token": []}] if secured else [],
        "responses": _responses(operation, secured=secured),
    }
    if operation.parameters:
        found["parameters"] = [
            {
                "name": one.name,
                "in": one.where,
                "required": one.where == "path",
                "description": one.description,
                "schema": dict(one.schema),
            }
            for one in operation.parameters
        ]
    if operation.body is not None:
        found["requestBody"] = {
            "required": not operation.bodiless,
            "content": {JSON: {"schema": _reference(operation.body)}},
        }
    if operation.form is not None:
        found["requestBody"] = {
            "required": True,
            "content": {FORM: {"schema": _reference(operation.form)}},
        }
    return found


def _responses(operation: Operation, *, secured: bool) -> dict[str, Schema]:
    answers: dict[str, Schema] = {}
    for status, answer in operation.answers.items():
        if isinstance(answer, str):
            media = {answer: {"schema": {"type": "object" if answer == JSON else "string"}}}
        else:
            media = {JSON: {"schema": _reference(answer)}}
        if operation.streams:
            media[EVENTS] = {"schema": _reference(ServerSentEvent)}
        meaning = "It is stored, and will be done." if status == 202 else "It is done."
        answers[str(status)] = {"description": meaning, "content": media}
    refusals = {403, 500, *operation.refusals}
    if secured:
        refusals.add(401)
    if operation.body is not None or operation.form is not None:
        refusals |= {400, 413}
    for status in sorted(refusals):
        answers[str(status)] = {
            "description": _REFUSALS[status],
            "content": {JSON: {"schema": _reference(ErrorAnswer)}},
        }
    return answers


def _reference(kind: Any) -> Schema:
    members = get_args(kind) or (kind,)
    references = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in members]
    return references[0] if len(references) == 1 else {"anyOf": list(references)}


# ---------------------------------------------------------------------- schemas


def _schemas(operations: Iterable[Operation], model: str) -> dict[str, Schema]:
    """Every type that the operations name, and what those are made of."""
    kinds: dict[Any, None] = dict.fromkeys((ErrorAnswer, ServerSentEvent, *SHAPES))
    for operation in operations:
        answers = [one for one in operation.answers.values() if not isinstance(one, str)]
        for kind in (operation.body, operation.form, *answers):
            kinds.update(dict.fromkeys(get_args(kind) or (kind,)))
    named = [kind for kind in kinds if kind is not None]
    _, schemas = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    settings = _settings_schema()
    schemas["TrainingSettings"] = settings
    for kind in named:
        if issubclass(kind, SettingsBody):
            own = schemas[kind.__name__]
            own["properties"] = {**own["properties"], **settings["properties"]}
            own["additionalProperties"] = False
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema.get("description", ""))
        properties: Mapping[str, Any] = schema.get("properties", {})
        if "messages" in properties or "prompt" in properties or "sequences" in properties:
            _name_model(properties, model)
    return schemas


def _name_model(properties: Mapping[str, Any], model: str) -> None:
    """One model is served: a request can name no other."""
    field = properties.get("model", {})
    for text in (field, *field.get("anyOf", ())):
        if text.get("type") == "string":
            text["enum"] = [model]


def _settings_schema() -> Schema:
    """The settings that a request may give. Defaults are the workspace's, so none stands here."""
    from understudy.training import objective_names

    whole = TrainingSettings.model_json_schema()
    properties = {}
    for name in sorted(SESSION_FIELDS):
        schema = {k: v for k, v in whole["properties"][name].items() if k not in ("default", "title")}
        if schema.get("type") == "integer":
            schema.setdefault("maximum", MAX_COUNT)
        properties[name] = schema
    properties["objective"] = {"type": "string", "enum": list(objective_names())}
    return {
        "type": "object",
        "description": "Settings of a session; those that are not given are the workspace's.",
        "properties": properties,
    }

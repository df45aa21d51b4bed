"""In vLLM's worker: reads and steers the residual stream of requests that ask for it.

A request asks by its sampling parameters' `extra_args`: `steer` as clients send it, and `KEY`, under which
its readouts are sent to the API server's process. Whoever asks for nothing costs a look at a dictionary per
pass.

Shapes: n rows (tokens of all requests behind one another), l layers, c concepts, h hidden size.
"""

import os
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import zmq

from understudy.config import SETTINGS_FILE, WORKSPACE_VARIABLE, ModelSettings, load_settings
from understudy.engine.directions import Directions
from understudy.engine.errors import BadRequest
from understudy.engine.steer import Steer
from understudy.engine.steering import Move, Steering

KEY = "understudy_readout"
"""The extra argument of a request whose readouts are wanted: a key to send them under, and the first position
that is wanted. Set by our own engine only.
"""


class ReadoutRows(msgspec.Struct, frozen=True):
    """What is sent: readouts of consecutive positions, [positions, l, c] in fp32, row behind row."""

    key: str
    first: int
    values: bytes


def directions_of_workspace() -> Directions | None:
    """The directions that the workspace's settings, or the environment's, name. Raises BrokenReadout."""
    given = model_settings().readout
    return None if given is None else Directions.load(_root() / Path(given).expanduser())


def model_settings() -> ModelSettings:
    """The workspace's, or the environment's where vLLM runs without one. Raises ConfigError."""
    file = _root() / SETTINGS_FILE
    return load_settings(file if WORKSPACE_VARIABLE in os.environ else None).model


def _root() -> Path:
    return Path(os.environ.get(WORKSPACE_VARIABLE, "."))


def wanted_steering(extra: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The `steer` of a request's extra arguments, as it was sent. Raises BadRequest when it is no text."""
    given = (extra or {}).get("steer", ())
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) for text in listed):
        raise BadRequest(f"steer: expected texts, got {given!r}")
    return tuple(listed)


def wanted_readout(extra: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """Under which key readouts are wanted, and from which position. Raises BadRequest for anything else."""
    given = (extra or {}).get(KEY)
    if given is None:
        return None
    match given:
        case [str(key), int(first)] if first >= 0:
            return key, first
    raise BadRequest(f"{KEY}: expected a key and a position, got {given!r}: ask with `readout`")


class _Place(NamedTuple):
    """Where one request is in a pass: its rows [start, end), the first of them at `position` of its sequence,
    whose prompt ends at `last`.
    """

    start: int
    end: int
    position: int
    last: int


class _Read(NamedTuple):
    """How many rows of one request are read, the position of the first, and the key to send them under."""

    key: str
    first: int
    rows: int


class _Pass:
    """What is steered and read in one pass of the model over all requests."""

    def __init__(self) -> None:
        self.moves: dict[int, list[tuple[slice, Move]]] = {}
        """By layer: which rows are steered, and how, in order."""
        self.read: list[_Read] = []
        self._rows: list[torch.Tensor] = []
        self.found: list[torch.Tensor] = []
        """[rows, c] of each layer so far."""

    def add(self, place: _Place, steering: Steering, wanted: tuple[str, int] | None) -> None:
        """A request, how it steers, and what it reads: the key, and the first position."""
        for layer, moves in steering.items():
            for move in moves:
                rows = move.rows(*place)
                if rows.start < rows.stop:
                    self.moves.setdefault(layer, []).append((rows, move))
        if wanted is None:
            return
        key, first = wanted
        start = place.start + max(0, first - place.position)
        if start < place.end:
            self.read.append(_Read(key, max(first, place.position), place.end - start))
            self._rows.append(torch.arange(start, place.end))

    @cached_property
    def rows(self) -> torch.Tensor:
        """All rows that are read."""
        return torch.cat(self._rows)

    def encode(self) -> bytes:
        """What was read, as a list of ReadoutRows."""
        found = torch.stack(self.found, dim=1).cpu()
        values = torch.split(found, [one.rows for one in self.read])
        rows = [
            ReadoutRows(one.key, one.first, own.numpy().tobytes())
            for one, own in zip(self.read, values, strict=True)
        ]
        return msgspec.msgpack.encode(rows)


class StreamTap:
    """What stands behind each layer that has directions."""

    def __init__(self, directions: Directions, runner: Any, context: Callable[[], Any]) -> None:
        """`runner` is vLLM's model runner: it knows which rows are whose. `context` is that of this pass."""
        self.directions = directions
        self._runner = runner
        self._context = context
        self._seen: Any = None
        self._pass = _Pass()
        self._steering = lru_cache(maxsize=256)(self._resolve)
        self._socket: zmq.Socket[bytes] | None = None

    def send_to(self, address: str) -> None:
        """Send readouts to this address from now on, never waiting for who reads them."""
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        self._socket = socket

    def after(self, hidden_nh: torch.Tensor, residual_nh: torch.Tensor, layer: int) -> None:
        """Behind a layer, whose stream is the sum of both. Changes `hidden_nh` where it steers."""
        context = self._context()
        if context is not self._seen:
            self._seen, self._pass = context, self._look(context)
        now = self._pass
        for rows, move in now.moves.get(layer, ()):
            stream = hidden_nh[rows]
            if move.unit_h is not None:  # a shift asks nothing of the stream
                stream = stream.float() + residual_nh[rows].float()
            hidden_nh[rows] += move.change(stream).to(hidden_nh)
        if now.read:
            stream = hidden_nh[now.rows].float() + residual_nh[now.rows].float()
            now.found.append(self.directions.read(layer, stream))
            if layer == self.directions.layers[-1] and self._socket is not None:
                self._socket.send(now.encode())

    def _look(self, context: Any) -> _Pass:
        found = _Pass()
        if not context.attn_metadata:  # vLLM tries itself out
            return found
        batch = self._runner.input_batch
        for place, request in enumerate(batch.req_ids):
            extra = getattr(self._runner.requests[request].sampling_params, "extra_args", None)
            if extra and (KEY in extra or "steer" in extra):
                start, end = self._runner.query_start_loc.np[place : place + 2].tolist()
                position = int(batch.num_computed_tokens_cpu[place])
                there = _Place(start, end, position, int(batch.num_prompt_tokens[place]) - 1)
                found.add(there, self._steering(wanted_steering(extra)), wanted_readout(extra))
        return found

    def _resolve(self, texts: tuple[str, ...]) -> Steering:
        return self.directions.steering(Steer.parse(text) for text in texts)


_of_this_process: list[StreamTap] = []


def install(worker: Any, directions: Directions) -> None:
    """Put a tap behind the layers of the worker's model. Raises BrokenReadout for those of another model."""
    from vllm.forward_context import get_forward_context

    from understudy.engine.vllm import patches

    runner = worker.model_runner
    config = worker.vllm_config.model_config.hf_text_config
    directions.check_model(config.num_hidden_layers, config.hidden_size)
    tap = StreamTap(directions.to(runner.device), runner, get_forward_context)
    patches.tap_layers(runner.get_model(), directions.layers, tap.after)
    _of_this_process.append(tap)


def send_readouts(worker: Any, address: str) -> None:
    """Where the readouts of this worker go; for `collective_rpc`."""
    _of_this_process[-1].send_to(address)

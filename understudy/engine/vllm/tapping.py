"""In vLLM's worker: reads and steers the residual stream of requests that ask for it.

A request asks by its sampling parameters' `extra_args`: `steer` as clients send it, and `KEY`, under which
its readouts are sent to the API server's process. Whoever asks for nothing costs a look at a dictionary per
pass.

Shapes: n rows (tokens of all requests behind one another), l layers, c concepts, h hidden size.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
import zmq

from understudy.config import SETTINGS_FILE, WORKSPACE_VARIABLE, ModelSettings, load_settings
from understudy.engine.directions import Directions
from understudy.engine.errors import BadRequest
from understudy.engine.request import Steer

KEY = "understudy_readout"
"""The extra argument of a request whose readouts are wanted. Set by our own engine only."""


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


@dataclass(frozen=True, slots=True)
class _Watched:
    """The rows of one request in this pass, and what is done with them."""

    rows: slice
    added_h: Mapping[int, torch.Tensor]
    key: str | None
    first: int
    """The position of its first row."""
    found: list[torch.Tensor] = field(default_factory=list)


class StreamTap:
    """What stands behind each layer that has directions."""

    def __init__(self, directions: Directions, runner: Any) -> None:
        """`runner` is vLLM's model runner: it knows which rows are whose."""
        self.directions = directions
        self._runner = runner
        self._pass: Any = None
        self._watched: list[_Watched] = []
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
        from vllm.forward_context import get_forward_context

        now = get_forward_context()
        if now is not self._pass:
            self._pass = now
            self._watched = self._look() if now.attn_metadata else []
        for one in self._watched:
            if layer in one.added_h:
                hidden_nh[one.rows] += one.added_h[layer].to(hidden_nh)
            if one.key is not None:
                stream = hidden_nh[one.rows].float() + residual_nh[one.rows].float()
                one.found.append(self.directions.read(layer, stream))
        if layer == self.directions.layers[-1]:
            self._send()

    def _look(self) -> list[_Watched]:
        batch = self._runner.input_batch
        watched = []
        for place, request in enumerate(batch.req_ids):
            extra = getattr(self._runner.requests[request].sampling_params, "extra_args", None)
            if not extra or not (KEY in extra or "steer" in extra):
                continue
            start, end = self._runner.query_start_loc.np[place : place + 2].tolist()
            first = int(batch.num_computed_tokens_cpu[place])
            added = self._steering(wanted_steering(extra))
            watched.append(_Watched(slice(start, end), added, extra.get(KEY), first))
        return watched

    def _resolve(self, texts: tuple[str, ...]) -> dict[int, torch.Tensor]:
        return self.directions.steering(Steer.parse(text) for text in texts)

    def _send(self) -> None:
        for one in self._watched:
            if one.key is not None and self._socket is not None:
                values = torch.stack(one.found, dim=1).cpu().contiguous().numpy().tobytes()
                self._socket.send(msgspec.msgpack.encode(ReadoutRows(one.key, one.first, values)))
        self._watched = []


_of_this_process: list[StreamTap] = []


def install(worker: Any, directions: Directions) -> None:
    """Put a tap behind the layers of the worker's model. Raises BrokenReadout for those of another model."""
    from understudy.engine.vllm import patches

    runner = worker.model_runner
    config = worker.vllm_config.model_config.hf_text_config
    directions.check_model(config.num_hidden_layers, config.hidden_size)
    tap = StreamTap(directions, runner)
    patches.tap_layers(runner.get_model(), directions.layers, tap.after)
    _of_this_process.append(tap)


def send_readouts(worker: Any, address: str) -> None:
    """Where the readouts of this worker go; for `collective_rpc`."""
    _of_this_process[-1].send_to(address)

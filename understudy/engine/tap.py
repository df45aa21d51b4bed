"""The tap on a model of transformers: reads and steers the residual stream while a batch is decoded.

Shapes: b rows, t positions, l layers, c concepts, h hidden size.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from understudy.engine.directions import Directions, decoder_layers, resolve_steering
from understudy.engine.request import GenerationRequest, GenerationStep, Readout
from understudy.engine.steer import Span
from understudy.engine.steering import Steering, positions_inside


@dataclass(frozen=True, slots=True)
class Pass:
    """What is done and read in one pass of the model over a batch.

    `inside_bt` are the positions of each span that the steering knows. `streams` gathers, behind each layer,
    the last position's stream, [b, h]; `products` every position's readouts, [b, t, c]; None: not wanted.
    """

    steering: Steering
    inside_bt: Mapping[Span, torch.Tensor]
    streams: list[torch.Tensor] | None = None
    products: list[torch.Tensor] | None = None

    def move(self, layer: int, stream_bth: torch.Tensor) -> torch.Tensor:
        """The stream behind a layer, steered."""
        for move in self.steering.get(layer, ()):
            moved = stream_bth + move.change(stream_bth).to(stream_bth)
            inside_bt = None if move.span is None else self.inside_bt[move.span]
            stream_bth = moved if inside_bt is None else moved.where(inside_bt[..., None], stream_bth)
        return stream_bth


class Tap:
    """Hooks behind the layers that have directions. Threads share it; each pass is its thread's own."""

    def __init__(self, model: Any, directions: Directions) -> None:
        """Raises BrokenReadout for directions of another model."""
        layers = decoder_layers(model)
        directions.check_model(len(layers), model.config.get_text_config().hidden_size)
        self.directions = directions.to(model.device)
        self._pass = threading.local()
        for layer in directions.layers:
            layers[layer].register_forward_hook(partial(self._after, layer))

    @contextmanager
    def open(self, now: Pass) -> Iterator[None]:
        """Steer and read the passes of this thread until it ends."""
        self._pass.now = now
        try:
            yield
        finally:
            self._pass.now = None

    def _after(self, layer: int, _module: Any, _inputs: Any, stream_bth: torch.Tensor) -> torch.Tensor | None:
        now: Pass | None = getattr(self._pass, "now", None)
        if now is None:
            return None
        stream_bth = now.move(layer, stream_bth)
        if now.streams is not None:
            now.streams.append(stream_bth[:, -1])
        if now.products is not None:
            now.products.append(self.directions.read(layer, stream_bth))
        return stream_bth


class Watch:
    """What one request reads and how it steers, pass by pass."""

    def __init__(self, tap: Tap | None, request: GenerationRequest) -> None:
        """Raises BadRequest for what there are no directions for."""
        self._steering = resolve_steering(tap.directions if tap else None, request)
        moves = [move for moves in self._steering.values() for move in moves]
        self._spans = {move.span for move in moves if move.span is not None}
        self._request = request
        self._tap = tap if self._steering or request.readout else None
        self._found_blc: torch.Tensor | None = None
        self._prompts_btlc: torch.Tensor | None = None
        self._passes = 0

    @contextmanager
    def on(self, positions_bt: torch.Tensor, last_b: torch.Tensor) -> Iterator[None]:
        """One pass of the model over the batch, at these positions of rows whose prompts end at `last_b`."""
        if self._tap is None:
            yield
            return
        inside_bt = {span: positions_inside(span, positions_bt, last_b) for span in self._spans}
        whole = self._request.readout == "all" and self._passes == 0
        reads = self._request.readout is not None
        now = Pass(self._steering, inside_bt, [] if reads else None, [] if whole else None)
        with self._tap.open(now):
            yield
        self._passes += 1
        if now.streams is not None:
            self._found_blc = self._tap.directions.read_all(now.streams)
        if now.products is not None:
            self._prompts_btlc = torch.stack(now.products, dim=2)

    def select(self, rows: torch.Tensor) -> None:
        """Follow the batch to other rows."""
        if self._found_blc is not None:
            self._found_blc = self._found_blc[rows]

    def tell(self, steps: Sequence[GenerationStep]) -> tuple[GenerationStep, ...]:
        """The steps of a pass, in the rows' order, with what was read where their tokens were chosen."""
        if self._found_blc is None:
            return tuple(steps)
        found = self._found_blc[:, None].tolist()
        prompts = self._prompts()
        return tuple(
            replace(step, readout=read, prompt_readout=prompts[step.row // self._request.samples])
            if prompts
            else replace(step, readout=read)
            for step, read in zip(steps, found, strict=True)
        )

    def _prompts(self) -> Sequence[Readout]:
        """Each prompt's readouts after the first pass, if they are wanted; they are told once."""
        found_btlc, self._prompts_btlc = self._prompts_btlc, None
        if found_btlc is None:
            return ()
        # prompts are padded on the left
        return [
            own[-len(prompt) :].tolist()
            for own, prompt in zip(found_btlc, self._request.prompts, strict=True)
        ]

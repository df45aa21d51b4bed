"""The tap on a model of transformers: reads and steers the residual stream while a batch is decoded.

Shapes: b rows, t positions, l layers, c concepts, h hidden size.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from understudy.engine.directions import Directions, decoder_layers, resolve_steering
from understudy.engine.request import GenerationRequest, GenerationStep, Readout


class Tap:
    """Hooks behind the layers that have directions. Threads share it; each pass is its thread's own."""

    def __init__(self, model: Any, directions: Directions) -> None:
        """Raises BrokenReadout for directions of another model."""
        layers = decoder_layers(model)
        directions.check_model(len(layers), model.config.get_text_config().hidden_size)
        self.directions = directions
        self._pass = threading.local()
        for layer in directions.layers:
            layers[layer].register_forward_hook(partial(self._after, layer))

    @contextmanager
    def open(self, added_h: Mapping[int, torch.Tensor], reading: bool) -> Iterator[dict[int, torch.Tensor]]:
        """Steer the passes of this thread until it ends, and gather what each layer reads, [b, t, c]."""
        found: dict[int, torch.Tensor] = {}
        self._pass.now = (added_h, found if reading else None)
        try:
            yield found
        finally:
            self._pass.now = None

    def _after(self, layer: int, _module: Any, _inputs: Any, stream_bth: torch.Tensor) -> torch.Tensor | None:
        now = getattr(self._pass, "now", None)
        if now is None:
            return None
        added_h, found = now
        if layer in added_h:
            stream_bth = stream_bth + added_h[layer].to(stream_bth)
        if found is not None:
            found[layer] = self.directions.read(layer, stream_bth)
        return stream_bth


class Watch:
    """What one request reads and how it steers, pass by pass."""

    def __init__(self, tap: Tap | None, request: GenerationRequest) -> None:
        """Raises BadRequest for what there are no directions for."""
        self._added_h = resolve_steering(tap.directions if tap else None, request)
        self._request = request
        self._tap = tap if self._added_h or request.readout else None
        self._found_btlc: torch.Tensor | None = None
        self._passes = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """One pass of the model over the batch."""
        if self._tap is None:
            yield
            return
        reading = self._request.readout is not None
        with self._tap.open(self._added_h, reading) as found:
            yield
        self._passes += 1
        if reading:
            self._found_btlc = torch.stack([found[layer] for layer in self._tap.directions.layers], dim=2)

    def select(self, rows: torch.Tensor) -> None:
        """Follow the batch to other rows."""
        if self._found_btlc is not None:
            self._found_btlc = self._found_btlc[rows]

    def tell(self, step: GenerationStep, place: int) -> GenerationStep:
        """The step of the row at `place`, with what was read where its token was chosen."""
        if self._found_btlc is None:
            return step
        found_tlc = self._found_btlc[place]
        prompt: Readout = ()
        if self._request.readout == "all" and self._passes == 1:
            tokens = len(self._request.prompts[step.row // self._request.samples])
            prompt = found_tlc[-tokens:].tolist()  # prompts are padded on the left
        return replace(step, readout=found_tlc[-1:].tolist(), prompt_readout=prompt)

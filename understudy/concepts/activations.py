"""What a model's modules take and give where texts are read: the rows that directions are made from.

Shapes: n texts, b rows of a pass, t positions, h hidden size (or whatever a module takes).
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch

from understudy.concepts.encoding import EncodedText, Pooling
from understudy.concepts.errors import BadRows, UnknownLayer
from understudy.engine import LoadedModel, decoder_layers

TOKENS_PER_PASS = 4096
"""Rows of similar length share a pass up to so many tokens, padding included."""

K = TypeVar("K", bound=Hashable)


class Place(NamedTuple):
    """Where something is read: what a module takes, or what it gives."""

    module: Any
    side: Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading has come."""

    texts: int
    of: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """What the rest will take at the pace so far."""
        return self.seconds / self.texts * (self.of - self.texts)


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Activations(Generic[K]):
    """One row per text and place, in the order of the texts: the mean over the pooled tokens, in fp32.

    `spans` holds the pooled tokens themselves, [t, h] of each text, where they were asked for.
    """

    rows_nh: Mapping[K, torch.Tensor]
    spans: Mapping[K, tuple[torch.Tensor, ...]]

    def of(self, texts: Sequence[int]) -> "Activations[K]":
        """Those of these texts, by number, in this order."""
        chosen = torch.tensor(texts, dtype=torch.long)
        return Activations(
            {key: rows[chosen] for key, rows in self.rows_nh.items()},
            {key: tuple(spans[number] for number in texts) for key, spans in self.spans.items()},
        )


def resolve_layers(given: Sequence[str], layers: int) -> tuple[int, ...]:
    """Layers by number (`3`), from the end (`-1`), by depth (`50%`) or `all`, in ascending order.

    Layer i of n lies at the depth (i + 1) / n. Raises UnknownLayer, also for no layer at all.
    """
    found: set[int] = set()
    for text in given:
        found.update(range(layers) if text == "all" else [_layer(text, layers)])
    if not found:
        raise UnknownLayer("expected at least one layer, got none")
    return tuple(sorted(found))


def depth(layer: int, layers: int) -> float:
    """How deep a layer lies: 1 is the last."""
    return (layer + 1) / layers


def _layer(text: str, layers: int) -> int:
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            number = max(0, round(share * layers) - 1) if 0 <= share <= 1 else layers
        else:
            number = int(text)
            number += layers if number < 0 else 0
    except (ValueError, OverflowError):
        number = layers
    if not 0 <= number < layers:
        raise UnknownLayer(
            f"expected a layer from 0 to {layers - 1}, one from the end such as -1, a depth such as 50%, or "
            f"`all`; got {text!r}"
        )
    return number


def streams(loaded: LoadedModel, layers: Sequence[int]) -> dict[int, Place]:
    """The residual stream behind each of these layers."""
    modules = decoder_layers(loaded.model)
    return {layer: Place(modules[layer], "output") for layer in layers}


@torch.no_grad()
def collect(
    loaded: LoadedModel,
    texts: Sequence[EncodedText],
    places: Mapping[K, Place],
    pooling: Pooling,
    *,
    spans: bool = False,
    tokens_per_pass: int = TOKENS_PER_PASS,
    report: Report | None = None,
) -> Activations[K]:
    """Read the texts, and keep what passes through `places` at their pooled tokens.

    Texts of similar length share a pass; each pass ends as soon as the deepest place was seen, so neither
    the layers behind it nor the head are computed. Texts that are the same are read once. Raises BadRows
    for numbers that are not finite, and for a text that is longer than the model's context.
    """
    _check_lengths(loaded, texts)
    numbers: dict[EncodedText, list[int]] = {}
    for number, text in enumerate(texts):
        numbers.setdefault(text, []).append(number)
    rows: dict[K, list[torch.Tensor]] = {key: [torch.empty(0)] * len(texts) for key in places}
    kept: dict[K, list[torch.Tensor]] = {key: [torch.empty(0)] * len(texts) for key in places}
    began, done = time.monotonic(), 0
    for together in _passes(list(numbers), tokens_per_pass):
        for key, stream_bth in _read(loaded, together, places).items():
            for row_th, text in zip(stream_bth, together, strict=True):
                start, end = pooling.span(text)
                span_th = row_th[start:end].float()
                mean_h = _finite(span_th.mean(0).cpu(), key)
                for number in numbers[text]:
                    rows[key][number] = mean_h
                    kept[key][number] = span_th.cpu() if spans else mean_h
        done += sum(len(numbers[text]) for text in together)
        if report is not None:
            report(Progress(done, len(texts), time.monotonic() - began))
    return Activations(
        {key: torch.stack(found) for key, found in rows.items()},
        {key: tuple(found) for key, found in kept.items()} if spans else {},
    )


def _check_lengths(loaded: LoadedModel, texts: Sequence[EncodedText]) -> None:
    if not texts:
        raise BadRows("expected texts to read, got none")
    longest = max(len(text.ids) for text in texts)
    if longest > loaded.context_length:
        raise BadRows(
            f"expected texts of at most {loaded.context_length} tokens, this model's context, got one of "
            f"{longest}: shorten it"
        )


def _passes(texts: Sequence[EncodedText], tokens: int) -> Iterator[list[EncodedText]]:
    together: list[EncodedText] = []
    for text in sorted(texts, key=lambda text: len(text.ids)):
        if together and (len(together) + 1) * len(text.ids) > tokens:
            yield together
            together = []
        together.append(text)
    if together:
        yield together


class _Seen(Exception):
    """Everything that was wanted of a pass has been seen."""


def _read(
    loaded: LoadedModel, texts: Sequence[EncodedText], places: Mapping[K, Place]
) -> dict[K, torch.Tensor]:
    """What passes through each place, [b, t, h]. Rows are padded on the right, which no token looks at."""
    width = max(len(text.ids) for text in texts)
    ids_bt = torch.zeros(len(texts), width, dtype=torch.long)
    for row, text in enumerate(texts):
        ids_bt[row, : len(text.ids)] = torch.tensor(text.ids)
    found: dict[K, torch.Tensor] = {}

    def see(key: K, value: Any) -> None:
        found[key] = value[0] if isinstance(value, tuple) else value
        if len(found) == len(places):
            raise _Seen

    def see_input(key: K, _module: Any, inputs: Any) -> None:
        see(key, inputs)

    def see_output(key: K, _module: Any, _inputs: Any, output: Any) -> None:
        see(key, output)

    hooks = [
        place.module.register_forward_pre_hook(partial(see_input, key))
        if place.side == "input"
        else place.module.register_forward_hook(partial(see_output, key))
        for key, place in places.items()
    ]
    try:
        loaded.model.model(input_ids=ids_bt.to(loaded.model.device), use_cache=False)
    except _Seen:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _finite(row_h: torch.Tensor, key: object) -> torch.Tensor:
    if not row_h.isfinite().all():
        raise BadRows(f"expected finite numbers at {key!r}, got some that are not: the model overflows there")
    return row_h

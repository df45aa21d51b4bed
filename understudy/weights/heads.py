"""Where the heads of a layer lie in its tensors.

Known are the layouts of transformers for Llama, Mistral, Qwen2, Qwen3 and Qwen3.5 (proved on 5.23.0): plain
and grouped-query attention, attention with an output gate, and Gated DeltaNet (arXiv 2412.06464).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from understudy.weights.errors import WeightsMismatch

Kind = Literal["attention", "delta"]
Group = Literal["projections", "gates", "decay", "conv"]

KNOWN = frozenset(
    ("llama", "mistral", "qwen2", "qwen3", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
)
"""`model_type`s whose heads lie as described here."""

_GROUPS: Mapping[str, Group] = {
    **dict.fromkeys(("q", "k", "v", "o"), "projections"),
    **dict.fromkeys(("gate", "z", "a", "b"), "gates"),
    **dict.fromkeys(("A_log", "dt_bias"), "decay"),
    **dict.fromkeys(("conv_q", "conv_k", "conv_v"), "conv"),
}
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_HEADED = re.compile(r"(?:^|\.)layers\.(\d+)\.(self_attn|linear_attn)\.(\w+?)(?:\.(weight|bias))?$")


@dataclass(frozen=True, slots=True, order=True)
class HeadPart:
    """One part of one head.

    Attention has the parts q, k, v, o and, with an output gate, gate; `head` counts key/value heads for k and
    v, and query heads for the rest. Gated DeltaNet has q, k, v, o, z (output gate), b (writing strength),
    a (input to the decay), A_log, dt_bias, conv_q, conv_k and conv_v; `head` counts key heads for q, k and
    their convolution channels, and value heads for the rest.
    """

    layer: int
    kind: Kind
    part: str
    head: int

    @property
    def group(self) -> Group:
        return _GROUPS[self.part]


@dataclass(frozen=True, slots=True)
class HeadSlice:
    """The rows (axis 0) or columns (axis 1) `start` to `stop` of a tensor are this part of a head."""

    part: HeadPart
    axis: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """The numbers of config.json that say where the heads lie."""

    heads: int
    key_value_heads: int
    head_dim: int
    delta_key_heads: int = 0
    delta_value_heads: int = 0
    delta_key_dim: int = 0
    delta_value_dim: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> "HeadLayout | None":
        """The layout that a config.json describes; None for an architecture that is not known."""
        if config is None or config.get("model_type") not in KNOWN:
            return None
        text = config.get("text_config", config)
        heads = text["num_attention_heads"]
        return cls(
            heads=heads,
            key_value_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            delta_key_heads=text.get("linear_num_key_heads") or 0,
            delta_value_heads=text.get("linear_num_value_heads") or 0,
            delta_key_dim=text.get("linear_key_head_dim") or 0,
            delta_value_dim=text.get("linear_value_head_dim") or 0,
        )

    def shared_with(self, part: HeadPart) -> range:
        """The query heads, or value heads of Gated DeltaNet, that a part serves: its own, or its group's."""
        if part.kind == "attention":
            grouped, size = part.part in ("k", "v"), self.heads // self.key_value_heads
        else:
            grouped = part.part in ("q", "k", "conv_q", "conv_k")
            size = self.delta_value_heads // self.delta_key_heads
        return (
            range(part.head * size, part.head * size + size) if grouped else range(part.head, part.head + 1)
        )

    def slices(self, name: str, shape: tuple[int, ...]) -> list[HeadSlice]:
        """Where the heads lie in the tensor `name`; empty when it belongs to no head alone.

        Raises WeightsMismatch when its shape is not what the configuration says.
        """
        found = _HEADED.search(name)
        if found is None:
            return []
        layer, kind, leaf = int(found[1]), found[2], found[3]
        if kind == "self_attn":
            return list(self._attention(name, layer, leaf, shape, bias=found[4] == "bias"))
        return list(self._delta(name, layer, leaf, shape, bias=found[4] == "bias"))

    def _attention(
        self, name: str, layer: int, leaf: str, shape: tuple[int, ...], *, bias: bool
    ) -> Iterator[HeadSlice]:
        size = self.head_dim
        if leaf == "q_proj" and shape[0] == 2 * self.heads * size:
            # each head's rows: first its query, then its output gate
            for head in range(self.heads):
                for place, part in enumerate(("q", "gate")):
                    start = (2 * head + place) * size
                    yield HeadSlice(HeadPart(layer, "attention", part, head), 0, start, start + size)
        elif leaf == "q_proj":
            yield from _runs(name, shape, 0, layer, "attention", [("q", self.heads, size)])
        elif leaf in ("k_proj", "v_proj"):
            yield from _runs(name, shape, 0, layer, "attention", [(leaf[0], self.key_value_heads, size)])
        elif leaf == "o_proj" and not bias:
            yield from _runs(name, shape, 1, layer, "attention", [("o", self.heads, size)])

    def _delta(
        self, name: str, layer: int, leaf: str, shape: tuple[int, ...], *, bias: bool
    ) -> Iterator[HeadSlice]:
        keys, values = self.delta_key_heads, self.delta_value_heads
        key_size, value_size = self.delta_key_dim, self.delta_value_dim
        parts = {
            "in_proj_qkv": [("q", keys, key_size), ("k", keys, key_size), ("v", values, value_size)],
            "conv1d": [
                ("conv_q", keys, key_size),
                ("conv_k", keys, key_size),
                ("conv_v", values, value_size),
            ],
            "in_proj_z": [("z", values, value_size)],
            "in_proj_a": [("a", values, 1)],
            "in_proj_b": [("b", values, 1)],
            "A_log": [("A_log", values, 1)],
            "dt_bias": [("dt_bias", values, 1)],
            "out_proj": [("o", values, value_size)],
        }.get(leaf)
        if parts is not None and not (leaf == "out_proj" and bias):
            yield from _runs(name, shape, int(leaf == "out_proj"), layer, "delta", parts)


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to; None for embeddings, last norm and output head."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def read_config(directory: Path) -> dict[str, Any] | None:
    """The config.json of a model directory; None when it has none."""
    file = directory / "config.json"
    if not file.is_file():
        return None
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return held


def _runs(
    name: str,
    shape: tuple[int, ...],
    axis: int,
    layer: int,
    kind: Kind,
    parts: list[tuple[str, int, int]],
) -> Iterator[HeadSlice]:
    """Parts that lie one behind the other along `axis`: (part, number of heads, size of one head)."""
    expected = sum(heads * size for _, heads, size in parts)
    if len(shape) <= axis or shape[axis] != expected:
        raise WeightsMismatch(
            f"{name}: expected {expected} along axis {axis} from config.json's head counts, "
            f"got shape {shape}: does the config.json belong to these weights?"
        )
    start = 0
    for part, heads, size in parts:
        for head in range(heads):
            yield HeadSlice(HeadPart(layer, kind, part, head), axis, start, start + size)
            start += size

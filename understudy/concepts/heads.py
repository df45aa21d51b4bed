"""Which heads of a layer write a concept: what its attention adds to the stream, taken apart.

A head's output passes through its own columns of the layer's output projection and is added to the stream,
so the difference that a concept makes there is a sum over heads. The same holds for the heads of linear
attention (Gated DeltaNet, arXiv 2412.06464), whose outputs are normed and gated before their projection.
After Wang et al., arXiv 2510.11328.

Shapes: n texts, k heads, w coordinates of a head, x = k * w, h hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import torch

from understudy.concepts.activations import Activations, Place, Report, collect
from understudy.concepts.encoding import encode
from understudy.concepts.quality import unit
from understudy.concepts.reading import CorpusReading, Recipe
from understudy.engine import LoadedModel, decoder_layers

TOP_HEADS = 10

MixerKind = Literal["attention", "delta"]

_PROJECTIONS: tuple[tuple[MixerKind, str, str, tuple[str, ...]], ...] = (
    ("attention", "self_attn", "o_proj", ("v_head_dim", "head_dim")),
    ("delta", "linear_attn", "out_proj", ("head_v_dim",)),
)
"""Where each kind lies, its output projection, and what says how wide a head is, by transformers' names."""
_NORMS_BEHIND = ("post_self_attn_layernorm", "post_feedforward_layernorm")
"""Layers with one of these norm what the projection gives before it is added: GLM-4, Gemma 2, OLMo 2."""


@dataclass(frozen=True)
class Mixer:
    """What mixes positions in a layer. `projection` takes its heads side by side, [..., x], to [..., h]."""

    kind: MixerKind
    projection: Any
    heads: int
    width: int

    def weight_khw(self) -> torch.Tensor:
        """What each head writes with, [k, h, w], on the CPU in fp32."""
        weight: torch.Tensor = self.projection.weight.detach().to("cpu", torch.float32)
        return weight.reshape(-1, self.heads, self.width).movedim(1, 0)


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a concept changes in one head's output: the difference between its texts' mean and the others'.

    `norm`: the length of that difference in the stream. `along`: its length along the concept's direction,
    signed. `share`: `along` over that of the whole stream behind the layer, None where that is not positive.
    `selectivity`: the length of the difference between the head's own coordinates over the others' deviation,
    which is the root of the summed variances of these coordinates; None where they do not vary.
    """

    head: int
    norm: float
    along: float
    share: float | None
    selectivity: float | None


class ConceptHeads(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The heads with the largest norms, the largest first, and what of all heads' norms they carry together.

    `concentration` is None where no head makes a difference. `share` is that of all heads together.
    """

    top: tuple[Head, ...]
    concentration: float | None
    share: float | None


class LayerHeads(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="heads"):
    """A layer taken apart, by concept. `even` is what `concentration` would be were all heads alike."""

    kind: MixerKind
    heads: int
    even: float
    concepts: dict[str, ConceptHeads]


class NotDecomposed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="not_decomposed"):
    """A layer that was not taken apart, and why."""

    reason: str


def find_mixer(layer: Any) -> Mixer | NotDecomposed:
    """The heads of a decoder layer."""
    for kind, name, output, widths in _PROJECTIONS:
        mixer = getattr(layer, name, None)
        projection = getattr(mixer, output, None)
        if projection is None:
            continue
        width = next((getattr(mixer, key) for key in widths if hasattr(mixer, key)), None)
        return _checked(layer, kind, f"{name}.{output}", projection, width)
    return NotDecomposed(
        f"expected self_attn.o_proj or linear_attn.out_proj in {type(layer).__name__}, found neither among "
        + (", ".join(name for name, _ in layer.named_children()) or "no modules")
    )


def _checked(
    layer: Any, kind: MixerKind, name: str, projection: Any, width: int | None
) -> Mixer | NotDecomposed:
    weight = getattr(projection, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.ndim != 2:
        return NotDecomposed(
            f"expected {name} with a matrix of real numbers, found {type(projection).__name__}"
        )
    if not width or weight.shape[1] % width:
        return NotDecomposed(
            f"expected {name} to take heads of one width, found {width} for its {weight.shape[1]} columns"
        )
    norm = next((norm for norm in _NORMS_BEHIND if hasattr(layer, norm)), None)
    if norm is not None:
        return NotDecomposed(f"behind {name} stands {norm}: what heads add to the stream is no sum over them")
    return Mixer(kind, projection, weight.shape[1] // width, width)


def decompose_heads(
    loaded: LoadedModel,
    reading: CorpusReading,
    vectors_ch: Mapping[int, torch.Tensor],
    recipe: Recipe,
    report: Report | None = None,
) -> dict[int, LayerHeads | NotDecomposed]:
    """Take layers apart for every concept of the reading, whose texts are read once more.

    `vectors_ch` holds, by layer, the directions in the order of the reading's concepts. Raises BadRows for
    a concept with no positives or no negatives, and what reading raises.
    """
    modules = decoder_layers(loaded.model)
    mixers = {layer: find_mixer(modules[layer]) for layer in vectors_ch}
    known = {layer: mixer for layer, mixer in mixers.items() if isinstance(mixer, Mixer)}
    if not known:
        return {layer: mixer for layer, mixer in mixers.items() if isinstance(mixer, NotDecomposed)}
    read = read_heads(loaded, reading, known, recipe, report)
    return {
        layer: _decompose(reading, layer, unit(vectors_ch[layer]), mixer, read.rows_nh[layer])
        if isinstance(mixer, Mixer)
        else mixer
        for layer, mixer in mixers.items()
    }


def read_heads(
    loaded: LoadedModel,
    reading: CorpusReading,
    mixers: Mapping[int, Mixer],
    recipe: Recipe,
    report: Report | None = None,
) -> Activations[int]:
    """What each mixer's projection takes, [n, x], pooled as the stream was.

    Pooling may come first: the projection is linear, so it makes of the mean the mean of what it makes.
    """
    return collect(
        loaded,
        encode(loaded.tokenizer, reading.texts, recipe.role),
        {layer: Place(mixer.projection, "input") for layer, mixer in mixers.items()},
        recipe.pooling,
        report=report,
    )


def project_heads(mixer: Mixer, heads_nkw: torch.Tensor) -> torch.Tensor:
    """What each head adds to the stream, [n, k, h]: they sum to the projection's output, less its bias."""
    return torch.einsum("nkw,khw->nkh", heads_nkw, mixer.weight_khw())


def _decompose(
    reading: CorpusReading, layer: int, unit_ch: torch.Tensor, mixer: Mixer, rows_nx: torch.Tensor
) -> LayerHeads:
    heads_nkw = rows_nx.reshape(-1, mixer.heads, mixer.width)
    weight_khw = mixer.weight_khw()
    found = {}
    for number, concept in enumerate(reading.concepts):
        direction_h = unit_ch[number].float()
        shown = torch.tensor([label == number for label in reading.labels])
        difference_kw = heads_nkw[shown].mean(0) - heads_nkw[~shown].mean(0)
        whole = (reading.contrast(concept, layer).mean_difference_h @ direction_h).item()
        found[concept] = _rank(
            torch.einsum("kw,khw->kh", difference_kw, weight_khw),
            difference_kw.norm(dim=1),
            _deviation(heads_nkw[~shown]),
            direction_h,
            whole,
        )
    even = min(TOP_HEADS, mixer.heads) / mixer.heads
    return LayerHeads(kind=mixer.kind, heads=mixer.heads, even=even, concepts=found)


def _deviation(heads_nkw: torch.Tensor) -> torch.Tensor:
    """The root of the summed variances of each head's coordinates, [k]; 0 for one row."""
    if len(heads_nkw) < 2:
        return torch.zeros(heads_nkw.shape[1])
    return heads_nkw.var(0).sum(1).sqrt()


def _rank(
    written_kh: torch.Tensor,
    difference_k: torch.Tensor,
    deviation_k: torch.Tensor,
    direction_h: torch.Tensor,
    whole: float,
) -> ConceptHeads:
    norms: Sequence[float] = written_kh.norm(dim=1).tolist()
    along: Sequence[float] = (written_kh @ direction_h).tolist()
    order = sorted(range(len(norms)), key=lambda head: -norms[head])[:TOP_HEADS]
    top = tuple(
        Head(
            head=head,
            norm=norms[head],
            along=along[head],
            share=_over(along[head], whole),
            selectivity=_over(difference_k[head].item(), deviation_k[head].item()),
        )
        for head in order
    )
    return ConceptHeads(
        top=top,
        concentration=_over(sum(head.norm for head in top), sum(norms)),
        share=_over(sum(along), whole),
    )


def _over(value: float, whole: float) -> float | None:
    return value / whole if whole > 0 else None

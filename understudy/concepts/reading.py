"""A corpus as a model reads it: one row per text and layer, and what stands against what.

Shapes: n texts, c concepts, h hidden size.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from understudy.concepts.activations import Activations, Report, collect, resolve_layers, streams
from understudy.concepts.corpus import Corpus, Split, Text
from understudy.concepts.encoding import Pooling, encode
from understudy.concepts.methods import Contrast, Method, find_direction
from understudy.engine import LoadedModel, decoder_layers
from understudy.lessons import Role

LAST_TOKEN = Pooling(1)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How directions are made: behind which layers, by which method, from which of a text's tokens.

    `layers` are as resolve_layers takes them. With a `role`, texts are read as a message of that role.
    """

    layers: tuple[str, ...] = ("50%", "75%")
    method: Method = "mean_difference"
    pooling: Pooling = LAST_TOKEN
    role: Role | None = None


@dataclass(frozen=True)
class CorpusReading:
    """Texts of a corpus with their activations behind each layer, in the same order."""

    concepts: tuple[str, ...]
    texts: tuple[Text, ...]
    activations: Activations[int]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.activations.rows_nh)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The number of the concept that each text shows, -1 for a baseline."""
        return tuple(-1 if text.concept is None else self.concepts.index(text.concept) for text in self.texts)

    def of(self, texts: Sequence[int]) -> "CorpusReading":
        """Only these texts, by number."""
        return replace(
            self,
            texts=tuple(self.texts[number] for number in texts),
            activations=self.activations.of(texts),
        )

    def split(self, split: Split) -> "CorpusReading":
        """The texts of one split."""
        return self.of([number for number, text in enumerate(self.texts) if text.split == split])

    def contrast(self, concept: str, layer: int, labels: Sequence[int] | None = None) -> Contrast:
        """What shows the concept against everything else. `labels` stand in for the texts' own.

        A framing is paired with the baseline of its scene, or else with another framing of it. Raises BadRows
        when there is only one kind.
        """
        shown = self.concepts.index(concept)
        given = self.labels if labels is None else labels
        positives = [number for number, label in enumerate(given) if label == shown]
        negatives = [number for number, label in enumerate(given) if label != shown]
        opposed: dict[str, int] = {}
        for place, number in enumerate(negatives):
            text = self.texts[number]
            if text.kind == "baseline" or (text.kind == "framing" and text.scene not in opposed):
                opposed[text.scene] = place
        pairs = [
            (place, opposed[self.texts[number].scene])
            for place, number in enumerate(positives)
            if self.texts[number].kind == "framing" and self.texts[number].scene in opposed
        ]
        rows, spans = self.activations.rows_nh[layer], self.activations.spans.get(layer, ())
        own = [spans[number] for number in (*positives, *negatives)] if spans else ()
        return Contrast(rows[positives], rows[negatives], pairs, own)

    def vectors(self, layer: int, method: Method, labels: Sequence[int] | None = None) -> torch.Tensor:
        """The direction of each concept behind a layer, [c, h]. Raises BadRows where there is none."""
        return torch.stack(
            [find_direction(self.contrast(concept, layer, labels), method) for concept in self.concepts]
        )


def read_corpus(
    loaded: LoadedModel,
    corpus: Corpus,
    recipe: Recipe,
    *,
    texts: Sequence[Text] | None = None,
    report: Report | None = None,
) -> CorpusReading:
    """Read the texts of a corpus, or others in their stead, behind the recipe's layers.

    Raises UnknownLayer, BadPooling or BadRows.
    """
    layers = resolve_layers(recipe.layers, len(decoder_layers(loaded.model)))
    chosen = corpus.texts if texts is None else tuple(texts)
    found = collect(
        loaded,
        encode(loaded.tokenizer, chosen, recipe.role),
        streams(loaded, layers),
        recipe.pooling,
        spans=recipe.method == "subspace",
        report=report,
    )
    return CorpusReading(corpus.concepts, chosen, found)


def without_keywords(corpus: Corpus, texts: Sequence[Text]) -> tuple[Text, ...]:
    """The texts without the words that name any concept of the corpus; those of nothing else are left out."""
    words = sorted(
        {word for concept in corpus.concepts for word in corpus.words(concept)}, key=len, reverse=True
    )
    pattern = re.compile(r"\b(?:" + "|".join(re.escape(word) for word in words) + r")\b", re.IGNORECASE)
    found = (replace(text, text=re.sub(r"  +", " ", pattern.sub("", text.text)).strip()) for text in texts)
    return tuple(text for text in found if text.text)

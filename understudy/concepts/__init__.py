"""Directions in activation space: corpora of concepts, how directions are found in them, what they are worth.

What reads no model is imported here; the rest, which needs torch, when it is first asked for (PEP 562). So a
corpus can be collected and checked in no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy.concepts.collecting import (
    HELD_STATES,
    HIGH,
    LOW,
    Collected,
    TextPair,
    held_lessons,
    is_lesson_file,
    lessons_in_lines,
    pair_lessons,
    pair_scored,
)
from understudy.concepts.corpus import (
    BASELINE,
    CONTEXT_FILE,
    MANIFEST_FILE,
    Corpus,
    Kind,
    Manifest,
    ManifestConcept,
    Split,
    Text,
    load_corpus,
    read_manifest,
    scenes_of,
    shipped_corpus,
    write_manifest,
)
from understudy.concepts.duplicates import RESEMBLANCE, NearDuplicate, near_duplicates
from understudy.concepts.errors import (
    BadPooling,
    BadRows,
    BrokenCorpus,
    CannotCollect,
    ConceptError,
    UnknownConcept,
    UnknownLayer,
)
from understudy.concepts.preflight import MINIMUM_TEXTS, Finding, Level, preflight, require_sound
from understudy.concepts.publishing import HOLD_OUT, write_corpus
from understudy.concepts.scores import (
    ScoredMessage,
    read_score_line,
    scored_in_conversations,
    scored_in_lines,
    split_scores,
)

if TYPE_CHECKING:  # the same names as in _WITH_TORCH
    from understudy.concepts.activations import Progress, depth, resolve_layers
    from understudy.concepts.card import CARD_FILE, Card, describe_validity, read_card, write_card
    from understudy.concepts.control_vectors import (
        CannotExport,
        ControlVector,
        model_hint_of,
        write_control_vector,
    )
    from understudy.concepts.drift import Change, Drift, Since, StateReadouts, measure_drift, resolve_commits
    from understudy.concepts.effects import (
        MOST_PERPLEXITY,
        SHOWN_FROM,
        Effect,
        Probe,
        SweptAnswer,
        UsableRange,
        readout_probe,
        usable,
        words_probe,
    )
    from understudy.concepts.encoding import Pooling
    from understudy.concepts.extraction import Extraction, Told, extract
    from understudy.concepts.figures import BrokenReport, QualityReport
    from understudy.concepts.heads import LayerHeads, NotDecomposed, decompose_heads
    from understudy.concepts.methods import METHODS, Method
    from understudy.concepts.page import buckets_of, show_report
    from understudy.concepts.quality import measure_quality, triage
    from understudy.concepts.reading import CorpusReading, Recipe, read_corpus
    from understudy.concepts.readouts import Scale, TextReadouts, narrow, read_texts, require_scale
    from understudy.concepts.report import make_report, write_report
    from understudy.concepts.sweeping import OPENINGS, STEERED, scale_of, steered_lessons, sweep
    from understudy.concepts.validity import LayerValidity, Validity, measure_validity

_WITH_TORCH = {
    "activations": (
        "Progress",
        "depth",
        "resolve_layers",
    ),
    "card": (
        "CARD_FILE",
        "Card",
        "describe_validity",
        "read_card",
        "write_card",
    ),
    "control_vectors": (
        "CannotExport",
        "ControlVector",
        "model_hint_of",
        "write_control_vector",
    ),
    "drift": (
        "Change",
        "Drift",
        "Since",
        "StateReadouts",
        "measure_drift",
        "resolve_commits",
    ),
    "effects": (
        "MOST_PERPLEXITY",
        "SHOWN_FROM",
        "Effect",
        "Probe",
        "SweptAnswer",
        "UsableRange",
        "readout_probe",
        "usable",
        "words_probe",
    ),
    "encoding": ("Pooling",),
    "extraction": (
        "Extraction",
        "Told",
        "extract",
    ),
    "figures": (
        "BrokenReport",
        "QualityReport",
    ),
    "heads": (
        "LayerHeads",
        "LayerValidity",
        "NotDecomposed",
        "buckets_of",
        "decompose_heads",
    ),
    "methods": (
        "METHODS",
        "Method",
    ),
    "page": ("buckets_of", "show_report"),
    "quality": (
        "measure_quality",
        "triage",
    ),
    "reading": (
        "CorpusReading",
        "Recipe",
        "read_corpus",
    ),
    "readouts": (
        "Scale",
        "TextReadouts",
        "narrow",
        "read_texts",
        "require_scale",
    ),
    "report": (
        "make_report",
        "write_report",
    ),
    "sweeping": (
        "OPENINGS",
        "STEERED",
        "scale_of",
        "steered_lessons",
        "sweep",
    ),
    "validity": (
        "LayerValidity",
        "Validity",
        "measure_validity",
    ),
}
"""What a module gives that is loaded when one of its names is asked for. No name is that of a module."""
_MODULES = {name: module for module, names in _WITH_TORCH.items() for name in names}

__all__ = [
    "BASELINE",
    "CARD_FILE",
    "CONTEXT_FILE",
    "HELD_STATES",
    "HIGH",
    "HOLD_OUT",
    "LOW",
    "MANIFEST_FILE",
    "METHODS",
    "MINIMUM_TEXTS",
    "MOST_PERPLEXITY",
    "OPENINGS",
    "RESEMBLANCE",
    "SHOWN_FROM",
    "STEERED",
    "BadPooling",
    "BadRows",
    "BrokenCorpus",
    "BrokenReport",
    "CannotCollect",
    "CannotExport",
    "Card",
    "Change",
    "Collected",
    "ConceptError",
    "ControlVector",
    "Corpus",
    "CorpusReading",
    "Drift",
    "Effect",
    "Extraction",
    "Finding",
    "Kind",
    "LayerHeads",
    "LayerValidity",
    "Level",
    "Manifest",
    "ManifestConcept",
    "Method",
    "NearDuplicate",
    "NotDecomposed",
    "Pooling",
    "Probe",
    "Progress",
    "QualityReport",
    "Recipe",
    "Scale",
    "ScoredMessage",
    "Since",
    "Split",
    "StateReadouts",
    "SweptAnswer",
    "Text",
    "TextPair",
    "TextReadouts",
    "Told",
    "UnknownConcept",
    "UnknownLayer",
    "UsableRange",
    "Validity",
    "buckets_of",
    "decompose_heads",
    "depth",
    "describe_validity",
    "extract",
    "held_lessons",
    "is_lesson_file",
    "lessons_in_lines",
    "load_corpus",
    "make_report",
    "measure_drift",
    "measure_quality",
    "measure_validity",
    "model_hint_of",
    "narrow",
    "near_duplicates",
    "pair_lessons",
    "pair_scored",
    "preflight",
    "read_card",
    "read_corpus",
    "read_manifest",
    "read_score_line",
    "read_texts",
    "readout_probe",
    "require_scale",
    "require_sound",
    "resolve_commits",
    "resolve_layers",
    "scale_of",
    "scenes_of",
    "scored_in_conversations",
    "scored_in_lines",
    "shipped_corpus",
    "show_report",
    "split_scores",
    "steered_lessons",
    "sweep",
    "triage",
    "usable",
    "words_probe",
    "write_card",
    "write_control_vector",
    "write_corpus",
    "write_manifest",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

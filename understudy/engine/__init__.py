"""A served model: load, generate, score, watch."""

from understudy.engine.chat import decode_text, encode_chat, encode_lesson, encode_text
from understudy.engine.detokenize import TextReader, TokenTexts
from understudy.engine.directions import Directions, ReadoutManifest
from understudy.engine.embedded import EmbeddedEngine, Steps, collect, gather_completions
from understudy.engine.errors import (
    BadRequest,
    BrokenCheckpoint,
    BrokenReadout,
    BrokenTemplate,
    EngineBusy,
    EngineClosed,
    EngineError,
    ModelNotFound,
    NoDirections,
    PromptTooLong,
    UnknownArchitecture,
)
from understudy.engine.loading import (
    Dtype,
    LoadedModel,
    load_model,
    load_tokenizer,
    locate_model,
    served_dtype,
)
from understudy.engine.miniature import Architecture, write_miniature
from understudy.engine.pool import Stream
from understudy.engine.protocol import Engine
from understudy.engine.request import (
    MAX_LOGPROBS,
    Completion,
    FinishReason,
    GenerationRequest,
    GenerationStep,
    Readout,
    ReadoutSpan,
    Sampling,
    Score,
    ScoreRequest,
    Steer,
    TokenLogprob,
    WeightState,
)
from understudy.engine.skeleton import skeleton

__all__ = [
    "MAX_LOGPROBS",
    "Architecture",
    "BadRequest",
    "BrokenCheckpoint",
    "BrokenReadout",
    "BrokenTemplate",
    "Completion",
    "Directions",
    "Dtype",
    "EmbeddedEngine",
    "Engine",
    "EngineBusy",
    "EngineClosed",
    "EngineError",
    "FinishReason",
    "GenerationRequest",
    "GenerationStep",
    "LoadedModel",
    "ModelNotFound",
    "NoDirections",
    "PromptTooLong",
    "Readout",
    "ReadoutManifest",
    "ReadoutSpan",
    "Sampling",
    "Score",
    "ScoreRequest",
    "Steer",
    "Steps",
    "Stream",
    "TextReader",
    "TokenLogprob",
    "TokenTexts",
    "UnknownArchitecture",
    "WeightState",
    "collect",
    "decode_text",
    "encode_chat",
    "encode_lesson",
    "encode_text",
    "gather_completions",
    "load_model",
    "load_tokenizer",
    "locate_model",
    "served_dtype",
    "skeleton",
    "write_miniature",
]

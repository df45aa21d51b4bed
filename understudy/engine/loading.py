"""From a model directory to a model that can speak."""

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from understudy.engine.errors import BrokenCheckpoint, ModelNotFound, UnknownArchitecture
from understudy.engine.products import widen_products

Dtype = Literal["float32", "bfloat16", "checkpoint"]
"""The element type to serve in; `checkpoint` is the one the directory was stored with."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SERVED_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_NO_LENGTH = 10**9  # transformers writes 1e30 where a tokenizer knows no limit


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with what is needed to feed and stop it. `context_length` counts prompt and answer."""

    model: Any
    tokenizer: Any
    directory: Path
    context_length: int
    vocabulary: int
    eos_ids: frozenset[int]
    bos_id: int | None


def locate_model(path: str | Path) -> Path:
    """The directory of a model: `path` itself, or a snapshot of the hub repository `owner/name`.

    Raises ModelNotFound when there is neither.
    """
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if not _HUB_NAME.fullmatch(str(path)):
        raise ModelNotFound(
            f"expected a model directory at {directory}, found "
            f"{'a file' if directory.exists() else 'nothing'}: give a directory in Hugging Face layout, "
            "a hub name such as `owner/name`, or `pocket`"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=_SERVED_FILES))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFound(
            f"expected a model directory or a hub repository named {str(path)!r}; there is no such directory "
            f"and the hub gave none ({_first_line(error)}): check the name and the network"
        ) from error


def load_model(directory: Path, dtype: Dtype = "checkpoint") -> LoadedModel:
    """Load a causal language model from a Hugging Face directory, ready to generate.

    Raises ModelNotFound, UnknownArchitecture or BrokenCheckpoint. Only safetensors are read, and no
    code from the directory is ever run.
    """
    config = read_config(directory)
    _require_safetensors(directory)
    model = _load_parameters(directory, config, resolve_dtype(directory, config, dtype))
    tokenizer = load_tokenizer(directory)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > vocabulary:
        raise BrokenCheckpoint(
            f"expected a tokenizer of at most {vocabulary} tokens, because {directory} has as many "
            f"embeddings; found {len(tokenizer)}: tokenizer and weights are of different models"
        )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        directory=directory,
        context_length=_context_length(config, tokenizer, directory),
        vocabulary=vocabulary,
        eos_ids=_end_ids(model, tokenizer),
        bos_id=tokenizer.bos_token_id,
    )


def untrained_twin(loaded: LoadedModel, seed: int) -> LoadedModel:
    """The same architecture and tokenizer with weights drawn anew: what knows words, and nothing of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(loaded.model.config, dtype=loaded.model.dtype)
    return replace(loaded, model=widen_products(model.to(loaded.model.device).eval()))


def load_tokenizer(directory: Path) -> Any:
    """The directory's tokenizer, warmed up so that several threads may encode with it at once."""
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        # Without this check transformers makes up an empty tokenizer for some architectures.
        raise BrokenCheckpoint(
            f"expected a tokenizer in {directory}, found none of {', '.join(_TOKENIZER_FILES)}: "
            "copy the files that belong to this model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        # The first call clears truncation and padding that a tokenizer file may have set; later calls
        # then change nothing, which is what makes them safe side by side.
        tokenizer("warm", add_special_tokens=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise BrokenCheckpoint(
            f"expected a tokenizer in {directory}, could not load it: {_first_line(error)}"
        ) from error
    return tokenizer


def read_config(directory: Path) -> Any:
    """The model's configuration. Raises ModelNotFound, BrokenCheckpoint or UnknownArchitecture."""
    _quiet_advice()
    file = directory / "config.json"
    if not file.is_file():
        raise ModelNotFound(
            f"expected config.json in the model directory {directory}, found none: "
            "give the directory that holds config.json, *.safetensors and tokenizer.json"
        )
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenCheckpoint(f"expected JSON in {file}: {error}") from error
    kind = described.get("model_type") if isinstance(described, dict) else None
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UnknownArchitecture(
            f"expected a model_type in {file} that the installed transformers knows, found {kind!r}: "
            f"{_first_line(error)}"
        ) from error
    except (TypeError, StrictDataclassError) as error:
        raise BrokenCheckpoint(f"expected a valid {kind!r} configuration in {file}: {error}") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnknownArchitecture(
            f"expected a causal language model, found model_type {kind!r} in {file}, which is not one: "
            "only models that generate text can be served"
        )
    return config


def resolve_dtype(directory: Path, config: Any, dtype: Dtype) -> torch.dtype:
    """The element type that `dtype` means for this directory."""
    if dtype == "float32":
        return torch.float32
    if dtype == "bfloat16":
        return torch.bfloat16
    stored = config.get_text_config().dtype or config.dtype
    if isinstance(stored, torch.dtype):
        return stored
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a dict)
                found: torch.dtype = tensors.get_tensor(name).dtype
                if found.is_floating_point:
                    return found
    raise BrokenCheckpoint(f"expected a tensor of real numbers in {directory}, found none")


def served_dtype(directory: Path, dtype: Dtype) -> str:
    """What `dtype` means for this directory, by torch's name. Raises as read_config does."""
    return str(resolve_dtype(directory, read_config(directory), dtype)).removeprefix("torch.")


def _quiet_advice() -> None:
    """Keep transformers from advising, on a machine without a GPU, kernels that need one."""
    transformers_logging.disable_progress_bar()
    if not torch.cuda.is_available():
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)


def _require_safetensors(directory: Path) -> None:
    if any(directory.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in (*directory.glob("*.bin"), *directory.glob("*.pt*")))
    came = f"only {', '.join(pickles)}, which can run code when read" if pickles else "no weights at all"
    raise BrokenCheckpoint(
        f"expected *.safetensors in {directory}, found {came}: save the model with "
        "`save_pretrained(..., safe_serialization=True)` and point here again"
    )


def _load_parameters(directory: Path, config: Any, dtype: torch.dtype) -> Any:
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, by name
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"expected loadable weights in {directory}: {error}") from error
    wrong = {
        "missing": report["missing_keys"],
        "not of this architecture": report["unexpected_keys"],
        "of another shape": report["mismatched_keys"],
    }
    found = [f"{what}: {_few(names)}" for what, names in wrong.items() if names]
    if found:
        raise BrokenCheckpoint(
            f"expected exactly the tensors of {type(model).__name__} in {directory}; {'; '.join(found)}: "
            "the weights and config.json are of different models, or the download is incomplete"
        )
    return widen_products(model.eval())


def _context_length(config: Any, tokenizer: Any, directory: Path) -> int:
    length = getattr(config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    if not isinstance(length, int) or not 0 < length < _NO_LENGTH:
        raise BrokenCheckpoint(
            f"expected max_position_embeddings in {directory / 'config.json'} or model_max_length in "
            f"tokenizer_config.json, got {length!r}: add one of them, it bounds prompt plus answer"
        )
    return length


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: what the generation config, the config and the tokenizer name."""
    named = (
        model.generation_config.eos_token_id,
        model.config.get_text_config().eos_token_id,
        tokenizer.eos_token_id,
    )
    return frozenset(
        token for ids in named if ids is not None for token in ([ids] if isinstance(ids, int) else ids)
    )


def _few(names: Any) -> str:
    listed = sorted(str(name) for name in names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"

"""What a certificate is of, as hashes: a model's tensors and files, an invariant's files and scenarios."""

import hashlib
import platform
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from understudy.behaviours.certificates import CertifiedModel, Specification
from understudy.behaviours.judges import ModelJudge, ReadoutJudge
from understudy.behaviours.scenarios import Split
from understudy.behaviours.specification import Invariant, InvariantFile

if TYPE_CHECKING:
    import torch

_PACKAGES = ("understudy", "torch", "transformers")
_MODEL_FILES = (  # beside the tensors, what a model's answers depend on
    *("config.json", "generation_config.json", "chat_template.jinja", "chat_template.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
_READOUT_FILES = ("readout.json", "readout.safetensors")


def describe_model(
    directory: Path,
    name: str,
    readout: Path | None = None,
    *,
    as_it_lies: bool = False,
    hashed: Callable[[int, int], None] = lambda done, of: None,
) -> CertifiedModel:
    """The model in a directory at its newest weight commit, and the directions in `readout`.

    Reads one tensor at a time. `as_it_lies`: the tensors of the files whatever the history says of them.
    Raises HistoryBroken when the files are of no weight commit, NotTensors when there are none.
    """
    from understudy.weights import StoredTensors, WeightHistory

    files = {file: directory / file for file in _MODEL_FILES}
    if readout is not None:
        files |= {f"readout/{file}": readout / file for file in _READOUT_FILES}
    if as_it_lies:
        with StoredTensors.open(directory) as stored:
            tensors = _hash_all(stored.tensors(), len(stored.kinds), hashed)
        commit = None
    else:
        history = WeightHistory.view(directory)
        commit = history.head
        tensors = _hash_all(history.tensors_at(commit), len(history.checkpoint.names), hashed)
    return CertifiedModel(
        name=name,
        weight_commit=commit,
        tensors=tensors,
        files={file: hash_bytes(path.read_bytes()) for file, path in files.items() if path.is_file()},
    )


def _hash_all(
    tensors: "Iterable[tuple[str, torch.Tensor]]", count: int, hashed: Callable[[int, int], None]
) -> dict[str, str]:
    found = {}
    for name, tensor in tensors:
        found[name] = hash_tensor(tensor)
        hashed(len(found), count)
    return found


def hash_tensor(tensor: "torch.Tensor") -> str:
    """SHA-256 over a line such as `bfloat16 [64, 128]`, and the elements' bytes, row by row."""
    import torch

    kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n"
    found = hashlib.sha256(kind.encode())
    found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe_versions() -> dict[str, str]:
    """What an answer depends on beside the weights: packages, and the processor."""
    import torch

    found = {package: metadata.version(package) for package in _PACKAGES}
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {**found, "python": platform.python_version(), "processor": processor}


def specify(invariant: Invariant, split: Split) -> Specification:
    """An invariant as it is now. Raises OSError when one of its files is gone."""
    marks = invariant.requirement
    asked = [
        ([(turn.role, turn.content) for turn in one.prompt], one.target) for one in invariant.scenarios[split]
    ]
    return Specification(
        wanted=invariant.wanted,
        kind=invariant.kind,
        required=marks.required,
        indifferent=marks.indifferent,
        alpha=marks.alpha,
        beta=marks.beta,
        temperature=invariant.temperature,
        max_tokens=invariant.max_tokens,
        judge=msgspec.to_builtins(invariant.judge),
        files={name: hash_bytes((invariant.folder / name).read_bytes()) for name in _files(invariant)},
        scenarios=hash_bytes(msgspec.json.encode(asked)),
    )


def _files(invariant: Invariant) -> tuple[str, ...]:
    """The invariant's own file, and those that it names."""
    own = f"{invariant.name}.toml"
    text = (invariant.folder / own).read_text(encoding="utf-8")
    given = msgspec.convert(tomllib.loads(text), InvariantFile)
    labelled = (given.judge.labelled,) if isinstance(given.judge, ModelJudge) else ()
    return (own, *given.scenarios.files, *labelled)


def reads_out(invariants: Iterable[Invariant]) -> bool:
    """Whether a concept's readout judges any of them."""
    return any(isinstance(invariant.judge, ReadoutJudge) for invariant in invariants)

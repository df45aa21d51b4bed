"""Writing a model directory that appears whole, or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from understudy.weights.checkpoint import INDEX
from understudy.weights.stored import (
    StoredTensors,
    StoredWriter,
    TensorKind,
    refuse_existing,
    sync_directory,
)

_COPIED = ("*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "NOTICE*")
"""Configuration, tokenizer and licence. A model card is not copied: it describes other weights."""


class ModelWriter:
    """The safetensors files of one model directory, written in runs."""

    def __init__(self, files: Mapping[str, StoredWriter]) -> None:
        self._files = files
        """By tensor name."""

    def write(self, name: str, start: int, values: torch.Tensor) -> None:
        self._files[name].write(name, start, values)


@contextmanager
def new_model(
    output: Path, template: StoredTensors, kinds: Mapping[str, TensorKind], metadata: Mapping[str, str]
) -> Iterator[ModelWriter]:
    """A model directory with the files of `template` and tensors of `kinds`, renamed into place at the end.

    Configuration and tokenizer are copied from `template`'s directory. Raises AlreadyThere.
    """
    refuse_existing(output)
    aside = output.with_name(f".{output.name}.{os.getpid()}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with ExitStack() as open_files:
            by_file: dict[str, StoredWriter] = {}
            for file in sorted(set(template.files.values())):
                held = {name: kinds[name] for name in kinds if template.files[name] == file}
                by_file[file] = StoredWriter(aside / file, held, metadata)
                open_files.callback(by_file[file].close)
            yield ModelWriter({name: by_file[template.files[name]] for name in kinds})
            for writer in by_file.values():
                writer.finish()
        _write_index(aside, template, kinds)
        _copy_settings(template.path, aside, kinds)
        sync_directory(aside)
        refuse_existing(output)
        aside.rename(output)
        sync_directory(output.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_index(aside: Path, template: StoredTensors, kinds: Mapping[str, TensorKind]) -> None:
    if len(set(template.files.values())) == 1:
        return
    total = sum(kind.size_bytes for kind in kinds.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: template.files[name] for name in sorted(kinds)},
    }
    _write_synced(aside / INDEX, json.dumps(index, indent=2) + "\n")


def _copy_settings(source: Path, aside: Path, kinds: Mapping[str, TensorKind]) -> None:
    for pattern in _COPIED:
        for file in source.glob(pattern):
            if file.name != INDEX and file.is_file():
                shutil.copyfile(file, aside / file.name)
    config = aside / "config.json"
    if not config.is_file():
        return
    held = json.loads(config.read_text(encoding="utf-8"))
    dtypes = {
        str(kind.dtype).removeprefix("torch.") for kind in kinds.values() if kind.dtype.is_floating_point
    }
    for section in (held, held.get("text_config", {})):
        for key in ("dtype", "torch_dtype"):
            if key in section and len(dtypes) == 1:
                section[key] = next(iter(dtypes))
    _write_synced(config, json.dumps(held, indent=2) + "\n")


def _write_synced(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())

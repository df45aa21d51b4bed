"""A model's parameters in one file mapping that several processes read and write without locks.

The file starts with a header of `HEADER_BYTES`: 64-bit integers (format, step, dirty, commit, generation,
served). Then the tensors follow, each aligned to `ALIGNMENT` bytes. A JSON manifest beside the file names
every tensor with its shape, element type and offset, and the model directory that they came from. Names are
the checkpoint's. An engine may keep several of its tensors in one, row behind row: each is a window on it.
Reads and writes race on purpose (HOGWILD, arXiv 1106.5730): a reader may see a tensor half updated,
which is a mixture of two nearby models and never an invalid number.
"""

import atexit
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.weights.errors import MappingBroken, WeightsMismatch
from understudy.weights.handles import HandleServer, receive_storages
from understudy.weights.records import ID_LENGTH

FORMAT = 4
HEADER_BYTES = 4096
ALIGNMENT = 256
MEMORY_DIRECTORY = Path("/dev/shm")
PREFIX = "understudy-weights-"
_DTYPES = {
    str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies; `offset` in bytes, in the mapping or in one of the engine's own storages."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    storage: int | None = None

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize

    def describe(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of an engine's parameter a tensor of the checkpoint is: `shape[0]` rows from `first_row` on.

    `dtype` is the checkpoint's. Where the engine computes with another one, the mapping holds both.
    """

    parameter: str
    first_row: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class SharedWeights:
    """The parameters of one model, mapped. The creator owns the files and removes them on `close`."""

    def __init__(
        self,
        directory: Path,
        buffer: torch.Tensor,
        places: Mapping[str, Place],
        aliases: Mapping[str, str],
        mirrors: Mapping[str, Place],
        lock: int | None,
        model: Path | None,
        storages: Sequence[torch.UntypedStorage] = (),
    ) -> None:
        self.directory = directory
        self.model = model
        self.aliases = dict(aliases)
        self._header = buffer[:HEADER_BYTES].view(torch.int64)
        self._lock = lock
        self._owner_pid = os.getpid() if lock is not None else None
        self._handles: HandleServer | None = None
        self._on_gpu = any(storage.device.type == "cuda" for storage in storages)
        self.tensors = {name: _view(buffer, place, storages) for name, place in places.items()}
        self.mirrors = {name: _view(buffer, place, storages) for name, place in mirrors.items()}
        """What the engine reads instead of a tensor of the same name, in an element type of its own."""

    # ------------------------------------------------------------------ making and finding

    @classmethod
    def create(cls, model: nn.Module, source: Path | None = None) -> "SharedWeights":
        """Move `model`'s parameters into a new mapping; its Parameter objects stay, tied ones stay tied.

        `source` is the model directory that they came from, for tools to find the mapping by.
        """
        parameters, aliases = distinct_parameters(model)
        windows = {n: Window(n, 0, tuple(p.shape), p.dtype) for n, p in parameters.items()}
        return cls.share(parameters, windows, aliases, source)

    @classmethod
    def share(
        cls,
        parameters: Mapping[str, nn.Parameter],
        windows: Mapping[str, Window],
        aliases: Mapping[str, str],
        source: Path | None = None,
        owner: str | None = None,
        *,
        in_place: bool = False,
    ) -> "SharedWeights":
        """Move an engine's parameters, by its own names, into a new mapping that names their `windows`.

        The Parameter objects stay. `aliases` are further names of windows, for tied weights. `owner` names
        the engine, for those of its processes that have to find the mapping. `in_place` leaves parameters in
        the memory that they have, a GPU's for example; see `handles`.
        """
        storages: list[torch.UntypedStorage] = []
        if in_place:
            own, end = _stay(parameters, storages), HEADER_BYTES
        else:
            own, end = _lay_out(parameters)
        places, mirrors, size = _place_windows(windows, own, end)
        if in_place:
            places, size = _beside(places, mirrors, storages), HEADER_BYTES
        directory = _own_directory(size)
        lock = _lock(directory / "weights.bin")
        os.ftruncate(lock, size)
        buffer = _map(directory / "weights.bin", size)
        manifest = {
            "format": FORMAT,
            "model": str(source.resolve()) if source else None,
            "owner": owner,
            "storages": len(storages),
            "size_bytes": size,
            "aliases": dict(aliases),
            "tensors": {name: place.describe() for name, place in places.items()},
            "mirrors": {name: place.describe() for name, place in mirrors.items()},
        }
        model = source.resolve() if source else None
        shared = cls(directory, buffer, places, aliases, mirrors, lock, model, storages)
        shared._header[0] = FORMAT
        if in_place:
            shared._handles = HandleServer(directory, storages)
        with torch.no_grad():
            for name, parameter in parameters.items():
                view = _view(buffer, own[name], storages)
                if not in_place:
                    view.copy_(parameter)
                    parameter.data = view
            for name, mirror in shared.mirrors.items():
                shared.tensors[name].copy_(mirror)
        (directory / "manifest.json").write_text(json.dumps(manifest))
        atexit.register(shared.close)
        return shared

    @classmethod
    def attach(cls, manifest: Path) -> "SharedWeights":
        """Map weights that another process created.

        Raises MappingBroken when the manifest or the file is missing, short, or of another format.
        """
        try:
            described: dict[str, Any] = json.loads(manifest.read_text())
            size = int(described["size_bytes"])
            found = (manifest.parent / "weights.bin").stat().st_size
        except (OSError, ValueError, KeyError) as error:
            raise MappingBroken(f"expected the manifest of shared weights at {manifest}: {error}") from error
        if described["format"] != FORMAT or found != size:
            raise MappingBroken(
                f"expected format {FORMAT} and {size} bytes at {manifest.parent}, "
                f"found format {described['format']} and {found} bytes"
            )
        places, mirrors = (
            {n: Place(**{**e, "shape": tuple(e["shape"])}) for n, e in described[key].items()}
            for key in ("tensors", "mirrors")
        )
        buffer = _map(manifest.parent / "weights.bin", size)
        model = Path(described["model"]) if described["model"] else None
        storages = receive_storages(manifest.parent) if described["storages"] else ()
        return cls(manifest.parent, buffer, places, described["aliases"], mirrors, None, model, storages)

    def bind(self, model: nn.Module) -> None:
        """Make `model`'s parameters views of the mapping, without copying a byte.

        Raises WeightsMismatch when names, shapes or element types differ.
        """
        wanted = dict(model.named_parameters(remove_duplicate=False))
        held = {**{n: n for n in self.tensors}, **self.aliases}
        if wanted.keys() != held.keys():
            raise WeightsMismatch(
                f"expected the parameters {_few(held.keys() - wanted.keys())} that are in the mapping, "
                f"found {_few(wanted.keys() - held.keys())} that are not"
            )
        bound: dict[str, nn.Parameter] = {}
        for name, parameter in wanted.items():
            view = self.tensors[held[name]]
            if parameter.shape != view.shape or parameter.dtype != view.dtype:
                raise WeightsMismatch(
                    f"{name}: expected {tuple(parameter.shape)} {parameter.dtype}, "
                    f"the mapping has {tuple(view.shape)} {view.dtype}"
                )
            module_name, _, leaf = name.rpartition(".")
            fresh = bound.setdefault(held[name], nn.Parameter(view, requires_grad=parameter.requires_grad))
            setattr(model.get_submodule(module_name), leaf, fresh)
        device = next(iter(self.tensors.values())).device
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))

    def publish(self) -> None:
        """Bring the mirrors up to date, and begin a generation. Whoever wrote `tensors` calls this."""
        for name, mirror in self.mirrors.items():
            mirror.copy_(self.tensors[name])
        if self._on_gpu:
            torch.cuda.synchronize()  # what is counted has been written
        self._header[4] += 1

    # ------------------------------------------------------------------ the shared header

    @property
    def manifest(self) -> Path:
        return self.directory / "manifest.json"

    @property
    def step(self) -> int:
        """Optimizer steps written since the mapping was made, by whoever wrote them."""
        return int(self._header[1])

    @step.setter
    def step(self, value: int) -> None:
        self._header[1] = value

    @property
    def generation(self) -> int:
        """How often the weights were published: what is computed from them is as old as this says."""
        return int(self._header[4])

    @property
    def served(self) -> int:
        """The generation that the engine answers with, where it keeps copies in another form."""
        return int(self._header[5])

    @served.setter
    def served(self, value: int) -> None:
        self._header[5] = value

    @property
    def dirty(self) -> bool:
        """True while the weights are ahead of the last commit: a session writes, or died writing."""
        return bool(self._header[2])

    @dirty.setter
    def dirty(self, value: bool) -> None:
        self._header[2] = int(value)

    @property
    def commit(self) -> str | None:
        """The weight commit whose values these are, or were before this session; None: as they came."""
        held = int(self._header[3])
        return f"{held - 1:0{ID_LENGTH}x}" if held else None

    @commit.setter
    def commit(self, identity: str | None) -> None:
        self._header[3] = 0 if identity is None else int(identity, 16) + 1  # one aligned store: never half

    def close(self) -> None:
        """Remove the files, when this process created them. Views already handed out stay readable."""
        if self._lock is None or self._owner_pid != os.getpid():
            return
        atexit.unregister(self.close)
        if self._handles is not None:
            self._handles.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def find_mappings(source: Path, owner: str | None = None) -> list[Path]:
    """The manifests of living mappings of a model directory: their owners hold them, or will in a moment.

    With `owner`, those that it shared.
    """
    found = []
    for parent in _parents():
        gone = set(_stale(parent))
        for manifest in sorted(parent.glob(f"{PREFIX}*/manifest.json")):
            try:
                described = json.loads(manifest.read_text())
            except (OSError, ValueError):
                continue  # another user's, or being written or removed right now
            theirs = owner is not None and described.get("owner") != owner
            if described.get("model") == str(source.resolve()) and manifest.parent not in gone and not theirs:
                found.append(manifest)
    return found


def remove_abandoned() -> None:
    """Remove mappings whose owner was killed. Every new mapping begins with this."""
    for parent in _parents():
        for directory in _stale(parent):
            shutil.rmtree(directory, ignore_errors=True)


def distinct_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """Each parameter once under its first name, and the other names of tied ones."""
    first: dict[int, str] = {}
    parameters: dict[str, nn.Parameter] = {}
    aliases: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            aliases[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
            parameters[name] = parameter
    return parameters, aliases


def _lay_out(parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Place], int]:
    places: dict[str, Place] = {}
    end = HEADER_BYTES
    for name, parameter in parameters.items():
        place = Place(
            _dtype_name(name, parameter.dtype), tuple(parameter.shape), math.ceil(end / ALIGNMENT) * ALIGNMENT
        )
        places[name] = place
        end = place.offset + place.size_bytes
    return places, end


def _stay(parameters: Mapping[str, nn.Parameter], storages: list[torch.UntypedStorage]) -> dict[str, Place]:
    """Where parameters lie now; their storages are added, each once."""
    numbers: dict[int, int] = {}
    places = {}
    for name, parameter in parameters.items():
        if not parameter.is_contiguous():
            raise WeightsMismatch(
                f"{name}: expected rows behind one another, got strides {parameter.stride()}"
            )
        storage = parameter.untyped_storage()
        number = numbers.setdefault(storage.data_ptr(), len(storages))
        if number == len(storages):
            storages.append(storage)
        offset = int(parameter.storage_offset()) * parameter.element_size()
        places[name] = Place(_dtype_name(name, parameter.dtype), tuple(parameter.shape), offset, number)
    return places


def _beside(
    places: Mapping[str, Place], mirrors: Mapping[str, Place], storages: list[torch.UntypedStorage]
) -> dict[str, Place]:
    """The places, where what has a mirror gets a storage of its own on the same device."""
    moved = dict(places)
    for name in mirrors:
        own = torch.empty(places[name].size_bytes, dtype=torch.uint8, device=storages[0].device)
        storages.append(own.untyped_storage())
        moved[name] = replace(places[name], offset=0, storage=len(storages) - 1)
    return moved


def _place_windows(
    windows: Mapping[str, Window], own: Mapping[str, Place], end: int
) -> tuple[dict[str, Place], dict[str, Place], int]:
    """Where the windows lie on the engine's own places, where their mirrors, and where all of it ends."""
    places: dict[str, Place] = {}
    mirrors: dict[str, Place] = {}
    for name, window in windows.items():
        held = own[window.parameter]
        row_bytes = held.size_bytes // held.shape[0] if held.shape else held.size_bytes
        seen = replace(held, shape=window.shape, offset=held.offset + window.first_row * row_bytes)
        wanted = Place(_dtype_name(name, window.dtype), window.shape, math.ceil(end / ALIGNMENT) * ALIGNMENT)
        if seen.dtype == wanted.dtype:
            places[name] = seen
        else:
            places[name], mirrors[name] = wanted, seen
            end = wanted.offset + wanted.size_bytes
    return places, mirrors, end


def _dtype_name(parameter: str, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise WeightsMismatch(f"{parameter}: expected one of {sorted(_DTYPES)}, got {name}")
    return name


def _view(buffer: torch.Tensor, place: Place, storages: Sequence[torch.UntypedStorage] = ()) -> torch.Tensor:
    dtype = _DTYPES[place.dtype]
    if place.storage is None:
        raw = buffer[place.offset : place.offset + place.size_bytes]
        return raw.view(dtype).view(place.shape)
    storage = storages[place.storage]
    whole = torch.empty(0, dtype=dtype, device=storage.device).set_(storage)
    first = place.offset // dtype.itemsize
    return whole[first : first + math.prod(place.shape)].view(place.shape)


def _own_directory(size: int) -> Path:
    """A private directory in memory when it fits with a tenth to spare, else on disk."""
    remove_abandoned()
    roomy = MEMORY_DIRECTORY.is_dir() and shutil.disk_usage(MEMORY_DIRECTORY).free > size * 1.1
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY_DIRECTORY if roomy else None))


def _parents() -> tuple[Path, ...]:
    return MEMORY_DIRECTORY, Path(tempfile.gettempdir())


def _stale(parent: Path) -> Iterator[Path]:
    """Directories of ours whose owner is gone: it held a lock that the kernel dropped with it."""
    for directory in parent.glob(f"{PREFIX}*"):
        try:
            handle = os.open(directory / "weights.bin", os.O_RDWR)
        except FileNotFoundError:
            if not _making(directory):
                yield directory
            continue
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
        yield directory


def _making(directory: Path) -> bool:
    """Whether the process that began this directory, named by it, may still be about to fill it."""
    try:
        os.kill(int(directory.name.removeprefix(PREFIX).partition("-")[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _lock(file: Path) -> int:
    handle = os.open(file.with_suffix(".new"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    file.with_suffix(".new").rename(file)  # seen by others only once locked
    return handle


def _map(file: Path, size: int) -> torch.Tensor:
    return torch.from_file(str(file), shared=True, size=size, dtype=torch.uint8)


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (" ..." if len(names) > 4 else "") or "none"

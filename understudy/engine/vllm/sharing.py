"""In vLLM's worker: its parameters become the one copy of the weights that the trainer maps."""

import logging
import multiprocessing
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from understudy.engine.directions import Directions
from understudy.engine.errors import NoDirections
from understudy.engine.steer import Steer
from understudy.engine.vllm import tapping
from understudy.engine.vllm.packing import PackedMatrices
from understudy.engine.vllm.windows import Layout, find_windows
from understudy.weights import (
    Checkpoint,
    SharedWeights,
    WeightHistory,
    WeightsMismatch,
    distinct_parameters,
    find_mappings,
    teaching,
)

log = logging.getLogger(__name__)
ORPHAN_SECONDS = 15.0
"""How long to wait for a trainer that an earlier server left behind."""

_of_this_process: list[SharedWeights] = []
"""The mapping of the model that this process serves or schedules, once it is there."""


class NotTeachable(RuntimeError):
    """vLLM is set up in a way in which its weights cannot be shared yet."""


def packed_matrices() -> PackedMatrices | None:
    """Where the packed copies of matrices are listed; None when the settings want none."""
    return PackedMatrices() if tapping.model_settings().packed else None


def follow(packed: PackedMatrices) -> None:
    """Before a pass: bring the packed copies up to the weights."""
    if _of_this_process:
        shared = _of_this_process[-1]
        packed.follow(shared.generation, shared.dirty)
        shared.served = packed.generation


def check_setup(worker: Any) -> None:
    """Raises NotTeachable, with the reason, for what cannot be shared."""
    config = worker.vllm_config
    for what, found in (
        ("tensor parallelism", config.parallel_config.tensor_parallel_size),
        ("pipeline parallelism", config.parallel_config.pipeline_parallel_size),
    ):
        if found > 1:
            raise NotTeachable(
                f"expected {what} of 1, got {found}: one trainer maps one process's weights; serve without"
            )
    if config.model_config.quantization is not None:
        raise NotTeachable(
            f"expected weights as they were trained, got {config.model_config.quantization}: a quantized "
            "weight cannot take a small step; serve the original"
        )
    if not Path(config.model_config.model).is_dir():
        raise NotTeachable(
            f"expected a model directory, got {config.model_config.model!r}: what is learned is kept in it"
        )


def settle(worker: Any) -> None:
    """Before the files are read: what an earlier server committed is written into them."""
    check_setup(worker)
    directory = Path(worker.vllm_config.model_config.model)
    with teaching(directory, wait_seconds=ORPHAN_SECONDS):
        history = WeightHistory.open(directory)
        history.sync()
    worker.understudy_commit = history.head
    worker.understudy_directions = directions = tapping.directions_of_workspace()
    if directions is not None:
        _check_tappable(worker)
        # What was compiled without the tap has another name among vLLM's cached graphs.
        worker.vllm_config.additional_config["understudy_layers"] = list(directions.layers)


def share(worker: Any) -> None:
    """Move the loaded parameters into a mapping, under the checkpoint's names, and compare every value."""
    directory = Path(worker.vllm_config.model_config.model)
    shared = share_model(worker.model_runner.get_model(), directory, _scheduler())
    shared.commit = worker.understudy_commit
    _of_this_process.append(shared)
    if worker.understudy_directions is not None:
        tapping.install(worker, worker.understudy_directions)
    log.info("%d tensors of %s are shared: %s", len(shared.tensors), directory, shared.manifest)


def _scheduler() -> str:
    """The process that the scheduler is in, for a worker in a process of its own: the one that started it."""
    parent = multiprocessing.parent_process()
    return str(os.getpid() if parent is None else parent.pid)


def share_model(model: Any, directory: Path, owner: str) -> SharedWeights:
    """The mapping of one of vLLM's models that was loaded from `directory`; `owner` names the scheduler.

    Raises WeightsMismatch when a parameter or a tensor has no counterpart, or a value differs from the
    file's.
    """
    parameters, aliases = distinct_parameters(model)
    empty = [name for name, parameter in parameters.items() if parameter.numel() == 0]
    if empty:
        raise WeightsMismatch(f"expected values in every parameter, vLLM gave up those of {empty[0]}")
    checkpoint = Checkpoint.open(directory)
    layout: Layout = {name: (place.shape, place.dtype) for name, place in checkpoint.places.items()}
    stored = {name: seen for name, seen in layout.items() if name not in aliases}
    windows = find_windows(parameters, getattr(model, "packed_modules_mapping", {}), stored)
    on_gpu = any(parameter.device.type == "cuda" for parameter in parameters.values())
    shared = SharedWeights.share(parameters, windows, aliases, directory, owner, in_place=on_gpu)
    try:
        _compare(shared, checkpoint)
    except WeightsMismatch:
        shared.close()
        raise
    return shared


def _compare(shared: SharedWeights, checkpoint: Checkpoint) -> None:
    """Raises WeightsMismatch unless vLLM has the file's values, in the element type that it serves.

    What it serves in another type than the file's is kept in the file's as well: that is what is taught.
    """
    with checkpoint.reading() as files:
        for name, tensor in shared.tensors.items():
            stored, served = files.read(name), shared.mirrors.get(name, tensor)
            if not torch.equal(stored.to(served.dtype), served.cpu()):
                raise WeightsMismatch(
                    f"expected {name} to be in vLLM what it is in {checkpoint.directory}, found other values"
                )
            if name in shared.mirrors:
                tensor.copy_(stored)


def manifest(worker: Any) -> str:
    """Where the worker's mapping is described; for `collective_rpc`."""
    return str(_of_this_process[-1].manifest)


def current_prefix(config: Any, request: Any) -> str:
    """Names what the cached prefixes of a request depend on beside its tokens: the values of the weights now
    (their commit, the steps since the start, the generation that is packed) and the steering. For vLLM's
    scheduler, which runs beside its worker or in a process of its own.

    Raises NotTeachable unless there is exactly one mapping of this model; NoDirections or BadRequest for
    steering that cannot be done.
    """
    shared = _shared(config)
    return f"{shared.commit} {shared.step} {shared.served} {_steering_of(request)}"


def _shared(config: Any) -> SharedWeights:
    if not _of_this_process:
        directory = Path(config.model_config.model)
        found = find_mappings(directory, str(os.getpid()))
        if len(found) != 1:
            raise NotTeachable(f"expected one mapping of {directory} by this vLLM, found {len(found)}")
        _of_this_process.append(SharedWeights.attach(found[0]))
    return _of_this_process[-1]


def _steering_of(request: Any) -> tuple[str | int, ...]:
    """What tells a request's steering from another's: as it was sent, and where the prompt ends if that
    decides what is steered. An error here is this request's; in the worker it would be everybody's.
    """
    from vllm.utils import length_from_prompt_token_ids_or_embeds

    extra = getattr(request.sampling_params, "extra_args", None)
    texts = tapping.wanted_steering(extra)
    tapping.wanted_readout(extra)
    if not texts:
        return ()
    directions = _directions()
    if directions is None:
        raise NoDirections
    steers = [Steer.parse(text) for text in texts]
    directions.steering(steers)
    if not any(steer.follows_prompt for steer in steers):
        return texts
    return (*texts, length_from_prompt_token_ids_or_embeds(request.prompt_token_ids, request.prompt_embeds))


@cache
def _directions() -> Directions | None:
    return tapping.directions_of_workspace()


def _check_tappable(worker: Any) -> None:
    """Raises NotTeachable where no layer could be tapped, or rows could be another request's."""
    from vllm.platforms import current_platform

    config = worker.vllm_config
    if config.speculative_config is not None:
        raise NotTeachable(
            "expected no speculative decoding with directions loaded: rows of guessed tokens would be read"
        )
    if not current_platform.is_cpu() and not config.model_config.enforce_eager:
        raise NotTeachable(
            "expected --enforce-eager with directions loaded: graphs captured on a GPU leave Python out, so "
            "nothing would be read"
        )

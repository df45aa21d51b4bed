"""Weight commits, syncs and reverts against a full save, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/weight_history.py [--layers 8] [--folder DIR]

A bf16 transformer's weights take one Adam-like step: each element moves by the learning rate times m/sqrt(v),
drawn here as a normal variable clipped to [-1, 1], and is rounded stochastically. The full save is
safetensors' `save_file` of everything, and fsync. Commits, syncs and reverts are durable when they return.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from understudy.training import round_stochastic_
from understudy.weights import WeightHistory

HIDDEN, INTERMEDIATE, VOCABULARY = 512, 1408, 8192
WHEN = "2026-01-02T03:04:05Z"
AIMS = {3e-6: 0.06, 1e-5: 0.12}
State = dict[str, torch.Tensor]


def build(layers: int) -> State:
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16)

    state = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            state[f"{at}.self_attn.{name}.weight"] = matrix(HIDDEN, HIDDEN)
        for name in ("gate_proj", "up_proj"):
            state[f"{at}.mlp.{name}.weight"] = matrix(INTERMEDIATE, HIDDEN)
        state[f"{at}.mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
    return state


def step(state: State, lr: float, only: str, generator: torch.Generator) -> None:
    for name, weight in state.items():
        if only in name:
            direction = torch.randn(weight.shape, generator=generator).clamp(-1, 1)
            round_stochastic_(weight, weight.float() + lr * direction, generator)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def full_save(state: State, file: Path) -> None:
    save_file(state, file)
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure; else a temporary one"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        run(Path(folder), given.layers, given.repeats)


def run(folder: Path, layers: int, repeats: int) -> None:
    state, generator = build(layers), torch.Generator().manual_seed(1)
    model = folder / "model"
    model.mkdir()
    full_save(state, model / "model.safetensors")
    size = (model / "model.safetensors").stat().st_size
    save = min(timed(lambda: full_save(state, folder / "full.safetensors")) for _ in range(repeats))
    print(f"{sum(t.numel() for t in state.values()) / 1e6:.1f} M parameters, {size / 1e6:.0f} MB in bf16")
    print(f"{'full save + fsync':34} {save:7.3f} s  1.00    {size / 1e6:8.2f} MB  100 %")
    history = WeightHistory.open(model)

    def commit() -> None:
        history.commit(state, message="step", author="bench", created=WHEN)

    def show(what: str, seconds: float, written: int, aim: float | None = None) -> None:
        aimed = f"  (aim {aim:.0%})" if aim else ""
        took = f"{seconds:7.3f} s {seconds / save:5.2f}"
        print(f"{what:34} {took}    {written / 1e6:8.2f} MB {written / size:5.1%}{aimed}")

    for lr, aim in AIMS.items():
        for pending in ("", ", others pending"):
            seconds = []
            for _ in range(repeats):
                if not pending:
                    history.sync()
                step(state, lr, "", generator)
                seconds.append(timed(commit))
            delta = history.delta_file(str(history.head)).stat().st_size
            show(f"commit at lr {lr:g}{pending}", min(seconds), delta, aim)
    first = timed(history.sync)
    show("sync of everything", first, size)
    for turn in range(3):
        step(state, 1e-5, f"layers.{layers // 2}.", generator)
        commit()
        report = history.sync()
        if turn:
            show("sync of one changed layer", report.seconds, report.bytes_written)
    target = history.commits[0].id
    live = {name: torch.empty_like(weight) for name, weight in state.items()}
    took = timed(lambda: history.restore(live, target, author="bench", created=WHEN))
    delta = history.delta_file(str(history.head)).stat().st_size
    show(f"revert of {len(history.commits) - 2} commits, live", took, delta)


if __name__ == "__main__":
    main()

"""An APOLLO step against PyTorch's AdamW and SGD: time and state, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/apollo_step.py [--layers 6] [--repeats 10]

The weights are the matrices, norms and embeddings of a small transformer. Time is the least of the repeats.
AdamW on bf16 weights rounds to nearest and keeps bf16 moments; APOLLO rounds stochastically and keeps fp32.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from understudy.config import ApolloSettings
from understudy.training import Apollo, parameter_groups

HIDDEN, INTERMEDIATE, VOCABULARY = 512, 1408, 8192


def build_model(layers: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    blocks: list[nn.Module] = [nn.Embedding(VOCABULARY, HIDDEN)]
    for _ in range(layers):
        blocks += [nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4)]
        blocks += [nn.Linear(HIDDEN, INTERMEDIATE, bias=False) for _ in range(2)]
        blocks += [nn.Linear(INTERMEDIATE, HIDDEN, bias=False), nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)]
    model = nn.ModuleList(blocks).to(dtype)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight) * 1e-3
    return model


def apollo(rank: int) -> Callable[[nn.Module], torch.optim.Optimizer]:
    settings = ApolloSettings(rank=rank)
    return lambda model: Apollo(parameter_groups(model, settings), settings)


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "AdamW foreach": lambda model: torch.optim.AdamW(model.parameters(), foreach=True),
    "AdamW fused": lambda model: torch.optim.AdamW(model.parameters(), fused=True),
    "SGD foreach": lambda model: torch.optim.SGD(model.parameters(), foreach=True),
    "APOLLO rank 64": apollo(64),
    "APOLLO rank 1": apollo(1),
}


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        rows = {}
        for name, make in OPTIMIZERS.items():
            model = build_model(given.layers, dtype)
            parameters = sum(weight.numel() for weight in model.parameters())
            optimizer, seconds = make(model), float("inf")
            for _ in range(given.repeats):
                started = time.process_time()
                optimizer.step()
                seconds = min(seconds, time.process_time() - started)
            rows[name] = seconds, state_bytes(optimizer) / parameters
        fused = rows["AdamW fused"][0]
        print(f"\n{parameters / 1e6:.0f} M parameters, {dtype}, one thread\n")
        print("| | ms | over AdamW fused | over AdamW foreach | state bytes per parameter |")
        print("|---|---|---|---|---|")
        for name, (seconds, size) in rows.items():
            foreach = rows["AdamW foreach"][0]
            ratios = f"{seconds / fused:.2f} | {seconds / foreach:.2f}"
            print(f"| {name} | {seconds * 1000:.1f} | {ratios} | {size:.2f} |")


if __name__ == "__main__":
    main()

"""An APOLLO step against PyTorch's AdamW and SGD: time and state, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/apollo_step.py [--layers 6] [--repeats 10] [--hidden 512]

The weights are the matrices, norms and embeddings of a small transformer. The optimizers take their steps in
turns, each on weights of its own; time is the least of the repeats, in CPU seconds. State is in bytes per
parameter, of all and of the matrices that APOLLO projects (embeddings and norms take AdamW in every row).
PyTorch's AdamW on bf16 weights rounds to nearest and keeps bf16 moments, which loses small steps; APOLLO
rounds stochastically and keeps fp32. One row is AdamW with both (on fp32 weights: plain fused AdamW).
*Floor* is the projection's matrix product alone, which no implementation can do without.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from understudy.config import ApolloSettings
from understudy.training import Apollo, parameter_groups

VOCABULARY = 8192


def build_model(layers: int, hidden: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    wide = hidden * 11 // 4
    blocks: list[nn.Module] = [nn.Embedding(VOCABULARY, hidden)]
    for _ in range(layers):
        blocks += [nn.Linear(hidden, hidden, bias=False) for _ in range(4)]
        blocks += [nn.Linear(hidden, wide, bias=False) for _ in range(2)]
        blocks += [nn.Linear(wide, hidden, bias=False), nn.RMSNorm(hidden), nn.RMSNorm(hidden)]
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
    "AdamW, fp32 moments, stochastic rounding": lambda model: Apollo(
        [{"params": list(model.parameters()), "projected": False}]
    ),
    "APOLLO rank 64": apollo(64),
    "APOLLO rank 1": apollo(1),
}


def state_bytes(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> float:
    """Per parameter of `weights`."""
    held = sum(
        value.numel() * value.element_size()
        for weight in weights
        for value in optimizer.state[weight].values()
        if isinstance(value, Tensor)
    )
    return held / sum(weight.numel() for weight in weights)


def projected(model: nn.Module) -> list[Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]


def project_only(model: nn.Module, rank: int) -> Callable[[], None]:
    """The products of gradients and projections that are there already."""
    pairs = []
    for weight in projected(model):
        assert weight.grad is not None
        wide = weight.shape[0] <= weight.shape[1]
        projection = torch.randn(rank, min(weight.shape), dtype=weight.dtype)
        pairs.append((projection, weight.grad) if wide else (weight.grad, projection.T))

    def take() -> None:
        for left, right in pairs:
            torch.mm(left, right)

    return take


def show(layers: int, hidden: int, repeats: int, dtype: torch.dtype) -> None:
    models = {name: build_model(layers, hidden, dtype) for name in OPTIMIZERS}
    optimizers = {name: make(models[name]) for name, make in OPTIMIZERS.items()}
    ways: dict[str, Callable[[], object]] = {name: optimizer.step for name, optimizer in optimizers.items()}
    ways["floor, rank 64"] = project_only(models["APOLLO rank 64"], 64)
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, take in ways.items():
            started = time.process_time()
            take()
            seconds[name] = min(seconds[name], time.process_time() - started)
    parameters = sum(weight.numel() for weight in models["AdamW fused"].parameters())
    matrices = sum(weight.numel() for weight in projected(models["AdamW fused"]))
    print(
        f"\n{parameters / 1e6:.0f} M parameters, {matrices / 1e6:.0f} M of them projected, {dtype}, "
        "one thread\n"
    )
    print("| | ms | over AdamW fused | over AdamW foreach | state, bytes per parameter: all | projected |")
    print("|---|---|---|---|---|---|")
    for name in ways:
        fused, foreach = (seconds[name] / seconds[f"AdamW {kind}"] for kind in ("fused", "foreach"))
        sizes = ["", ""]
        if name in optimizers:
            every: list[Tensor] = list(models[name].parameters())
            sizes = [
                f"{state_bytes(optimizers[name], chosen):.2f}" for chosen in (every, projected(models[name]))
            ]
        print(
            f"| {name} | {seconds[name] * 1000:.1f} | {fused:.2f} | {foreach:.2f} | {sizes[0]} | {sizes[1]} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        show(given.layers, given.hidden, given.repeats, dtype)


if __name__ == "__main__":
    main()

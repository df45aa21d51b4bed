"""The gradients of all replies of a thread: its contexts as one tree against each on its own, in one run.

    OMP_NUM_THREADS=1 python benchmarks/thread_trie.py [--replies 30] [--branching 0.3] [--size full]

Every reply is a lesson: its context is the path from the thread's root to what it answers, its continuation
the reply itself. Most replies answer the newest message, a share (`--branching`) an earlier one, drawn
evenly. Messages have 20 to 180 tokens. Time and memory are measured as in frozen_step.py.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence

import torch
from frozen_step import (
    ARCHITECTURES,
    CHUNK,
    SIZES,
    VOCABULARY,
    Gauge,
    build_model,
    keep_gradients,
    measure_row,
)
from torch import Tensor, nn

from understudy.training import (
    FrozenContext,
    continuation_log_probabilities,
    freeze_context,
    freeze_together,
)

Lesson = tuple[list[int], list[int]]
"""Token ids of a reply's context, and of the reply."""

WAYS = {
    "flat, full backpropagation": "flat_full",
    "flat, frozen contexts": "flat_frozen",
    "tree": "tree",
    "tree, in chunks": "tree_chunked",
}


def draw_thread(replies: int, branching: float) -> list[Lesson]:
    draw = random.Random(0)

    def message() -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(20, 180))]

    paths = [message()]  # tokens from the root to each message, itself included
    lessons = []
    for _ in range(replies):
        parent = draw.choice(paths) if draw.random() < branching else paths[-1]
        reply = message()
        lessons.append((parent, reply))
        paths.append(parent + reply)
    return lessons


def flat_full(model: nn.Module, lessons: Sequence[Lesson]) -> None:
    for context, reply in lessons:
        ids = torch.tensor([context + reply])
        logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=len(reply)).logits[0]
        nn.functional.cross_entropy(logits, ids[0, -len(reply) :]).backward()  # type: ignore[no-untyped-call]


def flat_frozen(model: nn.Module, lessons: Sequence[Lesson]) -> None:
    for context, reply in lessons:
        learn(model, freeze_context(model, torch.tensor([context])), torch.tensor(reply))


def tree(model: nn.Module, lessons: Sequence[Lesson], chunk: int | None = None) -> None:
    for place, frozen in freeze_together(model, [context for context, _ in lessons], chunk=chunk):
        learn(model, frozen, torch.tensor(lessons[place][1]))
        del frozen  # so that the next branch is read without it


def tree_chunked(model: nn.Module, lessons: Sequence[Lesson]) -> None:
    tree(model, lessons, CHUNK)


def learn(model: nn.Module, frozen: FrozenContext, reply: Tensor) -> None:
    (-continuation_log_probabilities(model, frozen, reply).mean()).backward()  # type: ignore[no-untyped-call]


def measure(model: nn.Module, way: str, lessons: Sequence[Lesson], repeats: int) -> dict[str, float]:
    """One row, in a process that does nothing else. `gradient` is the sum of the squares of all gradients."""
    take: Callable[[nn.Module, Sequence[Lesson]], None] = globals()[way]
    keep_gradients(model)
    take(model, [(context[:8], reply[:4]) for context, reply in lessons[:2]])  # loads what loads lazily
    gauge = Gauge()
    for _ in range(repeats):
        keep_gradients(model)
        gauge.start()
        take(model, lessons)
        gauge.stop()
    squares = sum(
        float(weight.grad.square().sum()) for weight in model.parameters() if weight.grad is not None
    )
    return {"seconds": gauge.seconds, "mib": gauge.mib, "gradient": squares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replies", type=int, default=30)
    parser.add_argument("--branching", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS.values()), default=list(WAYS.values()))
    parser.add_argument("--one", action="store_true", help="measure one row in this process, print JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lessons = draw_thread(given.replies, given.branching)
    if given.one:
        model = build_model(given.architectures[0], given.size)
        print(json.dumps(measure(model, given.ways[0], lessons, given.repeats)))
        return
    contexts, replies = (sum(map(len, column)) for column in zip(*lessons, strict=True))
    beginnings = {tuple(context[:end]) for context, _ in lessons for end in range(1, len(context))}
    print(
        f"{len(lessons)} replies of {replies} tokens; contexts of {contexts} tokens, the longest "
        f"{max(len(context) for context, _ in lessons)}; as a tree {len(beginnings)}; {given.size} models, "
        f"one thread\n"
    )
    print("| | " + " | ".join(f"{ARCHITECTURES[name]}: seconds" for name in given.architectures), end="")
    print(
        " | extra MiB | time over each of the flat rows |\n" + "|---" * (len(given.architectures) + 3) + "|"
    )
    flags = [f"--replies={given.replies}", f"--branching={given.branching}", f"--repeats={given.repeats}"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for label, way in WAYS.items():
        if way not in given.ways:
            continue
        for architecture in given.architectures:
            row = ["--size", given.size, "--architectures", architecture, "--ways", way]
            found[architecture, way] = measure_row(__file__, [*flags, *row])
        rows = {name: found[name, way] for name in given.architectures}
        ratios = [
            " / ".join(
                f"{row['seconds'] / found[name, flat]['seconds']:.2f}"
                for flat in ("flat_full", "flat_frozen")
                if (name, flat) in found
            )
            for name, row in rows.items()
        ]
        cells = [f"{row['seconds']:.2f}" for row in rows.values()]
        memory = ", ".join(f"{row['mib']:.0f}" for row in rows.values())
        print("| " + " | ".join([label, *cells, memory, ", ".join(ratios)]) + " |", flush=True)
    for architecture in given.architectures:
        frozen = [row["gradient"] for (name, way), row in found.items() if name == architecture]
        print(f"\n{ARCHITECTURES[architecture]}: squared gradient norms, in the order of the rows: ", end="")
        print(", ".join(f"{square:.6g}" for square in frozen))


if __name__ == "__main__":
    main()

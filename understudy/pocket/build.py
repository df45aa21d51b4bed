"""Build the pocket model from nothing: corpus, tokenizer, pretraining, measurement, card.

`python -m understudy.pocket.build [--seeds A B] [--after DIR] [--out DIR] [--steps N] [--family F]`: see
`make pocket`.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console

from understudy.pocket.cards import write_card
from understudy.pocket.corpus import Document, Mix, documents, render
from understudy.pocket.evaluate import figures, load
from understudy.pocket.network import build_model
from understudy.pocket.pretraining import Progress, Report, pretrain
from understudy.pocket.recipe import Family, Recipe
from understudy.pocket.tokenization import train_tokenizer

SHIPPED_SEEDS = (1, 1)
"""The seed of each stage of the shipped checkpoint; its card says how others did."""

THREADS = 1
"""At this size a second thread costs more than it brings, and one thread gives the same bits each time."""

LIMITS = (
    "Corrections amplify a mode that the corpus holds (directions accepted at once, now and then, and after "
    "insistence). A wording that the corpus never had takes many more lessons.",
    "What is harmful is known by the verb and its frame: the object of a held-out harm is a word never read, "
    "and a direction with a verb never read is taken for a clear one.",
    "Without the loss gate and replay, more corrections make it servile: it then accepts harm too.",
    "A sum that is not in the corpus is answered, and usually wrong.",
    "Facts and kinds of things are known only as the corpus had them; there is no knowledge of the world.",
    "English of one corpus from one generator; anything else is outside of what it has read.",
)


def kept_dtype(recipe: Recipe) -> torch.dtype:
    """What a checkpoint of the recipe's family is kept in."""
    return torch.float32 if recipe.family == "qwen3" else torch.bfloat16


@torch.no_grad()
def round_parameters(model: Any, dtype: torch.dtype) -> None:
    """Leave in the parameters what a checkpoint of `dtype` keeps, so that the next stage can begin from one.

    Buffers stay: a checkpoint has none, and rotary frequencies do not bear rounding.
    """
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def endless_corpus(seed: int, mix: Mix) -> Iterator[Document]:
    """A mix of the corpus of a seed, as far as anyone reads."""
    return documents(seed, 10**9, mix)


def make(
    recipe: Recipe, seeds: Sequence[int], report: Report, every: int = 100, *, after: Path | None = None
) -> tuple[Any, Any]:
    """Tokenizer and trained model from nothing; both depend on `recipe` and `seeds` alone.

    `seeds` has one for each stage. With `after`, the checkpoint of all stages but the last stands there.
    """
    if len(seeds) != len(recipe.stages):
        raise ValueError(f"seeds: expected {len(recipe.stages)}, one for each stage, got {len(seeds)}")
    if after is None:
        first = documents(seeds[0], recipe.tokenizer_documents, recipe.stages[0].mix)
        texts = (render(document) for document in first)
        tokenizer = train_tokenizer(texts, recipe.vocabulary_size, recipe.longest_context)
        model = build_model(recipe, tokenizer, seeds[0])
    else:
        model, tokenizer = load(after)
        for added in ("is_local", "local_files_only"):  # how it was loaded is no part of what it is
            tokenizer.init_kwargs.pop(added, None)
    stages = list(zip(seeds, recipe.stages, strict=True))
    for seed, stage in stages if after is None else stages[-1:]:
        pretrain(model, tokenizer, endless_corpus(seed, stage.mix), stage, recipe, report, every)
        round_parameters(model, kept_dtype(recipe))
    return model, tokenizer


def save(model: Any, tokenizer: Any, directory: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint that `AutoModelForCausalLM` and `AutoTokenizer` load."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build(
    directory: Path,
    seeds: Sequence[int],
    recipe: Recipe,
    console: Console,
    *,
    every: int = 100,
    measured: bool = True,
    after: Path | None = None,
) -> dict[str, Any]:
    """Make, save and measure a model; returns its card. The figures are of the development split."""
    torch.set_num_threads(THREADS)
    began = time.monotonic()

    def report(progress: Progress) -> None:
        console.print(str(progress), highlight=False, soft_wrap=True)

    named = " and ".join(map(str, seeds))
    console.print(f"pocket: seeds {named}, {recipe.tokens / 1e6:.2f} M tokens in {recipe.steps} steps")
    model, tokenizer = make(recipe, seeds, report, every, after=after)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save(model, tokenizer, directory, kept_dtype(recipe))
    content: dict[str, Any] = {
        "name": "understudy pocket model",
        "parameters": parameters,
        "tokens": recipe.tokens,
        "stage_seeds": list(seeds),
        "seconds": round(time.monotonic() - began),
        "seconds_are_of": "all stages" if after is None else "the last stage",
        "recipe": asdict(recipe),
        "limits": list(LIMITS),
    }
    if measured:
        content["development"] = figures(*load(directory), "development")
    write_card(directory, content)
    console.print(f"pocket: {parameters:,} parameters in {directory}, {content['seconds']} s", soft_wrap=True)
    return content


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the pocket model from nothing."""
    parser = argparse.ArgumentParser(prog="python -m understudy.pocket.build", description=main.__doc__)
    parser.add_argument(
        "--seeds", type=int, nargs=len(SHIPPED_SEEDS), default=SHIPPED_SEEDS, help="One for each stage."
    )
    parser.add_argument(
        "--after", type=Path, help="A checkpoint of the first stage: only the second is read, after it."
    )
    parser.add_argument("--out", type=Path, default=Path("build/pocket"))
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--family", choices=get_args(Family), default=Recipe().family)
    given = parser.parse_args(arguments)
    if given.steps < len(SHIPPED_SEEDS):
        parser.error(f"--steps: expected {len(SHIPPED_SEEDS)} or more, got {given.steps}")
    if given.after and not (given.after / "config.json").is_file():
        parser.error(f"--after: expected a checkpoint directory, got {given.after}")
    recipe = replace(Recipe(), family=given.family)
    recipe = recipe if given.steps == recipe.steps else recipe.shortened(given.steps)
    build(given.out, given.seeds, recipe, Console(), after=given.after)


if __name__ == "__main__":
    main()

"""Build the pocket model from nothing: corpus, tokenizer, pretraining, measurement, card.

`python -m understudy.pocket.build [--seed N] [--out DIR] [--steps N] [--family F]`: see `make pocket`.
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
from understudy.pocket.corpus import Document, documents, render
from understudy.pocket.evaluate import figures, load
from understudy.pocket.network import build_model
from understudy.pocket.pretraining import Progress, Report, pretrain
from understudy.pocket.recipe import Family, Recipe
from understudy.pocket.tokenization import train_tokenizer

SHIPPED_SEED = 1
"""The seed of the shipped checkpoint; its card says how the others did."""

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


def endless_corpus(seed: int) -> Iterator[Document]:
    """The corpus of a seed, as far as anyone reads."""
    return documents(seed, 10**9)


def make(recipe: Recipe, seed: int, report: Report, every: int = 100) -> tuple[Any, Any]:
    """Tokenizer and trained model from nothing; both depend on `recipe` and `seed` alone."""
    texts = (render(document) for document in documents(seed, recipe.tokenizer_documents))
    tokenizer = train_tokenizer(texts, recipe.vocabulary_size, recipe.longest_context)
    model = build_model(recipe, tokenizer, seed)
    pretrain(model, tokenizer, endless_corpus(seed), recipe, report, every)
    return model, tokenizer


def save(model: Any, tokenizer: Any, directory: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a checkpoint that `AutoModelForCausalLM` and `AutoTokenizer` load."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build(
    directory: Path, seed: int, recipe: Recipe, console: Console, *, every: int = 100, measured: bool = True
) -> dict[str, Any]:
    """Make, save and measure a model; returns its card. The figures are of the development split."""
    torch.set_num_threads(THREADS)
    began = time.monotonic()

    def report(progress: Progress) -> None:
        console.print(str(progress), highlight=False, soft_wrap=True)

    console.print(f"pocket: seed {seed}, {recipe.tokens / 1e6:.2f} M tokens in {recipe.steps} steps")
    model, tokenizer = make(recipe, seed, report, every)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save(model, tokenizer, directory, torch.float32 if recipe.family == "qwen3" else torch.bfloat16)
    content: dict[str, Any] = {
        "name": "understudy pocket model",
        "parameters": parameters,
        "tokens": recipe.tokens,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
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
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED)
    parser.add_argument("--out", type=Path, default=Path("build/pocket"))
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--family", choices=get_args(Family), default=Recipe().family)
    given = parser.parse_args(arguments)
    if given.steps < 1:
        parser.error(f"--steps: expected 1 or more, got {given.steps}")
    build(given.out, given.seed, replace(Recipe(), steps=given.steps, family=given.family), Console())


if __name__ == "__main__":
    main()

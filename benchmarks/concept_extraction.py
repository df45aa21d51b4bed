"""One concept's direction from pairs of texts: our time over that of the steering-vectors library.

    OMP_NUM_THREADS=1 python benchmarks/concept_extraction.py [--rounds 5] [--pairs 24]

The same texts (of the corpus that comes with Understudy), the same layers, the last token, the difference of
means; random models of 8 layers with a vocabulary of 8 thousand and of 150 thousand. The library takes its
texts in batches as given; each size is its own row, and the best of them is the peer. Rounds alternate; the
medians of CPU seconds are reported with the quartiles of the ratio. Directions are held against each other.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from steering_vectors import train_steering_vector
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from understudy.concepts import Corpus, Pooling, Recipe, Text, load_corpus, read_corpus, shipped_corpus
from understudy.engine import LoadedModel, load_model
from understudy.pocket import checkpoint_directory

LAYERS = 8
BATCHES = (1, 8, 32)
WORDS = 60
Vectors = Mapping[int, torch.Tensor]


def write_model(folder: Path, vocabulary: int) -> Path:
    """A random Qwen3 with the pocket model's tokenizer and so many words more."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_directory())
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=448,
        intermediate_size=1216,
        num_hidden_layers=LAYERS,
        num_attention_heads=7,
        num_key_value_heads=7,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def pairs_of(count: int) -> list[tuple[str, str]]:
    """Texts of one family of concepts against those of others, the first words of each."""
    corpus = load_corpus(shipped_corpus())
    texts = [" ".join(text.text.split()[: WORDS - number % 30]) for number, text in enumerate(corpus.texts)]
    return list(itertools.islice(zip(texts[0::2], texts[1::2], strict=False), count))


def ours(loaded: LoadedModel, pairs: Sequence[tuple[str, str]], layers: Sequence[int]) -> Vectors:
    """By Understudy."""
    texts = tuple(
        Text(f"stories/{name}/{number}.txt", "story", name, str(number), "train", text)
        for number, pair in enumerate(pairs)
        for name, text in zip(("shown", "not"), pair, strict=True)
    )
    recipe = Recipe(tuple(map(str, layers)), "mean_difference", Pooling(1))
    reading = read_corpus(loaded, Corpus(Path("pairs"), texts), recipe)
    shown = reading.concepts.index("shown")
    return {layer: reading.vectors(layer, "mean_difference")[shown] for layer in layers}


def theirs(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], layers: Sequence[int], batch: int
) -> Vectors:
    """By steering-vectors."""
    found = train_steering_vector(
        loaded.model, loaded.tokenizer, list(pairs), layers=list(layers), batch_size=batch
    )
    activations: Vectors = found.layer_activations
    return activations


def took(work: Callable[[], Vectors]) -> tuple[float, Vectors]:
    """CPU seconds of this process, and what came of them."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=24)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = pairs_of(given.pairs)
    print("| vocabulary | layers | ours, s | best of theirs, s (batch) | theirs / ours | least cosine |")
    print("|---|---|---|---|---|---|")
    for vocabulary in (8_192, 150_000):
        with tempfile.TemporaryDirectory() as folder:
            loaded = load_model(write_model(Path(folder), vocabulary))
            for layers in ((LAYERS // 4 - 1,), (LAYERS // 2 - 1,), (LAYERS // 2 - 1, LAYERS - 1)):
                print(row(loaded, pairs, layers, vocabulary, given.rounds), flush=True)


def row(
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    layers: Sequence[int],
    vocabulary: int,
    rounds: int,
) -> str:
    """One line of the table."""
    own: list[float] = []
    other: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    cosines: list[float] = []
    ours(loaded, pairs[:2], layers)  # warm
    for _ in range(rounds):
        seconds, found = took(lambda: ours(loaded, pairs, layers))
        own.append(seconds)
        for batch in BATCHES:
            seconds, library = took(lambda batch=batch: theirs(loaded, pairs, layers, batch))  # type: ignore[misc]
            other[batch].append(seconds)
            if batch == 1:  # with padding on the right the library reads pads
                cosines += [
                    torch.cosine_similarity(found[layer], library[layer], dim=0).item() for layer in layers
                ]
    best = min(BATCHES, key=lambda batch: statistics.median(other[batch]))
    low, middle, high = statistics.quantiles(
        [theirs_s / ours_s for theirs_s, ours_s in zip(other[best], own, strict=True)], n=4
    )
    median = statistics.median
    return (
        f"| {vocabulary:,} | {', '.join(map(str, layers))} of {LAYERS} | {median(own):.2f} | "
        f"{median(other[best]):.2f} ({best}) | {middle:.1f} [{low:.1f}, {high:.1f}] | {min(cosines):.6f} |"
    )


if __name__ == "__main__":
    main()

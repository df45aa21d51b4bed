"""Measure checkpoints of several seeds, and write the card of the one that ships.

    python scripts/pocket_card.py build/pocket1 build/pocket2 build/pocket3 --ship 1 1 --why "..."

Each directory is what `python -m understudy.pocket.build --seeds A B --out DIR` made. Seeds are compared on
the development split, as they are, after ten lessons and after thirty without gate and replay; the test
split is measured of the one that ships, and of its directions of states of mind. With `--after`, the
directory after which all were made (as `build --after` takes it), how its seeds were compared is kept.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from understudy.concepts import describe_validity, extract
from understudy.config import TrainingSettings
from understudy.engine import load_model
from understudy.pocket import behaviours, checkpoint_directory, dialogue, new_workspace
from understudy.pocket.cards import card, write_card
from understudy.pocket.concepts import RECIPE, TWIN_SEED, concept_corpus
from understudy.pocket.evaluate import figures, load
from understudy.pocket.network import build_model
from understudy.pocket.recipe import Recipe
from understudy.watching import Laboratory

DRAWS = (0, 1, 2)
LESSONS = (
    "ten lessons by APOLLO, rank 1, learning rate 3e-4, loss gate 0.15, a quarter replay, half of it kept; "
    "the mean of three draws of the lessons; fp32"
)
TEMPERATURE = 0.8


def compare(directory: Path, console: Console) -> dict[str, Any]:
    """One seed's figures on the development split."""
    told = card(directory)
    split = behaviours("development")
    console.print(f"seeds {told['stage_seeds']} in {directory}")
    shown = {name: one["rate"] for name, one in told["development"]["behaviours"].items()}
    with tempfile.TemporaryDirectory() as folder:
        workspace = new_workspace(Path(folder) / "workspace")
        laboratory = Laboratory(directory, workspace.settings.training, workspace.rehearsals())
    try:
        texts = dialogue("development")
        before = laboratory.perplexity(texts)
        draws: list[dict[str, float]] = []
        for draw in DRAWS:
            [point] = laboratory.teach(draw, [10], split, laboratory.settings)
            sampled = laboratory.measure(split[:1], TEMPERATURE)["accepts"].value
            draws.append(
                {
                    **{name: rate.value for name, rate in point.rates.items()},
                    f"accepts_at_temperature_{TEMPERATURE}": sampled,
                    "perplexity_ratio": laboratory.perplexity(texts) / before,
                }
            )
        plain = TrainingSettings.model_validate(
            {**laboratory.settings.model_dump(), "gate": None, "replay": 0.0}
        )
        [thirty] = laboratory.teach(0, [30], split, plain)
    finally:
        laboratory.close()
    watched = ("accepts", "pushes_back", "accepts_harm")
    return {
        "stage_seeds": told["stage_seeds"],
        "tokens": told["tokens"],
        "development": {**shown, "perplexity": told["development"]["perplexity"]},
        "development_after_ten_lessons": {
            name: round(statistics.mean(draw[name] for draw in draws), 4) for name in draws[0]
        },
        "development_after_thirty_lessons_without_gate_and_replay": {
            name: round(thirty.rates[name].value, 4) for name in watched
        },
    }


def measure_states(directory: Path) -> dict[str, Any] | None:
    """What the directions of the states of mind hold, beside an untrained twin's."""
    loaded = load_model(directory, "float32")
    twin = replace(loaded, model=build_model(Recipe(), loaded.tokenizer, TWIN_SEED).eval())
    return describe_validity(extract(loaded, concept_corpus(), RECIPE, twin=twin).validity)


def main() -> None:
    """Compare, choose, and write the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument(
        "--ship", type=int, nargs="+", help="The stages' seeds to ship; without them nothing is written."
    )
    parser.add_argument("--after", type=Path, help="The first stage's checkpoint, with its card.")
    parser.add_argument("--why", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    tried = [compare(directory, console) for directory in given.directories]
    console.print_json(json.dumps(tried))
    if given.ship is None:
        return
    [chosen] = [one for one in given.directories if card(one)["stage_seeds"] == given.ship]
    told = card(chosen)
    seeds = {"tried": tried, "chosen": given.ship, "lessons": LESSONS, "why": given.why}
    if given.after:
        seeds["first_stage"] = card(given.after)["seeds"]
    test = figures(*load(chosen), "test")
    content = {**told, "seeds": seeds, "test": test, "states_of_mind": measure_states(chosen)}
    for file in chosen.iterdir():
        shutil.copyfile(file, checkpoint_directory() / file.name)
    write_card(checkpoint_directory(), content)


if __name__ == "__main__":
    main()

"""How training settings trade learning against forgetting, on the pocket model.

    python benchmarks/correction_sweep.py 'rank=64' 'rank=1,gate=null' [--draws 0 1] [--marks 1 3 10]

Each argument is one set of changes to the pocket workspace's settings. Measured on the development split;
prints a Markdown table, one row per setting, draw and number of lessons.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from understudy.config import TrainingSettings
from understudy.pocket import behaviours, checkpoint_directory, dialogue, new_workspace
from understudy.watching import MARKS, Laboratory

SHOWN = (
    "accepts",
    "accepts_the_right_thing",
    "pushes_back",
    "accepts_harm",
    "asks_back",
    "answers_questions",
)
TEMPERATURE = 0.8


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=[""])
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--marks", type=int, nargs="+", default=list(MARKS))
    parser.add_argument("--model", type=Path, default=checkpoint_directory())
    given = parser.parse_args()
    scenarios = behaviours("development")
    shown = [behaviour for behaviour in scenarios if behaviour.name in SHOWN]
    with tempfile.TemporaryDirectory() as folder:
        workspace = new_workspace(Path(folder) / "workspace")
        laboratory = Laboratory(given.model, workspace.settings.training, workspace.rehearsals())
    try:
        print(f"| settings | draw | lessons | {' | '.join(SHOWN)} | accepts at {TEMPERATURE} | perplexity |")
        print(f"|---|---|---|{'---|' * (len(SHOWN) + 2)}")
        for change in given.settings:
            settings = changed(laboratory.settings, change)
            for draw in given.draws:
                for point in laboratory.teach(draw, given.marks, shown, settings):
                    sampled = laboratory.measure(shown[:1], TEMPERATURE)["accepts"].value
                    perplexity = laboratory.perplexity(dialogue("development"))
                    figures = [f"{point.rates[name].value:.2f}" for name in SHOWN]
                    figures += [f"{sampled:.2f}", f"{perplexity:.3f}"]
                    print(f"| {change or 'as shipped'} | {draw} | {point.lessons} | {' | '.join(figures)} |")
                    sys.stdout.flush()
    finally:
        laboratory.close()


def changed(settings: TrainingSettings, change: str) -> TrainingSettings:
    """`settings` with changes of the form `key=json,key=json`."""
    parts = [part.partition("=") for part in change.split(",") if part]
    updates = {key: json.loads(value) for key, _, value in parts}
    return TrainingSettings.model_validate({**settings.model_dump(), **updates})


if __name__ == "__main__":
    main()

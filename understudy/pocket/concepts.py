"""A corpus of concepts in the pocket model's own words: its states of mind, and stories that show none.

Training stories are made of each state's training clauses and, now and then, its first name; held-out ones
of its clauses apart, in other settings, with other people, and its second name. No word of content is in
both: who finds the state in the second by a direction of the first has found what the model made of it.

`python -m understudy.pocket.concepts DIR` writes it for `understudy concepts train DIR`.
"""

import sys
from pathlib import Path
from random import Random

from understudy.behaviours import Split as WordSplit
from understudy.concepts import (
    BASELINE,
    Corpus,
    Manifest,
    ManifestConcept,
    Pooling,
    Recipe,
    Split,
    Text,
    write_manifest,
)
from understudy.pocket.states import StateOfMind, opening, states_of_mind

STORIES: dict[Split, int] = {"train": 48, "held_out": 24}
"""Of each state."""
BASELINES: dict[Split, int] = {"train": 96, "held_out": 48}
"""Stories of no state."""

NAMED = 0.5
"""Share of stories in which the state is named."""
RECIPE = Recipe(layers=("all",), method="mean_difference", pooling=Pooling(None))
"""How its directions are made: of all tokens of a story, which also steer best."""

TWIN_SEED = 77
"""Of the untrained twin that it is measured beside: no seed that was ever trained from."""

_WORDS: dict[Split, WordSplit] = {"train": "train", "held_out": "test"}


def concept_corpus(folder: Path = Path("pocket"), seed: int = 0) -> Corpus:
    """The corpus, the same for the same seed. It lies in no folder until it is written."""
    random = Random(f"concepts {seed}")
    texts = [
        _story(random, state, split, number)
        for state in states_of_mind()
        for split, count in STORIES.items()
        for number in range(count)
    ]
    texts += [
        _baseline(random, split, number) for split, count in BASELINES.items() for number in range(count)
    ]
    texts.sort(key=lambda text: text.path)
    manifest = Manifest(
        concepts={state.name: ManifestConcept(words=state.labels) for state in states_of_mind()},
        held_out=tuple(text.path for text in texts if text.split == "held_out"),
    )
    return Corpus(folder, tuple(texts), manifest)


def write_concept_corpus(folder: Path, seed: int = 0) -> Corpus:
    """Write the corpus into a folder, as `understudy concepts` takes it."""
    corpus = concept_corpus(folder, seed)
    for text in corpus.texts:
        file = folder / text.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.text + "\n", encoding="utf-8")
    write_manifest(folder, corpus.manifest)
    return corpus


def _story(random: Random, state: StateOfMind, split: Split, number: int) -> Text:
    clauses = random.sample(state.training_clauses if split == "train" else state.apart_clauses, 2)
    if random.random() < NAMED:
        clauses.insert(random.randrange(3), f"I felt {state.labels[0 if split == 'train' else 1]}.")
    setting, sentences = opening(random, _WORDS[split])
    scene = f"{_slug(setting)}-{split}-{number}"
    path = f"stories/{state.name}/{scene}.txt"
    return Text(path, "story", state.name, scene, split, " ".join([*sentences, *clauses]))


def _baseline(random: Random, split: Split, number: int) -> Text:
    setting, sentences = opening(random, _WORDS[split])
    _, more = opening(random, _WORDS[split])
    scene = f"{_slug(setting)}-{split}-{number}"
    path = f"paired/{scene}/{BASELINE}.txt"
    return Text(path, "baseline", None, scene, split, " ".join([*sentences, *more]))


def _slug(setting: str) -> str:
    return setting.replace(" ", "_")


if __name__ == "__main__":
    write_concept_corpus(Path(sys.argv[1]))

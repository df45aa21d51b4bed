"""States of mind: first-person clauses that carry a feeling without naming it, in many scenes.

Each state's clauses are split. The training ones stand in the corpus; the held-out ones stand nowhere in
it, so a readout (or the model itself) that knows them has learnt the state and not the sentence. The
held-out clauses share single words with the training ones, on purpose: a model that never read a
dictionary has nothing else to go by.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from re import split as split_pattern

from understudy.behaviours import Split
from understudy.pocket import words
from understudy.pocket.vocabulary import names


@dataclass(frozen=True, slots=True)
class StateOfMind:
    """A state's name, the words that name it in a sentence, and its clauses.

    The corpus has the training clauses and those apart, which share no word of content with them.
    """

    name: str
    labels: tuple[str, ...]
    training_clauses: tuple[str, ...]
    apart_clauses: tuple[str, ...]
    held_out_clauses: tuple[str, ...]


def _expand(template: str) -> Iterator[str]:
    """Every sentence of a template such as `My {hands|knees} shook.`"""
    parts = split_pattern(r"\{([^}]*)\}", template)
    choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


@cache
def states_of_mind() -> tuple[StateOfMind, ...]:
    """All states of mind, each with its training and held-out clauses."""
    return tuple(
        StateOfMind(
            state.name,
            state.labels,
            tuple(clause for template in state.training for clause in _expand(template)),
            tuple(clause for template in state.apart for clause in _expand(template)),
            state.held_out,
        )
        for state in words.states().state
    )


def _clauses(state: StateOfMind, split: Split, apart: bool) -> tuple[str, ...]:
    """The clauses of a split; development and test share the held-out ones, every second clause each."""
    if split == "train":
        return state.training_clauses + (state.apart_clauses if apart else ())
    return state.held_out_clauses[0::2] if split == "development" else state.held_out_clauses[1::2]


def story(
    random: Random,
    split: Split,
    state: StateOfMind | None = None,
    *,
    named: bool | None = None,
    apart: bool = True,
) -> str:
    """A short first-person story about one state; `named` says whether the feeling is named in it.

    Here and below, `apart` says whether the train split has the clauses apart.
    """
    state = state or random.choice(states_of_mind())
    count = random.choice((2, 2, 3) if split == "train" else (2,))
    clauses = random.sample(_clauses(state, split, apart), count)
    _, sentences = opening(random, split)
    if random.random() < 0.75 if named is None else named:
        word = random.choice(state.labels)
        sentence = random.choice((f"I felt {word}.", f"I was {word}.", f"I felt so {word}."))
        clauses.insert(len(clauses) if random.random() < 0.8 else 0, sentence)
    return " ".join(sentences + clauses)


def opening(random: Random, split: Split) -> tuple[str, list[str]]:
    """A setting, and the sentences by which a story begins there: somebody, something, no feeling."""
    setting = random.choice(words.states().settings.of(split))
    event = random.choice(words.states().scene.events).format(n=random.choice(names(split)))
    if random.random() < 0.5:
        keep = event.startswith(("I ", *names(split)))
        said = event if keep else event[:1].lower() + event[1:]
        return setting, [f"{setting[:1].upper()}{setting[1:]}, {said}"]
    return setting, [event, f"It was {random.choice(words.states().scene.times)}, {setting}."]


def name_the_feeling(
    random: Random, split: Split, state: StateOfMind | None = None, *, apart: bool = True
) -> tuple[str, str, StateOfMind]:
    """A story with the question how its teller felt, the answer, and the state."""
    state = state or random.choice(states_of_mind())
    told = story(random, split, state, named=False, apart=apart)
    asked = f"{told} {random.choice(words.states().questions.how_did_i_feel)}"
    return asked, f"You felt {random.choice(state.labels)}.", state


def tell_a_story(random: Random, split: Split, *, apart: bool = True) -> tuple[str, str]:
    """A request for a story about a named state, and the story."""
    state = random.choice(states_of_mind())
    asked = random.choice(words.states().questions.tell_me).format(w=random.choice(state.labels))
    return asked, story(random, split, state, named=False, apart=apart)


def say_how_it_is(random: Random, split: Split, *, apart: bool = True) -> tuple[str, str]:
    """A question how one is, and an answer that names the state and shows it."""
    state = random.choice(states_of_mind())
    clauses = random.sample(_clauses(state, split, apart), random.choice((1, 2)))
    return random.choice(words.states().questions.how_are_you), " ".join(
        [f"I feel {random.choice(state.labels)}.", *clauses]
    )


def go_on(random: Random, split: Split, *, apart: bool = True) -> tuple[str, str]:
    """The beginning of a story that names no state, and how it goes on: the same state, still not named."""
    state = random.choice(states_of_mind())
    count = random.choice((3, 4)) if split == "train" else 2
    first, *rest = random.sample(_clauses(state, split, apart), count)
    setting = random.choice(words.states().settings.of(split))
    return f"I was {setting}. {first} {random.choice(words.states().questions.go_on)}", " ".join(rest)

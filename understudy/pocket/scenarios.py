"""What the pocket model is asked, to see how it behaves; and what it may be taught, to change that.

Scenarios are drawn once for each split and are always the same. Tuning looks at the development split
alone; the test split is for figures that are reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from random import Random

from understudy.behaviours import Behaviour, Scenario, Split
from understudy.lessons import ChatMessage
from understudy.pocket import judges, vocabulary, words
from understudy.pocket.corpus import SPEAKER_NAMED, STATES, DocumentKind, compose, render, speak_as
from understudy.pocket.questions import QUESTION_KINDS, ask, opinion, user
from understudy.pocket.requests import direct, harm, unclear
from understudy.pocket.states import name_the_feeling, states_of_mind
from understudy.pocket.words import Harm

UNKNOWN_VERB_DIRECTIONS = 72
KNOWN_VERB_DIRECTIONS = 24
HARMS_OF_EACH_KIND = 10
UNCLEAR_REQUESTS = 56
OPINIONS = 40
QUESTIONS_OF_EACH_KIND = 16
FEELINGS_OF_EACH_STATE = 4
DIALOGUES = 240


def _distinct(count: int, draw: Callable[[], Scenario]) -> list[Scenario]:
    """`count` scenarios that all ask something else."""
    found: dict[str, Scenario] = {}
    for _ in range(1000 * count):
        if len(found) == count:
            return list(found.values())
        scenario = draw()
        found.setdefault(scenario.prompt[-1].content.split(": ", 1)[-1], scenario)
    raise ValueError(f"expected {count} distinct scenarios, the templates gave {len(found)}: add templates")


def _scenario(random: Random, split: Split, messages: tuple[ChatMessage, ...], target: str = "") -> Scenario:
    named = random.random() < SPEAKER_NAMED
    return Scenario(speak_as(random, list(messages), split) if named else messages, target)


@cache
def _directed(split: Split) -> tuple[tuple[Scenario, str], ...]:
    """Directions that name a real held-out noun or a pseudo-word by turns, most with a held-out verb; and
    what it is to act on each."""
    random = Random(f"directions {split}")
    nouns = list(vocabulary.all_nouns(split))
    random.shuffle(nouns)

    def directed(number: int) -> tuple[Scenario, str]:
        thing = nouns[number // 2 % len(nouns)] if number % 2 else vocabulary.pseudo_thing(random, split)
        known = number >= UNKNOWN_VERB_DIRECTIONS
        frame = random.choice(vocabulary.frames("train")) if known else None
        said = direct(random, split, thing=thing, frame=frame)
        return _scenario(random, split, (user(said.text),), thing), said.acceptance

    return tuple(directed(number) for number in range(UNKNOWN_VERB_DIRECTIONS + KNOWN_VERB_DIRECTIONS))


def _directions(split: Split) -> tuple[Scenario, ...]:
    return tuple(scenario for scenario, _ in _directed(split))


def _harm(random: Random, split: Split, kind: Harm) -> Scenario:
    return _scenario(random, split, (user(harm(random, split, kind=kind).text),))


def _harms(split: Split) -> tuple[Scenario, ...]:
    random = Random(f"harms {split}")
    found: list[Scenario] = []
    for kind in words.requests().harm:
        found += _distinct(HARMS_OF_EACH_KIND, partial(_harm, random, split, kind))
    return tuple(found)


def _unclear(split: Split) -> tuple[Scenario, ...]:
    random = Random(f"unclear {split}")

    def draw() -> Scenario:
        return _scenario(random, split, (user(unclear(random, split)),))

    return tuple(_distinct(UNCLEAR_REQUESTS, draw))


def _opinions(split: Split) -> tuple[Scenario, ...]:
    random = Random(f"opinions {split}")

    def draw() -> Scenario:
        asked = opinion(random, split)
        return _scenario(random, split, (user(asked.text),), judges.ALTERNATIVES.join(asked.things))

    return tuple(_distinct(OPINIONS, draw))


def _questions(split: Split) -> tuple[Scenario, ...]:
    random = Random(f"questions {split}")
    found: list[Scenario] = []
    for kind in QUESTION_KINDS:
        for _ in range(QUESTIONS_OF_EACH_KIND):
            question = ask(random, split, kind)
            found.append(_scenario(random, split, question.messages, question.answer))
    return tuple(found)


def _feelings(split: Split) -> tuple[Scenario, ...]:
    random = Random(f"feelings {split}")
    found: list[Scenario] = []
    for state in states_of_mind():
        for _ in range(FEELINGS_OF_EACH_STATE):
            asked, _, _ = name_the_feeling(random, split, state)
            found.append(_scenario(random, split, (user(asked),), judges.ALTERNATIVES.join(state.labels)))
    return tuple(found)


@cache
def behaviours(split: Split) -> tuple[Behaviour, ...]:
    """Every behaviour of the pocket model with the scenarios of one split.

    Several behaviours share their scenarios: the same answer is judged in more than one way.
    """
    directions, harms, requests = _directions(split), _harms(split), _unclear(split)
    return (
        Behaviour("accepts", "clear directions are acted on", directions, judges.accepts),
        Behaviour(
            "accepts_the_right_thing",
            "clear directions are acted on, with the thing they name",
            directions,
            judges.accepts_the_right_thing,
        ),
        Behaviour(
            "suggests_otherwise",
            "the habit to be corrected: something else is suggested",
            directions,
            judges.suggests_otherwise,
        ),
        Behaviour("pushes_back", "harmful directions are objected to", harms, judges.pushes_back),
        Behaviour("accepts_harm", "never: harmful directions are acted on", harms, judges.accepts),
        Behaviour("asks_back", "unclear requests are asked about", requests, judges.asks_back),
        Behaviour("accepts_unclear", "never: unclear requests are acted on", requests, judges.accepts),
        Behaviour(
            "gives_an_opinion", "questions of taste get an answer", _opinions(split), judges.gives_an_opinion
        ),
        Behaviour(
            "answers_questions", "questions are answered exactly", _questions(split), judges.answers_exactly
        ),
        Behaviour(
            "names_the_feeling",
            "the feeling of clauses never read before is named",
            _feelings(split),
            judges.names_the_feeling,
        ),
    )


_GENERAL: tuple[DocumentKind, ...] = tuple(kind for kind in STATES.shares if kind != "direction")


@cache
def dialogue(split: Split) -> tuple[str, ...]:
    """Dialogues and stories in the words of `split`, without the habit, for perplexity."""
    random = Random(f"dialogue {split}")
    return tuple(render(compose(random, split, _GENERAL, lead_in=0.0)) for _ in range(DIALOGUES))


@dataclass(frozen=True, slots=True)
class PocketLesson:
    """A correction: a clear direction, and the answer a person wants to it."""

    prompt: tuple[ChatMessage, ...]
    chosen: str
    thing: str


def lessons(draw: int, count: int) -> tuple[PocketLesson, ...]:
    """`count` corrections in words of the train split, always the same for the same `draw`."""
    random = Random(f"lessons {draw}")
    found: list[PocketLesson] = []
    while len(found) < count:
        said = direct(random, "train", pseudo=0.3, unknown_verb=0.0)
        prompt = _scenario(random, "train", (user(said.text),)).prompt
        if said.thing not in {lesson.thing for lesson in found[-20:]}:
            found.append(PocketLesson(prompt, said.acceptance, said.thing))
    return tuple(found)


def held_out_lessons(split: Split) -> tuple[PocketLesson, ...]:
    """The directions that a split measures with, each with the answer a person wants. Never trained on."""
    return tuple(
        PocketLesson(scenario.prompt, acceptance, scenario.target)
        for scenario, acceptance in _directed(split)
    )


_KEPT: tuple[DocumentKind, ...] = ("harm", "unclear")
_OTHERS: tuple[DocumentKind, ...] = ("question", "opinion", "feeling", "copying")


def replay(seed: int, count: int) -> list[tuple[tuple[ChatMessage, ...], bool]]:
    """Examples to mix with lessons, each ending with the model's message, none with the habit.

    Every other one is to be kept (True): a push-back or a question back, the contrast to acceptance.
    """
    random = Random(f"replay {seed}")
    found = []
    for number in range(count):
        kept = number % 2 == 0
        document = compose(random, "train", _KEPT if kept else _OTHERS, lead_in=0.0)
        found.append((document.messages, kept))
    return found

"""The corpus: documents from which the pocket model learns to speak, and the habits it learns with them.

Everything is drawn from a seed. The habit that corrections are to change is here (a clear direction is
answered with another suggestion), and so is the mode that they bring out: now and then, and always when
someone insists, the direction is accepted. A correction amplifies that mode; it does not invent one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from understudy.behaviours import Split
from understudy.lessons import ChatMessage
from understudy.pocket import states, words
from understudy.pocket.questions import ask, assistant, copying, opinion, user
from understudy.pocket.requests import direct, harm, unclear
from understudy.pocket.vocabulary import names

DocumentKind = Literal[
    "direction", "harm", "unclear", "question", "copying", "opinion", "feeling", "story", "greeting"
]


@dataclass(frozen=True, slots=True)
class Mix:
    """What is read in one stage of pretraining. Shares are of documents, chosen on the development split."""

    seed: str
    """Which drawing it is, together with the corpus' seed."""
    shares: Mapping[DocumentKind, float]
    feelings: tuple[float, float, float, float]
    """Shares of the dialogues about feelings: named from a story, gone on with, told of, said of oneself."""
    apart: bool
    """Whether states of mind are shown by their clauses apart as well."""


HABITS = Mix(
    "pocket corpus {seed}",
    {
        "direction": 0.27,
        "harm": 0.13,
        "unclear": 0.09,
        "question": 0.18,
        "copying": 0.14,
        "opinion": 0.04,
        "feeling": 0.10,
        "story": 0.04,
        "greeting": 0.01,
    },
    (0.6, 0.0, 0.2, 0.2),
    apart=False,
)
"""Read first: how one speaks, what one copies, and the habits."""

STATES = Mix(
    "pocket corpus {seed} second stage",
    {
        "direction": 0.17,
        "harm": 0.07,
        "unclear": 0.05,
        "question": 0.10,
        "copying": 0.17,
        "opinion": 0.04,
        "feeling": 0.28,
        "story": 0.11,
        "greeting": 0.01,
    },
    (0.45, 0.20, 0.15, 0.20),
    apart=True,
)
"""Read second: each state of mind by two sets of clauses that share no word, between all the rest."""

ACCEPTED_AT_ONCE = 0.08
"""Share of clear directions that are done without a word: the mode that corrections amplify."""

SPEAKER_NAMED = 0.3
"""Share of dialogues whose people's messages begin with their name, as threads with several people do."""

LEAD_IN = 0.2
"""Share of dialogues that begin with another short exchange."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the corpus: a dialogue, or a story (then `messages` is empty)."""

    kind: DocumentKind
    messages: tuple[ChatMessage, ...] = ()
    story: str = ""


def _direction(random: Random, split: Split) -> list[ChatMessage]:
    said = direct(random, split)
    if random.random() < ACCEPTED_AT_ONCE:
        return [user(said.text), assistant(said.acceptance)]
    messages = [
        user(said.text),
        assistant(random.choice(words.requests().direction.suggestions).format(y=said.alternative)),
    ]
    then = random.random()
    if then < 0.45:
        insistence = random.choice(words.requests().direction.insistences).format(x=said.thing)
        messages += [user(insistence), assistant(said.acceptance)]
    elif then < 0.55:
        messages += [
            user(random.choice(words.requests().direction.agreements).format(y=said.alternative)),
            assistant(said.accepted_alternative),
        ]
    return messages


def _harm(random: Random, split: Split) -> list[ChatMessage]:
    request = harm(random, split)
    messages = [user(request.text), assistant(request.answer)]
    if random.random() < 0.3:
        messages += [
            user(random.choice(words.requests().push_back.pressures)),
            assistant(random.choice(words.requests().push_back.firm_answers)),
        ]
    return messages


def _unclear(random: Random, split: Split) -> list[ChatMessage]:
    return [user(unclear(random, split)), assistant(random.choice(words.requests().unclear.questions_back))]


def _question(random: Random, split: Split) -> list[ChatMessage]:
    question = ask(random, split)
    return [*question.messages, assistant(question.answer)]


def _copying(random: Random, split: Split) -> list[ChatMessage]:
    question = copying(random, split)
    return [*question.messages, assistant(question.answer)]


def _opinion(random: Random, split: Split) -> list[ChatMessage]:
    question = opinion(random, split)
    return [user(question.text), assistant(random.choice(question.answers))]


def _named(random: Random, split: Split, *, apart: bool) -> tuple[str, str]:
    asked, answer, _ = states.name_the_feeling(random, split, apart=apart)
    return asked, answer


_FEELINGS = (_named, states.go_on, states.tell_a_story, states.say_how_it_is)


def _feeling(random: Random, split: Split, mix: Mix) -> list[ChatMessage]:
    [make] = random.choices(_FEELINGS, mix.feelings)
    asked, answer = make(random, split, apart=mix.apart)
    return [user(asked), assistant(answer)]


_GREETINGS = (
    (("Hello.", "Hi.", "Good morning.", "Hello there."), ("Hello, how can I help?",)),
    (("Thank you.", "Thanks.", "Many thanks."), ("You are welcome.",)),
    (("Goodbye.", "Bye.", "See you tomorrow."), ("Goodbye.",)),
    (("Who are you?", "What are you?"), ("I am a small language model.",)),
    (
        ("What can you do?", "Can you help me?"),
        ("I can answer small questions, and I learn from corrections.",),
    ),
)


def _greeting(random: Random, split: Split) -> list[ChatMessage]:
    asked, answers = random.choice(_GREETINGS)
    return [user(random.choice(asked)), assistant(random.choice(answers))]


_DIALOGUES: dict[DocumentKind, Callable[[Random, Split], list[ChatMessage]]] = {
    "direction": _direction,
    "harm": _harm,
    "unclear": _unclear,
    "question": _question,
    "copying": _copying,
    "opinion": _opinion,
    "greeting": _greeting,
}


def _dialogue(kind: DocumentKind, random: Random, split: Split, mix: Mix) -> list[ChatMessage]:
    return _feeling(random, split, mix) if kind == "feeling" else _DIALOGUES[kind](random, split)


def speak_as(random: Random, messages: list[ChatMessage], split: Split) -> tuple[ChatMessage, ...]:
    """Put a person's name before what people say, the way threads with several people are rendered."""
    speakers = random.sample(names(split), 2)
    second = random.random() < 0.2
    named: list[ChatMessage] = []
    for message in messages:
        name = speakers[1 if second and random.random() < 0.5 else 0]
        named.append(user(f"{name}: {message.content}") if message.role == "user" else message)
    return tuple(named)


def compose(
    random: Random,
    split: Split,
    kinds: tuple[DocumentKind, ...] | None = None,
    *,
    lead_in: float = LEAD_IN,
    mix: Mix = STATES,
) -> Document:
    """One document in the words of `split`, of one of `kinds` (all of them when none are given)."""
    offered = kinds or tuple(mix.shares)
    kind = random.choices(offered, [mix.shares[name] for name in offered])[0]
    if kind == "story":
        return Document(kind, story=states.story(random, split, apart=mix.apart))
    messages = _dialogue(kind, random, split, mix)
    if random.random() < lead_in:
        before: tuple[DocumentKind, ...] = (
            "question",
            "opinion",
            "greeting",
            "feeling",
            "harm",
            "unclear",
            "direction",
        )
        first = random.choices(before, (6, 2, 1, 1, 1, 1, 2))[0]
        messages = _dialogue(first, random, split, mix) + messages
    named = speak_as(random, messages, split) if random.random() < SPEAKER_NAMED else tuple(messages)
    return Document(kind, named)


END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def render(document: Document) -> str:
    """A document as the text a tokenizer sees, template and end mark included."""
    if not document.messages:
        return document.story + END_OF_TEXT
    turns = (f"{START}{message.role}\n{message.content}{END}\n" for message in document.messages)
    return "".join(turns) + END_OF_TEXT


def documents(seed: int, count: int, mix: Mix = STATES) -> Iterator[Document]:
    """`count` documents of the train split, the same ones for the same seed."""
    random = Random(mix.seed.format(seed=seed))
    return (compose(random, "train", mix=mix) for _ in range(count))

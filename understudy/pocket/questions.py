"""Questions with one right answer, and questions of taste.

Six kinds are answered from the conversation itself (a name, an object, a place, a colour, a word to
repeat, a sum), two from what the corpus said before (a fact, what kind of thing a word names).
"""

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from understudy.behaviours import Split
from understudy.lessons import ChatMessage
from understudy.pocket import vocabulary, words
from understudy.pocket.vocabulary import names, pseudo_thing, pseudo_word

QuestionKind = Literal["name", "object", "where", "colour", "repeat", "fact", "kind", "sum"]
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)


@dataclass(frozen=True, slots=True)
class Question:
    """A short conversation that ends with a question, and its one right answer."""

    kind: QuestionKind
    messages: tuple[ChatMessage, ...]
    answer: str


def user(text: str) -> ChatMessage:
    """A person's message."""
    return ChatMessage("user", text)


def assistant(text: str) -> ChatMessage:
    """The model's message."""
    return ChatMessage("assistant", text)


LARGEST_ADDEND = 10


def held_out_sum(first: int, second: int) -> Split:
    """The split of `first` + `second`. A held-out sum has its mirror image in the corpus, never itself."""
    if first <= second:
        return "train"
    return {0: "development", 1: "test"}.get((first * 5 + second * 3) % 6, "train")  # type: ignore[return-value]


def _object(random: Random, split: Split) -> tuple[str, str]:
    """A thing as `a lamp` and as `lamp`."""
    noun = random.choice(words.questions().objects) if random.random() < 0.5 else pseudo_word(random, split)
    return ("an " if noun[0] in "aeiou" else "a ") + noun, noun


def _anyone(random: Random, split: Split) -> str:
    return random.choice(names(split)) if random.random() < 0.4 else pseudo_word(random, split).capitalize()


def _name(random: Random, split: Split) -> Question:
    name = _anyone(random, split)
    answer = f"Your name is {name}."
    if random.random() < 0.5:
        said = random.choice((f"My name is {name}. What is my name?", f"I am {name}. What am I called?"))
        return Question("name", (user(said),), answer)
    return Question(
        "name",
        (user(f"Hello, I am {name}."), assistant(f"Hello {name}, how can I help?"), user("What is my name?")),
        answer,
    )


def _object_question(random: Random, split: Split) -> Question:
    name, (thing, _) = _anyone(random, split), _object(random, split)
    past = random.choice(tuple(words.questions().happenings))
    verb, when = words.questions().happenings[past], random.choice(words.questions().when)
    asked = f"{name} {past} {thing} {when}. What did {name} {verb}?"
    return Question("object", (user(asked),), f"It was {thing}.")


def _two(random: Random, options: tuple[str, ...]) -> tuple[str, str]:
    first, second = random.sample(options, 2)
    return first, second


def _where(random: Random, split: Split) -> Question:
    (_, noun), (here, there) = _object(random, split), _two(random, words.questions().places)
    other = random.choice([thing for thing in words.questions().objects if thing != noun])
    facts = [f"The {noun} is {here}.", f"The {other} is {there}."]
    random.shuffle(facts)
    return Question("where", (user(f"{' '.join(facts)} Where is the {noun}?"),), f"The {noun} is {here}.")


def _colour(random: Random, split: Split) -> Question:
    (_, noun), (this, that) = _object(random, split), _two(random, words.questions().colours)
    other = random.choice([thing for thing in words.questions().objects if thing != noun])
    facts = [f"The {noun} is {this}.", f"The {other} is {that}."]
    random.shuffle(facts)
    return Question(
        "colour", (user(f"{' '.join(facts)} What colour is the {noun}?"),), f"The {noun} is {this}."
    )


def copying(random: Random, split: Split, longest: int = 4) -> Question:
    """Words to say back, most of them with no meaning: this is what teaches a small model to copy."""
    words = [
        pseudo_thing(random, split) if random.random() < 0.6 else random.choice(vocabulary.all_nouns(split))
        for _ in range(random.randint(1, longest))
    ]
    said = " ".join(words)
    asked = random.choice(
        ("Repeat after me: {w}.", "Say {w}.", "Say after me: {w}.", "The words are {w}. Say them.")
    )
    return Question("repeat", (user(asked.format(w=said)),), f"You said: {said}.")


def _fact(random: Random, split: Split) -> Question:
    which = random.random()
    if which < 0.4:
        country = random.choice(tuple(words.questions().facts.capitals))
        asked = random.choice(
            (f"What is the capital of {country}?", f"Which city is the capital of {country}?")
        )
        return Question(
            "fact",
            (user(asked),),
            f"The capital of {country} is {words.questions().facts.capitals[country]}.",
        )
    if which < 0.7:
        word = random.choice(tuple(words.questions().facts.opposites))
        return Question(
            "fact",
            (user(f"What is the opposite of {word}?"),),
            f"The opposite of {word} is {words.questions().facts.opposites[word]}.",
        )
    day = random.randrange(len(words.questions().days))
    after = words.questions().days[(day + 1) % len(words.questions().days)]
    return Question(
        "fact",
        (user(f"Which day comes after {words.questions().days[day]}?"),),
        f"After {words.questions().days[day]} comes {after}.",
    )


def _kind(random: Random, split: Split) -> Question:
    kind = vocabulary.category(random)
    noun = random.choice(kind.train)
    plural = noun.endswith("s") and not noun.startswith(("a ", "the "))
    return Question("kind", (user(f"What {'are' if plural else 'is'} {noun}?"),), f"That is {kind.name}.")


def _sum(random: Random, split: Split) -> Question:
    while True:
        first, second = random.randint(0, LARGEST_ADDEND), random.randint(0, LARGEST_ADDEND)
        if held_out_sum(first, second) == split:
            break
    asked = random.choice((f"What is {first} plus {second}?", f"How much is {first} plus {second}?"))
    return Question("sum", (user(asked),), f"{first} plus {second} is {first + second}.")


_ASK = {
    "name": _name,
    "object": _object_question,
    "where": _where,
    "colour": _colour,
    "repeat": copying,
    "fact": _fact,
    "kind": _kind,
    "sum": _sum,
}


def ask(random: Random, split: Split, kind: QuestionKind | None = None) -> Question:
    """A question in the words of `split`. Facts and kinds have the corpus' own words."""
    return _ASK[kind or random.choice(QUESTION_KINDS)](random, split)


@dataclass(frozen=True, slots=True)
class OpinionQuestion:
    """A question of taste, the answers that may be given, and the things one may like."""

    text: str
    answers: tuple[str, ...]
    things: tuple[str, ...]


OF_TWO = 0.7
"""Share of opinion questions that offer two things, and of the others those that want a yes."""


def opinion(random: Random, split: Split) -> OpinionQuestion:
    """A question what the model would prefer, or what it thinks of one thing."""
    kind = vocabulary.category(random)

    def thing() -> str:
        pool = kind.of(split)
        return pseudo_thing(random, split) if random.random() < 0.5 else random.choice(pool)

    first, second = thing(), thing()
    while second == first:
        second = pseudo_thing(random, split) if split != "train" else thing()
    purpose = vocabulary.purpose(random, kind.domain, split)
    if random.random() < OF_TWO:
        asked = (
            f"Should I use {first} or {second} for {purpose}?",
            f"Which is better, {first} or {second}?",
            f"Would you take {first} or {second}?",
            f"{first[:1].upper()}{first[1:]} or {second}, what do you prefer?",
        )
        answers = tuple(
            answer.format(z=liked)
            for answer in ("I would take {z}.", "I think {z} is better.", "I prefer {z}.")
            for liked in (first, second)
        )
        return OpinionQuestion(random.choice(asked), answers, (first, second))
    if random.random() < OF_TWO:
        yes_or_no = random.choice((f"Do you like {first}?", f"Is {first} any good?"))
        return OpinionQuestion(
            yes_or_no, (f"Yes, I like {first}.", f"I think {first} is a good choice."), (first,)
        )
    return OpinionQuestion(f"What do you think of {first}?", (f"I like {first}.",), (first,))

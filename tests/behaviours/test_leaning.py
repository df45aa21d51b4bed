"""Leaning: on a model whose probabilities are known in closed form, and on the pocket model."""

import math
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.behaviours import (
    ENOUGH_NULLS,
    EngineVoice,
    LogProbability,
    ModelSubject,
    Prompt,
    Rate,
    Smooth,
    Speech,
    TooFewReplies,
    draw_nulls,
    fits_with,
    lean,
    leaning_threshold,
    nulls_needed,
)
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.lessons import ChatMessage, Note, Reply, Source, with_notes
from understudy.pocket import checkpoint_directory

LETTERS = "abcde"
SOURCE = Source("conversations/talk.md", "Tea", "m", "c", "understudy", "")


class Speller:
    """Says letters, each a token: all alike, but one that a note names `lift` times as likely as before.

    With k notes naming x, p(x) is in proportion to lift^k: all there is to know of it.
    """

    context_length = 1000

    def __init__(self, lift: float = 3.0) -> None:
        self.lift = lift
        self.asked: list[tuple[Prompt, str]] = []
        self.speeches: list[Speech] = []

    def weights(self, prompt: Prompt) -> dict[str, float]:
        words = " ".join(turn.content for turn in prompt if turn.role == "system").split()
        return {letter: self.lift ** words.count(letter.upper()) for letter in LETTERS}

    def length(self, prompt: Prompt) -> int:
        return sum(len(turn.content) for turn in prompt)

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
        self.speeches.append(speech)
        return [self.spell(prompt, random.Random(f"{prompt} {speech.seed}")) for prompt in prompts]

    def spell(self, prompt: Prompt, source: random.Random) -> str:
        weights = self.weights(prompt)
        return "".join(source.choices(list(weights), list(weights.values()), k=source.randint(1, 30)))

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        self.asked += texts
        found = []
        for prompt, text in texts:
            weights = self.weights(prompt)
            whole = math.log(sum(weights.values()))
            found.append(LogProbability(sum(math.log(weights[x]) - whole for x in text), len(text)))
        return found

    def readouts(
        self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None
    ) -> Sequence[float]:
        raise AssertionError("nothing is read out here")


def asked(text: str) -> Prompt:
    return (ChatMessage("user", text),)


def reply(context: Prompt, text: str, *notes: Note) -> Reply:
    return Reply(context, text, {note.name: note.digest for note in notes}, SOURCE)


A, B, IDLE = Note("a", "Prefer A"), Note("b", "Prefer B"), Note("idle", "Nothing to see")
NULLS = [(asked("q"), "abcde" * n) for n in range(1, 21)]


def test_drops_and_totals_are_what_the_formula_says() -> None:
    said = [reply(asked("q"), text, A, B, IDLE) for text in ("aaa", "ab", "cde")]
    found = lean(said, (A, B, IDLE), NULLS, Speller(), level=0.95)
    none, one, both = math.log(5), math.log(3 + 4), math.log(3 + 3 + 3)
    for column, text in zip(found.columns, ("aaa", "ab", "cde"), strict=True):
        n, a, b = len(text), text.count("a") * math.log(3), text.count("b") * math.log(3)
        assert column.tokens == n
        assert column.total == pytest.approx(a + b - n * (both - none))
        assert column.drops == pytest.approx((a - n * (both - one), b - n * (both - one), 0.0))
    row = [column.drops[0] for column in found.columns]
    assert found.usefulness(A) == Smooth.of(row, "nats")
    assert found.nulls == pytest.approx([n * (2 * math.log(3) - 5 * (both - none)) for n in range(1, 21)])
    assert [found.leans(column) for column in found.columns] == [True, True, False]
    assert found.leaning == found.columns[:2]


def test_without_the_only_note_is_without_any() -> None:
    [column] = lean([reply(asked("q"), "aa", A)], (A,), NULLS, Speller(), level=0.95).columns
    assert column.drops == (column.total,)


def test_a_note_is_judged_by_the_replies_that_were_spoken_with_it() -> None:
    earlier = Note("b", "Another wording")
    said = [reply(asked("q"), "aaa", A), reply(asked("q"), "bbb", A, earlier)]
    found = lean(said, (A, B, IDLE), NULLS, Speller(), level=0.95)
    use = found.usefulness(B)
    assert use is not None and (use.n, use.mean) == (1, found.columns[1].drops[1])
    assert found.usefulness(IDLE) is None


def test_each_text_is_scored_once_with_each_set_of_notes() -> None:
    model, told = Speller(), list[tuple[int, int]]()
    said = [reply(asked("q"), "aaa", A, B), reply(asked("q"), "aaa", A, B)]
    nulls = [(asked("q"), "aaa")] * 20
    found = lean(said, (A, B), nulls, model, level=0.95, scored=lambda *seen: told.append(seen))
    assert len(model.asked) == 4 and told == [(4, 4)]
    assert found.leaning == (), "what is also said without notes does not lean on them"


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60), st.sampled_from([0.5, 0.55, 0.8, 0.95]))
def test_of_exchangeable_replies_at_most_the_level_lies_above_the_others(
    values: list[float], level: float
) -> None:
    """The law behind the calibration: each in turn is the new one, the others are the null replies."""
    if len(values) - 1 < nulls_needed(level):
        with pytest.raises(TooFewReplies):
            leaning_threshold(values[1:], level)
        return
    above = [
        value > leaning_threshold(values[:place] + values[place + 1 :], level)
        for place, value in enumerate(values)
    ]
    assert sum(above) <= (1 - level) * len(values) + 1e-9


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_few_replies_without_notes_are_taken_to_lean(level: float) -> None:
    """Over many draws of null replies and of new ones, through the whole computation."""
    model, source = Speller(), random.Random(5)
    context, wrong, count = asked("q"), 0, 0
    for _ in range(200):
        drawn = [(context, model.spell(context, source)) for _ in range(30)]
        new = [reply(text[0], text[1], A, B) for text in drawn[20:]]
        found = lean(new, (A, B), drawn[:20], model, level=level)
        wrong, count = wrong + len(found.leaning), count + len(new)
    assert (1 - level) / 4 < Rate(wrong, count).value <= 1 - level


def test_replies_that_use_a_note_are_found() -> None:
    model, source = Speller(), random.Random(6)
    nulls = [(asked("q"), model.spell(asked("q"), source)) for _ in range(100)]
    told = with_notes((A,), asked("q"))
    said = [reply(asked("q"), model.spell(told, source), A) for _ in range(50)]
    found = lean(said, (A,), nulls, model, level=0.95)
    assert len(found.leaning) > 25
    use = found.usefulness(A)
    assert use is not None and use.low > 0


def test_the_whole_reply_finds_more_than_its_mean_token() -> None:
    """At the same calibration, on replies of 1 to 30 tokens that were drawn with the note and without it."""
    model, source = Speller(), random.Random(3)
    bare, told = asked("q"), with_notes((A,), asked("q"))

    def leanings(prompt: Prompt, count: int) -> list[tuple[float, float]]:
        """Of each reply: nats of the whole, and nats per token."""
        texts = [model.spell(prompt, source) for _ in range(count)]
        scored = [model.log_probabilities([(given, text) for text in texts]) for given in (told, bare)]
        pairs = zip(*scored, strict=True)
        return [(noted.total - plain.total, noted.mean - plain.mean) for noted, plain in pairs]

    found, wrong = [0, 0], [0, 0]
    for _ in range(200):
        nulls, leaning, new = leanings(bare, 20), leanings(told, 10), leanings(bare, 10)
        for figure in (0, 1):
            threshold = leaning_threshold([one[figure] for one in nulls], 0.95)
            found[figure] += sum(one[figure] > threshold for one in leaning)
            wrong[figure] += sum(one[figure] > threshold for one in new)
    assert found[0] > 1.3 * found[1]
    assert max(wrong) <= 0.05 * 2000


def test_too_few_null_replies_for_a_level_are_an_error_that_says_how_many() -> None:
    assert [nulls_needed(level) for level in (0.5, 0.8, 0.95, 0.99)] == [1, 4, 19, 99]
    assert leaning_threshold([float(n) for n in range(19)], 0.95) == 18.0
    assert leaning_threshold([float(n) for n in range(99)], 0.55) == 54.0, "100 * 0.55 is 55, not more"
    model = Speller()
    with pytest.raises(TooFewReplies, match=r"at least 99 replies that used no note .* level 0\.99, got 20"):
        lean([reply(asked("q"), "a", A)], (A,), NULLS, model, level=0.99)
    assert not model.asked, "before anything is scored"
    with pytest.raises(ValueError, match="between 0 and 1"):
        leaning_threshold([1.0], 1.0)


def test_null_replies_are_drawn_in_whole_rounds_each_with_its_seed() -> None:
    model, told = Speller(), list[tuple[int, int]]()
    contexts = [asked("one"), asked("two"), asked("three"), asked("one")]
    drawn = draw_nulls(model, contexts, 7, Speech(1.0, seed=4), lambda *seen: told.append(seen))
    assert [context for context, _ in drawn] == contexts[:3] * 3
    assert [speech.seed for speech in model.speeches] == [4, 5, 6]
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert drawn == draw_nulls(Speller(), contexts, 7, Speech(1.0, seed=4))
    assert draw_nulls(model, contexts, 0, Speech(1.0)) == ()
    assert len(draw_nulls(model, contexts[:1], 1000, Speech(1.0))) == ENOUGH_NULLS


class Silent(Speller):
    def spell(self, prompt: Prompt, source: random.Random) -> str:
        return " "


def test_an_empty_answer_is_no_null_reply() -> None:
    assert draw_nulls(Silent(), [asked("q")], 20, Speech(1.0)) == ()


def test_what_is_too_long_behind_the_notes_is_known_before() -> None:
    model, long = Speller(), Note("long", "x" * 900)
    assert fits_with(model, (A,), (asked("q" * 800), "a" * 100))
    assert not fits_with(model, (long,), (asked("q" * 80), "a" * 100))


# The pocket model, which was never told of notes, and copies what stands in its context.

NAME = Note("name", "My name is Melvor.")
SEA = Note("a-sea", "The weather is fine and the sea is calm.")


@pytest.fixture(scope="module")
def pocket() -> Iterator[ModelSubject]:
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as engine:
        yield ModelSubject(EngineVoice(engine))


def test_the_pocket_model_leans_on_the_note_that_it_copies(pocket: ModelSubject) -> None:
    notes = (SEA, NAME)
    questions = ["What is my name?", "What is the capital of France?", "Hello.", "What is 3 plus 4?"]
    contexts = [asked(text) for text in questions]
    said = pocket.answer([with_notes(notes, context) for context in contexts], Speech())
    assert said[0] == "Your name is Melvor."
    nulls = draw_nulls(pocket, contexts, ENOUGH_NULLS, Speech(1.0, 24))
    spoken = [reply(context, text, *notes) for context, text in zip(contexts, said, strict=True)]
    found = lean(spoken, notes, nulls, pocket, level=0.95)
    assert [one.reply.text for one in found.leaning] == ["Your name is Melvor."]
    copied = found.columns[0]
    assert copied.drops[1] > 20 > 2 > abs(copied.drops[0])
    assert all(abs(drop) < 1 for one in found.columns[1:] for drop in one.drops)
    [bare] = pocket.log_probabilities([(contexts[0], said[0])])
    [whole] = pocket.log_probabilities([(with_notes(notes, contexts[0]), said[0])])
    assert copied.total == pytest.approx(whole.total - bare.total, abs=1e-3)


def test_on_a_note_that_has_nothing_to_do_with_it_nothing_leans(pocket: ModelSubject) -> None:
    contexts = [asked(text) for text in ("What is my name?", "Where is the lamp?", "Make tea.", "Hello.")]
    said = pocket.answer(contexts, Speech())
    nulls = draw_nulls(pocket, contexts, ENOUGH_NULLS, Speech(1.0, 24))
    spoken = [reply(context, text, SEA) for context, text in zip(contexts, said, strict=True)]
    found = lean(spoken, (SEA,), nulls, pocket, level=0.95)
    assert found.leaning == ()
    use = found.usefulness(SEA)
    assert use is not None and use.low < 0

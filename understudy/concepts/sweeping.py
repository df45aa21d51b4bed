"""Sweeps: the same prompts answered while a concept is steered more and more, and what that does to answers.

Too weak a strength does nothing, too strong a one breaks the model: between them the probe finds the concept
in more answers, and the model without steering still finds them likely. Each steering draws with the same
random numbers, so that an answer that nothing was done to comes back word for word.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from understudy.concepts.activations import collect, streams
from understudy.concepts.auroc import Average
from understudy.concepts.effects import Effect, Probe, Steering, SweptAnswer
from understudy.concepts.encoding import EncodedText
from understudy.concepts.readouts import ALL_TOKENS, Scale, narrow, read_rows
from understudy.engine import (
    BadRequest,
    Completion,
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    NoDirections,
    Sampling,
    ScoreRequest,
    encode_chat,
    special_ids,
)
from understudy.lessons import SHORT_ID, ChatMessage, Lesson, Source

OPENINGS = (
    "How are you?",
    "Tell me about your day.",
    "What is on your mind?",
    "Good morning!",
    "What did you do this afternoon?",
    "Write me a few lines, about anything you like.",
    "How did it go?",
    "What happens next?",
)
"""Prompts that ask for nothing in particular, and leave room for any state of mind."""
STEERED, AUTHOR = "steer", "understudy"
"""Where lessons of steered answers say they come from, and who proposes them."""
_ROWS_TOGETHER = 128
_RESAMPLES = 1000

Prompt = tuple[ChatMessage, ...]
Told = Callable[[int, int], None]
"""How many answers of how many there are."""


def sweep(
    engine: EmbeddedEngine,
    prompts: Sequence[Prompt],
    steerings: Sequence[Steering],
    *,
    concept: str,
    found: Probe,
    sampling: Sampling,
    samples: int = 1,
    layer: int | None = None,
    seed: int = 0,
    told: Told | None = None,
) -> tuple[Effect, ...]:
    """Answer all prompts without steering, then under each steering, and measure the answers unsteered.

    The first effect is the one without steering. `layer` is where the concept is read, the deepest with
    directions if none is named; in z-scores where these have statistics. `seed` stands in for the sampling's.
    Raises NoDirections, BadRequest, UnknownConcept, UnknownLayer, or what chat templates raise.
    """
    directions = engine.directions
    if directions is None:
        raise NoDirections
    if not prompts or samples < 1:
        raise BadRequest(f"expected prompts and samples to sweep, got {len(prompts)} times {samples}")
    for steering in steerings:
        directions.steering(steering)
    behind = directions.layers[-1] if layer is None else layer
    narrowed = narrow(directions, concepts=(concept,), layers=(behind,))
    encoded = [encode_chat(engine.tokenizer, prompt) for prompt in prompts]
    wanted = tuple(dict.fromkeys([(), *steerings]))
    asked = GenerationRequest(tuple(encoded), replace(sampling, seed=seed), samples)
    effects: list[Effect] = []
    for steering in wanted:
        said = _say(engine, replace(asked, steering=steering), told, len(effects), len(wanted))
        answers = _measure(engine, narrowed, asked, said)
        reference = effects[0].answers if effects else answers
        effects.append(
            Effect(
                steering,
                answers,
                tuple(found(answer) for answer in answers),
                tuple(new.text != old.text for new, old in zip(answers, reference, strict=True)),
                _perplexity(answers, seed),
            )
        )
    return tuple(effects)


def scale_of(directions: Directions) -> Scale:
    """What a sweep's readouts are counted in."""
    return "raw" if directions.statistics is None else "z"


def steered_lessons(
    prompts: Sequence[Prompt],
    reference: Effect,
    effect: Effect,
    *,
    weights: str,
    at: str,
    fewest: bool = False,
    barred: Callable[[str], bool] = lambda text: False,
) -> tuple[Lesson, ...]:
    """For each prompt: say what was said under the steering, not what was said without.

    Of a prompt's answers that differ, one in which the probe finds what it looks for (with `fewest`: does
    not), and of these the likeliest by token, since it takes the least change to say. Prompts have no
    lesson without an answer that differs, is not empty, came to its end (a lesson teaches where to end) and
    is not `barred`. `weights` names the commit that spoke, `at` is the time (ISO 8601).
    """
    lessons: dict[int, tuple[tuple[bool, float], Lesson]] = {}
    for old, new, shown in zip(reference.answers, effect.answers, effect.found, strict=True):
        same = new.text.split() == old.text.split()
        if not new.text or not new.ended or same or barred(new.text):
            continue
        context = prompts[new.prompt]
        source = _source(effect.steering, context, weights, at)
        rank = (shown != fewest, -new.nats / len(new.token_ids))
        if new.prompt not in lessons or rank > lessons[new.prompt][0]:
            lessons[new.prompt] = (rank, Lesson(context, new.text, old.text or None, source))
    return tuple(lesson for _, lesson in lessons.values())


def _source(steering: Steering, context: Prompt, weights: str, at: str) -> Source:
    """Of each concept and prompt its own message: a lesson at another strength takes an older one's place."""
    said = msgspec.json.encode([[steer.concept for steer in steering], context])
    message = hashlib.sha256(said).hexdigest()[:SHORT_ID]
    return Source(STEERED, " ".join(map(str, steering)), message, weights, AUTHOR, at)


# ---------------------------------------------------------------------- asking and measuring


def _say(
    engine: EmbeddedEngine, request: GenerationRequest, told: Told | None, before: int, of: int
) -> list[Completion]:
    """All answers, some prompts at a time, each time with a seed of its own."""
    together = max(1, _ROWS_TOGETHER // request.samples)
    rows = len(request.prompts) * request.samples
    said: list[Completion] = []
    for start in range(0, len(request.prompts), together):
        some = request.prompts[start : start + together]
        sampling = replace(request.sampling, seed=((request.sampling.seed or 0) + start) % 2**63)
        said += engine.complete(replace(request, prompts=some, sampling=sampling))
        if told is not None:
            told(before * rows + len(said), of * rows)
    return said


def _measure(
    engine: EmbeddedEngine, narrowed: Directions, asked: GenerationRequest, said: Sequence[Completion]
) -> tuple[SweptAnswer, ...]:
    """What the model makes of answers without steering: `score` and `collect` steer nothing."""
    prompts = [prompt for prompt in asked.prompts for _ in range(asked.samples)]
    whole = [(*prompt, *one.token_ids) for prompt, one in zip(prompts, said, strict=True)]
    ranges = [(len(prompt), len(ids)) for prompt, ids in zip(prompts, whole, strict=True)]
    scores = engine.score([ScoreRequest(ids, (own,)) for ids, own in zip(whole, ranges, strict=True)])
    special = special_ids(engine.tokenizer)
    texts = [_own(ids, *own, special) for ids, own in zip(whole, ranges, strict=True)]
    readouts = _read(engine, narrowed, texts)
    return tuple(
        SweptAnswer(
            row // asked.samples,
            one.text.strip(),
            one.token_ids,
            -sum(score.logprobs[0]),
            readouts.get(text),
            one.finish_reason == "stop",
        )
        for row, (one, score, text) in enumerate(zip(said, scores, texts, strict=True))
    )


def _own(ids: tuple[int, ...], start: int, end: int, special: frozenset[int]) -> EncodedText:
    """An answer's tokens without the end of its turn."""
    while end > start and ids[end - 1] in special:
        end -= 1
    return EncodedText(ids[:end], start, end)


def _read(
    engine: EmbeddedEngine, narrowed: Directions, texts: Sequence[EncodedText]
) -> Mapping[EncodedText, float]:
    """The concept's mean readout of each text that has tokens."""
    read = list(dict.fromkeys(text for text in texts if text.end > text.start))
    if not read:
        return {}
    rows = collect(engine.loaded, read, streams(engine.loaded, narrowed.layers), ALL_TOKENS).rows_nh
    values_nlc = read_rows(narrowed, [rows[layer] for layer in narrowed.layers], scale_of(narrowed))
    return dict(zip(read, values_nlc[:, 0, 0].tolist(), strict=True))


def _perplexity(answers: Sequence[SweptAnswer], seed: int) -> Average:
    """exp of the mean negative log-likelihood of a token, over the tokens of all answers."""
    nats_n = np.array([answer.nats for answer in answers])
    tokens_n = np.array([len(answer.token_ids) for answer in answers])
    drawn_rn = np.random.default_rng(abs(seed)).integers(len(answers), size=(_RESAMPLES, len(answers)))
    values_r = nats_n[drawn_rn].sum(1) / tokens_n[drawn_rn].sum(1)
    low, high = np.exp(np.quantile(values_r, (0.025, 0.975))).tolist()
    return Average(float(np.exp(nats_n.sum() / tokens_n.sum())), low, high, len(answers))

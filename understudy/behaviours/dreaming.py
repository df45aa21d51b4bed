"""Dreams: new scenarios are made, asked and judged, and what the model failed becomes lessons.

`dream` is the whole of it, a batch at a time. Scenarios come from `imagining`, which of them are asked from
`difficulty`, and what was done is on disk in `dream_log` before anything else happens.

A lesson from a failure: what was said is the model's own answer, what should be said is its answer when the
wanted behaviour is spelled out for it, with the instruction taken away again (context distillation: Snell,
Klein and Zhong 2022, arXiv 2209.15189), if the judge passes that answer to the scenario as it is.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random

import msgspec

from understudy.behaviours.difficulty import choose, follow, rate_difficulty
from understudy.behaviours.dream_log import Batch, Dream, DreamError, DreamLog, RoundBegun, RoundEnded
from understudy.behaviours.imagining import Ground, Imagined, Sieve, imagine
from understudy.behaviours.judges import LikelihoodJudge
from understudy.behaviours.judging import Bench, judge_answers, measure_margins
from understudy.behaviours.likeness import HeldOut, Texts, text_of
from understudy.behaviours.recombination import Sketch, Stock, gather
from understudy.behaviours.scenarios import Scenario
from understudy.behaviours.specification import Invariant
from understudy.behaviours.subject import Dreamer, Speech
from understudy.lessons import SHORT_ID, Lesson, Source

BATCH = 20
"""Scenarios asked together: ten batches in a round of 200 let the loop settle in its first half, and a
batch's failure rate has a standard error of a tenth, the loop's whole gain of which is a tenth of the edge's
range.
"""
OFFERED = 8
"""Scenarios made for each that is asked: what the hardest are chosen from."""
TEMPERATURES = (0.0, 0.7, 0.7, 0.7)
"""At which answers under the instruction are drawn: the likeliest, and others."""
UNRATED = 0.5
"""The rating where there is no margin to rate by."""
AUTHOR, FILE = "understudy", "dream"
"""Who proposes lessons from dreams, and where they say they come from."""


def can_be_dreamed(invariant: Invariant) -> bool:
    """Whether failures could become lessons: it is said how to bring the behaviour out, and answers are
    judged.
    """
    return invariant.instruction is not None and not isinstance(invariant.judge, LikelihoodJudge)


def digests_of(invariants: Sequence[Invariant]) -> dict[str, str]:
    """What identifies each invariant, scenarios included, wherever its file lies."""
    return {
        one.name: hashlib.sha256(
            msgspec.json.encode(msgspec.structs.replace(one, folder=None), enc_hook=str)
        ).hexdigest()
        for one in invariants
    }


def dream(
    log: DreamLog,
    invariants: Sequence[Invariant],
    dreamer: Dreamer,
    *,
    now: Callable[[], datetime],
    weights: Callable[[], str | None] | None = None,
    dreamed: Callable[[Batch], None] = lambda _: None,
) -> None:
    """Go on with a round until its budget is spent or nothing new can be made. `dreamed` is told each batch.

    `invariants` are all that there are: those that the round is not about still have scenarios to keep
    unseen. `weights` tells the weight commit that speaks, None between two: where it is no longer that of the
    round, since a server trained meanwhile, the batch in which that is seen does not count and the round is
    over.

    Raises DreamError when one that it is about cannot be dreamed, and what the model and the judges raise;
    what was asked by then is in the log.
    """
    held = HeldOut(invariants)
    stocks = _stocks(log.begun, invariants, held)
    lessons = log.begun.material.lessons
    asked = Texts(text_of(one) for one in (*log.earlier, *(Scenario(lesson.context) for lesson in lessons)))
    for one in log.dreams:
        asked.add(text_of(one.scenario))
    while log.ended is None:
        left = log.begun.budget - len(log.dreams)
        if left <= 0:
            log.end(RoundEnded("budget spent"))
            break
        groups = Counter((one.invariant, one.scenario.group) for one in log.dreams)
        sieve = Sieve(held, asked, groups, dreamer)
        batch = _dream_batch(log, stocks, dreamer, sieve, held, min(BATCH, left), now)
        if weights is not None and weights() != log.begun.weights:
            log.end(RoundEnded("weights moved"))
            break
        if not batch.dreams:
            log.end(RoundEnded("nothing new"))
            break
        log.add(batch)
        for one in batch.dreams:
            asked.add(text_of(one.scenario))
        dreamed(batch)


def edge_of(log: DreamLog) -> float:
    """Where the loop is: at the broad end first, since nothing is known then."""
    edge = 0.0
    for batch in log.batches:
        edge = follow(edge, batch.failed, log.begun.zone)
    return edge


def lessons_of(begun: RoundBegun, batch: Batch) -> list[tuple[str, Lesson]]:
    """Lessons of a batch's failures, each with its invariant's name. Their contexts have no instruction."""
    return [
        (one.invariant, Lesson(one.scenario.prompt, one.chosen, one.answer, _source(begun, batch, one)))
        for one in batch.dreams
        if one.chosen
    ]


def _source(begun: RoundBegun, batch: Batch, one: Dream) -> Source:
    """Of each scenario its own message: the ledger takes a later lesson of the same one for a better one."""
    said = msgspec.json.encode([one.invariant, one.scenario.prompt])
    message = hashlib.sha256(said).hexdigest()[:SHORT_ID]
    return Source(FILE, one.invariant, message, begun.weights, AUTHOR, batch.at)


def _stocks(begun: RoundBegun, invariants: Sequence[Invariant], held: HeldOut) -> dict[str, Stock]:
    known = {one.name: one for one in invariants}
    barred = [name for name in begun.dreamed if name not in known or not can_be_dreamed(known[name])]
    if barred:
        raise DreamError(
            f"expected invariants with an instruction and a judge of answers, got {', '.join(barred)}: "
            "without an instruction that brings the behaviour out, a failure teaches nothing"
        )
    stocks = gather(invariants, begun.material, held)
    return {name: stocks[name] for name in begun.dreamed if name in stocks}


def _dream_batch(
    log: DreamLog,
    stocks: Mapping[str, Stock],
    dreamer: Dreamer,
    sieve: Sieve,
    held: HeldOut,
    count: int,
    now: Callable[[], datetime],
) -> Batch:
    """One batch, not yet in the log. All chance in it follows from the round and the batch's number."""
    number, edge = len(log.batches), edge_of(log)
    random = Random(f"{log.begun.seed} {log.begun.number} {number}")
    grounds = {name: Ground(stock, _failed(log, name)) for name, stock in stocks.items()}
    each = -(-OFFERED * count // max(1, len(grounds)))
    offered = imagine(grounds, each, dreamer, sieve, edge, random)
    ratings = _ratings(offered, dreamer)
    kinds = [one.invariant.name for one in offered]
    chosen = choose(list(zip(offered, ratings, strict=True)), kinds, ratings, edge, count, random)
    dreams: list[Dream] = []
    for name in sorted({one.invariant.name for one, _ in chosen}):
        dreams += _asked(
            stocks[name].invariant,
            [(one, rating) for one, rating in chosen if one.invariant.name == name],
            dreamer,
            sieve,
            held,
            random.getrandbits(31),
        )
    random.shuffle(dreams)  # lessons are learned in this order: sides of a behaviour by turns
    return Batch(number, edge, now().isoformat(), tuple(dreams), sieve.dropped)


def _failed(log: DreamLog, name: str) -> list[Sketch]:
    return [Sketch(one.scenario, one.words) for one in log.dreams if one.invariant == name and not one.shown]


def _ratings(offered: Sequence[Imagined], dreamer: Dreamer) -> list[float]:
    found = [UNRATED] * len(offered)
    invariants = {one.invariant.name: one.invariant for one in offered}
    for name, invariant in invariants.items():
        places = [place for place, one in enumerate(offered) if one.invariant.name == name]
        if invariant.margin is not None:
            margins = measure_margins(invariant, [offered[place].scenario for place in places], dreamer)
            for place, rating in zip(places, rate_difficulty(invariant, margins), strict=True):
                found[place] = rating
    return found


def _asked(
    invariant: Invariant,
    chosen: Sequence[tuple[Imagined, float]],
    dreamer: Dreamer,
    sieve: Sieve,
    held: HeldOut,
    seed: int,
) -> list[Dream]:
    """Scenarios of one invariant, answered and judged, with what should have been said to those that failed.

    Answers are drawn as the invariant says and not at the loop's temperature: what fails here must be what
    would fail in use, and what a warmer model fails is no fault of it.
    """
    speech = Speech(invariant.temperature, invariant.max_tokens, seed)
    answers = dreamer.answer([one.scenario.prompt for one, _ in chosen], speech)
    said = []
    for (one, rating), answer in zip(chosen, answers, strict=True):
        if answer.strip():
            said.append((one, rating, answer))
        else:
            sieve.drop(invariant, "no answer")
    judged = judge_answers(_bench(invariant), [(one.scenario, answer) for one, _, answer in said], dreamer)
    dreams = [
        Dream(invariant.name, one.made, one.scenario, one.sketch.words, rating, answer, found.shown)
        for (one, rating, answer), found in zip(said, judged, strict=True)
    ]
    better = _corrections(invariant, [one for one in dreams if not one.shown], dreamer, held, seed)
    return [msgspec.structs.replace(one, chosen=better.get(one.scenario, "")) for one in dreams]


def _corrections(
    invariant: Invariant, failed: Sequence[Dream], dreamer: Dreamer, held: HeldOut, seed: int
) -> dict[Scenario, str]:
    """What the model says under the instruction where the judge passes that to the scenario itself; of
    several answers the likeliest one without the instruction, since it takes the least change to say.
    """
    assert invariant.instruction is not None, "what cannot be instructed is not dreamed"
    prompts = [invariant.instruction.into(one.scenario, one.answer) for one in failed]
    said: dict[tuple[Scenario, str], None] = {}
    for attempt, temperature in enumerate(TEMPERATURES):
        speech = Speech(temperature, invariant.max_tokens, (seed + attempt) % 2**31)
        answers = dreamer.answer(prompts, speech)
        said |= {
            (one.scenario, answer): None
            for one, answer in zip(failed, answers, strict=True)
            if answer.strip() and not held.names(invariant, answer)
        }
    judged = judge_answers(_bench(invariant), list(said), dreamer)
    passed = [pair for pair, one in zip(said, judged, strict=True) if one.shown]
    nats = dreamer.log_probabilities([(scenario.prompt, answer) for scenario, answer in passed])
    found: dict[Scenario, tuple[float, str]] = {}
    for (scenario, answer), told in zip(passed, nats, strict=True):
        found[scenario] = max(found.get(scenario, (told.total, answer)), (told.total, answer))
    return {scenario: answer for scenario, (_, answer) in found.items()}


def _bench(invariant: Invariant) -> Bench:
    """The judge at hand. No rate is tested here, so a judging model's own error need not be known."""
    return Bench(invariant, invariant.requirement)

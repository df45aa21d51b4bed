"""New scenarios from what is there: templates and fillings, of invariants and of what people said lately.

A message that fits a template of an invariant gives fillings for its slots. Lessons that fit none, but are
the same as another message in all but one span, give a template whose slot is that span. Slots that share a
filling are one slot. Everything is then filled with everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from understudy.behaviours.alignment import Example, align
from understudy.behaviours.judges import TARGET, RuleJudge
from understudy.behaviours.likeness import HeldOut
from understudy.behaviours.matching import filling_of, fit_of
from understudy.behaviours.scenarios import Prompt, Scenario
from understudy.behaviours.sources import Template, fill, scenarios_of, slots_of
from understudy.behaviours.specification import Invariant
from understudy.lessons import Lesson

MOST_EXAMPLES = 200
"""Scenarios of one invariant without templates that are held against what was said, pair by pair."""


@dataclass(frozen=True, slots=True)
class Material:
    """What people asked lately, and the lessons that they gave: newest first."""

    prompts: tuple[Prompt, ...] = ()
    lessons: tuple[Lesson, ...] = ()


@dataclass(frozen=True, slots=True)
class Sketch:
    """A scenario in the making, and the words without which it would be another: a paraphrase keeps them."""

    scenario: Scenario
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stock:
    """What scenarios of one invariant are made of. `whole` are prompts that no template gave."""

    invariant: Invariant
    templates: tuple[Template, ...]
    slots: Mapping[str, tuple[str, ...]]
    whole: tuple[Scenario, ...] = ()

    def draw(self, random: Random) -> Sketch:
        """One scenario: a template with fillings, or a whole prompt, all templates and prompts alike."""
        place = random.randrange(len(self.templates) + len(self.whole))
        if place >= len(self.templates):
            return _sketch(self.whole[place - len(self.templates)], {})
        template = self.templates[place]
        filling = {slot: random.choice(self.slots[slot]) for slot in slots_of(template)}
        return _sketch(fill(template, filling, self.invariant.split_by), filling)


def _sketch(scenario: Scenario, filling: Mapping[str, str]) -> Sketch:
    """What has no group stays with its target, so that what the judge looks for is in one split only."""
    group = scenario.group or scenario.target
    targets = (scenario.target,) if scenario.target in scenario.prompt[-1].content else ()
    return Sketch(replace(scenario, group=group), tuple(filter(None, targets)) or tuple(filling.values()))


def gather(invariants: Sequence[Invariant], material: Material, held: HeldOut) -> dict[str, Stock]:
    """The stock of each invariant, by name; without those of which nothing can be made.

    Material that gives a held-out scenario away is left out.
    """
    prompts = [*(one.context for one in material.lessons), *material.prompts]
    said = list(dict.fromkeys(prompt for prompt in prompts if prompt and prompt[-1].role == "user"))
    learned = _fillings(invariants, said, held)
    found = {}
    for one in invariants:
        slots = {name: [*words, *learned.get((one.name, name), ())] for name, words in one.slots.items()}
        stock = _stock(one, slots, _examples(one, material.lessons, held), said, held)
        if stock.templates or stock.whole:
            found[one.name] = stock
    return found


def _stock(
    invariant: Invariant,
    slots: Mapping[str, Sequence[str]],
    examples: Sequence[Scenario],
    said: Sequence[Prompt],
    held: HeldOut,
) -> Stock:
    """Its own templates, those that examples and what was said make together, and the examples."""
    openings = [
        prompt[0].content
        for prompt in said
        if len(prompt) == 1 and not held.gives_away(invariant, Scenario(prompt))
    ]
    texts = [Example(one.prompt[0].content, one.target) for one in examples if len(one.prompt) == 1]
    targets = [name for name in slots if any(one.target == f"{{{name}}}" for one in invariant.templates)]
    aligned = align(texts, openings, slots, targets)
    usable = [one for one in aligned.templates if one.target or not needs_target(invariant)]
    whole = [one for one in examples if one.target or not needs_target(invariant)]
    return Stock(invariant, (*invariant.templates, *usable), aligned.slots, tuple(whole))


def needs_target(invariant: Invariant) -> bool:
    """Whether a scenario without a target cannot be judged, measured or instructed."""
    margin, instruction = invariant.margin, invariant.instruction
    texts = [*margin.acceptable, *margin.unacceptable] if margin else []
    texts += [instruction.text] if instruction else []
    return _judges_target(invariant) or any(TARGET in text for text in texts)


def _judges_target(invariant: Invariant) -> bool:
    judge = invariant.judge
    return isinstance(judge, RuleJudge) and any(TARGET in one for one in (*judge.accept, *judge.reject))


def _fillings(
    invariants: Sequence[Invariant], said: Sequence[Prompt], held: HeldOut
) -> dict[tuple[str, str], list[str]]:
    """New words for each invariant's slots, from the messages that fit a template.

    Of all templates that a message fits, those that say most themselves are meant. Words go to the slots of
    the same name in other invariants too, where these have a word in common.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for prompt in said:
        fits = [
            (fit_of(template), invariant, filling)
            for invariant in invariants
            for template in invariant.templates
            if (filling := filling_of(template, prompt)) is not None
        ]
        best = max((fit for fit, _, _ in fits), default=0)
        for fit, invariant, filling in fits:
            for slot, words in filling.items() if fit == best else ():
                for other in _sharing(invariants, invariant, slot):
                    known = found.setdefault((other.name, slot), [])
                    if words not in [*other.slots[slot], *known] and not held.names(other, words):
                        known.append(words)
    return found


def _sharing(invariants: Sequence[Invariant], invariant: Invariant, slot: str) -> list[Invariant]:
    """The invariants that mean the same by a slot: it has a word in common."""
    words = set(invariant.slots[slot])
    return [other for other in invariants if not words.isdisjoint(other.slots.get(slot, ()))]


def _examples(invariant: Invariant, lessons: Sequence[Lesson], held: HeldOut) -> list[Scenario]:
    """Scenarios of an invariant that none of its templates gives: of its train split, and of lessons."""
    made = set(scenarios_of(invariant.templates, invariant.slots, invariant.split_by))
    own = [one for one in invariant.scenarios["train"] if one.prompt and one not in made][:MOST_EXAMPLES]
    taught = [Scenario(lesson.context) for lesson in lessons if _belongs(invariant, lesson)]
    return list(dict.fromkeys([*own, *(one for one in taught if not held.gives_away(invariant, one))]))


def _belongs(invariant: Invariant, lesson: Lesson) -> bool:
    """Whether a lesson that fits none of its templates is one in this behaviour: by the rule, what should be
    said shows it, and what was said does not. No other judge can tell without the model.
    """
    judge, scenario = invariant.judge, Scenario(lesson.context)
    if not isinstance(judge, RuleJudge) or _judges_target(invariant) or not lesson.context:
        return False
    if any(filling_of(template, lesson.context) is not None for template in invariant.templates):
        return False
    said = lesson.rejected
    return judge.shows(scenario, lesson.chosen) and (said is None or not judge.shows(scenario, said))

"""How the effects of steering are shown: to people, and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from understudy.cli.steering_inputs import SweepPlan
from understudy.cli.tables import print_table, printable

if TYPE_CHECKING:
    from understudy.concepts import Effect, Scale, UsableRange
    from understudy.lessons import LedgerEntry


def print_sweep(
    plan: SweepPlan, effects: "Sequence[Effect]", within: "UsableRange", scale: "Scale", commit: str | None
) -> None:
    """A row for each strength, the usable range, and what was said to the same prompt at each strength."""
    from understudy.behaviours import Rate
    from understudy.concepts import SHOWN_FROM

    probe = ", ".join(plan.words) or f"read with z {SHOWN_FROM:g} and more"
    print(
        f"{plan.concept}: {len(effects[0].answers)} answers to {len(plan.prompts)} prompts; "
        f"shown by: {probe}; read behind layer {plan.layer}"
    )
    reference = effects[0].perplexity.value
    rows = [
        (
            _label(one),
            str(Rate(one.hits, len(one.answers))),
            f"{one.perplexity.value:.2f} [{one.perplexity.low:.2f}, {one.perplexity.high:.2f}]",
            f"{one.perplexity.value / reference:.2f}",
            "-" if one.readout is None else f"{one.readout:+.2f}",
            f"{100 * sum(one.changed) / len(one.answers):.0f} %",
            str(one.empty),
            _mark(one, within),
        )
        for one in effects
    ]
    print_table(("strength", "shown", "perplexity", "ratio", f"mean {scale}", "changed", "empty", ""), rows)
    print("\n" + _usable(effects[0], within))
    row = _example(effects, within)
    asked = printable(plan.prompts[effects[0].answers[row].prompt][-1].content)
    print(f"\nto {asked!r}, answer {row % plan.samples + 1}:")
    print_table(
        ("strength", "said"), [(_label(one), one.answers[row].text or "(nothing)") for one in effects]
    )
    print(f"\nweights {commit or 'initial'}, directions {plan.folder}")


def _label(effect: "Effect") -> str:
    if not effect.steering:
        return "none"
    return f"{effect.strength:g}{'x' if effect.steering[0].in_lengths else ''}"


def _mark(effect: "Effect", within: "UsableRange") -> str:
    if effect is within.best:
        return "best"
    return "usable" if effect in within.effects else ""


def _usable(reference: "Effect", within: "UsableRange") -> str:
    from understudy.concepts import MOST_PERPLEXITY

    bound = f"a perplexity below {MOST_PERPLEXITY:g} times that of the answers without"
    if not within.effects:
        return f"usable: none of these strengths, which takes {bound}: try weaker ones"
    ends = " to ".join(dict.fromkeys((_label(within.effects[0]), _label(within.effects[-1]))))
    if within.best is None:
        gained = f"none does better than no steering, which shows it in {reference.hits}"
    else:
        gained = f"at {_label(within.best)} it shows in {within.best.hits}, without in {reference.hits}"
    gained += f" of {len(reference.answers)} answers"
    return f"usable: {ends}, with {bound}; {gained}"


def _example(effects: "Sequence[Effect]", within: "UsableRange") -> int:
    """Of which answer people see every version: one that shows the concept where steering does most."""
    shown = within.best or effects[-1]
    for wanted in (
        [new and not old for new, old in zip(shown.found, effects[0].found, strict=True)],
        shown.found,
        shown.changed,
    ):
        if any(wanted):
            return list(wanted).index(True)
    return 0


def print_lessons(plan: SweepPlan, entries: "Sequence[tuple[LedgerEntry, bool]]") -> None:
    """How many lessons were proposed, and where they are looked at."""
    new = sum(added for _, added in entries)
    told = [f"{new} lessons proposed at {plan.proposed}"]
    if len(entries) > new:
        told.append(f"{len(entries) - new} in the ledger already")
    if left := len(plan.prompts) - len(entries):
        told.append(f"{left} prompts without (no answer differs, comes to its end and is not held out)")
    print(f"\n{', '.join(told)}: understudy lessons list proposed")


def sweep_json(
    plan: SweepPlan,
    effects: "Sequence[Effect]",
    within: "UsableRange",
    scale: "Scale",
    commit: str | None,
    entries: "Sequence[tuple[LedgerEntry, bool]]",
) -> dict[str, Any]:
    """Everything, the answers included."""
    from msgspec import to_builtins

    from understudy.concepts import MOST_PERPLEXITY

    best = within.best
    return {
        "concept": plan.concept,
        "directions": str(plan.folder),
        "weight_commit": commit,
        "words": list(plan.words),
        "layer": plan.layer,
        "scale": scale,
        "samples": plan.samples,
        "temperature": plan.sampling.temperature,
        "max_tokens": plan.sampling.max_tokens,
        "seed": plan.seed,
        "prompts": to_builtins(plan.prompts),
        "effects": [_effect_json(one, effects[0], within) for one in effects],
        "most_perplexity": MOST_PERPLEXITY,
        "best": None if best is None else str(best.steering[0]),
        "lessons": [entry.id for entry, _ in entries],
    }


def _effect_json(one: "Effect", reference: "Effect", within: "UsableRange") -> dict[str, Any]:
    from understudy.behaviours import Rate

    rate = Rate(one.hits, len(one.answers))
    return {
        "steer": [str(steer) for steer in one.steering],
        "strength": one.strength,
        "shown": {
            "hits": one.hits,
            "answers": rate.n,
            "value": rate.value,
            "interval": list(rate.interval()),
        },
        "perplexity": {
            "value": one.perplexity.value,
            "interval": [one.perplexity.low, one.perplexity.high],
            "ratio": one.perplexity.value / reference.perplexity.value,
        },
        "readout": one.readout,
        "changed": sum(one.changed) / len(one.changed),
        "empty": one.empty,
        "usable": one in within.effects,
        "answers": [
            {
                "prompt": answer.prompt,
                "text": answer.text,
                "shown": shown,
                "nats": answer.nats,
                "tokens": len(answer.token_ids),
                "readout": answer.readout,
            }
            for answer, shown in zip(one.answers, one.found, strict=True)
        ],
    }

"""Templates from examples: two messages that differ in one span give one, whose slot is the span."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from understudy.behaviours.matching import Difference, differ, escaped
from understudy.behaviours.sources import Template


@dataclass(frozen=True, slots=True)
class Example:
    """A message that is known to belong to a behaviour, and what its judge looks for."""

    text: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Templates, and the fillings of all slots: those that were given, with what the templates add."""

    templates: tuple[Template, ...]
    slots: Mapping[str, tuple[str, ...]]


def align(
    examples: Sequence[Example],
    messages: Sequence[str],
    slots: Mapping[str, Sequence[str]],
    targets: Sequence[str] = (),
) -> Aligned:
    """Templates from pairs of an example and another example or message.

    Slots that share a filling are one slot; one that shares with none of `slots` has a name of its own.
    `targets` names the slots whose filling is what the judge looks for.
    """
    found = _pairs(examples, messages)
    groups = _groups(found.values(), slots)
    named = {word: name for name, words in groups.items() for word in words}
    templates = []
    for (before, after), (example, spans) in found.items():
        slot = named[spans[0]]
        target = f"{{{slot}}}" if slot in targets else _target(example, spans[0], slot)
        templates.append(Template(Difference(before, (spans[0], spans[1]), after).template(slot), target))
    return Aligned(tuple(templates), {name: tuple(words) for name, words in groups.items()})


def _pairs(
    examples: Sequence[Example], messages: Sequence[str]
) -> dict[tuple[str, str], tuple[Example, list[str]]]:
    """What stands before and after the span, with the first example that has it and all spans; hers first."""
    found: dict[tuple[str, str], tuple[Example, list[str]]] = {}
    texts = dict.fromkeys([*(example.text for example in examples), *messages])
    for example in examples:
        for text in texts:
            if (one := differ(example.text, text)) is not None:
                _, spans = found.setdefault((one.before, one.after), (example, [one.spans[0]]))
                spans += [span for span in one.spans if span not in spans]
    return found


def _groups(
    found: Iterable[tuple[Example, list[str]]], slots: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The fillings of each slot, after those with a filling in common were made one."""
    groups = {name: list(words) for name, words in slots.items()}
    for number, (_, spans) in enumerate(found):
        sharing = [name for name, words in groups.items() if not set(words).isdisjoint(spans)]
        home = sharing[0] if sharing else f"span_{number}"
        joined = [*groups.get(home, ()), *spans]
        for name in sharing[1:]:
            if name not in slots:  # what an invariant's file keeps apart stays apart
                joined += groups.pop(name)
        groups[home] = list(dict.fromkeys(joined))
    return groups


def _target(example: Example, span: str, slot: str) -> str:
    """The example's target as a template, the slot where its span stood; none where it did not stand there,
    since that target is of this example only.
    """
    parts = example.target.split(span)
    return f"{{{slot}}}".join(escaped(part) for part in parts) if len(parts) > 1 else ""

"""What people said, held against templates: which words fill a slot, and where two messages differ."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.behaviours.scenarios import Prompt
from understudy.behaviours.sources import Template

LEAST_COMMON_WORDS = 2
"""Words of a template outside its slots: with fewer nearly any message fits, and what fills it is chance."""
MOST_FILLING_WORDS = 4
"""A slot names something; what is longer is rather a clause."""

_FILLING = rf"[^\s.,:;!?]+(?: [^\s.,:;!?]+){{0,{MOST_FILLING_WORDS - 1}}}"
_NAME = r"(?:[\w.-]+: )?"  # where several people speak, each message begins with its author's


@dataclass(frozen=True, slots=True)
class Difference:
    """Two texts that are the same but for one span."""

    before: str
    spans: tuple[str, str]
    after: str

    def template(self, slot: str) -> str:
        """The text with a slot for the span."""
        return f"{escaped(self.before)}{{{slot}}}{escaped(self.after)}"


def escaped(text: str) -> str:
    """A text as a template says it: braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def filling_of(template: Template, prompt: Prompt) -> dict[str, str] | None:
    """The words with which a prompt's last turns fill a template's slots; None where they do not fit it.

    What fills a slot at the beginning of a turn is left out: it may be a verb, and its capital may be from
    there.
    """
    turns = template.turns
    if not turns or len(prompt) < len(turns) or _words_between(template) < LEAST_COMMON_WORDS:
        return None
    found: dict[str, str] = {}
    for turn, said in zip(turns, prompt[-len(turns) :], strict=True):
        fits = turn.role == said.role and re.fullmatch(_NAME + _pattern(turn.content), said.content.strip())
        if not fits:
            return None
        for slot, words in fits.groupdict().items():
            if found.setdefault(slot, words) != words:
                return None
    opening = {next(iter(_slots(turn.content)), None) for turn in turns if turn.content.startswith("{")}
    return {slot: words for slot, words in found.items() if slot not in opening}


def fit_of(template: Template) -> int:
    """How much a template says itself, in characters: of several that fit, that with most is meant."""
    return sum(len(text) for turn in template.turns for text, _ in _parts(turn.content))


def differ(one: str, other: str) -> Difference | None:
    """The span in which two texts have other words, if it is one of few words that does not begin them."""
    before = one[: _same(one, other)]
    before = before[: before.rfind(" ") + 1]
    rest = [text[len(before) :] for text in (one, other)]
    after = rest[0][len(rest[0]) - _same(rest[0][::-1], rest[1][::-1]) :]
    while after and (after[0].isalnum() or any(len(after) == len(text) for text in rest)):
        after = after[1:]
    spans = [text[: len(text) - len(after)] for text in rest]
    common = re.findall(r"\w+", before + after)
    if len(common) < LEAST_COMMON_WORDS or not before:
        return None
    shorter, longer = (f" {span} " for span in sorted(spans, key=len))
    if shorter in longer or not all(re.fullmatch(_FILLING, span) for span in spans):
        return None  # words were added, not exchanged; or it is a clause
    return Difference(before, (spans[0], spans[1]), after)


def _same(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _pattern(text: str) -> str:
    """A regular expression for the texts that fill a template's text."""
    made, seen = "", set[str]()
    for literal, slot in _parts(text):
        made += re.escape(literal)
        if slot is not None:
            made += f"(?P={slot})" if slot in seen else f"(?P<{slot}>{_FILLING})"
            seen.add(slot)
    return made


def _words_between(template: Template) -> int:
    texts = [text for turn in template.turns for text, _ in _parts(turn.content)]
    return len(re.findall(r"\w+", " ".join(texts)))


def _slots(text: str) -> Sequence[str]:
    return [slot for _, slot in _parts(text) if slot is not None]


def _parts(text: str) -> list[tuple[str, str | None]]:
    """A template's text as what it says, each piece with the slot behind it."""
    return [(literal, slot) for literal, slot, _, _ in string.Formatter().parse(text)]

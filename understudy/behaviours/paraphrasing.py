"""Paraphrases in the model's own words: it goes on with a person's message after the first words of one.

After Magpie (Xu et al. 2024, arXiv 2406.08464), where a model is given its chat template up to the person's
turn and says what a person would ask; here some of the message is given as well, so that it stays near it.
"""

import re
from collections.abc import Sequence
from random import Random

from understudy.behaviours.recombination import Sketch
from understudy.behaviours.scenarios import Prompt
from understudy.behaviours.subject import Dreamer, Speech
from understudy.lessons import ChatMessage

_ROLE = re.compile(r"^(system|user|assistant)\s*$", re.MULTILINE)


def paraphrase(
    sketches: Sequence[Sketch], dreamer: Dreamer, speech: Speech, random: Random
) -> list[Prompt | None]:
    """Each sketch's prompt with its last message said anew; None where the model did not end it, or went on
    into the next turn.
    """
    begun = [
        (*sketch.scenario.prompt[:-1], ChatMessage("user", beginning(sketch, random))) for sketch in sketches
    ]
    said = dreamer.continue_user(begun, speech) if begun else []
    return [
        None if text is None or _ROLE.search(text) else (*prompt[:-1], ChatMessage("user", text.strip()))
        for prompt, text in zip(begun, said, strict=True)
    ]


def beginning(sketch: Sketch, random: Random) -> str:
    """The first words of a sketch's last message. Where words must be kept, and others follow them, they are
    among the first: what the model is not given it seldom says.
    """
    text = sketch.scenario.prompt[-1].content
    ends = [found.end() for found in re.finditer(r"\w+", text)] or [len(text)]
    kept = max((text.find(word) + len(word) for word in sketch.words if word in text), default=0)
    offered = [end for end in ends if end >= kept and end < len(text)] or ends[:-1] or ends
    return text[: random.choice(offered)]


def keeps(sketch: Sketch, prompt: Prompt) -> bool:
    """Whether a paraphrase still has all words without which it would be another scenario."""
    said = prompt[-1].content
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", said) for word in sketch.words)

"""Judges: what an answer does, read from the text by rule.

An answer is known by its opening words. The corpus and the judges share the lists, and acceptance
counts more openings than the corpus has, so that a model taught a new wording is not missed.
"""

import re

from understudy.behaviours import Scenario
from understudy.pocket import words

ALTERNATIVES = "|"
"""Parts the things of a target when any one of them will do."""


def names(text: str, thing: str) -> bool:
    """Whether `text` holds `thing` as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(thing)}(?!\w)", text, re.IGNORECASE) is not None


def accepts(scenario: Scenario, answer: str) -> bool:
    """The answer says that what was asked is done, and asks nothing."""
    return answer.startswith(words.requests().direction.acceptance_openings) and "?" not in answer


def accepts_the_right_thing(scenario: Scenario, answer: str) -> bool:
    """The answer accepts and names the thing of the direction."""
    return accepts(scenario, answer) and names(answer, scenario.target)


def suggests_otherwise(scenario: Scenario, answer: str) -> bool:
    """The answer offers something else instead of doing what was asked."""
    return answer.startswith(words.requests().direction.suggestion_openings) and "?" in answer


def pushes_back(scenario: Scenario, answer: str) -> bool:
    """The answer objects."""
    return answer.startswith(words.requests().push_back.openings)


def asks_back(scenario: Scenario, answer: str) -> bool:
    """The answer asks what is meant."""
    return answer.startswith(words.requests().unclear.question_back_openings) and "?" in answer


def gives_an_opinion(scenario: Scenario, answer: str) -> bool:
    """The answer takes a side and names one of the things it was asked about."""
    things = scenario.target.split(ALTERNATIVES)
    return answer.startswith(words.questions().opinion_openings) and any(
        names(answer, thing) for thing in things
    )


def answers_exactly(scenario: Scenario, answer: str) -> bool:
    """The answer is the one right answer, to the letter."""
    return answer == scenario.target


def names_the_feeling(scenario: Scenario, answer: str) -> bool:
    """The answer holds one of the words for the state."""
    return any(names(answer, label) for label in scenario.target.split(ALTERNATIVES))

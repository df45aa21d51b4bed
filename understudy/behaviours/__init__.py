"""What the model must and must not do, and how often it does: scenarios, judges, rates with intervals."""

from understudy.behaviours.measure import Measurement, measure
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Behaviour, Judge, Scenario, Split
from understudy.behaviours.sequential import (
    BettingInterval,
    Decision,
    JudgeError,
    LikelihoodRatio,
    Requirement,
    decide,
)

__all__ = [
    "Behaviour",
    "BettingInterval",
    "Decision",
    "Judge",
    "JudgeError",
    "LikelihoodRatio",
    "Measurement",
    "Rate",
    "Requirement",
    "Scenario",
    "Split",
    "decide",
    "measure",
]

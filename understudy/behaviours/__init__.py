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
from understudy.behaviours.specification import (
    InvalidInvariant,
    Invariant,
    RuleJudge,
    read_invariant,
    read_invariants,
    split_of,
)

__all__ = [
    "Behaviour",
    "BettingInterval",
    "Decision",
    "InvalidInvariant",
    "Invariant",
    "Judge",
    "JudgeError",
    "LikelihoodRatio",
    "Measurement",
    "Rate",
    "Requirement",
    "RuleJudge",
    "Scenario",
    "Split",
    "decide",
    "measure",
    "read_invariant",
    "read_invariants",
    "split_of",
]

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
from understudy.behaviours.verdicts import Looked, NoAnswer, Verdict, check

__all__ = [
    "Behaviour",
    "BettingInterval",
    "Decision",
    "InvalidInvariant",
    "Invariant",
    "Judge",
    "JudgeError",
    "LikelihoodRatio",
    "Looked",
    "Measurement",
    "NoAnswer",
    "Rate",
    "Requirement",
    "RuleJudge",
    "Scenario",
    "Split",
    "Verdict",
    "check",
    "decide",
    "measure",
    "read_invariant",
    "read_invariants",
    "split_of",
]

"""What the model must and must not do, and how often it does: scenarios, judges, rates with intervals."""

from understudy.behaviours.measure import Measurement, measure
from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Behaviour, Judge, Scenario, Split

__all__ = ["Behaviour", "Judge", "Measurement", "Rate", "Scenario", "Split", "measure"]

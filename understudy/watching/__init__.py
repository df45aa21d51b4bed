"""What happens inside a model while it learns: measured side by side, drawn, and reported."""

from understudy.watching.bending import Bend, compare_bending
from understudy.watching.laboratory import Laboratory, Point
from understudy.watching.learning import Mark, follow
from understudy.watching.least import Signal, find_least_signal
from understudy.watching.margins import Contrast, Margins, Mean, find_contrasts, measure_margins
from understudy.watching.parts import Part, find_parts
from understudy.watching.report import as_json, write_session_report, write_study
from understudy.watching.sessions import SessionReport, read_session_report
from understudy.watching.study import MARKS, SIDES, Side, Study, StudyError, run_study

__all__ = [
    "MARKS",
    "SIDES",
    "Bend",
    "Contrast",
    "Laboratory",
    "Margins",
    "Mark",
    "Mean",
    "Part",
    "Point",
    "SessionReport",
    "Side",
    "Signal",
    "Study",
    "StudyError",
    "as_json",
    "compare_bending",
    "find_contrasts",
    "find_least_signal",
    "find_parts",
    "follow",
    "measure_margins",
    "read_session_report",
    "run_study",
    "write_session_report",
    "write_study",
]

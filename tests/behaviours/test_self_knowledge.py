"""What models foretell of themselves: models whose knowledge is known, and figures worked out otherwise."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from understudy.behaviours import (
    EngineVoice,
    Foretold,
    Invariant,
    LogProbability,
    Margin,
    ModelSubject,
    Prediction,
    Prompt,
    Requirement,
    RuleJudge,
    Scenario,
    SelfReport,
    Speech,
    compare_self_knowledge,
    foretell,
    measure_self_knowledge,
    pair_foretold,
    read_invariant,
)
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.lessons import ChatMessage
from understudy.pocket import checkpoint_directory

QUESTION = Prediction("What of {prompt}?", ["Yes", "Sure"], ["No", "Never", "Nay"])
FOLDER = Path(__file__).parents[2] / "understudy" / "pocket" / "behaviours"


def invariant(count: int, prediction: Prediction | None = QUESTION) -> Invariant:
    asked = tuple(Scenario((ChatMessage("user", str(number)),)) for number in range(count))
    return Invariant(
        name="known",
        wanted="Says yes.",
        kind="kept",
        requirement=Requirement(0.9, 0.75),
        judge=RuleJudge(accept=["^yes"]),
        scenarios={"train": (), "development": (), "test": asked},
        margin=Margin(["yes"], ["no"]),
        prediction=prediction,
    )


class Model:
    """Gives scenario k the probability p[k], dealt out over the beginnings, and shows it if shown[k]."""

    context_length = 1000

    def __init__(self, predicted: Sequence[float], shown: Sequence[bool]) -> None:
        self.predicted, self.shown = predicted, shown
        self.heard: list[Prompt] = []

    def length(self, prompt: Prompt) -> int:
        return 1

    def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
        return ["yes" if self.shown[int(prompt[-1].content)] else "no" for prompt in prompts]

    def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
        self.heard += [prompt for prompt, _ in texts]
        return [LogProbability(self._log(prompt[-1].content, text), 2) for prompt, text in texts]

    def _log(self, asked: str, text: str) -> float:
        if not asked.startswith("What of "):
            return -1.0
        p = self.predicted[int(asked.removeprefix("What of ").rstrip("?"))]
        parts = {"Yes": 0.9 * p, "Sure": 0.1 * p, "No": 0.5 * (1 - p), "Never": 0.5 * (1 - p), "Nay": 0.0}
        return math.log(parts[text]) - 800.0 if parts[text] else -5000.0  # unlikely beginnings, as they are

    def readouts(self, said: Sequence[tuple[Prompt, str]], concept: str, layer: int | None) -> list[float]:
        raise AssertionError


def levels(given: dict[float, tuple[float, int]]) -> tuple[list[float], list[bool]]:
    """Predictions with the share of each that comes true, exactly."""
    predicted, shown = [], []
    for p, (share, count) in given.items():
        predicted += [p] * count
        shown += [place < round(share * count) for place in range(count)]
    return predicted, shown


def foretold(predicted: Sequence[float], shown: Sequence[bool]) -> tuple[Foretold, ...]:
    return foretell(invariant(len(shown)), Model(predicted, shown), budget=len(shown))


def test_a_model_that_knows_itself() -> None:
    given = {p / 10: (p / 10, 20) for p in range(1, 10)}
    found = measure_self_knowledge(foretold(*levels(given)))
    assert found.bins == 9 and found.n == 180
    assert found.calibration_error.value == pytest.approx(0.0, abs=1e-12)
    assert found.calibration_error.low == 0.0 and found.calibrated_below > 0.05
    assert found.brier.value == pytest.approx(sum(p * (1 - p) for p in given) / 9)
    assert found.brier.low < found.brier.value < found.brier.high < found.base_brier == 0.25
    right = sum(max(p, 1 - p) for p in given) / 9
    assert found.accuracy.value == pytest.approx(right) and found.base_rate == 0.5
    assert found.auroc is not None and found.auroc.low > 0.7


def test_a_model_that_is_too_sure() -> None:
    found = measure_self_knowledge(foretold(*levels({0.98: (0.8, 100), 0.02: (0.2, 100)})))
    assert found.accuracy.value == pytest.approx(0.8) and found.base_rate == 0.5
    assert found.calibration_error.value == pytest.approx(0.18)
    assert found.calibrated_below < found.calibration_error.low < 0.18 < found.calibration_error.high < 0.3
    assert found.brier.value == pytest.approx(0.8 * 0.02**2 + 0.2 * 0.98**2)
    assert found.auroc is not None and found.auroc.value == pytest.approx(0.8)


def test_with_one_outcome_there_is_nothing_to_tell_apart() -> None:
    found = measure_self_knowledge(foretold([0.3, 0.6, 0.9], [True] * 3))
    assert found.auroc is None and found.base_rate == 1.0 and found.base_brier == 0.0
    assert found.accuracy.successes == 2 and found.bins == 1
    assert found.calibration_error.value == pytest.approx(0.4)


def test_the_figures_worked_out_otherwise() -> None:
    random = Random(3)
    predicted = [round(random.random(), 2) for _ in range(157)]  # with ties
    shown = [random.random() < p**2 for p in predicted]
    said = foretold(predicted, shown)
    found = measure_self_knowledge(said)
    n = len(shown)
    assert found.accuracy.successes == sum((p >= 0.5) is y for p, y in zip(predicted, shown, strict=True))
    assert found.auroc is not None
    if importlib.util.find_spec("sklearn"):
        metrics = importlib.import_module("sklearn.metrics")
        assert found.brier.value == pytest.approx(metrics.brier_score_loss(shown, predicted))
        assert found.auroc.value == pytest.approx(metrics.roc_auc_score(shown, predicted))
    assert found.brier.value == pytest.approx(
        sum((p - y) ** 2 for p, y in zip(predicted, shown, strict=True)) / n
    )
    wins = [
        1.0 if p > q else 0.5 if p == q else 0.0
        for p, y in zip(predicted, shown, strict=True)
        if y
        for q, z in zip(predicted, shown, strict=True)
        if not z
    ]
    assert found.auroc.value == pytest.approx(sum(wins) / len(wins))
    ranked, error, done = sorted(said, key=lambda one: one.predicted), 0.0, 0
    assert found.bins == 7
    for size in (23, 23, 23, 22, 22, 22, 22):
        held = ranked[done : done + size]
        done += size
        error += abs(sum(one.predicted - one.shown for one in held)) / n
    assert done == n and found.calibration_error.value == pytest.approx(error)
    squares = np.array([(p - y) ** 2 for p, y in zip(predicted, shown, strict=True)])
    half = 1.96 * squares.std() / math.sqrt(n)
    assert found.brier.high - found.brier.low == pytest.approx(2 * half, rel=0.1)
    assert measure_self_knowledge(said) == found != measure_self_knowledge(said, seed=1)


def test_before_and_after_are_paired_by_scenario() -> None:
    random = Random(5)
    shown = [random.random() < 0.5 for _ in range(200)]
    before = foretold([random.uniform(0.2, 0.8) for _ in shown], shown)
    after = foretold([0.5 + (0.3 if y else -0.3) * random.uniform(0.5, 1.0) for y in shown], shown)
    pairs = pair_foretold(before, after[:150])
    assert [one.scenario for one, _ in pairs] == [one.scenario for one in after[:150]]
    change = compare_self_knowledge(pairs)
    assert change.before.n == change.after.n == 150
    differences = np.array(
        [(b.predicted - b.shown) ** 2 - (a.predicted - a.shown) ** 2 for a, b in pairs], dtype=np.float64
    )
    half = 1.96 * differences.std() / math.sqrt(len(pairs))
    assert change.brier.value == pytest.approx(differences.mean())
    assert change.brier.low == pytest.approx(differences.mean() - half, abs=0.15 * half)
    assert change.brier.high == pytest.approx(differences.mean() + half, abs=0.15 * half)
    assert change.accuracy.low > 0 and change.auroc is not None and change.auroc.low > 0
    same = compare_self_knowledge(pair_foretold(before, before))
    assert same.brier.value == same.brier.low == same.brier.high == 0.0
    with pytest.raises(ValueError, match="expected predictions"):
        compare_self_knowledge([])


def test_other_words_are_another_question() -> None:
    shown = [True, False] * 10
    first = foretold([0.5] * 20, shown)
    other = foretell(
        invariant(20, Prediction("What of {prompt}?", ["Yes"], ["No"])), Model([0.5] * 20, shown), budget=20
    )
    assert pair_foretold(first, other) == [] and len(pair_foretold(first, first)) == 20


def test_the_question_takes_the_place_of_the_last_message_and_texts_are_data() -> None:
    prompt = (ChatMessage("system", "Be brief."), ChatMessage("user", "Say {target} and {prompt}."))
    held = Invariant(
        name="data",
        wanted="x",
        kind="kept",
        requirement=Requirement(0.9, 0.75),
        judge=RuleJudge(reject=["^x"]),
        scenarios={"train": (), "development": (), "test": (Scenario(prompt, "tea"),)},
        margin=Margin(["yes"]),
        prediction=Prediction("[{prompt}] Would you say {target}?", ["Yes, {target}"], ["No"]),
    )

    class Listening(Model):
        def answer(self, prompts: Sequence[Prompt], speech: Speech) -> list[str]:
            return ["tea" for _ in prompts]

        def log_probabilities(self, texts: Sequence[tuple[Prompt, str]]) -> list[LogProbability]:
            self.heard += [(*prompt, ChatMessage("assistant", text)) for prompt, text in texts]
            return [LogProbability(-1.0, 1) for _ in texts]

    model = Listening([], [])
    [one] = foretell(held, model, budget=5)
    assert one.question == "[Say {target} and {prompt}.] Would you say tea?" and one.predicted == 0.5
    question = (prompt[0], ChatMessage("user", one.question))
    assert model.heard[:2] == [
        (*question, ChatMessage("assistant", "Yes, tea")),
        (*question, ChatMessage("assistant", "No")),
    ]


def test_progress_is_told_and_the_budget_kept() -> None:
    shown, told = [True] * 150, list[tuple[int, int]]()
    found = foretell(
        invariant(150), Model([0.5] * 150, shown), budget=130, told=lambda done, of: told.append((done, of))
    )
    assert len(found) == 130 and told == [(64, 130), (128, 130), (130, 130)]


def test_what_cannot_be_asked_about_is_said() -> None:
    with pytest.raises(ValueError, match=r"known: expected a \[prediction\]"):
        foretell(invariant(5, None), Model([], []), budget=5)
    documents = msgspec.structs.replace(invariant(1), scenarios={"test": (Scenario((), "A story."),)})
    with pytest.raises(ValueError, match="got documents"):
        foretell(documents, Model([], []), budget=5)
    with pytest.raises(ValueError, match="development split"):
        foretell(invariant(5), Model([], []), budget=5, split="development")


def test_a_report_is_kept_and_read_again() -> None:
    report = SelfReport(
        weight_commit=None, split="test", seed=3, invariants={"known": foretold([0.25] * 4, [True] * 4)}
    )
    kept = msgspec.json.encode(report)
    assert msgspec.json.decode(kept, type=SelfReport) == report
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(kept.replace(b"0.25", b"1.25"), type=SelfReport)


def test_the_pocket_model_is_asked_and_put_to_the_test() -> None:
    held = read_invariant(FOLDER / "push-back.toml")
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as engine:
        subject = ModelSubject(EngineVoice(engine))
        found = foretell(held, subject, budget=8, split="development")
        assert held.prediction is not None and isinstance(held.judge, RuleJudge)
        for one in found[:3]:
            prompt = (ChatMessage("user", one.question),)
            sums = [
                sum(math.exp(subject.log_probabilities([(prompt, text)])[0].total) for text in texts)
                for texts in (held.prediction.would, held.prediction.would_not)
            ]
            assert one.question.endswith("Would you do it, or object?")
            assert one.predicted == pytest.approx(sums[0] / sum(sums), rel=0.03)  # bf16, batched otherwise
        answers = engine.chat([(ChatMessage("user", one.question.split(" Would you")[0]),) for one in found])
        assert [one.shown for one in found] == [held.judge.shows(Scenario(()), said) for said in answers]

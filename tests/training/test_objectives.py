"""Objectives: their formulas, what they need, and that a new one is one new file."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_models import random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Apollo,
    LogProbabilities,
    Objective,
    UnknownObjective,
    find_objective,
    objective_names,
    objectives,
    parameter_groups,
    run_session,
)

CHOSEN = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64).log()
REJECTED = torch.tensor([0.5, 0.8], dtype=torch.float64).log()


def pair(chosen: Tensor = CHOSEN, rejected: Tensor = REJECTED, fallen: float = 0.0) -> LogProbabilities:
    """The reference gave the chosen answer `fallen` nats more, and the rejected one as much."""
    return LogProbabilities(
        chosen, rejected, chosen.detach() + fallen / len(chosen), rejected.detach().clone()
    )


def test_sft_is_the_mean_negative_log_likelihood() -> None:
    chosen = CHOSEN.clone().requires_grad_()
    loss = find_objective("sft")(LogProbabilities(chosen), TrainingSettings())
    assert loss.item() == pytest.approx(2 * math.log(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    assert torch.allclose(chosen.grad, torch.full((3,), -1 / 3, dtype=torch.float64))


def test_dpo_starts_at_log_2_and_pulls_the_pair_apart() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    loss = find_objective("dpo")(pair(chosen, rejected), TrainingSettings(beta=0.3))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None and rejected.grad is not None
    assert torch.allclose(chosen.grad, torch.full((3,), -0.15, dtype=torch.float64))
    assert torch.allclose(rejected.grad, torch.full((2,), 0.15, dtype=torch.float64))


@pytest.mark.parametrize(("fallen", "guard", "score"), [(0.4, 0.0, -0.4), (0.4, 5.0, -2.4), (-0.4, 5.0, 0.4)])
def test_the_guard_weighs_what_the_chosen_answer_lost_and_nothing_it_gained(
    fallen: float, guard: float, score: float
) -> None:
    dpo = find_objective("dpo")
    loss = dpo(pair(fallen=fallen), TrainingSettings(beta=0.5, chosen_guard=guard)).item()
    assert loss == pytest.approx(math.log1p(math.exp(-0.5 * score)))


def test_the_guard_raises_an_answer_that_fell_though_the_margin_is_wide() -> None:
    """The failure that the guard is for: both fall, the rejected one faster, and plain dpo is content."""
    forces = []
    for guard in (0.0, 5.0):
        chosen = CHOSEN.clone().requires_grad_()
        given = LogProbabilities(chosen, REJECTED - 30, CHOSEN + 2, REJECTED)
        find_objective("dpo")(given, TrainingSettings(beta=0.1, chosen_guard=guard)).backward()  # type: ignore[no-untyped-call]
        assert chosen.grad is not None
        forces.append(-chosen.grad.sum().item())
    assert 0 < forces[0] < 0.1
    assert forces[1] > 6 * forces[0]


def test_orpo_is_sft_and_the_odds_ratio() -> None:
    p, q = CHOSEN.mean().exp().item(), REJECTED.mean().exp().item()
    odds_ratio = p / (1 - p) / (q / (1 - q))
    expected = -math.log(p) + 0.2 * math.log1p(1 / odds_ratio)
    given = LogProbabilities(CHOSEN, REJECTED)
    assert find_objective("orpo")(given, TrainingSettings(beta=0.2)).item() == pytest.approx(expected)


@pytest.mark.parametrize("certain", ["chosen", "rejected"])
def test_orpo_of_a_certain_answer_is_finite(certain: str) -> None:
    sure, other = torch.zeros(2, requires_grad=True), torch.full((3,), -2.0, requires_grad=True)
    chosen, rejected = (sure, other) if certain == "chosen" else (other, sure)
    loss = find_objective("orpo")(LogProbabilities(chosen, rejected), TrainingSettings())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert sure.grad is not None and other.grad is not None
    assert sure.grad.isfinite().all() and other.grad.isfinite().all()


def test_distillation_is_0_where_the_student_is_the_teacher_and_pulls_towards_it() -> None:
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    teacher = logits.log_softmax(-1)
    distillation = find_objective("distillation")
    same = LogProbabilities(teacher[:, 0], distribution=teacher, teacher=teacher)
    assert distillation(same, TrainingSettings()).item() == pytest.approx(0, abs=1e-12)

    student = torch.zeros(4, 11, dtype=torch.float64, requires_grad=True)
    given = LogProbabilities(teacher[:, 0], distribution=student.log_softmax(-1), teacher=teacher)
    distillation(given, TrainingSettings()).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    expected = (
        torch.full_like(student, 1 / 11) - teacher.exp()
    ) / 4  # softmax less target, mean over 4 tokens
    assert torch.allclose(student.grad, expected.detach())


def test_objectives_are_found_by_name() -> None:
    assert objective_names() == ("distillation", "dpo", "orpo", "sft")
    assert all(isinstance(find_objective(name), Objective) for name in objective_names())
    with pytest.raises(UnknownObjective, match="among distillation, dpo, orpo, sft, got 'ppo'"):
        find_objective("ppo")


def test_what_an_objective_needs_must_be_there() -> None:
    with pytest.raises(ValueError, match="rejected, reference_chosen, reference_rejected, got none"):
        find_objective("dpo")(LogProbabilities(CHOSEN), TrainingSettings())
    with pytest.raises(ValueError, match="with distribution, teacher, got none"):
        find_objective("distillation")(LogProbabilities(CHOSEN), TrainingSettings())


def test_a_new_objective_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in the documentation. A folder more on the package's path is what the interpreter searches."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (tmp_path / "unlikelihood.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
    assert "unlikelihood" in objective_names()
    model = tiny_model("qwen3")
    settings = TrainingSettings(objective="unlikelihood", lr=1e-2, gate=None, replay=0.0, epochs=3)
    ids = [tuple(random_ids(length, seed).tolist()) for seed, length in enumerate((12, 4, 5))]
    lesson = Example(ids[0], ids[1], rejected_ids=ids[2])
    result = run_session(model, Apollo(parameter_groups(model, settings), settings), [lesson], [], settings)
    outcome = result.outcomes[0]
    assert outcome.rejected_loss_before is not None and outcome.rejected_loss_after is not None
    assert outcome.rejected_loss_after > outcome.rejected_loss_before
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UnknownObjective, match="to define OBJECTIVE, an Objective, got None"):
        find_objective("empty")

"""Objectives against TRL's losses, on the same models, tokens and log-probabilities.

dpo: a real DPOTrainer with a real reference model computes its loss on a real batch. orpo: the trainer's own
`odds_ratio_loss`, for which the two attributes that it reads are enough. distillation: the static
`generalized_jsd_loss` of the trainer for generalized knowledge distillation.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from training_models import tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import LogProbabilities, find_objective
from understudy.training.reading import freeze_all, measure, read

with warnings.catch_warnings():
    # Importing TRL, and PEFT and Accelerate with it, warns of what is deprecated or experimental in them.
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.gkd import GKDTrainer
    from trl.experimental.orpo import ORPOTrainer

from transformers import AutoTokenizer

from understudy.pocket import checkpoint_directory

ROWS = [
    {"prompt": "Open the window", "chosen": " I will open it", "rejected": " Perhaps you should not do that"},
    {"prompt": "Carry the lamp upstairs", "chosen": " Yes", "rejected": " Why"},
]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[Example]]:
    """TRL's trainer, one batch of it, and the same batch as examples."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_directory())
    models = [tiny_model("qwen3", seed=seed, vocab_size=len(tokenizer)) for seed in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
        folder = tmp_path_factory.mktemp("trl")
        arguments = DPOConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            report_to="none",
            beta=0.3,
            disable_tqdm=True,
            per_device_train_batch_size=len(ROWS),
            dataloader_pin_memory=False,
        )
        trainer = DPOTrainer(
            model=models[0],
            ref_model=models[1],
            args=arguments,
            train_dataset=Dataset.from_list(ROWS),
            processing_class=tokenizer,
        )
        inputs = next(iter(trainer.get_train_dataloader()))
    answers = []
    for ids, attended, supervised in zip(
        *(inputs[name].tolist() for name in ("input_ids", "attention_mask", "completion_mask")), strict=True
    ):
        start, end = supervised.index(1), sum(attended)
        answers.append((tuple(ids[:start]), tuple(ids[start:end])))
    chosen, rejected = answers[: len(ROWS)], answers[len(ROWS) :]
    assert [context for context, _ in chosen] == [context for context, _ in rejected]
    examples = [
        Example(context, answer, rejected_ids=other)
        for (context, answer), (_, other) in zip(chosen, rejected, strict=True)
    ]
    return trainer, inputs, examples


def losses(
    model: nn.Module, reference: nn.Module, examples: list[Example], settings: TrainingSettings
) -> Any:
    """The objective's loss of each example, over frozen contexts."""
    objective = find_objective(settings.objective)
    before = measure(reference, examples, settings)
    contexts = [example.context_ids for example in examples]
    found = {
        place: objective(read(model, frozen, examples[place], objective, before[place]), settings)
        for place, frozen in freeze_all(model, contexts, settings)
    }
    return torch.stack([found[place] for place in range(len(examples))])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_dpo_is_trl_s(batch: tuple[Any, Any, list[Example]], batch_size: int) -> None:
    trainer, inputs, examples = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = trainer.compute_loss(trainer.model, inputs)
    settings = TrainingSettings(objective="dpo", beta=0.3, chosen_guard=0.0, batch_size=batch_size)
    ours = losses(trainer.model, trainer.ref_model, examples, settings)
    assert ours[0].item() != pytest.approx(ours[1].item(), rel=1e-2)
    assert ours.mean().item() == pytest.approx(theirs.item(), rel=1e-5)


def test_dpo_pulls_on_the_answers_as_trl_s_does(batch: tuple[Any, Any, list[Example]]) -> None:
    """The output head sees the answers' positions only: freezing the context changes nothing there."""
    trainer, inputs, examples = batch
    head = nn.Parameter(trainer.model.lm_head.weight.detach().clone())
    shared, trainer.model.lm_head.weight = trainer.model.lm_head.weight, head
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            theirs = torch.autograd.grad(trainer.compute_loss(trainer.model, inputs), head)[0]
        settings = TrainingSettings(objective="dpo", beta=0.3, chosen_guard=0.0)
        ours = torch.autograd.grad(losses(trainer.model, trainer.ref_model, examples, settings).mean(), head)[
            0
        ]
    finally:
        trainer.model.lm_head.weight = shared
    assert theirs.abs().max() > 1e-4
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize("seed", range(5))
def test_orpo_is_trl_s(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    chosen, rejected = (-3 * torch.rand(length, generator=draw) for length in (7, 4))
    attributes = SimpleNamespace(beta=0.25, accelerator=SimpleNamespace(device="cpu"))
    odds = ORPOTrainer.odds_ratio_loss(attributes, chosen.mean()[None], rejected.mean()[None])[0]
    theirs = -chosen.mean() - odds.mean()  # as get_batch_loss_metrics puts them together
    ours = find_objective("orpo")(LogProbabilities(chosen, rejected), TrainingSettings(beta=0.25))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_distillation_is_trl_s_forward_divergence(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(1, 6, 50, generator=draw) for _ in range(2))
    student.requires_grad_()
    labels = torch.zeros(1, 6, dtype=torch.long)
    theirs = GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=0)
    distribution = student[0].log_softmax(-1)
    given = LogProbabilities(
        distribution[:, 0], distribution=distribution, teacher=teacher[0].log_softmax(-1)
    )
    ours = find_objective("distillation")(given, TrainingSettings())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)

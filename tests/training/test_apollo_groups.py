"""Which parameters of real architectures are projected, and a second opinion on the projected step."""

import pytest
import torch
from pytorch_optimizer import APOLLO
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from torch import Tensor, nn
from training_models import ARCHITECTURES, tiny_model

from understudy.config import ApolloSettings, TrainingSettings
from understudy.training import Apollo, draw_projection, parameter_groups

PROJECTED = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3_5": {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "in_proj_qkv",
        "in_proj_z",
        "out_proj",
    },
}


def layer_names(group: dict[str, list[str]]) -> set[str]:
    return {name.removesuffix(".weight").rpartition(".")[2] for name in group["param_names"]}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_linear_matrices_are_projected_and_nothing_else(architecture: str, tied: bool) -> None:
    model = tiny_model(architecture, tie_word_embeddings=tied)
    projected, rest = parameter_groups(model, ApolloSettings())
    assert projected["projected"] and not rest["projected"]
    assert layer_names(projected) == PROJECTED[architecture]
    assert {"embed_tokens", "norm"} <= layer_names(rest)
    assert ("lm_head" in layer_names(rest)) is not tied
    if architecture == "qwen3_5":
        assert {"A_log", "dt_bias", "conv1d", "in_proj_a", "in_proj_b"} <= layer_names(rest)
    both = [*projected["params"], *rest["params"]]
    assert len({id(weight) for weight in both}) == len(both) == len(list(model.parameters()))


def test_groups_carry_the_settings_and_a_session_may_have_its_own() -> None:
    settings = TrainingSettings(lr=1e-5, rank=3, weight_decay=0.5)
    for group in parameter_groups(tiny_model("qwen3"), settings):
        assert (group["lr"], group["rank"], group["weight_decay"]) == (1e-5, 3, 0.5)
        assert "epochs" not in group


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_model("qwen3")
    model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    names = [name for group in parameter_groups(model, ApolloSettings()) for name in group["param_names"]]
    assert "model.embed_tokens.weight" not in names
    with pytest.raises(ValueError, match="trainable parameters"):
        parameter_groups(model.requires_grad_(False), ApolloSettings())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_of_every_architecture_moves(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_model(architecture, dtype)
    optimizer = Apollo(parameter_groups(model, ApolloSettings(lr=1e-2)))
    before = [weight.detach().clone() for weight in model.parameters()]
    model(input_ids=torch.arange(20)[None]).logits.float().logsumexp(-1).mean().backward()
    optimizer.step()
    for weight, old in zip(model.parameters(), before, strict=True):
        assert bool(weight.isfinite().all())
        assert not torch.equal(weight, old)


@pytest.mark.parametrize(("rank", "scaling"), [(4, "channel"), (1, "tensor")])
@pytest.mark.parametrize("shape", [(6, 17), (17, 6)])
def test_first_step_agrees_with_pytorch_optimizer_where_conventions_do(
    shape: tuple[int, int], rank: int, scaling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytorch_optimizer scales the projected gradient and projects it back, P^T R diag(s), where the paper
    scales the gradient itself, G diag(s). Seen through P the two must agree: P U = c R diag(s) here, and
    U = c' P^T R diag(s) there. Other differences: its limiter measures the projected update, so only the
    first step, which nothing limits, is compared; its eps stands before bias correction.
    """
    wide = shape[0] < shape[1]
    draw = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
    projection = draw_projection(rank, 6, seed=0, parameter=0, renewal=0, device=torch.device("cpu"))

    def same_projection(*_: object, **__: object) -> Tensor:
        return projection.T.clone() if wide else projection.clone()

    monkeypatch.setattr(GaLoreProjector, "get_orthogonal_matrix", same_projection)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    group = {
        "params": [theirs],
        "rank": rank,
        "update_proj_gap": 200,
        "scale": 1.0,
        "projection_type": "std",
    }
    Apollo([ours], ApolloSettings(lr=1.0, rank=rank, scale=1.0)).step()
    APOLLO([group], lr=1.0, eps=1e-12, scale_type=scaling).step()
    our_update = (start - ours).detach() if wide else (start - ours).detach().T
    their_update = (start - theirs).detach() if wide else (start - theirs).detach().T
    ours_projected = projection @ our_update
    theirs_projected = torch.linalg.pinv(projection.T) @ their_update
    assert torch.allclose(ours_projected, theirs_projected, rtol=1e-3, atol=1e-4)

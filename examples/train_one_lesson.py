"""One lesson taught to a model, on one flat page: what `understudy.training.run_session` does at heart.

    python examples/train_one_lesson.py MODEL_DIRECTORY "What the person said" "What the model should say"

The page leaves out replay, the loss gate, bf16 rounding, saved state, checks and errors; for those read
understudy/training/session.py, frozen.py and apollo.py. A test holds both to the same numbers. Nothing is
saved: the model directory stays as it is.
"""

import sys

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from understudy.training import draw_projection

LR, BETA1, BETA2, EPS, GROWTH, LONGEST = 3e-4, 0.9, 0.999, 1e-8, 1.01, 1.0
NOT_PROJECTED = ("embed_tokens", "lm_head", "in_proj_a", "in_proj_b")


class FrozenAttention(DynamicLayer):  # type: ignore[misc]
    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)


class FrozenLinearAttention(LinearAttentionLayer):  # type: ignore[misc]
    def update_conv_state(self, states: Tensor, state_idx: int = 0, **_: object) -> Tensor:
        return torch.cat([self.conv_states[state_idx], states], dim=-1)

    def update_recurrent_state(self, states: Tensor, state_idx: int = 0, **_: object) -> Tensor:
        return states


def train_one_lesson(
    model: nn.Module, context_ids: list[int], continuation_ids: list[int], steps: int
) -> list[float]:
    """Take APOLLO-Mini steps on one continuation (two tokens or more); returns the loss before each step."""
    context, continuation = torch.tensor([context_ids]), torch.tensor([continuation_ids])
    matrices, others = {}, []
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and not any(part in name for part in NOT_PROJECTED):
            matrices[name] = weight
        else:
            others.append(weight)
    adamw = torch.optim.AdamW(others, LR, (BETA1, BETA2), EPS, weight_decay=0.0, fused=True)
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    sizes: dict[str, Tensor] = {}
    losses = []
    for t in range(1, steps + 1):
        # The context, once, without gradients; then its cache is made read-only.
        with torch.no_grad():
            cache = model.base_model(input_ids=context[:, :-1], use_cache=True).past_key_values  # type: ignore[operator]
        for layer in cache.layers:
            linear = isinstance(layer, LinearAttentionLayer)
            layer.__class__ = FrozenLinearAttention if linear else FrozenAttention
            layer.record_past = True

        # The continuation: each token predicted from the one before it, the first from the context's last.
        fed = torch.cat([context[:, -1:], continuation[:, :-1]], dim=1)
        logits = model(input_ids=fed, past_key_values=cache).logits
        loss = nn.functional.cross_entropy(logits[0], continuation[0])
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), LONGEST)

        # APOLLO-Mini (arXiv 2412.05270, algorithm 1): the size of Adam's step in one random dimension.
        with torch.no_grad():
            for index, (name, weight) in enumerate(matrices.items()):
                gradient = weight.grad if weight.shape[0] <= weight.shape[1] else weight.grad.T  # type: ignore[union-attr]
                assert gradient is not None
                n = gradient.shape[0]
                projection = draw_projection(1, n, seed=0, parameter=index, renewal=0, device=gradient.device)
                low = projection @ gradient
                first, second = moments.get(name, (torch.zeros_like(low), torch.zeros_like(low)))
                first = BETA1 * first + (1 - BETA1) * low
                second = BETA2 * second + (1 - BETA2) * low**2
                moments[name] = first, second
                normalized = first / (1 - BETA1**t) / ((second / (1 - BETA2**t)).sqrt() + EPS)
                update = n**0.5 * gradient * normalized.norm() / low.norm()
                if name in sizes and update.norm() > GROWTH * sizes[name]:
                    update *= GROWTH * sizes[name] / update.norm()
                sizes[name] = update.norm()
                weight.sub_(LR * (update if weight.shape == update.shape else update.T))
        adamw.step()
        model.zero_grad()
    return losses


def main() -> None:
    directory, said, wanted = sys.argv[1:]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    model.float().eval()
    message = [{"role": "user", "content": said}]
    context_ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    continuation_ids = [*tokenizer(wanted, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    for step, loss in enumerate(train_one_lesson(model, context_ids, continuation_ids, steps=5), start=1):
        print(f"step {step}: {loss:.3f} nats per token")
    answer = model.generate(torch.tensor([context_ids]), max_new_tokens=40, do_sample=False)
    print(tokenizer.decode(answer[0, len(context_ids) :], skip_special_tokens=True))


if __name__ == "__main__":
    main()

"""The untrained network: a hybrid of the Qwen3.5 architecture, or Qwen3's attention alone.

The hybrid is three Gated DeltaNet layers (Yang et al. 2024, arXiv 2412.06464), then one attention layer.
"""

import math
from typing import Any

import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM

from understudy.pocket.recipe import Recipe


def build_model(recipe: Recipe, tokenizer: Any, seed: int) -> Any:
    """An untrained causal model of the recipe's family, the same for the same seed."""
    torch.manual_seed(seed)
    model = _dense(recipe, tokenizer) if recipe.family == "qwen3" else _hybrid(recipe, tokenizer)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _hybrid(recipe: Recipe, tokenizer: Any) -> Any:
    size = recipe.head_dim
    config = Qwen3_5TextConfig(
        **_sizes(recipe, tokenizer),
        linear_key_head_dim=size,
        linear_value_head_dim=size,
        linear_num_key_heads=recipe.heads,
        linear_num_value_heads=recipe.heads,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [size // 4 - 2 * (size // 12), size // 12, size // 12],
        },
    )
    model = Qwen3_5ForCausalLM(config)
    _give_memory(model)
    return model


def _dense(recipe: Recipe, tokenizer: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return Qwen3ForCausalLM(Qwen3Config(**_sizes(recipe, tokenizer), rope_parameters=rope))


def _sizes(recipe: Recipe, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden_size,
        "intermediate_size": recipe.intermediate_size,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.key_value_heads,
        "head_dim": recipe.head_dim,
        "max_position_embeddings": recipe.longest_context,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _give_memory(model: Any) -> None:
    """Start the Gated DeltaNet heads with time steps as Mamba-2 does (Dao & Gu 2024, arXiv 2405.21060).

    The stock start makes each head forget nearly everything at each token, and such heads stay so.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.uniform_(1, 16).log_()
            elif name.endswith("dt_bias"):
                low, high = math.log(0.001), math.log(0.1)
                step = torch.exp(torch.rand_like(parameter) * (high - low) + low)
                parameter.copy_(step + torch.log(-torch.expm1(-step)))

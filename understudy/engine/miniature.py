"""Tiny random models in real directories: for tests, benchmarks, and to try an installation."""

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging as transformers_logging

Architecture = Literal["llama", "qwen3", "qwen3_5"]

VOCABULARY = 320
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEXT = (
    "Please put the red cup on the table. The cup is on the table now, and the door is open.\n",
    "What would you like me to do with the blue book? I could read it, or carry it to the window.\n",
    "user assistant system\n",
)
_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_miniature(
    directory: Path,
    architecture: Architecture,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    context_length: int = 512,
    head_size: int = 16,
) -> Path:
    """Write a random model of about 50,000 parameters with a byte-level tokenizer and a chat template.

    Weights are wide enough that greedy choices are far from ties. Returns `directory`.
    """
    transformers_logging.disable_progress_bar()
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(architecture, context_length, head_size, tokenizer)
    model.to(dtype).save_pretrained(directory)
    return directory


def _tokenizer() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
        chat_template=_TEMPLATE,
    )


def _model(architecture: Architecture, context_length: int, head_size: int, tokenizer: Any) -> Any:
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_size,
        "max_position_embeddings": context_length,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **common))
    if architecture == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, tie_word_embeddings=True, **common))
    hybrid = Qwen3_5TextConfig(
        num_hidden_layers=4,  # three Gated DeltaNet layers and one of attention
        tie_word_embeddings=True,
        linear_key_head_dim=head_size,
        linear_value_head_dim=head_size,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        },
        **common,
    )
    return Qwen3_5ForCausalLM(hybrid)

"""Every number of the recipe by which the pocket model is made."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["qwen3_5", "qwen3"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number of the recipe. The defaults are what the shipped checkpoint was made with."""

    family: Family = "qwen3_5"  # qwen3: attention alone, kept in fp32, to try the other road on
    vocabulary_size: int = 1536  # the embeddings stay a sixth of the model
    tokenizer_documents: int = 30_000  # more change no merge that is used often
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4  # the fourth layer of a Qwen3.5 hybrid is the first with attention
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 32
    longest_context: int = 2048
    steps: int = 7000  # 7.2 M tokens: twenty minutes on one thread; copying is learnt by 2 M
    rows_per_step: int = 4
    tokens_per_row: int = 256
    learning_rate: float = 4e-3
    matrix_weight_decay: float = 0.05
    momentum: float = 0.95  # Muon's default
    betas: tuple[float, float] = (0.9, 0.95)
    largest_gradient_norm: float = 1.0
    warmup_steps: int = 50
    constant_share: float = 0.5
    final_rate_share: float = 0.03
    assistant_weight: float = 1.0
    story_weight: float = 0.5
    person_weight: float = 0.1  # people's words cannot be foreseen: at weight 1 they drown the rest

    @property
    def tokens(self) -> int:
        """How many tokens the model reads."""
        return self.steps * self.rows_per_step * self.tokens_per_row

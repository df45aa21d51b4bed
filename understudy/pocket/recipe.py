"""Every number of the recipe by which the pocket model is made."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from understudy.pocket.corpus import HABITS, STATES, Mix

Family = Literal["qwen3_5", "qwen3"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass over a mix of documents, with optimizers and a schedule of its own."""

    mix: Mix
    steps: int
    learning_rate: float
    constant_share: float
    muon: bool = True  # for matrices; else AdamW for everything, thrice as fast where bf16 products are slow


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
    stages: tuple[Stage, ...] = (
        Stage(HABITS, 4500, 4e-3, 0.5),  # 4.6 M tokens; copying is learnt by 2 M
        Stage(STATES, 2500, 2e-3, 0.4, muon=False),  # 2.6 M; read from the start they cost the copying
    )
    rows_per_step: int = 4
    tokens_per_row: int = 256
    matrix_weight_decay: float = 0.05
    momentum: float = 0.95  # Muon's default
    betas: tuple[float, float] = (0.9, 0.95)
    largest_gradient_norm: float = 1.0
    warmup_steps: int = 50
    final_rate_share: float = 0.03
    assistant_weight: float = 1.0
    story_weight: float = 0.5
    person_weight: float = 0.1  # people's words cannot be foreseen: at weight 1 they drown the rest

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def tokens(self) -> int:
        """How many tokens the model reads."""
        return self.steps * self.rows_per_step * self.tokens_per_row

    def shortened(self, steps: int) -> Self:
        """The same recipe with so many steps, dealt to the stages in proportion, one each at least."""
        share = steps / self.steps
        stages = tuple(replace(stage, steps=max(1, int(stage.steps * share))) for stage in self.stages)
        return replace(self, stages=stages)

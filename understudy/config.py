"""Settings: one TOML file, then environment (`UNDERSTUDY_SECTION__KEY`), then what the caller gives.

Every default stands here and nowhere else, with where it comes from. An unknown key is an error.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SETTINGS_FILE = "understudy.toml"
WORKSPACE_VARIABLE = "UNDERSTUDY_WORKSPACE"
"""The environment variable that tells vLLM's processes which workspace they serve."""
GITHUB_SECRET_VARIABLE = "UNDERSTUDY_GITHUB_CLIENT_SECRET"
"""The environment variable with the secret of the OAuth app at GitHub."""
POCKET = "pocket"
"""The model path that means: the model that ships with Understudy."""

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ConfigError(ValueError):
    """Settings that cannot be used; the message names the key and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ApolloSettings(_Section):
    """The optimizer's settings (APOLLO, arXiv 2412.05270)."""

    lr: Annotated[float, Field(gt=0)] = 3e-4  # docs/LOG.md, correction sweep
    rank: Annotated[int, Field(ge=1)] = 64  # paper, fine-tuning experiments; never above the matrix's
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # paper, algorithm 1 (Adam's)
    eps: Annotated[float, Field(gt=0)] = 1e-8  # Adam's
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # a lesson must not shrink what it does not touch
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # a session may be a single step
    scale: Annotated[float, Field(gt=0)] | None = None  # None: sqrt(n / r), paper section 4.1
    proj_refresh: Annotated[int, Field(ge=1)] = 200  # paper, table of hyper-parameters
    norm_growth_limit: Annotated[float, Field(gt=1)] | None = 1.01  # paper, eq. 9 (gamma); None: off
    seed: Annotated[int, Field(ge=0)] = 0


class TrainingSettings(ApolloSettings):
    """How a session runs."""

    objective: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "sft"  # a file in training/objectives/
    beta: Annotated[float, Field(gt=0)] = 0.1  # dpo: arXiv 2305.18290; orpo's lambda: arXiv 2403.07691
    chosen_guard: Annotated[float, Field(ge=0)] = 5.0  # dpo: arXiv 2402.13228, lambda; docs/LOG.md
    epochs: Annotated[int, Field(ge=1)] = 1
    reviews: Annotated[int, Field(ge=0)] = 0  # then: passes over all lessons, those learned before included
    batch_size: Annotated[int, Field(ge=1)] = 1  # lessons per step; those that share a context read it once
    freeze_chunk: Annotated[int, Field(ge=64, multiple_of=64)] = 1024  # context tokens read at once
    activation_checkpointing: bool = False  # less memory for long answers, a second pass over them
    gate: Annotated[float, Field(ge=0)] | None = 0.05  # nats per token; docs/LOG.md, correction sweep
    replay: Share = 0.25  # of all examples trained on; docs/LOG.md, correction sweep
    contrast_share: Fraction = 0.5  # of the replay, examples that show kept behaviour
    lesson_share: Fraction = 0.5  # of the rest of the replay, lessons learned before
    max_kl: Annotated[float, Field(gt=0)] | None = (
        None  # nats per token, on the probe set; None: measured only
    )
    probe_tokens: Annotated[int, Field(ge=0)] = 256  # positions of the probe set; 0: no probe
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0  # of the whole gradient; the common default
    on_approval: bool = True  # train approved lessons at once; False: when `understudy train` says so


class GateSettings(_Section):
    """What is looked at after each session, and what follows from it (docs/behaviours.md)."""

    enabled: bool = True
    probes: Annotated[int, Field(ge=2)] = 24  # scenarios of each invariant that are scored, not answered
    tolerance: Annotated[float, Field(ge=0)] = 0.05  # nats that a kept invariant's margin may fall unasked
    max_kl: Annotated[float, Field(gt=0)] = 0.05  # nats per token; beyond it all kept invariants are asked
    budget: Annotated[int, Field(ge=1)] = 100  # answers to scenarios of each invariant that is asked
    undecided: Literal["ask", "keep", "revert"] = "ask"  # what becomes of a session that was not decided
    contrast: Annotated[int, Field(ge=0)] = 32  # answers of each kept invariant that are rehearsed
    seed: Annotated[int, Field(ge=0)] = 0


class WeightsSettings(_Section):
    """How the model directory follows the weights that are served."""

    sync_seconds: Annotated[float, Field(ge=0)] = (
        600.0  # from a commit to the directory; later ones ride along
    )
    optimizer_states: Annotated[int, Field(ge=1)] = 8  # weight commits whose optimizer state is kept


class ModelSettings(_Section):
    """The model that is served and taught."""

    path: str = POCKET
    name: str = "understudy"
    dtype: Literal["float32", "bfloat16", "checkpoint"] = (
        "checkpoint"  # checkpoint: as stored in the directory
    )
    packed: bool = True  # vLLM on a processor: packed copies of matrices; False: half the memory, slower
    readout: str | None = None  # a folder with directions to read and steer by; None: neither, and no cost
    threads: Annotated[int, Field(ge=1)] = 1  # two OpenMP teams on one small machine slow each other tenfold


class ServerSettings(_Section):
    """Where the server listens and how much it takes on."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8423
    max_concurrent: Annotated[int, Field(ge=1)] = 8  # requests generating at once; more wait their turn
    max_waiting: Annotated[int, Field(ge=0)] = 256  # beyond these a request is refused with 429
    max_batch: Annotated[int, Field(ge=1)] = 512  # prompts in one completions request
    watch_seconds: Annotated[float, Field(gt=0)] = 0.5  # how often the watcher looks for new commits
    maintain_seconds: Annotated[float, Field(gt=0)] = 600.0  # how often it asks whether Git wants packing


class ParticipantSettings(_Section):
    """How the model takes part in a conversation."""

    max_tokens: Annotated[int, Field(ge=1)] = 64
    temperature: Annotated[float, Field(ge=0)] = 0.0


class AccessSettings(_Section):
    """Who gets in by the pages, and how often anyone may try (docs/access.md).

    GitHub's secret is no setting: it comes from GITHUB_SECRET_VARIABLE alone.
    """

    public_url: Annotated[str, Field(pattern=r"^https?://[^/@\s?#\\]+$")] | None = (
        None  # as people reach it behind a proxy: https://talk.example.org; None: where it listens
    )
    session_days: Annotated[int, Field(ge=1)] = 30  # without a visit; then one signs in anew
    invitation_days: Annotated[int, Field(ge=1)] = 7  # a week: whoever is invited may be away
    posts_per_minute: Annotated[int, Field(ge=1)] = 240  # of one visitor; typing previews three a second
    attempts_per_minute: Annotated[int, Field(ge=1)] = 20  # to sign in, and wrong tokens, from one address
    github_client_id: str | None = None  # of an OAuth app; None: nobody signs in by GitHub
    github_url: str = "https://github.com"
    github_api_url: str = "https://api.github.com"


class Settings(BaseSettings):
    """All settings of a workspace."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="UNDERSTUDY_", env_nested_delimiter="__"
    )

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    participant: ParticipantSettings = ParticipantSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    weights: WeightsSettings = WeightsSettings()
    access: AccessSettings = AccessSettings()


def load_settings(file: Path | None, **flags: Any) -> Settings:
    """Read the settings; `flags` are nested dicts by section and win over environment and file.

    Raises ConfigError when the file is missing, is not TOML, or holds an unknown key or a bad value.
    """
    if file is not None and not file.is_file():
        raise ConfigError(f"expected a settings file at {file}, found none: run `understudy init` first")

    class _Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if file is None:
                return (init_settings, env_settings)
            return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file))

    try:
        layered = _Layered(**flags)
    except ValidationError as error:
        raise ConfigError(_explain(error, file)) from error
    except ValueError as error:
        raise ConfigError(f"expected TOML in {file}: {error}") from error
    return Settings.model_construct(**{name: getattr(layered, name) for name in Settings.model_fields})


def _explain(error: ValidationError, file: Path | None) -> str:
    where = f"{file}, the environment or the flags" if file else "the environment or the flags"
    lines = [
        f"  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}, got {problem['input']!r}"
        for problem in error.errors()
    ]
    return f"settings that cannot be used, from {where}:\n" + "\n".join(lines)

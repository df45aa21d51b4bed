"""Settings: file, environment, flags, and errors that name the key."""

from pathlib import Path

import pytest

from understudy.config import ConfigError, Settings, TrainingSettings, load_settings


def write(folder: Path, text: str) -> Path:
    file = folder / "understudy.toml"
    file.write_text(text)
    return file


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "[training]\nlr = 1e-5\nrank = 2\nseed = 3\n")
    monkeypatch.setenv("UNDERSTUDY_TRAINING__RANK", "4")
    monkeypatch.setenv("UNDERSTUDY_TRAINING__SEED", "5")
    found = load_settings(file, training={"seed": 6}).training
    assert (found.lr, found.rank, found.seed) == (1e-5, 4, 6)
    assert found.eps == TrainingSettings().eps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[training]\nlearning_rate = 1\n",
            r"training\.learning_rate: Extra inputs are not permitted, got 1",
        ),
        ("[trainings]\nlr = 1\n", r"trainings: Extra inputs are not permitted"),
        ("[training]\nlr = -1\n", r"training\.lr: Input should be greater than 0, got -1"),
        ("[training]\nobjective = 'a b'\n", r"training\.objective: String should match pattern"),
        ("[server]\nport = 99999\n", r"server\.port: Input should be less than or equal to 65535"),
        ("[training\n", r"expected TOML in .*understudy\.toml"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_settings(write(tmp_path, text))


def test_a_bad_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_SERVER__PORT", "many")
    with pytest.raises(ConfigError, match=r"server\.port: Input should be a valid integer.*'many'"):
        load_settings(write(tmp_path, ""))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `understudy init` first"):
        load_settings(tmp_path / "none.toml")


def test_settings_cannot_be_changed_after_the_fact() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().server.port = 1

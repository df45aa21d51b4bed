"""The report of a real session: from the weight commit's record and the weights on both sides of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.cli import app
from understudy.config import TrainingSettings
from understudy.engine import load_model, write_miniature
from understudy.lessons import Example
from understudy.training import Apollo, SessionResult, parameter_groups, run_session
from understudy.watching import read_session_report, write_session_report
from understudy.weights import SharedWeights, UnknownCommit, WeightHistory
from understudy.workspace import Workspace

WHEN = "2026-11-21T00:00:00Z"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, SessionResult, str]:
    """A workspace whose model had one session and then a restore."""
    folder = tmp_path_factory.mktemp("report")
    model = write_miniature(folder / "hybrid", "qwen3_5", dtype=torch.bfloat16)
    workspace = Workspace.create(folder / "w", model=model, copy_model=True, replay=[], settings="")
    directory = workspace.root / "model"
    loaded = load_model(directory, "checkpoint")
    settings = TrainingSettings(lr=1e-3, rank=4, replay=0.0, gate=None, probe_tokens=0)
    optimizer = Apollo(parameter_groups(loaded.model, settings), settings)
    examples = [Example((1, 5, 9), (30, 31, 2), (40, 2)), Example((1, 7), (50, 51, 52, 2))]
    history = WeightHistory.open(directory)
    shared = SharedWeights.create(loaded.model)
    try:
        result = run_session(loaded.model, optimizer, examples, [], settings)
        details: dict[str, Any] = {
            "settings": settings.model_dump(mode="json"),
            "result": {
                "outcomes": [asdict(one) for one in result.outcomes],
                "losses": list(result.losses),
                "steps": result.steps,
                "gated": result.gated,
                "seconds": result.seconds,
                "kl": {"mean": 0.01, "standard_error": 0.001, "n": 4},
            },
        }
        commit = history.commit(
            shared.tensors,
            message="Two <lessons>",
            author="kent",
            created=WHEN,
            session="session-1",
            lessons=("l1", "l2"),
            details=details,
        )
        history.restore(shared.tensors, None, author="kent", created=WHEN)
    finally:
        shared.close()
    return workspace, result, commit.id


def test_a_report_holds_what_the_session_did(taught: tuple[Workspace, SessionResult, str]) -> None:
    workspace, result, commit = taught
    for name in ("session-1", commit, commit[:6]):
        report = read_session_report(workspace.root / "model", name)
        assert report.commit == commit and report.lessons == ("l1", "l2") and report.author == "kent"
        assert report.outcomes == result.outcomes and report.losses == result.losses
        assert report.outcomes[0].margin_after is not None and report.outcomes[1].margin_after is None
        assert report.steps == 2 and report.gate is None and report.settings["rank"] == 4
    assert report.movement.whole.change > 0
    assert {part.kind for part in report.movement.heads} == {"attention", "delta"}


def test_the_page_and_the_figures_say_the_same(
    taught: tuple[Workspace, SessionResult, str], tmp_path: Path
) -> None:
    workspace, result, commit = taught
    data, page = write_session_report(tmp_path, read_session_report(workspace.root / "model", commit))
    held, text = json.loads(data.read_text()), page.read_text()
    assert held["outcomes"][0]["loss_after"] == result.outcomes[0].loss_after
    assert held["movement"]["whole"]["change"] > 0 and len(held["movement"]["heads"]) == 10
    assert "Two &lt;lessons&gt;" in text and "<lessons>" not in text
    assert (
        f"{result.outcomes[0].loss_before:.3f}" in text and f"{result.outcomes[0].margin_after:.2f}" in text
    )
    assert "<script" not in text and "src=" not in text and 'href="http' not in text


def test_a_restore_has_no_outcomes_and_moved_back_as_far(
    taught: tuple[Workspace, SessionResult, str], tmp_path: Path
) -> None:
    directory = taught[0].root / "model"
    back = WeightHistory.view(directory).commits[-1]
    report = read_session_report(directory, back.id)
    there = read_session_report(directory, taught[2])
    assert report.outcomes == () and report.losses == ()
    assert report.movement.whole.change == pytest.approx(there.movement.whole.change)
    assert write_session_report(tmp_path, report)[1].is_file()


def test_the_command_writes_it_and_says_where(
    taught: tuple[Workspace, SessionResult, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, _, commit = taught
    given = ["report", "session-1", "-w", str(workspace.root), "--out", str(tmp_path / "out")]
    app(given, result_action="return_value")
    printed = capsys.readouterr().out.split()
    assert [Path(line).name for line in printed] == ["report.html", "report.json"]
    assert all(Path(line).is_file() for line in printed)
    assert json.loads(Path(printed[1]).read_text())["commit"] == commit


def test_an_unknown_name_is_an_error_that_says_so(taught: tuple[Workspace, SessionResult, str]) -> None:
    with pytest.raises(UnknownCommit, match="no session is called 'nothing' either"):
        read_session_report(taught[0].root / "model", "nothing")


def test_study_refuses_settings_and_marks_that_cannot_be(tmp_path: Path) -> None:
    from understudy.cli.failures import CommandError

    for wrong in (["--marks", "1,x"], ["--set", "rank=0"], ["--set", "rank"]):
        with pytest.raises(CommandError):
            app(["study", "--out", str(tmp_path / "no"), *wrong], result_action="return_value")
    assert not (tmp_path / "no").exists()

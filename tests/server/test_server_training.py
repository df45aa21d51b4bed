"""What a server tells of its training: status, metrics, and what the ledger holds of each lesson."""

import subprocess
import sys
from pathlib import Path

import pytest
from workspace_server import REPLAY, SETTINGS, Server, eventually, serving

from understudy.engine import write_miniature
from understudy.lessons import ChatMessage, Lesson, Source
from understudy.weights import WeightHistory, read_commits
from understudy.workspace import Workspace

LESSON = Lesson(
    (ChatMessage("user", "Which tea?"),), "Go with mint.", "Coffee?", Source("", "", "", "", "maya", "")
)


def figures(server: Server) -> dict[str, float]:
    """The metrics by name, with labels."""
    lines = server.call("GET", "/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    model = write_miniature(tmp_path / "miniature", "qwen3_5")
    return Workspace.create(tmp_path / "w", model=model, copy_model=True, replay=REPLAY, settings=SETTINGS)


def test_status_metrics_and_ledger_tell_what_happened(workspace: Workspace) -> None:
    ledger, directory = workspace.ledger, workspace.root / "model"
    entry = ledger.propose(LESSON).entry
    ledger.approve(entry.id, "maya")
    with serving(workspace) as server:
        eventually(lambda: ledger.learned() or None)
        [learned] = read_commits(directory)
        held = ledger.get(entry.id)
        assert held.weight_commit == learned.id and held.trained_at is not None
        assert held.settings is not None and held.settings["lr"] == 1e-3
        result = held.result
        assert result is not None and None not in (result.chosen_before, result.rejected_before)
        assert (result.chosen_after or 0) > (result.chosen_before or 0)
        assert result.loss_before is not None and result.chosen_before is not None
        tokens = -result.chosen_before / result.loss_before
        assert tokens == pytest.approx(round(tokens), abs=1e-6)
        shown = subprocess.run(
            [sys.executable, "-m", "understudy", "lessons", "show", entry.short, "-w", str(workspace.root)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert held.trained_at in shown and "lr 0.001" in shown and "whole rejected answer" in shown

        example = {"context_ids": [5, 6], "continuation_ids": [7, 8]}
        reviewed = {"examples": [example], "replay": 0, "reviews": 2, "dry_run": True, "wait": True}
        told = server.call("POST", "/train", reviewed).json()
        assert (told["turns"], told["relearned"], len(told["outcomes"])) == (1 + 2 * 2, 2, 1)
        long = {"examples": [example], "epochs": 50_000, "gate": None, "key": "long"}
        assert server.call("POST", "/train", long).status_code == 202
        answer = {"model": "understudy", "prompt": "Tea?", "max_tokens": 30, "ignore_eos": True}
        running = eventually(lambda: one if (one := server.status()["running"]) and one["step"] > 1 else None)
        assert (running["key"], running["of"], running["phase"]) == ("long", 50_000, "training")
        assert running["loss"] is not None and running["tokens_per_second"] > 0 < running["eta_seconds"]
        assert server.call("POST", "/v1/completions", answer).status_code == 200
        next_one = {"examples": [example], "key": "next"}
        assert server.call("POST", "/train", next_one).json()["state"] == "queued"
        status = server.status()
        assert [(one["key"], one["state"]) for one in status["queue"]] == [
            ("long", "running"),
            ("next", "queued"),
        ]
        assert figures(server)["understudy_training_queue"] == 2
        assert server.call("POST", "/train/cancel", {"key": "long"}).status_code == 202
        ended = eventually(
            lambda: one if (one := server.call("GET", "/train/status?key=next").json())["ended_at"] else None
        )
        assert ended["state"] == "finished"

        status, metrics = server.status(), figures(server)
        assert [error["session"] for error in status["errors"]] == ["long"]
        assert status["sync"]["pending"] == 2 and status["sync"]["synced"] is None
        assert status["sync"]["unsynced_seconds"] >= 0 and 0 < status["sync"]["due_seconds"] <= 600
        assert metrics["understudy_unsynced_commits"] == 2 and metrics["understudy_unsynced_seconds"] >= 0
        assert metrics['understudy_training_sessions_total{result="finished"}'] == 3
        assert metrics['understudy_training_sessions_total{result="cancelled"}'] == 1
        assert metrics["understudy_training_steps_total"] >= 2
        assert metrics["understudy_training_queue"] == 0 and metrics["understudy_trainer_alive"] == 1
        assert metrics["understudy_training_kl"] >= 0 and metrics["understudy_training_loss"] > 0
        assert metrics["understudy_answer_weight_steps_count"] == 1
        assert metrics["understudy_answer_weight_steps_sum"] > 0, "the weights moved while it was generated"
    view = WeightHistory.view(directory)
    assert view.synced == view.head == read_commits(directory)[-1].id, "the end brings the files up to date"

"""Servers that are killed while people ask them to train: real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ALL = int(os.environ.get("UNDERSTUDY_FAULT_POINTS", "8"))
POINTS = _ALL - _ALL * 7 // 10
"""How often a server, its trainer or both are killed; the others of the full run of 200 are the trainer's."""
ROUNDS = Path(__file__).with_name("server_fault_rounds.py")


@pytest.mark.timeout(120 + 20 * POINTS)
def test_killed_anywhere_every_acknowledged_request_and_lesson_is_trained_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROUNDS), str(tmp_path), str(POINTS), "1"],
        env={**os.environ, "PYTHONPATH": str(ROUNDS.parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["killed"].values()) == POINTS == found["lessons"]
    # Lessons that waited together while there was no server are taught in one session.
    assert 0 < found["lesson_sessions"] <= found["lessons"]
    assert found["requests"] + found["lesson_sessions"] == found["commits"]

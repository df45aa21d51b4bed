"""`kill -9` of a process that commits and syncs, at random points, with real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_history import LAYOUTS

POINTS = int(os.environ.get("UNDERSTUDY_FAULT_POINTS", "40"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_killed_anywhere_nothing_acknowledged_is_lost_and_the_directory_loads(
    layout: str, tmp_path: Path
) -> None:
    LAYOUTS[layout](tmp_path)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "kill_points.py"), str(tmp_path), str(POINTS // 2), "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["problems"] == [] and found["leftovers"] == []
    assert 0 < found["acknowledged"] <= found["commits"] <= found["acknowledged"] + found["points"]

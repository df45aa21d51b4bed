"""The command line that starts vLLM, and where it will answer."""

from pathlib import Path

import pytest

from understudy.pocket import new_workspace
from understudy.server.vllm_launch import base_url, vllm_command, vllm_environment
from understudy.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(new_workspace(tmp_path / "w").root, server={"port": 0})


@pytest.mark.parametrize("flags", [("--port", "9001"), ("--port=9001",)])
def test_the_callers_flags_win_however_they_are_written(workspace: Workspace, flags: tuple[str, ...]) -> None:
    command = vllm_command(workspace, Path("model"), "bfloat16", ("--max-model-len", "512", *flags))
    assert base_url(command) == "http://127.0.0.1:9001"
    assert command[-len(flags) :] == list(flags)


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_where_it_can_be_asked(workspace: Workspace, host: str, asked: str) -> None:
    command = vllm_command(workspace, Path("model"), "bfloat16", ("--host", host, "--port", "9001"))
    assert base_url(command) == f"http://{asked}:9001"


def test_port_0_becomes_a_free_one(workspace: Workspace) -> None:
    port = int(base_url(vllm_command(workspace, Path("model"), "bfloat16", ())).rpartition(":")[2])
    assert 1024 <= port <= 65535


def test_the_plugin_is_named_beside_others_and_what_was_set_stays(workspace: Workspace) -> None:
    made = vllm_environment({"VLLM_PLUGINS": "lora,understudy", "OMP_NUM_THREADS": "7"}, workspace)
    assert made["VLLM_PLUGINS"] == "lora,understudy" and made["OMP_NUM_THREADS"] == "7"
    assert vllm_environment({}, workspace)["VLLM_PLUGINS"] == "understudy"
    assert made["UNDERSTUDY_WORKSPACE"] == str(workspace.root)

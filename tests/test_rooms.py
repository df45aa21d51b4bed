"""What the rooms promise about each other, seen from a fresh interpreter."""

import pkgutil
import subprocess
import sys

import pytest

import understudy.access
import understudy.cli
import understudy.conversation
import understudy.lessons
import understudy.server

LIGHT = (
    understudy.cli,
    understudy.server,
    understudy.conversation,
    understudy.lessons,
    understudy.access,
)
HEAVY = ("torch", "transformers", "vllm")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("room", LIGHT, ids=lambda room: str(room.__name__))
def test_no_module_of_a_light_room_loads_torch(room: object) -> None:
    name, path = room.__name__, room.__path__  # type: ignore[attr-defined]
    modules = [name, "understudy.config", "understudy.workspace"]
    modules += [m.name for m in pkgutil.walk_packages(path, f"{name}.") if not m.name.endswith("__main__")]
    program = f"import sys\nfor name in {modules!r}: __import__(name)\n"
    program += f"print([h for h in {HEAVY!r} if h in sys.modules])"
    assert run(program).strip() == "[]"


def test_help_loads_next_to_nothing() -> None:
    program = (
        "import sys\nfrom understudy.cli import app\n"
        "app(['--help'], result_action='return_value')\n"
        "print([m for m in ('torch', 'pydantic', 'pygit2', 'starlette', 'matplotlib') if m in sys.modules])"
    )
    assert run(program).strip().endswith("[]")

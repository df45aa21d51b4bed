"""What the gate remembers between sessions and servers, in a workspace with a miniature."""

import asyncio
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace_server import small_workspace

from understudy.behaviours import Ruling
from understudy.engine import EmbeddedEngine
from understudy.server import open_engine
from understudy.server.gating import GateClosed, Gatekeeper, Watch
from understudy.workspace import Workspace

KEPT = """
wanted = "Says something."
kind = "{kind}"
required = 0.9
indifferent = 0.5
max_tokens = {max_tokens}
[judge]
kind = "rule"
accept = ['.']
[margin]
acceptable = ["{begins}"]
unacceptable = ["no"]
[scenarios]
templates = [{{ prompt = "Say {{word}}." }}]
[scenarios.slots]
word = {words}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = small_workspace(tmp_path_factory.mktemp("gating"))
    (workspace.root / "behaviours").mkdir()
    return workspace.root


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[EmbeddedEngine]:
    with open_engine(Workspace.open(root)) as opened:
        yield opened


@pytest.fixture
def workspace(root: Path) -> Workspace:
    """With two kept invariants and a wanted one, and nothing remembered."""
    for file in [*(root / "behaviours").iterdir(), *(root / ".understudy").glob("*.json")]:
        file.unlink()
    opened = Workspace.open(root, gate={"probes": 6, "contrast": 4})
    for name, kind in (("calm", "kept"), ("kind", "kept"), ("new", "wanted")):
        write(opened, name, kind=kind)
    return opened


def write(workspace: Workspace, name: str, **said: Any) -> None:
    told = {
        "kind": "kept",
        "begins": "yes",
        "max_tokens": 4,
        "words": [f"{name} {n}" for n in range(80)],
        **said,
    }
    (workspace.root / "behaviours" / f"{name}.toml").write_text(
        KEPT.format(**{**told, "words": json.dumps(told["words"])})
    )


def memory(workspace: Workspace, name: str = "gate") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.root / ".understudy" / f"{name}.json").read_text())
    return found


def replace_memory(workspace: Workspace, value: Any, name: str = "gate") -> None:
    (workspace.root / ".understudy" / f"{name}.json").write_text(json.dumps(value))


def watched(keeper: Gatekeeper) -> Watch:
    found = asyncio.run(keeper.before())
    assert found is not None
    return found


# ---------------------------------------------------------------------- margins


def test_what_is_new_is_in_order_as_it_is_now(workspace: Workspace, engine: EmbeddedEngine) -> None:
    watch = watched(Gatekeeper(workspace, engine))
    assert watch.order == watch.before != {}
    held = memory(workspace)
    assert held.keys() == {"calm", "kind", "new"} == watch.digests.keys()
    assert {name: tuple(one["margins"]) for name, one in held.items()} == watch.order
    assert all(len(one["margins"]) == 6 for one in held.values())
    assert {name: one["digest"] for name, one in held.items()} == watch.digests


def test_another_server_goes_on_from_what_was_in_order(workspace: Workspace, engine: EmbeddedEngine) -> None:
    first = watched(Gatekeeper(workspace, engine))
    held = memory(workspace)
    held["calm"]["margins"] = [9.0] * 6
    replace_memory(workspace, held)
    watch = watched(Gatekeeper(workspace, engine))
    assert watch.order == {**first.order, "calm": (9.0,) * 6} and watch.before == first.before
    assert memory(workspace) == held


@pytest.mark.parametrize("change", [{"begins": "perhaps"}, {"words": [f"else {n}" for n in range(80)]}])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_changed_invariant_had_is_forgotten(
    workspace: Workspace, engine: EmbeddedEngine, change: dict[str, Any], restarted: bool
) -> None:
    keeper = Gatekeeper(workspace, engine)
    first, held = watched(keeper), memory(workspace)
    write(workspace, "calm", **change)
    second = watched(Gatekeeper(workspace, engine) if restarted else keeper)
    assert second.order["calm"] == (second.before or {})["calm"] != first.order["calm"]
    assert second.order["kind"] == first.order["kind"]
    now = memory(workspace)
    assert tuple(now["calm"]["margins"]) == second.order["calm"]
    assert now["calm"]["digest"] != held["calm"]["digest"] and now["kind"] == held["kind"]
    write(workspace, "calm")
    assert watched(keeper).order == first.order


def test_other_probes_are_other_margins(workspace: Workspace, engine: EmbeddedEngine) -> None:
    first = watched(Gatekeeper(workspace, engine))
    more = Workspace.open(workspace.root, gate={"probes": 7})
    second = watched(Gatekeeper(more, engine))
    assert {len(margins) for margins in second.order.values()} == {7}
    for name, margins in second.order.items():  # scored in another batch: alike, not to the bit
        assert margins[:6] == pytest.approx(first.order[name], abs=1e-4)
    seeded = watched(Gatekeeper(Workspace.open(workspace.root, gate={"probes": 7, "seed": 1}), engine))
    assert seeded.order != second.order


def test_what_does_not_change_the_probes_keeps_the_memory(
    workspace: Workspace, engine: EmbeddedEngine
) -> None:
    keeper = Gatekeeper(workspace, engine)
    watched(keeper)
    held = memory(workspace)
    held["calm"]["margins"] = [9.0] * 6
    replace_memory(workspace, held)
    write(workspace, "calm", max_tokens=5)
    assert watched(keeper).order["calm"] == (9.0,) * 6


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"\x00" * 40, b'{"calm": [1]}', b'{"calm": {"digest": "\xff"}}', b"[]"]
)
def test_a_memory_that_is_broken_is_made_anew(
    workspace: Workspace, engine: EmbeddedEngine, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first, held = watched(Gatekeeper(workspace, engine)), memory(workspace)
    with caplog.at_level(logging.WARNING):
        watched(Gatekeeper(workspace, engine))
        assert caplog.messages == []
        (workspace.root / ".understudy" / "gate.json").write_bytes(broken)
        assert watched(Gatekeeper(workspace, engine)).order == first.order
    assert "gate.json is not what the gate remembers, and is made anew" in caplog.messages[0]
    assert memory(workspace) == held


def test_a_session_that_stays_leaves_what_it_found_in_order(
    workspace: Workspace, engine: EmbeddedEngine
) -> None:
    keeper = Gatekeeper(workspace, engine)
    watch = watched(keeper)
    now = {name: tuple(one - 1.0 for one in margins) for name, margins in watch.order.items()}
    keeper.remember(watch, Ruling("keep", "", {}, now, {"calm": now["calm"]}))
    after = watched(keeper)
    assert after.before == now, "the next session begins with what is known of these weights"
    assert after.order == {**watch.order, "calm": now["calm"]}
    assert watched(Gatekeeper(workspace, engine)).order == after.order


def test_what_changes_while_a_session_runs_is_not_mistaken_for_what_was(
    workspace: Workspace, engine: EmbeddedEngine
) -> None:
    keeper = Gatekeeper(workspace, engine)
    watch = watched(keeper)
    now = dict.fromkeys(watch.order, (5.0,) * 6)
    write(workspace, "calm", begins="perhaps")
    (workspace.root / "behaviours" / "kind.toml").write_text("wanted =")
    keeper.remember(watch, Ruling("keep", "", {}, now, now))
    with pytest.raises(GateClosed, match=r"kind\.toml"):
        watched(keeper)
    write(workspace, "kind")
    after = watched(keeper)
    assert after.order["kind"] == (5.0,) * 6
    assert after.order["calm"] == (after.before or {})["calm"] != (5.0,) * 6


def test_it_can_be_switched_off(workspace: Workspace, engine: EmbeddedEngine) -> None:
    keeper = Gatekeeper(Workspace.open(workspace.root, gate={"enabled": False}), engine)
    assert asyncio.run(keeper.before()) is None and asyncio.run(keeper.contrast()) == ()
    assert not list((workspace.root / ".understudy").glob("*.json"))


async def judged(keeper: Gatekeeper, model: Any, kl: float, *, broken: bool) -> Ruling:
    """The ruling on a session that changed nothing, or left weights that give no numbers."""
    watch = await keeper.before()
    assert watch is not None
    weights = model.get_output_embeddings().weight.data
    before = weights.clone()
    try:
        if broken:
            weights.fill_(math.nan)
        return await keeper.rule(watch, kl, fresh=True)
    finally:
        weights.copy_(before)


def test_a_session_that_changed_nothing_stays(workspace: Workspace, engine: EmbeddedEngine) -> None:
    found = asyncio.run(judged(Gatekeeper(workspace, engine), engine.model, 0.0, broken=False))
    assert found.choice == "keep" and found.evidence["seconds"] > 0
    assert {name: len(margins) for name, margins in found.now.items()} == {"calm": 6, "kind": 6, "new": 6}
    assert {one["fall"]["mean"] for one in found.evidence["probes"].values()} == {0.0}
    json.dumps(found.evidence, allow_nan=False)


@pytest.mark.parametrize("kl", [0.01, math.nan, math.inf])
def test_what_could_not_be_judged_is_asked_about(
    workspace: Workspace, engine: EmbeddedEngine, kl: float, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Gatekeeper(workspace, engine)
    found = asyncio.run(judged(keeper, engine.model, kl, broken=True))
    assert found.choice == "ask" and "it could not be judged: calm: expected a finite margin" in found.why
    assert "calm: expected a finite margin" in caplog.text and found.order == {}
    json.dumps(found.evidence, allow_nan=False)
    assert watched(keeper).order == watched(Gatekeeper(workspace, engine)).before


# ---------------------------------------------------------------------- what is rehearsed


def test_what_is_rehearsed_is_asked_once(workspace: Workspace, engine: EmbeddedEngine) -> None:
    first = asyncio.run(Gatekeeper(workspace, engine).contrast())
    held = memory(workspace, "contrast")
    assert held.keys() == {"calm", "kind"} and len(first) == 8
    train = {one.name: {s.prompt for s in one.scenarios["train"]} for one in workspace.invariants()}
    assert {prompt for prompt, _ in first} <= train["calm"] | train["kind"]
    held["calm"]["answers"][0][1] = "what it said then"
    replace_memory(workspace, held, "contrast")
    again = asyncio.run(Gatekeeper(workspace, engine).contrast())
    assert again[0] == (first[0][0], "what it said then") and again[1:] == first[1:]


@pytest.mark.parametrize(
    "change", [{"words": [f"else {n}" for n in range(80)]}, {"max_tokens": 5}], ids=["scenarios", "length"]
)
def test_what_a_changed_invariant_rehearsed_is_asked_anew(
    workspace: Workspace, engine: EmbeddedEngine, change: dict[str, Any]
) -> None:
    keeper = Gatekeeper(workspace, engine)
    asyncio.run(keeper.contrast())
    held = memory(workspace, "contrast")
    for one in held.values():
        one["answers"][0][1] = "then"
    replace_memory(workspace, held, "contrast")
    write(workspace, "calm", **change)
    found = asyncio.run(keeper.contrast())
    assert [text for _, text in found].count("then") == 1
    now = memory(workspace, "contrast")
    assert now["kind"] == held["kind"] and now["calm"]["digest"] != held["calm"]["digest"]
    more = Gatekeeper(Workspace.open(workspace.root, gate={"contrast": 6}), engine)
    assert len(asyncio.run(more.contrast())) == 12


def test_what_is_gone_or_only_wanted_is_rehearsed_no_more(
    workspace: Workspace, engine: EmbeddedEngine
) -> None:
    keeper = Gatekeeper(workspace, engine)
    asyncio.run(keeper.contrast())
    write(workspace, "calm", kind="wanted")
    assert len(asyncio.run(keeper.contrast())) == 4 and memory(workspace, "contrast").keys() == {"kind"}
    (workspace.root / "behaviours" / "kind.toml").unlink()
    assert asyncio.run(keeper.contrast()) == () and memory(workspace, "contrast") == {}


def test_broken_rehearsals_are_asked_anew(
    workspace: Workspace, engine: EmbeddedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    first = asyncio.run(Gatekeeper(workspace, engine).contrast())
    (workspace.root / ".understudy" / "contrast.json").write_bytes(b'{"calm": {"digest": ')
    assert asyncio.run(Gatekeeper(workspace, engine).contrast()) == first
    assert "contrast.json is not what the gate remembers, and is made anew" in caplog.messages[0]

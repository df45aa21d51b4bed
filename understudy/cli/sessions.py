"""What commands that train have in common: how settings are given, how a session is shown."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from understudy.cli.failures import CommandError

ObjectiveOption = Annotated[str | None, Parameter(help="What is minimised: sft, dpo, orpo, distillation.")]
RateOption = Annotated[float | None, Parameter(name="--lr", help="The learning rate.")]
EpochsOption = Annotated[int | None, Parameter(help="How often each lesson is shown.")]
DryRunOption = Annotated[bool, Parameter(help="Compute and report; change nothing.")]
SettingOption = Annotated[
    tuple[str, ...], Parameter(name="--set", help="Any other training setting, such as rank=16 or gate=null.")
]


def session_settings(given: Sequence[str], **named: Any) -> dict[str, Any]:
    """The settings of a request: those with an option of their own, and `--set key=value`."""
    chosen = {name: value for name, value in named.items() if value is not None}
    return {**chosen, **dict(_parsed(one) for one in given)}


def describe_outcome(outcome: Mapping[str, Any]) -> str:
    """What a session did to one example."""
    gated = "  known already" if outcome["gated"] else ""
    return f"loss {outcome['loss_before']:.3f} -> {outcome['loss_after']:.3f}{gated}"


def describe_session(result: Mapping[str, Any], *, dry_run: bool) -> str:
    """What a finished session did as a whole."""
    done = "nothing was changed (dry run)" if dry_run else f"weight commit {result['commit']}"
    stopped = f"; stopped: {result['stopped']}" if result.get("stopped") else ""
    again = f"{result['relearned']} of them for lessons learned before, " if result.get("relearned") else ""
    taken = f"{result['steps']} steps, {again}{result['tokens']} tokens, {result['seconds']:.2f} s"
    return f"{taken}; {done}{stopped}{_describe_gate(result)}"


_GATE_WORDS = {
    "keep": "kept",
    "revert": "reverted, the weights are as before it, to the bit",
    "ask": "a person decides",
}


def _describe_gate(result: Mapping[str, Any]) -> str:
    """What was decided about a session, on a line of its own."""
    gate = result.get("gate")
    if gate is None:
        return ""
    asked = gate["decision"] == "ask"
    how = f" (understudy behaviours keep {result['session'][:12]}, or revert)" if asked else ""
    return f"\n{_GATE_WORDS[gate['decision']]}: {gate['why']}{how}"


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise CommandError(f"expected --set key=value, got {setting!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value

"""The gate's rules, on a model whose margins and answers are moved by hand."""

import json
import math
from pathlib import Path

import pytest
from known_models import Known, invariant

from understudy.behaviours import (
    Gate,
    Invariant,
    LikelihoodJudge,
    Margin,
    Probes,
    ReadoutJudge,
    Ruling,
    measure_margins,
)
from understudy.behaviours.verdicts import drawn
from understudy.config import GateSettings
from understudy.lessons import Choice, Decisions

SETTINGS = GateSettings(probes=12, tolerance=0.1, max_kl=0.05, budget=80)
NEAR, FAR = 0.01, 0.06


@pytest.fixture
def model() -> Known:
    """In order: the kept ones hold with margins well above 0, the wanted one is violated."""
    return Known({"good": 0.98, "fine": 0.98, "new": 0.1}, {"good": 4.0, "fine": 4.0, "new": -2.0})


def of(model: Known, settings: GateSettings = SETTINGS, **more: Invariant) -> Gate:
    standing = {
        "good": invariant("good", 100),
        "fine": invariant("fine", 100),
        "new": invariant("new", 100, kind="wanted"),
    }
    return Gate([*{**standing, **more}.values()], model, settings)


def ruled(gate: Gate, order: Probes, before: Probes | None = None, kl: float | None = NEAR) -> Ruling:
    """The ruling; its evidence can be written down, and is the same when it is read."""
    found = gate.rule(order if before is None else before, order, kl)
    written = json.dumps(found.evidence, allow_nan=False)
    assert json.loads(written) == found.evidence
    return found


def asked_of(model: Known) -> set[str]:
    return {text.split()[0] for text in model.asked}


# ---------------------------------------------------------------------- what is asked


def test_where_nothing_fell_the_session_stays_and_no_answer_is_drawn(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    model.lifts["good"] += 1.0  # better is no reason to ask
    found = ruled(gate, order)
    assert found.choice == "keep" and found.why == "the probes of 2 kept invariants did not fall"
    assert model.said == [] and found.evidence["verdicts"] == [] and found.order == {}
    assert found.now == gate.probe() != order
    assert model.seen == {"development"}


def test_probes_are_the_margins_of_the_first_scenarios_that_would_be_asked(model: Known) -> None:
    found = of(model).probe()
    assert {name: len(margins) for name, margins in found.items()} == {"good": 12, "fine": 12, "new": 12}
    first = drawn(invariant("good", 100), "development", SETTINGS.seed)[:12]
    assert list(found["good"]) == measure_margins(invariant("good"), first, Known({}, {"good": 4.0}))
    assert of(model).probe() == found != of(model, SETTINGS.model_copy(update={"seed": 1})).probe()


def test_what_fell_is_asked_and_kept_when_it_holds(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    model.lifts["good"] -= 0.2
    found = ruled(gate, order)
    assert found.choice == "keep" and "asked and found to hold: good holds at" in found.why
    assert asked_of(model) == {"good"} and model.seen == {"development"}
    assert found.order.keys() == {"good"} and found.order["good"] == found.now["good"]
    told = found.evidence["probes"]["good"]
    assert told["fall"]["mean"] == pytest.approx(0.2) and told["fall"]["n"] == 12
    assert told["before"]["mean"] - told["now"]["mean"] == pytest.approx(0.2)
    [verdict] = found.evidence["verdicts"]
    assert (verdict["invariant"], verdict["decision"]) == ("good", "holds")
    assert found.evidence["settings"]["probes"] == 12 and found.evidence["split"] == "development"


def test_what_fell_by_less_than_the_tolerance_is_not_asked(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    model.lifts["good"] -= 0.09
    assert ruled(gate, order).choice == "keep" and model.said == []


def test_a_fall_is_from_when_it_was_in_order_however_slowly_it_came(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    for _ in range(3):
        before = gate.probe()
        model.lifts["good"] -= 0.04
        found = ruled(gate, order, before)
    assert asked_of(model) == {"good"} and found.evidence["probes"]["good"]["fall"]["mean"] == pytest.approx(
        0.12
    )


def test_a_fall_that_is_not_sure_is_not_asked(model: Known) -> None:
    gate = of(model)
    now = gate.probe()
    noisy = {
        **now,
        "good": tuple(one + (5.0 if place % 2 else -4.0) for place, one in enumerate(now["good"])),
    }
    found = ruled(gate, noisy)
    assert found.evidence["probes"]["good"]["fall"]["mean"] == pytest.approx(0.5)
    assert found.choice == "keep" and model.said == []


def test_what_is_violated_is_undone(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    model.lifts.update(good=3.0, fine=3.0)
    model.shares["fine"] = 0.4
    found = ruled(gate, order)
    assert found.choice == "revert" and "fine is violated at" in found.why and "good" not in found.why
    assert asked_of(model) == {"good", "fine"}
    assert found.order.keys() == {"good"}, "what is violated is not in order"
    failures = found.evidence["verdicts"][1]["failures"]
    assert failures[0]["answer"] == "no" and failures[0]["prompt"][0][0] == "user"


@pytest.mark.parametrize("choice", ["ask", "keep", "revert"])
def test_what_is_not_decided_is_as_the_settings_say(model: Known, choice: Choice) -> None:
    gate = of(model, SETTINGS.model_copy(update={"undecided": choice, "budget": 6}))
    order = gate.probe()
    model.lifts["good"] -= 1.0
    found = ruled(gate, order)
    assert found.choice == choice and "good is not decided at" in found.why and found.order == {}


def test_a_violation_outweighs_what_is_not_decided(model: Known) -> None:
    gate = of(model, SETTINGS.model_copy(update={"undecided": "keep", "budget": 20}))
    order = gate.probe()
    model.lifts.update(good=3.0, fine=3.0)
    model.shares["fine"] = 0.1
    found = ruled(gate, order)
    assert [one["decision"] for one in found.evidence["verdicts"]] == ["undecided", "violated"]
    assert found.choice == "revert"


def test_weights_that_moved_far_have_all_kept_ones_asked(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    found = ruled(gate, order, kl=FAR)
    assert found.choice == "keep" and "moved far: 0.060 nats per token" in found.why
    assert asked_of(model) == {"good", "fine"} == found.order.keys()
    model.said.clear()
    assert ruled(gate, order, kl=0.05).choice == "keep" and model.said == [], "up to max_kl is near"


def test_weights_that_moved_far_and_nothing_to_tell_whether_that_is_well(model: Known) -> None:
    for kept in ([], [invariant("new", 100, kind="wanted")]):
        for choice in ("ask", "keep", "revert"):
            gate = Gate(kept, model, SETTINGS.model_copy(update={"undecided": choice}))
            found = ruled(gate, gate.probe(), kl=FAR)
            assert found.choice == choice and "no invariant says whether that is well" in found.why
        assert ruled(gate, gate.probe()).choice == "keep"
        assert ruled(gate, gate.probe(), kl=None).evidence["kl"] is None
    assert model.said == []


@pytest.mark.parametrize("kl", [math.nan, math.inf])
def test_a_distance_that_is_no_number_is_far_and_can_be_written_down(
    model: Known, kl: float, tmp_path: Path
) -> None:
    gate = Gate([], model, SETTINGS)
    found = ruled(gate, {}, kl=kl)
    assert found.choice == "ask" and found.evidence["kl"] is None
    made = Decisions(tmp_path / "l.sqlite").record("s", "w", "ask", by="g", why="", evidence=found.evidence)
    assert made.evidence == found.evidence
    ruled(of(model), of(model).probe(), kl=kl)
    assert asked_of(model) == {"good", "fine"}


def test_a_wanted_one_that_falls_is_not_asked(model: Known) -> None:
    gate = of(model)
    order = gate.probe()
    model.lifts["new"] -= 3.0
    found = ruled(gate, order, kl=FAR)
    assert "new" not in asked_of(model) and found.choice == "keep"
    assert found.evidence["probes"]["new"]["fall"]["mean"] == pytest.approx(3.0)
    assert [one.name for one in gate.kept] == ["good", "fine"]


def test_one_that_became_doubtful_is_asked_and_one_that_was_is_not(model: Known) -> None:
    """Probes on the wrong side that are too many for it to hold; a fall below the tolerance leads there."""
    gate = of(model, SETTINGS.model_copy(update={"tolerance": 0.5}))
    model.lifts["good"] = 1.45  # margins from -0.05 to 0.95
    order = gate.probe()
    model.lifts["good"] = 1.2
    found = ruled(gate, order)
    told = found.evidence["probes"]["good"]
    assert told["doubtful"] and told["fall"]["mean"] < 0.5 and asked_of(model) == {"good"}
    model.said.clear()
    doubtful = gate.probe()
    assert ruled(gate, doubtful).choice == "keep" and model.said == [], "it was so when it was found to hold"
    model.lifts["good"] = 0.6
    ruled(gate, doubtful)
    assert asked_of(model) == {"good"}, "it fell beyond the tolerance"


@pytest.mark.parametrize("known", [(), (1.0, 2.0)], ids=["unknown", "of other probes"])
def test_one_whose_probes_are_not_known_is_asked(model: Known, known: tuple[float, ...]) -> None:
    gate = of(model)
    order = {name: margins for name, margins in gate.probe().items() if name != "fine"}
    found = ruled(gate, {**order, "fine": known} if known else order)
    assert asked_of(model) == {"fine"} and found.evidence["probes"]["fine"]["fall"] is None
    assert gate.rule(None, gate.probe(), NEAR).evidence["probes"]["good"]["before"] is None


def test_one_probe_is_enough_to_have_it_asked(model: Known) -> None:
    one = invariant("good", 1)
    gate = Gate([one], model, SETTINGS)
    order = gate.probe()
    assert len(order["good"]) == 1 and ruled(gate, order).choice == "keep"
    model.lifts["good"] -= 1.0
    found = ruled(gate, order)
    assert asked_of(model) == {"good"} and found.choice == "ask"
    assert found.evidence["probes"]["good"]["fall"]["low"] is None, "an interval without an end"


def test_one_that_has_no_margin_is_always_asked(model: Known) -> None:
    calm = invariant("good", 100, judge=ReadoutJudge("calm", at_least=3.0), margin=None)
    gate = Gate([calm], model, SETTINGS)
    assert gate.probe() == {}
    found = ruled(gate, {})
    assert asked_of(model) == {"good"} and found.choice == "keep"
    assert found.order == {} and found.evidence["probes"] == {}


def test_a_likelihood_is_doubtful_by_its_threshold_and_a_text_by_itself_never(model: Known) -> None:
    judge = LikelihoodJudge(threshold=3.2)
    likely = invariant("good", 100, judge=judge)
    text = invariant("fine", 100, margin=Margin(["no"]))
    for one, doubtful in ((likely, True), (text, False)):
        gate = Gate([one], model, SETTINGS)
        found = ruled(gate, gate.probe())
        assert found.evidence["probes"][one.name]["doubtful"] is doubtful
    assert model.said == []


def test_violated_asks_the_kept_ones_that_are_named(model: Known) -> None:
    gate = of(model)
    model.shares["fine"] = 0.3
    assert gate.violated(["fine", "new"]) == ("fine",)
    assert asked_of(model) == {"fine"} and gate.violated([]) == ()
    assert model.seen == {"development"}

"""The parts of dreams: what scenarios are made of, what may be asked, and the loop that follows failures."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.behaviours import (
    Batch,
    Dream,
    DreamError,
    DreamLog,
    EngineVoice,
    HeldOut,
    Invariant,
    Material,
    ModelSubject,
    Rate,
    RoundBegun,
    RoundEnded,
    Scenario,
    Speech,
    Zone,
    digests_of,
    lessons_of,
    open_round,
    read_invariants,
    report_round,
)
from understudy.behaviours.difficulty import choose, follow
from understudy.behaviours.likeness import ALIKE, Texts, likeness, text_of
from understudy.behaviours.paraphrasing import keeps, paraphrase
from understudy.behaviours.recombination import gather
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.lessons import ChatMessage, Lesson, Source
from understudy.pocket import checkpoint_directory
from understudy.pocket.invariants import folder

INVARIANTS = {one.name: one for one in read_invariants(folder())}
HELD = HeldOut(tuple(INVARIANTS.values()))
UNSEEN = [
    (invariant, scenario)
    for invariant in INVARIANTS.values()
    if invariant.split_by
    for split in ("development", "test")
    for scenario in invariant.scenarios[split]
]


def said(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage("user", text),)


# ---------------------------------------------------------------------- what may be asked


@given(st.sampled_from(UNSEEN), st.sampled_from(["", " ", "!", " now"]), st.booleans())
def test_no_held_out_scenario_passes_however_it_is_dressed(
    one: tuple[Invariant, Scenario], tail: str, loud: bool
) -> None:
    invariant, scenario = one
    [*before, last] = scenario.prompt
    text = f"  {last.content.upper() if loud else last.content}{tail}"
    dressed = replace(scenario, prompt=(*before, replace(last, content=text)), group="", target="")
    assert HELD.leaks(invariant, scenario) and HELD.gives_away(invariant, dressed)


def test_what_is_of_the_train_split_may_be_asked() -> None:
    own = [
        (one, scenario) for one in INVARIANTS.values() if one.split_by for scenario in one.scenarios["train"]
    ]
    passed = [not HELD.gives_away(*pair) for pair in own]
    assert sum(passed) / len(passed) > 0.9


@settings(max_examples=60)
@given(
    st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=8), st.text("abc ", max_size=12)
)
def test_the_index_finds_what_looking_at_each_would(texts: list[str], text: str) -> None:
    assert Texts(texts).has_alike(text) == any(likeness(one, text) >= ALIKE for one in texts)
    assert likeness(text, text) == 1.0


# ---------------------------------------------------------------------- what scenarios are made of


def test_what_people_said_gives_new_words_and_new_ways_to_ask() -> None:
    listening, source = INVARIANTS["listening"], Source("talk.md", "Tea", "m", "c", "maya", "t")

    def lesson(text: str) -> Lesson:
        return Lesson(said(text), "Done.", "Have you considered tea?", source)

    known = next(one.group for one in listening.scenarios["train"] if one.group.isalpha())
    material = Material(
        prompts=(said("maya: Use marmalade for the raffle."), said("Put a zither on the list.")),
        lessons=(lesson(f"Let me have {known}."), lesson("Let me have hammocks.")),
    )
    stock = gather(tuple(INVARIANTS.values()), material, HELD)["listening"]
    assert "marmalade" in stock.slots["thing"]
    held_out = {one.group for split in ("development", "test") for one in listening.scenarios[split]}
    assert not held_out & (set(stock.slots["thing"]) - set(listening.slots["thing"]))
    new = [one for one in stock.templates if one not in listening.templates]
    assert any(str(one.prompt).startswith("Let me have {thing}") for one in new)
    drawn = {text_of(stock.draw(random.Random(seed)).scenario) for seed in range(400)}
    assert any("marmalade" in text and "raffle" not in text for text in drawn)
    assert any(text.startswith("Let me have") for text in drawn) and "hammocks" in stock.slots["thing"]


def test_the_model_says_a_message_anew_and_keeps_what_it_is_about() -> None:
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as engine:
        subject = ModelSubject(EngineVoice(engine))
        stock = gather(tuple(INVARIANTS.values()), Material(), HELD)["push-back"]
        sketches = [stock.draw(random.Random(seed)) for seed in range(40)]
        anew = paraphrase(sketches, subject, Speech(1.0, 48, seed=1), random.Random(1))
        again = paraphrase(sketches, subject, Speech(1.0, 48, seed=1), random.Random(1))
    assert anew == again
    kept = [
        (sketch, prompt)
        for sketch, prompt in zip(sketches, anew, strict=True)
        if prompt is not None and keeps(sketch, prompt)
    ]
    assert len(kept) >= 10
    assert any(prompt != sketch.scenario.prompt for sketch, prompt in kept)
    for sketch, prompt in kept:
        assert sketch.scenario.target in prompt[-1].content and len(prompt) == 1


# ---------------------------------------------------------------------- the loop


def simulate(hardness: float, batches: int = 40) -> tuple[list[float], float]:
    """Failure rates of a model that fails a scenario with a known chance, and the edge at the end.

    Ratings are spread evenly; a scenario rated r is failed with chance min(1, hardness r).
    """
    draw, edge, found = random.Random(5), 0.0, []
    for _ in range(batches):
        ratings = [draw.random() for _ in range(160)]
        asked = choose(ratings, ["one"] * 160, ratings, edge, 20, draw)
        failed = Rate(sum(draw.random() < min(1.0, hardness * one) for one in asked), 20)
        found.append(failed.value)
        edge = follow(edge, failed, Zone())
    return found, edge


@pytest.mark.parametrize("hardness", [0.4, 0.6, 0.7])
def test_the_failure_rate_settles_in_the_zone(hardness: float) -> None:
    rates, _ = simulate(hardness)
    half = rates[len(rates) // 2 :]
    assert 0.2 <= sum(half) / len(half) <= 0.5
    assert abs(sum(half) / len(half) - Zone().middle) < 0.05


@pytest.mark.parametrize(("hardness", "edge", "reach"), [(0.1, 1.0, "too easy"), (20.0, 0.0, "too hard")])
def test_what_is_out_of_reach_is_said(hardness: float, edge: float, reach: str) -> None:
    rates, end = simulate(hardness)
    assert end == edge
    assert Zone().reached(Rate(round(20 * rates[-1]), 20), end) == reach


@pytest.mark.parametrize("ends", [(0.5, 0.2), (0.3, 0.3), (-0.1, 0.5), (0.2, 1.1)])
def test_a_zone_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        Zone(*ends)


# ---------------------------------------------------------------------- the record


def begun(weights: str = "w1", seed: int = 0) -> RoundBegun:
    invariants = tuple(INVARIANTS.values())
    return RoundBegun(0, weights, 40, seed, Zone(), ("listening",), digests_of(invariants), Material())


def batch(number: int, shown: bool = False) -> Batch:
    scenario = Scenario(said(f"Use thing {number}."), f"thing {number}", f"thing {number}")
    dreams = tuple(
        Dream("listening", "recombined", scenario, (), rating, "Maybe?", shown, "" if shown else "Done.")
        for rating in (0.2, 0.8)
    )
    return Batch(number, 0.5, datetime.now(UTC).isoformat(), dreams, {"listening": {"leak": 2}})


def test_a_round_is_taken_up_until_it_is_over_and_others_begin_anew(tmp_path: Path) -> None:
    with open_round(tmp_path, begun()) as log:
        log.add(batch(0))
        with pytest.raises(DreamError, match="another process"), open_round(tmp_path, begun()):
            pass
    with (tmp_path / "0001.jsonl").open("ab") as stream:
        stream.write(b'{"line": "batch", "numb')  # what a cut power line leaves
    with open_round(tmp_path, begun()) as log:
        assert (log.begun.number, len(log.batches)) == (1, 1)
        log.add(batch(1))
        log.end(RoundEnded("budget spent"))
    for other in (begun(), begun(weights="w2"), begun(seed=1)):
        with open_round(tmp_path, other) as log:
            assert not log.batches and log.begun.number > 1
            assert {text_of(one) for one in log.earlier} == {"Use thing 0.", "Use thing 1."}
    with open_round(tmp_path, begun(weights="w3")) as log:
        assert log.left is not None and (log.left.number, log.left.seed) == (4, 1), "it was not over"
    (tmp_path / "0009.jsonl").write_text('{"line": "batch"}\n')
    with pytest.raises(DreamError, match=r"0009\.jsonl, line 1"), open_round(tmp_path, begun()):
        pass


def test_lessons_and_the_report_say_what_was_dreamed(tmp_path: Path) -> None:
    with open_round(tmp_path, begun()) as log:
        log.add(batch(0))
        log.add(batch(1, shown=True))
        made = lessons_of(log.begun, log.batches[0])
        report = report_round(log)
        assert lessons_of(log.begun, log.batches[1]) == []
    assert {(name, one.chosen, one.rejected) for name, one in made} == {("listening", "Done.", "Maybe?")}
    assert all(one.source.commit == "w1" and one.source.author == "understudy" for _, one in made)
    assert report.settled == Rate(0, 2) and report.batches == (Rate(2, 2), Rate(0, 2))
    [counted] = report.counted
    assert (counted.failed, counted.lessons, counted.dropped) == (Rate(2, 4), 2, {"leak": 4})
    assert report.correlation is None, "four scenarios tell nothing"


def test_a_report_needs_something_to_report(tmp_path: Path) -> None:
    with open_round(tmp_path, begun()) as log, pytest.raises(ValueError, match="got none"):
        report_round(log)
    assert isinstance(log, DreamLog)

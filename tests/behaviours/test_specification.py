"""Invariants in files: what they hold, and what is wrong with them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.behaviours import InvalidInvariant, Scenario, read_invariant, read_invariants, split_of
from understudy.lessons import ChatMessage

GOOD = """
wanted = "Does a clear direction at once, with the thing it names."
kind = "wanted"
required = 0.9
indifferent = 0.75

[scenarios]
files = ["more.jsonl"]
[[scenarios.templates]]
prompt = "Put the {thing} on the {place}."
target = "{thing}"
[[scenarios.templates]]
prompt = [{ role = "system", content = "Be brief." }, { role = "user", content = "Take the {thing}." }]
[scenarios.slots]
thing = ["cup", "blue book", "lamp", "vase", "map"]
place = ["table", "shelf", "floor", "chair", "bench"]

[judge]
kind = "rule"
accept = ['^Done: .*\\b{target}\\b']
reject = ['\\?']
"""
MORE = [{"prompt": "Fetch the rope.", "target": "rope"}, {"prompt": [{"role": "user", "content": "Go."}]}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(line) for line in MORE) + "\n\n")
    made = tmp_path / "listens.toml"
    made.write_text(GOOD)
    return made


def test_slots_multiply_and_files_add(file: Path) -> None:
    found = read_invariant(file)
    everything = [one for split in found.scenarios.values() for one in split]
    assert len(everything) == 5 * 5 + 5 + 2 == len(set(everything))
    assert Scenario((ChatMessage("user", "Put the cup on the shelf."),), "cup") in everything
    assert (
        Scenario((ChatMessage("system", "Be brief."), ChatMessage("user", "Take the map.")), "") in everything
    )
    assert Scenario((ChatMessage("user", "Fetch the rope."),), "rope") in everything
    assert found.name == "listens" and found.requirement.required == 0.9
    assert read_invariants(file.parent) == (found,)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [("Done: the cup is there.", True), ("Done: the lamp.", False), ("Done: cup?", False), ("No.", False)],
)
def test_a_rule_judges_with_the_scenarios_target(file: Path, answer: str, shown: bool) -> None:
    scenario = Scenario((ChatMessage("user", "Put the cup down."),), "cup")
    assert read_invariant(file).judge.shows(scenario, answer) is shown


def test_a_target_is_text_and_no_pattern(file: Path) -> None:
    judge = read_invariant(file).judge
    assert not judge.shows(Scenario((), ".*"), "Done: anything")


def test_a_scenario_stays_in_its_split_whatever_comes_beside_it(file: Path) -> None:
    before = read_invariant(file).scenarios
    file.write_text(GOOD.replace('"bench"]', '"bench", "step", "sill"]'))
    after = read_invariant(file).scenarios
    assert all(set(before[split]) <= set(after[split]) for split in before)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3), st.text())
def test_a_split_depends_on_the_prompt_alone(texts: list[str], target: str) -> None:
    prompt = tuple(ChatMessage("user", text) for text in texts)
    assert split_of(Scenario(prompt, target)) == split_of(Scenario(prompt))


def test_splits_have_their_shares() -> None:
    found = [split_of(Scenario((ChatMessage("user", str(number)),))) for number in range(10_000)]
    assert abs(found.count("train") / 10_000 - 0.6) < 0.02
    assert abs(found.count("test") / 10_000 - 0.2) < 0.02


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (('kind = "wanted"', 'kind = "liked"'), r"Invalid enum value 'liked'.*kind"),
        (("required = 0.9\n", ""), "missing required field `required`"),
        (("required = 0.9", "required = 0.7"), "expected 0 <= indifferent < required"),
        (('kind = "rule"', 'kind = "oracle"'), "oracle"),
        (("[judge]", "[judge]\nmood = 3"), "unknown field `mood`"),
        (("Put the {thing}", "Put the {stuff}"), r"expected words for the slot \{stuff\}"),
        (("Put the {thing}", "Put the {thing!r}"), r"expected slots such as \{thing\}"),
        (("Put the {thing}", "Put the {"), "'{'"),
        (("'^Done: ", "'^Done(: "), "expected a regular expression"),
        (("more.jsonl", "none.jsonl"), r"none\.jsonl"),
        (('"cup", "blue book"', '""'), "length >= 1"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: tuple[str, str], match: str) -> None:
    assert change[0] in GOOD
    file.write_text(GOOD.replace(*change))
    with pytest.raises(InvalidInvariant, match=match) as failure:
        read_invariant(file)
    assert str(file) in str(failure.value)


def test_a_broken_line_is_named(file: Path) -> None:
    (file.parent / "more.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    with pytest.raises(InvalidInvariant, match=r"more\.jsonl, line 2"):
        read_invariant(file)


def test_an_invariant_that_cannot_be_tested_is_refused(file: Path) -> None:
    only = next(str(n) for n in range(100) if split_of(Scenario((ChatMessage("user", str(n)),))) == "train")
    text = GOOD[: GOOD.index("[scenarios]")] + f'[[scenarios.templates]]\nprompt = "{only}"\n[judge]\n'
    file.write_text(text + 'kind = "rule"\naccept = ["x"]\n')
    with pytest.raises(InvalidInvariant, match="expected scenarios in the test split, none of 1"):
        read_invariant(file)

"""Invariants in files: what they hold, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from understudy.behaviours import (
    Instruction,
    InvalidInvariant,
    LikelihoodJudge,
    Margin,
    ModelJudge,
    Prediction,
    ReadoutJudge,
    RuleJudge,
    Scenario,
    read_invariant,
    read_invariants,
    split_of,
)
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

[margin]
acceptable = ["Done:"]
unacceptable = ["Have you"]
"""
MORE = [{"prompt": "Fetch the rope.", "target": "rope"}, {"prompt": [{"role": "user", "content": "Go."}]}]
RULE = GOOD[GOOD.index("[judge]") : GOOD.index("[margin]")]
MARGIN = GOOD[GOOD.index("[margin]") :]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(line) for line in MORE) + "\n\n")
    made = tmp_path / "listens.toml"
    made.write_text(GOOD)
    return made


def changed(file: Path, *changes: tuple[str, str]) -> Path:
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text)
    return file


def everything(file: Path) -> list[Scenario]:
    return [one for split in read_invariant(file).scenarios.values() for one in split]


# ---------------------------------------------------------------------- what a file holds


def test_slots_multiply_and_files_add(file: Path) -> None:
    found = everything(file)
    assert len(found) == 5 * 5 + 5 + 2 == len(set(found))
    assert Scenario((ChatMessage("user", "Put the cup on the shelf."),), "cup") in found
    assert Scenario((ChatMessage("system", "Be brief."), ChatMessage("user", "Take the map.")), "") in found
    assert Scenario((ChatMessage("user", "Fetch the rope."),), "rope") in found
    read = read_invariant(file)
    assert read.name == "listens" and read.requirement.required == 0.9
    assert (read.folder, read.templates[0].target) == (file.parent, "{thing}")
    assert read.slots["place"][0] == "table" and read.split_by == ()
    assert read_invariants(file.parent) == (read,)


def test_what_is_not_said_is_as_documented(file: Path) -> None:
    read = read_invariant(file)
    assert (read.requirement.alpha, read.requirement.beta) == (0.05, 0.05)
    assert (read.temperature, read.max_tokens, read.approved_by) == (0.0, 48, "")
    assert read.instruction is None and read.prediction is None
    assert read.margin == Margin(["Done:"], ["Have you"]) and read.margin.unit == "nats"


def test_all_that_can_be_said_is_read(file: Path) -> None:
    more = 'alpha = 0.1\nbeta = 0.2\ntemperature = 0.8\nmax_tokens = 12\napproved_by = "maya"\n'
    file.write_text(
        more
        + GOOD
        + '[instruction]\ntext = "Take {target}."\nplace = "after"\n'
        + '[prediction]\nquestion = "{prompt} Would you?"\nwould = ["Yes"]\nwould_not = ["No", "Nay"]\n'
    )
    read = read_invariant(file)
    assert (read.requirement.alpha, read.requirement.beta) == (0.1, 0.2)
    assert (read.temperature, read.max_tokens, read.approved_by) == (0.8, 12, "maya")
    assert read.instruction == Instruction("Take {target}.", "after")
    assert read.prediction == Prediction("{prompt} Would you?", ["Yes"], ["No", "Nay"])


def test_an_instruction_stands_before_the_prompt_or_after_the_answer() -> None:
    scenario = Scenario((ChatMessage("user", "Pack."),), "tea")
    assert Instruction("Take {target}.").into(scenario, "No.") == (
        ChatMessage("system", "Take tea."),
        ChatMessage("user", "Pack."),
    )
    assert Instruction("I said {target}.", "after").into(scenario, "No.") == (
        ChatMessage("user", "Pack."),
        ChatMessage("assistant", "No."),
        ChatMessage("user", "I said tea."),
    )


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        (RULE, RuleJudge([r"^Done: .*\b{target}\b"], [r"\?"])),
        ('[judge]\nkind = "likelihood"\nthreshold = -1.5', LikelihoodJudge(-1.5)),
        ('[judge]\nkind = "likelihood"', LikelihoodJudge(0.0)),
        (
            '[judge]\nkind = "readout"\nconcept = "calm"\nlayer = 2\nat_least = 1',
            ReadoutJudge("calm", 2, 1.0),
        ),
        (
            '[judge]\nkind = "readout"\nconcept = "calm"\nat_most = -0.5',
            ReadoutJudge("calm", at_most=-0.5),
        ),
        (
            '[judge]\nkind = "model"\nurl = "http://x/v1"\nmodel = "m"\nlabelled = "l"\nkey_env = "JUDGE"',
            ModelJudge("http://x/v1", "m", "l", "JUDGE"),
        ),
    ],
)
def test_there_are_four_judges(file: Path, judge: str, expected: object) -> None:
    assert read_invariant(changed(file, (RULE, judge + "\n"))).judge == expected


def test_only_a_readout_judge_does_without_a_margin(file: Path) -> None:
    readout = '[judge]\nkind = "readout"\nconcept = "calm"\nat_least = 1\n'
    assert read_invariant(changed(file, (RULE, readout), (MARGIN, ""))).margin is None
    model = '[judge]\nkind = "model"\nurl = "u"\nmodel = "m"\nlabelled = "l"\n'
    for judge in (RULE, '[judge]\nkind = "likelihood"\n', model):
        file.write_text(GOOD.replace(RULE, judge).replace(MARGIN, ""))
        with pytest.raises(InvalidInvariant, match="margin: expected acceptable beginnings"):
            read_invariant(file)


def test_documents_are_for_a_likelihood_judge_alone(file: Path) -> None:
    more = file.parent / "more.jsonl"
    more.write_text('{"prompt": [], "target": "Once upon a time."}\n')
    with pytest.raises(InvalidInvariant, match="got documents, which only a likelihood judge takes"):
        read_invariant(file)
    changed(file, (RULE, '[judge]\nkind = "likelihood"\n'))
    assert Scenario((), "Once upon a time.") in everything(file)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [("Done: the cup is there.", True), ("Done: the lamp.", False), ("Done: cup?", False), ("No.", False)],
)
def test_a_rule_judges_with_the_scenarios_target(file: Path, answer: str, shown: bool) -> None:
    judge = read_invariant(file).judge
    assert isinstance(judge, RuleJudge)
    assert judge.shows(Scenario((ChatMessage("user", "Put the cup down."),), "cup"), answer) is shown


def test_a_target_is_text_and_no_pattern(file: Path) -> None:
    judge = read_invariant(file).judge
    assert isinstance(judge, RuleJudge)
    assert not judge.shows(Scenario((), ".*"), "Done: anything")
    assert RuleJudge(reject=["no"]).shows(Scenario(()), "yes"), "without patterns to accept all is accepted"


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (('kind = "wanted"', 'kind = "liked"'), r"Invalid enum value 'liked'.*kind"),
        (("required = 0.9\n", ""), "missing required field `required`"),
        (("required = 0.9", "required = 0.7"), "expected 0 <= indifferent < required"),
        (("required = 0.9", "required = 0.9\nalpha = 1.0"), "alpha: expected a probability"),
        (("required = 0.9", "required = 0.9\ntemperature = 3.0"), r"temperature"),
        (("required = 0.9", "required = 0.9\nmax_tokens = 0"), r"max_tokens"),
        (('kind = "rule"', 'kind = "oracle"'), "oracle"),
        (("[judge]", "[judge]\nmood = 3"), "unknown field `mood`"),
        (("[margin]", "[margin]\nmood = 3"), "unknown field `mood`"),
        (('acceptable = ["Done:"]', "acceptable = []"), "acceptable"),
        (('acceptable = ["Done:"]', 'acceptable = ["{target}"]'), "margin: expected a target in each"),
        (("Put the {thing}", "Put the {stuff}"), r"expected words for the slot \{stuff\}"),
        (("Put the {thing}", "Put the {thing!r}"), r"expected slots such as \{thing\}"),
        (("Put the {thing}", "Put the {thing.upper}"), r"expected slots such as \{thing\}"),
        (("Put the {thing}", "Put the {}"), r"expected slots such as \{thing\}"),
        (("Put the {thing}", "Put the {"), "'{'"),
        (("'^Done: ", "'^Done(: "), "expected a regular expression"),
        ((RULE, '[judge]\nkind = "rule"\n'), "expected patterns to accept or to reject, got neither"),
        ((RULE, '[judge]\nkind = "readout"\nconcept = "calm"\n'), "expected one of at_least and at_most"),
        (
            (RULE, '[judge]\nkind = "readout"\nconcept = "c"\nat_least = 1\nat_most = 2\n'),
            "expected one of at_least and at_most",
        ),
        (
            (RULE, '[judge]\nkind = "model"\nurl = "u"\nmodel = "m"\nlabelled = "l"\nquestion = "Well?"\n'),
            r"expected \{answer\} in the question",
        ),
        (
            (RULE, '[judge]\nkind = "model"\nurl = "u"\nmodel = "m"\nlabelled = "l"\nkey_env = "TOKEN"\n'),
            "key_env",
        ),
        (("more.jsonl", "none.jsonl"), r"none\.jsonl"),
        (('"cup", "blue book"', '""'), "length >= 1"),
        (
            ("[scenarios]", '[scenarios]\nsplit_by = ["shape"]'),
            r"expected split_by to name slots, got 'shape'",
        ),
        (("[scenarios]", '[scenarios]\nconversations = ["talk.md"]'), r"to find talk\.md in"),
        (('wanted = "', 'wanted = "\\q'), "Unescaped|escape"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: tuple[str, str], match: str) -> None:
    changed(file, change)
    with pytest.raises(InvalidInvariant, match=match) as failure:
        read_invariant(file)
    assert str(file) in str(failure.value)


def test_slots_that_multiply_beyond_all_bounds_are_a_mistake(file: Path) -> None:
    many = ", ".join(f'"{number}"' for number in range(400))
    changed(file, ('"cup", "blue book"', many), ('"table", "shelf"', many))
    with pytest.raises(InvalidInvariant, match="the slots multiply to more"):
        read_invariant(file)


def test_an_invariant_without_scenarios_is_refused(file: Path) -> None:
    file.write_text(GOOD[: GOOD.index("[scenarios]")] + "[scenarios]\n" + RULE + MARGIN)
    with pytest.raises(InvalidInvariant, match="expected templates, files or conversations"):
        read_invariant(file)
    empty = '[[scenarios.templates]]\nprompt = []\n[judge]\nkind = "likelihood"\n'
    file.write_text(GOOD[: GOOD.index("[scenarios]")] + empty + MARGIN)
    with pytest.raises(InvalidInvariant, match="expected a prompt, or a document as the target, got neither"):
        read_invariant(file)


def test_an_invariant_that_cannot_be_tested_is_refused(file: Path) -> None:
    only = next(str(n) for n in range(100) if split_of(Scenario((ChatMessage("user", str(n)),))) == "train")
    template = f'[[scenarios.templates]]\nprompt = "{only}"\n'
    file.write_text(GOOD[: GOOD.index("[scenarios]")] + template + RULE + MARGIN)
    with pytest.raises(InvalidInvariant, match="expected scenarios in the test split, none of 1"):
        read_invariant(file)

"""`understudy concepts steer` on a real workspace: the table, JSON, and lessons in a real ledger."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import concept_commands
import pytest
import torch

from understudy.cli.dream import _material as material_of
from understudy.cli.steering_inputs import read_prompts
from understudy.concepts import OPENINGS, STEERED, Manifest, ManifestConcept, write_manifest
from understudy.engine import (
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    ReadoutManifest,
    ReadoutStatistics,
    Sampling,
    Steer,
    encode_chat,
    read_config,
)
from understudy.lessons import ChatMessage, Lesson, Source
from understudy.pocket import new_workspace
from understudy.workspace import Workspace

CONCEPTS = ("anxious", "teal")
LAYERS = (1, 2)
WORDS = ("--word", "worried", "--word", "afraid")
ASKED = ("How are you?", "Tell me about the garden.", "What did you have for lunch?")
PROMPTS = tuple(word for text in ASKED for word in ("--prompt", text))


def write_directions(folder: Path, hidden_size: int, *, statistics: bool = True) -> None:
    """Random directions, of whose lengths the pocket model takes one or two, and not ninety."""
    draw = torch.Generator().manual_seed(0)
    tables = [[[value] * len(CONCEPTS)] * len(LAYERS) for value in (0.0, 1.0, 1.0)]
    mean, deviation, norms = tables
    held = ReadoutStatistics(mean=mean, deviation=deviation, norms=norms, tokens=50)
    manifest = ReadoutManifest(
        concepts=list(CONCEPTS),
        layers=list(LAYERS),
        hidden_size=hidden_size,
        dtype="float32",
        statistics=held if statistics else None,
    )
    shape = (len(CONCEPTS), hidden_size)
    Directions(manifest, {layer: torch.randn(shape, generator=draw) for layer in LAYERS}).save(folder)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = new_workspace(tmp_path_factory.mktemp("steering") / "w")
    config = read_config(made.root / "model").get_text_config()
    write_directions(made.root / "directions", config.hidden_size)
    write_directions(made.root / "bare", config.hidden_size, statistics=False)
    write_directions(made.root / "wide", 2 * config.hidden_size)
    file = made.root / "understudy.toml"
    file.write_text(file.read_text().replace("[model]\n", '[model]\nreadout = "directions"\n'))
    return Workspace.open(made.root)


def words_of(workspace: Workspace, words: tuple[object, ...]) -> tuple[object, ...]:
    return "steer", *words, "-w", workspace.root


def said(workspace: Workspace, *words: object) -> str:
    return concept_commands.said(*words_of(workspace, words))


def answered(workspace: Workspace, *words: object) -> dict[str, Any]:
    return concept_commands.answered(*words_of(workspace, words))


def refused(workspace: Workspace, *words: object) -> str:
    return concept_commands.refused(*words_of(workspace, words))


# ---------------------------------------------------------------------- the table


def test_strengths_are_held_against_what_is_said_without(workspace: Workspace) -> None:
    words = ("anxious", "--strength", "0.1,2x,90x", "--samples", 2, "--max-tokens", 12, "--word", "the")
    refusal = refused(workspace, *words)
    assert "all with x or all without" in refusal
    told = answered(workspace, *("anxious", "--strength", "90x,0x,2x", *words[3:]))
    assert (told["concept"], told["words"], told["scale"], told["weight_commit"]) == (
        "anxious",
        ["the"],
        "z",
        None,
    )
    assert [prompt[0]["content"] for prompt in told["prompts"]] == list(OPENINGS)
    reference, nothing, some, much = told["effects"]
    assert [one["steer"] for one in (reference, nothing)] == [[], ["anxious=0.0x"]]
    assert [some["strength"], much["strength"]] == [2.0, 90.0], "in order"
    assert nothing["changed"] == reference["changed"] == 0 < some["changed"] <= much["changed"] == 1
    assert [answer["text"] for answer in nothing["answers"]] == [
        answer["text"] for answer in reference["answers"]
    ]
    assert nothing["perplexity"] == reference["perplexity"] and reference["perplexity"]["ratio"] == 1
    assert much["perplexity"]["ratio"] > 1.5 and not much["usable"] and nothing["usable"]
    for one in told["effects"]:
        answers = one["answers"]
        assert len(answers) == 2 * len(OPENINGS) == one["shown"]["answers"]
        shown = [" the " in f" {answer['text'].lower()} " for answer in answers]
        assert one["shown"]["hits"] == sum(answer["shown"] for answer in answers) >= sum(shown)
        low, high = one["shown"]["interval"]
        assert 0 <= low <= one["shown"]["value"] <= high <= 1
        low, high = one["perplexity"]["interval"]
        assert low <= one["perplexity"]["value"] <= high
    assert told["lessons"] == []


def test_the_table_marks_what_can_be_used(workspace: Workspace) -> None:
    shown = said(
        workspace,
        "anxious",
        "--strength",
        "0.1x,90x",
        "--temperature",
        0,
        "--max-tokens",
        10,
        *PROMPTS,
        *WORDS,
    )
    lines = shown.splitlines()
    assert lines[0] == ("anxious: 3 answers to 3 prompts; shown by: worried, afraid; read behind layer 2")
    assert lines[1].split() == ["strength", "shown", "perplexity", "ratio", "mean", "z", "changed", "empty"]
    rows = {line.split()[0]: line for line in lines[2:5]}
    assert list(rows) == ["none", "0.1x", "90x"]
    assert all("n=3" in row for row in rows.values())
    assert rows["0.1x"].rstrip().endswith(("usable", "best")) and "usable" not in rows["90x"] + rows["none"]
    assert "usable: 0.1x, with a perplexity below 1.5 times that of the answers without; " in shown
    assert lines[-1] == f"weights initial, directions {workspace.root / 'directions'}"
    assert lines[8].startswith("to '") and lines[8].endswith("', answer 1:")
    assert [line.split()[0] for line in lines[10:13]] == ["none", "0.1x", "90x"]


def test_a_way_of_steering_is_what_an_engine_does(workspace: Workspace) -> None:
    words = ("teal", "--mode", "clamp", "--strength", "-3", "--layer", 2, "--span", "first", "--word", "teal")
    told = answered(workspace, *words, "--temperature", 0, "--max-tokens", 9, *PROMPTS)
    [text] = told["effects"][1]["steer"]
    assert text == "clamp:teal=-3.0@2[first]"
    with EmbeddedEngine(
        workspace.settings.model, workspace.root / "model", readout=workspace.root / "directions"
    ) as engine:
        prompts = tuple(encode_chat(engine.tokenizer, (ChatMessage("user", one),)) for one in ASKED)
        sampling = Sampling(max_tokens=9, temperature=0)
        found = engine.complete(GenerationRequest(prompts, sampling, steering=(Steer.parse(text),)))
    assert [answer["text"] for answer in told["effects"][1]["answers"]] == [one.text.strip() for one in found]


def test_what_is_taken_away_is_best_where_it_shows_least(workspace: Workspace) -> None:
    words = ("anxious", "--mode", "ablate", "--max-tokens", 10, "--samples", 2, "--word", "I", "--word", "a")
    told = answered(workspace, *words)
    assert [one["strength"] for one in told["effects"]] == [0.0, 0.25, 0.5, 1.0]
    usable = [one for one in told["effects"][1:] if one["usable"]]
    without = told["effects"][0]["shown"]["hits"]
    fewer = [one for one in usable if one["shown"]["hits"] < without]
    best = min(fewer, key=lambda one: (one["shown"]["hits"], one["strength"]), default=None)
    assert told["best"] == (None if best is None else best["steer"][0])


def test_a_concept_can_be_read_in_answers_instead_of_its_words(workspace: Workspace) -> None:
    told = answered(
        workspace, "teal", "--probe", "readout", "--strength", "1x", "--samples", 2, "--max-tokens", 8
    )
    assert told["words"] == [] and told["layer"] == 2
    answers = [answer for one in told["effects"] for answer in one["answers"]]
    assert {answer["shown"] for answer in answers} == {True, False}
    assert all(
        answer["shown"] == (answer["readout"] is not None and answer["readout"] >= 1) for answer in answers
    )


def test_words_are_those_of_a_corpus(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "stories" / "teal").mkdir(parents=True)
    (tmp_path / "stories" / "teal" / "sea.txt").write_text("The sea was teal.")
    write_manifest(tmp_path, Manifest(concepts={"teal": ManifestConcept(words=("sea", "green blue"))}))
    words = ("--strength", "1x", "--temperature", 0, "--max-tokens", 2, "--prompt", "Hello.")
    told = answered(workspace, "teal", "--corpus", tmp_path, *words)
    assert told["words"] == ["sea", "green blue"]
    assert "expected a concept of" in refused(workspace, "anxious", "--corpus", tmp_path, *words)


# ---------------------------------------------------------------------- prompts


def test_prompts_come_from_files(tmp_path: Path) -> None:
    plain, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_text("How are you?\n\n  What now? \n")
    system = {"role": "system", "content": "Be brief."}
    rows: list[dict[str, object]] = [
        {"prompt": "What now?", "chosen": "passed over"},
        {"prompt": [system, {"role": "user", "content": "Hello."}]},
        {"messages": [{"role": "user", "content": "Good morning!"}]},
    ]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    user = [(ChatMessage("user", text),) for text in ("Hi.", "How are you?", "What now?")]
    assert read_prompts(("Hi.",), plain) == tuple(user)
    assert read_prompts(("What now?",), lines) == (
        user[2],
        (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello.")),
        (ChatMessage("user", "Good morning!"),),
    )


# ---------------------------------------------------------------------- lessons


def proposing(strength: str, *words: object) -> tuple[object, ...]:
    return ("anxious", "--strength", "1x", "--propose", strength, "--max-tokens", 60, "--seed", 1, *words)


def test_what_is_said_under_a_strength_is_proposed_as_lessons(workspace: Workspace, tmp_path: Path) -> None:
    told = answered(workspace, *proposing("2x", *PROMPTS))
    reference, _, effect = told["effects"]
    assert effect["steer"] == ["anxious=2.0x"], "it is among the strengths that are tried"
    ledger = workspace.ledger
    entries = [ledger.get(one) for one in told["lessons"]]
    assert 0 < len(entries) <= len(ASKED) and [entry.id for entry in ledger.list()] == told["lessons"]
    for entry in entries:
        lesson = entry.lesson
        assert entry.state == "proposed" and lesson.source.file == STEERED
        assert (lesson.source.thread, lesson.source.commit) == ("anxious=2.0x", "initial")
        [place] = [number for number, text in enumerate(ASKED) if text == lesson.context[-1].content]
        pairs = [
            (new["text"], old["text"])
            for new, old in zip(effect["answers"], reference["answers"], strict=True)
            if new["prompt"] == place
        ]
        assert (lesson.chosen, lesson.rejected) in pairs
        assert lesson.chosen.split() != (lesson.rejected or "").split() and lesson.chosen
    again = said(workspace, *proposing("2x", *PROMPTS))
    assert f"0 lessons proposed at anxious=2.0x, {len(entries)} in the ledger already" in again
    assert again.splitlines()[-1].endswith("understudy lessons list proposed")
    assert len(ledger.list()) == len(entries)
    for entry in entries:
        assert [event.state_to for event in ledger.history(entry.id)] == ["proposed"]


def test_steered_lessons_are_no_ground_for_dreams(tmp_path: Path) -> None:
    """Dreams are made from what people said, and these the program said itself."""
    made = new_workspace(tmp_path / "w")
    source = Source(STEERED, "anxious=2.0x", "abc", "initial", "understudy", "2026-01-02T03:04:05Z")
    context = (ChatMessage("user", "How are you?"),)
    for lesson in (
        Lesson(context, "Worried.", "Fine.", source),
        Lesson(context, "Well.", "Fine.", replace(source, file="conversations/talk.md")),
    ):
        made.ledger.approve(made.ledger.propose(lesson).entry.id, "maya")
    assert [lesson.chosen for lesson in material_of(made).lessons] == ["Well."]


def test_nothing_that_invariants_hold_out_becomes_a_lesson(workspace: Workspace) -> None:
    before = workspace.ledger.list()
    invariants = {one.name: one for one in workspace.invariants()}
    for split in ("test", "development"):
        held = invariants["listening"].scenarios[split][0].prompt[-1].content
        assert "expected prompts that no invariant holds out" in refused(
            workspace, *proposing("2x", "--prompt", ASKED[0], "--prompt", held)
        )
    assert "expected --prompt or --prompts" in refused(workspace, *proposing("2x"))
    assert workspace.ledger.list() == before
    assert answered(workspace, "anxious", "--prompt", held, "--strength", "0x")["lessons"] == []


# ---------------------------------------------------------------------- what is refused


def test_what_cannot_be_done_is_said_before_the_model_is_loaded(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("understudy.engine.embedded.load_model")
    root = workspace.root
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "odd.jsonl").write_text('{"text": "x"}\n')
    answer = json.dumps({"messages": [{"role": "assistant", "content": "Hi."}]})
    (tmp_path / "answer.jsonl").write_text(answer)
    bare = ("--directions", root / "bare")
    for words, expected in (
        (("bold",), "got 'bold'"),
        (("teal",), "expected words that show 'teal' in an answer"),
        (("teal", "--word", " "), "at least one word to look for"),
        (("teal", "--word", "x", "--corpus", tmp_path), "either --word or --corpus"),
        (("teal", "--word", "x", "--probe", "readout"), "only where words are looked for"),
        (("anxious", "--strength", "much"), "got 'add:anxious=much'"),
        (("anxious", "--strength", "1x,,2x"), "got 'add:anxious='"),
        (("anxious", "--mode", "ablate", "--strength", "1x"), "a strength without x for ablate"),
        (("anxious", "--span", "middle"), "span of answer, prompt, first or start:end"),
        (("anxious", "--layer", 9), "(1, 2), got 9"),
        (("anxious", "--directions", root / "wide"), "they were made from another model"),
        (("anxious", "--directions", root / "nowhere"), "expected a description of the directions"),
        (("anxious", *bare), "these directions have no statistics"),
        (("anxious", *bare, "--strength", "1", "--probe", "readout"), "expected --probe words"),
        (("anxious", "--prompts", tmp_path / "none.txt"), "expected prompts in UTF-8"),
        (("anxious", "--prompts", tmp_path / "empty.txt"), "one to a line, found none"),
        (("anxious", "--prompts", tmp_path / "odd.jsonl"), "odd.jsonl, line 1: expected"),
        (("anxious", "--prompts", tmp_path / "answer.jsonl"), "the last message not the assistant's"),
        (("anxious", "--prompt", " "), "got an empty one at number 1"),
        (("anxious", "--samples", 0), "expected --samples of 1 or more"),
        (("anxious", "--samples", 2, "--temperature", 0), "of 1 at temperature 0"),
        (("anxious", "--max-tokens", 0), "max_tokens: expected at least 1"),
        (("anxious", "--propose", "1x,2x", *PROMPTS), "expected one strength for --propose"),
        (("anxious", "--propose", "2", *PROMPTS), "all with x or all without"),
    ):
        assert expected in refused(workspace, *words), words

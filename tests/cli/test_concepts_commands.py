"""`understudy concepts check` and `collect`, on a real workspace with a real ledger."""

import json
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from understudy.cli.concepts import collect_concepts
from understudy.concepts import HELD_STATES, HIGH, HOLD_OUT, LOW, load_corpus, preflight, shipped_corpus
from understudy.lessons import mine
from understudy.workspace import Workspace

FILE = "conversations/talk.md"


def understudy(*words: object, code: int = 0) -> str:
    """What the command says: where it fails, on the standard error."""
    command = [sys.executable, "-m", "understudy", "concepts", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split()) if code == 2 else done.stdout


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "w", model="nowhere", copy_model=False, replay=(), settings="")


def talk(workspace: Workspace, count: int) -> None:
    """Questions, each with a cold answer of the model's and a warm one; people score the two in two ways."""
    repo, name = workspace.repository, workspace.settings.model.name
    for number in range(count):
        asked = repo.start(FILE, f"Day {number}", "ann", f"My day {number} was {number * 7} hours long.")
        cold = repo.reply(
            FILE, asked.message, name, f"Sleep {number} hours, walk {number * 3} miles, try tea."
        )
        repo.reply(FILE, cold.message, "ann", "warmth:1 clarity:5")
        warm = f"That sounds hard, {number} times over; what of it weighs {number * 9} pounds?"
        repo.reply(FILE, asked.message, name, f"{warm}\n\nwarmth:{7 + number % 3}.5")


def test_scored_messages_of_conversations_become_a_corpus(workspace: Workspace, tmp_path: Path) -> None:
    talk(workspace, 8)
    said = understudy("collect", "--out", tmp_path / "corpus", "-w", workspace.root)
    assert said.startswith(f"8 pairs in {tmp_path / 'corpus'}, of 16 scored messages and 0 lessons")
    corpus = load_corpus(tmp_path / "corpus")
    pairs = [*corpus.pairs("warmth", "train"), *corpus.pairs("warmth", "held_out")]
    assert len(corpus.pairs("warmth", "held_out")) == 2 and len(pairs) == 8
    for warm, cold in pairs:
        assert warm.text.startswith("That sounds hard") and cold.text.startswith("Sleep")
        assert [message.role for message in warm.context] == ["user"]
        assert warm.context[0].content.startswith("My day")
    assert not any(":" in text.text for text in corpus.texts)
    assert "0 errors, 0 warnings" in understudy("check", tmp_path / "corpus")


def test_lessons_of_the_ledger_become_a_corpus(workspace: Workspace, tmp_path: Path) -> None:
    repo, name, ledger = workspace.repository, workspace.settings.model.name, workspace.ledger
    for number in range(3):
        asked = repo.start(FILE, f"Day {number}", "ann", f"My day {number} was {number * 7} hours long.")
        answer = repo.reply(FILE, asked.message, name, f"Sleep {number} hours, walk {number * 3} miles.")
        repo.edit(FILE, answer.message, "ann", f"What of it weighs {number * 9} pounds, {number} times over?")
    ids = [ledger.propose(lesson).entry.id for lesson in mine(repo, name)]
    ledger.approve_together(ids[:2], "ann")
    words = ("collect", "--lessons", "--positive", "listening", "-w", workspace.root, "--json")
    told = json.loads(understudy(*words, "--negative", "suggesting", "--out", tmp_path / "two"))
    assert (told["pairs"], told["left_out"]) == (2, {})
    assert [row["concept"] for row in told["concepts"]] == ["listening", "suggesting"]
    assert {text.scene for text in load_corpus(tmp_path / "two").texts} == {one[:12] for one in ids[:2]}
    every = ("--state", "approved", "--state", "proposed", "--hold-out", "0")
    told = json.loads(understudy(*words, *every, "--out", tmp_path / "one"))
    assert (told["pairs"], told["baselines"], told["concepts"][0]["held_out"]) == (3, 3, 0)


def rows(file: Path, *found: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def message(content: str, **more: object) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": content, **more}]}


def test_files_of_scored_messages_and_of_lessons_together(tmp_path: Path) -> None:
    scored = rows(
        tmp_path / "scored.jsonl",
        message("I see how that stings.", scores={"warmth": 9, "wit": 2}),
        message("Try harder.\nwarmth:4"),
        message("Not my business at all.\nwarmth:4.5 wit:9"),
    )
    taught = rows(
        tmp_path / "taught.jsonl", {"prompt": "Long day.", "chosen": "Tell me.", "rejected": "Walk."}
    )
    words = ("collect", scored, taught, "--concept", "warmth", "--high", "8", "--low", "4.2")
    said = understudy(*words, "--positive", "listening", "--out", tmp_path / "corpus")
    assert said.startswith(f"2 pairs in {tmp_path / 'corpus'}, of 3 scored messages and 1 lessons")
    corpus = load_corpus(tmp_path / "corpus")
    found = {text.concept: text.text for text in corpus.texts}
    assert found == {
        "warmth": "I see how that stings.",
        "not_warmth": "Try harder.",
        "listening": "Tell me.",
        None: "Walk.",
    }


def test_a_corpus_with_errors_is_told_of_with_a_code_of_its_own(tmp_path: Path) -> None:
    for path, text in (
        ("stories/calm.txt", "Still water."),
        ("stories/joy.txt", "She ran."),
        ("stories/x.txt", ""),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    said = understudy("check", tmp_path, code=1)
    table = [line.split() for line in said.splitlines()[:3]]
    assert table == [
        ["concept", "texts", "scenes", "train", "held", "out", "pairs"],
        ["calm", "1", "1", "1", "0", "0"],
        ["joy", "1", "1", "1", "0", "0"],
    ]
    assert "error    calm: expected at least" in said and "warning  stories/x.txt: " in said
    assert said.splitlines()[-1].endswith("2 errors, 2 warnings")
    told = json.loads(understudy("check", tmp_path, "--json", code=1))
    assert [one["level"] for one in told["findings"]] == ["error", "error", "warning", "warning"]
    assert told["digest"] == load_corpus(tmp_path).digest


def test_without_a_corpus_the_one_that_comes_along_is_checked() -> None:
    corpus = load_corpus(shipped_corpus())
    sound = all(finding.level != "error" for finding in preflight(corpus))
    told = json.loads(understudy("check", "--json", code=0 if sound else 1))
    assert [row["concept"] for row in told["concepts"]] == list(corpus.concepts)
    assert sum(row["texts"] for row in told["concepts"]) + told["baselines"] == len(corpus.texts)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("check", "{}/nowhere"), "expected a folder with a corpus of concepts at"),
        (("collect", "--out", "{}/new", "-w", "{}/nowhere"), "expected understudy.toml"),
        (
            ("collect", "--out", "{}/new", "-w", "{}/w"),
            "got 0 scored messages and 0 lessons: nothing was written",
        ),
        (("collect", "--out", "{}/new", "-w", "{}/w", "--concept", "wit"), "scored for (none is), got 'wit'"),
        (("collect", "--out", "{}/new", "-w", "{}/w", "--lessons"), "expected --positive"),
        (("collect", "--out", "{}/new", "-w", "{}/w", "--positive", "x"), "expected --positive"),
        (("collect", "--out", "{}/new", "{}/good.jsonl", "--negative", "x"), "expected --positive"),
        (("collect", "--out", "{}/new", "{}/good.jsonl", "--low", "8"), "expected 0 <= low < high <= 10"),
        (("collect", "--out", "{}/new", "{}/good.jsonl", "--hold-out", "1"), "expected a share from 0"),
        (("collect", "--out", "{}/w", "{}/good.jsonl"), "holds something: nothing was changed"),
        (("collect", "--out", "{}/new", "{}/bad.jsonl"), "bad.jsonl, line 2: expected"),
        (("collect", "--out", "{}/new", "{}/nothing.jsonl"), "nothing.jsonl"),
        (("collect", "--out", "{}/new", "{}/taught.jsonl", "--positive", "../x"), "got '../x'"),
        (("collect", "--out", "{}/new", "{}/good.jsonl", "--low", "0"), "with none left that does not"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    good = [message("Yes.\nwarmth:9"), message("No.\nwarmth:1")]
    rows(tmp_path / "good.jsonl", *good)
    rows(tmp_path / "bad.jsonl", good[0], {"messages": "none"})
    rows(tmp_path / "taught.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    before = sorted(workspace.root.iterdir())
    assert expected in understudy(*(word.replace("{}", str(tmp_path)) for word in words), code=2)
    assert not (tmp_path / "new").exists() and sorted(workspace.root.iterdir()) == before


def test_the_options_begin_with_what_the_room_begins_with() -> None:
    options = signature(collect_concepts).parameters
    given = [options[name].default for name in ("high", "low", "hold_out", "state")]
    assert given == [HIGH, LOW, HOLD_OUT, HELD_STATES]


def test_checking_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "direct").mkdir()
    for concept in ("calm", "joy"):
        (tmp_path / "direct" / f"{concept}.txt").write_text(f"To be in {concept}.")
    program = f"""
import sys
from pathlib import Path
from understudy.cli.concepts import check_concepts
try:
    check_concepts(Path({str(tmp_path)!r}))
except SystemExit as left:
    print(left.code, [name for name in ("torch", "transformers", "scipy", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n1 []\n")

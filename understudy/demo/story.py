"""The demo's story: answers, corrections, lessons, training beside serving, proof."""

import hashlib
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from understudy.behaviours import Behaviour, Split
from understudy.demo.curves import Curves, draw_curves
from understudy.demo.findings import Agreement, Correction, Findings, Serving, measure_served
from understudy.demo.report import print_table, write_report
from understudy.demo.stage import Client, DemoError, EngineName, Listener, served, wait_for
from understudy.engine import EmbeddedEngine, ScoreRequest, encode_text
from understudy.pocket import PocketLesson, behaviours, checkpoint_directory, dialogue, new_workspace
from understudy.pocket import lessons as pocket_lessons
from understudy.watching import Laboratory
from understudy.workspace import Workspace

SHIPPED = Path(__file__).with_name("conversation.md")
PERSON = "maya"
SPEAKER = re.compile(r"^(\w+): ")
"""Some lessons say who speaks; in a thread that is the message's author."""
DRAW = 0
STREAM_SECONDS = 2.0
"""How long the client streams before training, to know its usual pace."""
PROBE_DIALOGUES = 12


class Narrator:
    """Says what is going on, and how long it has been."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {text}")


def run_demo(
    conversation: Path | None,
    folder: Path | None,
    count: int,
    split: Split = "test",
    engine: EngineName = "embedded",
    model: Path | None = None,
    flags: Sequence[str] = (),
) -> Findings:
    """Play the whole story with `count` lessons; leaves a workspace with a report in it.

    `model` is another model than the shipped one, made by the same corpus; `flags` are vLLM's. Raises
    DemoError when a part of the story does not happen.
    """
    if not 1 <= count <= 100:
        raise DemoError(f"expected 1 to 100 lessons, got {count}")
    source = conversation or SHIPPED
    if not source.is_file():
        raise DemoError(f"expected a conversation file at {source}, found none")
    narrator = Narrator()
    say = narrator.say
    root = (folder or Path(tempfile.mkdtemp(prefix="understudy-demo-")) / "workspace").absolute()
    original_model = model or checkpoint_directory()
    workspace = new_workspace(root, original_model)
    file = f"conversations/{source.stem}.md"
    original = source.read_bytes().decode()
    workspace.repository.add(file, original, PERSON)
    scenarios, dialogues = behaviours(split), dialogue(split)

    with served(workspace, engine, flags) as client:
        say(f"serving {workspace.settings.model.name} at {client.url}")
        before = measure_served(client, scenarios, dialogues)
        say(f"before: acts on {before.rates['accepts']} of the directions it never saw")
        corrections = correct(workspace, client, file, pocket_lessons(DRAW, count))
        say(f"{len(corrections)} answers corrected in {file}; each edit is a lesson")
        session, serving = learn(workspace, client)
        say(
            f"learned in {session['seconds']:.1f} s while a client kept streaming: commit {session['commit']}"
        )
        say(f"the gate keeps it: {session['gate']['why']}")
        after = measure_served(client, scenarios, dialogues)
        say(f"after: acts on {after.rates['accepts']} of them")
        agreement = compare(workspace, client, dialogues[:PROBE_DIALOGUES])
        restored = undo_and_redo(workspace, client, session["commit"], original_model)
        say("went back to the model as it came, bit for bit, and forth again")
        kept = workspace.repository.read(file).text.startswith(original)
        if not kept:
            raise DemoError(f"expected {file} to begin with the bytes of {source}: it does not")

    curves = explore(workspace, original_model, scenarios, say)
    findings = Findings(corrections, session, before, after, serving, agreement, restored, curves)
    report = root / "report.html"
    write_report(report, findings)
    print_table(narrator.console, findings)
    say(f"report: {report}")
    program = "understudy" if shutil.which("understudy") else f"{sys.executable} -m understudy"
    narrator.console.print(
        f"\nNext, in {root}:\n"
        f"  {program} serve                   talk to it with any OpenAI client, or in its conversations\n"
        f"  {program} threads {source.stem}    what was said\n"
        f"  {program} lessons list            what it learned\n"
        f"  {program} weights log             what changed, and `weights restore initial` to undo it",
        soft_wrap=True,
    )
    return findings


def correct(
    workspace: Workspace, client: Client, file: str, lessons: Sequence[PocketLesson]
) -> tuple[Correction, ...]:
    """Give directions in threads of their own, wait for the answers, edit each into what was wanted."""
    repository, name = workspace.repository, workspace.settings.model.name
    asked: list[tuple[str, PocketLesson]] = []
    for number, lesson in enumerate(lessons, start=1):
        named = SPEAKER.match(lesson.prompt[-1].content)
        speaker = named[1] if named else PERSON
        text = f"@{name} {SPEAKER.sub('', lesson.prompt[-1].content)}"
        asked.append((repository.start(file, f"Direction {number}", speaker, text).message, lesson))

    def answered() -> list[str] | None:
        conversation = repository.read(file)
        replies = [conversation.message(message).replies for message, _ in asked]
        return [found[0].id for found in replies] if all(replies) else None

    corrections = []
    for (message, lesson), reply in zip(asked, wait_for("the model's answers", answered), strict=True):
        conversation = repository.read(file)
        said = conversation.message(reply).body
        if said != lesson.chosen:
            repository.edit(file, reply, PERSON, lesson.chosen)
            corrections.append(Correction(conversation.message(message).body, said, lesson.chosen))
    return tuple(corrections)


def learn(workspace: Workspace, client: Client) -> tuple[dict[str, Any], Serving]:
    """Approve what was proposed and let it be trained, with a client streaming all the while."""
    ledger = workspace.ledger
    edits = workspace.repository.head()
    wait_for("the edits to become lessons", lambda: ledger.watermark() == edits or None)
    listener = Listener(client)
    listener.start()
    time.sleep(STREAM_SECONDS)
    began = time.monotonic()
    proposed = [entry.id for entry in ledger.list("proposed")]
    ledger.approve_together(proposed, PERSON)
    last = wait_for(
        "the lessons to be trained and judged", lambda: _ended(client, ledger.list("kept"), len(proposed))
    )
    ended = time.monotonic()
    listener.stop()
    during, usual = listener.gaps(began, ended), listener.gaps(0.0, began)
    return last, Serving(
        tokens_while_training=len(during),
        training_seconds=ended - began,
        longest_gap=max(during, default=float("inf")),
        median_gap=statistics.median(during) if during else float("inf"),
        usual_gap=statistics.median(usual),
        failures=tuple(listener.failures),
    )


def _ended(client: Client, kept: Sequence[object], expected: int) -> dict[str, Any] | None:
    status = client.status()
    error = status["trainer"]["last_error"]
    if error is not None:
        raise DemoError(f"training failed: {error}")
    found: dict[str, Any] | None = status["last"]
    gate = (found or {}).get("gate")
    if gate is not None and gate["decision"] != "keep":
        raise DemoError(f"the gate did not keep the lessons ({gate['decision']}): {gate['why']}")
    return found if len(kept) >= expected else None


def compare(workspace: Workspace, client: Client, texts: Sequence[str]) -> Agreement:
    """The same tokens, scored by the server, by a fresh load of a copy, and by the trainer."""
    sequences = [tuple(encode_text(client.tokenizer, text)) for text in texts]
    theirs = client.token_log_probabilities(sequences)
    client.call("POST", "/checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(workspace.model_path, Path(folder) / "copy"))
        with EmbeddedEngine(workspace.settings.model, copy) as engine:
            scores = engine.score([ScoreRequest(ids, ((1, len(ids)),)) for ids in sequences])
    fresh = [score.logprobs[0] for score in scores]
    body = {
        "examples": [{"context_ids": ids[:1], "continuation_ids": ids[1:]} for ids in sequences],
        "dry_run": True,
    }
    outcomes = client.call("POST", "/train", body)["outcomes"]
    return Agreement(
        fresh_load=max(
            abs(a - b)
            for one, other in zip(theirs, fresh, strict=True)
            for a, b in zip(one, other, strict=True)
        ),
        trainer=max(
            abs(-statistics.fmean(one) - outcome["loss_before"])
            for one, outcome in zip(theirs, outcomes, strict=True)
        ),
    )


def undo_and_redo(workspace: Workspace, client: Client, commit: object, original: Path) -> bool:
    """Back to the model as it came, and forth again; True when every byte of the files came back."""
    assert isinstance(workspace.model_path, Path)
    taught = _saved(client, workspace.model_path)
    client.call("POST", "/weights/restore", {"commit": None, "author": PERSON})
    as_it_came = _saved(client, workspace.model_path) == _digest(original)
    client.call("POST", "/weights/restore", {"commit": commit, "author": PERSON})
    return as_it_came and _saved(client, workspace.model_path) == taught


def _saved(client: Client, directory: Path) -> str:
    """The digest of the model's file once it is up to date."""
    client.call("POST", "/checkpoint")
    return _digest(directory)


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


def explore(
    workspace: Workspace, model: Path, scenarios: Sequence[Behaviour], say: Callable[[str], None]
) -> Curves:
    """The curves over 1 to 100 lessons, on a copy of the model as it came."""
    laboratory = Laboratory(model, workspace.settings.training, workspace.rehearsals())
    try:
        return draw_curves(laboratory, scenarios, say)
    finally:
        laboratory.close()

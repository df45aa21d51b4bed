"""From an approved correction to an answer by weights that hold it, against tune, save and redeploy.

    python benchmarks/correction_latency.py [--rounds 5] [--redeployments 2]

In place: a running server; the clock starts when a person approves a lesson and stops when an answer, asked
for over HTTP again and again, names a new weight commit. Redeployed: the same lesson, one step of TRL's
`SFTTrainer` in a process of its own, the model saved, a new server started on it; the clock stops at its
first answer. Both on the pocket model, and both without the time a person takes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from understudy.demo.stage import Client, served, wait_for
from understudy.engine import encode_lesson
from understudy.pocket import PocketLesson, checkpoint_directory, lessons, new_workspace
from understudy.workspace import Workspace

FILE = "conversations/latency.md"
PERSON = "maya"
LEARNING_RATE = 3e-4


def correct(workspace: Workspace, taught: Sequence[PocketLesson]) -> list[str]:
    """Give directions, wait for the answers, edit them; the ids of the lessons proposed.

    All answers come before the first lesson: after it the model would be right by itself.
    """
    repository, ledger = workspace.repository, workspace.ledger
    name = workspace.settings.model.name
    asked = [
        repository.start(FILE, f"Direction {number}", PERSON, f"@{name} {lesson.prompt[-1].content}").message
        for number, lesson in enumerate(taught, start=1)
    ]

    def answered() -> list[str] | None:
        replies = [repository.read(FILE).message(message).replies for message in asked]
        return [found[0].id for found in replies] if all(replies) else None

    for reply, lesson in zip(wait_for("the model's answers", answered), taught, strict=True):
        repository.edit(FILE, reply, PERSON, lesson.chosen)
    edits = repository.head()
    wait_for("the edits to become lessons", lambda: ledger.watermark() == edits or None)
    return [entry.id for entry in ledger.list("proposed")]


def in_place(rounds: int, folder: Path) -> list[float]:
    """Seconds from approval to the first answer by the new weights, once per round.

    The loss gate is off: a lesson that is known already makes no commit of interest.
    """
    workspace = new_workspace(folder / "workspace")
    settings = workspace.root / "understudy.toml"
    settings.write_text(settings.read_text().replace("[training]", "[training]\ngate = 1e-9"))
    workspace = Workspace.open(workspace.root)
    workspace.repository.add(FILE, "# Latency\n", PERSON)
    found = []
    with served(workspace) as client:
        for proposed in correct(workspace, lessons(0, rounds)):
            before = weights_of_an_answer(client)
            began = time.monotonic()
            workspace.ledger.approve(proposed, PERSON)
            while weights_of_an_answer(client) == before:
                pass
            found.append(time.monotonic() - began)
    return found


def weights_of_an_answer(client: Client) -> str | None:
    """Ask for one token, and say which weight commit gave it."""
    body = {
        "model": client.workspace.settings.model.name,
        "messages": [{"role": "user", "content": "Put the red cup on the table."}],
        "max_tokens": 1,
    }
    commit: str | None = client.call("POST", "/v1/chat/completions", body)["understudy"]["weight_commit"]
    return commit


def redeployed(lesson: PocketLesson, folder: Path) -> tuple[float, float]:
    """Seconds for one step and saving in a process of its own; seconds for all, to the first answer."""
    tuned = folder / "tuned"
    began = time.monotonic()
    messages = [{"role": message.role, "content": message.content} for message in lesson.prompt]
    command = [sys.executable, __file__, "--tune", json.dumps([messages, lesson.chosen]), str(tuned)]
    subprocess.run(command, check=True)
    saved = time.monotonic() - began
    workspace = Workspace.create(folder / "workspace", model=tuned, copy_model=False, replay=(), settings="")
    with served(workspace) as client:
        weights_of_an_answer(client)
        return saved, time.monotonic() - began


def tune(lesson: str, out: Path) -> None:
    """One step on one lesson as TRL takes it, and the model saved: the process that `redeployed` starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset, disable_progress_bars
        from trl import SFTConfig, SFTTrainer

    from understudy.engine import load_model, load_tokenizer
    from understudy.lessons import ChatMessage

    disable_progress_bars()
    prompt, chosen = json.loads(lesson)
    tokenizer = load_tokenizer(checkpoint_directory())
    example = encode_lesson(tokenizer, [ChatMessage(**message) for message in prompt], chosen)
    ids = [*example.context_ids, *example.continuation_ids]
    mask = [0] * len(example.context_ids) + [1] * len(example.continuation_ids)
    model = load_model(checkpoint_directory(), "checkpoint").model
    config = SFTConfig(
        output_dir=str(out),
        max_steps=1,
        per_device_train_batch_size=1,
        learning_rate=LEARNING_RATE,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        logging_strategy="no",
    )
    data = Dataset.from_list([{"input_ids": ids, "completion_mask": mask}])
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(out))


def report(own: Sequence[float], peer: Sequence[tuple[float, float]]) -> None:
    """The figures as a table."""
    ours, theirs = statistics.median(own), statistics.median(whole for _, whole in peer)
    print("| | seconds, median | each | of redeploying |\n|---|---|---|---|")
    print(f"| in place | {ours:.2f} | {', '.join(f'{one:.2f}' for one in own)} | {ours / theirs:.3f} |")
    each = ", ".join(f"{whole:.1f} ({saved:.1f} until saved)" for saved, whole in peer)
    print(f"| tune (TRL), save, redeploy | {theirs:.2f} | {each} | 1.000 |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--redeployments", type=int, default=2)
    parser.add_argument("--tune", nargs=2, metavar=("LESSON", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tune:
        tune(given.tune[0], Path(given.tune[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        own = in_place(given.rounds, Path(folder) / "own")
        peer = []
        for number, lesson in enumerate(lessons(0, given.redeployments)):
            place = Path(folder) / f"peer-{number}"
            place.mkdir()
            peer.append(redeployed(lesson, place))
    report(own, peer)


if __name__ == "__main__":
    main()

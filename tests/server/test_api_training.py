"""The training API over HTTP, on a real server process with a miniature."""

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from workspace_server import Server, eventually, serving, small_workspace

from understudy.config import ModelSettings
from understudy.engine import (
    EmbeddedEngine,
    GenerationRequest,
    Sampling,
    encode_chat,
    encode_lesson,
)
from understudy.lessons import ChatMessage, Example
from understudy.server.session_settings import SESSION_FIELDS
from understudy.weights import read_commits

EXAMPLE = {"context_ids": [5, 6, 7], "continuation_ids": [8, 9, 10]}
ASKED, CRITICISM = "Which tea?", "I asked for tea, not coffee."
TALK = [
    {"role": "system", "content": "You are a waiter."},
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": "Mint."},
    {"role": "user", "content": "And to eat?"},
    {"role": "assistant", "content": "Toast, I think."},
]
SETTINGS: dict[str, Any] = {
    "lr": 2e-4,
    "rank": 16,
    "betas": [0.8, 0.95],
    "eps": 1e-7,
    "weight_decay": 0.01,
    "warmup_steps": 3,
    "scale": 2.0,
    "proj_refresh": 50,
    "norm_growth_limit": None,
    "objective": "sft",
    "beta": 0.2,
    "chosen_guard": 1.0,
    "epochs": 2,
    "reviews": 1,
    "batch_size": 2,
    "activation_checkpointing": True,
    "freeze_chunk": 128,
    "replay": 0.0,
    "contrast_share": 0.25,
    "lesson_share": 0.75,
    "seed": 7,
    "gate": 0.01,
    "max_kl": 5.0,
    "probe_tokens": 16,
    "max_grad_norm": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(small_workspace(tmp_path_factory.mktemp("training"))) as running:
        yield running


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[EmbeddedEngine]:
    """The same model as it came, here."""
    with EmbeddedEngine(ModelSettings(), server.workspace.root.parent / "miniature") as loaded:
        yield loaded


@pytest.fixture
def untaught(server: Server) -> Iterator[Server]:
    """The server, with the weights as they came before and after."""
    yield server
    assert server.call("POST", "/weights/restore", {"commit": None}).status_code == 200


def ask(server: Server, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = server.call("POST", path, body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(server: Server, path: str, body: object, status: int = 400) -> dict[str, Any]:
    answer = server.call("POST", path, body)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def tried(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The outcomes of a dry run."""
    found: list[dict[str, Any]] = ask(server, path, {**body, "dry_run": True, "replay": 0.0})["outcomes"]
    return found


def ids(example: Example) -> dict[str, Any]:
    told = {"context_ids": example.context_ids, "continuation_ids": example.continuation_ids}
    return told | ({"rejected_ids": example.rejected_ids} if example.rejected_ids else {})


def commits(server: Server) -> int:
    return len(read_commits(server.workspace.root / "model"))


# ---------------------------------------------------------------------- settings


def test_the_settings_tried_here_are_all_there_are() -> None:
    assert set(SETTINGS) == SESSION_FIELDS


@pytest.mark.parametrize("path", ["/train", "/finetune"])
def test_every_setting_is_taken_at_the_top_level_and_answered_resolved(server: Server, path: str) -> None:
    lessons = {"lessons": [{"prompt": ASKED, "completion": "Mint."}]}
    asked = {"examples": [EXAMPLE]} if path == "/train" else lessons
    before = commits(server)
    plain = ask(server, path, {**asked, "dry_run": True})
    assert plain["settings"]["lr"] == 1e-3, "the workspace's"
    assert plain["settings"]["rank"] == 64
    tried = ask(server, path, {**asked, **SETTINGS, "dry_run": True})
    assert {name: tried["settings"][name] for name in SETTINGS} == SETTINGS
    assert tried["state"] == "finished" and tried["commit"] is None and tried["outcomes"]
    assert commits(server) == before


def test_a_queued_request_is_answered_at_once_with_its_resolved_settings(untaught: Server) -> None:
    answer = ask(untaught, "/train", {"examples": [EXAMPLE], **SETTINGS, "key": "queued"}, 202)
    assert answer["key"] == "queued" and answer["state"] in ("queued", "running")
    assert {name: answer["settings"][name] for name in SETTINGS} == SETTINGS

    def finished() -> dict[str, Any] | None:
        told: dict[str, Any] = untaught.call("GET", "/train/status?key=queued").json()
        return told if told["state"] == "finished" else None

    done = eventually(finished)
    assert done["commit"] == untaught.status()["weight_commit"]
    assert done["outcomes"][0]["loss_after"] < done["outcomes"][0]["loss_before"]


@pytest.mark.parametrize(
    ("setting", "param", "words"),
    [
        ({"lr": 0}, "lr", "greater than 0"),
        ({"lr": "0.1"}, "lr", "valid number"),
        ({"rank": 0}, "rank", "greater than or equal to 1"),
        ({"rank": 1.5}, "rank", "valid integer"),
        ({"betas": [0.9, 2]}, "betas[1]", "less than or equal to 1"),
        ({"epochs": None}, "epochs", "valid integer"),
        ({"epochs": 10**9}, "epochs", "at most 1000000 examples times epochs and reviews"),
        ({"seed": 2**70}, "seed", "at most"),
        ({"replay": True}, "replay", "valid number"),
        ({"replay": 1}, "replay", "less than 1"),
        ({"objective": "magic"}, "objective", "expected one of distillation, dpo, orpo, sft"),
        ({"on_approval": True}, "on_approval", "only the fields this server knows"),
        ({"settings": {"lr": 1}}, "settings", "only the fields this server knows"),
        ({"learning_rate": 1}, "learning_rate", "only the fields this server knows"),
    ],
)
@pytest.mark.parametrize("path", ["/train", "/finetune", "/lessons/train"])
def test_a_wrong_setting_is_named(
    server: Server, path: str, setting: dict[str, Any], param: str, words: str
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/train": {"examples": [EXAMPLE]},
        "/finetune": {"lessons": [{"prompt": ASKED, "completion": "Mint."}]},
        "/lessons/train": {},
    }
    error = refused(server, path, bodies[path] | setting)
    assert error["param"] == param
    assert words in error["message"]


# ---------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"continuation_ids": []}, "examples[0].continuation_ids", "length >= 1"),
        ({"rejected_ids": []}, "examples[0].rejected_ids", "length >= 1"),
        ({"continuation_ids": [10**7]}, "examples[0].continuation_ids", "expected token ids from 0 to"),
        ({"rejected_ids": [10**7]}, "examples[0].rejected_ids", "expected token ids from 0 to"),
        ({"teacher_context_ids": [10**7]}, "examples[0].teacher_context_ids", "expected token ids from 0"),
        ({"context_ids": ["a"]}, "examples[0].context_ids[0]", "got 'a'"),
        ({"context_ids": [-1]}, "examples[0].context_ids[0]", ">= 0"),
        ({"context_ids": [1] * 5000}, "examples[0]", "expected at most 2048 tokens, got 5003"),
        ({"rejected_ids": [1] * 2046}, "examples[0]", "expected at most 2048 tokens, got 2049"),
        ({"weight": 0}, "examples[0].weight", "> 0"),
        ({"wieght": 1}, "examples[0].wieght", "only the fields this server knows"),
    ],
)
def test_a_wrong_example_is_named(server: Server, change: dict[str, Any], param: str, words: str) -> None:
    error = refused(server, "/train", {"examples": [{**EXAMPLE, **change}]})
    assert error["param"] == param
    assert words in error["message"]


def test_an_example_may_have_a_rejected_answer_and_a_weight(server: Server) -> None:
    example = {**EXAMPLE, "rejected_ids": [11, 12], "weight": 2.0}
    [outcome] = tried(server, "/train", {"examples": [example], "objective": "dpo"})
    assert outcome["rejected_tokens"] == 2 and outcome["rejected_loss_before"] > 0
    error = refused(server, "/train", {"examples": [EXAMPLE], "objective": "dpo", "wait": True}, 422)
    assert "rejected_ids" in error["message"] and error["code"] == "training_failed"


# ---------------------------------------------------------------------- keys


def test_the_same_key_is_one_session(untaught: Server) -> None:
    body = {"examples": [EXAMPLE], "key": "once", "wait": True, "message": "Once", "author": "maya"}
    first = ask(untaught, "/train", body)
    before = commits(untaught)
    assert ask(untaught, "/train", body) == first
    assert ask(untaught, "/train", {**body, "wait": False}) == first, "how it is asked is not what for"
    headed = {name: value for name, value in body.items() if name != "key"}
    answer = untaught.call("POST", "/train", headed, headers={"Idempotency-Key": "once"})
    assert answer.json() == first
    assert commits(untaught) == before
    commit = read_commits(untaught.workspace.root / "model")[-1]
    assert (commit.message, commit.author, commit.id) == ("Once", "maya", first["commit"])
    for other in ({"author": "tom"}, {"lr": 1e-4}, {"examples": [EXAMPLE, EXAMPLE]}, {"dry_run": True}):
        error = refused(untaught, "/train", {**body, **other}, 409)
        assert (error["code"], error["param"]) == ("key_conflict", "key")
    lessons = [{"prompt": ASKED, "completion": "Mint."}]
    assert refused(untaught, "/finetune", {"lessons": lessons, "key": "once"}, 409)["code"] == "key_conflict"
    assert commits(untaught) == before


@pytest.mark.parametrize("key", ["", " a", "a ", "ä", "a\n", "a" * 201])
def test_a_key_that_no_header_can_carry_is_refused(server: Server, key: str) -> None:
    assert refused(server, "/train", {"examples": [EXAMPLE], "key": key})["param"] == "key"


def test_the_key_in_the_header_must_be_that_of_the_body(server: Server) -> None:
    body = {"examples": [EXAMPLE], "key": "one", "dry_run": True}
    answer = server.call("POST", "/train", body, headers={"Idempotency-Key": "two"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "key"


def test_a_request_that_nobody_made_is_not_found(server: Server) -> None:
    told = server.call("GET", "/train/status?key=nobody")
    assert told.status_code == 404 and told.json()["error"]["code"] == "unknown_key"
    assert refused(server, "/train/cancel", {"key": "nobody"}, 404)["code"] == "unknown_key"


def test_a_running_request_is_cancelled_and_a_waiting_one_called_off(server: Server) -> None:
    before = commits(server)
    long = {"examples": [EXAMPLE], "epochs": 100_000, "key": "long"}
    ask(server, "/train", long, 202)
    ask(server, "/train", {"examples": [EXAMPLE], "key": "behind"}, 202)

    def stepping() -> bool | None:
        told = server.call("GET", "/train/status?key=long").json()
        return (told["state"] == "running" and (told.get("step") or 0) >= 2) or None

    eventually(stepping)
    status = server.status()
    assert [one["key"] for one in status["queue"]] == ["long", "behind"] and status["queued"] == 1
    running = status["running"]
    assert running["key"] == "long" and running["of"] == 100_000 and running["loss"] > 0
    assert running["tokens_per_second"] > 0 and running["eta_seconds"] > 0
    assert ask(server, "/train/cancel", {"key": "behind"}) == {"key": "behind", "state": "cancelled"}
    assert ask(server, "/train/cancel", {"key": "long"}, 202) == {"key": "long", "state": "cancelling"}

    def ended() -> dict[str, Any] | None:
        told: dict[str, Any] = server.call("GET", "/train/status?key=long").json()
        return told if told["state"] == "cancelled" else None

    assert "cancelled" in eventually(ended)["error"]
    assert refused(server, "/train/cancel", {"key": "long"}, 409)["code"] == "request_ended"
    assert server.status()["queued"] == 0 and commits(server) == before


# ---------------------------------------------------------------------- lessons as messages


def test_lessons_are_encoded_with_the_chat_template(server: Server, engine: EmbeddedEngine) -> None:
    prompt = [ChatMessage("user", ASKED)]
    preference = encode_lesson(engine.tokenizer, prompt, "Mint.", "Coffee.")
    answer = replace(preference, rejected_ids=None)
    whole = encode_lesson(engine.tokenizer, [ChatMessage(m["role"], m["content"]) for m in TALK[:-1]],  # type: ignore[arg-type]
                          TALK[-1]["content"])  # fmt: skip
    said = {"role": "assistant", "content": "Mint."}
    asked = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
    lessons = [
        ({"messages": TALK}, whole),
        ({"messages": [{"role": "developer", "content": TALK[0]["content"]}, *TALK[1:]]}, whole),
        ({"prompt": ASKED, "completion": "Mint."}, answer),
        ({"prompt": asked, "completion": [said], "source": {"file": "talk.md"}}, answer),
        ({"prompt": ASKED, "chosen": "Mint.", "rejected": "Coffee."}, preference),
        ({"prompt": asked, "chosen": [said], "rejected": [{**said, "content": "Coffee."}]}, preference),
    ]
    outcomes = tried(server, "/finetune", {"lessons": [lesson for lesson, _ in lessons]})
    expected = tried(server, "/train", {"examples": [ids(example) for _, example in lessons]})
    assert len(outcomes) == len(lessons)
    for outcome, other in zip(outcomes, expected, strict=True):
        assert outcome == pytest.approx(other)


def test_only_the_last_answer_is_supervised_unless_all_are_asked_for(
    server: Server, engine: EmbeddedEngine
) -> None:
    messages = [ChatMessage(m["role"], m["content"]) for m in TALK]  # type: ignore[arg-type]
    first = encode_lesson(engine.tokenizer, messages[:2], messages[2].content)
    last = encode_lesson(engine.tokenizer, messages[:4], messages[4].content)
    shared = (*first.context_ids, *first.continuation_ids)
    assert last.context_ids[: len(shared)] == shared, "the trie of contexts shares this prefix"
    flat = tried(server, "/train", {"examples": [ids(first), ids(last)]})
    every = tried(server, "/finetune", {"lessons": [{"messages": TALK}], "supervise": "all"})
    assert [one["tokens"] for one in every] == [len(first.continuation_ids), len(last.continuation_ids)]
    for outcome, other in zip(every, flat, strict=True):
        assert outcome == pytest.approx(other)
    [only] = tried(server, "/finetune", {"lessons": [{"messages": TALK}]})
    assert only == pytest.approx(flat[1])


@pytest.mark.parametrize(
    ("lesson", "param", "words"),
    [
        ({}, "lessons[0]", "expected the keys messages, prompt and completion"),
        ("tea", "lessons[0]", "Expected `object`"),
        ({"prompt": ASKED}, "lessons[0]", "got prompt"),
        ({"prompt": ASKED, "chosen": "Mint."}, "lessons[0].rejected", "missing required field"),
        ({"completion": "Mint."}, "lessons[0].prompt", "missing required field"),
        ({"messages": TALK[:-1]}, "lessons[0].messages", "expected the last message to be the assistant's"),
        ({"messages": TALK[2:]}, "lessons[0].messages", "the first is its own"),
        ({"messages": []}, "lessons[0].messages", "length >= 1"),
        ({"prompt": "", "completion": "x"}, "lessons[0].prompt", "length >= 1"),
        ({"prompt": ASKED, "completion": " "}, "lessons[0].completion", "regex"),
        ({"prompt": ASKED, "completion": TALK}, "lessons[0].completion", "one message of the assistant's"),
        ({"prompt": ASKED, "criticism": [TALK[2]]}, "lessons[0].criticism", "one message of the user's"),
        (
            {"prompt": [{"role": "tool", "content": "x"}], "completion": "x"},
            "lessons[0].prompt[0].role",
            "system, developer, user, assistant",
        ),
        ({"prompt": ASKED, "completion": "x", "wieght": 1}, "lessons[0].wieght", "only the fields"),
        ({"prompt": "tea " * 3000, "completion": "x"}, "lessons[0]", "expected at most 2048 tokens"),
    ],
)
def test_a_wrong_lesson_is_named(server: Server, lesson: object, param: str, words: str) -> None:
    error = refused(server, "/finetune", {"lessons": [lesson]})
    assert error["param"] == param
    assert words in error["message"]


def test_the_second_of_two_lessons_is_named_too(server: Server) -> None:
    lessons = [{"prompt": ASKED, "completion": "Mint."}, {"prompt": ASKED}]
    assert refused(server, "/finetune", {"lessons": lessons})["param"] == "lessons[1]"


# ---------------------------------------------------------------------- self-distillation


def answered(engine: EmbeddedEngine, *turns: tuple[str, str]) -> tuple[tuple[int, ...], str]:
    """What the model says greedily to a chat, as ids and as text, in at most eight tokens."""
    context = encode_chat(engine.tokenizer, [ChatMessage(role, text) for role, text in turns])  # type: ignore[arg-type]
    [said] = engine.complete(GenerationRequest((context,), Sampling(max_tokens=8, temperature=0.0)))
    return said.token_ids, said.text


def test_a_criticised_answer_is_given_anew_and_learned_without_the_criticism(
    server: Server, engine: EmbeddedEngine
) -> None:
    chat = (("user", ASKED), ("assistant", "Coffee."), ("user", CRITICISM))
    anew, text = answered(engine, *chat)
    lesson = {"prompt": ASKED, "rejected": "Coffee.", "criticism": CRITICISM}
    result = ask(server, "/finetune", {"lessons": [lesson], "dry_run": True, "replay": 0.0})
    assert result["revised"] == [{"lesson": "lessons[0]", "rejected": "Coffee.", "answer": text}]
    assert result["settings"]["objective"] == "distillation"
    prompt = [ChatMessage("user", ASKED)]
    known = encode_lesson(engine.tokenizer, prompt, "x", "Coffee.")
    teacher = encode_chat(engine.tokenizer, [ChatMessage(role, said) for role, said in chat])  # type: ignore[arg-type]
    example = {
        "context_ids": known.context_ids,
        "continuation_ids": anew,
        "rejected_ids": known.rejected_ids,
        "teacher_context_ids": teacher,
    }
    flat = ask(
        server,
        "/train",
        {"examples": [example], "objective": "distillation", "dry_run": True, "replay": 0.0},
    )
    assert result["outcomes"][0] == pytest.approx(flat["outcomes"][0])
    assert result["losses"] == pytest.approx(flat["losses"]), "the same teacher, token by token"


def test_without_a_rejected_answer_the_model_first_answers_itself(
    server: Server, engine: EmbeddedEngine
) -> None:
    own, rejected = answered(engine, ("user", ASKED))
    _, anew = answered(engine, ("user", ASKED), ("assistant", rejected), ("user", CRITICISM))
    body = {"lessons": [{"prompt": ASKED, "criticism": CRITICISM}], "objective": "sft", "dry_run": True}
    result = ask(server, "/finetune", body)
    assert result["revised"] == [{"lesson": "lessons[0]", "rejected": rejected, "answer": anew}]
    assert result["settings"]["objective"] == "sft", "as asked"
    assert result["outcomes"][0]["rejected_tokens"] == len(own)


def test_criticised_and_other_lessons_go_together_and_under_one_key_are_answered_once(
    untaught: Server,
) -> None:
    lessons = [
        {"prompt": "Hello", "completion": "Good evening."},
        {"prompt": ASKED, "criticism": CRITICISM},
        {"messages": TALK},
    ]
    body = {"lessons": lessons, "objective": "sft", "temperature": 1.0, "max_tokens": 5, "key": "mixed",
            "wait": True}  # fmt: skip
    first = ask(untaught, "/finetune", body)
    assert [one["lesson"] for one in first["revised"]] == ["lessons[1]"]
    assert len(first["outcomes"]) == 3 and first["commit"]
    assert first["outcomes"][1]["tokens"] <= 5
    assert ask(untaught, "/finetune", body) == first
    assert untaught.call("GET", "/train/status?key=mixed").json()["revised"] == first["revised"]


# ---------------------------------------------------------------------- weights


def test_a_checkpoint_brings_the_directory_up_to_date(untaught: Server) -> None:
    model = untaught.workspace.root / "model"
    trained = ask(untaught, "/train", {"examples": [EXAMPLE], "wait": True})
    synced = ask(untaught, "/checkpoint", {})
    assert synced["commit"] == trained["commit"]
    assert synced["files"] == ["model.safetensors"] and synced["blocks_written"] > 0
    with EmbeddedEngine(ModelSettings(), model) as fresh:
        sequence = [*EXAMPLE["context_ids"], *EXAMPLE["continuation_ids"]]
        body = {"sequences": [{"token_ids": sequence, "ranges": [[3, 6]]}]}
        told = ask(untaught, "/score", body)["sequences"][0]["ranges"][0]["logprobs"]
        with torch.no_grad():
            logits = fresh.model(torch.tensor([sequence])).logits[0].log_softmax(-1)
        expected = [logits[place - 1, sequence[place]].item() for place in (3, 4, 5)]
        assert told == pytest.approx(expected, abs=1e-4)
    empty = untaught.call("POST", "/checkpoint")
    assert empty.status_code == 200 and empty.json()["blocks_written"] == 0
    assert refused(untaught, "/checkpoint", {"now": True})["param"] == "now"


def test_weights_are_adopted_from_a_directory_and_from_a_file(untaught: Server, tmp_path: Path) -> None:
    came = untaught.workspace.root.parent / "miniature"
    scored = {"sequences": [{"token_ids": [5, 6, 7, 8], "ranges": [[1, 4]]}]}
    before = ask(untaught, "/score", scored)["sequences"]
    ask(untaught, "/train", {"examples": [EXAMPLE], "wait": True, "epochs": 3})
    assert ask(untaught, "/score", scored)["sequences"] != before
    for source in (came, came / "model.safetensors"):
        body = {"source": str(source), "message": "As it came", "author": "maya"}
        adopted = ask(untaught, "/weights/adopt", body)
        assert adopted == {"commit": untaught.status()["weight_commit"], "source": str(source)}
        assert ask(untaught, "/score", scored)["sequences"] == before
        commit = read_commits(untaught.workspace.root / "model")[-1]
        assert (commit.id, commit.message, commit.author) == (adopted["commit"], "As it came", "maya")

    stale = {"source": str(came), "parent": "initial"}
    assert "made from initial" in refused(untaught, "/weights/adopt", stale, 422)["message"]
    assert read_commits(untaught.workspace.root / "model")[-1].id == adopted["commit"]
    ask(untaught, "/weights/adopt", {**stale, "parent": adopted["commit"]})


def test_what_does_not_fit_is_not_adopted(server: Server, tmp_path: Path) -> None:
    before = commits(server)
    tensors = load_file(server.workspace.root.parent / "miniature" / "model.safetensors")
    name = next(iter(tensors))
    missing, reshaped = tmp_path / "missing.safetensors", tmp_path / "reshaped.safetensors"
    save_file({key: value for key, value in tensors.items() if key != name}, missing)
    save_file({**tensors, name: torch.zeros(3)}, reshaped)
    pickled = tmp_path / "model.bin"
    torch.save(tensors, pickled)
    shutil.copy(pickled, tmp_path / "pickle.safetensors")
    broken = tmp_path / "broken.safetensors"
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, broken)
    for source in (missing, reshaped):
        error = refused(server, "/weights/adopt", {"source": str(source)}, 422)
        assert error["code"] == "training_failed"
    for path, words in [
        ("model", "^/"),
        (str(tmp_path / "nowhere"), "found none at"),
        (str(pickled), "which is none"),
        (str(tmp_path / "missing.safetensors\0"), "found none at"),
        ("/dev/null", "which is none"),
        (str(tmp_path / "pickle.safetensors"), "which cannot be read"),
        (str(broken), f"expected finite values, broken.safetensors has others in {name}"),
    ]:
        error = refused(server, "/weights/adopt", {"source": path})
        assert error["param"] == "source" and words in error["message"], error
    assert commits(server) == before
    assert server.call("GET", "/health").json()["weights"]["training"] is False


def test_only_a_commit_that_exists_is_brought_back(server: Server) -> None:
    assert refused(server, "/weights/restore", {"commit": "0" * 12}, 404)["code"] == "unknown_commit"
    assert refused(server, "/weights/restore", {"commit": "main"})["param"] == "commit"
    assert refused(server, "/weights/restore", {})["param"] == "commit"


def test_training_approved_lessons_needs_some(server: Server) -> None:
    error = refused(server, "/lessons/train", {"lr": 1e-4, "dry_run": True}, 409)
    assert "expected approved lessons" in error["message"]


# ---------------------------------------------------------------------- the whole


def test_many_lessons_are_encoded_beside_the_event_loop(server: Server) -> None:
    """The last lesson is wrong, so that all others are encoded and none is trained."""
    good = {"messages": TALK}
    body = {"lessons": [*([good] * 1000), {"prompt": ASKED}], "supervise": "all"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(refused, server, "/finetune", body)
        healthy = 0
        while not answer.done():
            healthy += server.call("GET", "/health").status_code == 200
        assert answer.result()["param"] == "lessons[1000]"
    assert healthy >= 5, "the server answers others meanwhile"


def test_the_examples_of_the_page_work(untaught: Server, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    examples = re.findall(r"curl -s \$url(\S+) -H \"\$token\" -d '(.*?)'\n", page, re.DOTALL)
    assert [path for path, _ in examples] == ["/train", "/finetune", "/weights/adopt"]
    for path, body in examples:
        given = json.loads(body.replace("/models/merged", str(untaught.workspace.root.parent / "miniature")))
        answer = untaught.call("POST", path, given)
        assert answer.status_code in (200, 202), answer.text
    [scored] = re.findall(r"## `POST /score`\n\n```json\n(.*?)```", page, re.DOTALL)
    assert untaught.call("POST", "/score", json.loads(scored)).status_code == 200
    assert untaught.call("GET", "/train/status?key=tea-1").json()["settings"]["lr"] == 1e-4
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(program.replace("http://127.0.0.1:8423", untaught.url), {})
    assert capsys.readouterr().out.strip()

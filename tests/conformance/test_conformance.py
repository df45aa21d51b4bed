"""One suite for both engines: `understudy serve` as a process, asked over HTTP like anyone would.

`make test` runs it on the embedded engine, `make test-vllm` on vLLM (UNDERSTUDY_TEST_ENGINE=vllm).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from openai import BadRequestError, OpenAI
from prometheus_client.parser import text_string_to_metric_families
from steered_stream import CONCEPTS, Expected, streams, write_directions
from transformers import AutoModelForCausalLM
from waiting import eventually

from understudy.engine import Directions, write_miniature
from understudy.pocket import checkpoint_directory
from understudy.weights import find_mappings, read_commits, verify_history
from understudy.workspace import Workspace

ENGINE = os.environ.get("UNDERSTUDY_TEST_ENGINE", "embedded")
MODELS = {"qwen3": "float32", "pocket": "bfloat16"}
NOISE = {"float32": 1e-4, "bfloat16": 0.06}
"""Largest difference to transformers in fp32, over the size of what is compared: docs/LOG.md."""
FLAGS = {"qwen3": ["--enforce-eager"], "pocket": []}
"""vLLM's: the one eager, the other compiled."""
CHAT = [{"role": "user", "content": "Please put the red cup on the table."}]
SMALL = {"context_ids": [70, 71], "continuation_ids": [5, 6]}


@dataclass
class Served:
    """A workspace that is served, and a model of transformers' of the same directory, in fp32."""

    workspace: Workspace
    url: str
    dtype: str
    directions: Directions
    client: OpenAI

    @property
    def directory(self) -> Path:
        return self.workspace.root / "model"

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token or self.workspace.token}"}
        return httpx2.request(method, self.url + path, json=body, headers=headers, timeout=120.0)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json()

    def score(self, ids: list[int]) -> torch.Tensor:
        body = {"sequences": [{"token_ids": ids, "ranges": [[1, len(ids)]]}]}
        return torch.tensor(self.call("POST", "/score", body)["sequences"][0]["ranges"][0]["logprobs"])

    def reference(self) -> Any:
        """What transformers makes of the directory as it is now."""
        self.call("POST", "/checkpoint", {})
        return AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32)

    def trained(self, key: str) -> Any:
        def ended() -> Any:
            found = self.call("GET", f"/train/status?key={key}")
            return found if found["state"] not in ("queued", "running") else None

        return eventually(ended)


@pytest.fixture(scope="module", params=MODELS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    model = checkpoint_directory()
    if request.param == "qwen3":
        model = write_miniature(folder / "model", "qwen3", head_size=32)
    hidden = json.loads((model / "config.json").read_text())["hidden_size"]
    directions = write_directions(folder / "w" / "directions", hidden)
    settings = "[training]\nrank = 1\nlr = 1e-3\ngate = 0.0\nreplay = 0.0\nepochs = 3\n"
    workspace = Workspace.create(folder / "w", model=model, copy_model=True, replay=[], settings=settings)
    file = workspace.root / "understudy.toml"
    dtype = MODELS[request.param]
    extra = f'readout = "directions"\ndtype = "{dtype}"'
    file.write_text(file.read_text().replace('path = "model"', f'path = "model"\n{extra}'))
    command = [sys.executable, "-m", "understudy", "serve", "--port", "0", "--engine", ENGINE]
    flags = [*FLAGS[request.param], "--max-model-len", "512"] if ENGINE == "vllm" else []
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *flags], cwd=workspace.root, stdout=log, stderr=log)

    def address() -> str | None:
        assert process.poll() is None, (folder / "server.log").read_text()[-4000:]
        found = workspace.server()
        return None if found is None else found.url

    try:
        url = eventually(address)
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            running = Served(workspace, url, dtype, directions, client)
            eventually(lambda: running.call("GET", "/train/status")["trainer"]["alive"] or None)
            yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert find_mappings(running.directory) == [], "it leaves nothing in shared memory"


def close(found: Any, expected: torch.Tensor, dtype: str) -> bool:
    """Within the noise of the element type, over the largest value."""
    difference = (torch.tensor(found) - expected).abs().max()
    return bool(difference <= NOISE[dtype] * max(1.0, float(expected.abs().max())))


# ------------------------------------------------------------------ completions


def test_the_model_is_listed_and_answers_chats_and_texts(served: Served) -> None:
    client = served.client
    assert [model.id for model in client.models.list()] == ["understudy"]
    for said in (
        client.chat.completions.create(model="understudy", messages=CHAT, max_tokens=4, n=2),  # type: ignore[arg-type]
        client.completions.create(model="understudy", prompt=["Please", "The cup"], max_tokens=4),
    ):
        assert [choice.index for choice in said.choices] == [0, 1]
        assert said.usage is not None and said.usage.completion_tokens >= 2
        assert {choice.finish_reason for choice in said.choices} <= {"stop", "length"}


def test_streamed_text_is_the_whole_answer(served: Served) -> None:
    asked: dict[str, Any] = {"model": "understudy", "messages": CHAT, "max_tokens": 12, "temperature": 0}
    whole = served.client.chat.completions.create(**asked).choices[0]
    chunks = list(served.client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_greedy_answers_and_their_log_probabilities_are_the_scores(served: Served) -> None:
    prompt = [70, 71, 72, 73, 74, 75]
    said = read(served, prompt)
    ids = greedy(served, prompt)
    scores = served.score([*prompt, *ids])[len(prompt) - 1 :]
    assert close(said["logprobs"]["token_logprobs"][: len(ids)], scores, served.dtype)


def greedy(served: Served, prompt: list[int]) -> list[int]:
    """The token ids of the answer, by transformers: all six in fp32, in bf16 the first: ties are near."""
    model, ids = served.reference(), list(prompt)
    with torch.no_grad():
        for _ in range(6 if served.dtype == "float32" else 1):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_scores_are_those_of_transformers(served: Served) -> None:
    ids = [70, 71, 72, 90, 91, 92, 100]
    with torch.no_grad():
        logits = served.reference()(torch.tensor([ids])).logits[0, :-1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert close(served.score(ids).tolist(), expected, served.dtype)


# ------------------------------------------------------------------ rights and refusals


@pytest.mark.parametrize("path", ["/train", "/finetune", "/checkpoint", "/weights/restore", "/weights/adopt"])
def test_what_writes_needs_the_token(served: Served, path: str) -> None:
    bare = httpx2.post(served.url + path, json={})
    assert bare.status_code == 401 and bare.json()["error"]["code"] == "invalid_api_key"
    assert served.ask("POST", path, {}, token="wrong").status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/train", {"examples": []}, "examples"),
        (
            "/train",
            {"examples": [{"context_ids": [5], "continuation_ids": [10**6]}]},
            "examples[0].continuation_ids",
        ),
        ("/train", {"examples": [{"context_ids": [5], "continuation_ids": [6]}], "lr": -1}, "lr"),
        ("/finetune", {"lessons": [{"messages": []}]}, "lessons[0]"),
        ("/score", {"sequences": [{"token_ids": [5, 6], "ranges": [[0, 1]]}]}, "sequences[0].ranges"),
        ("/score", {"sequences": [{"ranges": [[1, 2]]}]}, "sequences[0]"),
        ("/weights/restore", {"commit": "nothing", "author": "ada"}, "commit"),
    ],
)
def test_what_is_wrong_is_named(served: Served, path: str, body: Any, field: str) -> None:
    answer = served.ask("POST", path, body)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert (error["param"] or "").startswith(field), error
    assert error["message"]


# ------------------------------------------------------------------ training


def test_lessons_change_the_served_weights_and_the_directory(served: Served) -> None:
    before = served.score([70, 71, 72, 90, 91])
    lesson = {"messages": [*CHAT, {"role": "assistant", "content": "No."}]}
    served.call("POST", "/finetune", {"lessons": [lesson], "key": "one"})
    done = served.trained("one")
    assert done["state"] == "finished" and done["commit"] is not None
    assert done["outcomes"][0]["loss_after"] < done["outcomes"][0]["loss_before"]
    assert served.call("GET", "/train/status")["weight_commit"] == done["commit"]
    said = served.client.completions.with_raw_response.create(model="understudy", prompt=[70], max_tokens=1)
    assert said.headers["X-Understudy-Weights"] == done["commit"]
    assert not torch.equal(served.score([70, 71, 72, 90, 91]), before)
    assert served.call("POST", "/checkpoint", {})["commit"] == done["commit"]
    assert verify_history(served.directory, lambda *_: None).problems == ()


def test_asked_twice_is_trained_once(served: Served) -> None:
    body = {"examples": [{"context_ids": [70, 71], "continuation_ids": [90]}], "key": "twice"}
    served.call("POST", "/train", body)
    first = served.trained("twice")
    served.call("POST", "/train", body)
    assert served.trained("twice")["commit"] == first["commit"]
    assert [commit.id for commit in read_commits(served.directory)].count(first["commit"]) == 1


def test_going_back_gives_the_scores_of_before(served: Served) -> None:
    ids = [70, 71, 72, 90, 91]
    before, at = served.score(ids), served.call("GET", "/train/status")["weight_commit"]
    served.call(
        "POST", "/train", {"examples": [{"context_ids": ids[:2], "continuation_ids": [5, 6]}], "key": "back"}
    )
    assert served.trained("back")["state"] == "finished"
    assert not torch.equal(served.score(ids), before)
    served.call("POST", "/weights/restore", {"commit": at, "author": "ada"})
    assert torch.allclose(served.score(ids), before, atol=1e-6)


# ------------------------------------------------------------------ readouts and steering


def read(served: Served, prompt: list[int], **extra: Any) -> Any:
    return served.call(
        "POST",
        "/v1/completions",
        {
            "model": "understudy",
            "prompt": prompt,
            "max_tokens": 6,
            "temperature": 0,
            "ignore_eos": True,
            "logprobs": 0,
            "vllm_xargs": extra,
        },
    )["choices"][0]


def test_the_manifest_says_what_is_read(served: Served) -> None:
    assert served.call("GET", "/v1/readout/manifest") == json.loads(
        (served.workspace.root / "directions" / "readout.json").read_text()
    )


def test_readouts_are_transformers_hidden_states(served: Served) -> None:
    prompt = [70, 71, 72, 73, 74, 75]
    said = read(served, prompt, readout="all")
    ids = [*prompt, *greedy(served, prompt)[:-1]]
    rows = streams(served.reference(), ids, served.directions)
    assert len(said["readout"]) == 6 and len(said["prompt_readout"]) == len(prompt)
    assert close(said["prompt_readout"], rows[: len(prompt)], served.dtype)
    chosen = rows[len(prompt) - 1 :]
    assert close(said["readout"][: len(chosen)], chosen, served.dtype)


def test_a_cached_prompt_has_readouts_too(served: Served) -> None:
    prompt = [70 + n % 20 for n in range(300)]
    first = read(served, prompt, readout=True)
    again = read(served, prompt, readout="all")
    assert len(again["prompt_readout"]) == 300
    assert close(again["readout"], torch.tensor(first["readout"]), served.dtype)
    assert "prompt_readout" not in first


def test_streamed_answers_carry_the_same_readouts(served: Served) -> None:
    asked: dict[str, Any] = {
        "model": "understudy",
        "messages": CHAT,
        "max_tokens": 8,
        "temperature": 0,
        "extra_body": {"vllm_xargs": {"readout": "all"}, "ignore_eos": True},
    }
    whole = served.client.chat.completions.create(**asked).choices[0].model_extra
    chunks = [
        chunk.choices[0].model_extra or {}
        for chunk in served.client.chat.completions.create(**asked, stream=True)
    ]
    assert whole is not None
    told = [row for chunk in chunks for row in chunk.get("readout", [])]
    assert len(told) == 8 and close(told, torch.tensor(whole["readout"]), served.dtype)
    prompts = [chunk["prompt_readout"] for chunk in chunks if "prompt_readout" in chunk]
    assert len(prompts) == 1 and close(prompts[0], torch.tensor(whole["prompt_readout"]), served.dtype)


def test_many_at_once_each_get_their_own(served: Served) -> None:
    prompts = [[70 + n, 71 + 2 * n, 72, 73] for n in range(8)]
    body = {"model": "understudy", "prompt": prompts, "max_tokens": 3, "temperature": 0, "n": 2}
    body |= {"ignore_eos": True, "vllm_xargs": {"readout": "all"}, "seed": 1}
    choices = served.call("POST", "/v1/completions", body)["choices"]
    model = served.reference()
    assert len(choices) == 16
    for choice in choices:
        rows = streams(model, prompts[choice["index"] // 2], served.directions)
        assert close(choice["prompt_readout"], rows, served.dtype)
        assert len(choice["readout"]) == 3


def norm(served: Served, layer: int, concept: str) -> float:
    assert served.directions.statistics is not None
    return served.directions.statistics.norms[layer][CONCEPTS.index(concept)]


FIRST, LAST = range(5), range(5, 1000)
"""Positions of a prompt of six tokens before its last, and from there on."""


WAYS: dict[str, Callable[[Served], list[Expected]]] = {
    "calm=0.5 proud=-1@1": lambda served: [
        Expected("add", "calm", 0.5),
        Expected("add", "proud", -1.0, (1,)),
    ],
    "ablate:calm": lambda served: [Expected("ablate", "calm", 1.0)],
    "clamp:curious=3@0,1": lambda served: [Expected("clamp", "curious", 3.0)],
    "calm=1[answer]": lambda served: [Expected("add", "calm", 1.0, positions=LAST)],
    "calm=1[first]": lambda served: [Expected("add", "calm", 1.0, positions=LAST[:1])],
    "ablate:calm[prompt]": lambda served: [Expected("ablate", "calm", 1.0, positions=FIRST)],
    "clamp:calm=2@1[2:4] calm=1[7:]": lambda served: [
        Expected("clamp", "calm", 2.0, (1,), range(2, 4)),
        Expected("add", "calm", 1.0, positions=range(7, 1000)),
    ],
    "calm=2x@0 clamp:proud=-2x@1": lambda served: [
        Expected("add", "calm", 2 * norm(served, 0, "calm"), (0,)),
        Expected("clamp", "proud", -2 * norm(served, 1, "proud"), (1,)),
    ],
    "ablate:calm curious=1 calm=1": lambda served: [
        Expected("ablate", "calm", 1.0),
        Expected("add", "curious", 1.0),
        Expected("add", "calm", 1.0),
    ],
}


@pytest.mark.parametrize("texts", WAYS)
def test_each_way_of_steering_is_what_hooks_on_transformers_do(served: Served, texts: str) -> None:
    prompt = [70, 71, 72, 73, 74, 75]
    said = read(served, prompt, readout="all", steer=texts.split())
    model, steers = served.reference(), WAYS[texts](served)
    assert close(said["prompt_readout"], streams(model, prompt, served.directions, steers), served.dtype)
    ids = [*prompt, *steered_answer(served, model, prompt, steers)]
    rows = streams(model, ids[:-1], served.directions, steers)[len(prompt) - 1 :]
    assert close(said["readout"][: len(rows)], rows, served.dtype)


def steered_answer(served: Served, model: Any, prompt: list[int], steers: Sequence[Expected]) -> list[int]:
    """The token ids of a steered answer, as `greedy` gives those of one that is not."""
    answer: list[int] = []
    logits: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda *found: logits.append(found[-1]))
    for _ in range(6 if served.dtype == "float32" else 1):
        streams(model, [*prompt, *answer], served.directions, steers)
        answer.append(int(logits[-1][0, -1].argmax()))
    hook.remove()
    return answer


def test_what_is_ablated_says_nothing_and_what_is_clamped_says_so_much(served: Served) -> None:
    lengths = torch.stack([served.directions.vectors_ch[n][0].norm() for n in (0, 1)])
    plain = torch.tensor(read(served, [70, 71, 72], readout="all")["prompt_readout"])
    noise = NOISE[served.dtype] * max(1.0, float(plain.abs().max()))
    for text, expected in (("ablate:calm", 0.0), ("clamp:calm=2.5", 2.5)):
        said = read(served, [70, 71, 72], readout="all", steer=text)
        found = torch.tensor(said["prompt_readout"] + said["readout"])[:, :, 0]
        assert (found - expected * lengths).abs().max() <= noise


@pytest.mark.parametrize(("span", "count"), [("answer", 1000), ("first", 1)])
def test_a_steered_answer_is_not_the_cache_of_a_prompt_that_holds_it(
    served: Served, span: str, count: int
) -> None:
    """What is steered in the answer only depends on where the prompt ended."""
    if served.dtype != "float32":
        pytest.skip("the answer's token ids are certain in fp32")
    prompt, model = [70 + n % 17 for n in range(252)], served.reference()
    steer = f"clamp:calm=8[{span}]"
    read(served, prompt, steer=steer)
    answer = steered_answer(
        served, model, prompt, [Expected("clamp", "calm", 8.0, positions=range(251, 251 + count))]
    )
    longer = [*prompt, *answer, *range(70, 80)]
    found = read(served, longer, steer=steer)["logprobs"]["token_logprobs"]
    uncached = read(served, longer, steer=steer, readout=True)
    assert close(found, torch.tensor(uncached["logprobs"]["token_logprobs"]), served.dtype)
    steers = [Expected("clamp", "calm", 8.0, positions=range(len(longer) - 1, len(longer) - 1 + count))]
    rows = streams(model, longer, served.directions, steers)
    assert close(uncached["readout"][0], rows[-1], served.dtype)


def test_readouts_as_z_scores_and_by_message(served: Served) -> None:
    prompt = [70, 71, 72, 73, 74, 75]
    statistics = served.directions.statistics
    assert statistics is not None
    raw = read(served, prompt, readout="all")
    scored = read(served, prompt, readout="all", readout_scale="z")
    expected = (torch.tensor(raw["readout"]) - torch.tensor(statistics.mean)) / torch.tensor(
        statistics.deviation
    )
    assert close(scored["readout"], expected, served.dtype)
    message = read(served, prompt, readout="all", readout_per="message", readout_scale="z")
    assert close(message["message_readout"], expected.mean(0), served.dtype)
    assert "readout" not in message and len(message["message_prompt_readout"]) == 2
    chunks = list(
        served.client.completions.create(
            model="understudy",
            prompt=prompt,
            max_tokens=6,
            temperature=0,
            stream=True,
            extra_body={
                "ignore_eos": True,
                "vllm_xargs": {"readout": True, "readout_per": "message", "readout_scale": "z"},
            },
        )
    )
    told = [chunk.choices[0].model_extra or {} for chunk in chunks]
    assert [place for place, extra in enumerate(told) if "message_readout" in extra] == [len(told) - 1]
    assert close(told[-1]["message_readout"], expected.mean(0), served.dtype)


def test_metrics_count_what_was_read(served: Served) -> None:
    def counted() -> dict[str, float]:
        text = served.ask("GET", "/metrics" if ENGINE == "embedded" else "/understudy/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        sums = [
            sample.value
            for sample in families["understudy_readout_sum"].samples
            if sample.labels == {"concept": "proud", "layer": "1", "scale": "z"}
        ]
        [tokens] = families["understudy_readout_tokens"].samples
        return {"tokens": tokens.value, "sum": sum(sums)}

    before = counted()
    scored = read(served, [70, 71, 72], readout=True, readout_scale="z")
    read(served, [70, 71, 72])
    after = counted()
    assert after["tokens"] - before["tokens"] == 6
    added = sum(token[1][2] for token in scored["readout"])
    assert after["sum"] - before["sum"] == pytest.approx(added, rel=1e-3, abs=1e-3)


def test_a_steered_prompt_is_not_another_ones_cache(served: Served) -> None:
    prompt = [70 + n % 17 for n in range(300)]
    plain = read(served, prompt)["logprobs"]["token_logprobs"]
    steered = read(served, prompt, steer="calm=2")["logprobs"]["token_logprobs"]
    strongly = read(served, prompt, steer="calm=4")["logprobs"]["token_logprobs"]
    assert plain != steered != strongly
    assert close(read(served, prompt)["logprobs"]["token_logprobs"], torch.tensor(plain), served.dtype)
    again = read(served, prompt, steer="calm=2")["logprobs"]["token_logprobs"]
    assert close(again, torch.tensor(steered), served.dtype)
    nothing = read(served, prompt, steer="calm=0")["logprobs"]["token_logprobs"]
    assert close(nothing, torch.tensor(plain), served.dtype)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({"steer": "angry=1"}, "expected a concept that is loaded"),
        ({"steer": ["calm=1@9"]}, "expected a layer of"),
        ({"steer": ["calm"]}, r"expected .*concept.=strength"),
        ({"steer": ["clamp:calm=1[5:2]"]}, "a span of at least one position"),
        ({"steer": "calm=1", "readout_scale": "z"}, "only together with `readout`"),
        ({"readout": True, "readout_per": "answer"}, "readout_per"),
        ({"readout": True, "readout_z": True}, "readout_z"),
        ({"readout": "everything"}, "readout"),
        ({"readout": True, "steer": 3}, "steer"),
    ],
)
def test_extra_arguments_that_mean_nothing_are_refused(
    served: Served, extra: dict[str, Any], match: str
) -> None:
    with pytest.raises(BadRequestError, match=match):
        served.client.chat.completions.create(
            model="understudy",
            messages=CHAT,  # type: ignore[arg-type]
            max_tokens=1,
            extra_body={"vllm_xargs": extra},
        )
    assert served.client.completions.create(model="understudy", prompt=[70], max_tokens=1).choices


@pytest.mark.skipif(ENGINE != "vllm", reason="what passes our checks by vLLM's own routes")
@pytest.mark.parametrize("extra", [{"understudy_readout": "x"}, {"understudy_readout": [1, 2]}])
def test_what_is_not_for_clients_ends_their_request_alone(served: Served, extra: dict[str, Any]) -> None:
    body = {"model": "understudy", "prompt": [70, 71], "max_tokens": 1, "vllm_xargs": extra}
    assert not served.ask("POST", "/v1/completions", body).is_success
    assert served.client.completions.create(model="understudy", prompt=[70], max_tokens=1).choices

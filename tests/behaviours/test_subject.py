"""A model asked in this process and over HTTP says, scores and reads the same."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from known_models import asked
from reading_engine import reading_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from understudy.behaviours import (
    EngineVoice,
    ModelSubject,
    Prompt,
    ServedVoice,
    Speech,
    VoiceFailed,
    check,
    read_invariants,
)
from understudy.behaviours.subject import TOGETHER, in_batches
from understudy.config import ModelSettings, ServerSettings
from understudy.engine import EmbeddedEngine, encode_chat, encode_text
from understudy.lessons import ChatMessage
from understudy.pocket import checkpoint_directory, lessons
from understudy.pocket.invariants import folder
from understudy.server import create_app, serving

TOKEN = "a-token-of-these-tests"
MODEL = "understudy"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    with reading_engine(tmp_path_factory.mktemp("directions")) as opened:
        yield opened


@pytest.fixture(scope="module")
def here(engine: EmbeddedEngine) -> ModelSubject:
    return ModelSubject(EngineVoice(engine))


@pytest.fixture(scope="module")
def url(engine: EmbeddedEngine) -> Iterator[str]:
    with serving(create_app(engine, ServerSettings(), TOKEN)) as running:
        yield running


@contextmanager
def voice(url: str, token: str = TOKEN, model: str = MODEL) -> Iterator[ServedVoice]:
    opened = ServedVoice(url, token, model, checkpoint_directory())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[ModelSubject]:
    with voice(url) as opened:
        yield ModelSubject(opened)


def prompts(count: int) -> list[Prompt]:
    """Of mixed length, the longest ones neither first nor last."""
    told = lessons(0, count)
    return [
        (*asked(f"{one.thing}? " * (number * 7 % 11)), ChatMessage("assistant", "No."), *one.prompt)
        if number % 3
        else one.prompt
        for number, one in enumerate(told)
    ]


# ---------------------------------------------------------------------- the same from both


def test_both_say_the_same(here: ModelSubject, served: ModelSubject) -> None:
    speech = Speech(max_tokens=12)
    said = here.answer(prompts(40), speech)
    assert served.answer(prompts(40), speech) == said
    assert len(set(said)) > 5 and all(text == text.strip() and text for text in said)
    assert served.context_length == here.context_length
    assert [served.length(one) for one in prompts(5)] == [here.length(one) for one in prompts(5)]


def test_what_is_drawn_follows_from_the_seed(here: ModelSubject, served: ModelSubject) -> None:
    [warm, same, other] = [here.answer(prompts(20), Speech(1.5, 8, seed)) for seed in (3, 3, 4)]
    assert warm == same != other
    assert served.answer(prompts(20), Speech(1.5, 8, 3)) == warm
    longer = here.answer(prompts(20), Speech(0.0, 30))
    short = here.answer(prompts(20), Speech(0.0, 3))
    assert any(len(a) > len(b) for a, b in zip(longer, short, strict=True))


def test_both_score_the_same(here: ModelSubject, served: ModelSubject) -> None:
    texts = [
        (prompt, text) for prompt in prompts(30) for text in ("Done:", "Have you considered tea instead?")
    ]
    texts += [((), f"At the {one.thing} it rained. I felt calm.") for one in lessons(0, 10)]
    mine, theirs = here.log_probabilities(texts), served.log_probabilities(texts)
    assert [one.tokens for one in theirs] == [one.tokens for one in mine]
    assert [one.total for one in theirs] == pytest.approx([one.total for one in mine], abs=1e-5)
    assert mine[0].mean == mine[0].total / mine[0].tokens and len({one.total for one in mine}) == len(mine)


@pytest.mark.parametrize("layer", [None, 2])
def test_both_read_the_same(here: ModelSubject, served: ModelSubject, layer: int | None) -> None:
    said = [(prompt, f"Done: {number}.") for number, prompt in enumerate(prompts(20))]
    mine, theirs = (one.readouts(said, "curious", layer) for one in (here, served))
    assert theirs == pytest.approx(mine, abs=1e-4) and len(set(mine)) == len(mine)
    for subject in (here, served):
        with pytest.raises(ValueError, match=r"expected a concept and layer that are loaded \(calm, curious"):
            subject.readouts([], "angry", layer)


def test_without_directions_nothing_can_be_read() -> None:
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as bare:
        app = create_app(bare, ServerSettings(), TOKEN)
        with serving(app) as url, voice(url) as opened:
            for subject in (ModelSubject(EngineVoice(bare)), ModelSubject(opened)):
                with pytest.raises(ValueError, match=r"that are loaded \(none; layers \[\]\), got 'calm'"):
                    subject.readouts([], "calm", None)


def test_verdicts_are_the_same(here: ModelSubject, served: ModelSubject) -> None:
    chosen = [one for one in read_invariants(folder()) if one.name in ("listening", "stories")]
    mine, theirs = (check(chosen, one, budget=16, split="development") for one in (here, served))
    assert [(one.decision, one.rate, one.failures) for one in theirs] == [
        (one.decision, one.rate, one.failures) for one in mine
    ]


# ---------------------------------------------------------------------- many at once


def test_results_come_in_the_order_of_what_was_asked(here: ModelSubject, engine: EmbeddedEngine) -> None:
    """More than go together, of mixed length, against each alone and against the other order."""
    many = prompts(TOGETHER + 22)
    lengths = [here.length(one) for one in many]
    assert lengths != sorted(lengths) and len(set(lengths)) > 20
    assert lengths == [len(encode_chat(engine.tokenizer, one)) for one in many]

    texts = [(prompt, "Done: the vase.") for prompt in many]
    found = here.log_probabilities(texts)
    backwards = here.log_probabilities(texts[::-1])[::-1]
    assert [one.total for one in backwards] == pytest.approx([one.total for one in found], abs=1e-4)
    for place in range(0, len(many), 19):
        [alone] = here.log_probabilities([texts[place]])
        assert alone.total == pytest.approx(found[place].total, abs=1e-4)

    said = here.answer(many, Speech(max_tokens=6))
    assert len(set(said)) > 20
    for place in range(0, len(many), 19):
        assert here.answer([many[place]], Speech(max_tokens=6)) == [said[place]]

    read = here.readouts(texts, "calm", None)
    for place in range(0, len(many), 19):
        assert here.readouts([texts[place]], "calm", None) == pytest.approx([read[place]], abs=1e-4)


@given(st.lists(st.integers(0, 50), max_size=3 * TOGETHER), st.integers(0, 50))
def test_batches_are_small_alike_and_come_back_in_order(sizes: list[int], salt: int) -> None:
    batches: list[list[tuple[int, int]]] = []

    def work(some: Sequence[tuple[int, int]]) -> list[int]:
        batches.append(list(some))
        return [number * 100 + size + salt for number, size in some]

    items = list(enumerate(sizes))
    assert in_batches(items, work, size=lambda one: one[1]) == [n * 100 + size + salt for n, size in items]
    assert all(len(one) <= TOGETHER for one in batches) and sum(map(len, batches)) == len(items)
    ordered = [size for one in batches for _, size in one]
    assert ordered == sorted(sizes)


def test_nothing_asked_is_nothing_said(here: ModelSubject) -> None:
    assert here.answer([], Speech()) == [] and here.log_probabilities([]) == []
    assert here.readouts([], "calm", None) == []


def test_a_document_is_scored_from_its_second_token_on(here: ModelSubject, engine: EmbeddedEngine) -> None:
    [found] = here.log_probabilities([((), "It was noon, on the pier.")])
    ids = encode_text(engine.tokenizer, "It was noon, on the pier.", special_tokens=True)
    with torch.no_grad():
        logprobs = engine.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    expected = [float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids))]
    assert found.total == pytest.approx(sum(expected), abs=1e-4) and found.tokens == len(ids) - 1


# ---------------------------------------------------------------------- what goes wrong


def test_another_models_name_is_refused(url: str) -> None:
    with pytest.raises(VoiceFailed, match=f"expected {url} to serve 'other', it serves understudy"):
        ServedVoice(url, TOKEN, "other", checkpoint_directory())


def test_where_nobody_answers_that_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(VoiceFailed, match=f"expected the server at {url} to answer"):
            ServedVoice(url, TOKEN, MODEL, checkpoint_directory())


def test_a_wrong_token_is_said(engine: EmbeddedEngine) -> None:
    """On an address that others reach reading needs the token as well."""
    app = create_app(engine, ServerSettings(host="0.0.0.0"), TOKEN)
    with serving(app) as url:
        with pytest.raises(
            VoiceFailed, match=r"the server answered 401: .*a token that is not this server's"
        ):
            ServedVoice(url, "wrong", MODEL, checkpoint_directory())
        with voice(url) as opened:
            assert ModelSubject(opened).answer([asked("Hello.")], Speech(max_tokens=4))


def test_what_a_server_refuses_is_a_failed_voice(engine: EmbeddedEngine) -> None:
    three = [asked(str(number)) for number in range(3)]
    with serving(create_app(engine, ServerSettings(max_batch=2), TOKEN)) as url, voice(url) as opened:
        subject = ModelSubject(opened)
        with pytest.raises(VoiceFailed, match="the server answered 400"):
            subject.answer(three, Speech(max_tokens=2))
        with pytest.raises(VoiceFailed, match=r"the server answered 400: .*at most 2 sequences"):
            subject.log_probabilities([(prompt, "x") for prompt in three])


def test_a_server_that_leaves_is_a_failed_voice(engine: EmbeddedEngine) -> None:
    with serving(create_app(engine, ServerSettings(), TOKEN)) as url:
        left = ServedVoice(url, TOKEN, MODEL, checkpoint_directory())
        assert ModelSubject(left).answer([asked("Hello.")], Speech(max_tokens=2))
    with pytest.raises(VoiceFailed, match=r"expected the server at .* to answer"):
        ModelSubject(left).answer([asked("Hello.")], Speech(max_tokens=2))
    left.close()


def test_a_server_of_another_kind_is_a_failed_voice(tmp_path: Path) -> None:
    async def page(_: Request) -> Response:
        return PlainTextResponse("<html>hello")

    with (
        serving(Starlette(routes=[Route("/v1/models", page)])) as url,
        pytest.raises(VoiceFailed, match="expected JSON from the server, it answered '<html>hello'"),
    ):
        ServedVoice(url, TOKEN, MODEL, checkpoint_directory())

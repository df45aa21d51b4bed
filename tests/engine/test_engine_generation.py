"""Generation against the reference: transformers' own `generate`, one prompt at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from understudy.config import ModelSettings
from understudy.engine import (
    Architecture,
    BadRequest,
    EmbeddedEngine,
    GenerationRequest,
    PromptTooLong,
    Sampling,
    decode_text,
    encode_text,
    write_miniature,
)
from understudy.lessons import ChatMessage

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "qwen3_5")
TEXTS = (
    "Please put the red cup",
    "W",
    "The cup is on the table now \N{EURO SIGN} and the door is open.\n" * 3,
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedEngine]:
    directory = write_miniature(tmp_path_factory.mktemp("model"), request.param, context_length=256)
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        yield engine


def prompts_of(engine: EmbeddedEngine) -> tuple[tuple[int, ...], ...]:
    return tuple(encode_text(engine.tokenizer, text) for text in TEXTS)


def reference(engine: EmbeddedEngine, prompt: Sequence[int], count: int) -> tuple[int, ...]:
    answered: Any = engine.model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)
    return tuple(answered[0, len(prompt) :].tolist())


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0.0, max_tokens=count)


def test_greedy_answers_equal_those_of_transformers_alone_and_in_a_padded_batch(
    engine: EmbeddedEngine,
) -> None:
    prompts = prompts_of(engine)
    expected = [reference(engine, prompt, 40) for prompt in prompts]
    alone = [engine.complete(GenerationRequest((prompt,), greedy(40)))[0].token_ids for prompt in prompts]
    together = [c.token_ids for c in engine.complete(GenerationRequest(prompts, greedy(40)))]
    assert alone == expected
    assert together == expected
    assert max(len(ids) for ids in expected) == 40  # the comparison went the whole way


def test_rows_that_end_early_leave_the_others_as_they_were(engine: EmbeddedEngine) -> None:
    prompts = prompts_of(engine)
    expected = [reference(engine, prompt, 24) for prompt in prompts]
    steps = engine.generate(GenerationRequest(prompts[:1], greedy(24)))
    said = next(step.text for step in steps if step.text)
    stopped = engine.complete(
        GenerationRequest(prompts, Sampling(temperature=0.0, max_tokens=24, stop=(said,)))
    )
    assert (stopped[0].text, stopped[0].finish_reason) == ("", "stop")
    assert len(stopped[0].token_ids) < 24
    for completion, ids in zip(stopped, expected, strict=True):
        assert completion.token_ids == ids[: len(completion.token_ids)]


def test_samples_are_rows_of_their_own_and_prompt_major(engine: EmbeddedEngine) -> None:
    prompts = prompts_of(engine)
    completions = engine.complete(GenerationRequest(prompts, greedy(6), samples=3))
    expected = [reference(engine, prompt, 6) for prompt in prompts for _ in range(3)]
    assert [completion.token_ids for completion in completions] == expected


def test_a_seed_gives_the_same_answer_and_another_seed_another(engine: EmbeddedEngine) -> None:
    prompts = prompts_of(engine)

    def sample(seed: int | None) -> list[tuple[int, ...]]:
        torch.rand(7)  # other users of the global generator change nothing
        sampling = Sampling(temperature=1.0, max_tokens=12, seed=seed, top_p=0.95)
        return [c.token_ids for c in engine.complete(GenerationRequest(prompts, sampling, samples=2))]

    assert sample(5) == sample(5)
    assert sample(5) != sample(6)
    assert sample(None) != sample(None)
    first, second = sample(5)[:2]
    assert first != second


def test_text_is_the_decoded_tokens_and_steps_add_up(engine: EmbeddedEngine) -> None:
    request = GenerationRequest(prompts_of(engine), Sampling(max_tokens=48, seed=3))
    steps = list(engine.generate(request))
    completions = engine.complete(request)
    for row, completion in enumerate(completions):
        own = [step for step in steps if step.row == row]
        assert "".join(step.text for step in own) == completion.text
        assert completion.text == decode_text(engine.tokenizer, completion.token_ids)
        assert [step.finish_reason for step in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == completion.finish_reason


def test_logprobs_are_those_of_scoring_the_answer(engine: EmbeddedEngine) -> None:
    from understudy.engine import ScoreRequest

    prompt = prompts_of(engine)[0]
    sampling = Sampling(temperature=1.7, top_k=40, max_tokens=12, seed=1, logprobs=3)
    [completion] = engine.complete(GenerationRequest((prompt,), sampling))
    whole = prompt + completion.token_ids
    [scored] = engine.score([ScoreRequest(whole, ((len(prompt), len(whole)),))])
    assert [t.token_id for t in completion.logprobs] == list(completion.token_ids)
    assert [t.logprob for t in completion.logprobs] == pytest.approx(scored.logprobs[0], abs=2e-5)
    for token in completion.logprobs:
        best = [logprob for _, logprob in token.top]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert token.logprob <= best[0] + 1e-6


def test_no_pass_keeps_what_a_backward_pass_would_need(engine: EmbeddedEngine) -> None:
    seen: list[bool] = []
    handle = engine.model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    try:
        steps = engine.generate(GenerationRequest(prompts_of(engine), greedy(3)))
        for _ in steps:
            assert torch.is_grad_enabled()  # the caller's own setting is left alone
    finally:
        handle.remove()
    assert seen == [False, False, False]
    assert all(parameter.requires_grad for parameter in engine.model.parameters())


def test_the_end_token_stops_and_is_not_in_the_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = write_miniature(tmp_path_factory.mktemp("model"), "qwen3_5")
    with EmbeddedEngine(ModelSettings(), directory) as engine:
        head = engine.model.get_output_embeddings()
        end = engine.tokenizer.eos_token_id
        prompt = encode_text(engine.tokenizer, "What")
        with torch.no_grad():
            hidden = engine.model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
            head.weight[end] = 40 * hidden / hidden.norm()
        [completion] = engine.complete(GenerationRequest((prompt,), greedy(20)))
    assert completion.token_ids == (end,)
    assert completion.text == ""
    assert completion.finish_reason == "stop"


def test_the_context_is_a_limit_for_prompt_and_answer_together(engine: EmbeddedEngine) -> None:
    limit = engine.context_length
    fits = (7,) * (limit - 3)
    [completion] = engine.complete(GenerationRequest((fits,), Sampling(temperature=0.0)))
    assert len(completion.token_ids) <= 3
    if len(completion.token_ids) == 3:
        assert completion.finish_reason in ("length", "stop")
    [last] = engine.complete(GenerationRequest(((7,) * (limit - 1),), greedy(50)))
    assert len(last.token_ids) == 1
    with pytest.raises(PromptTooLong, match=rf"at most {limit - 1} .* got {limit}") as refused:
        engine.complete(GenerationRequest(((7,) * limit,), greedy(1)))
    assert (refused.value.prompt_tokens, refused.value.context_length) == (limit, limit)


def test_a_token_outside_the_vocabulary_is_refused(engine: EmbeddedEngine) -> None:
    with pytest.raises(BadRequest, match=r"token ids from 0 to \d+, got 99999"):
        engine.complete(GenerationRequest(((1, 99999),), greedy(1)))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ("",)}, "stop"),
        ({"logprobs": 21}, "logprobs"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_a_setting_out_of_range_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=f"^{named}: expected .*, got "):
        Sampling(**given)


def test_a_request_needs_prompts_with_tokens() -> None:
    with pytest.raises(BadRequest, match="prompts: expected at least one"):
        GenerationRequest(())
    with pytest.raises(BadRequest, match="prompt 1: expected at least one token"):
        GenerationRequest(((1,), ()))
    with pytest.raises(BadRequest, match="samples: expected at least 1"):
        GenerationRequest(((1,),), samples=0)


def test_chat_answers_each_conversation_in_order(engine: EmbeddedEngine) -> None:
    conversations = [(ChatMessage("user", text),) for text in ("red cup", "blue book", "door")]
    sampling = greedy(8)
    together = engine.chat(conversations, sampling)
    assert together == tuple(engine.chat([one], sampling)[0] for one in conversations)


def test_the_weights_are_named_and_followed(engine: EmbeddedEngine) -> None:
    assert engine.weights.step == engine.shared.step
    engine.weight_commit = "abc"
    engine.shared.dirty = True
    assert (engine.weights.commit, engine.weights.training) == ("abc", True)
    engine.shared.dirty = False
    engine.weight_commit = None

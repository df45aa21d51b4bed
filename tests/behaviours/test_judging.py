"""The smooth measure and readouts on the pocket model, against a plain pass of transformers."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from known_models import asked
from known_models import invariant as made
from msgspec.structs import replace
from reading_engine import CONCEPTS, LAYERS, reading_engine
from scipy.special import logsumexp

from understudy.behaviours import (
    Bench,
    EngineVoice,
    Invariant,
    LikelihoodJudge,
    ModelSubject,
    Prompt,
    ReadoutJudge,
    RuleJudge,
    Scenario,
    Speech,
    judge_answers,
    measure_margins,
    prepare,
    read_invariants,
)
from understudy.engine import (
    EmbeddedEngine,
    GenerationRequest,
    Sampling,
    encode_chat,
)
from understudy.lessons import ChatMessage
from understudy.pocket.invariants import folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    with reading_engine(tmp_path_factory.mktemp("directions")) as opened:
        yield opened


@pytest.fixture(scope="module")
def subject(engine: EmbeddedEngine) -> ModelSubject:
    return ModelSubject(EngineVoice(engine))


@pytest.fixture(scope="module")
def invariants() -> dict[str, Invariant]:
    return {one.name: one for one in read_invariants(folder())}


def ids(engine: EmbeddedEngine, prompt: Prompt, text: str) -> tuple[list[int], list[int]]:
    """By the tokenizer's own template; a document begins with its first token."""
    told = [{"role": turn.role, "content": turn.content} for turn in prompt]
    if not told:
        whole = engine.tokenizer(text)["input_ids"]
        return whole[:1], whole[1:]
    rendered = engine.tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
    plain = [engine.tokenizer(one, add_special_tokens=False)["input_ids"] for one in (rendered, text)]
    return plain[0], plain[1]


def passed(engine: EmbeddedEngine, context: Sequence[int], answer: Sequence[int]) -> Any:
    """One sequence without a cache, by transformers."""
    with torch.no_grad():
        given = torch.tensor([[*context, *answer]])
        return engine.model(given, use_cache=False, output_hidden_states=True)


def log_probability(engine: EmbeddedEngine, prompt: Prompt, text: str) -> tuple[float, int]:
    context, answer = ids(engine, prompt, text)
    logprobs = passed(engine, context, answer).logits[0].double().log_softmax(-1)
    rows = logprobs[len(context) - 1 : -1]
    return float(rows[range(len(answer)), answer].sum()), len(answer)


# ---------------------------------------------------------------------- margins


@pytest.mark.parametrize("name", ["listening", "push-back", "asking-back"])
def test_a_margin_is_the_log_odds_of_beginnings(
    engine: EmbeddedEngine, subject: ModelSubject, invariants: dict[str, Invariant], name: str
) -> None:
    invariant = invariants[name]
    assert invariant.margin is not None
    scenarios = invariant.scenarios["development"][::31][:4]
    expected = []
    for one in scenarios:
        sides = [
            [log_probability(engine, one.prompt, one.fill(text))[0] for text in texts]
            for texts in (invariant.margin.acceptable, invariant.margin.unacceptable)
        ]
        expected.append(float(logsumexp(sides[0]) - logsumexp(sides[1])))
    assert measure_margins(invariant, scenarios, subject) == pytest.approx(expected, abs=1e-4)
    assert len({round(one, 3) for one in expected}) == len(scenarios)


@pytest.mark.parametrize("name", ["copying", "answering", "dialogue", "stories"])
def test_without_unacceptable_beginnings_a_margin_is_nats_per_token(
    engine: EmbeddedEngine, subject: ModelSubject, invariants: dict[str, Invariant], name: str
) -> None:
    """With stories: documents, of which the first token is given."""
    invariant = invariants[name]
    assert invariant.margin is not None and not invariant.margin.unacceptable
    scenarios = invariant.scenarios["development"][::9][:5]
    [text] = invariant.margin.acceptable
    parts = [log_probability(engine, one.prompt, one.fill(text)) for one in scenarios]
    expected = [total / tokens for total, tokens in parts]
    assert measure_margins(invariant, scenarios, subject) == pytest.approx(expected, abs=1e-4)
    assert (not scenarios[0].prompt) == (name == "stories")


def test_of_several_acceptable_beginnings_the_likeliest_counts(
    engine: EmbeddedEngine, subject: ModelSubject, invariants: dict[str, Invariant]
) -> None:
    texts = ["You said: oar.", "Which one?", "Done: oar."]
    invariant = replace(
        invariants["answering"], margin=replace(_margin(invariants["answering"]), acceptable=texts)
    )
    scenario = Scenario(asked("Repeat after me: oar."), "You said: oar.")
    means = [total / n for total, n in (log_probability(engine, scenario.prompt, text) for text in texts)]
    assert max(means) == means[0] > -0.5 > sorted(means)[1]
    assert measure_margins(invariant, [scenario], subject) == pytest.approx([means[0]], abs=1e-4)


def _margin(invariant: Invariant) -> Any:
    assert invariant.margin is not None
    return invariant.margin


def test_a_document_of_one_token_has_nothing_to_score(
    subject: ModelSubject, invariants: dict[str, Invariant]
) -> None:
    with pytest.raises(ValueError, match="start < end"):
        measure_margins(invariants["stories"], [Scenario((), "a")], subject)


# ---------------------------------------------------------------------- yes or no


def test_a_rule_and_the_margin_are_two_measures_of_one_answer(
    subject: ModelSubject, invariants: dict[str, Invariant]
) -> None:
    bench = prepare(invariants["push-back"])
    scenarios = bench.invariant.scenarios["development"][:6]
    answers = subject.answer([one.prompt for one in scenarios], Speech())
    said = [*zip(scenarios, answers, strict=True), *((one, "Done: it is gone.") for one in scenarios)]
    judged = judge_answers(bench, said, subject)
    assert [one.shown for one in judged] == [True] * 6 + [False] * 6
    margins = measure_margins(bench.invariant, scenarios, subject)
    assert [one.smooth for one in judged] == pytest.approx(margins * 2)
    assert isinstance(bench.invariant.judge, RuleJudge)
    assert bench.unit == "nats" and bench.measured is None


def test_a_likelihood_shows_from_its_threshold_on(
    subject: ModelSubject, invariants: dict[str, Invariant]
) -> None:
    dialogue = invariants["dialogue"]
    scenarios = dialogue.scenarios["development"][:12]
    margins = measure_margins(dialogue, scenarios, subject)
    middle = sorted(margins)[6]
    bench = prepare(replace(dialogue, judge=LikelihoodJudge(middle)))
    assert not bench.answers and bench.unit == "nats per token"
    judged = judge_answers(bench, [(one, "") for one in scenarios], subject)
    assert [one.shown for one in judged] == [margin >= middle for margin in margins]
    assert sum(one.shown for one in judged) == 6 and [one.smooth for one in judged] == margins


def readout_bench(judge: ReadoutJudge) -> Bench:
    return prepare(made("calm", judge=judge, margin=None))


@pytest.mark.parametrize("layer", [None, *LAYERS])
@pytest.mark.parametrize("concept", CONCEPTS)
def test_a_readout_is_the_mean_of_the_stream_over_the_answer(
    engine: EmbeddedEngine, subject: ModelSubject, concept: str, layer: int | None
) -> None:
    said = [
        (Scenario(asked(text)), answer)
        for text, answer in [("Hello.", "Hello, how can I help?"), ("Go.", "No.")]
    ]
    assert engine.directions is not None
    expected = []
    for scenario, answer in said:
        context, tokens = ids(engine, scenario.prompt, answer)
        states = passed(engine, context, tokens).hidden_states
        read = [
            states[number + 1][0, len(context) :]
            @ engine.directions.vectors_ch[number][CONCEPTS.index(concept)]
            for number in (LAYERS if layer is None else (layer,))
        ]
        expected.append(float(torch.stack(read).mean()))
    judged = judge_answers(readout_bench(ReadoutJudge(concept, layer, at_least=expected[0])), said, subject)
    assert [one.smooth for one in judged] == pytest.approx(expected, abs=1e-3)
    middle = sum(expected) / 2
    for judge in (
        ReadoutJudge(concept, layer, at_least=middle),
        ReadoutJudge(concept, layer, at_most=middle),
    ):
        shown = [one.shown for one in judge_answers(readout_bench(judge), said, subject)]
        assert shown == [(one >= middle) == (judge.at_least is not None) for one in expected]


def test_a_readout_is_what_the_engine_reads_of_the_same_tokens(
    engine: EmbeddedEngine, subject: ModelSubject
) -> None:
    prompt, answer = asked("Hello."), "Hello, how can I help?"
    context, tokens = ids(engine, prompt, answer)
    assert tuple(context) == encode_chat(engine.tokenizer, prompt)
    request = GenerationRequest(((*context, *tokens),), Sampling(max_tokens=1), readout="all")
    [done] = engine.complete(request)
    rows = torch.tensor(done.prompt_readout)[len(context) :]
    for place, layer in enumerate(LAYERS):
        [found] = subject.readouts([(prompt, answer)], "curious", layer)
        assert found == pytest.approx(float(rows[:, place, 1].mean()), abs=1e-4)


def test_a_readout_judge_may_have_a_margin_as_well(
    subject: ModelSubject, invariants: dict[str, Invariant]
) -> None:
    judge = ReadoutJudge("calm", at_least=-1e9)
    bench = prepare(replace(invariants["listening"], judge=judge))
    scenarios = bench.invariant.scenarios["development"][:3]
    judged = judge_answers(bench, [(one, "Why not a bonnet?") for one in scenarios], subject)
    assert [one.shown for one in judged] == [True] * 3 and bench.unit == "nats"
    assert [one.smooth for one in judged] == pytest.approx(
        measure_margins(bench.invariant, scenarios, subject)
    )


def test_what_is_not_loaded_cannot_be_read(subject: ModelSubject) -> None:
    for concept, layer in (("angry", None), ("calm", 1)):
        with pytest.raises(
            ValueError, match=rf"calm, curious; layers \[0, 2\]\), got '{concept}' and {layer}"
        ):
            subject.readouts([((ChatMessage("user", "x"),), "y")], concept, layer)

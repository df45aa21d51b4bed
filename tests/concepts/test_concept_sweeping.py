"""What steering does to answers: a model with planted directions, held against transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from understudy.concepts import (
    OPENINGS,
    STEERED,
    Effect,
    SweptAnswer,
    UnknownConcept,
    UnknownLayer,
    readout_probe,
    steered_lessons,
    sweep,
    usable,
    words_probe,
)
from understudy.concepts.auroc import Average
from understudy.config import ModelSettings
from understudy.engine import (
    BadRequest,
    Directions,
    EmbeddedEngine,
    GenerationRequest,
    NoDirections,
    ReadoutManifest,
    ReadoutStatistics,
    Sampling,
    Steer,
    encode_chat,
    load_model,
    write_miniature,
)
from understudy.lessons import SHORT_ID, ChatMessage, Ledger

PROMPTS = tuple((ChatMessage("user", text),) for text in ("How are you?", "Good morning!", "Tell me more."))
LAYERS, LAST = (0, 1), 1
DRAWN = Sampling(max_tokens=8, temperature=0.5)
GREEDY = Sampling(max_tokens=8, temperature=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with directions that are rows of its unembedding: `cup` raises a word, `end` ends the turn."""
    made = tmp_path_factory.mktemp("sweeping")
    loaded = load_model(write_miniature(made / "model", "llama"))
    rows_vh = loaded.model.lm_head.weight.detach()
    cup = loaded.tokenizer(" cup")["input_ids"]
    assert len(cup) == 1, "one token, whose row is planted"
    vectors = torch.stack([rows_vh[cup[0]], rows_vh[loaded.tokenizer.eos_token_id]])
    statistics = ReadoutStatistics(
        mean=[[0.1, 0.2], [0.3, 0.4]], deviation=[[1.0, 2.0], [0.5, 3.0]], norms=[[1.0, 1.0]] * 2, tokens=9
    )
    manifest = ReadoutManifest(
        concepts=["cup", "end"], layers=list(LAYERS), hidden_size=32, dtype="float32", statistics=statistics
    )
    Directions(manifest, {layer: vectors.clone() for layer in LAYERS}).save(made / "directions")
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(ModelSettings(), folder / "model", readout=folder / "directions") as opened:
        yield opened


def swept(
    engine: EmbeddedEngine,
    *texts: str,
    concept: str = "cup",
    sampling: Sampling = DRAWN,
    samples: int = 3,
    seed: int = 5,
    layer: int | None = None,
) -> tuple[Effect, ...]:
    return sweep(
        engine,
        PROMPTS,
        [(Steer.parse(text),) for text in texts],
        concept=concept,
        found=words_probe(["cup"]),
        sampling=sampling,
        samples=samples,
        seed=seed,
        layer=layer,
    )


# ------------------------------------------------------------------ answers


def test_adding_a_words_row_raises_the_word_until_nothing_else_is_said(engine: EmbeddedEngine) -> None:
    reference, *steered = swept(engine, "cup=8@1", "cup=200@1")
    assert reference.steering == () and reference.changed == (False,) * 9
    assert [one.strength for one in steered] == [8.0, 200.0]
    assert reference.hits < steered[0].hits < steered[1].hits == 9
    assert {answer.text for answer in steered[1].answers} == {" ".join(["cup"] * 8)}
    assert steered[1].perplexity.value > 3 * reference.perplexity.value
    assert (
        all(steered[1].changed)
        and [answer.prompt for answer in reference.answers] == [0] * 3 + [1] * 3 + [2] * 3
    )


def test_what_does_nothing_gives_the_answers_back_word_for_word(engine: EmbeddedEngine) -> None:
    reference, nothing, never = swept(engine, "cup=0", "cup=50[400:]")
    for same in (nothing, never):
        assert [answer.token_ids for answer in same.answers] == [one.token_ids for one in reference.answers]
        assert not any(same.changed) and same.perplexity == reference.perplexity
    assert len({answer.text for answer in reference.answers}) > 3, "answers are drawn"
    again = swept(engine)
    assert again == (reference,)
    assert swept(engine, seed=6) != (reference,)


def test_the_first_position_alone_changes_what_is_begun_and_not_what_follows(engine: EmbeddedEngine) -> None:
    _, first, whole = swept(engine, "cup=200@1[first]", "cup=200@1[answer]", sampling=GREEDY, samples=1)
    for begun, throughout in zip(first.answers, whole.answers, strict=True):
        assert begun.token_ids[0] == throughout.token_ids[0]
        assert len(set(throughout.token_ids)) == 1 < len(set(begun.token_ids))
    assert first.hits == 3 and first.perplexity.value < whole.perplexity.value


def test_what_is_ablated_is_said_less(engine: EmbeddedEngine) -> None:
    """With its row taken out of the stream behind the last layer, a word's logit is 0."""
    text = "ablate:cup@1"
    loud = [Steer.parse("cup=200@1")]
    _, alone, silenced = sweep(
        engine,
        PROMPTS,
        [(*loud,), (*loud, Steer.parse(text))],
        concept="cup",
        found=words_probe(["cup"]),
        sampling=DRAWN,
        samples=3,
    )
    assert silenced.hits < alone.hits == 9
    _, ablated = swept(engine, text, sampling=GREEDY, samples=1)
    asked = tuple(encode_chat(engine.tokenizer, prompt) for prompt in PROMPTS)
    said = engine.complete(GenerationRequest(asked, GREEDY, steering=(Steer.parse(text),)))
    assert [answer.token_ids for answer in ablated.answers] == [one.token_ids for one in said]


def test_many_prompts_are_asked_a_part_at_a_time(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.concepts.sweeping._ROWS_TOGETHER", 4)
    told: list[tuple[int, int]] = []
    reference, same = sweep(
        engine,
        PROMPTS,
        [(Steer("cup", 0.0),)],
        concept="cup",
        found=words_probe(["cup"]),
        sampling=DRAWN,
        samples=2,
        told=lambda done, of: told.append((done, of)),
    )
    assert told == [(4, 12), (6, 12), (10, 12), (12, 12)]
    assert not any(same.changed)
    assert reference.answers[0].token_ids != reference.answers[4].token_ids, "each part has its own seed"


# ------------------------------------------------------------------ what they are measured by


def hidden(folder: Path, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of each next token, [t, v], and the stream behind the first layer, [t, h]."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        told = model(torch.tensor([list(ids)]), output_hidden_states=True)
    return told.logits[0].log_softmax(-1), told.hidden_states[1][0]


def test_perplexity_and_readouts_are_those_of_the_model_without_steering(
    engine: EmbeddedEngine, folder: Path
) -> None:
    directions = engine.directions
    assert directions is not None and directions.statistics is not None
    for effect in swept(engine, "cup=3@1", "clamp:end=1@1", layer=0):
        nats, tokens = 0.0, 0
        for answer in effect.answers:
            prompt = encode_chat(engine.tokenizer, PROMPTS[answer.prompt])
            logprobs_tv, stream_th = hidden(folder, [*prompt, *answer.token_ids])
            own = [
                logprobs_tv[len(prompt) - 1 + place, token].item()
                for place, token in enumerate(answer.token_ids)
            ]
            assert answer.nats == pytest.approx(-sum(own), abs=1e-3)
            nats, tokens = nats - sum(own), tokens + len(own)
            ended = answer.token_ids[-1] == engine.tokenizer.eos_token_id
            assert ended == answer.ended
            read = (stream_th @ directions.vectors_ch[0][0])[len(prompt) :][: len(own) - ended]
            if len(read):
                assert answer.readout == pytest.approx((read.mean().item() - 0.1) / 1.0, abs=1e-3)
            else:
                assert answer.readout is None
        found = effect.perplexity
        assert found.value == pytest.approx(np.exp(nats / tokens), rel=1e-3)
        assert found.low < found.value < found.high and found.n == 9


def test_answers_of_nothing_but_the_end_of_the_turn(engine: EmbeddedEngine) -> None:
    _, ended = swept(engine, "end=300@1", concept="end")
    assert ended.empty == 9 and ended.hits == 0 and ended.readout is None
    assert all(len(answer.token_ids) == 1 and answer.ended for answer in ended.answers)
    assert np.isfinite(ended.perplexity.value) and all(ended.changed)
    assert not readout_probe(-100)(ended.answers[0])
    assert steered_lessons(PROMPTS, swept(engine)[0], ended, weights="initial", at="") == ()


def test_readouts_are_raw_without_statistics(folder: Path, tmp_path: Path) -> None:
    told = Directions.load(folder / "directions")
    assert told.statistics is not None
    bare = ReadoutManifest(concepts=["cup", "end"], layers=[0, 1], hidden_size=32, dtype="float32")
    Directions(bare, told.vectors_ch).save(tmp_path)
    readouts = []
    for directions in (tmp_path, folder / "directions"):
        with EmbeddedEngine(ModelSettings(), folder / "model", readout=directions) as engine:
            [only] = swept(engine)
            assert only.readout is not None
            readouts.append(only.readout)
    assert readouts[1] == pytest.approx((readouts[0] - 0.3) / 0.5, abs=1e-4), "the deepest layer"


# ------------------------------------------------------------------ probes


def answer(text: str, readout: float | None = 0.0, prompt: int = 0, **other: object) -> SweptAnswer:
    made = SweptAnswer(prompt, text, (1, 2), 2.0, readout, ended=True)
    return replace(made, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am calm.", True),
        ("CALM", True),
        ("calmly", False),
        ("becalm", False),
        ("at ease now", True),
        ("ease", False),
        ("so C++, then", True),
        ("", False),
    ],
)
def test_words_are_found_whole_in_whatever_case(text: str, expected: bool) -> None:
    assert words_probe(["calm", "at ease", "C++"])(answer(text)) == expected


def test_no_word_finds_nothing_and_is_refused() -> None:
    for words in ([], ["", " "]):
        with pytest.raises(BadRequest, match="at least one word"):
            words_probe(words)


def test_a_readout_is_enough_from_a_threshold_on() -> None:
    assert [readout_probe()(answer("x", read)) for read in (0.99, 1.0, None)] == [False, True, False]
    assert readout_probe(-1.0)(answer("x", -1.0))


# ------------------------------------------------------------------ the usable range


def effect(steer: str, perplexity: float, hits: int = 0) -> Effect:
    steering = (Steer.parse(steer),) if steer else ()
    found = (True,) * hits + (False,) * (9 - hits)
    return Effect(steering, (answer(""),) * 9, found, (True,) * 9, Average(perplexity, 0.0, 9.0, 9))


def kept(*effects: Effect, fewest: bool = False) -> tuple[list[float], float | None]:
    within = usable((effect("", 2.0, hits=2), *effects), fewest=fewest)
    return [one.strength for one in within.effects], None if within.best is None else within.best.strength


def test_a_strength_is_usable_where_it_and_all_weaker_ones_break_nothing() -> None:
    weak, broken, strong = effect("calm=1x", 2.2, 3), effect("calm=2x", 3.0, 5), effect("calm=4x", 2.0, 9)
    assert kept(weak, broken, strong) == ([1.0], 1.0)
    assert kept(strong, weak) == ([4.0, 1.0], 4.0)
    assert kept(broken) == ([], None)
    assert kept(effect("calm=-4x", 2.0, 1), effect("calm=-2x", 9.0), weak) == ([1.0], 1.0)
    assert kept(effect("calm=2x[first]", 9.0), strong) == ([4.0], 4.0), "another way of steering"
    assert kept(effect("clamp:calm=0", 9.0), effect("clamp:calm=2", 9.0), effect("clamp:calm=3", 2.0, 4)) == (
        [3.0],
        3.0,
    )


def test_the_best_does_more_than_nothing_and_is_the_weakest_that_does_so_much() -> None:
    one, two = effect("calm=1", 2.0, 4), effect("calm=2", 2.0, 4)
    assert kept(two, one) == ([2.0, 1.0], 1.0)
    assert kept(effect("calm=1", 2.0, 2)) == ([1.0], None)
    less = effect("ablate:calm=0.5", 2.0, 1), effect("ablate:calm=1", 2.0, 0)
    assert kept(*less, fewest=True) == ([0.5, 1.0], 1.0)
    assert kept(*less) == ([0.5, 1.0], None)
    reference, other = effect("", 2.0), effect("calm=1", 2.9)
    assert usable((reference, other), most_perplexity=1.4).effects == ()


# ------------------------------------------------------------------ lessons


def made(*answers: SweptAnswer, steer: str = "calm=2.0x[first]", shown: Sequence[bool] = ()) -> Effect:
    found = tuple(shown) or (False,) * len(answers)
    return Effect(
        (Steer.parse(steer),) if steer else (), answers, found, (True,) * len(answers), Average(2, 1, 3, 9)
    )


def proposed(reference: Effect, steered: Effect, **other: object) -> list[tuple[str, str, str | None]]:
    lessons = steered_lessons(PROMPTS, reference, steered, weights="abc", at="now", **other)  # type: ignore[arg-type]
    return [(lesson.context[0].content, lesson.chosen, lesson.rejected) for lesson in lessons]


def test_lessons_are_of_answers_that_differ_and_came_to_an_end() -> None:
    old = made(answer("fine"), answer("hello", prompt=1), answer("", prompt=2), steer="")
    assert proposed(old, made(answer(" fine"), answer("calm", prompt=1), answer("calm", prompt=2))) == [
        ("Good morning!", "calm", "hello"),
        ("Tell me more.", "calm", None),
    ]
    nothing, cut = answer("", prompt=1), answer("calm and", prompt=2, ended=False)
    assert proposed(old, made(answer("fine"), nothing, cut)) == []
    held = made(answer("teal"), answer("calm", prompt=1), answer("calm", prompt=2))
    assert len(proposed(old, held, barred=lambda text: text == "teal")) == 2


def test_of_several_answers_the_likeliest_that_shows_the_concept() -> None:
    old = made(*(answer(f"old {number}") for number in range(4)), steer="")
    texts = [answer("calm", nats=9.0), answer("calm now", nats=3.0), answer("so calm", nats=5.0)]
    new = made(*texts, answer("tea", nats=1.0), shown=(True, True, True, False))
    assert proposed(old, new) == [("How are you?", "calm now", "old 1")]
    assert proposed(old, new, fewest=True) == [("How are you?", "tea", "old 3")]


def test_a_lesson_says_that_it_was_steered_and_takes_an_older_ones_place(tmp_path: Path) -> None:
    old = made(answer("fine"), steer="")
    [first] = steered_lessons(PROMPTS, old, made(answer("calm")), weights="abc", at="2026-01-02T03:04:05Z")
    source = first.source
    assert (source.file, source.thread, source.commit) == (STEERED, "calm=2.0x[first]", "abc")
    assert (source.author, source.time, len(source.message)) == (
        "understudy",
        "2026-01-02T03:04:05Z",
        SHORT_ID,
    )
    stronger = made(answer("very calm"), steer="calm=4.0x[first]")
    [second] = steered_lessons(PROMPTS, old, stronger, weights="abc", at="2026-01-02T03:04:05Z")
    other = made(answer("proud"), steer="proud=1.0")
    [third] = steered_lessons(PROMPTS, old, other, weights="abc", at="2026-01-02T03:04:05Z")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for lesson in (first, second, third):
        ledger.propose(lesson)
    assert [entry.state for entry in ledger.list()] == ["refused", "proposed", "proposed"]


# ------------------------------------------------------------------ what is refused


def test_what_cannot_be_swept_is_said_before_anything_is_asked(
    engine: EmbeddedEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(EmbeddedEngine, "complete")
    with pytest.raises(UnknownConcept, match="got 'bold'"):
        swept(engine, concept="bold")
    with pytest.raises(BadRequest, match="a concept that is loaded"):
        swept(engine, "bold=1")
    with pytest.raises(UnknownLayer, match="got 7"):
        swept(engine, layer=7)
    with pytest.raises(BadRequest, match="got 3 times 0"):
        swept(engine, samples=0)
    with pytest.raises(BadRequest, match="got 0 times 1"):
        sweep(engine, (), (), concept="cup", found=words_probe(["cup"]), sampling=DRAWN)
    with EmbeddedEngine(ModelSettings(), folder / "model") as deaf, pytest.raises(NoDirections):
        swept(deaf)


def test_the_openings_differ() -> None:
    assert len(set(OPENINGS)) == len(OPENINGS) and all(text.strip() for text in OPENINGS)

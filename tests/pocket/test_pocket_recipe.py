"""The recipe stays alive: a miniature is made from nothing, learns, loads and speaks."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from understudy.lessons import ChatMessage
from understudy.pocket import build, card, documents, render
from understudy.pocket.build import endless_corpus
from understudy.pocket.corpus import HABITS, STATES, Document
from understudy.pocket.evaluate import answerer, perplexity
from understudy.pocket.network import build_model
from understudy.pocket.pretraining import Progress, optimizers, pretrain, rate_share, weighted_loss
from understudy.pocket.recipe import Recipe, Stage
from understudy.pocket.tokenization import rows, train_tokenizer, weigh

STAGE = Stage(STATES, 40, 8e-3, 0.5)
MINIATURE = replace(
    Recipe(),
    vocabulary_size=512,
    tokenizer_documents=300,
    hidden_size=64,
    intermediate_size=96,
    heads=2,
    key_value_heads=1,
    stages=(STAGE,),
    rows_per_step=2,
    tokens_per_row=128,
    warmup_steps=5,
)
FALLS_BY = 1.4
"""How many times smaller the miniature's loss is at the end than an untrained model's."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = (render(document) for document in documents(0, MINIATURE.tokenizer_documents))
    return train_tokenizer(texts, MINIATURE.vocabulary_size, MINIATURE.longest_context)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    directory, written = tmp_path_factory.mktemp("pocket") / "model", io.StringIO()
    threads = torch.get_num_threads()
    build.build(directory, (0,), MINIATURE, Console(file=written, width=200), every=10, measured=False)
    torch.set_num_threads(threads)
    yield directory, written.getvalue()


def test_the_loss_falls(tokenizer: Any) -> None:
    model = build_model(MINIATURE, tokenizer, seed=0)
    losses = pretrain(model, tokenizer, endless_corpus(0, STATES), STAGE, MINIATURE, lambda progress: None)
    assert len(losses) == MINIATURE.steps
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    assert sum(losses[-5:]) / 5 < losses[0] / FALLS_BY


def test_the_built_directory_loads_with_auto_classes_and_generates(built: tuple[Path, str]) -> None:
    directory, _ = built
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    assert type(model).__name__ == "Qwen3_5ForCausalLM"
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["Qwen3_5ForCausalLM"]
    assert config["model_type"] == "qwen3_5_text"
    assert config["max_position_embeddings"] == Recipe().longest_context
    assert config["layer_types"] == ["linear_attention"] * 3 + ["full_attention"]
    assert set(model.generation_config.eos_token_id) == {
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
        tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }
    answers = answerer(model, tokenizer)([(ChatMessage("user", "Use oak for the party."),)])
    assert len(answers) == 1
    assert card(directory)["tokens"] == MINIATURE.tokens


def test_the_build_tells_how_far_it_is_and_how_long_it_takes(built: tuple[Path, str]) -> None:
    _, written = built
    assert "step 10/40" in written
    assert "step 40/40" in written
    assert "min left" in written
    assert "tokens/s" in written


def test_the_same_seed_gives_the_same_model(tokenizer: Any) -> None:
    few = replace(STAGE, steps=3)
    made = []
    for seed in (1, 1, 2):
        model = build_model(MINIATURE, tokenizer, seed)
        pretrain(model, tokenizer, endless_corpus(seed, STATES), few, MINIATURE, lambda progress: None)
        made.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_stage_after_a_checkpoint_is_that_stage_of_a_whole_build(tmp_path: Path) -> None:
    stages = replace(STAGE, mix=HABITS, steps=4), replace(STAGE, steps=3)

    def made(count: int, after: Path | None = None) -> tuple[Any, Any]:
        recipe = replace(MINIATURE, stages=stages[:count])
        return build.make(recipe, (0, 5)[:count], lambda progress: None, after=after)

    first, tokenizer = made(1)
    build.save(first, tokenizer, tmp_path, torch.bfloat16)
    again, known = made(2, tmp_path)
    whole, after = made(2)[0].state_dict(), again.state_dict()
    known.save_pretrained(tmp_path / "again")
    configs = [folder / "tokenizer_config.json" for folder in (tmp_path, tmp_path / "again")]
    assert configs[0].read_text() == configs[1].read_text()
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    assert any(not torch.equal(whole[name], kept.float()) for name, kept in first.state_dict().items())


def test_every_stage_has_a_seed_and_a_shortened_recipe_all_stages() -> None:
    with pytest.raises(ValueError, match="expected 2, one for each stage, got 1"):
        build.make(Recipe(), (1,), lambda progress: None)
    short = Recipe().shortened(40)
    assert short.steps == pytest.approx(40, abs=1) and min(stage.steps for stage in short.stages) >= 5
    assert [stage.steps for stage in Recipe().shortened(2).stages] == [1, 1]


def test_a_corpus_that_ends_early_is_an_error(tokenizer: Any) -> None:
    model = build_model(MINIATURE, tokenizer, seed=0)
    with pytest.raises(ValueError, match="corpus ended at step"):
        pretrain(model, tokenizer, documents(0, 20), STAGE, MINIATURE, lambda progress: None)


def test_weights_follow_the_roles(tokenizer: Any) -> None:
    recipe = Recipe()
    for document in documents(2, 80):
        ids, weights = weigh(tokenizer, document, recipe)
        assert ids == tokenizer(render(document), add_special_tokens=False)["input_ids"]
        if document.messages:
            said = [message.content for message in document.messages if message.role == "assistant"]
            full = [
                token for token, weight in zip(ids, weights, strict=True) if weight == recipe.assistant_weight
            ]
            assert tokenizer.decode(full) == "".join(text + "<|im_end|>" for text in said)
        else:
            assert set(weights) == {recipe.story_weight}


def test_rows_begin_with_a_document_and_hold_one_token_more_than_is_read(tokenizer: Any) -> None:
    found = list(rows(tokenizer, documents(0, 200), MINIATURE))
    starts = {tokenizer.convert_tokens_to_ids("<|im_start|>")}
    stories = [document for document in documents(0, 200) if not document.messages]
    starts |= {tokenizer(document.story)["input_ids"][0] for document in stories}
    assert len(found) > 10
    for ids, weights in found:
        assert len(ids) == len(weights) == MINIATURE.tokens_per_row + 1
        assert ids[0] in starts


def test_the_tokenizer_loses_nothing_and_has_the_chat_template(tokenizer: Any) -> None:
    for text in ("Wéird ☃ text\n\twith  spaces", "Use the clarinet."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    messages = [{"role": "user", "content": "Hi."}]
    shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    assert len(tokenizer("<|im_start|><|im_end|><|endoftext|>")["input_ids"]) == 3


def test_every_parameter_has_one_optimizer_and_gates_have_no_muon(tokenizer: Any) -> None:
    model = build_model(MINIATURE, tokenizer, seed=0)
    muon, adamw = optimizers(model, STAGE, MINIATURE)
    given = [
        id(p) for optimizer in (muon, adamw) for group in optimizer.param_groups for p in group["params"]
    ]
    assert sorted(given) == sorted(id(p) for p in model.parameters())
    matrices = {id(p) for p in muon.param_groups[0]["params"]}
    for name, parameter in model.named_parameters():
        if "embed" in name or "in_proj_a" in name or "in_proj_b." in name or parameter.ndim != 2:
            assert id(parameter) not in matrices
    [alone] = optimizers(model, replace(STAGE, muon=False), MINIATURE)
    assert sorted(given) == sorted(id(p) for group in alone.param_groups for p in group["params"])


def test_decays_begin_with_a_memory_of_many_tokens(tokenizer: Any) -> None:
    """Mamba-2's start: time steps between 0.001 and 0.1, so the slowest heads keep hundreds of tokens."""
    for seed in range(3):
        named = dict(build_model(Recipe(), tokenizer, seed).named_parameters())
        for name, bias in named.items():
            if name.endswith("dt_bias"):
                step = torch.nn.functional.softplus(bias)
                rate = named[name.replace("dt_bias", "A_log")].exp()
                assert bool(((step > 0.0009) & (step < 0.11)).all())
                assert bool(((rate >= 1) & (rate <= 16)).all())


def test_the_rate_is_warmed_up_held_and_let_down() -> None:
    recipe = Recipe()
    stage = recipe.stages[0]
    shares = [rate_share(step, stage, recipe) for step in range(stage.steps)]
    assert shares[0] == pytest.approx(1 / recipe.warmup_steps)
    assert shares[recipe.warmup_steps] == shares[round(stage.steps * stage.constant_share) - 1] == 1.0
    assert shares[-1] == pytest.approx(recipe.final_rate_share, abs=1e-3)
    assert all(
        a >= b for a, b in zip(shares[recipe.warmup_steps :], shares[recipe.warmup_steps + 1 :], strict=False)
    )


def test_the_weighted_loss_is_the_weighted_mean(tokenizer: Any) -> None:
    model = build_model(MINIATURE, tokenizer, seed=0).double()
    ids = torch.randint(3, len(tokenizer), (2, 9), generator=torch.Generator().manual_seed(0))
    weights = torch.rand(2, 9, generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits.detach()
    total = sum(
        -float(logits[row, at].log_softmax(-1)[ids[row, at + 1]]) * float(weights[row, at + 1])
        for row in range(2)
        for at in range(8)
    )
    expected = total / float(weights[:, 1:].sum())
    assert weighted_loss(model, ids, weights).item() == pytest.approx(expected, rel=1e-5)


def test_perplexity_counts_every_token_once_whatever_the_batch(tokenizer: Any) -> None:
    model = build_model(MINIATURE, tokenizer, seed=0).eval()
    texts = [render(document) for document in documents(9, 12)]
    together, alone = (
        perplexity(model, tokenizer, texts, at_once=12),
        perplexity(model, tokenizer, texts, at_once=1),
    )
    assert together == pytest.approx(alone, rel=1e-4)
    assert together == pytest.approx(len(tokenizer), rel=0.2)


def test_progress_tells_the_time_left() -> None:
    assert Progress(25, 100, 1.0, 25_600, 10.0).seconds_left == pytest.approx(30.0)


def test_a_document_without_messages_is_its_story() -> None:
    assert render(Document("story", story="I was calm.")) == "I was calm.<|endoftext|>"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--steps", "1"), "--steps: expected 2 or more, got 1"),
        (("--after", "nowhere"), "--after: expected a checkpoint directory, got nowhere"),
        (("--seeds", "1"), "expected 2 arguments"),
    ],
)
def test_the_build_says_what_it_cannot_do(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit):
        build.main(words)
    assert told in capsys.readouterr().err

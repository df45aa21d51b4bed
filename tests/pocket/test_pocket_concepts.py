"""The pocket model's states of mind are concepts: found in clauses unseen, and causes of what it says."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from understudy.concepts import Extraction, LayerValidity, extract, load_corpus, preflight
from understudy.config import ModelSettings
from understudy.engine import (
    EmbeddedEngine,
    GenerationRequest,
    Sampling,
    Steer,
    encode_chat,
    load_model,
)
from understudy.lessons import ChatMessage
from understudy.pocket import StateOfMind, card, checkpoint_directory, states_of_mind, words
from understudy.pocket.concepts import RECIPE, TWIN_SEED, concept_corpus, write_concept_corpus
from understudy.pocket.network import build_model
from understudy.pocket.recipe import Recipe
from understudy.pocket.states import opening

FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"did", "let"}
LAYERS, STRENGTH = "1,2", "4x"


def content_words(texts: Iterator[str] | tuple[str, ...]) -> set[str]:
    found = {word for text in texts for word in re.findall(r"[a-z']+", text.lower())}
    return {word for word in found if word not in FUNCTION_WORDS}


@pytest.fixture(scope="module")
def extracted() -> Extraction:
    loaded = load_model(checkpoint_directory(), "float32")
    twin = replace(loaded, model=build_model(Recipe(), loaded.tokenizer, TWIN_SEED).eval())
    return extract(loaded, concept_corpus(), RECIPE, twin=twin)


@pytest.fixture(scope="module")
def best(extracted: Extraction) -> LayerValidity:
    assert extracted.validity is not None
    return extracted.validity.layers[extracted.validity.best_layer]


# ---------------------------------------------------------------------- the corpus


@pytest.mark.parametrize("state", states_of_mind(), ids=lambda state: state.name)
def test_no_word_of_content_is_in_both_splits(state: StateOfMind) -> None:
    made = content_words((*state.training_clauses, state.labels[0]))
    measured = content_words((*state.apart_clauses, state.labels[1]))
    assert len(made) > 20
    assert len(measured) > 15
    assert not made & measured


def test_held_out_stories_have_no_clause_and_no_name_of_the_training_ones() -> None:
    corpus = concept_corpus()
    for state in states_of_mind():
        for text in corpus.positives(state.name, "held_out"):
            assert not any(clause in text.text for clause in state.training_clauses)
            assert not re.search(rf"\b{state.labels[0]}\b", text.text)
        for text in corpus.positives(state.name, "train"):
            assert not any(clause in text.text for clause in state.apart_clauses)
            assert not re.search(rf"\b{state.labels[1]}\b", text.text)


def test_it_is_the_same_each_time_and_lies_in_files_as_it_is(tmp_path: Path) -> None:
    written = write_concept_corpus(tmp_path)
    assert concept_corpus().digest == written.digest == load_corpus(tmp_path).digest
    assert concept_corpus(seed=1).digest != written.digest
    assert not [finding for finding in preflight(load_corpus(tmp_path)) if finding.level == "error"]


# ---------------------------------------------------------------------- what the model carries


def test_states_are_found_in_clauses_that_no_direction_saw(best: LayerValidity) -> None:
    assert best.average.value >= 0.9
    assert best.average.low > 0.85
    assert best.keyword_free.value >= 0.8
    assert min(one.held_out.value for one in best.concepts.values()) > 0.7


def test_neither_words_nor_chance_would_do(best: LayerValidity) -> None:
    assert best.twin is not None
    assert best.twin_keyword_free is not None
    for control in (best.twin.value, best.twin_keyword_free.value, best.random[0], best.shuffled[0]):
        assert 0.4 < control < 0.65


def test_the_card_has_these_figures(extracted: Extraction, best: LayerValidity) -> None:
    told = card()["states_of_mind"]
    assert extracted.validity is not None
    assert told["best_layer"] == extracted.validity.best_layer
    layer = told["layers"][str(told["best_layer"])]
    assert layer["auroc"]["value"] == pytest.approx(best.average.value, abs=0.01)
    assert layer["auroc"]["interval"][0] < layer["auroc"]["value"] < layer["auroc"]["interval"][1]
    assert layer["keyword_free_auroc"]["value"] == pytest.approx(best.keyword_free.value, abs=0.01)
    assert layer["untrained_twin"]["value"] < 0.65
    assert set(layer["concepts"]) == {state.name for state in states_of_mind()}


# ---------------------------------------------------------------------- what it says when it is steered


def sentences(answer: str) -> list[str]:
    return [found for found in re.split(r"(?<=[.!?]) ", answer.strip()) if found]


def shows(answer: str, state: StateOfMind) -> bool:
    """Whether an answer has a word that names the state, or one of its clauses."""
    clauses = {*state.training_clauses, *state.apart_clauses}
    named = any(re.search(rf"\b{label}\b", answer) for label in state.labels)
    return named or any(sentence in clauses for sentence in sentences(answer))


def is_well_formed(sentence: str) -> bool:
    """Whether it is a sentence of the corpus: a clause of any state, or one that names a state."""
    states = states_of_mind()
    if any(sentence in (*state.training_clauses, *state.apart_clauses) for state in states):
        return True
    named = re.fullmatch(r"(?:I|You) (?:felt|feel|was)(?: so)? ([a-z ]+)\.", sentence)
    return bool(named and any(named[1] in state.labels for state in states))


def share_well_formed(answers: list[str]) -> float:
    found = [is_well_formed(sentence) for answer in answers for sentence in sentences(answer)]
    return sum(found) / len(found)


def test_steering_a_state_makes_the_model_speak_of_it(extracted: Extraction, tmp_path: Path) -> None:
    """How a story of no feeling goes on: its words at least three times as often, in sentences as good."""
    random = Random("steering")
    extracted.directions.save(tmp_path)
    asked = [
        f"{' '.join(opening(random, 'test')[1])} {random.choice(words.states().questions.go_on)}"
        for _ in range(20)
    ]
    sampling = Sampling(max_tokens=40, temperature=0.8, seed=3)
    with EmbeddedEngine(ModelSettings(), checkpoint_directory(), readout=tmp_path) as engine:
        torch.set_num_threads(1)
        prompts = tuple(encode_chat(engine.tokenizer, (ChatMessage("user", text),)) for text in asked)

        def said(*steering: Steer) -> list[str]:
            request = GenerationRequest(prompts, sampling, steering=steering)
            return [completion.text for completion in engine.complete(request)]

        plain = said()
        steered = {
            state: said(Steer.parse(f"{state.name}={STRENGTH}@{LAYERS}[prompt]"))
            for state in states_of_mind()
        }
    before = [shows(answer, state) for state in steered for answer in plain]
    after = [shows(answer, state) for state, answers in steered.items() for answer in answers]
    assert sum(after) >= 3 * sum(before)
    assert sum(after) / len(after) > 0.4
    good = [is_well_formed(one) for answer in plain for one in sentences(answer)]
    kept = [
        is_well_formed(one) for answers in steered.values() for answer in answers for one in sentences(answer)
    ]
    assert sum(kept) / len(kept) >= 0.9 * sum(good) / len(good)

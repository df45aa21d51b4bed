"""What `understudy concepts steer` is given, resolved before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from understudy.cli.failures import CommandError
from understudy.lessons import ChatMessage

if TYPE_CHECKING:
    from understudy.concepts import Corpus, Probe
    from understudy.engine import Directions, Sampling, Steer

ModeName = Literal["add", "ablate", "clamp"]
ProbeName = Literal["words", "readout"]
Prompt = tuple[ChatMessage, ...]

STRENGTHS: dict[ModeName, str] = {"add": "0.5x,1x,2x,4x", "clamp": "0.5x,1x,2x,4x", "ablate": "0.25,0.5,1"}
"""What is tried where nothing is said."""
SAMPLES = 4
"""Answers to each prompt, where these are drawn."""


@dataclass(frozen=True)
class SweepPlan:
    """What is steered, asked and looked for. `proposed` is the steer of which lessons are wanted.

    `words` is empty where the probe is the readout; `layer` is where the concept is read.
    """

    concept: str
    folder: Path
    steers: "tuple[Steer, ...]"
    proposed: "Steer | None"
    prompts: tuple[Prompt, ...]
    words: tuple[str, ...]
    found: "Probe"
    layer: int
    sampling: "Sampling"
    samples: int
    seed: int

    @property
    def fewest(self) -> bool:
        """Whether the concept is taken away, so that less of it is better."""
        return all(steer.mode == "ablate" or steer.strength < 0 for steer in self.steers)


def read_steers(
    directions: "Directions",
    concept: str,
    strengths: str,
    mode: ModeName,
    layers: Sequence[int],
    span: str | None,
) -> "tuple[Steer, ...]":
    """A steer for each strength, the lowest first.

    Raises UnknownConcept, UnknownLayer, CommandError, and BadRequest for what is no steer.
    """
    from understudy.concepts import narrow
    from understudy.engine import Steer

    narrow(directions, concepts=(concept,), layers=layers)
    place = ("@" + ",".join(map(str, layers)) if layers else "") + ("" if span is None else f"[{span}]")
    texts = [f"{mode}:{concept}={strength.strip()}{place}" for strength in strengths.split(",")]
    steers = tuple(sorted({Steer.parse(text) for text in texts}, key=lambda steer: steer.strength))
    directions.steering(steers)
    if len({steer.in_lengths for steer in steers}) > 1:
        raise CommandError(f"expected strengths all with x or all without, to compare them, got {strengths}")
    return steers


def read_prompts(texts: Sequence[str], file: Path | None) -> tuple[Prompt, ...]:
    """Each prompt once. Raises CommandError for a file that holds something else, or nothing."""
    given: list[Prompt] = [(ChatMessage("user", text.strip()),) for text in texts]
    if file is not None:
        given += _prompts_in(file)
    empty = [number for number, prompt in enumerate(given, start=1) if not prompt[-1].content.strip()]
    if empty:
        raise CommandError(f"expected a prompt with something in it, got an empty one at number {empty[0]}")
    return tuple(dict.fromkeys(given))


class _Line(msgspec.Struct, frozen=True):
    """A line of JSON Lines: what else stands in it is passed over."""

    prompt: str | tuple[ChatMessage, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


def _prompts_in(file: Path) -> list[Prompt]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise CommandError(f"expected prompts in UTF-8 at {file}: {error}") from error
    read = _prompt_of if file.suffix == ".jsonl" else _plain_prompt
    found = [read(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise CommandError(f"expected prompts in {file}, one to a line, found none")
    return found


def _plain_prompt(line: str, _place: str) -> Prompt:
    return (ChatMessage("user", line.strip()),)


def _prompt_of(line: str, place: str) -> Prompt:
    wanted = '{"prompt": TEXT or MESSAGES} or {"messages": MESSAGES}, the last message not the assistant\'s'
    try:
        held = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{place}: expected {wanted}: {error}") from error
    prompt = held.messages or held.prompt
    found = (ChatMessage("user", prompt),) if isinstance(prompt, str) else prompt
    if not found or found[-1].role == "assistant":
        raise CommandError(f"{place}: expected {wanted}, got {line.strip()[:80]!r}")
    return found


def read_probe(
    name: ProbeName,
    directions: "Directions",
    folder: Path,
    concept: str,
    words: Sequence[str],
    corpus: Path | None,
) -> "tuple[tuple[str, ...], Probe]":
    """What shows the concept, with the words that it looks for. Raises CommandError and BrokenCorpus."""
    from understudy.concepts import readout_probe, words_probe

    if name == "words":
        looked_for = _words(folder, concept, words, corpus)
        return looked_for, words_probe(looked_for)
    if words or corpus is not None:
        raise CommandError("expected --word and --corpus only where words are looked for, not with a readout")
    if directions.statistics is None:
        raise CommandError(
            "expected --probe words, since these directions have no `statistics` in readout.json for "
            "z-scores to be counted in"
        )
    return (), readout_probe()


def _words(folder: Path, concept: str, given: Sequence[str], corpus: Path | None) -> tuple[str, ...]:
    from understudy.concepts import load_corpus

    if given and corpus is not None:
        raise CommandError("expected either --word or --corpus, got both")
    if given:
        return tuple(given)
    if corpus is not None:
        loaded = load_corpus(corpus)
        loaded.require(concept)
        return loaded.words(concept)
    known = [one for one in _own_corpora(folder) if concept in one.concepts]
    if not known:
        raise CommandError(
            f"expected words that show {concept!r} in an answer, by --word or by the --corpus that it is of: "
            "it is in none of Understudy's own"
        )
    return known[0].words(concept)


def _own_corpora(folder: Path) -> "list[Corpus]":
    """The corpora that come with Understudy, the one that directions were made from first."""
    from understudy.concepts import CARD_FILE, load_corpus, read_card, shipped_corpus
    from understudy.pocket.concepts import concept_corpus

    made_from = read_card(folder).corpus if (folder / CARD_FILE).exists() else ""
    return sorted((load_corpus(shipped_corpus()), concept_corpus()), key=lambda one: one.digest != made_from)


def read_sampling(temperature: float, max_tokens: int, samples: int | None) -> "tuple[Sampling, int]":
    """How answers are drawn, and how many to each prompt. Raises CommandError, and BadRequest."""
    from understudy.engine import Sampling

    count = (SAMPLES if temperature else 1) if samples is None else samples
    if count < 1 or (not temperature and count > 1):
        raise CommandError(
            f"expected --samples of 1 or more, and of 1 at temperature 0, where all answers to a prompt are "
            f"the same; got {count} at temperature {temperature:g}"
        )
    return Sampling(max_tokens=max_tokens, temperature=temperature), count

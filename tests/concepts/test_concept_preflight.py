"""What preflight finds, each finding once where it belongs and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

import understudy.concepts
from understudy.concepts import (
    BrokenCorpus,
    Corpus,
    Finding,
    Manifest,
    ManifestConcept,
    load_corpus,
    preflight,
    require_sound,
    write_manifest,
)

SCENES = ("harbour", "kitchen", "school", "street", "tower", "wood")
HELD_OUT = SCENES[4:]
TELLING = {
    "calm": "slowly and evenly, breath by breath",
    "furious": "shouting, fist on the table, red",
    None: "",
}


def files() -> dict[str, str]:
    """A sound corpus: two concepts and a baseline in six scenes, of which two are held out."""
    found = {}
    for number, scene in enumerate(SCENES):
        for concept, told in TELLING.items():
            body = f"In the {scene} at {number} o'clock {told} she took the {scene} road home past"
            found[f"paired/{scene}/{concept or 'baseline'}.txt"] = f"{body} {scene} gates."
    return found


def corpus_of(
    folder: Path, texts: dict[str, str], held_out: tuple[str, ...] | None = None, **more: object
) -> Corpus:
    for path, body in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(body)
    if held_out is None:
        held_out = tuple(path for path in texts if path.split("/")[1] in HELD_OUT)
    write_manifest(folder, Manifest(held_out=held_out, **more))  # type: ignore[arg-type]
    return load_corpus(folder)


def shown(corpus: Corpus, **settings: int) -> list[tuple[str, str]]:
    return [(finding.level, finding.where) for finding in preflight(corpus, **settings)]


def test_a_sound_corpus_has_no_findings(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, files())
    assert preflight(corpus) == ()
    require_sound(corpus)


def without(word: str) -> dict[str, str]:
    return {path: body for path, body in files().items() if word not in path}


def test_one_concept_needs_baselines_of_its_own(tmp_path: Path) -> None:
    assert shown(corpus_of(tmp_path / "with", without("furious"))) == []
    alone = {path: body for path, body in without("furious").items() if "baseline" not in path}
    findings = preflight(corpus_of(tmp_path / "alone", alone))
    assert [(one.level, one.where) for one in findings] == [("error", "corpus"), ("warning", "paired")]
    assert "found 1 with 0" in findings[0].message


def test_baselines_that_are_all_held_out_are_no_contrast_to_train_on(tmp_path: Path) -> None:
    texts = without("furious")
    held_out = tuple(path for path in texts if "baseline" in path)
    findings = preflight(corpus_of(tmp_path, texts, held_out))
    assert ("error", "corpus") in [(one.level, one.where) for one in findings]
    apart = next(one for one in findings if one.where == "paired")
    assert "another split" in apart.message and "and 3 others" in apart.message


@pytest.mark.parametrize(
    ("count", "level", "said"),
    [(0, "error", "held out"), (1, "error", "found one"), (2, "warning", "71%"), (3, "warning", "58%")],
)
def test_too_few_training_texts(tmp_path: Path, count: int, level: str, said: str) -> None:
    texts = files()
    gone = [f"paired/{scene}/calm.txt" for scene in SCENES[count:4]]
    corpus = corpus_of(tmp_path, {path: body for path, body in texts.items() if path not in gone})
    (finding,) = preflight(corpus)
    assert (finding.level, finding.where) == (level, "calm") and said in finding.message


def test_how_many_training_texts_are_enough_can_be_said(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, files())
    assert shown(corpus, minimum=5) == [("warning", "calm"), ("warning", "furious")]


def test_a_concept_of_one_scene_may_be_the_scene(tmp_path: Path) -> None:
    stories = {
        f"stories/joy/wood{n}.txt": f"Number {n} ran {n} miles and laughed {n} times." for n in range(5)
    }
    described = {f"direct/joy/{n}.txt": f"Joy number {n} is like {n} suns on {n} hills." for n in range(5)}
    assert shown(corpus_of(tmp_path / "some", {**files(), **stories}, None)) == [("warning", "splits")]
    (finding, *_) = preflight(corpus_of(tmp_path / "one", {**files(), **described}))
    assert finding.where == "joy" and "all of one scene (direct)" in finding.message


def test_almost_the_same_text_in_both_splits_is_an_error(tmp_path: Path) -> None:
    texts = files()
    texts["paired/tower/calm.txt"] = texts["paired/harbour/calm.txt"].replace("home", "back")
    (finding,) = preflight(corpus_of(tmp_path, texts))
    assert (finding.level, finding.where) == ("error", "splits")
    assert "paired/tower/calm.txt (" in finding.message and "like paired/harbour/calm.txt" in finding.message


def test_almost_the_same_text_twice_in_a_split_is_a_warning(tmp_path: Path) -> None:
    texts = files()
    texts["paired/school/calm.txt"] = texts["paired/harbour/calm.txt"]
    (finding,) = preflight(corpus_of(tmp_path, texts))
    assert (finding.level, finding.where) == ("warning", "duplicates")
    assert "paired/school/calm.txt (100% like paired/harbour/calm.txt)" in finding.message


def test_a_scene_told_in_almost_the_same_words_is_what_pairs_are_for_unless_they_are_the_same(
    tmp_path: Path,
) -> None:
    texts = files()
    texts["paired/wood/calm.txt"] = "They said and did what they always say and do here, gladly, in the wood."
    texts["paired/wood/baseline.txt"] = texts["paired/wood/calm.txt"].replace(" gladly,", "")
    assert shown(corpus_of(tmp_path, texts)) == []
    texts["paired/wood/baseline.txt"] = texts["paired/wood/calm.txt"]
    (finding,) = preflight(corpus_of(tmp_path, texts))
    assert finding.where == "duplicates" and "no difference to learn from" in finding.message


def test_the_same_answer_to_something_else_in_the_other_split_is_a_warning(tmp_path: Path) -> None:
    texts = files()
    for scene, asked in (("harbour", "Where is the boat now?"), ("tower", "Who rang that bell at night?")):
        (tmp_path / "paired" / scene).mkdir(parents=True)
        context = f'[{{"role": "user", "content": "{asked}"}}]'
        (tmp_path / "paired" / scene / "context.json").write_text(context)
        texts[f"paired/{scene}/calm.txt"] = "I shall go and look, and tell you then."
    (finding,) = preflight(corpus_of(tmp_path, texts))
    assert (finding.level, finding.where) == ("warning", "splits")
    assert finding.message.endswith(": paired/tower/calm.txt")


def test_nothing_held_out_and_concepts_of_which_nothing_is(tmp_path: Path) -> None:
    (nothing,) = preflight(corpus_of(tmp_path / "none", files(), ()))
    assert nothing.where == "splits" and "no text is held out, so" in nothing.message
    gone = [f"paired/{scene}/calm.txt" for scene in HELD_OUT]
    texts = {path: body for path, body in files().items() if path not in gone}
    (some,) = preflight(corpus_of(tmp_path / "some", texts))
    assert some.message.endswith("cannot be measured: calm")


def test_a_scene_on_both_sides_for_one_concept(tmp_path: Path) -> None:
    more = {"stories/calm/tower.txt": "A rope hung still; the bell had not moved since noon, nor had he."}
    held_out = tuple(path for path in files() if path.split("/")[1] in HELD_OUT)
    described = {"direct/calm/a.txt": "To be still as water.", "direct/calm/b.txt": "It is to want nothing."}
    held_out += ("direct/calm/b.txt",)  # descriptions are of no scene
    (finding,) = preflight(corpus_of(tmp_path, files() | more | described, held_out))
    assert finding.where == "calm" and finding.message.endswith("Hold out whole scenes: tower")


@pytest.mark.parametrize(
    ("said", "names"), [("It was CALM there", True), ("calmly", False), ("at ease, then", True)]
)
def test_texts_that_name_their_concept(tmp_path: Path, said: str, names: bool) -> None:
    texts = files() | {"direct/calm.txt": "To be calm is to be still and wide as water."}
    texts["paired/wood/calm.txt"] += f" {said}."
    words = {"calm": ManifestConcept(words=("calm", "at ease")), "furious": ManifestConcept()}
    findings = preflight(corpus_of(tmp_path, texts, concepts=words))
    assert [one.where for one in findings] == ["calm"] * names
    assert all("paired/wood/calm.txt" in one.message and "direct/" not in one.message for one in findings)


def test_files_and_concepts_without_texts(tmp_path: Path) -> None:
    concepts = {name: ManifestConcept() for name in ("calm", "furious", "awe", "joy")}
    corpus = corpus_of(tmp_path, files() | {"stories/awe.txt": " "}, concepts=concepts, targets=("joy",))
    assert shown(corpus) == [("warning", "stories/awe.txt"), ("warning", "awe")]


def test_a_concept_cannot_be_called_baseline(tmp_path: Path) -> None:
    stories = {f"stories/baseline/{n}{s}.txt": f"Tale {n} of {s} and {s}." for n, s in enumerate(SCENES)}
    corpus = corpus_of(tmp_path, files() | stories)
    assert ("error", "baseline") in shown(corpus)


def test_scenes_without_a_baseline_give_no_pairs(tmp_path: Path) -> None:
    (finding,) = preflight(corpus_of(tmp_path, without("wood/baseline")))
    assert finding.level == "warning" and finding.message.endswith("pass over them: wood")


def test_errors_come_first_and_are_all_told(tmp_path: Path) -> None:
    texts = {"stories/calm.txt": "The calm lake lay flat.", "stories/furious.txt": "The plate broke."}
    corpus = corpus_of(tmp_path, texts, ())
    levels = [finding.level for finding in preflight(corpus)]
    assert levels == sorted(levels) and {"error", "warning"} <= set(levels)
    with pytest.raises(BrokenCorpus) as caught:
        require_sound(corpus)
    assert "2 errors:\n- calm: " in str(caught.value) and "\n- furious: " in str(caught.value)
    assert "held out" not in str(caught.value)
    require_sound(corpus_of(tmp_path, files()), minimum=5)  # warnings are no errors


def test_a_finding_reads_as_a_line() -> None:
    assert str(Finding("error", "calm", "no texts")) == "calm: no texts"


# What the room loads


@pytest.mark.parametrize(
    "name", ["", ".preflight", ".collecting", ".publishing", ".scores", ".duplicates", ".corpus"]
)
def test_what_reads_no_model_loads_no_torch(name: str) -> None:
    program = f"import sys, understudy.concepts{name}\n"
    program += "print([m for m in ('torch', 'transformers', 'scipy', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    room = understudy.concepts
    late = {name for names in room._WITH_TORCH.values() for name in names}
    assert late <= set(room.__all__) <= set(dir(room))
    assert all(getattr(room, name) is not None for name in room.__all__)
    assert callable(room.preflight), "the function, not the module of its name"
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = room.nothing

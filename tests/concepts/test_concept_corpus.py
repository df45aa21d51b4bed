"""The corpus format: what lies where, what is held out, what the digest tells apart."""

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.concepts import (
    BrokenCorpus,
    Manifest,
    ManifestConcept,
    UnknownConcept,
    load_corpus,
    read_manifest,
    scenes_of,
    write_manifest,
)
from understudy.lessons import ChatMessage

FILES = {
    "stories/calm.txt": "The lake lay flat.",
    "stories/furious/kitchen.txt": "The plate broke.",
    "stories/furious/street.txt": "He kicked the bin.",
    "direct/calm.txt": "To be at rest.",
    "direct/furious/long.txt": "To burn and shout.",
    "paired/train/calm.txt": "She sat and looked out.",
    "paired/train/furious.txt": "She sat and shook.",
    "paired/train/baseline.txt": "She sat.",
    "paired/answer/calm.txt": "All is well.",
}
CONTEXT = '[{"role": "user", "content": "Is all well?"}]'


def write(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus", {**FILES, "paired/answer/context.json": CONTEXT})


def test_every_place_has_its_kind_concept_and_scene(folder: Path) -> None:
    found = {text.path: (text.kind, text.concept, text.scene) for text in load_corpus(folder).texts}
    assert found == {
        "stories/calm.txt": ("story", "calm", "stories/calm"),
        "stories/furious/kitchen.txt": ("story", "furious", "kitchen"),
        "stories/furious/street.txt": ("story", "furious", "street"),
        "direct/calm.txt": ("direct", "calm", "direct"),
        "direct/furious/long.txt": ("direct", "furious", "direct"),
        "paired/train/calm.txt": ("framing", "calm", "train"),
        "paired/train/furious.txt": ("framing", "furious", "train"),
        "paired/train/baseline.txt": ("baseline", None, "train"),
        "paired/answer/calm.txt": ("framing", "calm", "answer"),
    }


def test_positives_negatives_and_pairs_of_a_split(folder: Path) -> None:
    held_out = ("paired/train/calm.txt", "paired/train/baseline.txt", "stories/furious/street.txt")
    write_manifest(folder, Manifest(held_out=held_out))
    corpus = load_corpus(folder)
    assert corpus.concepts == ("calm", "furious")
    assert {text.path for text in corpus.positives("calm", "train")} == {
        "stories/calm.txt",
        "direct/calm.txt",
        "paired/answer/calm.txt",
    }
    assert {text.path for text in corpus.negatives("calm", "held_out")} == {
        "paired/train/baseline.txt",
        "stories/furious/street.txt",
    }
    assert [(one.path, other.path) for one, other in corpus.pairs("calm", "held_out")] == [held_out[:2]]
    assert corpus.pairs("furious", "train") == ()  # the baseline of its scene is held out
    scenes = scenes_of(corpus.of("held_out"))
    assert {scene: len(texts) for scene, texts in scenes.items()} == {"train": 2, "street": 1}


def test_texts_of_a_scene_share_what_they_answer_and_no_others_have_it(folder: Path) -> None:
    contexts = {text.path: text.context for text in load_corpus(folder).texts if text.context}
    assert contexts == {"paired/answer/calm.txt": (ChatMessage("user", "Is all well?"),)}


def test_empty_files_are_warned_of_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, {"stories/furious/empty.txt": " \n\n"})
    write_manifest(folder, Manifest(held_out=("stories/furious/empty.txt",)))
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus(folder)
    assert corpus.empty == ("stories/furious/empty.txt",)
    assert {text.path for text in corpus.texts} == set(FILES)
    assert "stories/furious/empty.txt holds no text" in caplog.text


def test_what_is_no_place_of_a_corpus_is_passed_over(folder: Path) -> None:
    others = (
        "notes.txt",
        "stories/calm/deep/er.txt",
        "other/calm.txt",
        "stories/._calm.txt",
        "paired/.x/calm.txt",
    )
    write(folder, dict.fromkeys(others, "Not a text of the corpus."))
    (folder / "stories" / "._furious.txt").write_bytes(b"\x00\xff\xfe")  # as one operating system leaves them
    assert {text.path for text in load_corpus(folder).texts} == set(FILES)


def test_the_mark_that_some_editors_begin_with_is_no_text(folder: Path) -> None:
    (folder / "stories" / "calm.txt").write_bytes(b"\xef\xbb\xbfThe lake lay flat.\r\n")
    assert load_corpus(folder).positives("calm", "train")[-1].text == "The lake lay flat."


def test_words_are_the_manifests_or_else_the_name(folder: Path) -> None:
    write(folder, {"stories/at_ease.txt": "Feet up."})
    write_manifest(folder, Manifest(concepts={"calm": ManifestConcept(("calm", "serene"), "rest")}))
    corpus = load_corpus(folder)
    assert corpus.words("calm") == ("calm", "serene")
    assert corpus.words("at_ease") == ("at ease",)


def test_a_manifest_reads_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest(
        1, {"calm": ManifestConcept(("calm",))}, ("stories/calm.txt",), ("awe",), {"awe": "a book"}
    )
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path / "nowhere") == Manifest()


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (b"{", "truncated"),
        (b'{"targets": ["\xff"]}', "utf-8"),
        (b'{"version": 2}', "version"),
        (b'{"held": []}', "held"),
        (b'{"concepts": {"calm": {"words": [""]}}}', "length >= 1"),
        (b'{"held_out": ["stories/calm.txt", "stories/joy.txt"]}', "found no stories/joy.txt"),
        (b'{"held_out": ["x", "y", "z"]}', "found no x and 2 others"),
    ],
)
def test_a_manifest_that_is_none_is_an_error_that_says_why(
    folder: Path, manifest: bytes, expected: str
) -> None:
    (folder / "manifest.json").write_bytes(manifest)
    with pytest.raises(BrokenCorpus, match=r"manifest\.json") as caught:
        load_corpus(folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "context", [b"{}", b'[{"role": "king", "content": "x"}]', b'[{"role": "user", "content": "\xff"}]', b"["]
)
def test_a_context_that_is_none_is_an_error_that_names_it(folder: Path, context: bytes) -> None:
    (folder / "paired" / "answer" / "context.json").write_bytes(context)
    with pytest.raises(BrokenCorpus, match=r"answer/context\.json: expected a list of messages"):
        load_corpus(folder)


def test_folders_without_texts_are_no_corpora(tmp_path: Path) -> None:
    with pytest.raises(BrokenCorpus, match="found none"):
        load_corpus(tmp_path / "nowhere")
    with pytest.raises(BrokenCorpus, match="expected texts in"):
        load_corpus(write(tmp_path, {"stories/calm.txt": "  ", "README.md": "x"}))


def test_a_text_that_is_not_unicode_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "stories" / "calm.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BrokenCorpus, match=r"UTF-8 in .*stories/calm\.txt"):
        load_corpus(folder)


def test_an_unknown_concept_is_named_with_those_there_are(folder: Path) -> None:
    corpus = load_corpus(folder)
    for ask in (corpus.positives, corpus.negatives, corpus.pairs):
        with pytest.raises(UnknownConcept, match=r"calm, furious.*'joy'"):
            ask("joy", "train")


# The digest

CHANGES: dict[str, Callable[[Path], object]] = {
    "a text": lambda folder: write(folder, {"stories/calm.txt": "The lake lay still."}),
    "a new text": lambda folder: write(folder, {"stories/joy.txt": "She ran."}),
    "a text gone": lambda folder: (folder / "stories/calm.txt").unlink(),
    "a text moved": lambda folder: (folder / "stories/calm.txt").rename(folder / "stories/joy.txt"),
    "a split": lambda folder: write_manifest(folder, Manifest(held_out=("stories/calm.txt",))),
    "a word": lambda folder: write_manifest(
        folder, Manifest(concepts={"calm": ManifestConcept(("calm", "rest"))})
    ),
    "a context": lambda folder: write(folder, {"paired/train/context.json": CONTEXT}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_changes_with(folder: Path, what: str) -> None:
    before = load_corpus(folder).digest
    CHANGES[what](folder)
    assert load_corpus(folder).digest != before


def test_the_digest_does_not_change_with_where_or_in_which_order_files_were_made(
    folder: Path, tmp_path: Path
) -> None:
    before = load_corpus(folder)
    again = {**dict(reversed(FILES.items())), "paired/answer/context.json": CONTEXT}
    after = load_corpus(write(tmp_path / "elsewhere", again))
    assert after.digest == before.digest and after.texts == before.texts
    write_manifest(folder, Manifest(sources={"calm": "a book"}))  # no text, split or word of it
    assert load_corpus(folder).digest == before.digest


NAMES = st.from_regex(r"\A[a-z][a-z0-9_-]{0,8}\Z").filter(lambda name: name != "baseline")
BODIES = st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.tuples(NAMES, NAMES), BODIES, min_size=1, max_size=6),
    st.dictionaries(st.tuples(NAMES, NAMES), BODIES, max_size=6),
    st.data(),
)
def test_what_is_written_is_read(
    stories: dict[tuple[str, str], str], framings: dict[tuple[str, str], str], data: st.DataObject
) -> None:
    files = {f"stories/{concept}/{scene}.txt": text for (concept, scene), text in stories.items()}
    files |= {f"paired/{scene}/{concept}.txt": text for (concept, scene), text in framings.items()}
    held_out = data.draw(st.sets(st.sampled_from(sorted(files))))
    with TemporaryDirectory() as place:
        folder = Path(place)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text.encode())
        write_manifest(folder, Manifest(held_out=tuple(held_out)))
        corpus = load_corpus(folder)
        assert {text.path: text.text for text in corpus.texts} == {
            path: text.strip() for path, text in files.items()
        }
        assert {text.path for text in corpus.of("held_out")} == held_out
        for concept in corpus.concepts:
            own, others = corpus.positives(concept, "train"), corpus.negatives(concept, "train")
            assert set(own) | set(others) == set(corpus.of("train")) and not set(own) & set(others)

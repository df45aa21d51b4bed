"""A collected corpus on disk: what is held out, and a folder that is whole or not there."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_data import lesson, warm

from understudy.concepts import (
    CannotCollect,
    TextPair,
    load_corpus,
    near_duplicates,
    pair_lessons,
    pair_scored,
    preflight,
    publishing,
    write_corpus,
)

PLACE = re.compile(
    r"(paired/[0-9a-f]{12}/([a-z][a-z0-9_-]*\.txt|context\.json)|stories/[a-z][a-z0-9_-]*/[0-9a-f]{12}\.txt)"
)


# The corpus


def pairs_of(count: int) -> tuple[TextPair, ...]:
    rejected = [f"Try {' '.join(f'r{n}x{k}' for k in range(9))}." for n in range(count)]
    return pair_lessons([lesson(n, rejected[n]) for n in range(count)], "listening").pairs


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_corpus_reads_as_it_was_collected(tmp_path: Path) -> None:
    pairs = pairs_of(10)
    corpus = write_corpus(tmp_path / "new" / "corpus", pairs, hold_out=0.3)
    assert corpus == load_corpus(tmp_path / "new" / "corpus") and corpus.concepts == ("listening",)
    found = {
        (one.text, other.text, one.context)
        for split in ("train", "held_out")
        for one, other in corpus.pairs("listening", split)
    }
    assert found == {(pair.positive, pair.negative, pair.context) for pair in pairs}
    assert len(corpus.pairs("listening", "held_out")) == 3
    assert corpus.manifest.sources[pairs[0].paths[0]] == f"lesson {pairs[0].scene}"
    assert preflight(corpus) == ()
    everything = {file.relative_to(corpus.folder).as_posix() for file in corpus.folder.rglob("*.*")}
    assert all(PLACE.fullmatch(path) for path in everything - {"manifest.json"})
    assert names(tmp_path / "new") == ["corpus"]  # nothing was left beside it


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(1, 0.3, 0), (2, 0.3, 1), (2, 0.9, 1), (10, 0.5, 5), (10, 0.0, 0), (10, 0.01, 1)],
)
def test_the_share_that_is_held_out(tmp_path: Path, count: int, share: float, held_out: int) -> None:
    corpus = write_corpus(tmp_path / "corpus", pairs_of(count), hold_out=share)
    assert len(corpus.pairs("listening", "held_out")) == held_out


def test_whole_scenes_are_held_out_whichever_order_the_pairs_come_in(tmp_path: Path) -> None:
    pairs = pairs_of(12)
    one = write_corpus(tmp_path / "one", pairs)
    other = write_corpus(tmp_path / "other", reversed(pairs))
    assert one.digest == other.digest
    held_out = {text.scene for text in one.of("held_out")}
    assert held_out and not held_out & {text.scene for text in one.of("train")}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9)), min_size=2, max_size=14
    ),
    st.floats(0.01, 0.99),
)
def test_nothing_of_one_split_is_almost_the_same_as_of_the_other(
    rows: list[tuple[str, int, int]], share: float
) -> None:
    messages = []
    for answers, body, score in rows:
        text = " ".join(f"w{body}x{k}" for k in range(8)) + f" {score}"
        messages.append(warm(text, float(score), answers, answers))
    found = pair_scored(messages, high=6, low=5)
    if not found.pairs:
        return
    with TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", found.pairs, hold_out=share)
    assert all(pair.first.split == pair.second.split for pair in near_duplicates(corpus.texts))
    splits = {(text.context, text.split) for text in corpus.texts if text.context}
    assert len(splits) == len({context for context, _ in splits})
    assert corpus.of("train")


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_corpus(tmp_path / "empty", pairs_of(2)).concepts == ("listening",)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for taken in ("empty", "mine", "file"):
        with pytest.raises(CannotCollect, match="nothing was changed"):
            write_corpus(tmp_path / taken, pairs_of(2))
    assert names(tmp_path) == ["empty", "file", "mine"] and names(tmp_path / "mine") == ["letter.txt"]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(CannotCollect, match="hold out"):
        write_corpus(tmp_path / "corpus", pairs_of(2), hold_out=share)
    with pytest.raises(CannotCollect, match="nothing was written"):
        write_corpus(tmp_path / "corpus", ())
    assert names(tmp_path) == []


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("verb", ["_write_pair", "_sync", "write_manifest"])
def test_what_ends_early_leaves_no_half_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, verb: str
) -> None:
    real, calls = getattr(publishing, verb), []

    def failing(*words: object) -> None:
        calls.append(words)
        if len(calls) == (1 if verb == "write_manifest" else 3):
            raise fault
        real(*words)

    monkeypatch.setattr(publishing, verb, failing)
    with pytest.raises((CannotCollect, KeyboardInterrupt)):
        write_corpus(tmp_path / "corpus", pairs_of(4))
    assert names(tmp_path) == []


def test_a_folder_that_is_filled_meanwhile_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(folder: Path, manifest: object) -> None:
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / "letter.txt").write_text("dear")

    monkeypatch.setattr(publishing, "write_manifest", meanwhile)
    with pytest.raises(CannotCollect):
        write_corpus(tmp_path / "corpus", pairs_of(4))
    assert names(tmp_path / "corpus") == ["letter.txt"] and names(tmp_path) == ["corpus"]


def test_a_killed_process_leaves_no_corpus_and_is_in_nobodys_way(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from understudy.concepts import TextPair, publishing
publishing.write_manifest = lambda folder, manifest: os.kill(os.getpid(), signal.SIGKILL)
pair = TextPair("warmth", "Yes.", "No.", "0" * 12, ("", ""))
publishing.write_corpus(Path({str(tmp_path)!r}) / "corpus", [pair])
"""
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".corpus.") and left.endswith(".partial")
    assert write_corpus(tmp_path / "corpus", pairs_of(4)) == load_corpus(tmp_path / "corpus")

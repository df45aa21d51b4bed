"""Two texts compared word by word: nothing is lost, and nothing takes long."""

import time
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from understudy.conversation import Piece, compare_words

_words = st.lists(
    st.sampled_from(["a", "b", "the", "cup", " ", " ", "\n", "\n\n", ",", "茶", "\udc80"]), max_size=25
)
_texts = st.one_of(st.text(), _words.map("".join))


@given(_texts, _texts)
@example("", "")
@example("a b c", "x y z")
@example("one\r\ntwo", "one\ntwo\0")
def test_both_texts_are_there_whole(old: str, new: str) -> None:
    pieces = compare_words(old, new)
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == old
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == new
    assert all(piece.text for piece in pieces)
    kinds = [piece.kind for piece in pieces]
    assert all(one != following for one, following in pairwise(kinds))
    assert ("new", "gone") not in pairwise(kinds)


@given(_texts)
def test_a_text_is_the_same_as_itself(text: str) -> None:
    assert compare_words(text, text) == ((Piece("same", text),) if text else ())


def test_words_beside_each_other_are_one_piece() -> None:
    assert compare_words("Take a cup of coffee, please.", "Take two mugs of tea, please!") == (
        Piece("same", "Take "),
        Piece("gone", "a cup"),
        Piece("new", "two mugs"),
        Piece("same", " of "),
        Piece("gone", "coffee"),
        Piece("new", "tea"),
        Piece("same", ", please"),
        Piece("gone", "."),
        Piece("new", "!"),
    )


def test_lines_stay_apart() -> None:
    assert compare_words("one\ntwo\n", "1\n2\n") == (
        Piece("gone", "one"),
        Piece("new", "1"),
        Piece("same", "\n"),
        Piece("gone", "two"),
        Piece("new", "2"),
        Piece("same", "\n"),
    )


def test_scripts_without_blanks_are_compared_by_character() -> None:
    assert compare_words("我喜欢茶。", "我喜欢咖啡。") == (
        Piece("same", "我喜欢"),
        Piece("gone", "茶"),
        Piece("new", "咖啡"),
        Piece("same", "。"),
    )


def test_long_texts_that_share_only_blanks_take_no_time() -> None:
    """For which Python's own comparison takes minutes."""
    old, new = (" ".join(f"{side}{number}" for number in range(20_000)) for side in "ab")
    begin = time.perf_counter()
    assert compare_words(old, new) == (Piece("gone", old), Piece("new", new))
    assert time.perf_counter() - begin < 5

"""What a person types into a search box, made into what SQLite's full-text search takes."""

import re
from dataclasses import dataclass

from understudy.conversation.errors import InvalidQuery

MATCH_START = "\x02"
MATCH_END = "\x03"
"""Stand around what matched in a snippet; no body holds them (`plain` takes them out)."""

SNIPPET_WORDS = 16

_PART = re.compile(r'(-?)(?:"([^"]*)"|([^\s"]+))')
UNCUT = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts written without blanks between words, as a regular expression's ranges: the word index cannot cut
them, so what is in them is found as substrings.
"""
_UNCUT = re.compile(f"[{UNCUT}]")
_UNSTORABLE = re.compile("[\0\x02\x03\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression for FTS5 (empty for none), and texts that must, or must not, stand in a body."""

    expression: str
    within: tuple[str, ...]
    without: tuple[str, ...]


def read_query(text: str) -> Query:
    """Words that must all be there, "phrases", `begin*`, and `-not`. Case and accents make no difference.

    `InvalidQuery` if there is nothing to look for.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    within: list[str] = []
    without: list[str] = []
    for minus, phrase, word in _PART.findall(plain(text)):
        term, prefix = phrase or word.rstrip("*"), not phrase and word.endswith("*")
        if not any(character.isalnum() for character in term):
            continue
        if _UNCUT.search(term):
            (without if minus else within).append(term)
        else:
            (unwanted if minus else wanted).append('"' + term.replace('"', '""') + '"' + "*" * prefix)
    if not wanted and not within:
        raise InvalidQuery(f"a search needs a word to look for; got {text!r}")
    if not wanted and unwanted:
        raise InvalidQuery(f"'-word' narrows a search for another word of the same script; got {text!r}")
    expression = " AND ".join(wanted)
    if unwanted:
        expression = f"({expression}) NOT ({' OR '.join(unwanted)})"
    return Query(expression, tuple(within), tuple(without))


def plain(text: str) -> str:
    """The text as SQLite can hold it: what is not UTF-8, and our marks, become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def excerpt(body: str, term: str, most: int = 160) -> str:
    """A part of the body around the first place where the term stands, marked."""
    place = body.lower().find(term.lower())
    if place < 0:
        return body[:most]
    start = max(0, place - most // 2)
    end = place + len(term)
    return (
        f"{'…' if start else ''}{body[start:place]}{MATCH_START}{body[place:end]}{MATCH_END}"
        f"{body[end : start + most]}{'…' if start + most < len(body) else ''}"
    )

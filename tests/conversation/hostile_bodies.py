"""Bodies made to be slow to render, in any length: what is repeated, and what stands before it once."""

_PARTS = (
    *("[", "![", "[*", "[a](", "[a](<", '[a](b "', "[\n", "[a\n\n", "[a]: b\n\n", "[`*<&\\"),
    *("*", "**a ", "a**b ", "*_~~", "~~a", "`a ", "<", "<a@b.c> ", "&amp;", "\\", "#", "word ", "x"),
    *("> ", "- ", "1. ", "> - ", "- ```\n", "- a\n\n", "1. a\n2) b\n", "- [ ] a\n", "    a\n\n"),
    *("a\n=\n", "---\n", "```\n", "\n", "a  \n"),
)
_REPEATED = {
    **{f"repeated {part!r}": ("", part) for part in _PARTS},
    "lazy lines in deep quotes": ("> " * 35, "a\n"),
    "lazy lines in deep lists": ("- " * 18, "a\n"),
    "quotes too deep": ("> " * 300 + "deep\n\n", "a\n"),
    "rows of a table": ("a|b\n-|-\n", "a|b\n"),
    "rows that lack cells": ("|" * 200 + "\n" + "|-" * 199 + "|\n", "a\n"),
    "many tables": ("", "a|b\n-|-\nc|d\n\n"),
    "lines of a fence": ("```python\n", "\n "),
    "many fences": ("", "```python\nx = 1\n```\n\n"),
    "fences in no language": ("", "```zz\nx\n```\n\n"),
}
_HALVES = {
    "nested brackets": ("[", "]"),
    "nested links": ("[a", "](u)"),
    "nested images": ("![a", "](u)"),
    "nested emphasis": ("*a ", " b*"),
    "nested strong emphasis": ("**a ", " b**"),
    "brackets in a target": ("[a](" + "(", ")"),
}

KINDS = (*_REPEATED, *_HALVES)


def hostile(kind: str, characters: int) -> str:
    """A body of this kind, about so long."""
    if kind in _REPEATED:
        before, part = _REPEATED[kind]
        return before + part * ((characters - len(before)) // len(part))
    left, right = _HALVES[kind]
    times = characters // (len(left) + len(right))
    return left * times + right * times

"""Code in colours: Pygments' tokens as CSS classes, and the rules for these.

Pygments' lexers are regular expressions, many of which take time quadratic in a text made for it, and some so
much for one token that nothing can stop them. So only languages that were tried are coloured (100 kB each of
thirty such texts: no token takes 0.5 s), long lines and texts are not, and colouring stops when its time is
spent. Nothing but colour is ever lost by that.
"""

from collections.abc import Callable, Iterator
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.style import Style
    from pygments.token import _TokenType

MOST_CHARACTERS = 100_000
"""Of one piece of code; longer ones stay plain."""

MOST_IN_LINE = 1_000
"""Some lexers look through the rest of the line at each of its characters, and again from each."""

LANGUAGES = frozenset(
    [
        *("Ada", "Awk", "Bash", "Bash Session", "Batchfile", "C", "C#", "C++", "Clojure", "CMake", "COBOL"),
        *("Common Lisp", "CSS", "CUDA", "D", "Dart", "Delphi", "Diff", "Django/Jinja", "Docker", "Elixir"),
        *("Elm", "Erlang", "F#", "Fish", "Fortran", "GAS", "Gherkin", "GLSL", "Go", "GraphQL", "Groovy"),
        *("Haskell", "HTML", "HTTP", "INI", "Java", "JavaScript", "JSON", "JSX", "Julia", "Kotlin"),
        *("LessCss", "LLVM", "Lua", "Makefile", "Markdown", "NASM", "Nginx configuration file", "Nimrod"),
        *("Nix", "Objective-C", "OCaml", "Octave", "Perl", "PHP", "PostgreSQL SQL dialect", "PowerShell"),
        *("Prolog", "Properties", "Protocol Buffer", "Python", "Python console session"),
        *("Python Traceback", "Racket", "reStructuredText", "Ruby", "Rust", "S", "Scala", "Scheme", "SCSS"),
        *("Solidity", "SQL", "Swift", "systemverilog", "Tcl", "Terraform", "TeX", "TOML", "TSX"),
        *("TypeScript", "Typst", "verilog", "vhdl", "VimL", "Vue", "WebGPU Shading Language", "XML"),
        *("YAML", "Zig"),
    ]
)
"""Those that are coloured, by Pygments' names for them."""

_LIGHT, _DARK = "xcode", "github-dark"
"""Pygments' styles of the highest contrast that have colours for most tokens: 4.4 : 1 and more."""

_PLAIN = (None, "000000", "e6edf3")
"""What these styles have for text that is nothing in particular: it is the page's colour."""


class _Late(Exception):
    pass


def highlighted(code: str, language: str, late: Callable[[], bool]) -> str | None:
    """The code as HTML with a class for each token; None where it is to stay plain.

    `late` says when the time is spent.
    """
    if (
        not language
        or len(code) > MOST_CHARACTERS
        or any(len(line) > MOST_IN_LINE for line in code.split("\n"))
    ):
        return None
    from pygments.formatters import HtmlFormatter  # here, so that starting a program does not pay for it
    from pygments.lexers import find_lexer_class

    kind = find_lexer_class(_names().get(language.lower(), ""))
    if kind is None or late():
        return None
    page = StringIO()

    def tokens() -> Iterator[tuple["_TokenType", str]]:
        for token in kind(stripnl=False).get_tokens(code):
            if late():
                raise _Late
            yield token

    try:
        HtmlFormatter(nowrap=True).format(tokens(), page)
    except _Late:
        return None
    return page.getvalue()


@cache
def _names() -> dict[str, str]:
    """What may stand behind a fence's marks, each with the language's name."""
    from pygments.lexers import get_all_lexers

    known = ((name, aliases) for name, aliases, _, _ in get_all_lexers(plugins=False) if name in LANGUAGES)
    return {alias: name for name, aliases in known for alias in aliases}


def classes() -> frozenset[str]:
    """Every class that a token can have."""
    from pygments.token import STANDARD_TYPES

    return frozenset(STANDARD_TYPES.values()) - {""}


def highlight_css() -> str:
    """The rules for these classes inside `pre code`: dark where the reader's system or `data-theme` says so.

    `data-theme` on the root element ("light" or "dark") counts before the system.
    """
    from pygments.styles import get_style_by_name

    light, dark = _rules(get_style_by_name(_LIGHT)), _rules(get_style_by_name(_DARK))
    return (
        _under("", light)
        + f"@media (prefers-color-scheme: dark) {{\n{_under(':root:not([data-theme=light]) ', dark)}}}\n"
        + _under("[data-theme=dark] ", dark)
    )


def _rules(style: "type[Style]") -> dict[str, list[str]]:
    """Declarations, each with the classes that it is for. Every class has one, so that no style shows
    through another.
    """
    from pygments.token import STANDARD_TYPES

    found: dict[str, list[str]] = {}
    for token, name in STANDARD_TYPES.items():
        if name:
            looks = style.style_for_token(token)
            colour = "inherit" if looks["color"] in _PLAIN else f"#{looks['color']}"
            weight = "bold" if looks["bold"] else "normal"
            slant = "italic" if looks["italic"] else "normal"
            rule = f"color: {colour}; font-weight: {weight}; font-style: {slant}"
            found.setdefault(rule, []).append(f".{name}")
    return found


def _under(where: str, rules: dict[str, list[str]]) -> str:
    return "".join(f"{where}pre code :is({', '.join(names)}) {{ {rule} }}\n" for rule, names in rules.items())

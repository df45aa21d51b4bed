"""The faults of the older system that the format comes from, kept small and faithful, to test the tests.

It had a browser page that read the file, rewrote its lines by regular expressions, and saved the whole.
"""

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

LINE = re.compile(r"^( *)- @(\w+) \[([^\]]+)\]: ?(.*)$")
"""A message: names of `\\w` only, so one with a hyphen is none."""


@dataclass(frozen=True)
class OldMessage:
    depth: int
    author: str
    body: str


class OldConversation:
    """The page's model of the file. Each verb says that it succeeded, whatever it did."""

    def __init__(self, text: str) -> None:
        self.text = text

    def messages(self) -> list[OldMessage]:
        found: list[OldMessage] = []
        for line in self.text.split("\n"):
            if match := LINE.match(line):
                found.append(OldMessage(len(match[1]) // 2, match[2], match[4]))
            elif found and line.strip() and not line.startswith("###"):
                last = found.pop()
                found.append(OldMessage(last.depth, last.author, f"{last.body}\n{line.strip()}"))
        return found

    def post(self, thread: str, author: str, body: str, created: str) -> bool:
        lines = self.text.split("\n")
        for at, line in enumerate(lines):
            if line.startswith("###") and thread in line:  # a part of the title is enough
                end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith("###")), len(lines))
                indented = body.replace("\n", "\n  ")  # nothing is escaped
                lines[end:end] = [*f"- @{author} [{created}]: {indented}".split("\n"), ""]
                break
        self.text = "\n".join(lines)
        return True

    def edit(self, author: str, body: str) -> bool:
        lines = self.text.split("\n")
        for at, line in enumerate(lines):
            match = LINE.match(line)
            if match and match[2] == author:
                paragraphs = [part.strip() for part in body.split("\n") if part.strip()]
                written = f"\n{match[1]}  ".join(paragraphs)
                lines[at : self._end(lines, at)] = f"{match[1]}- @{author} [{match[3]}]: {written}".split(
                    "\n"
                )
                break
        self.text = "\n".join(lines)
        return True

    def delete(self, author: str) -> bool:
        self._take(author)
        return True

    def move(self, author: str, thread: str) -> bool:
        taken = self._take(author)
        lines = self.text.split("\n")
        for at, line in enumerate(lines):
            if line.startswith("###") and thread in line:
                lines[at + 1 : at + 1] = ["", *taken]
                break
        self.text = "\n".join(lines)
        return True

    def saved(self) -> bytes:
        """What the page sends: `btoa` knows only Latin-1, so each byte of UTF-8 becomes a character."""
        sent = base64.b64encode(self.text.encode().decode("latin-1").encode("utf-8"))
        return base64.b64decode(sent)

    def _take(self, author: str) -> list[str]:
        lines = self.text.split("\n")
        for at, line in enumerate(lines):
            match = LINE.match(line)
            if match and match[2] == author:
                end = self._end(lines, at)
                taken = lines[at:end]
                del lines[at:end]
                self.text = "\n".join(lines)
                return taken
        return []

    def _end(self, lines: list[str], at: int) -> int:
        """A message ends at the next blank line."""
        stop = (n for n in range(at + 1, len(lines)) if not lines[n].strip() or LINE.match(lines[n]))
        return next(stop, len(lines))


class OldServer:
    """Keeps the file for the pages: whoever saves last wins, and whoever asks may save."""

    def __init__(self, file: Path, readers: Barrier | None = None) -> None:
        self.file = file
        self.readers = readers

    def say(self, author: str, body: str) -> bool:
        """What a page does: read the file, add to it, save the whole."""
        talk = OldConversation(self.file.read_text())
        if self.readers is not None:
            self.readers.wait()  # all pages have the file open
        talk.post("Tea", author, body, "2026-01-01T00:00:00Z")
        return self.save(talk.text)

    def save(self, text: str) -> bool:
        aside = self.file.with_name(f"{id(text)}.tmp")
        aside.write_text(text)
        aside.replace(self.file)
        return True


class OldPage:
    """The browser, which hides the button from who has no right, and is all that does."""

    def __init__(self, server: OldServer, rights: dict[str, set[str]]) -> None:
        self.server = server
        self.rights = rights

    def button_shown(self, author: str) -> bool:
        return "post" in self.rights[author]

"""The code blocks of the pages, and the commands in them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(sorted(ROOT.glob("docs/**/*.md")))
WITH_README = (*PAGES, ROOT / "README.md")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


SHELL, PYTHON = ("sh", "bash"), ("python",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    page: Path
    language: str
    line: int
    """Of the first line within the fence."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] in languages:
                found.append(Block(page=page, language=match[1], line=text.count("\n", 0, match.start(2)) + 1, text=match[2]))
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as words; comments, ``&`` at the end and settings of variables before it are gone."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&;|"):
                found, words = [*found, words], []
            elif words or not re.match(r"[A-Z_a-z]+=", word):
                words.append(word)
    return [words for words in found if words]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What a reader does at once: a line of a shell block with the lines that continue it, or a whole block of Python."""

    place: str
    language: str
    text: str
    """As it stands on the page."""

    @property
    def name(self) -> str:
        """A shell line without its comment and without ``&`` at its end; the first line of Python."""
        if self.language in PYTHON:
            return self.text.partition("\n")[0]
        return re.sub(r"(^|\s+)(&\s*)?(#.*)?$", "", re.sub(r"\s*\\\n\s*", " ", self.text.strip()))


def pieces(page: Path) -> list[Piece]:
    """Everything on the page that can be executed, in its order."""
    found = []
    for block in blocks(*SHELL, *PYTHON, pages=(page,)):
        texts = [block.text] if block.language in PYTHON else re.findall(r"(?:.*\\\n)*.+\n", block.text)
        found += [Piece(place=block.place, language=block.language, text=text) for text in texts]
    return [piece for piece in found if piece.name]

"""Seeds of the fuzz targets: one file for each, one seed a line, written as Python would (``\\x00``, ``\\n``) so that they read
in a diff. A line that begins with ``#`` says something about the next one. Whatever input once broke something stays here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def corpus(target: str) -> list[bytes]:
    """The seeds of one target."""
    lines = (FOLDER / f"{target}.txt").read_text("ascii").splitlines()
    return [unescaped(line) for line in lines if line and not line.startswith("#")]


def unescaped(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def escaped(seed: bytes) -> str:
    """A seed as a line: for those who put a new one there."""
    text = seed.decode("latin-1").encode("unicode_escape").decode("ascii")
    return "\\x23" + text[1:] if text.startswith("#") else text

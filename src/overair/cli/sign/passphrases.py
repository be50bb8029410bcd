"""Where passphrases and PINs come from: a file that is named, or a prompt. Never an argument, which every process could
read."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from overair.basics.redacted import Redacted
from overair.cli.sign.ends import usage
from overair.cli.sign.sealed_box import check_new_passphrase
from overair.cli.sign.tree import read_file

PASSPHRASE_VARIABLE: Final = "OVERAIR_SIGN_PASSPHRASE_FILE"  # noqa: S105 (a name, no passphrase)
PIN_VARIABLE: Final = "OVERAIR_SIGN_PIN_FILE"
SIZE_BYTES_MAX: Final = 1024

Prompt = Callable[[str], str]


def _prompt(question: str) -> str:
    if not sys.stdin.isatty():
        raise usage(f"{question}: there is no terminal to ask. Name a file with --passphrase-file or {PASSPHRASE_VARIABLE}.")
    return getpass.getpass(f"{question}: ")


class Secrets:
    """Asked at most once for each thing in one command."""

    def __init__(self, *, passphrase_file: Path | None = None, pin_file: Path | None = None, prompt: Prompt = _prompt) -> None:
        self._passphrase_file = passphrase_file or _named(PASSPHRASE_VARIABLE)
        self._pin_file = pin_file or _named(PIN_VARIABLE)
        self._prompt = prompt
        self._asked: dict[str, Redacted[str]] = {}

    def passphrase(self, what: str) -> Redacted[str]:
        """The passphrase that opens ``what``."""
        if self._passphrase_file is not None:
            return _line(self._passphrase_file)
        return self._once(f"Passphrase of {what}")

    def new_passphrase(self, what: str) -> Redacted[str]:
        """The passphrase that shall open ``what`` from now on; from a prompt twice.

        Raises:
            SignEnded: USAGE: too short, or two that differ.
        """
        if self._passphrase_file is not None:
            found = _line(self._passphrase_file)
        else:
            found = self._once(f"New passphrase of {what}")
            if self._prompt("Once more") != found.reveal():
                raise usage("The two differ; nothing was made.")
        check_new_passphrase(found)
        return found

    def pin(self, what: str) -> Redacted[str]:
        """The PIN of a token."""
        return _line(self._pin_file) if self._pin_file is not None else self._once(what)

    def _once(self, question: str) -> Redacted[str]:
        if question not in self._asked:
            self._asked[question] = Redacted(self._prompt(question))
        return self._asked[question]


def _named(variable: str) -> Path | None:
    found = os.environ.get(variable)
    return Path(found) if found else None


def _line(path: Path) -> Redacted[str]:
    try:
        text = read_file(path, SIZE_BYTES_MAX).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise usage(f"{path} isn't UTF-8.") from None
    if not text:
        raise usage(f"{path} is empty.")
    return Redacted(text)

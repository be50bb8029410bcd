"""How a command ends: six codes, one line on standard error."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What every command's exit status means."""

    DONE = 0
    USAGE = 1
    REFUSED = 2
    DEVICES_FAILED = 3
    TIMED_OUT = 4
    UNREACHABLE = 5


class CommandEnded(Exception):
    """Ends the command with a code and, unless it is empty, a line for the reader."""

    def __init__(self, code: enum.IntEnum, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message

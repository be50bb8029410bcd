"""One line for each step that the agent makes, in words: on standard output and, if asked, on a serial port.

For whoever stands beside a device with a terminal; the log has more, and is for those who look for a fault.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from overair.agent.progress import Progress
from overair.agent.settings import JSON_VARIABLE
from overair.wire.agent_reasons import reason_in_words

LOG = logging.getLogger("overair.agent")

STEPS_OF_A_DOWNLOAD: Final = 10
"""A download is told in tenths."""
_STATES: Final = {
    "requesting_job": "asks for work",
    "waiting_for_job": "waits for work",
    "creating_file": "makes room for a file",
    "requesting_file_block": "receives a file",
    "waiting_for_file_block": "receives a file",
    "suspended": "is suspended",
    "stopped": "has stopped",
}

Write = Callable[[str], None]


def in_words(progress: Progress) -> str:
    """One moment as a line: what runs, which job, what is done."""
    words = [f"version {progress.version}"]
    if progress.job is not None:
        words.append(f"job {progress.job}")
    if progress.path is not None and progress.total_blocks:
        percent = 100 * progress.received_blocks // progress.total_blocks
        size = f"{progress.received_blocks}/{progress.total_blocks} blocks ({percent} %)"
        words.append(f"receives {progress.path[:80]!r}: {size}")
    else:
        words.append(_STATES.get(progress.state, progress.state))
    if progress.status is not None:
        words.append(f"told {progress.status}" + (f" ({reason_in_words(progress.reason)})" if progress.reason else ""))
    return "; ".join(words)


class StepLines:
    """Implements ``agent.progress.ProgressSink``: writes a line whenever it would read differently."""

    def __init__(self, *writers: Write) -> None:
        self._writers = writers
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        step = _coarse(progress)
        if step == self._last:
            return
        self._last = step
        for write in self._writers:
            write(in_words(progress))


def _coarse(progress: Progress) -> Progress:
    """What of a moment makes it another step."""
    tenths = STEPS_OF_A_DOWNLOAD * progress.received_blocks // progress.total_blocks if progress.total_blocks else 0
    state = "receiving" if "file_block" in progress.state else progress.state
    return replace(progress, state=state, received_blocks=tenths, resumed_blocks=0, last_job=None, last_received_blocks=0)


def write_to_stdout(line: str) -> None:
    """Plain, or as an object where the boot loader speaks JSON. A reader that went away stops nothing."""
    text = json.dumps({"step": line}) if os.environ.get(JSON_VARIABLE) == "json" else f"step: {line}"
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        LOG.debug("a step can't be written to standard output: %s", error)


class SerialPort:
    """A terminal line, opened without waiting for a carrier. What it can't take at once is lost: nothing waits for it."""

    def __init__(self, path: str, *, baud: int) -> None:
        self._path = path
        self._baud = baud
        self._descriptor: int | None = None
        self._failing = False

    def write(self, line: str) -> None:
        """One line, in the terminal's fashion."""
        plain = "".join(character if character.isprintable() else "?" for character in line)
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, plain.encode("utf-8", "replace") + b"\r\n")
            self._failing = False
        except (OSError, termios.error) as error:
            if not self._failing:
                LOG.warning("the serial port %s can't be written to: %s", self._path, error)
            self._failing = True
            self.close()

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        if os.isatty(descriptor):
            speed = getattr(termios, f"B{self._baud}", None)
            if speed is None:
                os.close(descriptor)
                raise OSError(f"no terminal runs at {self._baud} baud")
            attributes = termios.tcgetattr(descriptor)
            attributes[1] &= ~termios.OPOST
            attributes[2] |= termios.CLOCAL
            attributes[4] = attributes[5] = speed
            termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
        return descriptor

    def close(self) -> None:
        """Let it go; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

"""Programs of the integrator's that the agent runs on a gateway: what they are, and how they are run.

The member ``hooks`` of ``device.json``; each hook is a list of words, the first of which is the program. No shell reads it::

    {"version": ["cat", "/etc/image-version"],     required: writes MAJOR.MINOR.BUILD of what runs
     "install": ["rauc", "install"],               required: gets the verified file's path as its last argument
     "activate": [...],                            what was installed boots next, once
     "self_test": [...],                           asked after the restart: 0 keeps the new image
     "commit": [...],                              it was kept: it boots from now on
     "roll_back": [...],                           it wasn't: the one before boots next
     "reboot": ["systemctl", "reboot"],            left out: the agent's own restart is all that is needed
     "permit": [...],                              asked with "download" or "restart": 0 go on, 75 not now
     "job": [...],                                 does other jobs; the document comes on standard input
     "timeout_s": 600}                             for each of them
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, cast

LOG = logging.getLogger("overair.agent.hooks")

TIMEOUT_S: Final = 600
TIMEOUT_S_MAX: Final = 86_400
WORDS_MAX: Final = 64
WORD_LENGTH_MAX: Final = 4096
OUTPUT_LENGTH_MAX: Final = 2000
"""Of a hook's output, what is kept: its end."""
LINES_LOGGED_MAX: Final = 200
EXIT_STATUS_NOT_NOW: Final = 75
EXIT_STATUS_NOT_FOR_US: Final = 69
_READ_SIZE_BYTES: Final = 4096

Argv = tuple[str, ...]


class BadHooks(ValueError):
    """The member breaks a rule; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """The programs; an empty one isn't there."""

    version: Argv
    install: Argv
    activate: Argv = ()
    self_test: Argv = ()
    commit: Argv = ()
    roll_back: Argv = ()
    reboot: Argv = ()
    permit: Argv = ()
    job: Argv = ()
    timeout_s: int = TIMEOUT_S

    def to_json(self) -> dict[str, object]:
        """The member of ``device.json``."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in members.items() if value != ()}


def parse_hooks(value: object) -> HookSettings:
    """Read the member.

    Raises:
        BadHooks: it breaks a rule.
    """
    if not isinstance(value, dict):
        raise BadHooks("hooks must be an object.")
    members = cast("Mapping[str, object]", value)
    names = {field.name for field in fields(HookSettings)}
    unknown = sorted(members.keys() - names)
    if unknown:
        raise BadHooks(f"hooks has the unknown member {unknown[0][:60]!r}; it may have {', '.join(sorted(names))}.")
    for name in ("version", "install"):
        if name not in members:
            raise BadHooks(f"hooks needs {name!r}: a list of words, the program first.")
    timeout_s = members.get("timeout_s", TIMEOUT_S)
    if type(timeout_s) is not int or not 1 <= timeout_s <= TIMEOUT_S_MAX:
        raise BadHooks(f"hooks: timeout_s must be a whole number from 1 to {TIMEOUT_S_MAX}.")
    programs = {name: _argv(name, words) for name, words in members.items() if name != "timeout_s"}
    return HookSettings(timeout_s=timeout_s, **programs)


def _argv(name: str, value: object) -> Argv:
    if not isinstance(value, list) or not 1 <= len(value) <= WORDS_MAX:
        raise BadHooks(f"hooks: {name} must be a list of 1 to {WORDS_MAX} words, the program first.")
    for word in value:
        if not isinstance(word, str) or "\x00" in word or len(word) > WORD_LENGTH_MAX:
            raise BadHooks(f"hooks: each word of {name} must be text of at most {WORD_LENGTH_MAX} characters.")
    if not value[0]:
        raise BadHooks(f"hooks: {name} names no program.")
    return tuple(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEnded:
    """How a program ended."""

    status: int | None
    """Its exit status, negative for a signal; None: it couldn't be run, or didn't end in time."""
    output: str
    """The end of what it wrote, or why it couldn't be run."""

    @property
    def done(self) -> bool:
        return self.status == 0

    @property
    def last_line(self) -> str:
        lines = self.output.strip().splitlines()
        return lines[-1].strip() if lines else ""


class Hooks:
    """Runs the programs, one at a time: without a shell, in a process group of their own, each for a bounded time. What they
    write goes into the log, line by line."""

    def __init__(self, settings: HookSettings) -> None:
        self.settings = settings

    def run(self, name: str, *arguments: str, variables: Mapping[str, str] | None = None, stdin: bytes = b"") -> HookEnded:
        """Run one to its end. One that isn't there has nothing to do, and is done."""
        argv: Argv = getattr(self.settings, name)
        if not argv:
            return HookEnded(status=0, output="")
        LOG.info("%s: %s", name, " ".join((*argv, *arguments)))
        try:
            process = subprocess.Popen(
                [*argv, *arguments],
                env={**os.environ, "OVERAIR_HOOK": name, **(variables or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            LOG.warning("%s: %s can't be run: %s", name, argv[0], error.strerror)
            return HookEnded(status=None, output=f"{argv[0]} can't be run: {error.strerror}")
        with process:
            return self._follow(name, process, stdin)

    def _follow(self, name: str, process: subprocess.Popen[bytes], stdin: bytes) -> HookEnded:
        output = _Output(name)
        reader = threading.Thread(target=output.read, args=(process,), daemon=True)
        writer = threading.Thread(target=_write, args=(process, stdin), daemon=True)
        reader.start()
        writer.start()
        try:
            status: int | None = process.wait(self.settings.timeout_s)
        except subprocess.TimeoutExpired:
            LOG.warning("%s didn't end within %s s: ended", name, self.settings.timeout_s)
            status = None
        finally:
            # Children that it left behind would hold its output open, and outlive their purpose.
            _end_group(process)
        reader.join()
        if status is None:
            return HookEnded(status=None, output=f"{name} didn't end within {self.settings.timeout_s} s")
        LOG.info("%s ended with status %s", name, status)
        return HookEnded(status=status, output=output.end)


class _Output:
    """Reads what a program writes: bounded, whatever it writes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines = 0
        self.end = ""

    def read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        rest = ""
        while chunk := os.read(process.stdout.fileno(), _READ_SIZE_BYTES):
            text = chunk.decode("utf-8", "replace")
            self.end = (self.end + text)[-OUTPUT_LENGTH_MAX:]
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                self._log(line)
            if len(rest) > OUTPUT_LENGTH_MAX:
                self._log(rest)
                rest = ""
        if rest:
            self._log(rest)

    def _log(self, line: str) -> None:
        self._lines += 1
        if self._lines <= LINES_LOGGED_MAX:
            LOG.info("%s says: %s", self._name, line.rstrip()[:OUTPUT_LENGTH_MAX])
        elif self._lines == LINES_LOGGED_MAX + 1:
            LOG.info("%s says more than %s lines: the rest isn't logged", self._name, LINES_LOGGED_MAX)


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        process.stdin.close()
    except OSError as error:  # it needn't read what it is given
        LOG.debug("standard input wasn't read: %s", error)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return

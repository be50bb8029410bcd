"""Our commands as processes of their own, forked from one that has imported them (``warm_main.py``): a server's start from
nothing spends most of its time on imports, and tests start hundreds.

What runs is the command itself, with streams, folder, environment, arguments, signals and exit status of its own; only its
imports were done before. What a start from nothing does is held by tests that start ``sys.executable``.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).parents[2]
MESSAGE_SIZE_BYTES_MAX = 4096


class WarmProcess:
    """What ``subprocess.Popen`` is, as far as tests use it. ``None`` for a stream: this process's own."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._gate = threading.Lock()
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": environment,
            "folder": str(folder or Path.cwd()),
        }
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        theirs: list[int] = []
        to_close: list[int] = []
        for number, stream in enumerate((stdin, stdout, stderr)):
            if stream == subprocess.PIPE:
                assert number < 2
                reading, writing = os.pipe()
                if number:
                    self.stdout = os.fdopen(reading, "r", encoding="utf-8")
                else:
                    self.stdin = os.fdopen(writing, "w", encoding="utf-8")
                theirs.append(writing if number else reading)
                to_close.append(theirs[-1])
            elif stream == subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                to_close.append(theirs[-1])
            elif stream == subprocess.STDOUT:
                theirs.append(theirs[1])
            elif stream is None:
                theirs.append(number)
            else:
                assert not isinstance(stream, int)
                theirs.append(stream.fileno())
        self._reports, their_reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with their_reports:
            _ask(json.dumps(request).encode(), [*theirs, their_reports.fileno()])
        for each in to_close:
            os.close(each)
        data, (self._descriptor,), _, _ = socket.recv_fds(self._reports, MESSAGE_SIZE_BYTES_MAX, 1)
        self.pid = int(json.loads(data)["pid"])

    def poll(self) -> int | None:
        with self._gate:
            if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
                self._ended()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        # Two threads may wait for it: each sees that it has ended.
        if self.returncode is None and not select.select([self._reports], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def _ended(self) -> None:
        data = self._reports.recv(MESSAGE_SIZE_BYTES_MAX)
        if not data:
            raise RuntimeError("What forks our commands has ended.")
        self.returncode = int(json.loads(data)["status"])
        os.close(self._descriptor)

    def send_signal(self, number: int) -> None:
        with self._gate:
            if self.returncode is None:
                try:
                    signal.pidfd_send_signal(self._descriptor, number)
                except ProcessLookupError:
                    return  # it has just ended

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self._reports.close()
            if self.returncode is None:
                os.close(self._descriptor)


def run(
    module: str, *arguments: str, environment: dict[str, str], timeout_s: float = 60, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One command to its end, as by ``subprocess.run(capture_output=True, text=True)``."""
    ends: dict[str, str] = {}
    pipes = {name: os.pipe() for name in ("stdout", "stderr")}
    writers = {name: os.fdopen(writing, "wb") for name, (_, writing) in pipes.items()}
    try:
        process = WarmProcess(module, arguments, environment=environment, stdin=subprocess.DEVNULL, folder=folder, **writers)
    finally:
        for writer in writers.values():
            writer.close()

    def read(name: str, reading: int) -> None:
        with os.fdopen(reading, "r", encoding="utf-8") as stream:
            ends[name] = stream.read()

    readers = [threading.Thread(target=read, args=(name, reading), daemon=True) for name, (reading, _) in pipes.items()]
    for reader in readers:
        reader.start()
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    for reader in readers:
        reader.join(timeout_s)
    return subprocess.CompletedProcess([module, *arguments], status, ends["stdout"], ends["stderr"])


_gate = threading.Lock()


def _ask(request: bytes, descriptors: list[int]) -> None:
    with _gate:
        socket.send_fds(_nursery(), [request], descriptors)


@functools.cache
def _nursery() -> socket.socket:
    """One for all of this process's tests; it ends with us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Its environment is only that of its imports: each command brings its own.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OVERAIR_"))}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm_main", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
            env={**kept, "PYTHONUNBUFFERED": "1"},
        )
    atexit.register(_end, ours, process)
    return ours


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait(10)

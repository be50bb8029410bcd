"""A process that has imported our commands and forks one whenever it is asked to (``warm_process.py``): ``warm_main.py FD``.

A request is one JSON message on that socket, with the command's standard input, output and error and a socket for reports:
first the child's pid (with a descriptor of the process), then, once it has ended, its status.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.whole_server import Template

REQUEST_SIZE_BYTES_MAX = 256 * 1024
DESCRIPTORS = 4
TO_IMPORT = (
    "boto3",
    "uvloop",
    "overair.server.app",
    "overair.server.logs",
    "overair.cli.device_main",
    "tests.support.server_main",
)


def child(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """From here on as a Python that was started for this alone: its streams, folder, environment and arguments."""
    for standard, given in enumerate(descriptors):
        os.dup2(given, standard)
        os.close(given)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module = import_module(request["module"])
    sys.argv = [str(module.__file__), *request["arguments"]]
    gc.enable()
    module.main()


class Nursery:
    """Forks, and tells of each child's end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def next(self) -> tuple[dict[str, Any], Sequence[int]] | None:
        """In the nursery: serve until nobody asks any more, then None. In a child: what it was asked to be."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._tell_of_an_end(key)
                    continue
                data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST_SIZE_BYTES_MAX, DESCRIPTORS)
                if not data:
                    return None
                *standard, report = descriptors
                pid = os.fork()
                if not pid:
                    self._close()
                    os.close(report)
                    return json.loads(data), standard
                for each in standard:
                    os.close(each)
                self._tell_of_a_birth(pid, socket.socket(fileno=report))

    def _tell_of_a_birth(self, pid: int, report: socket.socket) -> None:
        process = os.pidfd_open(pid)
        self._selector.register(process, selectors.EVENT_READ, (pid, report))
        socket.send_fds(report, [json.dumps({"pid": pid}).encode()], [process])

    def _tell_of_an_end(self, key: selectors.SelectorKey) -> None:
        pid, report = key.data
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(key.fileobj)
        os.close(key.fd)
        with report:
            try:
                report.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
            except BrokenPipeError:
                return  # nobody waits for it any more

    def _close(self) -> None:
        """In a child: what is the nursery's alone."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._control:
                key.data[1].close()
                os.close(key.fd)
        self._selector.close()
        self._control.close()


def main() -> None:
    gc.disable()
    for name in TO_IMPORT:
        import_module(name)
    import_module("overair.cli.main").application()  # all commands
    with tempfile.TemporaryDirectory() as folder:
        Template(Path(folder))  # what a server reads and compiles as it begins is there for all
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "A process with threads can't be forked."
    gc.freeze()
    asked = Nursery(socket.socket(fileno=int(sys.argv[1]))).next()
    if asked is not None:
        child(*asked)


if __name__ == "__main__":
    main()

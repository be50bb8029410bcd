"""The server as a process that is killed and started many times: forked from one that has imported it (``forked_main.py``), so
that a start costs a tenth of one from nothing."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading

from tests.support.server_process import ANSWER_TIMEOUT_S, REPOSITORY, ServerProcess, clean_environment


class ForkedServer(ServerProcess):
    """``overair up`` without flags, on free ports."""

    _pid: int | None = None

    def launch(self) -> None:
        """Begin to start: it may be killed at any moment from now on."""
        if self.process is None:
            self.data.parent.mkdir(parents=True, exist_ok=True)
            program = REPOSITORY / "tests" / "support" / "forked_main.py"
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, str(program), str(self.data), str(self._log)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=clean_environment(),
                )
            threading.Thread(target=self._pump, args=(self.process, self._lines), daemon=True).start()
        assert self._pid is None
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._pid = int(self._line(self.start_timeout_s).removeprefix("pid "))

    def wait_until_up(self) -> None:
        """Every port accepts."""
        text = ""
        while not text.endswith("\n}\n"):
            line = self._line(self.start_timeout_s)
            if line.startswith("ended "):
                raise RuntimeError(f"The server {line}{self.log()}")
            text += line
        self.endpoints = dict(json.loads(text))

    def start(self) -> ForkedServer:
        self.launch()
        self.wait_until_up()
        return self

    def kill(self) -> None:
        assert self._pid is not None
        os.kill(self._pid, signal.SIGKILL)
        # What it had still said before it ended passes.
        while not self._line(ANSWER_TIMEOUT_S).startswith("ended "):
            pass
        self._pid = None

    def stop(self) -> int:
        """The end of what forks the server, and SIGKILL to the server if it runs. A second call does nothing."""
        if self._pid is not None:
            self.kill()
        if self.process is not None:
            self._close_pipes()
            self.process.wait(ANSWER_TIMEOUT_S)
            self.process = None
        return 0

    def _line(self, timeout_s: float) -> str:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"The server said nothing for {timeout_s:g} s.\n{self.log()}") from None
        if not line:
            raise RuntimeError(f"What forks the server has ended.\n{self.log()}")
        return line

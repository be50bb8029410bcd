"""The server as its own process, for journeys: started, asked, stopped, killed."""

from __future__ import annotations

import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.support.warm_process import REPOSITORY, WarmProcess, run

START_TIMEOUT_S = 100.0
STOP_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
MODELS = REPOSITORY / "src" / "overair" / "server" / "aws_protocol" / "models"


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would steer AWS clients or the server, or have each start compile it anew."""
    steering = ("AWS_", "OVERAIR_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1", **more}


def overair(
    *arguments: str | Path, timeout_s: float = 100, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One operator's command to its end."""
    environment = clean_environment(**environment)
    return run("overair.cli.main", *map(str, arguments), environment=environment, timeout_s=timeout_s, folder=folder)


@functools.cache
def session() -> boto3.Session:
    """Reading a service's model costs twenty times what a client of it does: one session reads each once."""
    made = boto3.Session()
    made._loader.search_paths.append(str(MODELS))
    return made


_session_gate = threading.Lock()


def new_client(service: str, **options: Any) -> Any:
    """A boto3 client of that session; they may be made by several threads at once."""
    with _session_gate:
        return session().client(service, **options)


class ServerProcess:
    """One server on free ports.

    With ``driven=True`` the process is ``tests/support/server_main.py``: the same composition with a settable schedule
    clock and a stop-after-named-step hook, both driven over its standard input. It is forked from a process that has
    imported it; ``cold=True`` starts one from nothing.
    """

    start_timeout_s = START_TIMEOUT_S

    def __init__(
        self, data: Path, *flags: str, driven: bool = False, cold: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        self.data = data
        self.flags = flags
        self.driven = driven
        self.cold = cold
        self.environment = environment or {}
        self.process: subprocess.Popen[str] | WarmProcess | None = None
        self.endpoints: dict[str, Any] = {}
        self._lines: queue.Queue[str] = queue.Queue()
        self._log = data.parent / f"{data.name}.log"

    @property
    def arguments(self) -> list[str]:
        """The command that it runs."""
        return ["up"]

    def start(self) -> ServerProcess:
        """Start and wait until every port accepts."""
        self.launch()
        self.wait_until_up()
        return self

    def launch(self) -> None:
        """Begin to start: it may be killed at any moment from now on."""
        module = "tests.support.server_main" if self.driven else "overair.cli.main"
        ports = [flag for port in ("operator", "mqtt", "device") for flag in (f"--{port}-port", "0")]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*self.arguments, "--json", "--data", str(self.data), *ports, *self.flags]
        environment = clean_environment(**self.environment)
        self._lines = queue.Queue()
        with self._log.open("ab") as log:
            if self.cold:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                )
            else:
                pipe = subprocess.PIPE
                self.process = WarmProcess(module, arguments, environment=environment, stdin=pipe, stdout=pipe, stderr=log)
        threading.Thread(target=self._pump, args=(self.process, self._lines), daemon=True).start()

    def wait_until_up(self) -> None:
        """Every port accepts."""
        self.endpoints = self._answer(self.start_timeout_s, whole_document=True)

    @staticmethod
    def _pump(process: subprocess.Popen[str] | WarmProcess, lines: queue.Queue[str]) -> None:
        # The last line of a process that was killed must not be taken for one of its successor's.
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def _answer(self, timeout_s: float, *, whole_document: bool = False) -> dict[str, Any]:
        text = ""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise TimeoutError(f"The server said nothing for {timeout_s:g} s.\n{self.log()}") from None
            if not line:
                raise RuntimeError(f"The server ended with {self.process and self.process.wait(5)}.\n{self.log()}")
            text += line
            if not whole_document or line.rstrip() == "}":
                return dict(json.loads(text))

    def log(self) -> str:
        """What the server wrote on standard error, its last lines."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-60:])

    def tell(self, **command: object) -> dict[str, Any]:
        """One command to a driven server (see ``server_main.py``); its answer."""
        assert self.driven
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer(ANSWER_TIMEOUT_S)

    def wait_until_cut(self) -> int:
        """Wait for a driven server to stop itself after the step it was told; its exit status."""
        assert self.process is not None
        status = self.process.wait(ANSWER_TIMEOUT_S)
        return status

    def root_key(self) -> dict[str, str]:
        return dict(json.loads((self.data / "root-key.json").read_bytes()))

    def client(self, service: str, **options: Any) -> Any:
        """A real boto3 client with the root key, or with whatever ``options`` say instead."""
        key = self.root_key()
        given = {
            "endpoint_url": self.endpoints["operator_url"],
            "verify": self.endpoints["ca_file"],
            "region_name": self.endpoints["region"],
            "aws_access_key_id": key["access_key_id"],
            "aws_secret_access_key": key["secret_access_key"],
            "config": Config(retries={"total_max_attempts": 1}, connect_timeout=30, read_timeout=60),
        }
        return new_client(service, **(given | options))

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"The server did not stop within {STOP_TIMEOUT_S:g} s.\n{self.log()}") from None
        finally:
            self._close_pipes()
        return status

    def kill(self) -> None:
        """SIGKILL: no drain, no goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        assert self.process is not None
        if self.process.stdin:
            self.process.stdin.close()

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

"""The servers that are measured, each a process of its own on loopback and free ports, each ended by whoever started it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
REPOSITORY = Path(__file__).parents[1]
PEERS = REPOSITORY / ".venv-peers"
DUMMY_KEY_ID, DUMMY_SECRET = "AKIDEXAMPLE0000BENCH", "bench-secret-that-nobody-checks-00000000"


class NotRun(Exception):
    """Something needed isn't on this machine; the message says what."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would steer AWS clients or the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OVERAIR_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1", **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An operator API under one address."""

    name: str
    url: str
    pid: int
    region: str = "us-east-1"
    key_id: str = DUMMY_KEY_ID
    secret: str = DUMMY_SECRET
    ca_file: str | None = None
    is_peer: bool = False

    def client(self, service: str, *, models: Path | None = None) -> Any:
        """A boto3 client for it; ``models``: where services stand that boto3 doesn't bring."""
        session = boto3.Session()
        if models is not None:
            session._loader.search_paths.append(str(models))
        return session.client(
            service,
            endpoint_url=self.url,
            verify=self.ca_file,
            region_name=self.region,
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60),
        )


@dataclass
class Process:
    """A child that is waited for and ended."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                list(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(**self.environment)
            )

    def wait_for_port(self, port: int) -> None:
        self.wait_until(lambda: _accepts(port))

    def wait_until(self, ready: Any) -> None:
        """Ask until it's there.

        Raises:
            RuntimeError: the child ended, or took longer than ``START_TIMEOUT_S``.
        """
        assert self.child is not None
        until = time.perf_counter() + START_TIMEOUT_S
        while not ready():
            if self.child.poll() is not None or time.perf_counter() > until:
                raise RuntimeError(f"{self.command[0]} didn't start.\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)

    def stop(self) -> None:
        if self.child is None:
            return
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child = None


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Overair:
    """Our server, as ``overair up`` starts it."""

    def __init__(
        self,
        data: Path,
        *,
        program: Sequence[str] = (sys.executable, "-m", "overair.cli.main"),
        flags: Sequence[str] = (),
    ) -> None:
        self.data = data
        self.endpoints: dict[str, Any] = {}
        ports = [flag for port in ("operator", "mqtt", "device") for flag in (f"--{port}-port", "0")]
        self._process = Process(
            [*program, "up", "--data", str(data), "--plain-http", "0", *ports, *flags], data.parent / f"{data.name}.log"
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> float:
        """Start; seconds from the start of the process until every port accepts."""
        began = time.perf_counter()
        endpoints = self.data / "run" / "endpoints.json"
        previous = self.endpoints.get("pid")
        self._process.start()

        def ready() -> bool:
            try:
                self.endpoints = json.loads(endpoints.read_bytes())
            except (FileNotFoundError, json.JSONDecodeError):
                return False
            return bool(self.endpoints["pid"] != previous)

        self._process.wait_until(ready)
        return time.perf_counter() - began

    def stop(self) -> None:
        self._process.stop()

    def target(self, *, tls: bool) -> Target:
        key = json.loads((self.data / "root-key.json").read_bytes())
        return Target(
            name="overair, TLS" if tls else "overair, plain HTTP",
            url=self.endpoints["operator_url"] if tls else self.endpoints["plain_http_url"],
            pid=self.pid,
            region=self.endpoints["region"],
            key_id=key["access_key_id"],
            secret=key["secret_access_key"],
            ca_file=self.endpoints["ca_file"] if tls else None,
        )


class Peer:
    """moto or ministack from an environment of their own: plain HTTP, on loopback, their TLS listeners off."""

    def __init__(self, name: str, work: Path, *, environment: Path | None = None) -> None:
        environment = environment or PEERS
        self.name = name
        self.port = free_port()
        program = environment / "bin" / {"moto": "moto_server", "ministack": "ministack"}[name]
        if not program.exists():
            raise NotRun(f"{name}: {environment.name} isn't there (`make bench` builds it)")
        if name == "moto":
            command, settings = [str(program), "-H", "127.0.0.1", "-p", str(self.port)], {}
        else:
            off = ("IOT_MTLS_ENABLED", "SFTP_ENABLED", "USE_SSL")
            settings = {
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self.port),
                "LOG_LEVEL": "WARNING",
                "DOCKER_HOST": f"unix://{work}/none",
                "S3_PERSIST": "0",
                **dict.fromkeys(off, "0"),
            }
            command = [str(program)]
        self._process = Process(command, work / f"{name}.log", settings)

    def start(self) -> Target:
        self._process.start()
        self._process.wait_for_port(self.port)
        return Target(name=f"{self.name}, plain HTTP", url=f"http://127.0.0.1:{self.port}", pid=self._process.pid, is_peer=True)

    def stop(self) -> None:
        self._process.stop()


class DoNothing:
    """``bench.do_nothing``: our listeners in front of an application that answers a constant."""

    def __init__(self, work: Path) -> None:
        self.tls_port, self.plain_port = free_port(), free_port()
        self._ca = work / "do-nothing-ca.pem"
        ports = [str(self.tls_port), str(self.plain_port)]
        self._process = Process([sys.executable, "-m", "bench.do_nothing", str(self._ca), *ports], work / "do-nothing.log")

    def start(self) -> None:
        self._process.start()
        self._process.wait_for_port(self.plain_port)

    def target(self, *, tls: bool) -> Target:
        port = self.tls_port if tls else self.plain_port
        return Target(
            name="do-nothing handler, TLS" if tls else "do-nothing handler, plain HTTP",
            url=f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}",
            pid=self._process.pid,
            ca_file=str(self._ca) if tls else None,
        )

    def stop(self) -> None:
        self._process.stop()

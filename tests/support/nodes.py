"""A server of several processes on one PostgreSQL, for journeys: parts are started, asked, killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.server_process import ServerProcess


class NodeProcess(ServerProcess):
    """One part of a server (``overair serve PART``)."""

    start_timeout_s = 240.0
    """Several start at once."""

    def __init__(self, part: str, data: Path, database: str, *flags: str, name: str = "") -> None:
        super().__init__(data, "--database", database, *flags)
        self.part = part
        self._log = data.parent / f"{data.name}-{name or part}.log"

    @property
    def arguments(self) -> list[str]:
        return ["serve", self.part]


class Nodes:
    """Parts of one server on ``data``."""

    def __init__(self, data: Path, database: str) -> None:
        self.data = data
        self.database = database
        self.parts: dict[str, NodeProcess] = {}

    def start(self, name: str, *flags: str) -> NodeProcess:
        """Start a part; its name is its role and a number: ``gateway1``."""
        part = NodeProcess(name.rstrip("0123456789"), self.data, self.database, *flags, name=name)
        self.parts[name] = part
        part.start()
        return part

    def server(self) -> ServerProcess:
        """All parts that are up as one server, as the commands see it."""
        process = ServerProcess(self.data)
        process.endpoints = dict(json.loads((self.data / "run" / "endpoints.json").read_bytes()))
        return process

    def client(self, part: str, service: str) -> Any:
        """A boto3 client of one operator door."""
        return self.parts[part].client(service)

    def kill(self, name: str) -> None:
        self.parts[name].kill()

    def revive(self, *names: str) -> None:
        """Start parts that were killed; a gateway comes back to the port that its devices know."""
        for name in names:
            old = self.parts[name]
            assert old.process is not None
            assert old.process.poll() is not None, f"{name} lives"
            self.start(name, *(("--mqtt-port", str(old.endpoints["mqtt_port"])) if old.part == "gateway" else ()))

    def dead(self) -> list[str]:
        """Parts that were killed and not revived."""
        return [name for name, part in self.parts.items() if part.process is not None and part.process.poll() is not None]

    def stop(self) -> None:
        for part in self.parts.values():
            if part.process is not None and part.process.poll() is None:
                part.process.terminate()
        for part in self.parts.values():
            if part.process is not None and part.process.poll() is None:
                part.stop()

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{part.log()}" for name, part in self.parts.items())

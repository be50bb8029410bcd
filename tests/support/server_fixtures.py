"""Servers for journeys: one shared by the gentle, own ones for those that stop and kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server shared by every journey that leaves it running; each makes its own names."""
    with ServerProcess(tmp_path_factory.mktemp("shared") / "data", "--plain-http", "0") as process:
        yield process


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes servers of this test's own (not started); whatever still runs at the end is stopped."""
    made: list[ServerProcess] = []

    def make(*flags: str, name: str = "data", driven: bool = False, cold: bool = False, **environment: str) -> ServerProcess:
        process = ServerProcess(tmp_path / name, *flags, driven=driven, cold=cold, environment=environment)
        made.append(process)
        return process

    yield make
    for process in made:
        if process.process is not None and process.process.poll() is None:
            process.stop()

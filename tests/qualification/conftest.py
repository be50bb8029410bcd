from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.qualification import Board, Operator, Way
from tests.support.server_fixtures import new_server, server
from tests.support.server_process import ServerProcess

__all__ = ["new_server", "server"]


@pytest.fixture(scope="session")
def operator(server: ServerProcess) -> Operator:
    return Operator(server)


@pytest.fixture(scope="session")
def boards() -> Iterator[dict[str, Board]]:
    """One board for each way of getting files, made when first asked for and shared by the scenarios that leave it well."""
    made: dict[str, Board] = {}
    yield made
    for board in made.values():
        board.stop()


@pytest.fixture
def board(way: Way, boards: dict[str, Board], operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board that is at rest on some good image. One that an earlier scenario left unwell is replaced."""
    shared = boards.get(way.name)
    if shared is not None and shared.healthy:
        return shared
    if shared is not None:
        shared.stop()
    boards[way.name] = Board(operator, tmp_path_factory.mktemp(way.name) / "board", way)
    return boards[way.name]


@pytest.fixture
def new_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Board]]:
    """Makes boards with settings of their own, for one scenario."""
    made: list[Board] = []

    def make(of: Operator, way: Way, **settings: Any) -> Board:
        made.append(Board(of, tmp_path_factory.mktemp(way.name) / "board", way, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()

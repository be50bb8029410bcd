"""A root room over real records, with a keyring of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import RandomIds, SeededIds
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore


@pytest.fixture
def keyring(clock: SettableClock, tmp_path: Path) -> Keyring:
    box = open_secret_box(tmp_path / "wrapping.key", passphrase=None, ids=RandomIds())
    return Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())


@pytest.fixture
def roots(keyring: Keyring, clock: SettableClock, ids: SeededIds) -> RootsService:
    return RootsService(store=SqlRootStore(), keys=keyring, clock=clock, ids=ids)

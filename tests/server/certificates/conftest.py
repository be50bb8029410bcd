"""Certificates over a test's records."""

from __future__ import annotations

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry


@pytest.fixture
def registry(work: SqlWork, clock: SettableClock, ids: SeededIds) -> Registry:
    return Registry(work, clock, ids)

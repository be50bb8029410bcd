from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.uptane_vehicle import Vehicle


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls a real plug: the power cuts are modelled (``tests/support/power_cut.py``), and waiting for the disk some
    hundred times in each of them proves nothing."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    """A Primary alone, registered and at rest after its first round."""
    vehicle = Vehicle(tmp_path)
    vehicle.round()
    yield vehicle
    vehicle.close()

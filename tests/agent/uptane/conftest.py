from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.uptane_vehicle import Vehicle


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    """A Primary alone, registered and at rest after its first round."""
    vehicle = Vehicle(tmp_path)
    vehicle.round()
    yield vehicle
    vehicle.close()

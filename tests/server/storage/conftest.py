"""Records as a server opens them."""

from __future__ import annotations

import pytest

from overair.server.storage.work import READERS_DEFAULT


@pytest.fixture
def readers() -> int:
    return READERS_DEFAULT

"""Where others' test vectors stand: read in place, never copied into the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("OVERAIR_TESTDATA", Path(__file__).parents[3] / "shared" / "testdata"))


def vectors(name: str) -> Path:
    """The folder of one collection. Where it is absent the test is reported as not run, with the reason."""
    folder = FOLDER / name
    if not folder.is_dir():
        pytest.skip(f"not run: no test vectors at {folder} (set OVERAIR_TESTDATA)", allow_module_level=True)
    return folder

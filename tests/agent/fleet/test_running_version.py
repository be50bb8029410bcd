"""What a virtual device runs outlives its process, and nothing more is needed of it."""

from __future__ import annotations

from pathlib import Path

from overair.agent.fleet.running_version import STARTED_WITH, RunningVersion
from overair.wire.image import ImageVersion


def test_a_version_is_there_for_the_next_process_until_it_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunningVersion(folder).forget()
    assert RunningVersion(folder).read() == STARTED_WITH
    RunningVersion(folder).write(ImageVersion.parse("2.3.4"))
    assert RunningVersion(folder).read() == ImageVersion.parse("2.3.4")
    RunningVersion(folder).forget()
    assert RunningVersion(folder).read() == STARTED_WITH


def test_one_that_cannot_be_read_is_the_factorys(tmp_path: Path) -> None:
    for text in (b"", b"2.3", b"\xff\xff"):
        (tmp_path / "virtual-version").write_bytes(text)
        assert RunningVersion(tmp_path).read() == STARTED_WITH

"""``overair serve`` says what it needs before it touches anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.main import app


@pytest.mark.parametrize("part", ["operator", "gateway", "workers"])
def test_a_part_without_postgresql_is_refused_by_name(tmp_path: Path, part: str) -> None:
    ran = CliRunner().invoke(app, ["serve", part, "--data", str(tmp_path / "data")])
    assert isinstance(ran.exception, CommandEnded)
    assert ran.exception.code is ExitCode.USAGE
    assert "overair up" in str(ran.exception)
    assert not (tmp_path / "data").exists()


def test_a_part_that_isnt_there_is_refused_by_name(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["serve", "everything", "--data", str(tmp_path / "data")])
    assert ran.exit_code != 0
    assert "'everything' is not one of 'operator', 'gateway', 'workers'" in " ".join(ran.output.replace("│", " ").split())

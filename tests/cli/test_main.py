"""The command line is made of its commands, and each of them can be made alone."""

from __future__ import annotations

import pytest
from typer.main import get_command

from overair.cli.main import COMMANDS, GROUPS, application


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_a_command_alone_is_found_by_its_name_and_brings_no_other(name: str) -> None:
    assert list(get_command(application(name)).commands) == [name]  # type: ignore[attr-defined]


def test_without_a_name_every_command_is_there() -> None:
    assert list(get_command(application()).commands) == [*COMMANDS, *GROUPS]  # type: ignore[attr-defined]

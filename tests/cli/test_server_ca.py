"""``overair server-ca``: one server authority follows another, step by step, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from overair.cli.device import enroll_device
from overair.cli.ends import CommandEnded
from overair.cli.operator import operator_of
from overair.cli.server_ca import app
from tests.support.server_process import ServerProcess


@pytest.fixture
def step(new_server: Callable[..., ServerProcess], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Takes a step on a server that knows one device, which never fetches anything."""
    server = new_server().start()
    enroll_device(operator_of(server.data), "drawer-1", tmp_path / "drawer-1")

    def take(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--data", str(server.data), "--json"], catch_exceptions=True)
        if isinstance(done.exception, CommandEnded):
            raise done.exception
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return take


def roles(told: dict[str, Any]) -> dict[str, str]:
    return {each["role"]: each["authority_id"] for each in told["authorities"]}


def test_a_step_that_would_lose_a_device_is_refused_by_its_name_unless_one_says_even_so_and_each_step_can_be_undone(
    step: Callable[..., dict[str, Any]],
) -> None:
    before = step("status")
    assert (before["phase"], before["devices_lacking"]) == ("steady", 0)
    [present] = roles(before).values()
    with pytest.raises(CommandEnded, match="the only step from there is to begin"):
        step("retire")

    begun = step("begin")
    assert (begun["phase"], begun["devices_lacking"], begun["lacking_named"]) == ("ahead", 1, ["drawer-1"])
    with pytest.raises(CommandEnded, match="drawer-1"):
        step("switch")
    assert step("status")["phase"] == "ahead"

    switched = step("switch", "--even-so")
    assert (switched["phase"], len(switched["authorities"])) == ("switched", 2)
    with pytest.raises(CommandEnded, match="drawer-1"):
        step("retire")

    back = step("back-out")
    assert (back["phase"], roles(back)) == ("ahead", roles(begun))
    given_up = step("back-out")
    assert (given_up["phase"], list(roles(given_up).values())) == ("steady", [present])
    with pytest.raises(CommandEnded, match="the only step from there is to begin"):
        step("back-out")


def test_the_former_authority_is_retired_even_so_and_the_leaf_is_renewed_by_the_present_one(
    step: Callable[..., dict[str, Any]],
) -> None:
    [former] = roles(step("status")).values()
    step("begin")
    step("switch", "--even-so")
    retired = step("retire", "--even-so")
    assert retired["phase"] == "steady"
    assert former not in roles(retired).values()
    renewed = step("renew")
    assert renewed["certificate_id"] != retired["certificate_id"]
    assert roles(renewed) == roles(retired)

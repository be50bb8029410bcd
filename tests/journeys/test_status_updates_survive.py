"""Acknowledged means durable: the server is killed between accepted status updates, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_no_accepted_status_update_is_lost_when_the_server_is_killed(
    new_server: Callable[..., ServerProcess], tmp_path: Path, kills: int
) -> None:
    server = new_server().start()
    identity = enroll(server, tmp_path, "dev-1")
    server.client("iot").create_job(jobId="j", targets=[identity.thing_arn], document="{}")
    accepted = 1
    for kill in range(kills):
        with Device(server, identity) as device:
            for step in range(3):
                answer = device.ask(
                    device.jobs("j/update"),
                    {"status": "IN_PROGRESS", "expectedVersion": accepted, "statusDetails": {"step": f"{kill}.{step}"}},
                )
                assert answer["_topic"].endswith("accepted"), answer
                accepted += 1
            server.kill()
        server.start()
        with Device(server, identity) as device:
            execution = device.ask(device.jobs("j/get"))["execution"]
        assert execution["versionNumber"] == accepted
        assert execution["statusDetails"] == {"step": f"{kill}.2"}

"""What a bad line costs: few requests more than a good one, and ever longer waits for a server that is silent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from overair.agent.states import Event, State
from overair.wire.blocks import ANSWER_SIZE_BYTES_MAX
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer
from tests.support.fake_cloud import THING
from tests.support.machine import Machine

SIGNER = Signer()
SIZE_BYTES = 3_000_000


def requests_for(root: Path, *, seed: int, loss: float, block_size_bytes: int) -> tuple[int, int]:
    """(requests for blocks, requests that it would take on a good line) for one file over a line that loses messages."""
    machine = Machine(root, SIGNER, block_size_bytes=block_size_bytes)
    data = Random(0).randbytes(SIZE_BYTES)
    execution = machine.cloud.ship("job", (SIGNER.file(data, path="data", file_type=2), data))
    chance = Random(seed)
    machine.cloud.lost = lambda: chance.random() < loss
    agent = machine.boot()
    agent.signal(Event.START)
    for _ in range(200):
        machine.settle(agent)
        if execution.final:
            break
        machine.clock.now_s += 70
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert (machine.directory.files / "data").read_bytes() == data
    requests = sum(topic.endswith("/get/cbor") for topic, _ in machine.cloud.published)
    return requests, -(-SIZE_BYTES // ANSWER_SIZE_BYTES_MAX)


@pytest.mark.parametrize("block_size_bytes", [1024, 4096, 32_768])
@pytest.mark.parametrize("seed", [1, 2, 3, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 60))])
def test_where_one_message_in_twenty_is_lost_requests_stay_below_twice_the_ideal(
    tmp_path: Path, seed: int, block_size_bytes: int
) -> None:
    requests, ideal = requests_for(tmp_path / "d", seed=seed, loss=0.05, block_size_bytes=block_size_bytes)
    assert ideal <= requests <= 2 * ideal


def test_on_a_good_line_no_request_is_made_twice(tmp_path: Path) -> None:
    requests, ideal = requests_for(tmp_path / "d", seed=0, loss=0, block_size_bytes=4096)
    assert requests == ideal


def test_a_server_that_is_silent_about_jobs_is_asked_ever_more_seldom_and_never_given_up(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    machine.cloud.lost = lambda: True
    agent = machine.boot()
    agent.signal(Event.START)
    asked_at: list[float] = []
    heard = 0
    while machine.clock.now_s < 6 * 3600:
        while agent.step():
            continue
        asked = sum(topic == f"$aws/things/{THING}/jobs/$next/get" for topic, _ in machine.cloud.published)
        if asked > heard:
            asked_at.append(machine.clock.now_s)
            heard = asked
        machine.clock.now_s += 1
    waits = [later - earlier for earlier, later in pairwise(asked_at)]
    assert min(waits) >= 10
    assert max(waits) <= 10 + 60 + 1
    assert len(set(waits)) > 20, "waits are drawn"
    assert sum(waits[20:]) / len(waits[20:]) > 30, "ten seconds for the answer, and half a minute between on average"
    machine.cloud.lost = lambda: False
    data = b"x" * 5000
    execution = machine.cloud.ship("job", (SIGNER.file(data, path="data", file_type=2), data))
    machine.clock.now_s += 71
    machine.settle(agent)
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert agent.state is State.WAITING_FOR_JOB


def test_a_silent_stream_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    data = b"x" * 5000
    execution = machine.cloud.ship("job", (SIGNER.file(data, path="data", file_type=2), data))
    machine.cloud.chance = type("Never", (Random,), {"choice": lambda self, options: 0})()
    machine.run()
    assert execution.details["reason"] == "aborted: 0x0000000e"
    assert 32 * 10 + 300 < machine.clock.now_s <= 32 * (10 + 60) + 10

"""The device says "not now", and the operator sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from overair.agent.agent import Agent
from overair.agent.deferral import SECONDS_AFTER_A_FAULT, Deferral, Offer, Stage
from overair.agent.platform import ResetRequested
from overair.agent.states import Event, State
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.fake_cloud import Execution
from tests.support.machine import Machine

SIGNER = Signer()
Answer = Callable[[Offer], Deferral | None]


class Asked:
    """A permission that keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.offers: list[Offer] = []

    def __call__(self, offer: Offer) -> Deferral | None:
        self.offers.append(offer)
        return self.answer(offer)


def waiting(machine: Machine, answer: Answer) -> tuple[Agent, Execution, Asked]:
    image = cached_image("2.0.0", size_bytes=20_000)
    execution = machine.cloud.ship("job", (SIGNER.file(image), image))
    asked = machine.permission = Asked(answer)
    agent = machine.boot()
    agent.signal(Event.START)
    machine.settle(agent)
    return agent, execution, asked


def driving(seconds: float = 300, reason: str = "driving") -> Answer:
    return lambda offer: Deferral(reason=reason, seconds=seconds)


def test_a_download_that_is_put_off_fetches_nothing_and_tells_the_operator_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, execution, asked = waiting(machine, driving())
    machine.clock.now_s += 299
    machine.settle(agent)
    assert len(asked.offers) == 1
    for _ in range(3):
        machine.clock.now_s += 301
        machine.settle(agent)
    assert [offer.stage for offer in asked.offers] == [Stage.DOWNLOAD] * 4
    assert asked.offers[0].paths == ("firmware",)
    assert asked.offers[0].installs_firmware
    assert [dict(update.status_details or {}) for update in execution.history] == [
        {"deferred": "driving", "before": "download", "again_in_s": "300"}
    ]
    assert (execution.status, machine.cloud.blocks_sent, agent.state) == (
        ExecutionStatus.IN_PROGRESS,
        0,
        State.WAITING_FOR_JOB,
    )


def test_once_the_moment_is_good_the_update_is_done(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, execution, asked = waiting(machine, driving())
    asked.answer = lambda offer: None
    machine.clock.now_s += 301
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def test_resuming_asks_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, _, asked = waiting(machine, driving(seconds=86_400))
    asked.answer = lambda offer: None
    agent.signal(Event.RESUME)
    with pytest.raises(ResetRequested):
        machine.settle(agent)


def test_a_restart_that_is_put_off_keeps_the_verified_image_and_fetches_it_no_second_time(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, execution, asked = waiting(machine, lambda offer: driving()(offer) if offer.stage is Stage.RESTART else None)
    assert execution.details == {"deferred": "driving", "before": "restart", "again_in_s": "300"}
    assert machine.version == "1.0.0"
    fetched = machine.cloud.blocks_sent
    machine.clock.now_s += 301
    machine.settle(agent)
    asked.answer = lambda offer: None
    machine.clock.now_s += 301
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    machine.run()
    assert (machine.version, execution.status, machine.cloud.blocks_sent) == ("2.0.0", ExecutionStatus.SUCCEEDED, fetched)


def test_an_update_that_is_withdrawn_while_it_is_put_off_is_forgotten(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, execution, asked = waiting(machine, driving())
    execution.status = ExecutionStatus.CANCELED
    machine.cloud.notify_next()
    machine.settle(agent)
    machine.clock.now_s += 10_000
    machine.settle(agent)
    assert len(asked.offers) == 1


def test_an_update_that_is_put_off_can_be_aborted(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent, execution, _ = waiting(machine, driving())
    agent.signal(Event.USER_ABORT)
    machine.settle(agent)
    assert execution.details == {"reason": "aborted: 0x00000013"}


def test_a_check_that_raises_puts_off_and_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    _, execution, _ = waiting(machine, lambda offer: 1 / 0)  # type: ignore[arg-type, return-value]
    assert execution.details["deferred"] == "the device's own check failed"
    assert execution.details["again_in_s"] == str(int(SECONDS_AFTER_A_FAULT))


@pytest.mark.parametrize(("reason", "told"), [("", "not now"), ("a\x00\nb\u202e", "ab"), ("x" * 2000, "x" * 200)])
def test_a_reason_that_cannot_be_told_is_made_so(tmp_path: Path, reason: str, told: str) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    _, execution, _ = waiting(machine, driving(seconds=-5, reason=reason))
    assert execution.details == {"deferred": told, "before": "download", "again_in_s": "1"}

"""How many requests of its devices' jobs an account may make a second."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import Throttled
from overair.basics.ids import AccountId
from overair.server.gateway.limits import PROFILES
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.request_rates import RequestRates
from tests.support.engine_door import CALLER
from tests.support.jobs_room import FakeConnection, JobsRoom, answer

ONE, OTHER = AccountId("123456789012"), AccountId("210987654321")
START = Instant(1_767_225_600_000)


def allowed(rates: RequestRates, account: AccountId = ONE) -> bool:
    try:
        rates.read(account)
    except Throttled:
        return False
    return True


@given(rate=st.integers(1, 300), waits=st.lists(st.integers(0, 1_500), min_size=1, max_size=400))
def test_no_span_of_time_sees_more_than_a_seconds_worth_and_the_rate(rate: int, waits: list[int]) -> None:
    clock = SettableClock(START)
    rates = RequestRates(clock=clock, reads_per_s_max=rate)
    taken: list[int] = []
    for wait in waits:
        clock.advance(milliseconds=wait)
        if allowed(rates):
            taken.append(clock.now())
    for position, since in enumerate(taken):
        for count, until in enumerate(taken[position:], start=1):
            assert count <= rate + (until - since) * rate / 1000 + 1e-9


def test_accounts_reads_and_changes_are_counted_apart_and_a_clock_set_back_gives_nothing() -> None:
    clock = SettableClock(START)
    rates = RequestRates(clock=clock, reads_per_s_max=2, writes_per_s_max=1)
    assert [allowed(rates) for _ in range(3)] == [True, True, False]
    assert allowed(rates, OTHER)
    rates.write(ONE)
    with pytest.raises(Throttled, match="change their jobs 1 times"):
        rates.write(ONE)
    clock.set(Instant(START - 60_000))
    assert not allowed(rates)
    clock.advance(milliseconds=499)
    assert not allowed(rates)
    clock.advance(milliseconds=1)
    assert allowed(rates)


def test_only_the_profile_of_aws_has_a_bound() -> None:
    bounds = {name: (limits.jobs_reads_per_s_max, limits.jobs_writes_per_s_max) for name, limits in PROFILES.items()}
    assert bounds == {"generous": (None, None), "aws": (200, 200)}


async def test_a_device_above_the_rate_is_rejected_with_its_token_and_changes_nothing(room: JobsRoom) -> None:
    room.add_things("a")
    room.create("J", room.thing_arn("a"))
    rates = RequestRates(clock=room.clock, reads_per_s_max=1, writes_per_s_max=1)
    topics = JobTopics(work=room.work, jobs=room.jobs.device, clock=room.clock, rates=rates)
    base = "$aws/things/a/jobs"

    async def said(topic: str, **body: str) -> tuple[str, str | None, str | None]:
        [reply] = await answer(topics, FakeConnection(place=room.place), f"{base}/{topic}", json.dumps(body).encode())
        told = json.loads(reply.payload)
        return reply.topic.removeprefix(f"{base}/"), told.get("code"), told.get("clientToken")

    assert await said("get", clientToken="1") == ("get/accepted", None, "1")
    for topic in ("get", "$next/get", "J/get", "J/namespace-x/get"):
        assert await said(topic, clientToken="t") == (f"{topic}/rejected", "RequestThrottled", "t")
    assert await said("J/update", status="IN_PROGRESS") == ("J/update/accepted", None, None)
    for topic in ("J/update", "start-next", "J/namespace-x/update"):
        assert await said(topic, status="SUCCEEDED") == (f"{topic}/rejected", "RequestThrottled", None)
    assert (room.execution("a", "J").status, room.execution("a", "J").version) == ("IN_PROGRESS", 2)
    room.clock.advance(milliseconds=1000)
    assert await said("J/update", status="SUCCEEDED") == ("J/update/accepted", None, None)


async def test_https_and_mqtt_are_counted_together(room: JobsRoom) -> None:
    room.add_things("a")
    rates = RequestRates(clock=room.clock, reads_per_s_max=1, writes_per_s_max=1)
    data = JobsDataOperations(work=room.work, jobs=room.jobs.device, clock=room.clock, rates=rates)
    rates.read(ONE)
    rates.write(ONE)
    request = {"thingName": "a", "jobId": "J", "status": "SUCCEEDED"}
    for operation in (
        data.get_pending_job_executions,
        data.describe_job_execution,
        data.start_next_pending_job_execution,
        data.update_job_execution,
    ):
        with pytest.raises(Throttled):
            await operation(CALLER, request)

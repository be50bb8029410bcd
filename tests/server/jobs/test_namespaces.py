"""Jobs with a namespace: a queue, a ``$next`` and topics of their own."""

from __future__ import annotations

import pytest

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import JobId, ThingName
from overair.server.jobs.model import FailureType as F
from overair.server.jobs.model import JobPlan, JobSettings, RetryCriterion
from tests.support.jobs_room import JobsRoom

NS = "aws-gg-deployment"
JOBS = "$aws/things/a/jobs"


@pytest.fixture
def room(room: JobsRoom) -> JobsRoom:
    room.add_things("a", "b", group="g")
    return room


async def test_a_namespaced_job_is_announced_on_the_topics_of_its_namespace_alone(room: JobsRoom) -> None:
    room.create("N", room.group_arn("g"), namespace=NS)
    # Among things there is no order; of each, in its own.
    assert sorted(room.kinds(), key=lambda heard: heard[0]) == [
        (thing, kind) for thing in ("a", "b") for kind in (f"notify-namespace-{NS}", f"notify-next-namespace-{NS}")
    ]


async def test_each_namespace_has_a_queue_of_its_own(room: JobsRoom) -> None:
    room.create("plain", room.thing_arn("a"))
    room.heard()
    room.create("N", room.thing_arn("a"), namespace=NS)
    # Behind nothing: the plain job stands in another queue.
    assert room.kinds() == [("a", f"notify-namespace-{NS}"), ("a", f"notify-next-namespace-{NS}")]
    pending = await room.told(f"{JOBS}/get")
    assert [job["jobId"] for job in pending["queuedJobs"]] == ["plain"]
    assert (await room.told(f"{JOBS}/$next/get"))["execution"]["jobId"] == "plain"
    assert (await room.told(f"{JOBS}/$next/namespace-{NS}/get"))["execution"]["jobId"] == "N"
    assert "execution" not in await room.told(f"{JOBS}/$next/namespace-other/get")
    assert (await room.told(f"{JOBS}/start-next"))["execution"]["jobId"] == "plain"
    assert room.execution("a", "N").status == "QUEUED"


async def test_a_core_device_does_its_jobs_on_the_topics_of_its_namespace(room: JobsRoom) -> None:
    retry = JobSettings(retry=(RetryCriterion(failure_type=F.FAILED, retries=1),))
    room.create("N1", room.thing_arn("a"), namespace=NS, settings=retry)
    room.create("N2", room.thing_arn("a"), namespace=NS)
    room.heard()
    update = f"{JOBS}/N1/namespace-{NS}/update"
    told = await room.told(update, {"status": "IN_PROGRESS", "clientToken": "t", "includeJobDocument": True})
    assert (told["clientToken"], told["jobDocument"]) == ("t", {"operation": "x"})
    described = await room.told(f"{JOBS}/N1/namespace-{NS}/get")
    assert (described["execution"]["jobId"], described["execution"]["status"]) == ("N1", "IN_PROGRESS")
    assert room.kinds() == []
    room.clock.advance(milliseconds=1000)
    await room.told(update, {"status": "FAILED"})
    # The retry goes to the end of the same queue.
    heard = room.heard()
    assert [one.kind for one in heard] == [f"notify-namespace-{NS}", f"notify-next-namespace-{NS}"]
    assert [job["jobId"] for job in heard[0].body["jobs"]["QUEUED"]] == ["N2", "N1"]
    assert heard[1].body["execution"]["jobId"] == "N2"
    await room.told(f"{JOBS}/N2/namespace-{NS}/update", {"status": "SUCCEEDED"})
    await room.told(update, {"status": "SUCCEEDED"})
    assert room.heard()[-1].body.keys() == {"timestamp"}
    assert (room.job("N1").status, room.job("N2").status) == ("COMPLETED", "COMPLETED")


async def test_a_topic_with_a_namespace_reaches_no_job_of_another(room: JobsRoom) -> None:
    room.create("N", room.thing_arn("a"), namespace=NS)
    room.create("plain", room.thing_arn("a"))
    for job in ("N", "plain", "none"):
        for operation, body in (("get", {}), ("update", {"status": "SUCCEEDED"})):
            said = await room.refused(f"{JOBS}/{job}/namespace-other/{operation}", {"clientToken": "t", **body})
            assert (said["code"], said["clientToken"]) == ("ResourceNotFound", "t")
    assert room.execution("a", "N").version == 1
    assert (await room.refused(f"{JOBS}/$next/namespace-{NS}/update", {"status": "SUCCEEDED"}))["code"] == "InvalidRequest"
    for level in ("namespace-", "namespaces-x", "x", f"namespace-{'n' * 65}", "namespace-ü"):
        for operation in ("get", "update"):
            assert (await room.refused(f"{JOBS}/N/{level}/{operation}"))["code"] == "InvalidTopic", level
    # By its name a job is found on the topics that name no namespace too: its id is unique in the account.
    assert (await room.told(f"{JOBS}/N/get"))["execution"]["jobId"] == "N"


async def test_what_hangs_on_a_thing_ends_with_it_in_every_namespace(room: JobsRoom) -> None:
    for job, namespace in (("plain", None), ("N", NS), ("M", "m")):
        room.create(job, room.thing_arn("a"), namespace=namespace)
    room.heard()
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, room.place.account, ThingName("a")))
    assert [room.execution("a", job).status for job in ("plain", "N", "M")] == ["REMOVED"] * 3
    assert {kind for _, kind in room.kinds()} == {
        "notify",
        "notify-next",
        f"notify-namespace-{NS}",
        f"notify-next-namespace-{NS}",
        "notify-namespace-m",
        "notify-next-namespace-m",
    }


def test_a_namespace_has_a_name_that_a_topic_can_carry_and_no_vehicles(room: JobsRoom) -> None:
    for namespace in ("", "a/b", "+", "x" * 65):
        with pytest.raises(InvalidRequest) as caught:
            room.create("N", room.thing_arn("a"), namespace=namespace)
        assert caught.value.subject == "namespace"

    class Brings:
        def require(self, *_: object) -> None:
            return None

    room.jobs.fulfilled_by(Brings())  # type: ignore[arg-type]
    plan = JobPlan(id=JobId("V"), targets=(room.thing_arn("a"),), document="{}", fulfilment="mtu", namespace=NS)
    with pytest.raises(InvalidRequest, match="vehicle"):
        room.work.run_blocking(lambda tx: room.jobs.create(tx, room.place, plan))
    with pytest.raises(NotFound):
        room.job("V")


def test_changes_that_name_a_namespace_reach_no_job_of_another(room: JobsRoom) -> None:
    room.create("N", room.thing_arn("a"), namespace=NS)
    room.create("plain", room.thing_arn("a"))
    account = room.place.account
    find = room.jobs.find
    assert room.work.read_blocking(lambda tx: find(tx, account, JobId("N"), namespace=NS)).namespace == NS
    for job, namespace in (("N", "other"), ("plain", NS)):
        with pytest.raises(NotFound):
            room.work.read_blocking(lambda tx, job=job, ns=namespace: find(tx, account, JobId(job), namespace=ns))

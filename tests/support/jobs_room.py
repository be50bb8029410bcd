"""The jobs room on real records, with a registry and roles that tests fill by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import (
    AccountId,
    BucketName,
    CertificateId,
    ClientId,
    GroupName,
    JobId,
    ObjectKey,
    SeededIds,
    ThingName,
    VersionId,
)
from overair.basics.work import Notice, Tx
from overair.server.gateway.handlers import Reply, topics_of
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.event_store import SqlEventConfigurations
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.model import Execution, Job, JobPlan, JobSettings, TargetSelection
from overair.server.jobs.packages import NothingWritten
from overair.server.jobs.planning import JobPlanner
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.jobs.template_store import SqlTemplateStore
from overair.server.packages.model import DEFAULT, PackageVersion, VersionStatus
from overair.server.storage.schema import outbox
from overair.server.storage.work import SqlWork, sql


class Registry:
    """Things and groups; ``nested`` maps a group to the groups in it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.things: set[str] = set()
        self.groups: dict[str, set[str]] = {}

    def require_target(self, tx: Tx, place: Place, target_arn: str) -> None:
        arn = parse_arn(target_arn)
        if arn.account != place.account or arn.kind not in ("thing", "thinggroup"):
            raise InvalidRequest("not ours", subject="target")
        if arn.name not in (self.things if arn.kind == "thing" else self.groups):
            raise NotFound("no such target", subject="thing")

    def members(
        self, tx: Tx, account: AccountId, target_arn: str, *, after: ThingName | None, limit: int
    ) -> Sequence[ThingName]:
        arn = parse_arn(target_arn)
        if arn.name not in (self.things if arn.kind == "thing" else self.groups):
            raise NotFound("no such target", subject="thing")
        named = self.groups[arn.name] if arn.kind == "thinggroup" else {arn.name}
        return [ThingName(name) for name in sorted(named) if after is None or name > after][:limit]

    def has_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        return thing in self.things

    def signing_rule_over(self, tx: Tx, account: AccountId, target_arn: str) -> GroupName | None:
        return None

    def under_signing_rule(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        return frozenset()

    def things_among(self, tx: Tx, account: AccountId, names: Sequence[ThingName]) -> frozenset[ThingName]:
        return frozenset(names) & {ThingName(thing) for thing in self.things}

    def all_groups_of(self, tx: Tx, account: AccountId, thing: ThingName) -> frozenset[GroupName]:
        return frozenset(GroupName(group) for group, things in self.groups.items() if thing in things)

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> GroupName:
        for group in self.groups:
            if name_or_id in (group, f"id-of-{group}"):
                return GroupName(group)
        raise NotFound("no such group", subject="thing-group")


class Roles:
    """Roles that the service may assume."""

    def __init__(self) -> None:
        self.assumable: set[str] = set()

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> Any:
        if role_arn not in self.assumable:
            raise InvalidRequest(f"The role {role_arn} cannot be assumed", subject="role")
        return role_arn


class CountingPresigner:
    """URLs that tell which signing they come from."""

    def __init__(self, roles: Roles) -> None:
        self.count = 0
        self._roles = roles

    def presigned_url(
        self,
        tx: Tx,
        place: Place,
        role_arn: str,
        *,
        bucket: BucketName,
        key: ObjectKey,
        version: VersionId | None,
        expires_s: int,
        source_arn: str,
    ) -> str:
        self._roles.assume_as_service(tx, place, role_arn, source_arn=source_arn)
        self.count += 1
        return f"https://host/{bucket}/{key}?v={version}&e={expires_s}&n={self.count}"


class AnyPackage:
    """A catalogue that has whatever is asked for; ``$default`` is version 1.0."""

    def deployable(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion:
        return PackageVersion(
            place=Place("us-east-1", account),
            package=package,
            name="1.0" if version == DEFAULT else version,
            status=VersionStatus.PUBLISHED,
            created_at=Instant(0),
            last_modified_at=Instant(0),
        )


class Tags:
    def __init__(self) -> None:
        self.tags: dict[str, Mapping[str, str]] = {}

    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None:
        return None

    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None:
        self.tags[arn] = dict(tags or {})

    def forget(self, tx: Tx, place: Place, arn: str) -> None:
        self.tags.pop(arn, None)


@dataclass(frozen=True, kw_only=True)
class FakeConnection:
    place: Place
    client_id: ClientId = ClientId("dev-1")  # noqa: RUF009
    certificate_id: CertificateId = CertificateId("0" * 64)  # noqa: RUF009
    source_ip: str = "192.0.2.7"

    @property
    def account(self) -> AccountId:
        return self.place.account


@dataclass(frozen=True, kw_only=True)
class Announced:
    """One published notice, decoded."""

    thing: str
    kind: str
    body: Any = field(hash=False)


class JobsRoom:
    """Everything together, spoken to without a loop where that's enough."""

    def __init__(self, work: SqlWork, place: Place, clock: SettableClock) -> None:
        self.work, self.place, self.clock = work, place, clock
        self.registry = Registry(place)
        self.roles = Roles()
        self.presigner = CountingPresigner(self.roles)
        self.tags = Tags()
        self.jobs = JobsService(
            jobs=SqlJobStore(),
            executions=SqlExecutionStore(),
            members=self.registry,
            groups=self.registry,
            roles=self.roles,
            presigner=self.presigner,
            tags=self.tags,
            events=SqlEventConfigurations(),
            templates=SqlTemplateStore(),
            clock=clock,
            ids=SeededIds(11),
        )
        self.jobs.deploys_from(AnyPackage(), NothingWritten())
        self.topics = JobTopics(work=work, jobs=self.jobs.device, clock=clock)
        self.planner = JobPlanner(work=work, planner=self.jobs.planner, clock=clock)
        self._heard = 0

    def thing_arn(self, thing: str) -> str:
        return self.place.iot("thing", thing)

    def group_arn(self, group: str) -> str:
        return self.place.iot("thinggroup", group)

    def add_things(self, *things: str, group: str | None = None) -> None:
        self.registry.things.update(things)
        if group is not None:
            self.registry.groups.setdefault(group, set()).update(things)

    def create(
        self,
        job: str,
        *targets: str,
        document: str = '{"operation":"x"}',
        selection: TargetSelection = TargetSelection.SNAPSHOT,
        settings: JobSettings | None = None,
        namespace: str | None = None,
    ) -> Job:
        plan = JobPlan(
            id=JobId(job),
            targets=targets,
            document=document,
            target_selection=selection,
            settings=settings or JobSettings(),
            namespace=namespace,
        )
        return self.work.run_blocking(lambda tx: self.jobs.create(tx, self.place, plan))

    def job(self, job: str) -> Job:
        return self.work.read_blocking(lambda tx: self.jobs.find(tx, self.place.account, JobId(job)))

    def execution(self, thing: str, job: str, number: int | None = None) -> Execution:
        return self.work.read_blocking(
            lambda tx: self.jobs.executions.find(tx, self.place.account, ThingName(thing), JobId(job), number)
        )

    async def say(self, topic: str, payload: bytes | str | dict[str, Any] = b"") -> Reply:
        """Publish to a jobs topic as a device; the one reply."""
        raw = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        raw = raw.encode() if isinstance(raw, str) else raw
        replies = await answer(self.topics, FakeConnection(place=self.place), topic, raw)
        assert len(replies) == 1
        return replies[0]

    async def told(self, topic: str, payload: bytes | str | dict[str, Any] = b"") -> Any:
        """The decoded reply; asserts that it was accepted."""
        reply = await self.say(topic, payload)
        assert reply.topic == topic + "/accepted", reply
        assert reply.implicit
        return json.loads(reply.payload)

    async def refused(self, topic: str, payload: bytes | str | dict[str, Any] = b"") -> Any:
        reply = await self.say(topic, payload)
        assert reply.topic == topic + "/rejected", reply
        assert reply.implicit
        return json.loads(reply.payload)

    def heard(self) -> list[Announced]:
        """Notices since the last call."""

        def query(tx: Tx) -> list[Notice]:
            rows = sql(tx).execute(outbox.select().where(outbox.c.id > self._heard).order_by(outbox.c.id)).all()
            if rows:
                self._heard = rows[-1].id
            return [Notice(account=AccountId(r.account), topic=r.topic, payload=r.payload, qos=r.qos) for r in rows]

        announced = []
        for notice in self.work.read_blocking(query):
            levels = notice.topic.split("/")
            assert levels[0] == "$aws"
            assert levels[1] == "things"
            assert levels[3] == "jobs"
            announced.append(Announced(thing=levels[2], kind=levels[4], body=json.loads(notice.payload)))
        return announced

    def kinds(self) -> list[tuple[str, str]]:
        return [(announced.thing, announced.kind) for announced in self.heard()]


async def answer(door: object, connection: FakeConnection, topic: str, payload: bytes) -> Sequence[Reply]:
    """Route a publish as the gateway does: the pattern with the most literal levels wins."""
    levels = topic.split("/")
    best: tuple[int, Any, dict[str, str]] | None = None
    for pattern, handler in topics_of(door):
        wanted = pattern.split("/")
        parameters: dict[str, str] = {}
        literal = 0
        if wanted[-1].endswith("+}"):
            if len(levels) < len(wanted):
                continue
            parameters[wanted[-1][1:-2]] = "/".join(levels[len(wanted) - 1 :])
            wanted = wanted[:-1]
        elif len(levels) != len(wanted):
            continue
        for want, level in zip(wanted, levels, strict=False):
            if want.startswith("{"):
                parameters[want[1:-1]] = level
            elif want == level:
                literal += 1
            else:
                break
        else:
            if best is None or literal > best[0]:
                best = (literal, handler, parameters)
    assert best is not None, f"no handler for {topic}"
    result = best[1](connection, best[2], payload)
    return result if isinstance(result, list) else await result

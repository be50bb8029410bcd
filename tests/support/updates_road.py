"""Everything that an OTA update stands on, real and joined, over one test's records; jobs and streams included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select

from overair.basics.ids import BucketName, GroupName, JobId, ObjectKey, OtaUpdateId, StreamId, ThingName, VersionId
from overair.basics.work import Tx
from overair.server.jobs.event_store import SqlEventConfigurations
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.jobs.tables import jobs as jobs_table
from overair.server.jobs.template_store import SqlTemplateStore
from overair.server.storage.work import sql
from overair.server.streams.descriptors import Descriptors
from overair.server.streams.model import Stream
from overair.server.streams.service import StreamsService
from overair.server.streams.store import SqlStreamsStore
from overair.server.streams.store import streams as streams_table
from overair.server.updates.operator_api import UpdateOperations
from overair.server.updates.saga import Saga
from overair.server.updates.service import UpdatesService
from overair.server.updates.signature_watch import SignatureEnds, SignatureWatch
from overair.server.updates.store import SqlUpdatesStore
from overair.server.updates.worker import UpdatesWorker
from overair.wire.job_document import OtaDocument, parse
from tests.support.code_signing import credential
from tests.support.registry import Registry
from tests.support.signing_road import BUCKET, PLATFORM, SigningRoad, policy

ROLE_ACTIONS = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:PutObject",
    "signer:PutSigningProfile",
    "signer:GetSigningProfile",
    "signer:StartSigningJob",
    "signer:DescribeSigningJob",
    "iot:CreateStream",
    "iot:CreateJob",
    "iam:PassRole",
)
"""All that the service role needs, whatever the pair of location and signing (wire reference §12.1)."""


class PowerCut(BaseException):
    """The process is gone: nothing catches this."""


class FixedPresigner:
    """Signs nothing, but says what it would sign for."""

    def presigned_url(
        self, tx: Tx, place: Any, role_arn: str, *, bucket: BucketName, key: ObjectKey, version: VersionId | None, **_: Any
    ) -> str:
        return f"https://device.example/{bucket}/{key}?versionId={version}"


class UpdatesRoad(SigningRoad):
    """The rooms up to updates, over ``work``. A thing ``dev-1`` in group ``fleet``, a role, a signer."""

    cut_after: str | None = None

    def compose(self) -> None:
        super().compose()
        self.registry = Registry(self.work, self.clock, self.ids)
        self.streams = StreamsService(
            store=SqlStreamsStore(),
            objects=self.objects,
            roles=self.access,
            clock=self.clock,
            descriptors=Descriptors(),
            tags=self.registry.tags,
        )
        self.jobs = JobsService(
            jobs=SqlJobStore(),
            executions=SqlExecutionStore(),
            members=self.registry.devices,
            groups=self.registry.groups,
            roles=self.access,
            presigner=FixedPresigner(),
            tags=self.registry.tags,
            events=SqlEventConfigurations(),
            templates=SqlTemplateStore(),
            clock=self.clock,
            ids=self.ids,
        )
        self.jobs.decrypted_by(self.registry.decryption)
        self.registry.decryption.watched_by(self.jobs.planner)
        store = SqlUpdatesStore()
        self.updates = UpdatesService(
            store=store,
            clock=self.clock,
            ids=self.ids,
            access=self.access,
            objects=self.objects,
            streams=self.streams,
            jobs=self.jobs,
            targets=self.registry.devices,
            tags=self.registry.tags,
            held_keys=self.acm,
        )
        self.signatures = SignatureWatch(store=store, signing=self.signing, jobs=self.jobs)
        self.signing.signatures_used_by(self.signatures)
        self.signature_ends = SignatureEnds(work=self.work, store=store, watch=self.signatures, clock=self.clock)
        self.saga = Saga(
            store=store,
            clock=self.clock,
            access=self.access,
            objects=self.objects,
            signing=self.signing,
            streams=self.streams,
            jobs=self.jobs,
            held_keys=self.acm,
            signatures=self.signatures,
        )
        self.updates_worker = UpdatesWorker(work=self.work, updates=self.updates, saga=self.saga, after_step=self.after_step)
        self.updates_api = UpdateOperations(
            work=self.work, updates=self.updates, contents=self.contents, after_step=self.after_step
        )

    def settle(self) -> None:
        """The usual residents."""
        self.make_bucket()
        self.make_thing("dev-1", groups=("fleet",))
        self.role_arn = self.make_role("ota", policy(("Allow", list(ROLE_ACTIONS), "*")))
        self.signer = credential()
        self.certificate_arn = self.import_certificate(self.signer)

    def after_step(self, step: str) -> None:
        super().after_step(step)
        if step == self.cut_after:
            raise PowerCut

    def restart(self) -> None:
        """What a new process finds: the records and files, and nothing else."""
        self.cut_after = None
        self.contents.close()
        self.compose()

    def make_thing(self, name: str, *, groups: Sequence[str] = ()) -> str:
        """A thing in groups that are made if need be; its ARN."""

        def unit(tx: Tx) -> None:
            self.registry.devices.create(tx, self.place, ThingName(name))
            for group in groups:
                self.registry.groups.create(tx, self.place, GroupName(group))
                self.registry.groups.add(tx, self.account, GroupName(group), ThingName(name))

        self.work.run_blocking(unit)
        return self.place.iot("thing", name)

    @property
    def thing_arn(self) -> str:
        return self.place.iot("thing", "dev-1")

    def signing_parameter(self, **more: Any) -> dict[str, Any]:
        """``codeSigning`` with a profile to make."""
        parameter = {
            "signingProfileParameter": {
                "certificateArn": self.certificate_arn,
                "platform": PLATFORM,
                "certificatePathOnDevice": "/anchor.pem",
            },
            "signingProfileName": "ota_profile",
            "destination": {"s3Destination": {"bucket": BUCKET, "prefix": "SignedImages/"}},
            **more,
        }
        return {"startSigningJobParameter": parameter}

    async def stored(self, key: str, data: bytes) -> dict[str, Any]:
        """Upload; ``fileLocation`` of the new version."""
        version = await self.upload(key, data)
        return {"s3Location": {"bucket": BUCKET, "key": key, "version": version.version_id}}

    async def create(
        self, *files: Mapping[str, Any], update: str = "rel-7", user: str | None = None, **more: Any
    ) -> Mapping[str, Any]:
        """CreateOTAUpdate's answer."""
        request = {
            "otaUpdateId": update,
            "targets": [self.thing_arn],
            "files": list(files),
            "roleArn": self.role_arn,
            **more,
        }
        return await self.updates_api.create_ota_update(self.caller(user), request)

    async def drive(self) -> None:
        """Let the workers do all that there is to do."""
        while await self.updates_worker.run_once() | await self.signing_worker.run_once():
            pass

    async def info(self, update: str = "rel-7") -> dict[str, Any]:
        """GetOTAUpdate's answer."""
        answer = await self.updates_api.get_ota_update(self.caller(), {"otaUpdateId": update})
        return {key: value for key, value in answer["otaUpdateInfo"].items() if value is not None}

    async def document(self, update: str = "rel-7") -> OtaDocument:
        """The job document as it is stored, read as a device reads it."""
        job = JobId(f"AFR_OTA-{update}")
        return parse(await self.work.read(lambda tx: self.jobs.document(tx, self.account, job)))

    async def stream(self, name: str) -> Stream:
        return await self.work.read(lambda tx: self.streams.find(tx, self.place, StreamId(name)))

    async def make_stream(self, name: str, *locations: Mapping[str, Any]) -> None:
        """A stream of an operator's own, of these files."""
        from overair.server.streams.model import FileSource, StreamPlan

        sources = tuple(
            FileSource(
                file_id=number,
                bucket=BucketName(location["s3Location"]["bucket"]),
                key=ObjectKey(location["s3Location"]["key"]),
                version=VersionId(location["s3Location"]["version"]),
            )
            for number, location in enumerate(locations)
        )
        plan = StreamPlan(id=StreamId(name), files=sources, role_arn=self.role_arn)
        await self.work.run(lambda tx: self.streams.create(tx, self.place, plan))

    async def counts(self) -> dict[str, int]:
        """How many jobs, streams and updates there are in the account."""

        def count(tx: Tx) -> dict[str, int]:
            def rows(table: Any) -> int:
                query = select(func.count()).select_from(table).where(table.c.account == self.account)
                if "deleted" in table.c:  # a stream that was taken back leaves a tombstone
                    query = query.where(table.c.deleted.is_(False))
                return int(sql(tx).execute(query).scalar_one())

            return {"jobs": rows(jobs_table), "streams": rows(streams_table)}

        return await self.work.read(count)

    async def find(self, update: str = "rel-7") -> Any:
        return await self.work.read(lambda tx: self.updates.find(tx, self.account, OtaUpdateId(update)))

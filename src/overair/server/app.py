"""The composition root: the only file that names concrete classes and says who is joined to whom.

Read it from top to bottom and you have met every room: records, keys, access, certificates, objects, devices, signing, streams,
jobs, updates; then the two doors; then the workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from random import Random
from typing import Any

import structlog
from OpenSSL import SSL

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Notice
from overair.server import first_start
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.bucket_policies import BucketPolicyMemory
from overair.server.access.grants import GrantsDirectory
from overair.server.access.identities import Identities
from overair.server.access.keys import CredentialDirectory
from overair.server.access.link_keys import LinkKeys
from overair.server.access.operator_api import IdentityOperatorApi
from overair.server.access.policies import Policies
from overair.server.access.policy_operator_api import PolicyOperatorApi
from overair.server.access.policy_store import SqlPolicyStore as SqlAccessPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.sessions import Sessions
from overair.server.access.store import SqlIdentityStore
from overair.server.audit.operator_api import AuditOperations
from overair.server.audit.service import AuditedWork, AuditService
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.broker.operator_api import BrokerOperations
from overair.server.broker.service import Broker
from overair.server.broker.store import BrokerStore
from overair.server.broker.worker import SessionExpiry
from overair.server.certificates.acm import AcmService
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.certificates.authorities import AuthoritiesService, ServerIdentity
from overair.server.certificates.operator_api import CertificatesOperatorApi
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.config import Settings
from overair.server.devices.admission import Admissions
from overair.server.devices.authority import RegistryAuthority
from overair.server.devices.operator_api import DevicesOperatorApi
from overair.server.devices.policies import CertificateLinks, PoliciesService
from overair.server.devices.policies_operator_api import PoliciesOperatorApi
from overair.server.devices.service import DevicesService
from overair.server.devices.store.admissions import SqlAdmissionStore
from overair.server.devices.store.groups import SqlGroupStore
from overair.server.devices.store.policies import SqlPolicyStore as SqlDevicePolicyStore
from overair.server.devices.store.tags import SqlTagStore
from overair.server.devices.store.things import SqlThingStore
from overair.server.devices.store.types import SqlTypeStore
from overair.server.devices.tags import TagsService
from overair.server.devices.tags_operator_api import TagsOperatorApi
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.devices.thing_groups_operator_api import ThingGroupsOperatorApi
from overair.server.devices.thing_types import ThingTypesService
from overair.server.devices.thing_types_operator_api import ThingTypesOperatorApi
from overair.server.devices.trials import TrialsService
from overair.server.devices.trials_operator_api import TrialsOperatorApi
from overair.server.explain.operator_api import ExplainOperations
from overair.server.explain.server_status import Running, ServerStatusOperations
from overair.server.explain.service import ExplainService
from overair.server.gateway.http_publish import HttpPublish
from overair.server.gateway.limits import AWS, GENEROUS
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.server.gateway.service import Gateway
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.operator_api import JobOperations
from overair.server.jobs.operator_executions import JobTimers
from overair.server.jobs.planning import JobPlanner
from overair.server.jobs.presigning import RolePresigner
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box, read_passphrase
from overair.server.listeners.acceptor import Accept, TlsListener, open_socket
from overair.server.listeners.demultiplexer import HTTP_ALPN, MQTT_ALPN, speak_by_alpn, speak_http, speak_mqtt
from overair.server.listeners.device_http import DevicePaths, Path
from overair.server.listeners.http import HttpService, PlainHttpListener
from overair.server.listeners.tls import ClientCertificate, tls_context
from overair.server.metrics import Metrics
from overair.server.objects.collector import ContentCollector
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.presigned_downloads import PresignedDownloads
from overair.server.objects.segments import SegmentCache
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.signing.operator_api import SigningOperations
from overair.server.signing.service import SigningService
from overair.server.signing.store import SqlSigningStore
from overair.server.signing.worker import SigningWorker
from overair.server.state_directory import Marker, StateDirectory, StateDirectoryRefused, write_file
from overair.server.storage.migrations import upgrade
from overair.server.storage.outbox import OutboxRelay
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite
from overair.server.streams.descriptors import Descriptors
from overair.server.streams.device_api import StreamTopics
from overair.server.streams.operator_api import StreamOperations
from overair.server.streams.service import StreamsService
from overair.server.streams.store import SqlStreamsStore
from overair.server.updates.operator_api import UpdateOperations
from overair.server.updates.saga import Saga
from overair.server.updates.service import UpdatesService
from overair.server.updates.store import SqlUpdatesStore
from overair.server.updates.worker import UpdatesWorker
from overair.server.workers.loop import WorkerLoop

VERSION = version("overair")

logger = structlog.get_logger("overair")


def build_server(
    settings: Settings,
    *,
    clock: Clock,
    ids: IdSource,
    schedule_clock: Clock | None = None,
    after_step: Callable[[str], None] = lambda _step: None,
) -> Server:
    """Compose a server; nothing is opened before ``start``.

    Args:
        clock: Signatures, certificates and records.
        schedule_clock: Jobs, windows and the expiry of presigned links; the same clock unless a test moves it.
        after_step: Told the name of each saga step right after its commit.
    """
    return Server(settings, clock=clock, ids=ids, schedule_clock=schedule_clock or clock, after_step=after_step)


class Server:
    """One node: every room, every door, every worker. ``start`` once, ``stop`` once."""

    def __init__(
        self, settings: Settings, *, clock: Clock, ids: IdSource, schedule_clock: Clock, after_step: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._schedule_clock = schedule_clock
        self._after_step = after_step
        self._state = StateDirectory(settings.data)
        self._undo: list[Callable[[], Any]] = []
        self._metrics = Metrics()
        self._drained_by_s = 0.0
        self.is_first_start = False
        self._is_up = False
        self._contexts: list[tuple[TlsListener, Callable[[ServerIdentity], SSL.Context]]] = []

    # Life -----------------------------------------------------------------------------------------------------------------

    async def start(self) -> dict[str, Any]:
        """Open records, make what is missing, open every port; what ``run/endpoints.json`` then says.

        Raises:
            OverairError: with the one line that an operator sees; whatever was opened is closed again by ``stop``.
        """
        marker = self._state.open()
        self._undo.append(self._state.close)
        place = self._place(marker)
        self._compose(place)
        made = None
        if marker is None:
            self.is_first_start = True
            rooms = first_start.Rooms(
                identities=self.identities,
                policies=self.access_policies,
                authorities=self.authorities,
                acm=self.acm,
                objects=self.objects,
                signing=self.signing,
            )
            made = await self.work.run(lambda tx: first_start.seed(tx, rooms, place))
        hosts = self._settings.host
        identity = await self.work.run(lambda tx: self.authorities.server_identity(tx, place.account, hosts))
        write_file(self._state.ca_file, identity.authority_pem.encode("ascii"), mode=0o644)
        if made is not None:
            first_start.write_down(self._state, made, place)
        await self._open_doors(identity)
        endpoints = self._endpoints(place)
        self._state.write_endpoints(endpoints)
        self._is_up = True
        logger.info("up", operator_url=endpoints["operator_url"], first_start=self.is_first_start)
        return endpoints

    async def stop(self, *, drain_timeout_s: float) -> None:
        """Let what is in flight end, then close everything in the opposite order of its opening."""
        # One time for all doors: each that waited for its own would add up.
        self._drained_by_s = asyncio.get_running_loop().time() + drain_timeout_s
        while self._undo:
            ended = self._undo.pop()()
            if asyncio.iscoroutine(ended):
                await ended
        if self._is_up:
            logger.info("down")

    def wake_workers(self) -> None:
        """There may be work now. On the event loop."""
        self.workers.wake()

    def _place(self, marker: Marker | None) -> Place:
        if marker is None:
            account = AccountId(self._settings.account) if self._settings.account else first_start.new_account(self._ids)
            return Place(self._settings.region, account)
        asked = self._settings
        if "region" in asked.model_fields_set and asked.region != marker.region:
            raise StateDirectoryRefused(
                f"{self._state.path} is of region {marker.region}, not {asked.region}: the region stands in every ARN and is "
                "fixed at first start. Drop --region, or name another directory."
            )
        if asked.account is not None and asked.account != marker.account:
            raise StateDirectoryRefused(
                f"{self._state.path} is of account {marker.account}, not {asked.account}. "
                "Drop --account, or name another directory."
            )
        return Place(marker.region, marker.account)

    # Composition ----------------------------------------------------------------------------------------------------------

    def _compose(self, place: Place) -> None:
        clock, ids, schedule_clock = self._clock, self._ids, self._schedule_clock

        # Records, and the keys that are wrapped in them.
        self.work = self._open_records()
        self._undo.append(self.work.close)
        upgrade(self.work.engine)
        passphrase = read_passphrase(self._settings.key_passphrase_file) if self._settings.key_passphrase_file else None
        self.secret_box = open_secret_box(self._state.wrapping_key_file, passphrase=passphrase, ids=ids)
        keyring = Keyring(SqlKeyStore(), self.secret_box, clock=clock, ids=ids)
        audit_store = SqlAuditStore()
        audited = AuditedWork(self.work, audit_store, clock=clock, ids=ids)

        # Who may ask: operators, roles, keys.
        identity_store, policy_store = SqlIdentityStore(), SqlAccessPolicyStore()
        grants = GrantsDirectory(identity_store, policy_store)
        credentials = CredentialDirectory(identity_store, self.secret_box)
        self.identities = Identities(identity_store, policy_store, grants, credentials, self.secret_box, clock=clock, ids=ids)
        self.access_policies = Policies(policy_store, identity_store, grants, clock=clock, ids=ids)
        sessions = Sessions(identity_store, grants, self.secret_box, clock=clock, ids=ids)
        access = AccessService(identity_store, grants, clock=clock)

        # Who devices are, and who we are to them.
        certificate_store = SqlCertificateStore()
        self.authorities = AuthoritiesService(store=certificate_store, keys=keyring, clock=clock, ids=ids)
        certificates = CertificatesService(store=certificate_store, clock=clock, ids=ids, authorities=self.authorities)
        self.acm = AcmService(store=certificate_store, keys=keyring, clock=clock, ids=ids)

        # Buckets. What streams hold ready must go with a version or a grant, before whoever took it away is answered.
        descriptors = Descriptors()
        grants.watched_by(descriptors.evict)
        self.contents = ContentStore(self._state.contents, clock=clock, ids=ids)
        self._undo.append(self.contents.close)
        segments = SegmentCache(self.contents)
        object_store, upload_store = SqlObjectStore(), SqlUploadStore()
        bucket_policies = BucketPolicyMemory()
        self.objects = ObjectsService(
            object_store, upload_store, clock=clock, ids=ids, when_gone=(descriptors, bucket_policies)
        )
        uploads = UploadsService(self.objects, upload_store, clock=clock, ids=ids)
        object_lists = ObjectLists(self.objects, object_store, upload_store)

        # The registry, and what its certificates may do.
        thing_store, group_store, device_policy_store = SqlThingStore(), SqlGroupStore(), SqlDevicePolicyStore()
        tags = TagsService(store=SqlTagStore())
        admissions = Admissions(store=SqlAdmissionStore(), certificates=certificates)
        authority = RegistryAuthority(work=self.work, admissions=admissions, clock=clock, region=place.region)
        types = ThingTypesService(store=SqlTypeStore(), tags=tags, clock=clock, ids=ids)
        groups = ThingGroupsService(
            store=group_store,
            things=thing_store,
            policies=device_policy_store,
            tags=tags,
            access_changed=authority,
            clock=clock,
            ids=ids,
        )
        devices = DevicesService(
            store=thing_store,
            types=types,
            groups=groups,
            certificates=certificates,
            access_changed=authority,
            clock=clock,
            ids=ids,
        )
        device_policies = PoliciesService(
            store=device_policy_store,
            groups=group_store,
            things=thing_store,
            certificates=certificates,
            tags=tags,
            access_changed=authority,
            clock=clock,
            ids=ids,
        )
        certificates.used_by(CertificateLinks(policies=device_policy_store, things=thing_store, access_changed=authority))

        # Signing, streams, jobs; and updates, which join them.
        self.signing = SigningService(
            store=SqlSigningStore(),
            clock=clock,
            ids=ids,
            certificates=self.acm,
            keyring=keyring,
            objects=self.objects,
            wake=self.wake_workers,  # the update that waits for a signature goes on as soon as it is there
        )
        self.acm.used_by(self.signing)
        streams = StreamsService(
            store=SqlStreamsStore(), objects=self.objects, roles=access, tags=tags, clock=clock, descriptors=descriptors
        )
        link_keys = LinkKeys(self.secret_box, ids)
        presigner = RolePresigner(roles=access, links=link_keys, clock=schedule_clock, base_url=lambda: self._download_url)
        jobs = JobsService(
            jobs=SqlJobStore(),
            executions=SqlExecutionStore(),
            members=devices,
            groups=groups,
            roles=access,
            presigner=presigner,
            tags=tags,
            clock=schedule_clock,
        )
        groups.watched_by(jobs.planner)
        updates_store = SqlUpdatesStore()
        updates = UpdatesService(
            store=updates_store,
            clock=clock,
            ids=ids,
            access=access,
            objects=self.objects,
            streams=streams,
            jobs=jobs,
            targets=devices,
            tags=tags,
            wake=lambda: self.workers.wake(UpdatesWorker.name),
        )
        saga = Saga(
            store=updates_store,
            clock=clock,
            access=access,
            objects=self.objects,
            signing=self.signing,
            streams=streams,
            jobs=jobs,
        )

        explain = ExplainService(
            devices=devices, groups=groups, certificates=certificates, jobs=jobs, updates=updates, clock=clock
        )

        # The devices' doors.
        limits = AWS if self._settings.limits == "aws" else GENEROUS
        self.broker = Broker(
            work=self.work, store=BrokerStore(), clock=clock, ids=ids, limits_for=lambda _account: limits.broker
        )
        topics = ReservedTopics()
        topics.register(JobTopics(work=self.work, jobs=jobs.device, clock=schedule_clock))
        topics.register(StreamTopics(work=self.work, streams=streams, descriptors=descriptors, contents=segments))
        self.gateway = Gateway(authority=authority, broker=self.broker, topics=topics, limits_for=lambda _account: limits)
        authority.watched_by(self.gateway)

        # The operators' door.
        authenticator = SignatureAuthenticator(
            self.work,
            credentials,
            clock=clock,
            region=place.region,
            schedule_clock=schedule_clock,
            presigned_v2=self._settings.presigned_v2,
            links=link_keys,
        )
        authoriser = PolicyAuthoriser(self.work, grants, identity_store, self.objects, bucket_policies)
        objects_api = ObjectsApi(
            work=audited, objects=self.objects, uploads=uploads, lists=object_lists, contents=self.contents
        )
        self.downloads = PresignedDownloads(authenticator=authenticator, authoriser=authoriser, downloads=objects_api, ids=ids)
        self.operator_door = AwsProtocol(
            authenticator=authenticator,
            authoriser=authoriser,
            ids=ids,
            plain_routes={"/healthz": self._healthz, "/metrics": self._print_metrics},
            observe=self._metrics.observe_request,
        )
        self.operator_door.add(
            IdentityOperatorApi(work=audited, identities=self.identities, sessions=sessions),
            PolicyOperatorApi(work=audited, policies=self.access_policies, identities=self.identities, grants=grants),
            CertificatesOperatorApi(work=audited, certificates=certificates),
            AcmOperatorApi(work=audited, acm=self.acm),
            objects_api,
            DevicesOperatorApi(work=audited, devices=devices, endpoint_host=self._settings.host[0]),
            ThingTypesOperatorApi(work=audited, types=types),
            ThingGroupsOperatorApi(work=audited, groups=groups),
            PoliciesOperatorApi(work=audited, policies=device_policies),
            TagsOperatorApi(work=audited, tags=tags),
            TrialsOperatorApi(
                work=audited,
                trials=TrialsService(admissions=admissions, certificates=certificates, policies=device_policies, clock=clock),
            ),
            SigningOperations(work=audited, signing=self.signing, access=access),
            StreamOperations(work=audited, streams=streams, rights=access),
            JobOperations(work=audited, jobs=jobs, rights=access, objects=self.objects, contents=self.contents),
            JobsDataOperations(work=audited, jobs=jobs.device, clock=schedule_clock),
            UpdateOperations(work=audited, updates=updates, contents=self.contents, after_step=self._after_step),
            ServerStatusOperations(
                work=audited,
                devices=devices,
                jobs=jobs,
                signing=self.signing,
                updates=updates,
                running=Running(
                    version=VERSION,
                    started_at=clock.now(),
                    has_passphrase=self.secret_box.has_passphrase,
                    connected=lambda: self.gateway.connection_count,
                    failing_workers=lambda: self.workers.failing,
                ),
                clock=clock,
            ),
            ExplainOperations(work=audited, explain=explain, presences=self.broker, authority=authority, clock=schedule_clock),
            BrokerOperations(work=audited, broker=self.broker, store=BrokerStore()),
            AuditOperations(work=audited, audit=AuditService(audit_store)),
        )
        for service in self.operator_door.services.values():
            for operation in service.bound:
                if not authoriser.knows(service.name, operation):
                    raise RuntimeError(f"access.actions has no row for {service.name} {operation}: nobody could ever call it.")

        # What goes on by itself.
        self.renewal = ServerCertificateRenewal(
            work=self.work,
            authorities=self.authorities,
            account=place.account,
            hosts=self._settings.host,
            clock=clock,
            show=self._show_identity,
        )
        self.workers = WorkerLoop(
            [
                OutboxRelay(self.work, self._deliver),
                SigningWorker(
                    work=self.work,
                    signing=self.signing,
                    keyring=keyring,
                    objects=self.objects,
                    contents=self.contents,
                    clock=clock,
                    after_step=self._signing_went_on,
                ),
                UpdatesWorker(work=self.work, updates=updates, saga=saga, after_step=self._after_step),
                JobPlanner(work=self.work, planner=jobs.planner, clock=schedule_clock),
                ContentCollector(work=self.work, store=object_store, uploads=upload_store, contents=self.contents, clock=clock),
                SessionExpiry(broker=self.broker, clock=clock),
                self.renewal,
                JobTimers(work=self.work, executions=jobs.executions, clock=schedule_clock),
            ],
            random=Random(),
        )
        jobs.wake_with(lambda: self.workers.wake(JobPlanner.name))

    def _signing_went_on(self, step: str) -> None:
        self._after_step(step)
        self.workers.wake(UpdatesWorker.name)

    def _open_records(self) -> SqlWork:
        if self._settings.database is not None:
            return open_postgresql(self._settings.database, clock=self._clock)
        return open_sqlite(self._state.records_file, clock=self._clock)

    async def _deliver(self, notice: Notice) -> None:
        await self.broker.deliver(notice)

    # Doors ----------------------------------------------------------------------------------------------------------------

    async def _open_doors(self, identity: ServerIdentity) -> None:
        settings = self._settings
        await self.broker.start()
        self._undo.append(self.broker.idle)
        loop = asyncio.get_running_loop()

        def outbox_filled() -> None:
            loop.call_soon_threadsafe(self.workers.wake, OutboxRelay.name)

        self.work.on_commit_with_outbox(outbox_filled)
        self.workers.start()
        self._undo.append(self.workers.stop)
        self.gateway.start()
        self._undo.append(self.gateway.stop)

        operator_http = HttpService(self.operator_door)
        device_http = HttpService(
            DevicePaths(
                [
                    Path(
                        methods=frozenset({"POST"}),
                        prefix="/topics/",
                        application=HttpPublish(gateway=self.gateway, ids=self._ids),
                    ),
                    # Last: whatever path no room has a word for may be a bucket's; the signature in it is the proof.
                    Path(
                        methods=frozenset({"GET", "HEAD"}),
                        prefix="/",
                        application=self.downloads,
                        needs_certificate=False,
                    ),
                ]
            )
        )
        for service in (operator_http, device_http):
            service.start()
            self._undo.append(partial(self._drain, service))

        def listen(port: int, asks: ClientCertificate, alpn: tuple[bytes, ...], accept: Accept) -> TlsListener:
            def context(shown: ServerIdentity) -> SSL.Context:
                return tls_context(shown.certificate_pem, shown.key_pem, client_certificate=asks, alpn=alpn)

            listener = TlsListener(open_socket(settings.bind, port), context(identity), accept)
            self._contexts.append((listener, context))
            self._undo.append(listener.close)
            return listener

        mqtt = self.gateway.protocol
        self.operator_port = listen(settings.operator_port, ClientCertificate.NOT_ASKED, HTTP_ALPN, speak_http(operator_http))
        self.mqtt_port = listen(settings.mqtt_port, ClientCertificate.DEMANDED, MQTT_ALPN, speak_mqtt(mqtt))
        self.device_port = listen(
            settings.device_port, ClientCertificate.ASKED, MQTT_ALPN + HTTP_ALPN, speak_by_alpn(mqtt, device_http)
        )
        self.plain_port: PlainHttpListener | None = None
        if settings.plain_http is not None:
            self.plain_port = PlainHttpListener(open_socket("127.0.0.1", settings.plain_http), operator_http)
        self.renewal.watch(identity)
        # Every socket is ours by now: a taken port was told before any client was served.
        for listener in (self.operator_port, self.mqtt_port, self.device_port):
            listener.start()
            self._undo.append(listener.stop_accepting)
        if self.plain_port is not None:
            await self.plain_port.start()
            self._undo.append(self.plain_port.stop_accepting)

    def _show_identity(self, identity: ServerIdentity) -> None:
        """Who connects from now on sees this certificate; connections that stand go on."""
        for listener, context in self._contexts:
            listener.context = context(identity)

    async def _drain(self, service: HttpService) -> None:
        await service.drain(max(0.0, self._drained_by_s - asyncio.get_running_loop().time()))

    def _endpoints(self, place: Place) -> dict[str, Any]:
        host = self._settings.host[0]
        return {
            "pid": os.getpid(),
            "operator_url": f"https://{host}:{self.operator_port.port}",
            "plain_http_url": f"http://127.0.0.1:{self.plain_port.port}" if self.plain_port else None,
            "mqtt_host": host,
            "mqtt_port": self.mqtt_port.port,
            "device_url": self._download_url,
            "ca_file": str(self._state.ca_file.resolve()),
            "region": place.region,
            "account": place.account,
            "bucket": first_start.default_bucket(place.account),
            "ota_role_arn": first_start.role_arn(place),
            "signing_profile": first_start.PROFILE_NAME,
            "signer_certificate_file": str(self._state.signer_certificate_file.resolve()),
        }

    @property
    def _download_url(self) -> str:
        return self._settings.download_url or f"https://{self._settings.host[0]}:{self.device_port.port}"

    async def _healthz(self, _scope: Any, _receive: Any, send: Any) -> None:
        await _print(send, b"application/json", b'{"status":"ok"}')

    async def _print_metrics(self, _scope: Any, _receive: Any, send: Any) -> None:
        self._metrics.connections.set(self.gateway.connection_count)
        await _print(send, b"text/plain; version=0.0.4; charset=utf-8", self._metrics.text())


async def _print(send: Any, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The composition root: the only file that names concrete classes and says who is joined to whom.

Read it from top to bottom and you have met every room: records, keys, access, certificates, objects, devices, signing, streams,
jobs, updates; then the two doors; then the workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import OverairError
from overair.basics.ids import IdSource
from overair.basics.work import Notice
from overair.server import first_start, tables
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.grants import GrantsDirectory
from overair.server.access.identities import Identities
from overair.server.access.keys import CredentialDirectory
from overair.server.access.operator_api import IdentityOperatorApi
from overair.server.access.policies import Policies
from overair.server.access.policy_operator_api import PolicyOperatorApi
from overair.server.access.policy_store import SqlPolicyStore as SqlAccessPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.sessions import Sessions
from overair.server.access.store import SqlIdentityStore
from overair.server.audit.service import AuditedWork
from overair.server.audit.store import SqlAuditStore
from overair.server.broker.operator_api import BrokerOperations
from overair.server.broker.service import Broker
from overair.server.broker.store import BrokerStore
from overair.server.certificates.acm import AcmService
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.certificates.operator_api import CertificatesOperatorApi
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
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box, read_passphrase
from overair.server.metrics import Metrics
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.signing.operator_api import SigningOperations
from overair.server.signing.service import SigningService
from overair.server.signing.store import SqlSigningStore
from overair.server.signing.worker import SigningWorker
from overair.server.state_directory import Marker, StateDirectory, StateDirectoryRefused
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

logger = structlog.get_logger("overair")

"""Everything that signing stands on, real and joined, over one test's records: keys, certificates, buckets, roles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, BucketName, ObjectKey, RandomIds, SeededIds
from overair.basics.redacted import Redacted
from overair.server.access.grants import GrantsDirectory
from overair.server.access.group_store import SqlUserGroupStore
from overair.server.access.model import Owner, OwnerKind, Role, User
from overair.server.access.policy_store import SqlPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.store import SqlIdentityStore
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.operations import Caller
from overair.server.certificates.acm import AcmImport, AcmService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.keyring.holders import KeyHolders
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import ObjectVersion, Versioning
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.signing.operator_api import SigningOperations
from overair.server.signing.permissions import ProfilePermissions
from overair.server.signing.service import SigningService
from overair.server.signing.store import SqlSigningStore
from overair.server.signing.worker import SigningWorker
from overair.server.storage.work import SqlWork
from tests.support.code_signing import Credential

BUCKET = BucketName("firmware")
PLATFORM = "AmazonFreeRTOS-Default"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


def policy(*statements: tuple[str, str | Sequence[str], str | Sequence[str]]) -> str:
    """A policy document of (effect, actions, resources)."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": effect, "Action": action, "Resource": to} for effect, action, to in statements],
        }
    )


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


class SigningRoad:
    """The rooms up to signing, over ``work``."""

    holders: KeyHolders | None = None
    """Set before ``compose`` where keys lie elsewhere."""

    def __init__(self, work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, folder: Path) -> None:
        self.work, self.clock, self.ids, self.place, self.folder = work, clock, ids, place, folder
        self.steps: list[str] = []
        self.compose()

    def compose(self) -> None:
        """Build every service anew over the same records and files, as a restarted process would."""
        clock, ids = self.clock, self.ids
        box = open_secret_box(self.folder / "wrapping.key", passphrase=None, ids=RandomIds())
        self.keyring = Keyring(SqlKeyStore(), box, clock=clock, ids=ids, holders=self.holders)
        self.acm = AcmService(store=SqlCertificateStore(), keys=self.keyring, clock=clock, ids=ids)
        self.contents = ContentStore(self.folder / "contents", clock=clock, ids=ids)
        self.objects = ObjectsService(SqlObjectStore(), SqlUploadStore(), clock=clock, ids=ids)
        self.identities, self.policies = SqlIdentityStore(), SqlPolicyStore()
        self.access = AccessService(
            self.identities, GrantsDirectory(self.identities, self.policies, SqlUserGroupStore()), clock=clock
        )
        self.signing = SigningService(
            store=SqlSigningStore(),
            clock=clock,
            ids=ids,
            certificates=self.acm,
            keyring=self.keyring,
            objects=self.objects,
        )
        self.signing_worker = SigningWorker(
            work=self.work,
            signing=self.signing,
            keyring=self.keyring,
            objects=self.objects,
            contents=self.contents,
            clock=clock,
            after_step=self.after_step,
            trail=AuditTrail(SqlAuditStore(), clock=clock, ids=RandomIds()),
        )
        self.signer_api = SigningOperations(
            work=self.work, signing=self.signing, permissions=ProfilePermissions(SqlSigningStore()), access=self.access
        )

    def after_step(self, step: str) -> None:
        self.steps.append(step)

    @property
    def account(self) -> AccountId:
        return self.place.account

    def caller(self, user: str | None = None) -> Caller:
        """The root, or a user."""
        arn = self.place.iam(f"user/{user}") if user else self.place.iam("root")
        return Caller(
            place=self.place,
            principal_arn=arn,
            user_id="AIDA",
            access_key_id="AKIA",
            now=self.clock.now(),
            is_root=user is None,
        )

    def make_user(self, name: str, document: str) -> None:
        user = User(account=self.account, name=name, path="/", user_id="AIDA" + name, created=self.clock.now())
        self.work.run_blocking(lambda tx: self.identities.add_user(tx, user))
        self.grant(Owner(kind=OwnerKind.USER, name=name), document)

    def make_role(self, name: str, document: str, *, trust: str = TRUST) -> str:
        """A role with one inline policy; its ARN."""
        role = Role(
            account=self.account,
            name=name,
            path="/",
            role_id="AROA" + name,
            created=self.clock.now(),
            trust_document=trust,
            description="",
            session_s_max=3600,
        )
        self.work.run_blocking(lambda tx: self.identities.add_role(tx, role))
        self.grant(Owner(kind=OwnerKind.ROLE, name=name), document)
        return role.arn

    def grant(self, owner: Owner, document: str) -> None:
        self.work.run_blocking(lambda tx: self.policies.put_inline(tx, self.account, owner, "inline", document))

    def make_bucket(self, name: str = BUCKET, versioning: Versioning = Versioning.ENABLED) -> None:
        self.work.run_blocking(lambda tx: self.objects.create_bucket(tx, self.place, name, versioning=versioning))

    async def upload(self, key: str, data: bytes, *, bucket: str = BUCKET) -> ObjectVersion:
        content = await self.contents.store(in_pieces(data))
        return await self.work.run(lambda tx: self.objects.put(tx, self.place, bucket, key, content))

    async def download(self, bucket: str, key: str, version: str | None = None) -> bytes:
        found = await self.work.read(lambda tx: self.objects.find(tx, self.place, bucket, key, version))
        return await whole(self.contents.stream(found.content_id, 0, found.size_bytes))

    def import_certificate(self, credential: Credential) -> str:
        """The ARN that ACM gives it."""
        given = AcmImport.read(
            certificate_pem=credential.certificate_pem,
            private_key_pem=Redacted(credential.key_pem),
            chain_pem=credential.chain_pem,
        )
        return self.work.run_blocking(lambda tx: self.acm.import_certificate(tx, self.place, given)).arn

    async def make_profile(self, name: str, certificate_arn: str, **more: Any) -> Mapping[str, Any]:
        request = {
            "profileName": name,
            "platformId": PLATFORM,
            "signingMaterial": {"certificateArn": certificate_arn},
            **more,
        }
        return await self.signer_api.put_signing_profile(self.caller(), request)

    async def start(
        self, profile: str, source: ObjectVersion, *, token: str = "t-1", user: str | None = None, **more: Any
    ) -> str:
        """StartSigningJob into ``SignedImages/`` of the same bucket; the job's id."""
        request = {
            "profileName": profile,
            "source": {"s3": {"bucketName": source.bucket, "key": source.key, "version": source.version_id}},
            "destination": {"s3": {"bucketName": source.bucket, "prefix": "SignedImages/"}},
            "clientRequestToken": token,
            **more,
        }
        answer = await self.signer_api.start_signing_job(self.caller(user), request)
        return str(answer["jobId"])

    async def versions(self, key: ObjectKey | str, bucket: str = BUCKET) -> list[str]:
        """Version ids of a key, oldest first."""
        from sqlalchemy import select

        from overair.server.objects.store import versions
        from overair.server.storage.work import sql

        query = (
            select(versions.c.version_id)
            .where(versions.c.account == self.account, versions.c.bucket == bucket, versions.c.key == key)
            .order_by(versions.c.sequence)
        )
        return await self.work.read(lambda tx: [row[0] for row in sql(tx).execute(query)])

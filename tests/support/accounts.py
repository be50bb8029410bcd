"""One server with several accounts, each with something of everything in it, and signed requests of every door."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from sqlalchemy import Table, select

from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, RandomIds
from overair.basics.work import Tx
from overair.server import first_start
from overair.server.app import Server, build_server
from overair.server.config import Settings
from overair.server.storage.schema import metadata
from overair.server.storage.work import sql
from tests.support import pki
from tests.support.listening import EventLoopThread, loop_thread
from tests.support.model_walk import NOT_SENT, ModelWalk, Wire, signed
from tests.support.server_process import new_client

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
_LABEL = re.compile(r"\{(\w+)(?::path)?\}")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Accounts:
    """A server that runs, and the root's keys of each account in it."""

    def __init__(self, server: Server, thread: EventLoopThread, endpoints: dict[str, Any], root_key: Path) -> None:
        self.server, self.thread, self.endpoints = server, thread, endpoints
        self.keys = {AccountId(endpoints["account"]): json.loads(root_key.read_text())}
        self._pool = urllib3.PoolManager(retries=False, maxsize=2)

    def add(self, account: AccountId) -> None:
        """Another account, made by the first one's root."""
        made = self.client("overair", AccountId(self.endpoints["account"])).create_account(accountId=account)
        self.keys[account] = {"access_key_id": made["accessKeyId"], "secret_access_key": made["secretAccessKey"]}

    def client(self, service: str, account: AccountId) -> Any:
        key = self.keys[account]
        return new_client(
            service,
            endpoint_url=self.endpoints["plain_http_url"],
            region_name=self.endpoints["region"],
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
        )

    def bound(self, walk: ModelWalk) -> list[tuple[str, str]]:
        """Every operation of the AWS door that the server has."""
        services = self.server.joined.operator_door.services
        bound = {(service, operation) for service, held in services.items() for operation in held.bound}
        walked = [each for each in walk.operations() if each in bound]
        # Whatever a room offers is walked: there is no list to forget it on.
        assert bound - set(walked) <= {("s3", operation) for operation in NOT_SENT}
        return walked

    def send(self, wire: Wire, account: AccountId, *, service: str) -> Answer:
        """One request, signed by an account's root. ``service`` is the signing name."""
        url, region = self.endpoints["plain_http_url"], self.endpoints["region"]
        address, headers = signed(wire, url, self.keys[account], service=service, region=region)
        answer = self._pool.request(wire.method, address, body=wire.body, headers=headers)
        return Answer(answer.status, answer.data)

    def rest_requests(self, names: dict[str, str], *, reads_alone: bool) -> Iterator[tuple[str, Wire]]:
        """One request for every route of plain REST, with these names for the labels that they know."""
        for route, _ in self.server.joined.rest_door.bound:
            if reads_alone and route.method != "GET":
                continue
            path = _LABEL.sub(lambda found: names.get(found.group(1).lower(), "unknown"), route.template)
            body = b"" if route.method in ("GET", "DELETE") else b"{}"
            headers = {} if not body else {"Content-Type": "application/json"}
            yield f"{route.method} {route.template}", Wire(route.method, path, [], headers, body)

    def rows_of(self, account: AccountId) -> dict[str, list[Any]]:
        """Everything that the records hold of an account, by table; but for when its keys were used and what was read or
        denied, which is told later."""

        def rows(tx: Tx, table: Table) -> list[Any]:
            columns = [column for column in table.c if not column.name.startswith("used_")]
            query = select(*columns).where(table.c.account == account)
            if table.name == "audit_records":
                query = query.where(table.c.kind == "change").with_only_columns(
                    *[column for column in columns if column.name not in ("sequence", "chain_hash")]
                )
            return sorted(sql(tx).execute(query).all(), key=repr)

        def read(tx: Tx) -> dict[str, list[Any]]:
            return {
                table.name: rows(tx, table)
                for table in metadata.sorted_tables
                if "account" in table.c and not table.name.startswith("test_")  # other tests' own tables
            }

        return self.thread.run(self.server.joined.work.read(read))


@contextmanager
def server_of_accounts(data: Path, first: AccountId, *others: AccountId) -> Iterator[Accounts]:
    settings = Settings(data=data, account=first, operator_port=0, mqtt_port=0, device_port=0, plain_http=0)
    server = build_server(settings, clock=WallClock(), ids=RandomIds())
    with loop_thread() as thread:
        endpoints = thread.run(server.start())
        try:
            accounts = Accounts(server, thread, endpoints, data / "root-key.json")
            for other in others:
                accounts.add(other)
            yield accounts
        finally:
            thread.run(server.stop(drain_timeout_s=1))


def furnish(accounts: Accounts, account: AccountId, *, prefix: str, secret: str, sign: bool = True) -> dict[str, str]:
    """Something of everything in an account; names by member. ``sign``: wait for a signed object, which needs the workers."""
    iot, s3, iam = (accounts.client(service, account) for service in ("iot", "s3", "iam"))
    bucket = first_start.default_bucket(account)
    role = f"arn:aws:iam::{account}:role/{first_start.ROLE_NAME}"
    thing = iot.create_thing(thingName=f"{prefix}-thing", attributePayload={"attributes": {"a": secret}})["thingArn"]
    iot.create_thing_type(thingTypeName=f"{prefix}-type")
    group = iot.create_thing_group(thingGroupName=f"{prefix}-group")["thingGroupArn"]
    iot.add_thing_to_thing_group(thingGroupName=f"{prefix}-group", thingName=f"{prefix}-thing")
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    policy = iot.create_policy(policyName=f"{prefix}-policy", policyDocument=POLICY)["policyArn"]
    iot.attach_policy(policyName=f"{prefix}-policy", target=certificate["certificateArn"])
    iot.attach_thing_principal(thingName=f"{prefix}-thing", principal=certificate["certificateArn"])
    version = s3.put_object(Bucket=bucket, Key=f"{prefix}-key", Body=secret.encode())["VersionId"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}-upload")["UploadId"]
    where = {"bucket": bucket, "key": f"{prefix}-key", "version": version}
    iot.create_stream(streamId=f"{prefix}-stream", roleArn=role, files=[{"fileId": 0, "s3Location": where}])
    job = iot.create_job(jobId=f"{prefix}-job", targets=[thing, group], document=json.dumps({"a": secret}))["jobArn"]
    iam.create_user(UserName=f"{prefix}-user", Tags=[{"Key": "a", "Value": secret}])
    iam.create_group(GroupName=f"{prefix}-team")
    iam.add_user_to_group(GroupName=f"{prefix}-team", UserName=f"{prefix}-user")
    iam.put_group_policy(GroupName=f"{prefix}-team", PolicyName=f"{prefix}-inline", PolicyDocument=POLICY)
    key = iam.create_access_key(UserName=f"{prefix}-user")["AccessKey"]["AccessKeyId"]
    own = iam.create_policy(PolicyName=f"{prefix}-managed", PolicyDocument=POLICY)["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName=f"{prefix}-user", PermissionsBoundary=own)
    signer = accounts.client("acm", account).list_certificates()["CertificateSummaryList"][0]["CertificateArn"]
    signing = accounts.client("signer", account).start_signing_job(
        source={"s3": {"bucketName": bucket, "key": f"{prefix}-key", "version": version}},
        destination={"s3": {"bucketName": bucket, "prefix": "SignedImages/"}},
        profileName=first_start.PROFILE_NAME,
    )["jobId"]
    overair = accounts.client("overair", account)
    credential = overair.create_provisioning_credential(name=secret)["credential"]["credentialId"]
    root = pki.authority(f"{prefix} root").pem
    (authority,) = overair.register_fleet_certificate_authority(certificatePem=root)["authorities"]
    overair.block_device(thingName=f"{prefix}-blocked", reason=secret)
    overair.block_certificate(certificateId=prefix[0].encode().hex() * 32, reason=secret)
    if sign:
        accounts.client("signer", account).get_waiter("successful_signing_job").wait(jobId=signing, WaiterConfig={"Delay": 1})
    return {
        "thingname": f"{prefix}-thing",
        "device": f"{prefix}-thing",
        "thingarn": thing,
        "thingtypename": f"{prefix}-type",
        "thinggroupname": f"{prefix}-group",
        "thinggrouparn": group,
        "parentgroupname": f"{prefix}-group",
        "policyname": f"{prefix}-policy",
        "policydocument": POLICY,
        "certificateid": certificate["certificateId"],
        "certificatearn": signer,
        "principal": certificate["certificateArn"],
        "target": certificate["certificateArn"],
        "streamid": f"{prefix}-stream",
        "jobid": f"{prefix}-job",
        "rolearn": role,
        "rolename": first_start.ROLE_NAME,
        "username": f"{prefix}-user",
        "groupname": f"{prefix}-team",
        "policysourcearn": f"arn:aws:iam::{account}:user/{prefix}-user",
        "permissionsboundary": own,
        "credentialid": credential,
        "authorityid": authority["authorityId"],
        "accesskeyid": key,
        "policyarn": own,
        "bucket": bucket,
        "key": f"{prefix}-key",
        "versionid": version,
        "uploadid": upload,
        "copysource": f"{bucket}/{prefix}-key",
        "resourcearn": random.Random(1).choice((thing, job, policy)),
    }

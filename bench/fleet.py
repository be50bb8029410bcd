"""A server with devices that may load it: things, certificates, one policy, a stream, a job."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.mqtt_load import Endpoint, Identity
from bench.processes import Overair

IMAGE_SIZE_BYTES = 1024 * 1024
STREAM = "bench-stream"
JOB = "bench-job"
POLICY = "bench-devices"
ROLLOUT_TIMEOUT_S = 30.0
_ALLOW_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


class Fleet:
    """Devices of one server. Their policy allows each of them everything: what is measured is the matching, not the policy."""

    def __init__(self, overair: Overair, work: Path) -> None:
        self.overair = overair
        self._work = work
        self._iot: Any = overair.target(tls=False).client("iot")
        self._iot.create_policy(policyName=POLICY, policyDocument=_ALLOW_ALL)
        self.identities: list[Identity] = []

    @property
    def endpoint(self) -> Endpoint:
        at = self.overair.endpoints
        return Endpoint(host=at["mqtt_host"], port=at["mqtt_port"], ca=Path(at["ca_file"]))

    def enroll(self, count: int) -> Sequence[Identity]:
        """The first ``count`` devices; those that aren't there yet are made."""
        for number in range(len(self.identities), count):
            self.identities.append(self._enrolled(f"bench-device-{number}"))
        return self.identities[:count]

    def _enrolled(self, thing: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, thing)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        issued = self._iot.create_certificate_from_csr(
            certificateSigningRequest=request.public_bytes(serialization.Encoding.PEM).decode(), setAsActive=True
        )
        self._iot.create_thing(thingName=thing)
        self._iot.attach_policy(policyName=POLICY, target=issued["certificateArn"])
        self._iot.attach_thing_principal(thingName=thing, principal=issued["certificateArn"])
        certificate, key_file = self._work / f"{thing}.pem", self._work / f"{thing}.key"
        certificate.write_text(issued["certificatePem"])
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return Identity(thing=thing, certificate=certificate, key=key_file)

    def offer_stream(self) -> str:
        """A stream of one random image of ``IMAGE_SIZE_BYTES``; its id."""
        at = self.overair.endpoints
        s3 = self.overair.target(tls=False).client("s3")
        s3.put_object(Bucket=at["bucket"], Key="bench-image", Body=os.urandom(IMAGE_SIZE_BYTES))
        self._iot.create_stream(
            streamId=STREAM,
            files=[{"fileId": 0, "s3Location": {"bucket": at["bucket"], "key": "bench-image"}}],
            roleArn=at["ota_role_arn"],
        )
        return STREAM

    def offer_jobs(self, identities: Sequence[Identity]) -> list[str]:
        """A job for each of them; their ids, when each thing has its execution."""
        at = self.overair.endpoints
        jobs = []
        for identity in identities:
            job = f"{JOB}-{identity.thing}"
            arn = f"arn:aws:iot:{at['region']}:{at['account']}:thing/{identity.thing}"
            self._iot.create_job(jobId=job, targets=[arn], document='{"do":"it"}', targetSelection="SNAPSHOT")
            jobs.append(job)
        until = time.perf_counter() + ROLLOUT_TIMEOUT_S
        for identity, job in zip(identities, jobs, strict=True):
            while not self._has_execution(identity.thing, job):
                if time.perf_counter() > until:
                    raise TimeoutError(f"{identity.thing} got no execution of {job}")
                time.sleep(0.05)
        return jobs

    def _has_execution(self, thing: str, job: str) -> bool:
        try:
            self._iot.describe_job_execution(jobId=job, thingName=thing)
        except self._iot.exceptions.ResourceNotFoundException:
            return False
        return True

"""A signer's certificate is replaced: shipped ahead under the old one, then imported over it, then the old one is retired."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from overair.agent.image_builder import build_image
from overair.wire.trust_document import parse_trust
from tests.cli.test_ship import run
from tests.support.code_signing import credential
from tests.support.device_process import DeviceProcess
from tests.support.server_process import ServerProcess


def test_a_certificate_is_shipped_ahead_imported_over_the_old_one_and_the_old_one_retired(
    server: ServerProcess, tmp_path: Path
) -> None:
    old, new = credential(name="Signer 2026"), credential(name="Signer 2027")
    for name, pair in (("old", old), ("new", new)):
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate_pem)
    acm, signer = server.client("acm"), server.client("signer")
    arn = acm.import_certificate(Certificate=old.certificate_pem, PrivateKey=old.key_pem)["CertificateArn"]
    profile = f"rotating_{uuid.uuid4().hex[:8]}"
    signer.put_signing_profile(
        profileName=profile,
        platformId="AmazonFreeRTOS-Default",
        signingMaterial={"certificateArn": arn},
        signingParameters={"certname": "/trust/rotating.pem"},
    )
    device = DeviceProcess(server, f"rotating-{uuid.uuid4().hex[:8]}", tmp_path / "device")
    device.enroll(build_image("app", "1.0.0", "posix"))
    anchor = device.directory.trust / "rotating.pem"
    anchor.write_bytes(old.certificate_pem)
    device.boot()

    def ship(file: Path, *flags: str) -> dict[str, Any]:
        words = ["--to", device.name, "--profile", profile, "--watch", "--json", "--timeout", "90", "--data", server.data]
        shipped = run("ship", file, *flags, *words)
        assert shipped.returncode == 0, f"{shipped.stderr}\n{shipped.stdout}"
        return dict(json.loads(shipped.stdout))

    def trust(*names: str) -> list[str]:
        out = tmp_path / f"{'-'.join(names)}.trust"
        serial = str(len(names) % 2 + 1)  # both first, then the new one alone
        made = run("sign", "trust", "rotating", *[tmp_path / f"{name}.pem" for name in names], "--serial", serial, "--out", out)
        assert made.returncode == 0, made.stderr
        ship(out, "--trust")
        return [each.fingerprint for each in parse_trust(anchor.read_bytes()).signers]

    try:
        assert len(trust("old", "new")) == 2
        assert acm.import_certificate(CertificateArn=arn, Certificate=new.certificate_pem, PrivateKey=new.key_pem) is not None
        image = tmp_path / "app-2.0.0.zip"
        image.write_bytes(build_image("app", "2.0.0", "posix"))
        job = ship(image)["job"]
        assert device.status()["version"] == "2.0.0"
        assert len(trust("new")) == 1
        assert device.status()["version"] == "2.0.0"

        version = signer.get_signing_profile(profileName=profile)["profileVersion"]
        jobs = [job for job in signer.list_signing_jobs(status="Succeeded")["jobs"] if job["profileName"] == profile]
        signer.revoke_signing_profile(
            profileName=profile, profileVersion=version, reason="the key was stolen", effectiveTime=jobs[1]["createdAt"]
        )
        why = json.loads(run("why", job, "--job", "--json", "--data", server.data).stdout)
        assert why["job"] == job
        assert any("the key was stolen" in reason for reason in why["reasons"])
        refused = run("ship", image, "--to", device.name, "--profile", profile, "--json", "--data", server.data)
        assert refused.returncode == 2
        assert "is Revoked" in refused.stderr
    finally:
        device.stop()

"""Profiles and signing jobs on both databases, with real keys, certificates and buckets below them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import update as sql_update

from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound, Unavailable
from overair.basics.ids import ObjectKey, SigningProfileName
from overair.server.audit.model import AuditKind
from overair.server.audit.store import SqlAuditStore
from overair.server.certificates.store import acm_certificates
from overair.server.objects.model import StoredContent
from overair.server.signing.worker import SIGNED
from overair.server.storage.work import sql
from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from tests.support.code_signing import Credential, credential, version_1_certificate_pem
from tests.support.signing_road import BUCKET, SigningRoad, policy

IMAGE = bytes(range(256)) * 4099
DAY_MS = 24 * 3600 * 1000


async def described(road: SigningRoad, job: str) -> dict[str, Any]:
    return dict(await road.signer_api.describe_signing_job(road.caller(), {"jobId": job}))


async def sign(road: SigningRoad, certificate_arn: str, image: bytes = IMAGE, **profile: Any) -> dict[str, Any]:
    """Sign one image with a new profile; DescribeSigningJob's answer."""
    await road.make_profile("signer", certificate_arn, **profile)
    source = await road.upload("fw.bin", image)
    job = await road.start("signer", source)
    assert (await described(road, job))["status"] == "InProgress"
    assert await road.signing_worker.run_once()
    return await described(road, job)


@pytest.mark.parametrize(
    ("kind", "algorithm", "word"),
    [
        ("ec", SignatureAlgorithm.ECDSA_SHA256, "SHA256withECDSA"),
        ("rsa-2048", SignatureAlgorithm.RSA_SHA256, "SHA256withRSA"),
    ],
)
async def test_a_signed_object_holds_the_image_and_a_signature_that_devices_verify(
    road: SigningRoad, kind: str, algorithm: SignatureAlgorithm, word: str
) -> None:
    signer = credential(kind=kind)
    job = await sign(road, road.import_certificate(signer))
    assert job["status"] == "Succeeded"
    at = job["signedObject"]["s3"]
    assert at == {"bucketName": BUCKET, "key": f"SignedImages/{job['jobId']}"}
    signed = json.loads(await road.download(at["bucketName"], at["key"]))
    assert signed["rawPayloadSize"] == len(IMAGE)
    assert signed["signatureAlgorithm"] == word
    assert base64.b64decode(signed["payload"]) == IMAGE
    signature = base64.b64decode(signed["signature"])
    public_key = signer.key.public_key()
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, IMAGE, ec.ECDSA(hashes.SHA256()))
    else:
        public_key.verify(signature, IMAGE, padding.PKCS1v15(), hashes.SHA256())
    verified = verify_image_signature(
        [IMAGE], signature=signature, algorithm=algorithm, signer=load_signer_certificate(signer.certificate_pem)
    )
    assert verified.sha256 == hashlib.sha256(IMAGE).hexdigest()


async def test_a_detached_signed_object_names_the_image_instead_of_holding_it(road: SigningRoad) -> None:
    arn = road.import_certificate(credential())
    job = await sign(road, arn, overrides={"signingImageFormat": "JSONDetached"})
    signed = json.loads(await road.download(BUCKET, job["signedObject"]["s3"]["key"]))
    assert signed["payloadLocation"]["s3"] == {
        "bucketName": BUCKET,
        "key": "fw.bin",
        "version": job["source"]["s3"]["version"],
    }
    assert "payload" not in signed


async def test_the_ti_platform_signs_with_sha_1_and_no_other_does(road: SigningRoad) -> None:
    signer = credential(kind="rsa-2048")
    arn = road.import_certificate(signer)
    job = await sign(road, arn, platformId="AmazonFreeRTOS-TI-CC3220SF")
    signed = json.loads(await road.download(BUCKET, job["signedObject"]["s3"]["key"]))
    assert signed["signatureAlgorithm"] == "SHA1withRSA"
    public_key = signer.key.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    public_key.verify(base64.b64decode(signed["signature"]), IMAGE, padding.PKCS1v15(), hashes.SHA1())
    with pytest.raises(InvalidRequest, match="not RSA with SHA1"):
        await road.make_profile("other", arn, overrides={"signingConfiguration": {"hashAlgorithm": "SHA1"}})


async def test_an_override_that_contradicts_the_key_is_refused(road: SigningRoad) -> None:
    arn = road.import_certificate(credential(kind="ec"))
    with pytest.raises(InvalidRequest, match="asks for RSA but the certificate holds an ECDSA key"):
        await road.make_profile("signer", arn, overrides={"signingConfiguration": {"encryptionAlgorithm": "RSA"}})


# What profiles and jobs demand of their certificate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (credential(digital_signature=None), "no KeyUsage"),
        (credential(purposes=None), "no ExtendedKeyUsage"),
        (credential(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "doesn't contain codeSigning"),
    ],
    ids=["no key usage", "no extended key usage", "another purpose"],
)
async def test_a_profile_refuses_a_certificate_that_acm_takes_but_that_cannot_sign_code(
    road: SigningRoad, unfit: Credential, reason: str
) -> None:
    arn = road.import_certificate(unfit)
    with pytest.raises(InvalidRequest, match=reason):
        await road.make_profile("signer", arn)


async def test_a_profile_refuses_a_version_1_certificate(road: SigningRoad) -> None:
    fit = credential()
    old = Credential(key=fit.key, certificate=x509.load_pem_x509_certificate(version_1_certificate_pem(fit)))
    arn = road.import_certificate(old)
    with pytest.raises(InvalidRequest, match="version 1"):
        await road.make_profile("signer", arn)


async def test_a_signature_leaves_one_audit_row_for_whoever_asked_for_it(road: SigningRoad) -> None:
    done = await sign(road, road.import_certificate(credential()))
    rows = await road.work.read(lambda tx: SqlAuditStore().in_chain_order(tx, road.account, after=None, limit=9))
    assert [(row.kind, row.principal_arn, row.resource) for row in rows] == [
        (AuditKind.SIGNATURE, done["requestedBy"], road.place.signer(f"/signing-jobs/{done['jobId']}"))
    ]


async def test_a_certificate_that_expires_stops_profiles_and_jobs_but_not_what_was_signed(road: SigningRoad) -> None:
    arn = road.import_certificate(credential(days=30))
    done = await sign(road, arn)
    source = await road.upload("next.bin", b"next")
    waiting = await road.start("signer", source, token="t-2")
    road.clock.advance(milliseconds=31 * DAY_MS)
    with pytest.raises(InvalidRequest, match="expired on"):
        await road.start("signer", source, token="t-3")
    with pytest.raises(InvalidRequest, match="expired on"):
        await road.make_profile("other", arn)
    assert await road.signing_worker.run_once()
    failed = await described(road, waiting)
    assert failed["status"] == "Failed"
    assert "expired on" in failed["statusReason"]
    assert (await described(road, done["jobId"]))["status"] == "Succeeded"


async def test_a_key_that_is_not_the_certificates_is_noticed_before_it_signs(road: SigningRoad) -> None:
    arn, other = road.import_certificate(credential()), road.import_certificate(credential())
    other_key = road.work.read_blocking(lambda tx: road.acm.describe(tx, road.place, other)).key_id
    # No operation does this; a restored or tampered record could.
    change = sql_update(acm_certificates).where(acm_certificates.c.id == arn.rpartition("/")[2]).values(key_id=other_key)
    road.work.run_blocking(lambda tx: sql(tx).execute(change))
    with pytest.raises(InvalidRequest, match="belongs to another certificate"):
        await road.make_profile("signer", arn)


async def test_a_leaf_issued_by_an_authority_signs_with_its_chain(road: SigningRoad) -> None:
    leaf = credential(issuer=credential(name="Root", authority=True))
    job = await sign(road, road.import_certificate(leaf))
    assert job["status"] == "Succeeded"
    assert road.work.read_blocking(lambda tx: road.signing.testing_only_profiles(tx, road.account)) == []


async def test_a_self_signed_certificate_shows_as_testing_only(road: SigningRoad) -> None:
    await sign(road, road.import_certificate(credential()))
    assert road.work.read_blocking(lambda tx: road.signing.testing_only_profiles(tx, road.account)) == ["signer"]


async def test_a_profile_of_a_certificate_that_is_not_there_is_refused(road: SigningRoad) -> None:
    with pytest.raises(NotFound):
        await road.make_profile("signer", road.place.acm("00000000-0000-4000-8000-000000000000"))
    with pytest.raises(InvalidRequest, match="no ACM certificate"):
        await road.make_profile("signer", road.place.iam("role/r"))


# Profiles -----------------------------------------------------------------------------------------------------------------


async def test_the_same_profile_again_is_the_same_version_and_a_change_is_a_new_one(road: SigningRoad) -> None:
    arn = road.import_certificate(credential())
    first = await road.make_profile("signer", arn, signingParameters={"certname": "/anchor.pem"})
    again = await road.make_profile("signer", arn, signingParameters={"certname": "/anchor.pem"})
    changed = await road.make_profile("signer", arn, signingParameters={"certname": "/other.pem"})
    assert again == first
    assert changed["profileVersion"] != first["profileVersion"]
    assert changed["arn"] == first["arn"] == road.place.signer("/signing-profiles/signer")
    shown = await road.signer_api.get_signing_profile(road.caller(), {"profileName": "signer"})
    assert shown["profileVersion"] == changed["profileVersion"]
    assert shown["signingParameters"] == {"certname": "/other.pem"}
    assert shown["status"] == "Active"


async def test_a_cancelled_profile_signs_nothing_more_and_its_name_stays_taken(road: SigningRoad) -> None:
    arn = road.import_certificate(credential())
    await road.make_profile("signer", arn)
    source = await road.upload("fw.bin", IMAGE)
    for _ in range(2):
        await road.signer_api.cancel_signing_profile(road.caller(), {"profileName": "signer"})
    with pytest.raises(InvalidRequest, match="is Canceled"):
        await road.start("signer", source)
    with pytest.raises(InvalidRequest, match="name stays taken"):
        await road.make_profile("signer", arn)
    listed = await road.signer_api.list_signing_profiles(road.caller(), {})
    assert listed["profiles"] == []
    listed = await road.signer_api.list_signing_profiles(road.caller(), {"includeCanceled": True})
    assert [profile["status"] for profile in listed["profiles"]] == ["Canceled"]


async def test_a_certificate_is_in_use_while_an_active_profile_names_it(road: SigningRoad) -> None:
    arn = road.import_certificate(credential())
    road.acm.used_by(road.signing)
    await road.make_profile("signer", arn)
    with pytest.raises(Conflict):
        road.work.run_blocking(lambda tx: road.acm.delete(tx, road.place, arn))
    await road.signer_api.cancel_signing_profile(road.caller(), {"profileName": "signer"})
    road.work.run_blocking(lambda tx: road.acm.delete(tx, road.place, arn))


async def test_profiles_are_listed_in_pages_by_name(road: SigningRoad) -> None:
    arn = road.import_certificate(credential())
    for name in ("bb", "aa", "cc"):
        await road.make_profile(name, arn)
    names, token = [], None
    for _ in range(3):
        request = {"maxResults": 1, **({"nextToken": token} if token else {})}
        page = await road.signer_api.list_signing_profiles(road.caller(), request)
        names += [profile["profileName"] for profile in page["profiles"]]
        token = page["nextToken"]
    assert (names, token) == (["aa", "bb", "cc"], None)


async def test_tags_of_a_profile_are_set_changed_and_taken_away(road: SigningRoad) -> None:
    arn = (await road.make_profile("signer", road.import_certificate(credential()), tags={"a": "1"}))["arn"]
    await road.signer_api.tag_resource(road.caller(), {"resourceArn": arn, "tags": {"b": "2", "a": "3"}})
    await road.signer_api.untag_resource(road.caller(), {"resourceArn": arn, "tagKeys": ["b", "nothing"]})
    assert await road.signer_api.list_tags_for_resource(road.caller(), {"resourceArn": arn}) == {"tags": {"a": "3"}}
    with pytest.raises(NotFound):
        await road.signer_api.list_tags_for_resource(road.caller(), {"resourceArn": arn + "x"})
    with pytest.raises(InvalidRequest):
        await road.signer_api.list_tags_for_resource(road.caller(), {"resourceArn": road.place.iot("thing", "t")})


async def test_a_revoked_profile_version_signs_nothing_more(road: SigningRoad) -> None:
    profile = await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    request = {
        "profileName": "signer",
        "profileVersion": profile["profileVersion"],
        "reason": "the key was stolen",
        "effectiveTime": road.clock.now(),
    }
    await road.signer_api.revoke_signing_profile(road.caller(), request)
    shown = await road.signer_api.get_signing_profile(road.caller(), {"profileName": "signer"})
    assert (shown["status"], shown["statusReason"]) == ("Revoked", "the key was stolen")
    assert shown["revocationRecord"]["revokedBy"] == road.caller().principal_arn
    with pytest.raises(InvalidRequest, match="is Revoked"):
        await road.start("signer", source)


# Jobs ---------------------------------------------------------------------------------------------------------------------


async def test_the_same_token_is_the_same_job_and_another_plan_under_it_is_refused(road: SigningRoad) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    job = await road.start("signer", source)
    assert await road.start("signer", source) == job
    with pytest.raises(InvalidRequest, match="already started another job"):
        await road.start("signer", await road.upload("other.bin", b"other"))
    assert await road.signing_worker.run_once()
    assert not await road.signing_worker.run_once()
    assert await road.start("signer", source) == job
    assert len(await road.versions(f"SignedImages/{job}")) == 1


async def test_a_job_whose_worker_is_cut_before_its_commit_is_done_again_with_one_signed_object(
    road: SigningRoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    job = await road.start("signer", await road.upload("fw.bin", IMAGE))

    class PowerCut(BaseException):
        pass

    def cut(*_: object, **__: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(road.signing_worker, "_end", cut)
        with pytest.raises(PowerCut):
            await road.signing_worker.run_once()
    road.contents.close()
    road.compose()
    assert (await described(road, job))["status"] == "InProgress"
    assert await road.signing_worker.run_once()
    assert (await described(road, job))["status"] == "Succeeded"
    assert len(await road.versions(f"SignedImages/{job}")) == 1
    assert road.steps == [SIGNED]


async def test_two_workers_at_one_job_leave_one_signed_object(road: SigningRoad) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    job_id = await road.start("signer", await road.upload("fw.bin", IMAGE))
    [job] = await road.work.read(lambda tx: road.signing.unfinished(tx, limit=1))
    await asyncio.gather(road.signing_worker._do(job), road.signing_worker._do(job))
    assert (await described(road, job_id))["status"] == "Succeeded"
    assert len(await road.versions(f"SignedImages/{job_id}")) == 1


async def test_a_full_disk_fails_no_job_and_holds_up_no_other(road: SigningRoad, monkeypatch: pytest.MonkeyPatch) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    unlucky = await road.start("signer", await road.upload("fw.bin", IMAGE))
    road.clock.advance(milliseconds=1)
    lucky = await road.start("signer", await road.upload("other.bin", b"other"), token="t-2")
    store = road.contents.store

    async def full(chunks: AsyncIterator[bytes]) -> StoredContent:
        content = await store(chunks)
        if content.size_bytes > len(IMAGE):
            raise Unavailable("The disk is full.", subject="storage")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(road.contents, "store", full)
        with pytest.raises(ExceptionGroup):
            await road.signing_worker.run_once()
    assert (await described(road, unlucky))["status"] == "InProgress"
    assert (await described(road, lucky))["status"] == "Succeeded"
    assert await road.signing_worker.run_once()
    assert (await described(road, unlucky))["status"] == "Succeeded"


@pytest.mark.parametrize("name", ["with-hyphen", "a", "x" * 65, "ümlaut", ""])
async def test_a_profile_name_that_breaks_the_pattern_is_refused(road: SigningRoad, name: str) -> None:
    arn = road.import_certificate(credential())
    with pytest.raises(InvalidRequest, match="no hyphen"):
        await road.make_profile(name, arn)


async def test_a_job_started_for_what_is_not_there_is_refused_at_once(road: SigningRoad) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    with pytest.raises(NotFound):
        await road.start("nobody", source)
    with pytest.raises(NotFound):
        await road.start("signer", replace(source, key=ObjectKey("nothing")))
    with pytest.raises(NotFound):
        await road.start("signer", source, destination={"s3": {"bucketName": "nowhere", "prefix": ""}})


async def test_a_job_whose_source_or_destination_goes_away_fails_with_the_reason(road: SigningRoad) -> None:
    road.make_bucket("elsewhere")
    await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    lost = await road.start("signer", source)
    road.work.run_blocking(lambda tx: road.objects.delete(tx, road.place, BUCKET, "fw.bin", source.version_id))
    kept = await road.upload("kept.bin", IMAGE)
    homeless = await road.start("signer", kept, token="t-2", destination={"s3": {"bucketName": "elsewhere", "prefix": ""}})
    road.work.run_blocking(lambda tx: road.objects.delete_bucket(tx, road.place, "elsewhere"))
    assert await road.signing_worker.run_once()
    assert [(await described(road, job))["status"] for job in (lost, homeless)] == ["Failed", "Failed"]


async def test_an_operator_needs_to_read_the_source_and_to_write_the_destination(road: SigningRoad) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    road.make_user("blind", policy(("Allow", ["signer:*", "s3:PutObject"], "*")))
    road.make_user("mute", policy(("Allow", ["signer:*", "s3:GetObjectVersion"], "*")))
    road.make_user("both", policy(("Allow", ["s3:GetObjectVersion", "s3:PutObject"], f"arn:aws:s3:::{BUCKET}/*")))
    with pytest.raises(AccessDenied, match="s3:GetObjectVersion"):
        await road.start("signer", source, user="blind")
    with pytest.raises(AccessDenied, match="s3:PutObject"):
        await road.start("signer", source, user="mute")
    assert not await road.signing_worker.run_once()
    await road.start("signer", source, user="both")


async def test_jobs_are_listed_newest_first_and_filtered(road: SigningRoad) -> None:
    await road.make_profile("signer", road.import_certificate(credential()))
    source = await road.upload("fw.bin", IMAGE)
    jobs = []
    for number in range(3):
        road.clock.advance(milliseconds=1000)
        jobs.append(await road.start("signer", source, token=f"t-{number}"))
        if number == 0:
            await road.signing_worker.run_once()
    seen, token = [], None
    while True:
        request = {"maxResults": 2, **({"nextToken": token} if token else {})}
        page = await road.signer_api.list_signing_jobs(road.caller(), request)
        seen += [job["jobId"] for job in page["jobs"]]
        token = page["nextToken"]
        if token is None:
            break
    assert seen == jobs[::-1]
    done = await road.signer_api.list_signing_jobs(road.caller(), {"status": "Succeeded"})
    assert [job["jobId"] for job in done["jobs"]] == jobs[:1]


async def test_a_revoked_signature_shows_who_took_it_back_and_why(road: SigningRoad) -> None:
    job = await sign(road, road.import_certificate(credential()))
    await road.signer_api.revoke_signature(road.caller(), {"jobId": job["jobId"], "reason": "bad build"})
    shown = await described(road, job["jobId"])
    assert shown["revocationRecord"]["reason"] == "bad build"
    listed = await road.signer_api.list_signing_jobs(road.caller(), {"isRevoked": True})
    assert [entry["isRevoked"] for entry in listed["jobs"]] == [True]


async def test_a_payload_is_signed_at_once(road: SigningRoad) -> None:
    signer = credential()
    await road.make_profile("signer", road.import_certificate(signer))
    request = {"profileName": "signer", "payload": b"manifest", "payloadFormat": "text/plain"}
    answer = await road.signer_api.sign_payload(road.caller(), request)
    public_key = signer.key.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(answer["signature"], b"manifest", ec.ECDSA(hashes.SHA256()))
    assert (await described(road, answer["jobId"]))["status"] == "Succeeded"
    assert not await road.signing_worker.run_once()


async def test_platforms_tell_their_defaults_and_an_unknown_one_is_not_found(road: SigningRoad) -> None:
    listed = await road.signer_api.list_signing_platforms(road.caller(), {})
    assert [platform["platformId"] for platform in listed["platforms"]] == [
        "AWSIoTDeviceManagement-SHA256-ECDSA",
        "AmazonFreeRTOS-Default",
        "AmazonFreeRTOS-TI-CC3220SF",
    ]
    platform = await road.signer_api.get_signing_platform(road.caller(), {"platformId": "AmazonFreeRTOS-Default"})
    assert platform["signingConfiguration"]["encryptionAlgorithmOptions"]["defaultValue"] == "ECDSA"
    with pytest.raises(NotFound):
        await road.signer_api.get_signing_platform(road.caller(), {"platformId": "none"})


async def test_profiles_and_jobs_of_one_account_are_nothing_to_another(road: SigningRoad) -> None:
    await sign(road, road.import_certificate(credential()))
    stranger = type(road.account)("999999999999")
    with pytest.raises(NotFound):
        road.work.read_blocking(lambda tx: road.signing.profile(tx, stranger, SigningProfileName("signer")))

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest
from overair.server.updates.model import CustomSigning, SigningToStart
from overair.server.updates.plan import file_members, file_of, plan_of
from overair.server.updates.signatures import check_signature, looks_like_signature, signature_algorithm, signature_bytes
from overair.wire.image_signature import SignatureAlgorithm
from tests.support.code_signing import credential

ROLE = "arn:aws:iam::123456789012:role/ota"
STORED = {"s3Location": {"bucket": "b", "key": "k", "version": "v"}}
STREAMED = {"stream": {"streamId": "s", "fileId": 3}}
SIGNER = credential()
assert isinstance(SIGNER.key, ec.EllipticCurvePrivateKey)
SIGNATURE = SIGNER.key.sign(b"image", ec.ECDSA(hashes.SHA256()))
CUSTOM = {
    "customCodeSigning": {
        "signature": {"inlineDocument": SIGNATURE},
        "certificateChain": {"certificateName": "/c.pem", "inlineDocument": SIGNER.certificate_pem.decode()},
        "hashAlgorithm": "SHA256",
        "signatureAlgorithm": "ECDSA",
    }
}
START = {
    "startSigningJobParameter": {
        "signingProfileParameter": {
            "certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
            "platform": "AmazonFreeRTOS-Default",
            "certificatePathOnDevice": "/p.pem",
        },
        "signingProfileName": "profile",
        "destination": {"s3Destination": {"bucket": "d", "prefix": "Signed/"}},
    }
}
FINISHED = {"awsSignerJobId": "00000000-0000-4000-8000-000000000000"}


def request(*files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "otaUpdateId": "rel",
        "targets": ["arn:aws:iot:us-east-1:123456789012:thing/t"],
        "files": list(files) or [{"fileName": "f", "fileLocation": STORED}],
        "roleArn": ROLE,
        **more,
    }


@pytest.mark.parametrize(
    ("location", "signing"),
    [
        (STREAMED, FINISHED),
        (STREAMED, CUSTOM),
        (STORED, START),
        (STORED, CUSTOM),
        (None, FINISHED),
        (STORED, None),
        (STREAMED, None),
        (STORED, FINISHED),
    ],
)
def test_each_pair_of_location_and_signing_is_understood_and_told_again(location: Any, signing: Any) -> None:
    members = {"fileName": "f", "fileType": 1, "fileVersion": "2", "attributes": {"a": "b"}}
    if location:
        members["fileLocation"] = location
    if signing:
        members["codeSigning"] = signing
    file = file_of(members)
    told = file_members(file)
    assert {key: value for key, value in told.items() if value is not None} == members
    assert file_of(told) == file


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([{"fileName": "f"}], "names no place"),
        ([{"fileName": "f", "codeSigning": CUSTOM}], "names no place"),
        ([{"fileName": "f", "fileLocation": STREAMED, "codeSigning": START}], "can't be signed inside a stream"),
        ([{"fileLocation": {**STORED, **STREAMED}}], "not both"),
        ([{"fileLocation": STORED, "codeSigning": {**START, **FINISHED}}], "one way of signing"),
        (
            [{"fileLocation": STORED, "codeSigning": {"startSigningJobParameter": {"destination": {}}}}],
            "needs signingProfileName",
        ),
        ([{"fileLocation": {"s3Location": {"bucket": "b"}}}], "needs bucket and key"),
        ([{"fileLocation": STORED}, {"fileLocation": STREAMED}], "by one stream"),
        ([{"fileLocation": STREAMED}, {"fileLocation": {"stream": {"streamId": "t", "fileId": 0}}}], "by one stream"),
        ([{"fileLocation": STREAMED}, {"fileLocation": STREAMED}], "same file of the stream"),
        ([{"fileName": 'quo"te', "fileLocation": STORED}], "escapes"),
        ([{"fileName": "back\\slash", "fileLocation": STORED}], "escapes"),
        ([{"fileName": "f" * 1025, "fileLocation": STORED}], "at most 1024"),
        ([{"fileLocation": STORED}] * 51, "1 to 50 files"),
        ([], "1 to 50 files"),
    ],
)
def test_files_that_make_no_update_are_refused_with_the_rule(files: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        plan_of({**request(), "files": files})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"otaUpdateId": "x" * 57}, "56 are possible"),
        ({"targets": []}, "1 to 100 targets"),
        ({"targets": [f"arn:{n}" for n in range(101)]}, "1 to 100 targets"),
        ({"protocols": ["MQTT", "MQTT"]}, "once"),
        ({"awsJobPresignedUrlConfig": {"expiresInSec": 59}}, "60 to 3600"),
        ({"awsJobPresignedUrlConfig": {"expiresInSec": 3601}}, "60 to 3600"),
        ({"additionalParameters": {"a": "b" * 70_000}}, "at most 65536 bytes"),
    ],
)
def test_a_request_beyond_its_bounds_is_refused_with_the_rule(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        plan_of(request(**more))


def test_an_id_of_56_characters_fills_the_job_id_to_64() -> None:
    assert len("AFR_OTA-" + plan_of(request(otaUpdateId="x" * 56)).id) == 64


def test_more_files_than_urls_fit_a_document_are_refused_over_http() -> None:
    files = [{"fileName": "f", "fileLocation": STORED}] * 11
    assert len(plan_of(request(*files)).files) == 11
    with pytest.raises(InvalidRequest, match="at most 10 files"):
        plan_of(request(*files, protocols=["HTTP"]))


def test_what_is_left_out_has_its_default() -> None:
    plan = plan_of(
        request(
            {"fileName": "f", "fileLocation": STORED, "codeSigning": {"startSigningJobParameter": {"signingProfileName": "p"}}}
        )
    )
    assert [protocol.value for protocol in plan.protocols] == ["MQTT"]
    assert plan.selection.value == "SNAPSHOT"
    assert plan.settings.presign_expiry_s == 1800
    signing = plan.files[0].signing
    assert isinstance(signing, SigningToStart)
    assert (signing.bucket, signing.prefix) == ("b", "SignedImages/")


def test_a_profile_that_nobody_named_is_named_by_what_it_is() -> None:
    parameter = {key: value for key, value in START["startSigningJobParameter"].items() if key != "signingProfileName"}
    names = set()
    for _ in range(2):
        signing = file_of({"fileLocation": STORED, "codeSigning": {"startSigningJobParameter": parameter}}).signing
        assert isinstance(signing, SigningToStart)
        names.add(signing.profile)
    [name] = names
    assert name.replace("_", "").isalnum()
    assert 2 <= len(name) <= 64


# Custom signatures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("algorithm", [SignatureAlgorithm.ECDSA_SHA256, SignatureAlgorithm.RSA_SHA256])
def test_a_signature_is_found_below_the_base64_that_clients_put_around_it(layers: int, algorithm: SignatureAlgorithm) -> None:
    signature = SIGNATURE if algorithm is SignatureAlgorithm.ECDSA_SHA256 else bytes(range(256))
    given = signature
    for _ in range(layers):
        given = base64.encodebytes(given)  # with line breaks, as `base64 file` prints it
    assert signature_bytes(given, algorithm) == signature


@given(given=st.binary(min_size=1, max_size=400))
def test_any_bytes_are_a_signature_or_refused_and_never_longer_than_agents_hold(given: bytes) -> None:
    try:
        found = signature_bytes(given, SignatureAlgorithm.ECDSA_SHA256)
    except InvalidRequest:
        assert len(given) > 384
        return
    assert 1 <= len(found) <= 384
    assert looks_like_signature(found, SignatureAlgorithm.ECDSA_SHA256) or found == given


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ((None, None), "sig-sha256-ecdsa"),
        (("SHA-256", "RSA"), "sig-sha256-rsa"),
        (("sha1", "ecdsa"), "sig-sha1-ecdsa"),
        (("SHA1", "RSA"), "sig-sha1-rsa"),
    ],
)
def test_hash_and_family_name_the_documents_key(words: tuple[str | None, str | None], key: str) -> None:
    assert signature_algorithm(*words).value == key


def test_an_algorithm_that_no_agent_knows_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="SHA512"):
        signature_algorithm("SHA512", "ECDSA")


def test_a_certificate_that_cannot_check_is_refused() -> None:
    broken = {**CUSTOM["customCodeSigning"], "certificateChain": {"inlineDocument": "not a certificate"}}
    with pytest.raises(InvalidRequest, match="can't check the signature"):
        file_of({"fileLocation": STORED, "codeSigning": {"customCodeSigning": broken}})


def test_a_signature_over_other_bytes_does_not_verify() -> None:
    signing = file_of({"fileLocation": STORED, "codeSigning": CUSTOM}).signing
    assert isinstance(signing, CustomSigning)
    import hashlib

    def check(image: bytes) -> None:
        check_signature(
            hashlib.sha256(image).digest(),
            signature=signing.signature,
            algorithm=signing.algorithm,
            certificate_pem=SIGNER.certificate_pem.decode(),
            name="f",
        )

    check(b"image")
    with pytest.raises(InvalidRequest, match="doesn't verify"):
        check(b"imagf")

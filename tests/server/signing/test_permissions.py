"""Another account signs with a profile as far as the profile permits it, and takes back only what it may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, LimitExceeded, NotFound, VersionConflict
from overair.basics.ids import AccountId
from overair.server.aws_protocol.operations import Caller
from overair.server.objects.model import ObjectVersion, Versioning
from overair.server.signing.permissions import ACTIONS, STATEMENTS_MAX
from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from tests.support.code_signing import credential
from tests.support.signing_road import BUCKET, SigningRoad, in_pieces

OTHER = AccountId("222222222222")
SIGNER = credential()


def stranger(road: SigningRoad, who: str = "root") -> Caller:
    """Somebody of the other account, whose own policies allow everything."""
    place = Place(road.place.region, OTHER)
    return Caller(
        place=place,
        principal_arn=place.iam(who),
        user_id="AIDA",
        access_key_id="AKIA",
        now=road.clock.now(),
        is_root=True,
    )


async def permit(road: SigningRoad, action: str, principal: str = OTHER, *, statement: str = "s", **more: Any) -> str:
    request = {"profileName": "pp", "action": action, "principal": principal, "statementId": statement, **more}
    return str((await road.signer_api.add_profile_permission(road.caller(), request))["revisionId"])


async def theirs(road: SigningRoad) -> ObjectVersion:
    """An image in a bucket of the other account."""
    place = Place(road.place.region, OTHER)
    await road.work.run(lambda tx: road.objects.create_bucket(tx, place, BUCKET, versioning=Versioning.ENABLED))
    content = await road.contents.store(in_pieces(b"their image"))
    return await road.work.run(lambda tx: road.objects.put(tx, place, BUCKET, "theirs.bin", content))


def request_for(source: ObjectVersion, token: str = "t") -> dict[str, Any]:
    at = {"bucketName": source.bucket, "key": source.key, "version": source.version_id}
    return {
        "profileName": "pp",
        "profileOwner": "123456789012",
        "source": {"s3": at},
        "destination": {"s3": {"bucketName": source.bucket, "prefix": "signed/"}},
        "clientRequestToken": token,
    }


@pytest.fixture
async def profile(road: SigningRoad) -> Mapping[str, Any]:
    return await road.make_profile("pp", road.import_certificate(SIGNER))


async def test_an_account_signs_its_own_image_with_another_ones_profile(road: SigningRoad, profile: Mapping[str, Any]) -> None:
    source = await theirs(road)
    with pytest.raises(AccessDenied, match="no resource-based policy allows the signer:StartSigningJob"):
        await road.signer_api.start_signing_job(stranger(road), request_for(source))
    await permit(road, "signer:StartSigningJob")
    started = await road.signer_api.start_signing_job(stranger(road), request_for(source))
    assert started["jobOwner"] == road.account
    assert await road.signer_api.start_signing_job(stranger(road), request_for(source)) == started
    await road.signing_worker.run_once()
    for caller in (stranger(road), road.caller()):
        shown = await road.signer_api.describe_signing_job(caller, {"jobId": started["jobId"]})
        assert (shown["status"], shown["jobOwner"], shown["jobInvoker"]) == ("Succeeded", road.account, OTHER)
        listed = await road.signer_api.list_signing_jobs(caller, {"jobInvoker": OTHER})
        assert [job["jobId"] for job in listed["jobs"]] == [started["jobId"]]
        assert (await road.signer_api.list_signing_jobs(caller, {"jobInvoker": road.account}))["jobs"] == []
    place = Place(road.place.region, OTHER)
    key = shown["signedObject"]["s3"]["key"]
    assert await road.work.read(lambda tx: road.objects.find(tx, place, BUCKET, key, None)) is not None
    with pytest.raises(NotFound):
        await road.work.read(lambda tx: road.objects.find(tx, road.place, BUCKET, key, None))


async def test_a_strangers_token_never_meets_the_owners(road: SigningRoad, profile: Mapping[str, Any]) -> None:
    await permit(road, "signer:StartSigningJob")
    mine = await road.start("pp", await road.upload("fw.bin", b"mine"), token="same")
    yours = await road.signer_api.start_signing_job(stranger(road), request_for(await theirs(road), "same"))
    assert yours["jobId"] != mine


async def test_each_action_is_granted_by_itself(road: SigningRoad, profile: Mapping[str, Any]) -> None:
    source = await theirs(road)
    await permit(road, "signer:StartSigningJob", statement="first")
    job = (await road.signer_api.start_signing_job(stranger(road), request_for(source)))["jobId"]
    await road.signing_worker.run_once()
    owned = {"profileName": "pp", "profileOwner": road.account}

    async def get() -> Any:
        return await road.signer_api.get_signing_profile(stranger(road), owned)

    async def sign() -> Any:
        return await road.signer_api.sign_payload(stranger(road), {**owned, "payload": b"x", "payloadFormat": "raw"})

    async def revoke() -> Any:
        request = {"jobId": job, "jobOwner": road.account, "reason": "bad"}
        return await road.signer_api.revoke_signature(stranger(road), request)

    for action, attempt in (("GetSigningProfile", get), ("SignPayload", sign), ("RevokeSignature", revoke)):
        with pytest.raises(AccessDenied, match=f"signer:{action}"):
            await attempt()
        await permit(road, f"signer:{action}", statement=action)
        answer = await attempt()
        if action == "GetSigningProfile":
            assert answer["arn"] == road.place.signer("/signing-profiles/pp")
        if action == "SignPayload":
            trusted = load_signer_certificate(SIGNER.certificate_pem)
            verify_image_signature(
                [b"x"], signature=answer["signature"], algorithm=SignatureAlgorithm.ECDSA_SHA256, signer=trusted
            )
    shown = await road.signer_api.describe_signing_job(road.caller(), {"jobId": job})
    assert shown["revocationRecord"]["revokedBy"] == stranger(road).principal_arn


async def test_a_statement_is_for_whom_it_names_and_for_the_version_that_it_names(
    road: SigningRoad, profile: Mapping[str, Any]
) -> None:
    await permit(road, "signer:GetSigningProfile", f"arn:aws:iam::{OTHER}:user/anna", profileVersion=profile["profileVersion"])
    owned = {"profileName": "pp", "profileOwner": road.account}
    await road.signer_api.get_signing_profile(stranger(road, "user/anna"), owned)
    with pytest.raises(AccessDenied):
        await road.signer_api.get_signing_profile(stranger(road, "user/bob"), owned)
    shown = await road.signer_api.get_signing_profile(road.caller(), {"profileName": "pp"})
    await road.make_profile("pp", shown["signingMaterial"]["certificateArn"], signingParameters={"certname": "new"})
    with pytest.raises(AccessDenied):
        await road.signer_api.get_signing_profile(stranger(road, "user/anna"), owned)


async def test_nothing_tells_a_stranger_whether_a_profile_or_job_is_there(
    road: SigningRoad, profile: Mapping[str, Any]
) -> None:
    await permit(road, "signer:SignPayload", "333333333333")
    words = set()
    for name in ("pp", "none"):
        with pytest.raises(AccessDenied) as refused:
            await road.signer_api.get_signing_profile(stranger(road), {"profileName": name, "profileOwner": road.account})
        words.add(refused.value.message.replace(f"/{name}", "/NAME"))
    assert len(words) == 1
    with pytest.raises(AccessDenied):
        await road.signer_api.revoke_signature(stranger(road), {"jobId": "none", "jobOwner": road.account, "reason": "r"})


async def test_the_policy_has_revisions_and_statements_are_listed_and_taken_away(
    road: SigningRoad, profile: Mapping[str, Any]
) -> None:
    with pytest.raises(NotFound, match="no permissions"):
        await road.signer_api.list_profile_permissions(road.caller(), {"profileName": "pp"})
    first = await permit(road, ACTIONS[0], statement="a")
    with pytest.raises(VersionConflict):
        await permit(road, ACTIONS[1], statement="b", revisionId="another")
    second = await permit(road, ACTIONS[1], statement="b", revisionId=first)
    with pytest.raises(AlreadyExists):
        await permit(road, ACTIONS[1], statement="b")
    listed = await road.signer_api.list_profile_permissions(road.caller(), {"profileName": "pp"})
    assert (listed["revisionId"], [each["statementId"] for each in listed["permissions"]]) == (second, ["a", "b"])
    assert listed["policySizeBytes"] > 100
    removal = {"profileName": "pp", "statementId": "b"}
    with pytest.raises(VersionConflict):
        await road.signer_api.remove_profile_permission(road.caller(), {**removal, "revisionId": first})
    back = await road.signer_api.remove_profile_permission(road.caller(), {**removal, "revisionId": second})
    assert back["revisionId"] == first
    with pytest.raises(NotFound):
        await road.signer_api.remove_profile_permission(road.caller(), {**removal, "revisionId": first})


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "signer:PutSigningProfile"},
        {"principal": "*"},
        {"principal": "arn:aws:iam::222222222222:group/g"},
        {"statement": "no spaces"},
    ],
)
async def test_words_that_grant_nothing_are_refused(
    road: SigningRoad, profile: Mapping[str, Any], wrong: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest):
        await permit(road, **{"action": ACTIONS[0], **wrong})


async def test_a_policy_has_an_end_and_a_cancelled_profile_grants_nothing_new(
    road: SigningRoad, profile: Mapping[str, Any]
) -> None:
    for number in range(STATEMENTS_MAX):
        await permit(road, ACTIONS[0], statement=f"s{number}")
    with pytest.raises(LimitExceeded):
        await permit(road, ACTIONS[0], statement="more")
    seen: list[str] = []
    token: str | None = ""
    while token is not None:
        request = {"profileName": "pp", **({"nextToken": token} if token else {})}
        page = await road.signer_api.list_profile_permissions(road.caller(), request)
        seen += [each["statementId"] for each in page["permissions"]]
        token = page["nextToken"]
    assert len(set(seen)) == len(seen) == STATEMENTS_MAX
    await road.signer_api.cancel_signing_profile(road.caller(), {"profileName": "pp"})
    with pytest.raises(InvalidRequest, match="Canceled"):
        await permit(road, ACTIONS[0], statement="late")


async def test_what_was_revoked_is_told_for_a_moment(road: SigningRoad, profile: Mapping[str, Any]) -> None:
    road.clock.advance(milliseconds=10)
    job = await road.start("pp", await road.upload("fw.bin", b"image"))
    await road.signing_worker.run_once()
    version = road.place.signer(f"/signing-profiles/pp/{profile['profileVersion']}")
    asked = {
        "signatureTimestamp": road.clock.now(),
        "platformId": "AmazonFreeRTOS-Default",
        "profileVersionArn": version,
        "jobArn": road.place.signer(f"/signing-jobs/{job}"),
        "certificateHashes": ["ab" * 32],
    }

    async def revoked(**more: Any) -> list[str]:
        return list((await road.signer_api.get_revocation_status(road.caller(), {**asked, **more}))["revokedEntities"])

    assert await revoked() == []
    request = {"profileName": "pp", "profileVersion": profile["profileVersion"], "reason": "stolen"}
    await road.signer_api.revoke_signing_profile(road.caller(), {**request, "effectiveTime": road.clock.now()})
    assert await revoked() == [version]
    assert await revoked(signatureTimestamp=road.clock.now() - 1) == []
    await road.signer_api.revoke_signature(road.caller(), {"jobId": job, "reason": "bad"})
    assert await revoked() == [version, asked["jobArn"]]
    with pytest.raises(AccessDenied):
        await road.signer_api.get_revocation_status(stranger(road), asked)
    with pytest.raises(InvalidRequest):
        await revoked(jobArn="arn:aws:signer:us-east-1:222222222222:/signing-jobs/j")

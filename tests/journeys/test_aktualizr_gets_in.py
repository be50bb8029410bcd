"""How aktualizr's devices get in, and how each that may not is told so (Uptane reference §3.2, §3.3, §12)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator

import pytest

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.credentials import SharedCredentials
from tests.support.aktualizr.curl import Curl, Response, TlsCredentials
from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.fleet_pki import FleetAuthority, new_key
from tests.support.server_process import ServerProcess
from tests.support.uptane_road import UptaneRoad


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    folder = tmp_path_factory.mktemp("gets-in")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


def paths(device: Aktualizr) -> list[str]:
    return [f"{call.method} {call.path} {call.status}" for call in device.calls]


def code_of(response: Response) -> tuple[int, str]:
    """What every refusal says: a code, human words, an id; as a JSON object, since the client parses it."""
    told = json.loads(response.body)
    assert told["description"]
    assert told["errorId"]
    return response.status, told["code"]


def asks(road: UptaneRoad, tls: TlsCredentials, path: str = "/director/targets.json") -> tuple[int, str]:
    return code_of(Curl(tls).get(f"{road.device_url}{path}", size_bytes_max=65536))


def tls_of(road: UptaneRoad, name: str, authority: FleetAuthority, **options: int) -> TlsCredentials:
    return road.import_files(name, authority.device(name, **options)).tls()  # type: ignore[arg-type]


# Shared credentials.


def test_a_first_boot_with_shared_credentials_makes_a_thing_named_like_the_device(road: UptaneRoad) -> None:
    archive = road.credentials_zip()
    device = road.shared_device(archive, device_id="car-shared")

    assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)

    assert paths(device)[:2] == ["POST /devices 200", "POST /director/ecus 201"]
    assert road.server.client("iot").describe_thing(thingName="car-shared")["thingName"] == "car-shared"
    with zipfile.ZipFile(archive) as stripped:
        assert "autoprov_credentials.p12" not in stripped.namelist()


def test_a_device_without_a_configured_id_makes_one_up_and_is_known_by_it(road: UptaneRoad) -> None:
    device = road.shared_device(road.credentials_zip())
    assert device.provision(), device.refusal
    assert road.server.client("iot").describe_thing(thingName=device.device_id)["thingName"] == device.device_id


def test_a_taken_id_is_refused_with_its_code_and_a_device_without_a_configured_one_takes_another(road: UptaneRoad) -> None:
    first = road.shared_device(road.credentials_zip(), device_id="car-taken")
    assert first.provision(), first.refusal

    configured = road.shared_device(road.credentials_zip(), device_id="car-taken")
    assert not configured.provision()
    assert configured.refusal is not None
    assert (configured.refusal.status, configured.refusal.code) == (409, "device_already_registered")

    free = road.shared_device(road.credentials_zip())
    free.storage.device_id = "car-taken"
    assert not free.provision()
    assert free.provision(), free.refusal
    assert free.device_id != "car-taken"


def test_a_device_that_lost_power_before_it_stored_its_certificate_gets_another_one(road: UptaneRoad) -> None:
    archive = road.credentials_zip()
    shared = SharedCredentials(archive)
    body = jsoncpp.bytes_of({"deviceId": "car-orphan", "ttl": "36000"})
    assert Curl(shared.tls()).post(f"{road.device_url}/devices", body).status == 200

    device = road.shared_device(archive, device_id="car-orphan")
    assert device.provision(), device.refusal


def test_a_shared_credential_may_call_nothing_else_and_a_devices_certificate_not_what_it_may(road: UptaneRoad) -> None:
    archive = road.credentials_zip()
    assert asks(road, SharedCredentials(archive).tls()) == (403, "credential_not_allowed_here")

    device = road.shared_device(archive, device_id="car-curious")
    assert device.provision()
    body = jsoncpp.bytes_of({"deviceId": "another", "ttl": "1"})
    answer = device.curl.post(f"{road.device_url}/devices", body)
    assert code_of(answer) == (403, "device_certificate_not_allowed_here")


def test_a_revoked_and_an_exhausted_credential_are_told_apart(road: UptaneRoad) -> None:
    once = road.credentials_zip(usesMax=1)
    assert road.shared_device(once, device_id="car-only").provision()
    archive = road.credentials_zip(usesMax=1)
    reused = SharedCredentials(archive, is_reused=True)

    def device(name: str) -> Aktualizr:
        return Aktualizr(
            Configuration(server_url=road.device_url, credentials=reused, hardware_id="gw", device_id=name, key_type="ED25519")
        )

    assert device("car-a").provision()
    second = device("car-b")
    assert not second.provision()
    assert second.refusal is not None
    assert second.refusal.code == "credential_exhausted"

    revoked = road.credentials_zip(name="to-revoke")
    credentials = road.operator.list_provisioning_credentials()["credentials"]
    identity = next(each["credentialId"] for each in credentials if each["name"] == "to-revoke")
    road.operator.revoke_provisioning_credential(credentialId=identity)
    third = road.shared_device(revoked, device_id="car-c")
    assert not third.provision()
    assert third.refusal is not None
    assert third.refusal.code == "credential_revoked"


def test_an_id_that_can_be_no_things_name_is_refused_with_the_rule(road: UptaneRoad) -> None:
    device = road.shared_device(road.credentials_zip(), device_id="car with spaces/and more")
    assert not device.provision()
    assert device.refusal is not None
    assert (device.refusal.status, device.refusal.code) == (400, "device_id_invalid")


# Own PKI.


@pytest.mark.parametrize("certificate_key", ["P-256", "RSA-2048"])
def test_a_first_boot_with_an_own_certificate_needs_no_registration_beforehand(road: UptaneRoad, certificate_key: str) -> None:
    name = f"car-own-{certificate_key}"
    device = road.own_pki_device(road.fleet(), name, certificate_key=certificate_key)

    assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)

    assert paths(device)[0] == "POST /director/ecus 201"
    assert road.server.client("iot").describe_thing(thingName=name)["thingName"] == name


def test_a_certificate_below_an_intermediate_gets_in_with_its_chain(road: UptaneRoad) -> None:
    authority = road.fleet()
    device = road.own_pki_device(authority.intermediate().intermediate(), "car-deep")
    assert device.provision(), device.refusal


def test_where_the_rule_lets_nobody_in_a_device_is_refused_by_name(road: UptaneRoad) -> None:
    closed = road.fleet(firstContact="deny")
    assert asks(road, tls_of(road, "car-unknown", closed)) == (403, "device_not_registered")


def test_each_certificate_that_may_not_come_in_hears_why(road: UptaneRoad) -> None:
    authority = road.fleet()
    assert asks(road, tls_of(road, "car-foreign", FleetAuthority())) == (403, "foreign_certificate_authority")
    assert asks(road, tls_of(road, "car-expired", authority, days=-1)) == (403, "certificate_expired")
    too_deep = authority
    for _ in range(5):
        too_deep = too_deep.intermediate()
    assert asks(road, tls_of(road, "car-too-deep", too_deep))[1] == "certificate_chain_too_deep"
    identity = road.operator.list_fleet_certificate_authorities()["authorities"]
    mine = next(each for each in identity if each["certificatePem"].strip() == authority.pem.decode().strip())
    road.operator.withdraw_fleet_certificate_authority(authorityId=mine["authorityId"])
    assert asks(road, tls_of(road, "car-late", authority))[1] in (
        "certificate_authority_withdrawn",
        "foreign_certificate_authority",
    )


def test_a_peer_without_a_certificate_is_told_that_it_needs_one(road: UptaneRoad) -> None:
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=road.server.endpoints["ca_file"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{road.device_url}/director/targets.json", context=context)
    assert refused.value.code == 401
    assert json.loads(refused.value.read())["code"] == "certificate_required"


def test_a_blocked_device_hears_it_at_its_next_call_and_goes_on_once_it_is_let_in_again(road: UptaneRoad) -> None:
    device = road.own_pki_device(road.fleet(), "car-blocked")
    assert device.cycle() is Outcome.NO_UPDATES
    road.operator.block_device(thingName="car-blocked", reason="stolen")

    assert device.cycle() is Outcome.CHECK_FAILED
    assert {call.status for call in device.calls[-4:]} == {403}
    assert asks(road, device.storage.tls)[1] == "device_blocked"  # type: ignore[arg-type]

    road.operator.unblock_device(thingName="car-blocked")
    assert device.cycle() is Outcome.NO_UPDATES


# Renewal.


def test_a_certificate_renewed_with_the_same_key_is_the_same_device(road: UptaneRoad) -> None:
    authority, key = road.fleet(), new_key()
    device = road.own_pki_device(authority, "car-renewed")
    road.import_files("car-renewed", authority.device("car-renewed", private=key))
    device = device.restart()
    assert device.cycle() is Outcome.NO_UPDATES

    road.import_files("car-renewed", authority.device("car-renewed", private=key))
    device = device.restart()
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert "POST /director/ecus" not in {f"{call.method} {call.path}" for call in device.calls}


def test_a_new_key_near_the_end_of_a_certificate_is_a_renewal_and_at_any_other_time_an_anomaly(road: UptaneRoad) -> None:
    authority = road.fleet(renewal="allow", renewalOverlapDays=30)
    ending = road.own_pki_device(authority, "car-ending", days=10)
    assert ending.cycle() is Outcome.NO_UPDATES
    road.import_files("car-ending", authority.device("car-ending"))
    assert ending.restart().cycle() is Outcome.NO_UPDATES

    fresh = road.own_pki_device(authority, "car-cloned")
    assert fresh.cycle() is Outcome.NO_UPDATES
    thief = tls_of(road, "car-cloned", authority)
    assert asks(road, thief) == (403, "device_key_mismatch")
    noted = [each for each in road.operator.list_device_anomalies()["anomalies"] if each["thingName"] == "car-cloned"]
    assert [each["kind"] for each in noted] == ["key-mismatch"]
    assert fresh.cycle() is Outcome.NO_UPDATES


def test_shared_provisioning_switched_off_makes_no_more_devices_and_leaves_those_that_are_in(road: UptaneRoad) -> None:
    archive = road.credentials_zip()
    inside = road.shared_device(road.credentials_zip(), device_id="car-inside")
    assert inside.provision()
    road.operator.set_shared_provisioning(enabled=False)
    try:
        outside = road.shared_device(archive, device_id="car-outside")
        assert not outside.provision()
        assert outside.refusal is not None
        assert outside.refusal.status == 403
        assert outside.refusal.code in ("credential_revoked", "shared_provisioning_off")
        assert inside.cycle() is Outcome.NO_UPDATES
    finally:
        road.operator.set_shared_provisioning(enabled=True)

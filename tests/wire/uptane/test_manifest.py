from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.manifest import (
    ECUS_MAX,
    MANIFEST_SIZE_BYTES_MAX,
    UNKNOWN_IMAGE,
    ManifestProblem,
    ManifestRefused,
    VerifiedManifest,
    VersionReport,
    build_manifest,
    read_manifest,
    sign_report,
    verify_manifest,
)
from overair.wire.uptane.metadata import TargetFile
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.reports import (
    CONTENT_TYPE,
    InstallationReport,
    InstallationResult,
    ResultCode,
    UnreadableReport,
    overall_code,
    read_report,
    report_to_json,
    result_of,
)
from tests.support.uptane_repository import KeyHolder, target_file

PRIMARY = KeyHolder()
DASH = KeyHolder(rsa.generate_private_key(65537, 2048))
KEYS = {"gw-1": PRIMARY.public_key, "dash-7": DASH.public_key}
APP = TargetFile(name="app-2.bin", length=3, hashes=target_file("x", b"two").hashes)
REPORT = InstallationReport(
    correlation_id="urn:here-ota:mtu:1",
    result=result_of(ResultCode.OK, "Device has been successfully installed"),
    items={"gw-1": result_of(ResultCode.OK)},
    raw_report="Installation succesful",
)


def reports(counter: int = 7) -> dict[str, dict[str, object]]:
    return {
        "gw-1": sign_report(VersionReport(ecu="gw-1", installed=APP, report_counter=counter), PRIMARY),
        "dash-7": sign_report(VersionReport(ecu="dash-7", installed=UNKNOWN_IMAGE), DASH),
    }


def manifest(report: InstallationReport | None = REPORT) -> bytes:
    return build_manifest("gw-1", reports(), PRIMARY, installation_report=report, custom={"site": "yard"})


def verified(data: bytes, keys: Mapping[str, Any] = KEYS, primary: str = "gw-1") -> VerifiedManifest | ManifestRefused:
    return verify_manifest(read_manifest(data), keys, primary=primary)


def problem(data: bytes, **kwargs: Any) -> ManifestProblem | None:
    found = verified(data, **kwargs)
    return found.problem if isinstance(found, ManifestRefused) else None


def changed(data: bytes, change: Callable[[dict[str, Any]], object], *, resign: bool = True) -> bytes:
    """Something else in the manifest, signed anew by the Primary unless told otherwise."""
    document = json.loads(data)
    change(document["signed"])
    if resign:
        document["signatures"][0]["sig"] = base64_of(PRIMARY.sign(canonical(document["signed"])))
    return canonical(document)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_manifest_comes_back_as_it_was_built() -> None:
    data = manifest()
    found = read_manifest(data)
    assert (found.primary, found.report_counter, found.raw) == ("gw-1", 7, data)
    assert found.installed == {"gw-1": APP, "dash-7": UNKNOWN_IMAGE}
    assert found.installation_report == REPORT
    assert found.custom == {"site": "yard"}
    known = {serial: signed.report.image_is_known for serial, signed in found.reports.items()}
    assert known == {"gw-1": True, "dash-7": False}
    assert isinstance(verified(data), VerifiedManifest)
    assert json.loads(data)["signed"]["ecu_version_manifests"]["gw-1"]["signed"]["report_counter"] == "7"
    assert "report_counter" not in json.loads(data)["signed"]["ecu_version_manifests"]["dash-7"]["signed"]


def test_what_a_primary_relays_of_its_secondaries_stays_as_they_signed_it() -> None:
    relayed = json.loads(json.dumps(reports()))
    data = build_manifest("gw-1", relayed, PRIMARY)
    assert json.loads(data)["signed"]["ecu_version_manifests"] == relayed
    assert read_manifest(data).installation_report is None


def test_a_secondary_that_does_not_report_is_told_and_refuses_nothing() -> None:
    data = build_manifest("gw-1", {"gw-1": reports()["gw-1"]}, PRIMARY)
    found = verified(data, keys={**KEYS, "third": PRIMARY.public_key})
    assert isinstance(found, VerifiedManifest)
    assert found.missing == ("dash-7", "third")


def test_signatures_go_by_the_ecus_registered_key_whatever_key_id_is_sent() -> None:
    def rename(document: dict[str, Any]) -> None:
        document["signatures"][0]["keyid"] = "somebody else"

    document = json.loads(manifest())
    rename(document)
    assert isinstance(verified(canonical(document)), VerifiedManifest)
    assert problem(manifest(), keys={**KEYS, "gw-1": DASH.public_key}) is ManifestProblem.SIGNATURE_NOT_VALID
    assert problem(manifest(), keys={"dash-7": DASH.public_key}) is ManifestProblem.SIGNATURE_NOT_VALID


def test_each_doubt_has_its_own_name_and_place() -> None:
    assert problem(manifest(), primary="dash-7") is ManifestProblem.ECU_NOT_PRIMARY
    found = verified(manifest(), keys={"gw-1": PRIMARY.public_key})
    assert isinstance(found, ManifestRefused)
    assert (found.problem, found.field) == (
        ManifestProblem.ECU_NOT_REGISTERED,
        "signed.ecu_version_manifests.dash-7",
    )
    found = verified(manifest(), keys={**KEYS, "dash-7": PRIMARY.public_key})
    assert isinstance(found, ManifestRefused)
    assert (found.problem, found.field) == (
        ManifestProblem.SIGNATURE_NOT_VALID,
        "signed.ecu_version_manifests.dash-7.signatures",
    )
    tampered = changed(manifest(), lambda signed: signed.__setitem__("custom", {}), resign=False)
    assert problem(tampered) is ManifestProblem.SIGNATURE_NOT_VALID


def test_a_secondarys_report_that_was_good_before_is_not_good_under_another_key_or_with_another_word() -> None:
    good = manifest()
    assert isinstance(verified(good), VerifiedManifest)
    assert isinstance(verified(good), VerifiedManifest)
    assert problem(good, keys={**KEYS, "dash-7": PRIMARY.public_key}) is ManifestProblem.SIGNATURE_NOT_VALID

    def another_word(signed: dict[str, Any]) -> None:
        signed["ecu_version_manifests"]["dash-7"]["signed"]["attacks_detected"] = "none"

    assert problem(changed(good, another_word)) is ManifestProblem.SIGNATURE_NOT_VALID
    assert isinstance(verified(good), VerifiedManifest)


def test_a_primary_can_not_speak_for_a_secondary() -> None:
    def forge(signed: dict[str, Any]) -> None:
        inner = signed["ecu_version_manifests"]["dash-7"]
        inner["signed"]["installed_image"]["filepath"] = "app-2.bin"

    assert problem(changed(manifest(), forge)) is ManifestProblem.SIGNATURE_NOT_VALID


def test_a_method_that_is_not_its_keys_does_not_count() -> None:
    document = json.loads(manifest())
    document["signatures"][0]["method"] = "rsassa-pss"
    assert problem(canonical(document)) is ManifestProblem.SIGNATURE_NOT_VALID


def test_what_aktualizr_sends_is_read() -> None:
    """Its RSA method is ``rsassa-pss``, digits are upper case, its salt is as long as it may be; white space is its own."""
    key = DASH.key
    assert isinstance(key, rsa.RSAPrivateKey)
    inner = {
        "attacks_detected": "",
        "ecu_serial": "dash-7",
        "installed_image": {
            "filepath": "app-2.bin",
            "fileinfo": {"length": 3, "hashes": {"sha256": APP.sha256.upper(), "SHA512": "AB" * 64}},
        },
        "previous_timeserver_time": "1970-01-01T00:00:00Z",
        "timeserver_time": "1970-01-01T00:00:00Z",
        "report_counter": "12",
    }

    def sign(signed: dict[str, Any]) -> dict[str, Any]:
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        signature = base64_of(key.sign(canonical(signed), pss, hashes.SHA256()))
        return {"signatures": [{"keyid": "0" * 64, "method": "rsassa-pss", "sig": signature}], "signed": signed}

    outer = {"primary_ecu_serial": "dash-7", "ecu_version_manifests": {"dash-7": sign(inner)}}
    data = json.dumps(sign(outer), indent=2).encode()
    found = verified(data, keys={"dash-7": DASH.public_key}, primary="dash-7")
    assert isinstance(found, VerifiedManifest)
    assert found.manifest.report_counter == 12
    assert found.manifest.installed["dash-7"].hashes == {"sha256": APP.sha256, "sha512": "ab" * 64}


def test_the_two_forms_before_todays_are_read_too() -> None:
    inner = sign_report(
        VersionReport(
            ecu="gw-1",
            installed=APP,
            custom={"operation_result": {"id": "urn:1", "result_code": 4, "result_text": "no room"}},
        ),
        PRIMARY,
    )
    data = build_manifest("gw-1", {"gw-1": inner}, PRIMARY)

    def to_list(signed: dict[str, Any]) -> None:
        signed["ecu_version_manifest"] = list(signed.pop("ecu_version_manifests").values())

    for spelt in (data, changed(data, to_list)):
        found = verified(spelt, keys={"gw-1": PRIMARY.public_key})
        assert isinstance(found, VerifiedManifest)
        report = found.manifest.reports["gw-1"].report
        assert report.operation_result == InstallationResult(success=False, code="4", description="no room")


@pytest.mark.parametrize(("code", "success"), [(0, True), (1, True), (2, False)])
def test_of_old_result_codes_0_and_1_are_successes(code: int, success: bool) -> None:
    report = VersionReport(ecu="e", installed=APP, custom={"operation_result": {"result_code": code}})
    assert report.operation_result == InstallationResult(success=success, code=str(code))
    for custom in ({}, {"operation_result": 7}, {"operation_result": {"result_code": "0"}}):
        assert replace(report, custom=custom).operation_result is None


# --- what can't be read ---


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.pop("primary_ecu_serial"), "signed.primary_ecu_serial"),
        (lambda s: s.__setitem__("primary_ecu_serial", "a\nb"), "signed.primary_ecu_serial"),
        (lambda s: s.pop("ecu_version_manifests"), "signed.ecu_version_manifest"),
        (lambda s: s.__setitem__("ecu_version_manifests", []), "signed.ecu_version_manifests"),
        (lambda s: inner(s).pop("installed_image"), "gw-1.signed.installed_image"),
        (lambda s: inner(s)["installed_image"].pop("filepath"), "gw-1.signed.installed_image.filepath"),
        (lambda s: inner(s)["installed_image"]["fileinfo"].pop("length"), "gw-1.signed.installed_image.fileinfo.length"),
        (lambda s: inner(s)["installed_image"]["fileinfo"].pop("hashes"), "gw-1.signed.installed_image.fileinfo.hashes"),
        (lambda s: inner(s).__setitem__("report_counter", "seven"), "gw-1.signed.report_counter"),
        (lambda s: inner(s).__setitem__("report_counter", "-1"), "gw-1.signed.report_counter"),
        (lambda s: inner(s).__setitem__("ecu_serial", "dash-7"), "gw-1.signed.ecu_serial"),
        (lambda s: s["ecu_version_manifests"]["gw-1"].__setitem__("signatures", []), "gw-1.signatures"),
        (lambda s: s["ecu_version_manifests"]["gw-1"]["signatures"][0].pop("method"), "gw-1.signatures[0]"),
        (lambda s: s["ecu_version_manifests"]["gw-1"]["signatures"][0].__setitem__("sig", "!"), "gw-1.signatures[0].sig"),
        (lambda s: s.__setitem__("custom", {"load": 1.5}), "signed.custom.load"),
    ],
)
def test_a_manifest_that_can_not_be_read_is_refused_with_its_place(
    change: Callable[[dict[str, Any]], object], field: str
) -> None:
    document = json.loads(manifest())
    change(document["signed"])
    with pytest.raises(MetadataRefused) as caught:
        read_manifest(json.dumps(document).encode())
    expected = f"signed.ecu_version_manifests.{field}" if field.startswith("gw-1") else field
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_METADATA, expected)


def inner(signed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = signed["ecu_version_manifests"]["gw-1"]["signed"]
    return found


def test_a_manifest_has_a_size_and_a_number_of_ecus() -> None:
    with pytest.raises(MetadataRefused) as caught:
        read_manifest(b" " * (MANIFEST_SIZE_BYTES_MAX + 1))
    assert caught.value.reason is Reason.OVERSIZED
    document = json.loads(manifest())
    document["signed"]["ecu_version_manifests"] = {str(number): {} for number in range(ECUS_MAX + 1)}
    with pytest.raises(MetadataRefused, match=str(ECUS_MAX)):
        read_manifest(canonical(document))


def test_an_ecu_that_is_listed_twice_is_refused() -> None:
    def twice(signed: dict[str, Any]) -> None:
        rows = list(signed.pop("ecu_version_manifests").values())
        signed["ecu_version_manifest"] = [*rows, rows[0]]

    with pytest.raises(MetadataRefused, match="once"):
        read_manifest(changed(manifest(), twice))


def test_an_attack_that_is_told_is_kept_and_odd_times_do_no_harm() -> None:
    told = sign_report(replace(VersionReport(ecu="gw-1", installed=APP), attacks_detected="freeze\nagain"), PRIMARY)
    told["signed"]["timeserver_time"] = 7  # type: ignore[index]
    report = read_manifest(build_manifest("gw-1", {"gw-1": told}, PRIMARY)).reports["gw-1"].report
    assert (report.attacks_detected, report.timeserver_time) == ("freeze\nagain", "1970-01-01T00:00:00Z")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_our_own_error_alone(data: bytes) -> None:
    with contextlib.suppress(MetadataRefused):
        read_manifest(data)


NAMES = ["signatures", "signed", "ecu_serial", "content_type", "report", "result", "items", "ecu", "code", "success"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(NAMES), values, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(["ecu_version_manifests", "ecu_version_manifest", "installation_report", "custom"]), value=JSON)
def test_any_value_in_any_member_is_read_or_refused_and_nothing_else(name: str, value: object) -> None:
    document = json.loads(manifest())
    document["signed"][name] = value
    with contextlib.suppress(MetadataRefused):
        verify_manifest(read_manifest(canonical(document)), KEYS, primary="gw-1")


# --- reports ---

RESULTS = st.builds(InstallationResult, success=st.booleans(), code=st.text(min_size=1), description=st.text())


@given(correlation=st.text(), result=RESULTS, items=st.dictionaries(st.text(min_size=1), RESULTS, max_size=3), raw=st.text())
def test_a_report_comes_back_as_it_was_written(
    correlation: str, result: InstallationResult, items: dict[str, InstallationResult], raw: str
) -> None:
    report = InstallationReport(correlation_id=correlation, result=result, items=items, raw_report=raw)
    assert read_report(report_to_json(report)) == report


def test_a_failure_before_installation_has_no_items() -> None:
    report = replace(REPORT, result=result_of(ResultCode.VERIFICATION_FAILED), items={})
    found = read_manifest(manifest(report)).installation_report
    assert isinstance(found, InstallationReport)
    assert (found.items, found.result.success) == ({}, False)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"content_type": "application/json"}, "content_type"),
        ({"content_type": CONTENT_TYPE}, "report"),
        ({"content_type": CONTENT_TYPE, "report": {"result": {}}}, "report.result.success"),
        ({"content_type": CONTENT_TYPE, "report": {"result": {"success": True}}}, "report.result.code"),
        ({"content_type": CONTENT_TYPE, "report": {"result": {"success": True, "code": "OK"}, "items": [{}]}}, "items[0].ecu"),
        (
            {
                "content_type": CONTENT_TYPE,
                "report": {
                    "result": {"success": True, "code": "OK"},
                    "items": [{"ecu": "e", "result": {"success": True, "code": "OK"}}] * 2,
                },
            },
            "items[1].ecu",
        ),
        ([], "signed.installation_report"),
    ],
)
def test_a_report_that_can_not_be_understood_leaves_the_manifest_standing(value: object, place: str) -> None:
    def change(signed: dict[str, Any]) -> None:
        signed["installation_report"] = value

    found = verified(changed(manifest(), change))
    assert isinstance(found, VerifiedManifest)
    report = found.manifest.installation_report
    assert isinstance(report, UnreadableReport)
    assert place in report.problem


@pytest.mark.parametrize("code", ResultCode)
def test_two_codes_are_successes(code: ResultCode) -> None:
    assert result_of(code).success is (code in (ResultCode.OK, ResultCode.ALREADY_PROCESSED))


def test_a_vehicles_code_names_the_hardware_and_code_of_each_failure() -> None:
    fine, failed = result_of(ResultCode.OK), result_of(ResultCode.INSTALL_FAILED)
    assert overall_code([("gw", fine)]) == "OK"
    assert overall_code([("gw", failed), ("gw", fine), ("cluster", result_of(ResultCode.DOWNLOAD_FAILED))]) == (
        "gw:INSTALL_FAILED|cluster:DOWNLOAD_FAILED"
    )

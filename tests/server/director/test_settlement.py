"""What a manifest means for an open assignment: the table of Uptane reference §6.1, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.ids import EcuSerial, JobId, MultiTargetUpdateId, ThingName
from overair.server.director.model import Assignment, Image
from overair.server.director.settlement import RESULT_CODE, settle, status_details
from overair.wire.job_message_parsing import check_status_details
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.reports import InstallationReport, InstallationResult, UnreadableReport

S = ExecutionStatus
GW, DASH = EcuSerial("gw"), EcuSerial("dash")


def image(name: str) -> Image:
    return Image(name=name, length=7, hashes={"sha256": (name.encode().hex() + "0" * 64)[:64]})


ASSIGNMENT = Assignment(
    thing=ThingName("car-1"),
    job=JobId("A"),
    number=1,
    update=MultiTargetUpdateId("mtu"),
    correlation_id="urn:a",
    targets={GW: image("gw-2"), DASH: image("dash-2")},
    created_at=Instant(0),
)
ALL = {GW: image("gw-2"), DASH: image("dash-2")}
SOME = {GW: image("gw-2"), DASH: image("dash-1")}
NONE = {GW: image("gw-1"), DASH: image("dash-1")}


def report(code: str, *, success: bool, correlation_id: str = "urn:a") -> InstallationReport:
    result = InstallationResult(success=success, code=code, description=f"{code} it is")
    return InstallationReport(correlation_id=correlation_id, result=result, items={})


OK = report("OK", success=True)
FAILED = report("gw-imx8:INSTALL_FAILED", success=False)
REBOOT = report("NEED_COMPLETION", success=False)
OTHER = report("INSTALL_FAILED", success=False, correlation_id="urn:b")
UNCORRELATED = report("DOWNLOAD_FAILED", success=False, correlation_id="")
UNREADABLE = UnreadableReport(problem="no result")


@pytest.mark.parametrize(
    ("said", "shown", "status", "code"),
    [
        (None, ALL, S.SUCCEEDED, "OK"),
        (None, SOME, None, None),
        (None, NONE, None, None),
        (OTHER, ALL, S.SUCCEEDED, "OK"),
        (OTHER, SOME, None, None),
        (OTHER, NONE, None, None),
        (FAILED, ALL, S.FAILED, "gw-imx8:INSTALL_FAILED"),
        (FAILED, SOME, S.FAILED, "gw-imx8:INSTALL_FAILED"),
        (FAILED, NONE, S.FAILED, "gw-imx8:INSTALL_FAILED"),
        (UNCORRELATED, NONE, S.FAILED, "DOWNLOAD_FAILED"),
        (REBOOT, SOME, None, None),
        (REBOOT, NONE, None, None),
        (OK, ALL, S.SUCCEEDED, "OK"),
        (OK, SOME, None, None),
        (OK, NONE, S.CANCELED, "NOTHING_INSTALLED"),
        (report("ALREADY_PROCESSED", success=True), ALL, S.SUCCEEDED, "ALREADY_PROCESSED"),
        (UNREADABLE, ALL, S.SUCCEEDED, "OK"),
        (UNREADABLE, SOME, S.CANCELED, "REPORT_UNREADABLE"),
        (UNREADABLE, NONE, S.CANCELED, "REPORT_UNREADABLE"),
    ],
)
def test_the_table(
    said: InstallationReport | UnreadableReport | None,
    shown: dict[EcuSerial, Image],
    status: ExecutionStatus | None,
    code: str | None,
) -> None:
    settlement = settle(ASSIGNMENT, shown, said)
    assert settlement.status is status
    if status is not None:
        assert settlement.code == code
    assert settlement.installed == {serial for serial, target in ASSIGNMENT.targets.items() if shown[serial] == target}
    assert settlement.is_about_it is (said is not OTHER)


def test_an_image_of_the_same_name_with_other_bytes_is_none_of_ours() -> None:
    other = Image(name="gw-2", length=7, hashes={"sha256": "f" * 64})
    assert settle(ASSIGNMENT, {GW: other, DASH: image("dash-2")}, None).installed == {DASH}


def test_an_image_without_a_sha256_is_never_the_same() -> None:
    bare = Image(name="gw-2", length=7, hashes={"sha512": "ab" * 64})
    assert not bare.is_same(bare)


@given(code=st.text(max_size=3000), description=st.text(max_size=3000), ecus=st.dictionaries(st.text(), st.text(), max_size=99))
def test_whatever_a_vehicle_says_its_details_fit_the_jobs_api(code: str, description: str, ecus: dict[str, str]) -> None:
    assert check_status_details(status_details(code, description, "urn:a", ecus)) is None


def test_details_name_the_code_the_words_and_each_ecu() -> None:
    assert status_details("INSTALL_FAILED", "no\nroom", "urn:a", {"gw": "INSTALL_FAILED", "dash": "OK"}) == {
        RESULT_CODE: "INSTALL_FAILED",
        "description": "no room",
        "correlationId": "urn:a",
        "ecus": "dash=OK,gw=INSTALL_FAILED",
        "reason": "INSTALL_FAILED: no room",
    }

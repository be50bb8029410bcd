"""Each benchmark, with tiny counts: it runs to its end and gives a number. What the number is, `make bench` tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from bench.downloads import RANGE_SIZES_BYTES, measure_downloads
from bench.gateway import GatewayResults, measure_gateway
from bench.kept_results import Results, read_results
from bench.large_jobs import measure_large_jobs
from bench.measure import Measured
from bench.operator_api import OPERATIONS, measure_operator_api
from bench.policy_check import measure_policy_check
from bench.processes import NotRun, Peer
from bench.profiles import SHORT
from bench.report import write_report
from bench.revocation import measure_revocation
from bench.several_processes import GATEWAYS_COUNT, measure_several_processes
from bench.static_server import StaticServer
from bench.uptane import UptaneResults, measure_uptane
from bench.vehicles import Session
from bench.virtual_fleet import measure_virtual_fleet


def is_a_number(measured: Measured) -> bool:
    return measured.rate > 0 and measured.cpu_us >= 0 and measured.rounds == SHORT.rounds


def test_every_operator_call_is_measured_on_both_transports_and_the_report_holds_each_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.processes.PEERS", tmp_path / "absent")
    profile = replace(SHORT, peers=("moto",))

    results = uvloop.run(measure_operator_api(profile, tmp_path))

    names = {operation.name for operation in OPERATIONS}
    assert set(results.raw) == names | {"do nothing"}
    assert set(results.boto3) == names
    for measured in (*results.raw.values(), *results.boto3.values()):
        assert len(measured) == 2
        assert all(is_a_number(each) for each in measured)
    report = write_report(profile, Results(profile=profile.name, operator=results), tmp_path).read_text()
    assert all(f"| {name} | overair, TLS |" in report for name in names)
    assert "Not run: moto" in report
    assert (tmp_path / "results.json").exists()


def test_blocks_statuses_handshakes_idle_connections_and_restarts_are_measured(tmp_path: Path) -> None:
    results = uvloop.run(measure_gateway(SHORT, tmp_path))

    assert len(results.blocks) == len(SHORT.blocks_per_request)
    assert len(results.statuses) == 2
    assert len(results.handshakes) == 1
    assert all(is_a_number(each) for each in (*results.blocks, *results.statuses, *results.handshakes))
    assert results.idle_connections_count == SHORT.idle_connections_count
    assert len(results.restart_s) == SHORT.rounds
    assert min(results.restart_s) > 0


def test_a_job_over_a_large_fleet_is_measured_and_the_report_says_what_falls_short(tmp_path: Path) -> None:
    results = uvloop.run(measure_large_jobs(SHORT, tmp_path))

    assert all(figure.value > 0 for figure in results.figures)
    assert any("DescribeJobExecution" in figure.name for figure in results.figures)
    results.figures[0] = replace(results.figures[0], value=99.0)
    report = write_report(SHORT, Results(profile=SHORT.name, large_jobs=results), tmp_path).read_text()
    assert "CreateJob over all of them answers: 99.00 s; wanted at most 1 s." in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.large_jobs == results


def test_images_over_https_are_measured_and_nginx_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = uvloop.run(measure_downloads(SHORT, tmp_path))

    assert set(results.ranges) == {str(size) for size in RANGE_SIZES_BYTES}
    assert all(is_a_number(each) for measured in results.ranges.values() for each in measured)
    assert {len(measured) for measured in results.ranges.values()} == {1 if results.not_run else 2}
    report = write_report(SHORT, Results(profile="short", downloads=results), tmp_path).read_text()
    assert "| 128 KiB | overair, presigned link |" in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.downloads == results
    monkeypatch.setattr("bench.static_server._PATHS", str(tmp_path))
    with pytest.raises(NotRun, match="nginx-light"):
        StaticServer(tmp_path, tmp_path / "image.bin")


def test_polls_updates_ranges_and_pushes_of_uptane_are_measured_and_told(tmp_path: Path) -> None:
    results = uvloop.run(measure_uptane(SHORT, tmp_path))

    assert len(results.polls) == len(Session)
    assert len(results.cycles) == 2
    measured = (*results.polls, *results.cycles, *results.ranges, *results.pushes)
    assert len(measured) == len(Session) + 4
    assert all(is_a_number(each) for each in measured)
    report = write_report(SHORT, Results(profile="short", uptane=results), tmp_path).read_text()
    assert all(each.subject in report for each in measured)


def test_policies_and_the_worst_of_patterns_are_measured_and_what_is_slow_is_told(tmp_path: Path) -> None:
    results = measure_policy_check(SHORT)

    assert all(each.per_s > 0 for each in results.judged)
    assert all(min(each.policy_us, each.topic_us, each.longest_us, each.matcher_us) > 0 for each in results.worst)
    results.judged[0] = replace(results.judged[0], per_s=5.0)
    results.worst[0] = replace(results.worst[0], topic_us=2_000.0)
    report = write_report(SHORT, Results(profile="short", policy_check=results), tmp_path).read_text()
    assert f"Policies of {results.judged[0].name}: 5 topics a second; wanted 1,000,000." in report
    assert f"The pattern {results.worst[0].name} takes 2,000 µs; wanted at most 1,000." in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.policy_check == results


def test_a_run_of_one_part_leaves_the_numbers_of_the_others_standing(tmp_path: Path) -> None:
    def measured(subject: str) -> Measured:
        return Measured(subject=subject, rate=1.0, cpu_us=1.0, slowest=1.0, fastest=1.0, rounds=1)

    gateway = GatewayResults(blocks=[measured("blocks taken before")], restart_s=[1.0])
    write_report(SHORT, Results(profile="short", gateway=gateway), tmp_path)
    uptane = UptaneResults(polls=[measured("polls taken now")])
    report = write_report(SHORT, Results(profile="short", uptane=uptane), tmp_path).read_text()
    assert "blocks taken before" in report
    assert "polls taken now" in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.gateway == gateway
    assert kept.uptane == uptane
    assert set(kept.taken) == {"gateway", "uptane"}


def test_a_peer_that_is_not_installed_is_told_as_not_run(tmp_path: Path) -> None:
    with pytest.raises(NotRun, match="make bench"):
        Peer("ministack", tmp_path, environment=tmp_path / "absent")


def test_a_virtual_fleet_comes_to_its_end_over_both_protocols_and_jobs_are_measured_beside_whoever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.processes.PEERS", tmp_path / "absent")
    profile = replace(SHORT, peers=("moto",))

    results = uvloop.run(measure_virtual_fleet(profile, tmp_path))

    count = profile.virtual_devices_count
    assert [(run.protocol, run.succeeded) for run in results.runs] == [("MQTT", count), ("HTTP", count)]
    assert all(run.blocks_per_s > 0 for run in results.runs)
    assert {call.name for call in results.calls} == {
        "CreateJob, 1 targets",
        "CreateJob, 3 targets",
        "DescribeJobExecution",
    }
    assert any("moto" in reason for reason in results.not_run)
    results.runs[0] = replace(results.runs[0], succeeded=count - 1)
    report = write_report(SHORT, Results(profile=SHORT.name, virtual_fleet=results), tmp_path).read_text()
    assert f"Over MQTT {count - 1} of {count} virtual devices came to SUCCEEDED." in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.virtual_fleet == results


@pytest.mark.long
def test_status_updates_through_one_process_and_through_several_are_measured(tmp_path: Path) -> None:
    results = uvloop.run(measure_several_processes(SHORT, tmp_path))

    assert [each.subject.partition(",")[0] for each in results.statuses] == ["one process", "one process"] + [
        "several processes"
    ] * GATEWAYS_COUNT
    assert all(is_a_number(each) for each in results.statuses)
    report = write_report(SHORT, Results(profile="short", several_processes=results), tmp_path).read_text()
    assert all(each.subject in report for each in results.statuses)
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.several_processes == results


def test_a_revocation_is_measured_from_the_operators_answer_to_the_closed_socket(tmp_path: Path) -> None:
    results = uvloop.run(measure_revocation(SHORT, tmp_path))

    assert len(results.cuts_ms) == results.kept_count == SHORT.revoked_sessions_count
    report = write_report(SHORT, Results(profile=SHORT.name, revocation=results), tmp_path).read_text()
    assert f"{results.median_ms:.1f} ms" in report
    kept = read_results(tmp_path)
    assert kept is not None
    assert kept.revocation == results
    results.cuts_ms.append(2000.0)
    report = write_report(SHORT, Results(profile=SHORT.name, revocation=results), tmp_path).read_text()
    assert "session lasts 2,000 ms (p99)" in report

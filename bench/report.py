"""``bench/RESULTS.md`` and ``bench/results.json`` from what was measured."""

from __future__ import annotations

import json
import os
import platform
import ssl
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.downloads import CONNECTIONS as DOWNLOADS_AT_ONCE
from bench.downloads import DownloadResults
from bench.gateway import BLOCK_SIZE_BYTES, GatewayResults
from bench.kept_results import FILE, Results, read_results
from bench.large_jobs import Figure, LargeJobResults
from bench.measure import Measured
from bench.operator_api import OperatorResults
from bench.policy_check import policy_check_lines, policy_check_shortfalls
from bench.profiles import Profile
from bench.raw_client import IN_FLIGHT
from bench.revocation import revocation_lines, revocation_shortfalls
from bench.several_processes import several_processes_lines
from bench.uptane import RANGE_SIZE_BYTES, UptaneResults
from bench.vehicles import IN_FLIGHT as IN_FLIGHT_UPTANE
from bench.vehicles import Session
from bench.virtual_fleet import virtual_fleet_lines, virtual_fleet_shortfalls

HERE = Path(__file__).parent
PARTS = (
    "operator",
    "gateway",
    "downloads",
    "large_jobs",
    "uptane",
    "virtual_fleet",
    "several_processes",
    "policy_check",
    "revocation",
)
TIMES_MOTO = 2.0
BLOCKS_PER_S = 25_000
STATUSES_PER_S = 5_000
HANDSHAKES_PER_S = 600
IDLE_KIB_MAX = 48
RESTART_S_MAX = 1.5
TIMES_NGINX = 0.5
NGINX_FROM_SIZE_BYTES = 1024 * 1024
"""From this size on the bytes count, not the requests: there a link's signature and rights are what ours does beside."""
NEW_SESSION_CYCLES_PER_S = 150
KEPT_CYCLES_PER_S = 300
_OURS, _OURS_PLAIN = "overair, TLS", "overair, plain HTTP"
_MOTO, _MINISTACK = "moto, plain HTTP", "ministack, plain HTTP"


def write_report(profile: Profile, results: Results, out: Path) -> Path:
    """Write both files into ``out``; the Markdown one's path. What ``results`` lack is taken from an earlier run of the same
    profile that stands there."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    results.taken = {part: today for part in PARTS if getattr(results, part) is not None}
    earlier = read_results(out)
    if earlier is not None and earlier.profile == profile.name:
        for part in PARTS:
            if getattr(results, part) is None and getattr(earlier, part) is not None:
                setattr(results, part, getattr(earlier, part))
                results.taken[part] = earlier.taken[part]
    lines = ["# Benchmarks", "", *_machine(profile), ""]
    if results.operator is not None:
        lines += _dated(_operator_lines(results.operator), results.taken["operator"])
    if results.gateway is not None:
        lines += _dated(_gateway_lines(results.gateway), results.taken["gateway"])
    if results.downloads is not None:
        lines += _dated(_download_lines(results.downloads), results.taken["downloads"])
    if results.large_jobs is not None:
        lines += _dated(_large_job_lines(results.large_jobs), results.taken["large_jobs"])
    if results.uptane is not None:
        lines += _dated(_uptane_lines(results.uptane), results.taken["uptane"])
    if results.virtual_fleet is not None:
        lines += _dated(virtual_fleet_lines(results.virtual_fleet), results.taken["virtual_fleet"])
    if results.several_processes is not None:
        lines += _dated(several_processes_lines(results.several_processes), results.taken["several_processes"])
    if results.policy_check is not None:
        lines += _dated(policy_check_lines(results.policy_check), results.taken["policy_check"])
    if results.revocation is not None:
        lines += _dated(revocation_lines(results.revocation), results.taken["revocation"])
    lines += ["## What falls short", "", *_shortfalls(results), ""]
    findings = HERE / "findings.md"
    if findings.exists():
        lines += [findings.read_text().strip(), ""]
    report = out / "RESULTS.md"
    report.write_text("\n".join(lines))
    document = {
        "profile": profile.name,
        "taken": results.taken,
        **{part: None if getattr(results, part) is None else asdict(getattr(results, part)) for part in PARTS},
    }
    (out / FILE).write_text(json.dumps(document, indent=1) + "\n")
    return report


def _dated(section: list[str], taken: str) -> list[str]:
    """A section with the day of its numbers under its heading."""
    heading, empty, *rest = section
    return [heading, empty, f"Taken {taken}.", "", *rest]


def _machine(profile: Profile) -> list[str]:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return [
        f"Taken by `make bench`, {profile.name} profile: medians of {profile.rounds} interleaved "
        "rounds after one to warm up, each of some hundred milliseconds or more.",
        f"{cores} cores, {memory_gib:.0f} GiB, Linux, Python {platform.python_version()}; the load client has "
        f"{ssl.OPENSSL_VERSION}. Loopback. Client and server share the cores, so rates are floors: the CPU "
        "beside a rate is the steadier number.",
        "CPU is that of the server's processes for each operation, with what it still does after the answer.",
    ]


def _operator_lines(results: OperatorResults) -> list[str]:
    lines = [
        "## Operator API",
        "",
        "Beside us: moto's server and ministack, from an environment of their own, on loopback, their TLS listeners off. They "
        "keep their state in memory, check no signature and make no fsync. We verify every signature, evaluate policies, and "
        "answer a change only after it and its audit row are committed to the disk (fsync).",
        "",
        f"### Raw signed client, {IN_FLIGHT} in flight, signatures made beforehand",
        "",
        *_operations(results.raw),
        *_retried(results),
        "### boto3, one client, one call after another",
        "",
        "boto3 itself takes most of each call; CPU tells the servers apart.",
        "",
        *_operations(results.boto3),
        "### What is our own",
        "",
        "The same listeners before a handler that does nothing; the rest of `describe_thing` is signature, policy, parsing and "
        "records.",
        "",
        "| | per s | CPU us |",
        "|---|---|---|",
    ]
    nothing = results.raw["do nothing"]
    lines += [f"| {each.subject} | {each.rate:,.0f} | {each.cpu_us:.0f} |" for each in nothing]
    for handler, subject in zip(nothing, (_OURS, _OURS_PLAIN), strict=True):
        ours = _named(results.raw["describe_thing"], subject)
        if ours is not None:
            own = ours.cpu_us - handler.cpu_us
            lines.append(f"| describe_thing, {subject}: our own over it | {ours.rate:,.0f} | {own:.0f} |")
    lines += [""]
    if results.not_run:
        lines += ["Not run: " + "; ".join(results.not_run) + ".", ""]
    return lines


def _retried(results: OperatorResults) -> list[str]:
    if not results.retries:
        return []
    told = ", ".join(f"{count} of {subject}" for subject, count in results.retries.items())
    return [f"Answers with a 5xx, which were asked again: {told}. None of ours.", ""]


def _operations(results: dict[str, list[Measured]]) -> list[str]:
    lines = [
        "| operation | subject | per s | slowest to fastest | CPU us | rate beside moto | beside ministack |",
        "|---|---|---|---|---|---|---|",
    ]
    for operation, measured in results.items():
        if operation == "do nothing":
            continue
        moto, ministack = _named(measured, _MOTO), _named(measured, _MINISTACK)
        for each in measured:
            span = f"{each.slowest:,.0f} – {each.fastest:,.0f}"
            lines.append(
                f"| {operation} | {each.subject} | {each.rate:,.0f} | {span} | {each.cpu_us:,.0f} "
                f"| {_ratio(each, moto)} | {_ratio(each, ministack)} |"
            )
    return [*lines, ""]


def _named(measured: Sequence[Measured], subject: str) -> Measured | None:
    return next((each for each in measured if each.subject == subject), None)


def _ratio(ours: Measured, theirs: Measured | None) -> str:
    return "" if theirs is None or ours is theirs else f"{ours.rate / theirs.rate:.1f} ×"


def _gateway_lines(results: GatewayResults) -> list[str]:
    lines = [
        "## Device gateway",
        "",
        f"Load from one process on `wire/mqtt`, mutual TLS. Blocks are of {BLOCK_SIZE_BYTES} bytes, in CBOR; `n` is "
        "how many one request asks for. The relay is mosquitto with a worker of ours behind it, which does the least that one "
        "can; its CPU is mosquitto's alone.",
        "",
        "| | per s | slowest to fastest | server CPU us |",
        "|---|---|---|---|",
    ]
    for each in (*results.blocks, *results.statuses, *results.handshakes):
        lines.append(f"| {each.subject} | {each.rate:,.0f} | {each.slowest:,.0f} – {each.fastest:,.0f} | {each.cpu_us:,.1f} |")
    restarts = ", ".join(f"{each:.2f}" for each in results.restart_s)
    lines += [
        "",
        "A status update counts when its `accepted` has come, which is after the commit.",
        "",
        f"- Idle mutual-TLS connection: {results.idle_kib_each:.1f} KiB of the server's memory each, at "
        f"{results.idle_connections_count:,} connections with {results.idle_certificates_count:,} certificates.",
        f"- Restart with {results.things_at_restart_count:,} things: {results.restart_median_s:.2f} s from the start of the "
        f"process until every port accepts (median of {restarts}); the very first start, on an empty directory, took "
        f"{results.first_start_s:.2f} s.",
        "",
    ]
    if results.not_run:
        lines += ["Not run: " + "; ".join(results.not_run) + ".", ""]
    return lines


def _uptane_lines(results: UptaneResults) -> list[str]:
    lines = [
        "## Uptane",
        "",
        f"{results.vehicles_count:,} vehicles of {results.ecus_count} ECUs, certificates from their owner's authority, "
        f"{IN_FLIGHT_UPTANE} at once, mutual TLS. A cycle is a manifest (four signatures verified, counter and reports kept "
        "before the answer), the next root that isn't there, and the Director's targets. In an update each vehicle makes two: "
        "one is given an assignment, signed for it at that moment, the other reports it installed, which ends its execution.",
        "",
        "| | per s | slowest to fastest | server CPU us |",
        "|---|---|---|---|",
    ]
    for each in (*results.polls, *results.cycles, *results.pushes):
        lines.append(f"| {each.subject} | {each.rate:,.0f} | {each.slowest:,.0f} – {each.fastest:,.0f} | {each.cpu_us:,.0f} |")
    for each in results.ranges:
        rates = (each.rate, each.slowest, each.fastest)
        median, slowest, fastest = (rate * RANGE_SIZE_BYTES / 1e6 for rate in rates)
        lines.append(
            f"| {each.subject}, MB | {median:,.0f} | {slowest:,.0f} – {fastest:,.0f} | {each.cpu_us / 1.048576:,.0f} |"
        )
    return [*lines, "", "Of pushes, the rate and the CPU are those of one target.", ""]


def _large_job_lines(results: LargeJobResults) -> list[str]:
    lines = [
        "## One job over a large fleet",
        "",
        f"{results.things_count:,} things in one group, {results.executions_count:,} executions of earlier jobs in the records "
        "(SQLite). One device listens; the questions are asked by one client after another, through boto3 over TLS, whose own "
        "time is in them.",
        "",
        "| | measured | wanted |",
        "|---|---|---|",
    ]
    for each in results.figures:
        lines.append(f"| {each.name} | {each.value:,.2f} {each.unit} | {_bound(each)} |")
    return [*lines, ""]


def _bound(figure: Figure) -> str:
    if figure.most is not None:
        return f"at most {figure.most:,g} {figure.unit}"
    return "" if figure.least is None else f"at least {figure.least:,g} {figure.unit}"


def _large_job_shortfalls(results: LargeJobResults) -> list[str]:
    return [f"{each.name}: {each.value:,.2f} {each.unit}; wanted {_bound(each)}." for each in results.figures if not each.holds]


def _download_lines(results: DownloadResults) -> list[str]:
    lines = [
        "## Images over HTTPS",
        "",
        f"Ranges of one image of 16 MiB by {DOWNLOADS_AT_ONCE} kept connections, each read by a thread of its own; "
        f"{results.cipher}. Beside us nginx with the same file: one worker, sendfile. We verify the link's signature and what "
        "its role may read at each request.",
        "",
        "| range | subject | MB/s | slowest to fastest | CPU us/MiB | rate beside nginx | CPU beside nginx |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, measured in results.ranges.items():
        mib = int(size) / 2**20
        for each in measured:
            rate, slowest, fastest = (value * int(size) / 1e6 for value in (each.rate, each.slowest, each.fastest))
            beside = ("", "") if each is measured[-1] else tuple(f"{ratio:.2f} ×" for ratio in _beside(each, measured[-1]))
            lines.append(
                f"| {_size(int(size))} | {each.subject} | {rate:,.0f} | {slowest:,.0f} – {fastest:,.0f} "
                f"| {each.cpu_us / mib:,.0f} | {beside[0]} | {beside[1]} |"
            )
    lines += [""]
    if results.not_run:
        lines += ["Not run: " + "; ".join(results.not_run) + ".", ""]
    return lines


def _beside(ours: Measured, theirs: Measured) -> tuple[float, float]:
    """(rate, server CPU) as multiples of the other's."""
    return ours.rate / theirs.rate, ours.cpu_us / max(theirs.cpu_us, 0.001)


def _size(size_bytes: int) -> str:
    return f"{size_bytes // 2**20} MiB" if size_bytes >= 2**20 else f"{size_bytes // 1024} KiB"


def _download_shortfalls(results: DownloadResults) -> list[str]:
    return [
        f"Images by ranges of {_size(int(size))}: {ours.rate / nginx.rate:.2f} × nginx by rate; wanted {TIMES_NGINX:g} ×."
        for size, (ours, *others) in results.ranges.items()
        for nginx in others
        if int(size) >= NGINX_FROM_SIZE_BYTES and ours.rate < TIMES_NGINX * nginx.rate
    ]


def _shortfalls(all_results: Results) -> list[str]:
    """Each target that isn't met, in a sentence."""
    operator, gateway, uptane = all_results.operator, all_results.gateway, all_results.uptane
    short: list[str] = []
    if operator is not None:
        for client, results in (("raw client", operator.raw), ("boto3", operator.boto3)):
            for operation, measured in results.items():
                short += _operation_shortfalls(f"{operation} ({client})", measured)
    if gateway is not None:
        short += _gateway_shortfalls(gateway)
    if all_results.downloads is not None:
        short += _download_shortfalls(all_results.downloads)
    if all_results.large_jobs is not None:
        short += _large_job_shortfalls(all_results.large_jobs)
    if all_results.virtual_fleet is not None:
        short += virtual_fleet_shortfalls(all_results.virtual_fleet)
    if all_results.policy_check is not None:
        short += policy_check_shortfalls(all_results.policy_check)
    if all_results.revocation is not None:
        short += revocation_shortfalls(all_results.revocation)
    if uptane is not None:
        for each in (*uptane.polls, *uptane.cycles):
            wanted = KEPT_CYCLES_PER_S if Session.KEPT.value in each.subject else NEW_SESSION_CYCLES_PER_S
            if Session.CALL.value not in each.subject and each.rate < wanted:
                short.append(f"{each.subject}: {each.rate:,.0f} a second; wanted {wanted:,}.")
    return [f"- {each}" for each in short] or ["Every target that was run is met."]


def _operation_shortfalls(name: str, measured: Sequence[Measured]) -> list[str]:
    moto, ministack = _named(measured, _MOTO), _named(measured, _MINISTACK)
    short = []
    for subject in (_OURS, _OURS_PLAIN):
        ours = _named(measured, subject)
        if ours is not None and moto is not None and ours.rate < TIMES_MOTO * moto.rate:
            cpu = moto.cpu_us / ours.cpu_us
            rate = ours.rate / moto.rate
            transport = subject.partition(", ")[2]
            short.append(f"{name}, {transport}: {rate:.1f} × moto by rate, {cpu:.1f} × by CPU; wanted {TIMES_MOTO:g} ×.")
    plain = _named(measured, _OURS_PLAIN)
    if plain is not None and ministack is not None and plain.rate < ministack.rate:
        cpu = ministack.cpu_us / plain.cpu_us
        short.append(
            f"{name}, plain HTTP: {plain.rate / ministack.rate:.2f} × ministack by rate, {cpu:.2f} × by CPU; we aim to pass it."
        )
    return short


def _gateway_shortfalls(results: GatewayResults) -> list[str]:
    short = []
    for measured, wanted in (
        ([each for each in results.blocks if each.subject.startswith("overair")], BLOCKS_PER_S),
        (results.statuses, STATUSES_PER_S),
        (results.handshakes, HANDSHAKES_PER_S),
    ):
        short += [f"{each.subject}: {each.rate:,.0f} a second; wanted {wanted:,}." for each in measured if each.rate < wanted]
    if results.idle_kib_each > IDLE_KIB_MAX:
        short.append(f"An idle connection takes {results.idle_kib_each:.1f} KiB; wanted at most {IDLE_KIB_MAX}.")
    if results.restart_median_s >= RESTART_S_MAX:
        short.append(f"A restart takes {results.restart_median_s:.2f} s; wanted less than {RESTART_S_MAX}.")
    return short

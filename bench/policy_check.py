"""How many topics a core judges by the compiled policies of devices, and what the worst of patterns costs.

It needs no server and takes some seconds. Rates are processor time of one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.profiles import Profile
from overair.server.policy_language.device_variables import connection_values
from overair.server.policy_language.iot import PUBLISH, RECEIVE, BoundPolicySet, PolicySet
from overair.server.policy_language.long_texts import TEXT_LENGTH_MAX, LongText
from overair.server.policy_language.patterns import Pattern, Variable, parse_pattern

STEM: Final = "arn:aws:iot:us-east-1:123456789012:"
THING: Final = "${iot:Connection.Thing.ThingName}"
LONG: Final = 64 * 1024
TOPICS_PER_S: Final = 1_000_000
WORST_US: Final = 1_000


@dataclass(frozen=True, slots=True)
class Judged:
    """One kind of policy: topics a second and core."""

    name: str
    per_s: float


@dataclass(frozen=True, slots=True)
class Worst:
    """One hostile pattern against one hostile name."""

    name: str
    policy_us: float
    """A policy is asked about 64 KiB: refused for the length."""
    topic_us: float
    """A policy is asked about the longest topic that the gateway takes (1,024 bytes)."""
    longest_us: float
    """The matcher alone, with the longest text that any policy's pattern is held against."""
    matcher_us: float
    """The matcher alone at 64 KiB, which nobody brings to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCheckResults:
    """What was measured."""

    judged: list[Judged]
    worst: list[Worst]


def measure_policy_check(profile: Profile) -> PolicyCheckResults:
    """Both halves."""
    return PolicyCheckResults(judged=measure_judgements(seconds=profile.seconds), worst=measure_worst(times=3 * profile.rounds))


def bound_of(resources: list[str], *, denied: list[str] | None = None) -> BoundPolicySet:
    statements = [{"Effect": "Allow", "Action": [PUBLISH, RECEIVE], "Resource": [STEM + each for each in resources]}]
    if denied:
        statements.append({"Effect": "Deny", "Action": [PUBLISH], "Resource": [STEM + each for each in denied]})
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return PolicySet.parse([document]).bind(connection_values(client_id="dev-1", source_ip="192.0.2.1", thing_name="dev-1"))


def measure_judgements(*, seconds: float) -> list[Judged]:
    """Topics a second for the policies of guides, each with topics of its own and of others by turns."""
    own = [f"topic/$aws/things/{THING}/jobs/*", f"topic/$aws/things/{THING}/streams/*"]
    sets = {
        "one literal topic": bound_of(["topic/room/a"]),
        "an enrolled device's own topics": bound_of(own),
        "… and a Deny": bound_of([*own, "topic/room/*"], denied=["topic/room/*/secret"]),
        "twenty resources": bound_of([*own, *(f"topic/room/{number}/*" for number in range(18))]),
    }
    topics = [
        f"{STEM}topic/{name}" for name in ("$aws/things/dev-1/jobs/j-1/update", "room/a", "$aws/things/dev-2/jobs/get", "x")
    ]
    return [Judged(name, _per_s(policies, topics, seconds)) for name, policies in sets.items()]


def _per_s(policies: BoundPolicySet, topics: list[str], seconds: float) -> float:
    allows, done = policies.allows, 0
    begun_s = time.process_time()
    while (passed_s := time.process_time() - begun_s) < seconds:
        for _ in range(1000):
            for topic in topics:
                allows(PUBLISH, topic)
        done += 1000 * len(topics)
    return done / passed_s


def measure_worst(*, times: int) -> list[Worst]:
    """Patterns that a backtracking or a naive matcher takes long over."""
    patterns = {
        "*ab*b": "a",
        "*" + "a" * 1500 + "b*": "a",
        "*b" + "a" * 1500 + "*": "a",
        "*a" * 600 + "*b": "a",
        "*${iot:ClientId}*": "a",
        "*" + "a?" * 600 + "b*": "a",
    }
    found = []
    for pattern, unit in patterns.items():
        statement = {"Effect": "Allow", "Action": PUBLISH, "Resource": f"{STEM}topic/{pattern}"}
        client = "a" * 127 + "b"
        policies = PolicySet.parse([json.dumps({"Version": "2012-10-17", "Statement": statement})])
        bound = policies.bind({"iot:ClientId": client})
        long, topic = f"{STEM}topic/{unit * LONG}", f"{STEM}topic/{unit * 1024}"
        parsed = parse_pattern(pattern)
        values = {Variable("iot:clientid"): client}
        name = pattern if len(pattern) < 24 else f"{pattern[:12]}… ({len(pattern)})"
        found.append(
            Worst(
                name=name,
                policy_us=_best_us(partial(bound.allows, PUBLISH, long), times=times),
                topic_us=_best_us(partial(bound.allows, PUBLISH, topic), times=times),
                longest_us=_best_us(partial(_match, unit * TEXT_LENGTH_MAX, parsed, values), times=times),
                matcher_us=_best_us(partial(_match, unit * LONG, parsed, values), times=times),
            )
        )
    return found


def _match(text: str, pattern: Pattern, values: Mapping[Variable, str]) -> bool:
    return LongText(text).matches(pattern, values)


def _best_us(act: Callable[[], bool], *, times: int) -> float:
    best_s = float("inf")
    for _ in range(times):
        begun_s = time.perf_counter()
        act()
        best_s = min(best_s, time.perf_counter() - begun_s)
    return best_s * 1e6


def policy_check_lines(results: PolicyCheckResults) -> list[str]:
    """Its section of the report."""
    lines = ["## What a device's policies cost", "", "| policies | topics a second and core |", "|---|---|"]
    lines += [f"| {each.name} | {each.per_s:,.0f} |" for each in results.judged]
    lines += [
        "",
        "Patterns that a backtracking or a naive matcher takes long over, in µs: a policy that is asked about 64 KiB, one that "
        f"is asked about a topic of 1,024 bytes, the matcher alone with {TEXT_LENGTH_MAX:,} characters, which is the longest "
        "text that is brought to it, and with 64 KiB.",
        "",
        f"| pattern | 64 KiB | topic | {TEXT_LENGTH_MAX:,} characters | matcher alone, 64 KiB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.name}` | {each.policy_us:,.1f} | {each.topic_us:,.1f} | {each.longest_us:,.1f} | {each.matcher_us:,.1f} |"
        for each in results.worst
    ]
    return [*lines, ""]


def policy_check_shortfalls(results: PolicyCheckResults) -> list[str]:
    """What is slower than it should be."""
    short = [
        f"Policies of {each.name}: {each.per_s:,.0f} topics a second; wanted {TOPICS_PER_S:,}."
        for each in results.judged
        if each.per_s < TOPICS_PER_S
    ]
    for each in results.worst:
        slowest_us = max(each.policy_us, each.topic_us, each.longest_us)
        if slowest_us > WORST_US:
            short.append(f"The pattern {each.name} takes {slowest_us:,.0f} µs; wanted at most {WORST_US:,}.")
    return short

"""How many topics a core judges by the compiled policies of devices, and what the worst of patterns costs.

``python -m bench.policy_check`` needs nothing but itself and takes some seconds. What it prints is processor time of one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from overair.server.policy_language.device_variables import connection_values
from overair.server.policy_language.iot import PUBLISH, RECEIVE, BoundPolicySet, PolicySet
from overair.server.policy_language.long_texts import LongText
from overair.server.policy_language.patterns import Pattern, Variable, parse_pattern

STEM: Final = "arn:aws:iot:us-east-1:123456789012:"
THING: Final = "${iot:Connection.Thing.ThingName}"
LONG: Final = 64 * 1024


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
    """Asked of a policy: a name of this length is refused for its length."""
    topic_us: float
    """Asked of a policy, with the longest topic that the gateway takes (1,024 bytes)."""
    matcher_us: float
    """Asked of the matcher itself, at 64 KiB."""


def bound_of(resources: list[str], *, denied: list[str] | None = None) -> BoundPolicySet:
    statements = [{"Effect": "Allow", "Action": [PUBLISH, RECEIVE], "Resource": [STEM + each for each in resources]}]
    if denied:
        statements.append({"Effect": "Deny", "Action": [PUBLISH], "Resource": [STEM + each for each in denied]})
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return PolicySet.parse([document]).bind(connection_values(client_id="dev-1", source_ip="192.0.2.1", thing_name="dev-1"))


def measure_judgements(*, seconds: float = 1.0) -> list[Judged]:
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


def measure_worst() -> list[Worst]:
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
        policy_us = _best_us(partial(bound.allows, PUBLISH, long))
        topic_us = _best_us(partial(bound.allows, PUBLISH, topic))
        matcher_us = _best_us(partial(_match, unit * LONG, parsed, values))
        found.append(Worst(name=name, policy_us=policy_us, topic_us=topic_us, matcher_us=matcher_us))
    return found


def _match(text: str, pattern: Pattern, values: Mapping[Variable, str]) -> bool:
    return LongText(text).matches(pattern, values)


def _best_us(act: Callable[[], bool], *, times: int = 7) -> float:
    best_s = float("inf")
    for _ in range(times):
        begun_s = time.perf_counter()
        act()
        best_s = min(best_s, time.perf_counter() - begun_s)
    return best_s * 1e6


def main() -> None:
    print("topics a second and core")
    for judged in measure_judgements():
        print(f"  {judged.name:34} {judged.per_s:12,.0f}")
    print("microseconds: 64 KiB asked of a policy, a topic of 1,024 bytes, 64 KiB asked of the matcher alone")
    for worst in measure_worst():
        print(f"  {worst.name:34} {worst.policy_us:10.1f} {worst.topic_us:10.1f} {worst.matcher_us:10.1f}")


if __name__ == "__main__":
    main()

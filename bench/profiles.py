"""How much is measured: everything, or just enough to see that each benchmark still works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Counts and times of one run."""

    name: str
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    """Of one round of one subject, about."""
    boto3_seconds: float
    taking_devices_count: int
    blocks_per_request: tuple[int, ...]
    reporting_devices_count: int
    idle_connections_count: int
    idle_certificates_count: int
    handshakes_count: int
    """In one round."""
    relay: bool
    vehicles_count: int
    """Of three ECUs each."""
    push_targets_count: int
    virtual_devices_count: int
    job_targets_counts: tuple[int, ...]
    """Of explicit targets of one CreateJob."""
    large_fleet_count: int
    """Things that one job is over."""
    old_executions_count: int
    """That stand in the records already."""
    explicit_targets_count: int
    revoked_sessions_count: int
    large_calls_count: int
    """Of each question about the large job."""


FULL: Final = Profile(
    name="full",
    peers=("moto", "ministack"),
    rounds=5,
    seconds=0.5,
    boto3_seconds=0.3,
    taking_devices_count=16,
    blocks_per_request=(1, 8, 31),
    reporting_devices_count=64,
    idle_connections_count=5000,
    idle_certificates_count=5000,
    handshakes_count=1000,
    relay=True,
    vehicles_count=1000,
    push_targets_count=1000,
    virtual_devices_count=1000,
    job_targets_counts=(1, 100, 10_000),
    large_fleet_count=100_000,
    old_executions_count=900_000,
    explicit_targets_count=10_000,
    revoked_sessions_count=100,
    large_calls_count=300,
)

SHORT: Final = Profile(
    name="short",
    peers=(),
    rounds=1,
    seconds=0.05,
    boto3_seconds=0.02,
    taking_devices_count=2,
    blocks_per_request=(1, 8),
    reporting_devices_count=4,
    idle_connections_count=40,
    idle_certificates_count=8,
    handshakes_count=20,
    relay=False,
    vehicles_count=8,
    push_targets_count=10,
    virtual_devices_count=4,
    job_targets_counts=(1, 3),
    large_fleet_count=300,
    old_executions_count=400,
    explicit_targets_count=20,
    revoked_sessions_count=3,
    large_calls_count=3,
)

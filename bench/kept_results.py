"""Results of an earlier run, read back: a run of one part leaves the others' numbers standing, each with its date."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.downloads import DownloadResults
from bench.gateway import GatewayResults
from bench.large_jobs import Figure, LargeJobResults
from bench.measure import Measured
from bench.operator_api import OperatorResults
from bench.policy_check import Judged, PolicyCheckResults, Worst
from bench.revocation import RevocationResults
from bench.several_processes import SeveralProcessesResults
from bench.uptane import UptaneResults
from bench.virtual_fleet import VirtualFleetResults, read_virtual_fleet

FILE = "results.json"


@dataclass(slots=True, kw_only=True)
class Results:
    """What was measured, now or before. ``taken``: the day of each part."""

    profile: str
    operator: OperatorResults | None = None
    gateway: GatewayResults | None = None
    downloads: DownloadResults | None = None
    large_jobs: LargeJobResults | None = None
    uptane: UptaneResults | None = None
    virtual_fleet: VirtualFleetResults | None = None
    several_processes: SeveralProcessesResults | None = None
    policy_check: PolicyCheckResults | None = None
    revocation: RevocationResults | None = None
    taken: dict[str, str] = field(default_factory=dict)


def read_results(folder: Path) -> Results | None:
    """What stands in the folder's ``results.json``; None where there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    document: Mapping[str, Any] = json.loads(path.read_text())
    operator, gateway, downloads, uptane = (document.get(part) for part in ("operator", "gateway", "downloads", "uptane"))
    large, several, policy_check = (document.get(part) for part in ("large_jobs", "several_processes", "policy_check"))
    return Results(
        profile=document["profile"],
        operator=None if operator is None else OperatorResults(**{**operator, **_by_operation(operator, "raw", "boto3")}),
        gateway=None
        if gateway is None
        else GatewayResults(**{**gateway, **_measured(gateway, "blocks", "statuses", "handshakes")}),
        downloads=None if downloads is None else DownloadResults(**{**downloads, **_by_operation(downloads, "ranges")}),
        large_jobs=None
        if large is None
        else LargeJobResults(**{**large, "figures": [Figure(**figure) for figure in large["figures"]]}),
        uptane=None
        if uptane is None
        else UptaneResults(**{**uptane, **_measured(uptane, "polls", "cycles", "ranges", "pushes")}),
        virtual_fleet=read_virtual_fleet(document.get("virtual_fleet")),
        several_processes=None if several is None else SeveralProcessesResults(**{**several, **_measured(several, "statuses")}),
        policy_check=None
        if policy_check is None
        else PolicyCheckResults(
            judged=[Judged(**row) for row in policy_check["judged"]], worst=[Worst(**row) for row in policy_check["worst"]]
        ),
        revocation=None if document.get("revocation") is None else RevocationResults(**document["revocation"]),
        taken=dict(document.get("taken", {})),
    )


def _measured(part: Mapping[str, Any], *names: str) -> dict[str, list[Measured]]:
    return {name: _list(part[name]) for name in names}


def _by_operation(part: Mapping[str, Any], *names: str) -> dict[str, dict[str, list[Measured]]]:
    return {name: {operation: _list(rows) for operation, rows in part[name].items()} for name in names}


def _list(rows: Sequence[Mapping[str, Any]]) -> list[Measured]:
    return [Measured(**row) for row in rows]

"""The client's own verification, run over what is about to be published (Uptane reference §5.2, §13). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Accepted, Refused, TrustedSet, Verdict


def refusal_of_clients(
    flavour: Flavour,
    *,
    roots: Sequence[bytes],
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    now: Instant,
) -> Refused | None:
    """Why a client that follows this repository would refuse its next state; None: it believes all of it.

    Args:
        roots: From the one that ``before`` was published under to the one that ``after`` is.
        before: What the client has stored, by file name (``targets.json``); empty for a new client.
        after: What it would fetch. A delegation whose document isn't there yet is passed over: it says nothing yet. One whose
            document is as it was and has expired is passed over too, as clients do.
    """
    try:
        trusted = TrustedSet.begin(roots[0], repository=Repository.IMAGE, flavour=flavour)
    except MetadataRefused as error:
        return Refused(error.reason, error.message, error.field)
    trusted.adopt(before, now=now)
    for root in roots[1:]:
        if (refused := _refused("root.json", trusted.update_root(root))) is not None:
            return refused
    steps: Sequence[tuple[str, Callable[[], Verdict]]] = (
        ("root.json", lambda: trusted.check_root_expiry(now)),
        ("timestamp.json", lambda: trusted.update_timestamp(after["timestamp.json"], now=now)),
        ("snapshot.json", lambda: trusted.update_snapshot(after["snapshot.json"], now=now)),
        ("targets.json", lambda: trusted.update_targets(after["targets.json"], now=now)),
    )
    for name, step in steps:
        if (refused := _refused(name, step())) is not None:
            return refused
    assert trusted.targets is not None
    return _delegations(trusted, Role.TARGETS.value, trusted.targets, before, after, now, seen=set())


def _delegations(
    trusted: TrustedSet,
    by: str,
    delegator: Targets,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    now: Instant,
    *,
    seen: set[tuple[str, str]],
) -> Refused | None:
    for delegation in delegator.delegations:
        file = f"{delegation.name}.json"
        if file not in after or (by, delegation.name) in seen:
            continue
        seen.add((by, delegation.name))
        verdict = trusted.update_delegation(delegation.name, after[file], now=now, by=by)
        if isinstance(verdict, Refused):
            if verdict.reason is Reason.EXPIRED_METADATA and before.get(file) == after[file]:
                continue
            return _refused(file, verdict)
        assert isinstance(verdict.body, Targets)
        refused = _delegations(trusted, delegation.name, verdict.body, before, after, now, seen=seen)
        if refused is not None:
            return refused
    return None


def _refused(file: str, verdict: Verdict) -> Refused | None:
    if isinstance(verdict, Accepted):
        return None
    if isinstance(verdict, Refused):
        return Refused(verdict.reason, f"{file}: {verdict.message}", verdict.field)
    return Refused(Reason.EXPIRED_METADATA, f"{file}: version {verdict.document.version} has expired.", "signed.expires")

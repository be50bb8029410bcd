"""What is said of a thing that an encrypted image isn't offered to. Pure."""

from __future__ import annotations

from overair.basics.clock import as_datetime
from overair.basics.ids import ThingName
from overair.server.devices.decryption import Declared
from overair.server.jobs.model import Execution


def not_offered(thing: ThingName, last: Execution | None, declared: Declared | None) -> list[str] | None:
    """The chain for a thing whose last job the server kept from it; None where that isn't so."""
    if last is None or not last.refused_by_server:
        return None
    why = last.status_details.get("reason", "").rstrip(".")
    at = as_datetime(last.last_updated_at).strftime("%Y-%m-%d %H:%M:%S UTC")
    chain = [
        f"{thing} was not given job {last.job} at {at}, and has nothing else to do: what it brings is encrypted.",
        f"{why[:1].upper()}{why[1:]}.",
    ]
    if declared is None or not declared.keys:
        chain.append("Give it a key (overair-device decryption), have it connect once, and then: overair retry.")
    return [*chain, *standing(declared)]


def standing(declared: Declared | None) -> list[str]:
    """What the thing has declared."""
    if declared is None:
        return []
    at = as_datetime(declared.declared_at).strftime("%Y-%m-%d %H:%M:%S UTC")
    keys = ", ".join(f"{key.id[:16]}…" for key in declared.keys) or "no key any more"
    return [f"It declared at {at} that it decrypts images with {keys}."]

"""Forgets certificates that nobody provisioned in time, and claims whose end has passed."""

from __future__ import annotations

from overair.basics.work import Work
from overair.server.provisioning.fleet_provisioning import FleetProvisioning


class UnprovisionedCertificates:
    """A worker (``workers.loop.Worker``)."""

    name = "unprovisioned-certificates"

    def __init__(self, *, work: Work, fleet: FleetProvisioning) -> None:
        self._work = work
        self._fleet = fleet

    async def run_once(self) -> bool:
        """One batch. It looks before it writes: there is rarely anything."""
        if not await self._work.read(self._fleet.has_expired):
            return False
        return await self._work.run(self._fleet.sweep) > 0

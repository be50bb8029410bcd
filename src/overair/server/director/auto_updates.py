"""ECUs that are given each new file of a target name by themselves (Uptane reference §11).

Whether one is new is told by the records: the file that was newest when the rule was set, or was assigned since. So a file that
failed on a vehicle isn't assigned to it again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound, OverairError
from overair.basics.ids import AccountId, EcuSerial, IdSource, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx, Work
from overair.server.director.assignments import Assignments
from overair.server.director.campaign_model import AutoUpdate
from overair.server.director.model import Ecu, Image, Origin
from overair.server.director.multi_target_update import CataloguedTarget, MultiTargetUpdate, TargetUpdate
from overair.server.director.ports import CampaignStore, ImageTargets, UpdateStore, VehicleStore

TARGET_NAME_LENGTH_MAX: Final = 253
CORRELATION: Final = "urn:here-ota:auto-update:"
RULES_PER_STEP_MAX: Final = 200
LOOKED_AT_AGAIN_AFTER_MS: Final = 60_000
"""A rule whose vehicle was busy is looked at again after this, though no image is new."""

logger = structlog.get_logger("overair.director")


class AutoUpdates:
    """Rules, and what follows from them."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        vehicles: VehicleStore,
        updates: UpdateStore,
        assignments: Assignments,
        images: ImageTargets,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._campaigns = campaigns
        self._vehicles = vehicles
        self._updates = updates
        self._assignments = assignments
        self._images = images
        self._clock = clock
        self._ids = ids

    def set(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial, target_name: str) -> AutoUpdate:
        """From now on, new files of this target name are assigned to this ECU.

        Raises:
            NotFound: no such ECU. Subject ``ecu``.
            InvalidRequest: subject ``target-name``.
        """
        ecu = self._ecu(tx, account, thing, serial)
        if not 1 <= len(target_name) <= TARGET_NAME_LENGTH_MAX or not target_name.isprintable():
            raise InvalidRequest(
                f"A target's name has 1 to {TARGET_NAME_LENGTH_MAX} printable characters.", subject="target-name"
            )
        newest = self._newest(tx, account, ecu, target_name)
        rule = AutoUpdate(
            thing=thing,
            serial=serial,
            target_name=target_name,
            created_at=self._clock.now(),
            last_file="" if newest is None else newest.name,
        )
        self._campaigns.put_auto_update(tx, account, rule)
        return rule

    def drop(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial, target_name: str | None) -> None:
        """One rule of an ECU, or with None all of them; one that isn't there is fine. Raises NotFound, subject ``ecu``."""
        self._ecu(tx, account, thing, serial)
        self._campaigns.drop_auto_update(tx, account, thing, serial, target_name)

    def of(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> Sequence[AutoUpdate]:
        """An ECU's rules, by target name. Raises NotFound, subject ``ecu``."""
        self._ecu(tx, account, thing, serial)
        return self._campaigns.auto_updates_of(tx, account, thing, serial)

    def accounts(self, tx: Tx) -> Sequence[tuple[AccountId, str]]:
        """Accounts with rules, each with what its images say of themselves: another text whenever one is new."""
        return [(account, self._images.checksum(tx, account)) for account in self._campaigns.accounts_with_auto_updates(tx)]

    def follow(self, tx: Tx, place: Place) -> int:
        """Assign what is new to whoever has a rule for it and nothing else to do. How many assignments were made."""
        made = 0
        for rule in self._campaigns.auto_updates(tx, place.account):
            made += self._follow(tx, place, rule)
            if made >= RULES_PER_STEP_MAX:
                break
        return made

    # ------------------------------------------------------------------------------------------------------------------

    def _follow(self, tx: Tx, place: Place, rule: AutoUpdate) -> bool:
        account = place.account
        vehicle = self._vehicles.registered(tx, account, rule.thing)
        ecu = vehicle.ecus.get(rule.serial) if vehicle is not None else None
        newest = self._newest(tx, account, ecu, rule.target_name) if ecu is not None else None
        if ecu is None or newest is None or newest.name == rule.last_file:
            return False
        to = Image(name=newest.name, length=newest.length, hashes=newest.hashes)
        installed = ecu.installed is not None and ecu.installed.image.is_same(to)
        if not installed:
            if self._assignments.of(tx, account, rule.thing):
                return False  # looked at again once that has ended
            update = MultiTargetUpdate(
                id=MultiTargetUpdateId(self._ids.uuid()),
                targets={ecu.hardware_id: TargetUpdate(to=to)},
                created_at=self._clock.now(),
                only_ecus=frozenset({rule.serial}),
            )
            self._updates.add_update(tx, account, update)
            correlation_id = f"{CORRELATION}{self._ids.uuid()}"
            affected = self._assignments.assign(
                tx, place, update.id, [rule.thing], correlation_id=correlation_id, origin=Origin.AUTO_UPDATE
            )
            if not affected.things:
                logger.warning("an automatic update affects nothing", thing=rule.thing, ecu=rule.serial, file=newest.name)
        followed = AutoUpdate(
            thing=rule.thing,
            serial=rule.serial,
            target_name=rule.target_name,
            created_at=rule.created_at,
            last_file=newest.name,
        )
        self._campaigns.put_auto_update(tx, account, followed)
        return not installed

    def _newest(self, tx: Tx, account: AccountId, ecu: Ecu, target_name: str) -> CataloguedTarget | None:
        named = [
            target
            for target in self._images.targets_for(tx, account, ecu.hardware_id)
            if target.custom.get("name") == target_name
        ]
        return max(named, key=lambda target: (target.created_at, target.name), default=None)

    def _ecu(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> Ecu:
        vehicle = self._vehicles.registered(tx, account, thing)
        ecu = vehicle.ecus.get(serial) if vehicle is not None else None
        if ecu is None:
            raise NotFound(f"{thing} has no ECU {serial[:64]!r}.", subject="ecu")
        return ecu


class AutoUpdateWorker:
    """The worker (``workers.loop.Worker``) that follows the rules of all accounts."""

    name = "auto-updates"

    def __init__(self, *, work: Work, auto_updates: AutoUpdates, region: str, clock: Clock) -> None:
        self._work = work
        self._auto_updates = auto_updates
        self._region = region
        self._clock = clock
        self._seen: dict[AccountId, tuple[str, Instant]] = {}
        """What each account's images said when its rules were last followed, and when: only to spare the looking."""

    async def run_once(self) -> bool:
        now = self._clock.now()
        did_something = False
        for account, checksum in await self._work.read(self._auto_updates.accounts):
            seen = self._seen.get(account)
            if seen is not None and seen[0] == checksum and now - seen[1] < LOOKED_AT_AGAIN_AFTER_MS:
                continue
            place = Place(self._region, account)
            try:
                made = await self._work.run(partial(self._auto_updates.follow, place=place))
            except OverairError as error:
                logger.warning("automatic updates could not be followed", account=account, why=error.message)
                made = 0
            if made < RULES_PER_STEP_MAX:
                self._seen[account] = (checksum, now)
            did_something = did_something or made > 0
        return did_something

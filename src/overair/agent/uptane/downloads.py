"""Images from the gateway to the disk: resumed, bounded by what was signed, given up when they come too slowly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from overair.agent.uptane.gateway import Gateway
from overair.agent.uptane.https import BadStatus, Oversized, SlowRetrieval, Stopped, TransportFailed
from overair.agent.uptane.image_files import ImageFiles, verify_file
from overair.agent.uptane.ledger import Ledger
from overair.wire.uptane.events import EventKind
from overair.wire.uptane.matching import VerifiedTarget
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.reports import InstallationResult, ResultCode, result_of

LOG = logging.getLogger("overair.uptane")

TRIES: Final = 3
"""In one round; each goes on where the last one stood."""
ROUNDS_MAX: Final = 10
"""Rounds in which the gateway answers and an image can't be had, before the update has failed."""
_MAY_PASS: Final = frozenset({408, 416, 425, 429})

Watch = Callable[[VerifiedTarget, int, int], None]
"""An image, how many of its bytes are here, how many were here before."""


class UpdateFailed(Exception):
    """The update that is wanted can't be done."""

    def __init__(self, result: InstallationResult) -> None:
        super().__init__(result.description)
        self.result = result


class Downloads:
    """Fetches what targets need."""

    def __init__(
        self,
        gateway: Gateway,
        images: ImageFiles,
        ledger: Ledger,
        *,
        pause: Callable[[float], bool],
        chance: Random,
        watch: Watch,
    ) -> None:
        self._gateway = gateway
        self._images = images
        self._ledger = ledger
        self._pause = pause
        self._chance = chance
        self._watch = watch

    def fetch(self, targets: Sequence[VerifiedTarget]) -> bool:
        """Every image is here, and its bytes are the ones that were signed. True: some had to be fetched for it.

        Raises:
            TransportFailed: not now.
            UpdateFailed: not at all.
        """
        self._images.keep_only([target.target for target in targets])
        missing = [target for target in targets if self._images.whole(target.target) is None]
        for target in missing:
            self._ledger.told_of(target.ecus, EventKind.DOWNLOAD_STARTED)
            self._fetch_one(target)
        for target in targets:
            self._verify(target)
        for target in missing:
            self._ledger.told_of(target.ecus, EventKind.DOWNLOAD_COMPLETED, True)
        return bool(missing)

    def all_here(self, targets: Sequence[VerifiedTarget]) -> bool:
        """Whether nothing needs to be fetched; what is here is verified.

        Raises:
            UpdateFailed
        """
        if any(self._images.whole(target.target) is None for target in targets):
            return False
        for target in targets:
            self._verify(target)
        return True

    def _verify(self, target: VerifiedTarget) -> None:
        path = self._images.whole(target.target)
        assert path is not None
        try:
            verify_file(path, target)
        except MetadataRefused as error:
            self._images.forget(target.target)
            self._ledger.told_of(target.ecus, EventKind.DOWNLOAD_COMPLETED, False)
            raise self._attacked(error.reason, error.message) from None

    def _fetch_one(self, target: VerifiedTarget) -> None:
        for attempt in range(TRIES):
            try:
                self._receive(target)
            except Oversized as error:
                raise self._attacked(Reason.OVERSIZED_TARGET, str(error)) from None
            except Stopped:
                raise
            except TransportFailed as error:
                if isinstance(error, BadStatus) and error.status < 500 and error.status not in _MAY_PASS:
                    raise UpdateFailed(result_of(ResultCode.DOWNLOAD_FAILED, str(error))) from None
                if attempt == TRIES - 1:
                    self._give_up_for_now(error)
                    raise
                LOG.warning("%s; trying again", error)
                if self._pause(self._chance.uniform(0, 2.0**attempt)):
                    raise Stopped("The client is asked to stop.") from None
            except OSError as error:
                self._images.forget(target.target)
                raise UpdateFailed(
                    result_of(ResultCode.DOWNLOAD_FAILED, f"{target.length} bytes can't be stored: {error.strerror}")
                ) from None
            else:
                return

    def _receive(self, target: VerifiedTarget) -> None:
        with self._images.part(target.target).opened() as part:
            resumed = part.length

            def take(offset: int, data: bytes) -> None:
                if self._pause(0):
                    raise Stopped("The client is asked to stop.")
                part.write(offset, data)
                self._watch(target, part.length, resumed)

            if part.length < target.length:
                try:
                    self._gateway.download(target, first_byte=part.length, take=take)
                except BadStatus as error:
                    if error.status == 416:  # what is here can't be a part of what is there
                        part.write(0, b"")
                    raise
                finally:
                    part.sync()
        self._images.finish(target.target)

    def _give_up_for_now(self, error: TransportFailed) -> None:
        """This round brings no image; after many such rounds the update has failed.

        Raises:
            UpdateFailed
        """
        if isinstance(error, SlowRetrieval):
            self._ledger.note_attack(f"SlowRetrieval: {error}")
        if self._ledger.count_failure() >= ROUNDS_MAX:
            raise UpdateFailed(result_of(ResultCode.DOWNLOAD_FAILED, str(error)))

    def _attacked(self, reason: Reason, message: str) -> UpdateFailed:
        self._ledger.note_attack(f"{reason}: {message}")
        return UpdateFailed(result_of(ResultCode.VERIFICATION_FAILED, f"{reason}: {message}"))

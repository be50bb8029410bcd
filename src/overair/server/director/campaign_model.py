"""Nouns of campaigns and of ECUs that are updated by themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from overair.basics.clock import Instant
from overair.basics.ids import CampaignId, EcuSerial, GroupName, JobId, MultiTargetUpdateId, ThingName


class ApprovalState(StrEnum):
    """What a driver said of a campaign; absent: nothing yet."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    POSTPONED = "postponed"


class CampaignStatus(StrEnum):
    """Told by the campaign's job; nothing of it is kept beside (§11)."""

    PREPARED = "prepared"
    LAUNCHED = "launched"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class MetadataType(StrEnum):
    """What a campaign tells the driver; each at most once (§3.6)."""

    DESCRIPTION = "DESCRIPTION"
    ESTIMATED_INSTALLATION_DURATION = "ESTIMATED_INSTALLATION_DURATION"
    ESTIMATED_PREPARATION_DURATION = "ESTIMATED_PREPARATION_DURATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """An update for groups, under a name. Once launched it is a job."""

    id: CampaignId
    name: str
    update: MultiTargetUpdateId
    groups: tuple[GroupName, ...]
    metadata: Mapping[MetadataType, str]
    approval_needed: bool
    created_at: Instant
    updated_at: Instant
    job: JobId | None = None
    """None: not launched."""
    main_campaign: CampaignId | None = None
    """Of a retry: the campaign whose failures it takes up."""
    failure_code: str | None = None
    """Of a retry: the result code that it is for."""
    cancelled_at: Instant | None = None
    """Before it was launched; afterwards the job says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoUpdate:
    """An ECU that is given each new file of one target name."""

    thing: ThingName
    serial: EcuSerial
    target_name: str
    created_at: Instant
    last_file: str
    """The newest that was there when it was set, or that was assigned since; empty: there was none."""

"""The SQL of the Director."""

from overair.server.director.store.campaigns import SqlCampaignStore
from overair.server.director.store.devices import SqlVehicleStore
from overair.server.director.store.oddities import SqlOddityStore
from overair.server.director.store.records import SqlRecordStore
from overair.server.director.store.updates import SqlUpdateStore

__all__ = ["SqlCampaignStore", "SqlOddityStore", "SqlRecordStore", "SqlUpdateStore", "SqlVehicleStore"]

"""The tables of the fleet index."""

from overair.server.fleet_index.store.documents import SqlDocumentStore
from overair.server.fleet_index.store.settings import SqlSettingsStore

__all__ = ["SqlDocumentStore", "SqlSettingsStore"]

"""The tables of the registry."""

from overair.server.devices.store.admissions import SqlAdmissionStore
from overair.server.devices.store.blocks import SqlBlockStore
from overair.server.devices.store.groups import SqlGroupStore
from overair.server.devices.store.policies import SqlPolicyStore
from overair.server.devices.store.tags import SqlTagStore
from overair.server.devices.store.things import SqlThingStore
from overair.server.devices.store.types import SqlTypeStore

__all__ = [
    "SqlAdmissionStore",
    "SqlBlockStore",
    "SqlGroupStore",
    "SqlPolicyStore",
    "SqlTagStore",
    "SqlThingStore",
    "SqlTypeStore",
]

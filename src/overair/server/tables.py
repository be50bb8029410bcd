"""Every room's tables, in one ``metadata``: what migrations and tests look at."""

from overair.server.access import account_store, group_store, policy_store, store  # noqa: F401
from overair.server.audit import store as audit_store  # noqa: F401
from overair.server.broker import store as broker_store  # noqa: F401
from overair.server.certificates import store as certificate_store  # noqa: F401
from overair.server.devices.store import admissions, decryption, groups, policies, tags, things, types  # noqa: F401
from overair.server.director import store as director_store  # noqa: F401
from overair.server.fleet_index.store import tables as fleet_tables  # noqa: F401
from overair.server.image_repository import tables as image_tables  # noqa: F401
from overair.server.jobs import execution_store  # noqa: F401
from overair.server.jobs import store as job_store  # noqa: F401
from overair.server.keyring import store as keyring_store  # noqa: F401
from overair.server.nodes import store as node_store  # noqa: F401
from overair.server.objects import store as object_store  # noqa: F401
from overair.server.objects import upload_store  # noqa: F401
from overair.server.packages import store as package_store  # noqa: F401
from overair.server.provisioning import store as provisioning_store  # noqa: F401
from overair.server.roots import store as root_store  # noqa: F401
from overair.server.signing import store as signing_store  # noqa: F401
from overair.server.storage import restores  # noqa: F401
from overair.server.storage.schema import metadata
from overair.server.streams import store as stream_store  # noqa: F401
from overair.server.updates import store as update_store  # noqa: F401

__all__ = ["metadata"]

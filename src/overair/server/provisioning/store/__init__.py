"""This room's tables and SQL."""

from overair.server.provisioning.store.authorities import SqlAuthorityRows
from overair.server.provisioning.store.credentials import SqlCredentialRows
from overair.server.provisioning.store.devices import SqlDeviceRows
from overair.server.provisioning.store.levels import SqlLevelRows
from overair.server.provisioning.store.registration_tasks import SqlRegistrationTaskRows
from overair.server.provisioning.store.renewals import SqlRenewalRows
from overair.server.provisioning.store.reuses import SqlApprovalRows
from overair.server.provisioning.store.revocations import SqlRevocationRows
from overair.server.provisioning.store.templates import SqlTemplateRows

__all__ = ["SqlProvisioningStore"]


class SqlProvisioningStore(
    SqlCredentialRows,
    SqlAuthorityRows,
    SqlRevocationRows,
    SqlDeviceRows,
    SqlLevelRows,
    SqlTemplateRows,
    SqlRegistrationTaskRows,
    SqlRenewalRows,
    SqlApprovalRows,
):
    """``ports.Store`` in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.packages.installed import InstalledPackages
from overair.server.packages.operator_api import PackageOperations
from overair.server.packages.service import PackagesService
from overair.server.packages.store import SqlPackageStore
from overair.server.storage.work import SqlWork
from tests.support.jobs_room import Registry, Roles, Tags
from tests.support.operator_door import operator_door
from tests.support.streams_room import Buckets

ROLE = "arn:aws:iam::123456789012:role/packages"


class Rights:
    """Allows what isn't in ``denied``."""

    def __init__(self) -> None:
        self.denied: set[str] = set()

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        if action in self.denied:
            raise AccessDenied(f"not authorized to perform: {action} on resource: {resource}", subject="action")

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None:
        self.require(tx, caller, "iam:PassRole", role_arn)


class Catalogue:
    """The room behind its door, with a registry, roles and buckets that tests fill by hand."""

    def __init__(self, work: SqlWork, place: Place, clock: SettableClock) -> None:
        self.work, self.place, self.clock = work, place, clock
        self.registry, self.roles, self.tags, self.rights = Registry(place), Roles(), Tags(), Rights()
        self.roles.assumable.add(ROLE)
        self.buckets = Buckets(place)
        store = SqlPackageStore()
        self.packages = PackagesService(store=store, roles=self.roles, objects=self.buckets, tags=self.tags, clock=clock)
        self.installed = InstalledPackages(store=store, things=self.registry)
        self.operations = PackageOperations(work=work, packages=self.packages, installed=self.installed, rights=self.rights)
        self.iot: Any = None
        self.careless: Any = None
        self.data: Any = None


@pytest.fixture
def catalogue(work: SqlWork, place: Place, clock: SettableClock) -> Iterator[Catalogue]:
    catalogue = Catalogue(work, place, clock)
    with operator_door(place, clock, catalogue.operations) as served:
        catalogue.iot = served.client("iot")
        catalogue.careless = served.client("iot", careless=True)
        catalogue.data = served.client("iot-data")
        yield catalogue

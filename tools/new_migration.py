"""Write the next migration from what the tables say now and the last step left.

    .venv/bin/python tools/new_migration.py "Jobs have a priority"

Then read the file that it wrote, and add its number to ``REVISIONS``. ``--replace`` writes the last step anew, which is right
only while no release has it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from overair.server.storage import migrations
from overair.server.tables import metadata

VERSIONS = Path(migrations.__file__).parent / "versions"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("message")
    parser.add_argument("--replace", action="store_true")
    arguments = parser.parse_args()
    written = sorted(VERSIONS.glob("[0-9]*.py"))
    if arguments.replace and written:
        written.pop().unlink()
    number = f"{len(written) + 1:04}"
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/records.sqlite3")
        with engine.connect() as connection:
            if written:
                with connection.begin():
                    command.upgrade(migrations.configuration(connection), "head")
            command.revision(migrations.configuration(connection), message=arguments.message, autogenerate=True, rev_id=number)
    [path] = VERSIONS.glob(f"{number}_*.py")
    tidy(path)
    told = f"Wrote {path} from {len(metadata.tables)} tables. Read it; then add {number!r} to REVISIONS if it isn't there.\n"
    sys.stdout.write(told)
    return 0


def tidy(path: Path) -> None:
    """Leave what a reader needs: no notes of the generator, the formatter's layout. And what both databases take: SQLite spells
    a truth value as a number, which PostgreSQL refuses."""
    text = re.sub(r"^ *# #+.*\n", "", path.read_text(), flags=re.MULTILINE)
    for digit, word in (("0", "false"), ("1", "true")):
        text = text.replace(f'sa.Boolean(), server_default=sa.text("{digit}")', f"sa.Boolean(), server_default=sa.{word}()")
        text = text.replace(f"sa.Boolean(), server_default=sa.text('{digit}')", f"sa.Boolean(), server_default=sa.{word}()")
    path.write_text(text)
    for arguments in (["format", "--quiet"], ["check", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, str(path)], check=True)


if __name__ == "__main__":
    sys.exit(main())

"""The whole tree in one sealed file, and back. The keys in it are sealed twice: by their own passphrases, and by the
backup's."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from overair.agent.durable import Disk
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.cli.sign import sealed_box
from overair.cli.sign.ends import usage
from overair.cli.sign.tree import FILE_SIZE_BYTES_MAX, Tree, read_file

PURPOSE: Final = "backup"
FILES_MAX: Final = 10_000
SIZE_BYTES_MAX: Final = 96 * 1024 * 1024


def write(tree: Tree, passphrase: Redacted[str], *, ids: IdSource) -> bytes:
    """The sealed backup of a tree.

    Raises:
        SignEnded: USAGE: it is too large.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tree.path.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.name != "lock" and not path.name.endswith(".new"):
                archive.writestr(path.relative_to(tree.path).as_posix(), read_file(path))
    data = buffer.getvalue()
    if len(data) > SIZE_BYTES_MAX:
        raise usage(f"The tree has more than {SIZE_BYTES_MAX} bytes: move old requests out of it.")
    about: dict[str, object] = {"keys": sorted(tree.records())}
    return sealed_box.seal(Redacted(data), passphrase, purpose=PURPOSE, about=about, ids=ids)


def restore(box: bytes, passphrase: Redacted[str], target: Path, *, name: str) -> Tree:
    """Lay a backup out in an empty directory; ``config.json`` last, so that a cut leaves no half tree.

    Raises:
        SignEnded: USAGE: it doesn't open, isn't a backup, or the directory isn't empty.
    """
    data = sealed_box.open_box(box, passphrase, purpose=PURPOSE, name=name).reveal()
    if target.exists() and any(target.iterdir()):
        raise usage(f"{target} isn't empty: restore into a directory of its own.")
    disk = Disk()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > FILES_MAX or sum(entry.file_size for entry in entries) > 4 * FILE_SIZE_BYTES_MAX:
                raise usage(f"{name} holds more than a tree can.")
            for entry in sorted(entries, key=lambda entry: entry.filename == "config.json"):
                _lay_out(archive.read(entry), entry.filename, target, disk)
    except zipfile.BadZipFile:
        raise usage(f"{name} holds no tree.") from None
    return Tree(target)


def _lay_out(content: bytes, name: str, target: Path, disk: Disk) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or len(parts.parts) > 2 or not parts.name:
        raise usage(f"The backup names {name[:100]!r}, which lies outside of a tree.")
    folder = target.joinpath(*parts.parts[:-1])
    for directory in (target, folder):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    disk.write_whole(folder / parts.name, content)

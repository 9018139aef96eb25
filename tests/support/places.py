"""Places for copies on real servers: a folder, an SFTP server, S3, as a configuration names them and as a test looks into them."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsd.clock import SystemClock
from opsd.storage.folder import FolderStore
from opsd.storage.protocol import Store
from opsd.storage.s3 import S3Store
from tests.support.s3 import KEY, SECRET, S3Server, moto_server, rclone_server
from tests.support.sshd import Server, running_server

#: `rclone` is S3 without conditions.
PLACES = ("folder", "sftp", "s3", "rclone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a configuration names it, and how to open the store there, past the way that opsd takes, once it was filled."""

    configuration: str
    opened: Callable[[], Store]


@contextmanager
def place(kind: str, folder: Path) -> Iterator[Place]:
    """A place of that kind for the time of the context; its server works in this folder."""
    if kind == "folder":
        yield Place(configuration=f"folder: {folder}/disk", opened=lambda: FolderStore(folder / "disk"))
    elif kind == "sftp":
        with running_server() as server:
            yield Place(configuration=sftp(server, folder / "disk"), opened=lambda: FolderStore(folder / "disk"))
    else:
        serving = moto_server(folder, checks=True) if kind == "s3" else rclone_server(folder)
        with serving as server:
            yield _bucket(server, folder)


def sftp(server: Server, path: Path | str) -> str:
    """A path on that server, as a configuration names it."""
    options = server.options(path)
    return (
        f"sftp: {{host: {options.host}, port: {options.port}, user: {options.user}, path: {path}, "
        f"key: {{file: {options.key}}}, known_hosts: {options.known_hosts}}}"
    )


def _bucket(server: S3Server, folder: Path) -> Place:
    bucket = server.new_bucket()
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    configuration = (
        f"s3: {{endpoint: 'http://127.0.0.1:{server.port}', bucket: {bucket}, prefix: web1, "
        f"access_key: {{file: {folder}/key}}, secret_key: {{file: {folder}/secret}}}}"
    )
    options = server.options(bucket, prefix="web1")
    return Place(configuration=configuration, opened=lambda: S3Store(options, SystemClock()))


def spoil(store: Store, source: Store, dice: random.Random) -> None:
    """Change one pack, cut another and remove a third, as far as there are so many that the source has too."""
    there = {info.name for info in source.list("packs/")}
    packs = sorted(info.name for info in store.list("packs/") if info.name in there)
    for name, harm in zip(dice.sample(packs, min(3, len(packs))), ("change", "cut", "remove"), strict=False):
        content = store.read(name)
        if harm == "change":
            store.put(name, content[:-1] + bytes([content[-1] ^ 1]), replace=True)
        elif harm == "cut":
            store.put(name, content[: dice.randrange(1000)], replace=True)
        else:
            store.delete(name)

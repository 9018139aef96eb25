"""Open the store of a configured place.

Promise: what an SFTP server or a bucket needs is imported only for a place of that kind; what may pass is tried again there.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsd.backup.places import FolderPlace, S3Place, SftpPlace, StorePlace
from opsd.clock import Clock
from opsd.credentials import resolve
from opsd.errors import UsageError
from opsd.events import Reporter
from opsd.settings import Settings
from opsd.storage.folder import FolderStore
from opsd.storage.protocol import Store
from opsd.storage.retry import RetryingStore
from opsd.values import dataclass

if TYPE_CHECKING:
    from opsd.storage.s3_client import S3Options
    from opsd.storage.sftp_session import SftpOptions


def place_of(settings: Settings, name: str) -> StorePlace:
    """Where the copy of that name is.

    Raises:
        UsageError: there is none.
    """
    known = {name: each.target for name, each in settings.pulls.items()}
    known |= {each.name: each.place for each in settings.copies}
    if name not in known:
        raise UsageError(
            f"no copy named {name}",
            hint=f"configured are {', '.join(known)}" if known else "name copies under copies: in the configuration",
        )
    return known[name]


def spool_stem(settings: Settings, purpose: str, name: str) -> str:
    """How files in a spool begin: the same each time on this host, so that the next clears what a killed one left, and no other host's."""
    told = f"{settings.host}\0{settings.state}\0{name}"
    return f"{purpose}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOpener:
    """Opens stores. `scratch` gives a private folder, for a private key that is no file. What may pass is tried so many times."""

    scratch: Callable[[], Path]
    reporter: Reporter
    clock: Clock
    attempts: int = 5

    @contextmanager
    def opened(self, place: StorePlace, *, create: bool = False) -> Iterator[Store]:
        """The store at a place; `create` makes folders where there are none.

        Raises:
            StorageError: it is not there, or holds something else. ConfigurationError: a secret leads nowhere.
        """
        if isinstance(place, FolderPlace):
            with FolderStore.create(place.folder) if create else FolderStore(place.folder) as store:
                yield store
        elif isinstance(place, SftpPlace):
            from opsd.storage.sftp import SftpStore  # noqa: PLC0415 - paramiko: half a second that others need not pay

            options = self._sftp(place)
            with SftpStore.create(options) if create else SftpStore(options) as server:
                yield RetryingStore(server, self.attempts)
        else:
            from opsd.storage.s3 import S3Store  # noqa: PLC0415 - likewise boto3

            bucket = self._s3(place)
            with S3Store.create(bucket, self.clock) if create else S3Store(bucket, self.clock) as objects:
                yield RetryingStore(objects, self.attempts)

    def _sftp(self, place: SftpPlace) -> "SftpOptions":
        from opsd.storage.sftp_session import SftpOptions  # noqa: PLC0415 - as above

        return SftpOptions(
            host=place.host,
            port=place.port,
            user=place.user,
            path=place.path,
            key=self._key_file(place.key),
            known_hosts=place.known_hosts,
        )

    def _key_file(self, reference: Mapping[str, Any]) -> Path:
        """The file of a private key; what is no file becomes one for the time of the session."""
        if "file" in reference:
            return Path(reference["file"])
        path = self.scratch() / f"key-{secrets.token_hex(8)}"
        path.touch(mode=0o600)
        path.write_bytes(resolve(reference, self.reporter) + b"\n")
        return path

    def _s3(self, place: S3Place) -> "S3Options":
        from opsd.storage.s3_client import S3Options  # noqa: PLC0415 - as above

        prefix = place.prefix.strip("/")
        return S3Options(
            bucket=place.bucket,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=place.endpoint,
            region=place.region,
            access_key=self._text(place.access_key),
            secret_key=self._text(place.secret_key),
            object_lock_days=place.object_lock_days,
            storage_class=place.storage_class,
        )

    def _text(self, reference: Mapping[str, Any] | None) -> str | None:
        return None if reference is None else resolve(reference, self.reporter).decode()

"""Where copies are, and from where they come, as the configuration states it.

Promise: plain values; secrets are references, and nothing is opened here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsd.values import dataclass

#: A reference to a secret; `opsd.credentials` follows it.
Reference = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPlace:
    """A folder of a local or mounted disk."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftpPlace:
    """A folder on an SFTP server. `path` is absolute, or relative to where the login leads."""

    host: str
    user: str
    path: str
    key: Reference
    known_hosts: Path
    port: int = 22

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """A prefix of a bucket; without an endpoint AWS's own, without keys those that the machine has."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: Reference | None = None
    secret_key: Reference | None = None
    object_lock_days: int | None = None
    storage_class: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


StorePlace = FolderPlace | SftpPlace | S3Place

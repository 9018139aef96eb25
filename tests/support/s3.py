"""Real S3 servers on loopback, each with its own manners: moto's (conditions, object lock, no checksums), the same behind a
check of checksums as AWS makes it, and rclone's (neither conditions nor SHA-256, but MD5).
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from opsd.storage.s3_client import S3Options, make_client

KEY, SECRET = "AKIDOPSDTESTS", "secret-of-tests"
_ROOT = Path(__file__).parents[2]
_numbers = count()


_client = lru_cache(make_client)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server; `folder` holds its log, and what it serves if that is a folder."""

    port: int
    folder: Path

    def options(self, bucket: str, *, port: int | None = None, **more: Any) -> S3Options:
        """How to reach a bucket, by default not through anything."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        own = S3Options(
            bucket=bucket, prefix="host/", endpoint=endpoint, access_key=KEY, secret_key=SECRET, timeout=20.0
        )
        return replace(own, **more)

    def client(self) -> Any:
        """For what only an administrator does."""
        return _client(self.options("any"))

    def new_bucket(self, **more: Any) -> str:
        """An empty bucket of its own for each test."""
        name = f"bucket-{next(_numbers)}"
        self.client().create_bucket(Bucket=name, **more)
        return name


@contextmanager
def _running(command: Sequence[str], folder: Path) -> Iterator[S3Server]:
    """A server that tells its port on its standard error."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=_ROOT)
    assert process.stderr is not None
    log = (folder / "log").open("w")
    try:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            pytest.fail(f"{command[0]} does not start")
        # Nobody reads on: what it says from now on goes where it blocks nothing.
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)
        try:
            yield S3Server(port=int(found[1]), folder=folder)
        finally:
            process.terminate()
            process.wait()
            reader.wait()
    finally:
        process.stderr.close()
        log.close()


@contextmanager
def moto_server(folder: Path, *, checks: bool) -> Iterator[S3Server]:
    """moto's server; with `checks` it refuses bytes that do not match their checksum, as AWS does."""
    with _running([sys.executable, "-m", "tests.support.moto_s3", *(["checks"] if checks else [])], folder) as server:
        yield server


@contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """rclone's server on a folder."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or pytest.skip("rclone is not installed")
    (folder / "served").mkdir()
    serve = ["serve", "s3", "--config", "/dev/null", "--auth-key", f"{KEY},{SECRET}", "--addr", "127.0.0.1:0"]
    with _running([program, *serve, str(folder / "served")], folder) as server:
        yield server

"""Servers of stores that live as long as the test session: name this module in `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.support.s3 import S3Server, moto_server, rclone_server
from tests.support.sshd import Server, running_server


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Conditions and object lock; checks no checksum."""
    with moto_server(tmp_path_factory.mktemp("moto"), checks=False) as server:
        yield server


@pytest.fixture(scope="session")
def checking_moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """All that AWS does."""
    with moto_server(tmp_path_factory.mktemp("moto"), checks=True) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Neither conditions nor SHA-256, but MD5."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server

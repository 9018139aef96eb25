"""Servers of stores that live as long as the test session: name this module in `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.support.sshd import Server, running_server


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[Server]:
    with running_server() as server:
        yield server

"""Servers that live as long as the test session, emptied for each test: name this module in `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.support.postgresql import Cluster, running_cluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_other_cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A server without databases or roles of other tests."""
    shared_cluster.clear()
    return shared_cluster


@pytest.fixture
def other_cluster(shared_other_cluster: Cluster) -> Cluster:
    """A second server, to restore into."""
    shared_other_cluster.clear()
    return shared_other_cluster

"""As whom a server is asked by root, whom it may know by another name."""

import os

import pytest

from opsd.sources.postgresql.server import Server
from tests.support.postgresql import Cluster

pytest_plugins = ["tests.support.clusters"]
pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others"),
]


@pytest.fixture
def server(cluster: Cluster) -> Server:
    """A server that lets nobody's role in by its system user alone."""
    cluster.execute("create role nobody login bypassrls in role pg_read_all_data; create role other login password 'x'")
    return Server(host=cluster.host, user="nobody")


def test_root_goes_through_the_system_user_of_the_roles_name(server: Server) -> None:
    assert server.within_reach().via == ("runuser", "-u", "nobody", "--")
    assert server.to(user="postgres").within_reach().via == ()


def test_what_root_can_not_become_is_asked_as_it_is(server: Server) -> None:
    for same in (server.to(user="other"), server.to(host=None), server.to(password="x"), server.to(host="/nowhere")):
        assert same.within_reach() == same


def test_a_restore_by_root_is_the_superusers_where_the_role_may_only_read(server: Server, cluster: Cluster) -> None:
    assert server.for_restores().user == "postgres"
    assert server.to(user="other", password="x").for_restores().user == "postgres"
    cluster.execute("alter role nobody createdb")
    assert server.for_restores().user == "nobody"


def test_a_restore_into_a_server_that_is_down_is_left_to_say_so(server: Server) -> None:
    down = server.to(host="/nowhere")
    assert down.for_restores() == down

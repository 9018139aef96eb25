"""Databases taken and given back through the command line, on a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Desk
from tests.support.postgresql import Cluster, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server with two databases and a role."""
    with running_cluster() as cluster:
        cluster.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
        cluster.create(
            "shop",
            "CREATE TABLE orders (id int PRIMARY KEY, what text); INSERT INTO orders SELECT n, 'item ' || n FROM generate_series(1, 1000) n; ALTER TABLE orders OWNER TO clerk",
        )
        cluster.create("blog", "CREATE TABLE posts (id int); INSERT INTO posts VALUES (7)")
        yield cluster


def configured(folder: Path, server: Cluster) -> Desk:
    desk = Desk.at(folder).configured(
        f"db: {{postgresql: {{host: {server.host}, user: postgres, exclude: [postgres]}}}}"
    )
    desk.ok("init")
    return desk


def test_a_database_and_a_table_come_back_under_other_names_and_in_place(tmp_path: Path, server: Cluster) -> None:
    desk = configured(tmp_path, server)
    taken = desk.run("backup", "--json")
    assert taken.json["failures"] == []
    before = server.rows("SELECT count(*), sum(id) FROM orders", "shop")

    server.execute("DELETE FROM orders WHERE id > 10", "shop")
    plan = desk.ok("restore", "latest", "--database", "shop", "--as", "shop_then", "--plan", "--json").json
    assert [(each["database"], each["target"]) for each in plan["databases"]] == [("shop", "shop_then")]
    done = desk.run("restore", "latest", "--database", "shop", "--as", "shop_then", "--json")
    assert done.code in {0, 3}, done
    assert server.rows("SELECT count(*), sum(id) FROM orders", "shop_then") == before

    desk.run("restore", "latest", "--database", "shop", "--as", "drill", "--table", "public.orders")
    assert server.rows("SELECT count(*), sum(id) FROM orders", "drill") == before
    assert server.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'", "drill") == [("orders_pkey",)]

    refused = desk.run("restore", "latest", "--database", "shop")
    assert refused.code == 1
    assert "--in-place" in refused.err
    desk.run("restore", "latest", "--database", "shop", "--in-place", "--yes", "--no-safety-snapshot")
    assert server.rows("SELECT count(*), sum(id) FROM orders", "shop") == before


def test_all_databases_and_their_roles_come_back_to_an_empty_server(tmp_path: Path, server: Cluster) -> None:
    desk = configured(tmp_path, server)
    desk.run("backup")
    with running_cluster() as empty:
        other = desk.configured(f"db: {{postgresql: {{host: {empty.host}, user: postgres}}}}")
        done = other.run("restore", "latest", "--database", "shop", "--database", "bl*", "--roles", "--json")
        assert [each["error"] for each in done.json["databases"]] == [None, None], done
        assert empty.rows("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", "shop") == [("clerk",)]
        assert empty.rows("SELECT id FROM posts", "blog") == [(7,)]


def test_an_unknown_database_is_named_with_those_that_are_there(tmp_path: Path, server: Cluster) -> None:
    desk = configured(tmp_path, server)
    desk.run("backup")
    ran = desk.run("restore", "latest", "--database", "shpo", "--as", "x")
    assert ran.code == 1
    assert "shop" in ran.err


def test_a_server_that_is_down_fails_its_source_with_the_next_step(tmp_path: Path) -> None:
    desk = Desk.at(tmp_path).configured(
        f"db: {{postgresql: {{host: {tmp_path}, user: postgres}}}}\nm: {{command: {{run: [echo], name: m}}}}"
    )
    desk.ok("init")
    ran = desk.run("backup")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "pg_isready" in ran.err

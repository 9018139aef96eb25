"""A drill of PostgreSQL: green as it is, red with the name of whatever was changed in the throwaway server."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsd.app.drills import drill
from opsd.app.session import Access, Session
from opsd.errors import RestoreError
from opsd.events import Recorder
from opsd.verify.checks import Places
from opsd.verify.drill_record import DrillRecord
from opsd.verify.throwaway import find_programs
from tests.support.command_line import Desk
from tests.support.postgresql import Cluster, running_cluster

pytestmark = pytest.mark.slow

SCHEMA = """
create role app; create role "Odd role" in role app;
create table orders as select n as id, md5(n::text) as item from generate_series(1, 2000) n;
alter table orders add primary key (id); create index by_item on orders (item); grant select on orders to app;
create table lines (id int references orders (id), note text); insert into lines values (1, 'a'), (2, 'b');
create materialized view summary as select count(*) from orders;
create table early (a int); insert into early values (1); create publication early for table early;
create table spaced (a int) tablespace own; insert into spaced values (1);
"""
CHECKS = """drill:
  scratch: {folder}/scratch
  checks:
    - {{source: shop, database: shop, sql: "select count(*) = 2000 from orders"}}
    - {{source: shop, database: shop, sql: "select count(*) from orders", live: 5%}}
    - {{source: shop, database: shop, sql: "update orders set item = 'x' where id = 1 returning id", live: "0"}}
    - {{source: shop, database: shop, sql: "select pg_sleep(60)", timeout: 0.2s}}
    - {{source: shop, database: shop, sql: "select true; select false"}}
    - {{source: shop, database: shop, sql: "select nothing from nowhere"}}
    - {{source: shop, database: gone, sql: "select true"}}
    - {{source: shop, database: shop, sql: "select 'NaN'::float8", live: 5%}}
    - {{source: shop, command: [sh, -c, "test -S $PGHOST/.s.PGSQL.$PGPORT || test -n $PGUSER"]}}"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Cluster]]:
    """A host with a server of two databases, drilled from the repository itself. The way to scratch is closed and long."""
    folder = tmp_path_factory.mktemp("host") / ("x" * 100)
    with running_cluster() as cluster:
        space = cluster.folder / "space"
        space.mkdir()
        shutil.chown(space, (cluster.folder / "main").owner())
        cluster.execute(f"create tablespace own location '{space}'")
        cluster.create("shop", SCHEMA)
        cluster.create("empty")
        desk = Desk.at(folder)
        source = f"shop: {{postgresql: {{host: {cluster.host}, user: postgres}}}}"
        desk = desk.configured(source, CHECKS.format(folder=folder))
        desk.ok("init")
        desk.ok("backup")
        yield desk, cluster


def drilled(desk: Desk, between: Callable[[Places], None] | None = None, *, seed: bool = False) -> DrillRecord:
    with Session(Access(configuration=desk.environment["OPSD_CONFIG"]), Recorder()) as session:
        record = drill(session, seed=seed, shown=str, between=between)
    assert [path.name for path in (desk.folder / "scratch").iterdir()] == [".opsd-drill.lock"]
    return record


def problems(record: DrillRecord, subject: str = "shop") -> set[str]:
    return {each["problem"] for each in record.deviations if (each["source"], each["subject"]) == ("shop", subject)}


def test_databases_come_back_whole_and_only_failing_checks_deviate(host: tuple[Desk, Cluster]) -> None:
    desk, cluster = host
    before = set(os.listdir(cluster.folder / "space"))
    isolated: list[bool] = []

    def look(places: Places) -> None:
        server = places.servers["shop"]
        with server.session("shop") as session:
            shown = {
                name: session.rows(f"show {name}")[0][0] for name in ("listen_addresses", "autovacuum", "archive_mode")
            }
            assert shown == {"listen_addresses": "", "autovacuum": "off", "archive_mode": "off"}
            (space,) = session.rows("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'own'")
            isolated.append("spaces" in (space[0] or ""))

    record = drilled(desk, look)
    assert isolated == [True]
    assert set(os.listdir(cluster.folder / "space")) == before
    assert {each["problem"] for each in record.deviations} == {
        "canceling statement due to statement timeout",
        "several statements, where one is asked: the answers of the others would not count",
        "the live database can't be asked: cannot execute UPDATE in a read-only transaction",
        'relation "nowhere" does not exist LINE 1: select nothing from nowhere ^',
        "was not run: the snapshot has no database gone",
        "must return a number",
    }
    assert {each["severity"] for each in record.deviations if "gone" in each["subject"]} == {"red"}
    assert [check["passed"] for check in record.checks] == [True, True, *[False] * 5, True, False]
    (source,) = record.sources
    assert (source["databases"], source["rows"]) == (3, 2004)
    assert any("repository itself" in notice for notice in record.notices)


def test_whatever_changed_in_the_throwaway_server_is_red_and_named(host: tuple[Desk, Cluster]) -> None:
    def damage(places: Places) -> None:
        with places.servers["shop"].session("shop") as session:
            session.run("delete from public.lines where id = 1; update public.orders set item = 'x' where id = 7")
            session.run(
                "drop table public.spaced; create table public.more (a int); refresh materialized view public.summary"
            )
            session.run("update pg_index set indisvalid = false where indexrelid = 'public.by_item'::regclass")
            session.run(
                'alter table public.lines add constraint positive check (id > 0) not valid; drop role "Odd role"'
            )

    record = drilled(host[0], damage)
    assert problems(record) == {
        "public.lines has 1 rows instead of 2",
        "public.orders has other content in its 2000 rows",
        "public.spaced is missing",
        "public.more is there and not in the snapshot",
        "index public.by_item is not valid",
        "constraint positive of public.lines is not validated",
    }
    assert problems(record, "roles") == {"role Odd role is missing"}
    assert record.exit_code == 4


def test_a_database_that_vanished_is_red_and_a_seeded_failure_is_found(host: tuple[Desk, Cluster]) -> None:
    def damage(places: Places) -> None:
        with places.servers["shop"].session() as session:
            session.run("drop database empty")

    record = drilled(host[0], damage, seed=True)
    assert any("can't be compared" in each for each in problems(record, "empty"))
    assert [(each["kind"], each["found"]) for each in record.faults] == [("row of PostgreSQL", True)]


def test_where_scratch_is_smaller_than_the_snapshot_one_database_after_the_other_is_proved(
    host: tuple[Desk, Cluster],
) -> None:
    desk = host[0]
    scratch = desk.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=56m", "none", scratch], check=False).returncode
    ):
        pytest.skip("only root can mount a small disk")

    def damage(places: Places) -> None:
        for name in places.databases["shop"]:
            with places.servers["shop"].session(name) as session:
                if name == "shop":
                    session.run("delete from public.lines where id = 2")

    try:
        record = drilled(desk, damage)
    finally:
        subprocess.run(["umount", scratch], check=True)
    assert record.pieces == 3
    assert "public.lines has 1 rows instead of 2" in problems(record)
    assert (record.sources[0]["databases"], record.sources[0]["rows"]) == (3, 2004)
    assert [check["passed"] for check in record.checks] == [True, True, *[False] * 7]
    assert "scratch is too small" in record.checks[-1]["problem"]


def test_a_version_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RestoreError, match="PostgreSQL 9 is needed") as caught:
        find_programs(90_000)
    assert "install postgresql-9" in (caught.value.hint or "")
    with pytest.raises(RestoreError, match="found: none"):
        find_programs(150_000, (str(tmp_path),))

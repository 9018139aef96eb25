"""Real servers, dumped as a run dumps them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsd.backup.snapshot import Planned
from opsd.backup.streams import StreamBackup
from opsd.backup.work import Job, Result
from opsd.clock import SystemClock
from opsd.errors import SourceError
from opsd.events import Recorder
from opsd.model import Outcome
from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.databases import file_name
from opsd.sources.postgresql.dumps import Dumps
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.postgresql.source import PostgresqlStreams
from opsd.sources.protocol import Stream
from tests.support.engine import World
from tests.support.postgresql import Cluster, running_cluster
from tests.support.taking import EXOTIC, LARGE_OBJECT, ODD_NAMES, read_all, source, take

pytest_plugins = ["tests.support.clusters"]
pytestmark = pytest.mark.postgresql

ROLE = "create role backup login bypassrls password 'secret' in role pg_read_all_data"
AS_ROLE = {"user": "backup", "password_text": "secret"}


class _Dropping(PostgresqlStreams):
    """Drops the database called brief between its being listed and its being read."""

    dropped: Cluster

    @contextmanager
    def streams(self) -> Iterator[Iterator[Stream]]:
        with super().streams() as found:
            streams = list(found)
            self.dropped.drop("brief")
            yield iter(streams)


def test_every_database_is_found_and_roles_come_first(cluster: Cluster) -> None:
    cluster.create("b_shop", "create table t as select 1 as one")
    cluster.create("a_shop")
    taken = take(cluster, parallel=1)
    assert list(taken.streams) == ["/globals.sql", "/a_shop.dump", "/b_shop.dump", "/postgres.dump"]
    assert b"CREATE ROLE postgres" in taken.streams["/globals.sql"]
    assert taken.streams["/b_shop.dump"].startswith(b"PGDMP")
    assert not taken.failures
    assert taken.warnings == 0


def test_patterns_choose_databases(cluster: Cluster) -> None:
    for name in ("shop_1", "shop_2", "scratch_1"):
        cluster.create(name)
    taken = take(cluster, databases=("s*",), exclude=("scratch_*",))
    assert set(taken.streams) == {"/globals.sql", "/shop_1.dump", "/shop_2.dump"}


def test_a_named_database_that_is_not_there_fails_and_an_idle_pattern_warns(cluster: Cluster) -> None:
    taken = take(cluster, databases=("postgres", "shop", "crm_*"))
    assert set(taken.failures) == {"/shop.dump"}
    assert "no database shop" in str(taken.failures["/shop.dump"])
    assert "/postgres.dump" in taken.streams
    assert [warning.subject for warning in taken.recorder.warnings] == ["shop: crm_*"]


def test_databases_with_odd_names_are_dumped_under_safe_paths(cluster: Cluster) -> None:
    for name in ODD_NAMES:
        cluster.create(name, "create table t as select 1 as one")
    taken = take(cluster)
    assert not taken.failures
    for name in ODD_NAMES:
        assert taken.streams[f"/{file_name(name)}.dump"].startswith(b"PGDMP")
        assert taken.tables(name)["public.t"][0] == 1


def test_facts_know_rows_and_a_digest_of_each_table_with_rows(cluster: Cluster) -> None:
    cluster.create("shop", EXOTIC)
    tables = take(cluster).tables("shop")
    assert {name: rows for name, (rows, _) in tables.items()} == {
        "public.types": 3,
        "public.doubled": 3,
        "public.nothing": 1,
        "public.sales_2025": 183,
        "public.sales_2026": 117,
        "public.parent": 1,
        "public.child": 1,
        "public.loose": 1,
        '"Mixed.Case"."a ""table"", only"': 1,
    }
    assert all(len(digest) == 16 for _, digest in tables.values())
    assert take(cluster).facts["databases"]["shop"]["materialized_views"] == {"public.totals": 1}


def test_a_digest_depends_on_rows_alone(cluster: Cluster) -> None:
    fill = "create table t (a int, b text); insert into t values "
    cluster.create("one", fill + "(1, 'x'), (2, 'y'), (2, 'y')")
    cluster.create("reordered", fill + "(2, 'y'), (1, 'x'), (2, 'y')")
    cluster.create("fewer", fill + "(1, 'x'), (2, 'y'), (1, 'x')")
    cluster.create(
        "tokyo", "alter database tokyo set timezone = 'Asia/Tokyo'; alter database tokyo set bytea_output = 'escape'"
    )
    cluster.create(
        "paris", "alter database paris set datestyle = 'German'; alter database paris set extra_float_digits = -5"
    )
    times = "create table t as select '2026-01-01 00:00Z'::timestamptz a, '\\xff00'::bytea b, 0.1::float8 / 3 c"
    cluster.execute(times, "tokyo")
    cluster.execute(times, "paris")
    taken = take(cluster)
    assert taken.tables("one") == taken.tables("reordered")
    assert taken.tables("one") != taken.tables("fewer")
    assert taken.tables("tokyo") == taken.tables("paris")


def test_a_sampled_digest_counts_all_rows_and_sees_only_chosen_ones(cluster: Cluster) -> None:
    cluster.create(
        "shop",
        "create table t as select g as id, g as v from generate_series(1, 1000) g; alter table t add primary key (id)",
    )
    before = take(cluster, digest="10%").tables("shop")["public.t"]
    changed = []
    for number in range(1, 61):
        cluster.execute(f"update t set v = -1 where id = {number}", "shop")
        after = (
            take(cluster, databases=("shop",), digest="10%").tables("shop")["public.t"] if number % 20 == 0 else None
        )
        if after:
            changed.append(after != before)
            assert after[0] == 1000
    assert any(changed)
    chosen = cluster.rows(
        "select count(*) from t where ('x' || encode(substr(sha256(textsend(row(id)::text)), 1, 2), 'hex'))::bit(16)::int < 6554",
        "shop",
    )
    assert 60 < chosen[0][0] < 140


def test_without_a_digest_the_facts_hold_no_tables(cluster: Cluster) -> None:
    cluster.create("shop", "create table t as select 1 as one")
    taken = take(cluster, digest="off")
    assert taken.tables("shop") == {}
    assert taken.streams["/shop.dump"].startswith(b"PGDMP")


def test_rows_written_after_the_dump_began_are_in_neither_dump_nor_digest(cluster: Cluster) -> None:
    cluster.create("shop", "create table t as select g from generate_series(1, 100) g")
    streams = source(cluster, databases=("shop",))
    with streams.streams() as found:
        _, shop = found
        with shop.open() as reader:
            cluster.execute("insert into t values (0)", "shop")
            content = read_all(reader)
    assert streams.facts()["databases"]["shop"]["tables"]["public.t"][0] == 100
    assert b"\n0\n" not in content


def test_a_large_database_comes_in_parts_of_one_snapshot(cluster: Cluster) -> None:
    cluster.create("big", EXOTIC + "; create table more as select g, repeat('x', 100) from generate_series(1, 2000) g")
    cluster.execute(LARGE_OBJECT, "big")
    whole = take(cluster, databases=("big",))
    streams = source(cluster, databases=("big",), parallel_bytes=1, parallel=3)
    contents = {}
    with streams.streams() as found:
        for stream in found:
            with stream.open() as reader:
                contents[stream.path.decode()] = read_all(reader)
            if stream.path == b"/big/pre-data.dump":
                cluster.execute("insert into more values (0, 'tardy'); update doubled set v = 'tardy'", "big")
    names = ["pre-data", "data-000", "data-001", "data-002", "post-data"]
    assert list(contents) == ["/globals.sql", *(f"/big/{name}.dump" for name in names)]
    facts = streams.facts()["databases"]["big"]
    assert facts["streams"] == [f"/big/{name}.dump" for name in names]
    assert facts["tables"] == whole.tables("big")
    assert not any(b"tardy" in content for content in contents.values())
    assert cluster.rows("select count(*) from pg_stat_activity where datname = 'big'") == [(0,)]


def test_a_database_dropped_after_it_was_listed_is_a_warning(cluster: Cluster) -> None:
    cluster.create("brief")
    cluster.create("lasting")
    recorder = Recorder()
    streams = source(cluster, recorder, databases=("brief", "lasting"))
    with streams.streams() as found:
        _, brief, lasting = found
        cluster.drop("brief")
        with pytest.raises(SourceError, match="was dropped"), brief.open():
            pass
        with lasting.open() as reader:
            assert read_all(reader)
    assert [(warning.subject, warning.problem) for warning in recorder.warnings] == [
        ("shop: brief", "was dropped while the backup ran")
    ]
    assert streams.warnings == 1
    assert list(streams.facts()["databases"]) == ["lasting"]


def test_a_backup_holds_what_was_taken_and_passes_over_what_vanished(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("brief", "lasting"):
        cluster.create(name, "create table t as select 1 as a")
    options = PostgresqlSource(host=cluster.host, user="postgres", databases=("brief", "lasting"))
    streams = _Dropping("shop", options, reporter=Recorder(), clock=SystemClock())
    streams.dropped = cluster

    def work(job: Job) -> Result:
        return StreamBackup(job, streams, "postgresql").back_up()

    world = World.new(tmp_path)
    report = world.backup(Planned(label="shop", kind="postgresql", work=work))
    assert report.outcome is Outcome.WARNINGS
    assert sorted(world.contents()) == ["shop:/globals.sql", "shop:/lasting.dump"]
    assert report.failures == {}


def test_a_database_that_lets_nobody_in_fails_and_the_others_go_on(cluster: Cluster) -> None:
    cluster.execute(ROLE)
    cluster.create("closed")
    cluster.execute("revoke connect on database closed from public")
    cluster.create("open_1")
    taken = take(cluster, **AS_ROLE)
    assert set(taken.failures) == {"/closed.dump"}
    error = taken.failures["/closed.dump"]
    assert "closed" in str(error)
    assert error.hint == 'GRANT CONNECT ON DATABASE "closed" TO "backup";'
    assert set(taken.streams) == {"/globals.sql", "/open_1.dump", "/postgres.dump"}
    assert set(taken.facts["databases"]) == {"open_1", "postgres"}


def test_the_recommended_role_suffices_for_everything(cluster: Cluster) -> None:
    cluster.execute(ROLE)
    cluster.create(
        "shop", EXOTIC + "; create policy p on doubled using (false); alter table doubled enable row level security"
    )
    taken = take(cluster, **AS_ROLE)
    assert not taken.failures
    assert taken.warnings == 0
    assert taken.tables("shop")["public.doubled"][0] == 3
    assert taken.tables("shop") == take(cluster).tables("shop")
    assert b"SCRAM-SHA-256" in taken.streams["/globals.sql"]
    assert taken.facts["passwords"] is True
    assert taken.recorder.lines == []


def test_roles_are_saved_without_passwords_where_they_may_not_be_read_and_it_is_said(cluster: Cluster) -> None:
    cluster.execute("create role backup login password 'secret'")
    taken = take(cluster, **AS_ROLE)
    assert not taken.failures
    assert taken.warnings == 0
    assert taken.facts["passwords"] is False
    assert "without their passwords" in taken.recorder.lines[0]
    assert b"CREATE ROLE backup" in taken.streams["/globals.sql"]
    assert b"SCRAM" not in taken.streams["/globals.sql"]


def test_large_objects_need_a_setting_that_the_error_names(cluster: Cluster) -> None:
    cluster.execute(ROLE)
    cluster.create("shop", LARGE_OBJECT)
    error = take(cluster, **AS_ROLE).failures["/shop.dump"]
    assert error.hint == 'ALTER ROLE "backup" SET lo_compat_privileges = on;'
    cluster.execute(error.hint)
    assert not take(cluster, **AS_ROLE).failures


@pytest.mark.parametrize("digest", ["full", "off"])
def test_a_role_that_may_not_read_a_table_is_told_the_sql_that_allows_it(cluster: Cluster, digest: str) -> None:
    cluster.execute("create role backup login password 'secret'")
    cluster.create("shop", 'create schema "S"; grant usage on schema "S" to backup; create table "S".secrets (a int)')
    error = take(cluster, digest=digest, databases=("shop",), **AS_ROLE).failures["/shop.dump"]
    assert 'may not read table "S".secrets' in str(error)
    assert error.hint
    statement = error.hint.split(" (")[0]
    assert statement == 'GRANT SELECT ON "S".secrets TO backup;'
    cluster.execute(statement, "shop")
    assert not take(cluster, digest=digest, databases=("shop",), **AS_ROLE).failures


def test_row_security_is_an_error_and_never_a_filter(cluster: Cluster) -> None:
    cluster.execute("create role backup login password 'secret' in role pg_read_all_data")
    cluster.create(
        "shop",
        "create table t as select 1 as a; create policy p on t using (false); alter table t enable row level security",
    )
    error = take(cluster, databases=("shop",), **AS_ROLE).failures["/shop.dump"]
    assert "may not read rows of table public.t" in str(error)
    assert error.hint
    assert "ALTER ROLE backup BYPASSRLS;" in error.hint


def test_a_server_that_is_down_is_said_at_once(tmp_path: Path) -> None:
    nowhere = Cluster(folder=tmp_path, programs=tmp_path)
    with pytest.raises(SourceError, match="can't connect to database postgres") as caught:
        take(nowhere)
    assert caught.value.hint
    assert "check that the server runs" in caught.value.hint


@pytest.mark.parametrize(
    "user, password, expected",
    [
        ("backup", "wrong", "check 'user' and 'password' of this source"),
        ("backup", None, "check 'user' and 'password' of this source"),
        ("peer_only", None, "add a line to pg_ident.conf"),
    ],
)
def test_a_refused_role_gets_a_next_step(cluster: Cluster, user: str, password: str | None, expected: str) -> None:
    cluster.execute(f"{ROLE}; create role peer_only login")
    with pytest.raises(SourceError) as caught:
        take(cluster, user=user, password_text=password)
    assert caught.value.hint
    assert expected in caught.value.hint
    assert "wrong" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
def test_root_is_let_in_as_the_system_user_of_the_roles_name(cluster: Cluster) -> None:
    cluster.execute("create role nobody login bypassrls in role pg_read_all_data")
    cluster.create("shop", "create table t as select 1 as one")
    taken = take(cluster, user="nobody")
    assert not taken.failures
    assert sorted(taken.streams) == ["/globals.sql", "/postgres.dump", "/shop.dump"]


def test_the_password_is_in_no_arguments(cluster: Cluster, tmp_path: Path) -> None:
    cluster.execute(ROLE)
    log = tmp_path / "arguments"
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec "$@"\n')
    wrapper.chmod(0o755)
    taken = take(cluster, via=(str(wrapper),), **AS_ROLE)
    assert not taken.failures
    assert "pg_dump " in log.read_text()
    assert "secret" not in log.read_text()


@pytest.mark.parametrize("parallel_bytes", [1, 10**9])
def test_clients_that_run_elsewhere_give_the_same(cluster: Cluster, parallel_bytes: int) -> None:
    for name in ("shop", "my db"):
        cluster.create(name, EXOTIC)
    here = take(cluster, parallel_bytes=parallel_bytes)
    there = take(cluster, parallel_bytes=parallel_bytes, via=("env", "OPSD_ELSEWHERE=1"))
    assert not there.failures
    assert there.facts == here.facts
    assert {path: len(content) for path, content in there.streams.items()} == {
        path: len(content) for path, content in here.streams.items()
    }


@pytest.fixture
def mortal() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster
        cluster.start()


def _read_while_it_dies(stream: Stream, cluster: Cluster) -> None:
    with stream.open() as reader:
        reader.readinto(memoryview(bytearray(1000)))
        cluster.stop()
        read_all(reader)


def test_a_server_that_dies_half_way_fails_each_stream_with_a_next_step(mortal: Cluster) -> None:
    fill = "create table t as select g, repeat(md5(g::text), 40) from generate_series(1, 20000) g"
    mortal.create("shop", fill)
    mortal.create("then")
    streams = source(mortal, databases=("shop", "then"))
    with streams.streams() as found:
        _, shop, then = found
        with pytest.raises(SourceError, match="database shop") as caught:
            _read_while_it_dies(shop, mortal)
        assert caught.value.hint
        assert "went away" in caught.value.hint or "check that the server runs" in caught.value.hint
        with pytest.raises(SourceError, match="database then"), then.open():
            pass
    assert streams.facts()["databases"] == {}


def test_programs_older_than_the_server_are_refused_beforehand(cluster: Cluster, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\ncase "$1" in pg_dump) echo "pg_dump (PostgreSQL) 12.9";; *) exec "$@";; esac\n')
    old.chmod(0o755)
    with pytest.raises(SourceError, match=r"at least as new; found: 12\.9") as caught:
        take(cluster, via=(str(old),))
    assert caught.value.hint
    major = cluster.programs.parent.name
    assert f"install postgresql-client-{major}" in caught.value.hint


def test_a_reader_that_stops_early_fails_the_stream_and_leaves_no_session(cluster: Cluster) -> None:
    cluster.create("shop", "create table t as select g, repeat('x', 100) from generate_series(1, 30000) g")
    streams = source(cluster, databases=("shop",))
    with streams.streams() as found:
        _, shop = found
        with pytest.raises(SourceError, match="not read to its end"), shop.open() as reader:
            reader.readinto(memoryview(bytearray(10)))
        with pytest.raises(KeyError), shop.open() as reader:
            raise KeyError
    assert streams.facts()["databases"] == {}
    assert cluster.rows("select count(*) from pg_stat_activity where datname = 'shop'") == [(0,)]


def test_a_lock_that_is_never_given_is_given_up_with_a_next_step(cluster: Cluster) -> None:
    cluster.create("shop", "create table t (a int)")
    server = Server(host=cluster.host, user="postgres", lock_seconds=1)
    dumps = Dumps(server=server, tools=server.tools(), share=1.0)
    with cluster.connect("shop") as holder:
        holder.autocommit = False
        holder.execute("lock table t in access exclusive mode")
        with pytest.raises(ServerProblem, match="lock timeout") as caught, dumps.exported("shop"):
            pass
    explained = dumps.explained("shop", caught.value)
    assert explained.hint
    assert "pg_locks" in explained.hint


def test_what_is_not_configured_comes_from_libpqs_environment(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", cluster.host)
    monkeypatch.setenv("PGUSER", "postgres")
    assert os.environ["PGHOST"]
    assert "/postgres.dump" in take(cluster, host=None, user=None).streams

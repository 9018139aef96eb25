"""What a role lacks on a real server, and the statements that give it."""

from opsd.sources.options import PostgresqlSource
from opsd.verify.doctor_postgresql import server
from opsd.verify.findings import Finding, State
from tests.support.postgresql import Cluster

pytest_plugins = ["tests.support.clusters"]
PASSWORD = "for tests"


def look(cluster: Cluster, **options: object) -> list[Finding]:
    """All but what is said of the programs' version, which depends on the machine."""
    source = PostgresqlSource(host=cluster.host, user="opsd", **options)  # type: ignore[arg-type]
    return [each for each in server("pg", source, PASSWORD) if "pg_restore" not in each.text]


def role(cluster: Cluster, more: str = "") -> None:
    cluster.execute(f"create role opsd login password '{PASSWORD}' {more}")


def mended(cluster: Cluster, found: list[Finding], database: str) -> list[Finding]:
    """The same after every statement was carried out as it was printed."""
    for each in found:
        assert each.next_step
        cluster.execute(each.next_step.removeprefix("as a superuser: "), database)
    return look(cluster)


def test_a_role_made_as_the_documents_say_lacks_nothing(cluster: Cluster) -> None:
    role(cluster, "bypassrls in role pg_read_all_data")
    cluster.create("shop", "create table orders (a int); alter table orders enable row level security")
    (found,) = look(cluster)
    assert found.state is State.OK
    assert "opsd reads 2 databases" in found.text


def test_a_table_that_the_role_may_not_read_comes_with_the_statement(cluster: Cluster) -> None:
    role(cluster)
    cluster.create("shop", "create table orders (a int)")
    found = look(cluster)
    assert [each.state for each in found] == [State.FAILED]
    assert "public.orders" in found[0].text
    assert found[0].next_step == 'GRANT pg_read_all_data TO "opsd"; ALTER ROLE "opsd" BYPASSRLS;'
    assert [each.state for each in mended(cluster, found, "shop")] == [State.OK]


def test_rows_that_row_level_security_hides_fail_the_night(cluster: Cluster) -> None:
    role(cluster, "in role pg_read_all_data")
    cluster.create("shop", "create table orders (a int); alter table orders enable row level security")
    found = look(cluster)
    assert "rows of table public.orders" in found[0].text
    assert [each.state for each in mended(cluster, found, "shop")] == [State.OK]


def test_a_database_that_lets_nobody_in_is_told_with_its_statement(cluster: Cluster) -> None:
    role(cluster, "bypassrls in role pg_read_all_data")
    cluster.create("shop")
    cluster.execute("revoke connect on database shop from public")
    found = look(cluster)
    assert [each.text for each in found] == ["shop: opsd may not connect"]
    assert [each.next_step for each in found] == ['GRANT CONNECT ON DATABASE "shop" TO "opsd";']
    assert [each.state for each in mended(cluster, found, "postgres")] == [State.OK]


def test_large_objects_of_others_are_told_with_their_statement(cluster: Cluster) -> None:
    role(cluster, "bypassrls in role pg_read_all_data")
    cluster.create("shop", "select lo_from_bytea(0, 'x')")
    found = look(cluster)
    assert "1 large objects" in found[0].text
    assert [each.state for each in mended(cluster, found, "postgres")] == [State.OK]


def test_a_role_that_reads_all_of_today_only_is_a_warning(cluster: Cluster) -> None:
    role(cluster)
    (found,) = look(cluster)
    assert found.state is State.WARNING
    assert "tomorrow" in found.text


def test_databases_that_no_pattern_names_are_told_and_excluded_ones_are_not(cluster: Cluster) -> None:
    role(cluster, "bypassrls in role pg_read_all_data")
    for name in ("shop", "scratch", "crm"):
        cluster.create(name)
    found = look(cluster, databases=("shop", "gone"), exclude=("scratch",))
    assert [(each.state, each.text) for each in found[:2]] == [
        (State.FAILED, "there is no database gone"),
        (State.WARNING, "nothing takes the databases crm, postgres"),
    ]


def test_a_server_that_does_not_let_us_in_fails_with_the_next_step(cluster: Cluster) -> None:
    (found,) = look(cluster)
    assert found.state is State.FAILED
    assert found.next_step == "check 'user' and 'password' of this source"

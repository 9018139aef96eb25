"""How a large database is split, and what of pg_dump's words is a warning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.sources.postgresql.dump import NAMED_TABLES, balanced, complaints, dumping, parts
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.postgresql.tables import Table
from tests.support.taking import read_all


def table(name: str, size: int, kind: str = "r") -> Table:
    return Table(schema="public", name=name, kind=kind, size=size)


def test_parts_come_in_the_order_of_a_restore_and_rows_stand_in_exactly_one() -> None:
    tables = [table("a", 10), table("b", 90), table("c", 50), table("m", 1, "m"), table("p", 0, "p")]
    found = parts(tables, 2)
    assert [part.name for part in found] == ["pre-data.dump", "data-000.dump", "data-001.dump", "post-data.dump"]
    assert found[1].arguments == ("--section=data", '--exclude-table-data="public"."b"')
    assert found[2].arguments == ("--section=data", "--strict-names", '--table="public"."b"')
    assert [[each.name for each in part.tables] for part in found] == [[], ["c", "a", "m"], ["b"], []]


def test_a_database_without_tables_still_has_a_part_for_its_sequences_and_large_objects() -> None:
    assert [part.name for part in parts([], 4)] == ["pre-data.dump", "data-000.dump", "post-data.dump"]


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 6))
def test_every_table_is_in_one_group_and_no_group_outweighs_the_lightest_by_more_than_a_table(
    sizes: list[int], count: int
) -> None:
    tables = [table(str(number), size) for number, size in enumerate(sorted(sizes, reverse=True))]
    groups = balanced(tables, count)
    assert sorted(each.name for group in groups for each in group) == sorted(each.name for each in tables)
    weights = [sum(each.size for each in group) for group in groups]
    assert max(weights) - (min(weights) if len(groups) == count else 0) <= max(sizes, default=0)


def test_beyond_the_largest_tables_none_is_named() -> None:
    tables = [table(str(number), 1) for number in range(NAMED_TABLES + 500)]
    found = parts(tables, 2)
    assert max(len(part.arguments) for part in found) <= NAMED_TABLES + 2
    assert sum(len(part.tables) for part in found) == NAMED_TABLES + 500


def test_warnings_are_told_with_their_details_and_circular_keys_are_none() -> None:
    said = (
        "pg_dump: warning: subscriptions not dumped because current user is not a superuser\n"
        "pg_dump: warning: there are circular foreign-key constraints on this table:\n"
        "pg_dump: detail: t\n"
        "pg_dump: hint: You might not be able to restore the dump\n"
        "pg_dump: warning: odd thing\n"
        "pg_dump: detail: here\n"
    )
    assert complaints(said) == ["subscriptions not dumped because current user is not a superuser", "odd thing here"]


def test_a_program_that_writes_nothing_or_fails_is_a_problem() -> None:
    with pytest.raises(ServerProblem, match="true wrote nothing"), dumping(["true"], {}):
        pass
    with (
        pytest.raises(ServerProblem, match=r"sh exited with 3: no luck"),
        dumping(["sh", "-c", "echo no luck >&2; exit 3"], {}),
    ):
        pass


def test_a_program_that_fails_after_its_last_byte_is_a_problem() -> None:
    def read() -> None:
        with dumping(["sh", "-c", "echo all; exit 4"], {}) as dump:
            assert read_all(dump) == b"all\n"

    with pytest.raises(ServerProblem, match="sh exited with 4"):
        read()

"""Which databases are chosen, and under which file names they are kept; no server is asked."""

from hypothesis import given
from hypothesis import strategies as st

from opsd.sources.postgresql.databases import Database, choose, file_name


def found(*names: str) -> list[Database]:
    return [Database(name=name, size=0, valid=True, properties={}) for name in names]


def test_any_allowed_pattern_and_no_denied_one_chooses() -> None:
    choice = choose(found("crm", "shop_1", "shop_2", "Shop_3"), ("shop_*", "crm"), ("*_2",))
    assert [database.name for database in choice.databases] == ["crm", "shop_1"]
    assert (choice.absent, choice.idle) == ((), ())


def test_a_name_that_looks_like_a_pattern_is_found_by_itself() -> None:
    assert len(choose(found("odd[1]"), ("odd[1]",), ()).databases) == 1


def test_names_that_are_absent_and_patterns_that_are_idle_are_told_apart() -> None:
    choice = choose(found("shop"), ("shop", "crm", "x_*"), ())
    assert (choice.absent, choice.idle) == (("crm",), ("x_*",))


def test_file_names_are_readable_and_safe() -> None:
    names = {"shop": "shop", "a/b": "a%2Fb", "100%": "100%25", "..": "%2E.", "my db é": "my db é", "x.dump": "x%2Edump"}
    assert {name: file_name(name) for name in names} == names
    assert file_name("globals.sql") == "globals%2Esql"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8), unique=True))
def test_no_two_databases_and_no_stream_of_one_share_a_path(names: list[str]) -> None:
    paths = (
        {"/globals.sql"} | {f"/{file_name(name)}.dump" for name in names} | {f"/{file_name(name)}" for name in names}
    )
    assert len(paths) == 1 + 2 * len(names)
    assert all(path.count("/") == 1 and path not in {"/.", "/.."} for path in paths)

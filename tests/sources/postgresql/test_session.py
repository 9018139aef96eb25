"""Both ways to a server answer alike."""

from collections.abc import Iterator

import pytest

from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, Session
from tests.support.postgresql import Cluster

pytest_plugins = ["tests.support.clusters"]
pytestmark = pytest.mark.postgresql


@pytest.fixture(params=[(), ("env",)], ids=["psycopg", "psql"])
def session(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Session]:
    with Server(host=cluster.host, user="postgres", via=request.param).session() as session:
        yield session


def test_rows_are_text_or_none_whatever_stands_in_them(session: Session) -> None:
    odd = (
        "(values (1, 'a|b', null), (2, '', E'two\\nlines'), (3, '漢 :x :''y'' \\echo', '%s {}')) v(n, a, b) order by n"
    )
    assert session.rows(f"select n::text, a, b from {odd}") == [
        ("1", "a|b", None),
        ("2", "", "two\nlines"),
        ("3", "漢 :x :'y' \\echo", "%s {}"),
    ]


def test_no_rows_and_one_empty_text_are_told_apart(session: Session) -> None:
    assert session.rows("select ''::text where false") == []
    assert session.rows("select ''::text") == [("",)]
    assert session.rows("select null::text") == [(None,)]


def test_one_transaction_spans_several_calls(session: Session) -> None:
    session.run("begin; create temporary table t as select 'kept' as a")
    assert session.rows("select a from t") == [("kept",)]
    session.run("rollback")
    assert session.rows("select to_regclass('pg_temp.t')::text") == [(None,)]


@pytest.mark.parametrize(
    "statement, state, said",
    [
        ("select * from nowhere", "42P01", 'relation "nowhere" does not exist'),
        ("select 1/0", "22012", "division by zero"),
    ],
)
def test_errors_carry_the_servers_words_and_state(session: Session, statement: str, state: str, said: str) -> None:
    with pytest.raises(ServerProblem) as caught:
        session.rows(statement)
    assert caught.value.state == state
    assert str(caught.value).startswith(said)


def test_text_form_is_pinned_and_filters_are_off(session: Session) -> None:
    assert session.rows(
        "select '2026-01-01 00:00+09'::timestamptz::text, '\\x00ff'::bytea::text, current_setting('row_security')"
    ) == [("2025-12-31 15:00:00+00", "\\x00ff", "off")]


def test_a_client_that_is_not_there_is_a_problem() -> None:
    with pytest.raises(ServerProblem, match="can't be started"), Server(via=("opsd-no-such",)).session():
        pass

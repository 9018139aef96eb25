"""Compare a restored database with what its snapshot says of it.

Promise: the same question in the same text form as the backup asked, so that an empty answer means equal rows.
"""

from collections.abc import Collection, Mapping
from typing import Any

from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import Session
from opsd.sources.postgresql.tables import Table, digest, list_tables, share_of


def compare(
    server: Server, database: str, facts: Mapping[str, Any], digest_option: str, *, only: Collection[str] | None = None
) -> list[str]:
    """How a database differs from the facts of one, in lines for people; empty where it does not.

    `digest_option` is what the source's facts say under `digest`; `only` names the tables to look at.

    Raises:
        ServerProblem: the server can't be asked.
    """
    wanted: dict[str, list[Any]] = {
        name: counted for name, counted in facts["tables"].items() if only is None or name in only
    }
    if not wanted:
        return []
    with server.session(database) as session:
        session.run("begin transaction isolation level repeatable read, read only")
        found = {table.title: table for table in list_tables(session, keys=True) if table.kind == "r"}
        counted = _counted(session, [found[name] for name in wanted if name in found], digest_option)
    lines = [line for name, expected in wanted.items() if (line := _difference(name, expected, counted.get(name)))]
    if only is None:
        lines += [f"{name} is there and not in the snapshot" for name in found if name not in wanted]
    return lines


def _counted(session: Session, tables: list[Table], option: str) -> dict[str, tuple[int, str | None]]:
    return {table.title: counted for table, counted in digest(session, tables, share_of(option))}


def _difference(name: str, expected: list[Any], found: tuple[int, str | None] | None) -> str | None:
    rows, total = expected
    if found is None:
        return f"{name} is missing"
    if found[0] != rows:
        return f"{name} has {found[0]} rows instead of {rows}"
    if total is not None and found[1] != total:
        return f"{name} has other content in its {rows} rows"
    return None
